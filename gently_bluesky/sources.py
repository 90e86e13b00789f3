"""Where the pixels of a LazyArray come from: the contract, and what is built on it alone.

``ArraySource`` is what a backend's reader offers. ``InlineSource`` is an array in memory, ``Points`` a source
made of another one by a mask over several axes. ``Events`` keeps track of which event lies where while a
source is sliced. No names, uids or files here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.indexing import BLOCK_BYTES, Gather, View, choose

__all__ = [
    "ArraySource",
    "Events",
    "InlineSource",
    "Points",
    "Selection",
    "no_events",
    "read_view",
]

POINTS_AT_ONCE = 2**16
"""Most points of a mask over several axes that are worked on together."""

SPARSE = 2
"""Chunks for each one that holds points, from which on they are read one by one."""

Selection = tuple["slice | NDArray[np.intp]", ...]
"""One entry per axis of the source: a slice with 0 <= start <= stop <= length and step >= 1, all given as
ints, or a 1-D array of indices with 0 <= index < length, in any order, repeats allowed. Axes select
independently (outer indexing)."""


class ArraySource(ABC):
    """Pixels in storage, read by selection. Any thread; shape and dtype never change."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes; for an asset the event axis ``t`` comes first."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns."""

    @property
    @abstractmethod
    def chunks(self) -> tuple[int, ...]:
        """Lengths along each axis of the smallest piece that is read as a whole."""

    @abstractmethod
    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array, owned by the caller, of the selected elements, one output axis per source axis.

        Raises
        ------
        AssetMissing, AssetDamaged
            The pixels are not there, or not what was stored; wrong pixels are never returned.
        """

    # None is right where one resolution is kept.
    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:  # noqa: ARG002
        """Return the coarsest resolution that is kept and suits, and how many elements along each axis it averages.

        One suits whose numbers divide those of ``most``. None where there is none but the full one; pixels are read
        of neither.
        """
        return None


def no_events(shape: Sequence[int], dtype: DTypeLike | None) -> InlineSource:
    """Return what has no events yet, each to be of this shape; a shape that no array can have is left away."""
    try:
        return InlineSource(np.empty((0, *shape), dtype))
    except (ValueError, MemoryError):
        return InlineSource(np.empty(0, dtype))


class InlineSource(ArraySource):
    """An array in memory: the values that stood in the events."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, events first."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self._array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of it."""
        return tuple(max(length, 1) for length in self._array.shape)

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a copy of what is selected."""
        array = self._array
        for axis, chosen in enumerate(selection):
            array = array[(slice(None),) * axis + (chosen,)]
        return array.copy()


def read_view(source: ArraySource, view: View) -> NDArray[Any]:
    """Read what the view leaves of the source; nothing is asked for where it is empty."""
    if 0 in view.shape:
        return np.empty(view.shape, source.dtype)
    return view.arrange(source.read(view.selection()))


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Which event lies where along the axes of a source.

    Attributes
    ----------
    total
        Number of events of the asset.
    axis
        Axis of the source that holds the events; None where an integer chose one.
    places
        The event at each place along that axis, or the one chosen.
    """

    total: int
    axis: int | None
    places: int | range | NDArray[np.intp]

    def left(self, view: View) -> int | range | NDArray[np.intp]:
        """Return the events that a view leaves, in its order; an int where an integer chose one."""
        if self.axis is None or isinstance(self.places, int):
            return self.places
        return choose(self.places, view.picks[self.axis])

    def chosen(self, view: View) -> int | None:
        """Return the one event that an integer chose or that is left of several, or None."""
        left = self.left(view)
        if isinstance(left, int):
            return left
        found = np.unique(left) if self.total > 1 else ()
        return int(found[0]) if len(found) == 1 else None

    def gathered(self, view: View, gather: Gather) -> Events:
        """Return where they lie in the source that ``Points`` makes of this one."""
        left = self.left(view)
        if self.axis is None or isinstance(left, int):
            return Events(self.total, None, left)
        place = view.order.index(self.axis)
        inside = place - gather.axis
        if 0 <= inside < len(gather.points):
            return Events(self.total, gather.axis, choose(left, gather.points[inside]))
        return Events(self.total, place if inside < 0 else place - len(gather.points) + 1, left)


class Points(ArraySource):
    """What a mask over several axes leaves of a view: those axes become one, with a place for every point.

    Read cell by cell: of each block of the view only the box around its points is read, and where that would
    mean many chunks without a point, of each chunk with points the box around these.
    """

    def __init__(
        self, source: ArraySource, view: View, gather: Gather, *, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._source, self._view, self._points = source, view, gather.points
        self._first, self._after = gather.axis, gather.axis + len(gather.points)
        self._limit = block_bytes // source.dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the view, with the points in place of the mask's axes."""
        return self._joined(self._view.shape, len(self._points[0]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the source."""
        return self._source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Runs within the source's chunks, and so many points that a piece fits into a block."""
        longest = self._view.longest_runs(self._source.chunks)
        others = math.prod(self._joined(longest, 1))
        return self._joined(longest, min(POINTS_AT_ONCE, max(1, self._limit // others)))

    def _joined(self, along: tuple[int, ...], points: int) -> tuple[int, ...]:
        return (*along[: self._first], points, *along[self._after :])

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read cell by cell; memory beyond the result is about one block."""
        first, after = self._first, self._after
        points = [along[selection[first]] for along in self._points]
        view = self._view.take(*selection[:first], *(slice(None),) * len(points), *selection[first + 1 :])
        cuts = view.blocks(self._source.chunks, self._limit)
        chunks = view.blocks(self._source.chunks, 1)[first:after]
        out = np.empty((*view.shape[:first], len(points[0]), *view.shape[after:]), self.dtype)
        blocks = _cells(points, cuts[first:after])
        for cell in (cell for block in blocks for cell in _worth_a_read(points, block, chunks)):
            inside = [along[cell] for along in points]
            box = [slice(int(along.min()), int(along.max()) + 1) for along in inside]
            corner = tuple(along - side.start for along, side in zip(inside, box, strict=True))
            for rest in product(*cuts[:first], *cuts[after:]):
                block = read_view(self._source, view.take(*rest[:first], *box, *rest[first:]))
                out[(*rest[:first], cell, *rest[first:])] = block[(slice(None),) * first + corner]
        return out


def _worth_a_read(
    points: list[NDArray[np.intp]], block: NDArray[np.intp], chunks: list[list[slice]]
) -> list[NDArray[np.intp]]:
    """Return the numbers of a block's points as they are, or by chunk where the box around them is sparse."""
    inside = [along[block] for along in points]
    boxed = 1
    for along, cuts in zip(inside, chunks, strict=True):
        low, high = np.searchsorted([cut.stop for cut in cuts], [along.min(), along.max()], side="right")
        boxed *= int(high - low) + 1
    cells = _cells(inside, chunks)
    return [block] if boxed < SPARSE * len(cells) else [block[cell] for cell in cells]


def _cells(points: list[NDArray[np.intp]], cuts: list[list[slice]]) -> list[NDArray[np.intp]]:
    """Return the numbers of the points in each cell of the grid of cuts, for cells that hold any."""
    cell = np.zeros(len(points[0]), np.intp)
    for along, cut in zip(points, cuts, strict=True):
        cell = cell * len(cut) + np.searchsorted([one.stop for one in cut], along, side="right")
    order = np.argsort(cell, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(cell[order])) + 1) if len(order) else []
