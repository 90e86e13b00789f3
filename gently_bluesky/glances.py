"""What is shown of an array without being asked for: one small picture, for which little is read."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from gently_bluesky.errors import GentlyError, InputError, LookupFailed
from gently_bluesky.labels import bytes_text
from gently_bluesky.markup import Markup, picture, said
from gently_bluesky.pictures import png_bytes
from gently_bluesky.previews import Tile, tile
from gently_bluesky.projections import Grid, Panel, panels

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["brightness", "glances"]

LONGEST = 224
"""Pixels of the longer side; up to twice as many where that is what is stored."""
MOST_BYTES = 16 * 2**20
"""Of all chunks that are read for one picture, uncompressed."""
SMALLEST = 32
"""Rows or columns that are worth showing of a plane that is too large to be shown whole."""
MOST = 2
"""Views or channels shown of an array."""


def glances(array: LazyArray, name: str = "") -> list[Markup]:
    """Return small pictures of the newest event of an array: its middle plane, of two views at most.

    Reads that plane, at a coarser resolution where one is stored, or as much of its middle as lies in chunks of 16 MiB
    in all, for each picture; nothing where a single chunk is more. Waits for nobody. What cannot be shown is said in
    its stead, and nothing is raised; there are none of what holds no images.
    """
    try:
        return [_glance(panel) for panel in panels(array, name=name)[:MOST]]
    except (InputError, LookupFailed):
        return []  # numbers, or no events yet: the words beside it tell
    except GentlyError as error:
        return [_told(name or array.name, error)]
    except Exception as error:  # noqa: BLE001 # of what reads the files of others: a notebook's cell goes on
        return [_told(name or array.name, error)]


def brightness(array: LazyArray) -> tuple[float, float] | None:
    """Return which values show an array well, by what `glances` would read of its first view; None without images."""
    try:
        plane, _ = _middle(panels(array)[0])
        return None if plane is None else _tile(plane).limits
    except GentlyError:
        return None


def _glance(panel: Panel) -> Markup:
    plane, words = _middle(panel)
    if plane is None:
        return said(f"no picture of {panel.title}: {words}")
    shown = _tile(plane)
    bar = f", bar {shown.bar.um} \u00b5m" if shown.bar else ""
    title = f"{panel.title}{words}"
    return picture(png_bytes(shown.pixels), f"{title}, contrast stretched", f"{title}{bar}")


def _middle(panel: Panel) -> tuple[Panel | None, str]:
    """Return the middle plane, or the middle of it that is cheap to read, and the words for that."""
    array, axes, words = panel.array, panel.axes, ""
    if "z" in axes and len(axes) == array.ndim:
        z = panel.length("z") // 2
        array = array[tuple(z if axis == axes["z"] else slice(None) for axis in range(array.ndim))]
        words = f", z {z} of {panel.length('z')}"
        axes = {dim: axis - (axis > axes["z"]) for dim, axis in axes.items() if dim != "z"}
    full = {dim: array.shape[axes[dim]] for dim in ("y", "x")}
    plane = _kept(Panel(panel.title, array, axes))
    rows = plane.length("y")
    while plane.array.touched_nbytes > MOST_BYTES:
        if min(plane.length("y"), plane.length("x")) < 2 * SMALLEST:
            return None, f"a plane lies in chunks of {bytes_text(plane.array.touched_nbytes)}"
        cut = {axes[dim]: _half(plane.length(dim)) for dim in ("y", "x")}
        array = plane.array[tuple(cut.get(axis, slice(None)) for axis in range(plane.array.ndim))]
        plane = Panel(panel.title, array, axes)
    if plane.length("y") == rows:
        return plane, words
    halved = round(log2(rows / plane.length("y")))
    return plane, f"{words}, the middle {full['y'] >> halved} x {full['x'] >> halved}"


def _kept(plane: Panel) -> Panel:
    """Return a plane at the coarsest resolution that is stored of it and has enough pixels."""
    y, x = (plane.array.dims[plane.axes[dim]] for dim in ("y", "x"))
    most = max(plane.length("y"), plane.length("x")) // LONGEST
    by = 1 << max(most.bit_length() - 1, 0)
    array, _ = plane.array.coarser({y: by, x: by})
    return Panel(plane.title, array, plane.axes)


def _tile(plane: Panel) -> Tile:
    """Read a plane; one whose pixels are nearly few enough is shown as it is."""
    longest = max(plane.length("y"), plane.length("x"))
    return tile(plane, Grid.for_all([plane], longest if LONGEST < longest < 2 * LONGEST else LONGEST))


def _half(length: int) -> slice:
    return slice(length // 4, length // 4 + length // 2)


def _told(name: str, error: Exception) -> Markup:
    return said(f"{name} cannot be shown: {str(error)[:300]}")
