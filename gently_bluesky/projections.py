"""What images are in an array, and how they look from three sides.

A volume is read once, in blocks, and brought to the resolution it is wanted in as it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import InputError, LookupFailed

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["Grid", "Panel", "Projections", "panels", "project"]

ENLARGED = 8
"""Most pixels of a picture for one of the array, along an axis."""
MOST_PANELS = 8
BLOCK_BYTES = 32 * 2**20
"""Of what is read at once, unless one chunk is more."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One image or volume of an array, nothing read yet.

    Attributes
    ----------
    title
        What it is, for people.
    array
        With the axes ``axes`` alone.
    axes
        Which axis is ``y``, ``x`` and, where there are such, ``z`` and ``c`` (colours).
    """

    title: str
    array: LazyArray
    axes: dict[str, int]

    @property
    def has_steps(self) -> bool:
        """Whether y and x have steps of one unit, which a scale bar needs."""
        units = self.array.units
        return units[self.axes["y"]] == units[self.axes["x"]] == "micrometer"

    def step(self, dim: str) -> float:
        """Return the step along an axis in micrometres; in pixels, where that of y and x is not known."""
        axis = self.axes[dim]
        known = self.has_steps and self.array.units[axis] == "micrometer"
        return self.array.scale[axis] if known else 1.0

    def length(self, dim: str) -> int:
        """Return the elements along an axis; 1 where there is none."""
        return self.array.shape[self.axes[dim]] if dim in self.axes else 1

    def coarser(self, grid: Grid) -> tuple[Panel, int, int]:
        """Return it as it is best read for a picture, and how many pixels along y and x make one of that.

        A resolution that is stored with the array, where there is one that is coarser along y and x alone.
        """
        fy, fx = grid.factor(self, "y"), grid.factor(self, "x")
        if self.array.dtype.kind == "c":  # of which absolute values are shown
            return self, fy, fx
        y, x = (self.array.dims[self.axes[dim]] for dim in ("y", "x"))
        array, by = self.array.coarser({y: fy, x: fx})
        return Panel(self.title, array, self.axes), fy // by[y], fx // by[x]


# -- which images there are ----------------------------------------------------------------------------------


def panels(array: LazyArray, event: int = -1, name: str = "") -> list[Panel]:
    """Return the images or volumes of one event of an array: one for each view or channel. Reads nothing.

    Axes that are none of t, v, c, z, y and x are shown where they begin; no more than eight views are shown.

    Raises
    ------
    LookupFailed
        There is no such event.
    InputError
        It has no images.
    """
    title = name or array.name or "array"
    if "t" in array.dims:
        count = array.shape[array.dims.index("t")]
        array, number = _event(array, event)
        title = f"{title}[{number}] of {count} events" if count > 1 else title
    axes = _axes(array)
    if "c" not in axes:
        split = next((dim for dim in ("v", "c") if dim in array.dims and dim not in axes), None)
    else:
        split = "v" if "v" in array.dims else None
    if split is None:
        return [_panel(array, title)]
    axis = array.dims.index(split)
    names = array.channels or tuple(
        f"{split} {number} of {array.shape[axis]}" for number in range(array.shape[axis])
    )
    return [
        _panel(array[(slice(None),) * axis + (number,)], f"{title}, {name}")
        for number, name in enumerate(names[:MOST_PANELS])
    ]


def _event(array: LazyArray, event: int) -> tuple[LazyArray, int]:
    axis = array.dims.index("t")
    count = array.shape[axis]
    if not count:
        raise LookupFailed(f"{array!r} has no event to show yet; nothing was read")
    if not -count <= event < count:
        raise LookupFailed(
            f"expected an event from 0 to {count - 1}, or from -1, the last, down to {-count}, got {event} for "
            f"{array!r}; nothing was read"
        )
    return array[(slice(None),) * axis + (event,)], event % count


def _axes(array: LazyArray) -> dict[str, int]:
    """Return the axes of an image: by their names, or else the last two that are not views or channels."""
    dims = array.dims
    if array.dtype.kind not in "biufc":
        raise InputError(f"expected an array of numbers, got {array!r}; nothing was read")
    if "y" in dims and "x" in dims:
        found = {dim: dims.index(dim) for dim in ("z", "y", "x") if dim in dims}
    else:
        rest = [axis for axis, dim in enumerate(dims) if dim not in ("v", "c", "t")]
        if len(rest) < 2:
            raise InputError(
                f"expected an image, with axes y and x, got {array!r}; nothing was read; numbers are shown by "
                "run.plot() and run.table()"
            )
        found = {"y": rest[-2], "x": rest[-1]}
    if 0 in array.shape:
        raise InputError(f"expected an image with pixels, got {array!r}; nothing was read")
    if dims[-1] == "c" and array.shape[-1] in (3, 4) and max(found.values()) < array.ndim - 1:
        found["c"] = array.ndim - 1
    return found


def _panel(array: LazyArray, title: str) -> Panel:
    axes = _axes(array)
    more = [dim for axis, dim in enumerate(array.dims) if axis not in axes.values()]
    for dim in more:
        axis = array.dims.index(dim)
        title = f"{title}, {dim} 0 of {array.shape[axis]}"
        array = array[(slice(None),) * axis + (0,)]
    return Panel(title, array, _axes(array))


# -- reading, at the resolution of the picture ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixels of a picture: how large they are, and how many of the array's make one, along y and x."""

    pixel: float

    @classmethod
    def for_all(cls, shown: Sequence[Panel], longest: int) -> Grid:
        """Return one for panels that are to be compared, in whole multiples or parts of the finest pixel."""
        finest = min(min(one.step("y"), one.step("x")) for one in shown)
        longest_um = max(
            max(one.length("y") * one.step("y"), one.length("x") * one.step("x"))
            + (one.length("z") * one.step("z") if one.length("z") > 1 else 0)
            for one in shown
        )
        needed = longest_um / longest
        if needed > finest:
            return cls(finest * math.ceil(needed / finest - 1e-6))
        return cls(finest / min(ENLARGED, math.floor(finest / needed + 1e-6)))

    def factor(self, panel: Panel, dim: str) -> int:
        """Return how many of the array's pixels are averaged to one of the picture."""
        return max(1, round(self.pixel / panel.step(dim)))

    def pixels(self, panel: Panel, dim: str) -> int:
        """Return how many pixels of the picture an axis is long."""
        return max(1, round(panel.length(dim) * panel.step(dim) / self.pixel))


@dataclass(frozen=True, slots=True)
class Projections:
    """A panel from three sides; ``xz`` and ``zy`` are None of an image."""

    xy: NDArray[Any]
    xz: NDArray[Any] | None
    zy: NDArray[Any] | None

    @property
    def all(self) -> list[NDArray[Any]]:
        """Return those that there are."""
        return [one for one in (self.xy, self.xz, self.zy) if one is not None]


def project(panel: Panel, grid: Grid) -> Projections:
    """Read a panel block by block, each averaged along y and x to the picture's resolution, and project these.

    What is averaged already in storage is read instead, see `Panel.coarser`.
    """
    height, width = grid.pixels(panel, "y"), grid.pixels(panel, "x")
    panel, fy, fx = panel.coarser(grid)
    nz, ny, nx = panel.length("z"), -(-panel.length("y") // fy), -(-panel.length("x") // fx)
    more = () if "c" not in panel.axes else (3,)
    xy, xz, zy = (np.full((*sides, *more), np.nan, np.float32) for sides in ((ny, nx), (nz, nx), (ny, nz)))
    for z, y in _blocks(panel, fy):
        block = _binned(_binned(_read(panel, z, y), 1, fy), 2, fx)
        rows = slice(y.start // fy, y.start // fy + block.shape[1])
        xy[rows] = np.fmax(xy[rows], np.fmax.reduce(block, axis=0))
        xz[z] = np.fmax(xz[z], np.fmax.reduce(block, axis=1))
        zy[rows, z] = np.fmax.reduce(block, axis=2).swapaxes(0, 1)
    if nz == 1:
        return Projections(_resized(xy, (height, width)), None, None)
    deep = grid.pixels(panel, "z")
    sides = _resized(xy, (height, width)), _resized(xz, (deep, width)), _resized(zy, (height, deep))
    return Projections(*sides)


def _blocks(panel: Panel, factor: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices along z and y that cut a panel along its chunks, rows at whole pixels of the picture."""
    chunk = {dim: panel.array.chunks[axis] for dim, axis in panel.axes.items()}
    row_bytes = panel.length("x") * panel.length("c") * panel.array.dtype.itemsize
    deep = chunk.get("z", 1)
    rows = panel.length("y")
    if deep * rows * row_bytes > BLOCK_BYTES:
        most, whole = BLOCK_BYTES // (deep * row_bytes), math.lcm(chunk["y"], factor)
        rows = most // whole * whole or -(-max(chunk["y"], most) // factor) * factor
    else:
        deep *= BLOCK_BYTES // (deep * rows * row_bytes)
    for z in range(0, panel.length("z"), deep):
        for y in range(0, panel.length("y"), rows):
            yield (
                slice(z, min(z + deep, panel.length("z"))),
                slice(y, min(y + rows, panel.length("y"))),
            )


def _read(panel: Panel, z: slice, y: slice) -> NDArray[Any]:
    """Return a block as (z, y, x), or (z, y, x, 3) where it has colours."""
    cut = {panel.axes["y"]: y, **({panel.axes["z"]: z} if "z" in panel.axes else {})}
    block = panel.array[tuple(cut.get(axis, slice(None)) for axis in range(panel.array.ndim))].compute()
    order = [panel.axes[dim] for dim in ("z", "y", "x", "c") if dim in panel.axes]
    block = block.transpose(order)
    block = np.abs(block) if block.dtype.kind == "c" else block
    block = block if "z" in panel.axes else block[np.newaxis]
    return block[..., :3] if "c" in panel.axes else block


def _binned(block: NDArray[Any], axis: int, factor: int) -> NDArray[Any]:
    """Return the means of so many neighbours along an axis; what is left over at the end is the mean of fewer."""
    if factor == 1:
        return block
    before = (slice(None),) * axis
    sums = block[(*before, slice(None, None, factor))].astype(np.float32)
    for first in range(1, factor):
        part = block[(*before, slice(first, None, factor))]
        sums[(*before, slice(part.shape[axis]))] += part
    length = block.shape[axis]
    counts = np.full(sums.shape[axis], factor, np.float32)
    counts[-1] = length - (len(counts) - 1) * factor
    return sums / counts.reshape(-1, *(1,) * (block.ndim - axis - 1))


def _resized(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return an image with so many rows and columns: means of several, or the nearest one again and again."""
    for axis, length in enumerate(shape):
        now = image.shape[axis]
        if length < now:
            ends = np.unique((np.arange(length) * now) // length)
            counts = np.diff(ends, append=now).reshape(-1, *(1,) * (image.ndim - axis - 1))
            image = np.add.reduceat(image, ends, axis=axis) / counts
        elif length > now:
            image = image.take((np.arange(length) * now) // length, axis=axis)
    return image
