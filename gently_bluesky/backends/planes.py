"""Reading the selected elements of one event whose planes stand in a file one behind the other, in C order.

Whose file it is, and where in it the event begins, is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import AssetDamaged
from gently_bluesky.lazy import Selection

__all__ = ["TRUSTED_EVENTS", "Crop", "as_bytes", "distinct", "places", "read_planes"]

TRUSTED_EVENTS = 2**20
"""So many are opened without a look at how many there are, where documents announce them."""

GAP_BYTES = 16 * 2**10
"""Bytes between wanted ones that are sooner read than skipped: another call costs as much."""
SCRATCH_BYTES = 2**20

Rows = slice | NDArray[np.intp]


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array; ``memoryview.cast`` knows neither float16 nor complex."""
    return array.reshape(-1).view(np.uint8).data


def distinct(selection: Selection) -> int:
    """Return how many different elements are selected."""
    return prod(
        len(range(entry.start, entry.stop, entry.step))
        if isinstance(entry, slice)
        else len({*entry.tolist()})
        for entry in selection
    )


def places(entry: slice | NDArray[np.intp]) -> NDArray[np.intp]:
    """Return one axis of a selection as indices."""
    return np.arange(entry.start, entry.stop, entry.step) if isinstance(entry, slice) else entry


def read_planes(
    file: FileIO, offset: int, shape: tuple[int, ...], places: Sequence[NDArray[np.intp]], out: NDArray[Any]
) -> None:
    """Read the selected elements of each selected plane of an event; a crop costs whole rows of its planes.

    Parameters
    ----------
    file
        Unbuffered; its position is moved.
    offset
        Of the event's first pixel.
    shape
        Of the event; bool is kept as uint8.
    places
        One array of indices for each axis of the event, none empty.
    out
        Of one more axis than the event, the first of length 1; its dtype is the event's.

    Raises
    ------
    EOFError
        The file ends before the event does.
    AssetDamaged
        Bool that is neither true nor false.
    OSError
        The system could not read.
    """
    crop = Crop.of(shape, places, out.itemsize)
    crop.read(file, offset, out.reshape(crop.shape), range(len(crop.planes)))


@dataclass(frozen=True, slots=True, eq=False)
class _Strip:
    """Neighbouring rows that are read at once.

    Attributes
    ----------
    top, height
        Of the plane: where they begin, how many they are.
    wanted
        Those of them that are selected.
    to
        Where these go.
    """

    top: int
    height: int
    wanted: Rows
    to: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """The selected elements of events of one shape: which planes, and what is read of each of them.

    Attributes
    ----------
    planes
        Numbers of the selected planes, in the order in which they are wanted.
    shape
        Of the result: planes, rows, columns.
    plane_nbytes
        Bytes read for one plane.
    """

    planes: NDArray[np.intp]
    shape: tuple[int, int, int]
    plane_nbytes: int
    _full: tuple[int, int]
    _itemsize: int
    _strips: Sequence[_Strip]
    _left: int
    _width: int
    _columns: Rows
    _direct: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], places: Sequence[NDArray[np.intp]], itemsize: int) -> Crop:
        """Work out what to read of an event of this shape; parameters as of `read_planes`."""
        missing = max(0, 2 - len(shape))
        shape, places = (1,) * missing + shape, [np.zeros(1, np.intp)] * missing + list(places)
        *leading, rows, columns = places
        planes = np.zeros(1, np.intp)
        for length, along in zip(shape, leading, strict=False):
            planes = (planes[:, None] * length + along).reshape(-1)
        first, stop = int(columns.min()), int(columns.max()) + 1
        # rows so wide that what is not wanted of them is better skipped are read one by one
        by_row = (shape[-1] - (stop - first)) * itemsize > GAP_BYTES
        left, width = (first, stop - first) if by_row else (0, shape[-1])
        whole = _is_run(columns) and len(columns) == width
        direct = whole and (bool(np.all(np.diff(rows) > 0)) if by_row else _is_run(rows))
        strips = _strips(rows, width * itemsize, by_row=by_row, whole=direct and not by_row)
        return cls(
            planes=planes,
            shape=(len(planes), len(rows), len(columns)),
            plane_nbytes=sum(strip.height for strip in strips) * width * itemsize,
            _full=(shape[-2], shape[-1]),
            _itemsize=itemsize,
            _strips=strips,
            _left=left,
            _width=width,
            _columns=_as_slice(columns - left),
            _direct=direct,
        )

    def read(self, file: FileIO, offset: int, out: NDArray[Any], numbers: range) -> None:
        """Read some of the planes, by their numbers in the result ``out``; takes 1 MiB, or a row, beside it.

        Raises as `read_planes`.
        """
        raw = out.view(np.uint8) if out.dtype.kind == "b" else out
        rows, columns = self._full
        highest = 0 if self._direct else max(strip.height for strip in self._strips)
        scratch = np.empty((highest, self._width), raw.dtype)
        for number in numbers:
            first_row = int(self.planes[number]) * rows
            for strip in self._strips:
                position = ((first_row + strip.top) * columns + self._left) * self._itemsize
                target = raw[number, strip.to] if self._direct else scratch[: strip.height]
                _read_exactly(file, offset + position, target)
                if not self._direct:
                    raw[number, strip.to] = target[strip.wanted][:, self._columns]
        if out.dtype.kind == "b" and raw[numbers.start : numbers.stop].max() > 1:
            raise AssetDamaged(
                f"{file.name}: holds numbers where true and false were announced; no pixels were returned"
            )


def _strips(rows: NDArray[np.intp], row_nbytes: int, *, by_row: bool, whole: bool) -> list[_Strip]:
    """Return what to read at once: rows close together, few enough for the scratch space."""
    if whole:
        return [_Strip(int(rows[0]), len(rows), slice(None), slice(None))]
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    in_turn = bool(np.all(rows == ordered))
    skipped = (np.diff(ordered) - 1) * row_nbytes
    far = skipped >= 0 if by_row else skipped > GAP_BYTES
    highest = 1 if by_row else max(1, SCRATCH_BYTES // row_nbytes)
    strips: list[_Strip] = []
    for run in np.split(np.arange(len(rows)), np.flatnonzero(far) + 1):
        start, stop = int(run[0]), int(run[-1]) + 1
        while start < stop:
            top = int(ordered[start])
            end = start + int(np.searchsorted(ordered[start:stop], top + highest))
            height = int(ordered[end - 1]) - top + 1
            to = slice(start, end) if in_turn else order[start:end]
            strips.append(_Strip(top, height, _as_slice(ordered[start:end] - top), to))
            start = end
    return strips


def _is_run(places: NDArray[np.intp]) -> bool:
    return bool(np.all(np.diff(places) == 1))


def _as_slice(places: NDArray[np.intp]) -> Rows:
    """Return places at even distances as a slice, which copies faster."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step < 1 or not np.all(np.diff(places) == step):
        return places
    return slice(int(places[0]), int(places[-1]) + 1, step)


def _read_exactly(file: FileIO, position: int, target: NDArray[Any]) -> None:
    file.seek(position)
    view = as_bytes(target)
    while view:
        read = file.readinto(view)
        if not read:
            raise EOFError("it ends before its pixels do")
        view = view[read:]
