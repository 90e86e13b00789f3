"""What a numpy index means, worked out without touching any data.

``parse`` turns an index expression into a ``Step``; a ``View`` is what any number of steps leave of a source,
and knows what to read and how to arrange what was read. Nothing here reads, and nothing knows names, units or
uids.

The rules are those of numpy's user guide, "Indexing on ndarrays", with two narrowings: at most one list,
index array or mask in an index, and no bare ``True`` or ``False``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["BLOCK_BYTES", "Gather", "Index", "Step", "View", "choose", "parse"]

BLOCK_BYTES = 64 * 2**20
"""Memory that a block may take while it is worked on, unless one chunk takes more."""

IndexItem = (
    SupportsIndex | slice | EllipsisType | Sequence[int] | NDArray[np.integer] | NDArray[np.bool] | None
)
Index = IndexItem | tuple[IndexItem, ...]
"""What may stand between the brackets."""

Places = range | NDArray[np.intp]
"""Places along an axis, in the order in which they are wanted."""

Item = int | slice | EllipsisType | NDArray[Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """A mask over several axes: the points it marks become one axis.

    Attributes
    ----------
    axis
        The first of the axes; ``len(points)`` of them are replaced by one.
    points
        Places along each of those axes, one entry per point, in C order.
    """

    axis: int
    points: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One index expression, checked against a shape.

    Attributes
    ----------
    picks
        Per axis what is taken of it; an integer drops the axis.
    order
        The axes of the result, by their number before; None is a new axis.
    """

    picks: tuple[int | slice | NDArray[np.intp], ...]
    order: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is left of a source after any number of steps.

    Attributes
    ----------
    picks
        Per axis of the source the places taken, or one integer where the axis was dropped; after those, the
        same for every axis that was added, which counts as an axis of length 1.
    order
        The axes of the result, as numbers into ``picks``.
    depth
        Number of axes of the source.
    """

    picks: tuple[int | Places, ...]
    order: tuple[int, ...]
    depth: int

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> View:
        """Return the view of everything."""
        return cls(tuple(range(length) for length in shape), tuple(range(len(shape))), len(shape))

    def places(self, axis: int) -> Places:
        """Return the places taken along an axis of the result, in the source's own count."""
        found = self.picks[self.order[axis]]
        assert not isinstance(found, int)  # noqa: S101 - dropped axes are never in ``order``
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the result's axes."""
        return tuple(len(self.places(axis)) for axis in range(len(self.order)))

    def select(self, step: Step) -> View:
        """Return what a further step leaves."""
        picks = list(self.picks)
        for axis, pick in enumerate(step.picks):
            picks[self.order[axis]] = choose(self.places(axis), pick)
        order: list[int] = []
        for axis in step.order:
            if axis is None:
                picks.append(range(1))
            order.append(len(picks) - 1 if axis is None else self.order[axis])
        return View(tuple(picks), tuple(order), self.depth)

    def take(self, *picks: slice | NDArray[np.intp]) -> View:
        """Return what independent (outer) picks along every axis leave."""
        return self.select(Step(picks, tuple(range(len(picks)))))

    def selection(self) -> tuple[slice | NDArray[np.intp], ...]:
        """Return what to read of the source, with steps of 1 and more, nothing twice. The view must not be empty."""
        return tuple(_ascending(pick) for pick in self.picks[: self.depth])

    def arrange(self, block: NDArray[Any]) -> NDArray[Any]:
        """Turn what was read for ``selection()`` into the result: flip, repeat, drop, add and move axes.

        Copies no pixels unless some were wanted twice, or an added axis was made longer than 1.
        """
        block = block.reshape(block.shape + (1,) * (len(self.picks) - self.depth))
        for axis, pick in enumerate(self.picks):
            if axis >= self.depth and not isinstance(pick, int) and len(pick) != 1:
                block = np.repeat(block, len(pick), axis=axis)
            elif axis < self.depth and isinstance(pick, np.ndarray) and len(pick) > block.shape[axis]:
                block = block.take(np.unique(pick, return_inverse=True)[1], axis=axis)
        block = block[(*(_turn(pick) for pick in self.picks), ...)]
        kept = [axis for axis, pick in enumerate(self.picks) if not isinstance(pick, int)]
        return block.transpose([kept.index(axis) for axis in self.order])

    def stops(self, chunks: tuple[int, ...]) -> list[NDArray[np.intp]]:
        """Return, per axis of the result, where its runs of places within one chunk of the source end.

        No more than one run, of no places, where the axis has none.
        """
        chunks += (1,) * (len(self.picks) - self.depth)
        return [_run_stops(self.places(axis), chunks[self.order[axis]]) for axis in range(len(self.order))]

    def touched(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
        """Return how many elements of the source lie in the chunks that hold what is left."""
        total = 1
        for pick, length, chunk in zip(
            self.picks, shape, chunks, strict=False
        ):  # added axes are not the source's
            owners = np.unique(np.asarray(pick, dtype=np.intp) // max(chunk, 1))
            total *= min(len(owners) * chunk, length)
        return total

    def longest_runs(self, chunks: tuple[int, ...]) -> tuple[int, ...]:
        """Return the length of the longest such run along each axis, at least 1."""
        return tuple(max(1, int(np.diff(ends, prepend=0).max())) for ends in self.stops(chunks))

    def blocks(
        self, chunks: tuple[int, ...], limit: int, kept: Container[int] = (), kept_limit: int = 0
    ) -> list[list[slice]]:
        """Cut the result into blocks along the source's chunks.

        Parameters
        ----------
        chunks
            Of the source.
        limit
            Elements a block may have; one chunk is never cut, and may have more.
        kept
            Axes that are left when a block is reduced along the others.
        kept_limit
            Elements that may then be left of a block; of one chunk it may be more.

        Returns
        -------
        list of list of slice
            Per axis its cuts, in order and without gaps; every combination of them is a block.
        """
        stops = self.stops(chunks)
        lengths = list(self.longest_runs(chunks))
        cuts: list[list[slice]] = [[] for _ in stops]
        for axis in reversed(range(len(stops))):
            most = limit * lengths[axis] // math.prod(lengths)
            if axis in kept:
                left = math.prod(length for other, length in enumerate(lengths) if other in kept)
                most = min(most, kept_limit * lengths[axis] // left)
            cuts[axis] = _join(stops[axis], most)
            lengths[axis] = max(cut.stop - cut.start for cut in cuts[axis]) or 1
        return cuts


def choose(places: Places, pick: int | slice | Places) -> int | Places:
    """Return what ``pick`` takes out of these places."""
    if isinstance(pick, range):
        pick = np.arange(pick.start, pick.stop, pick.step, dtype=np.intp)
    if isinstance(pick, np.ndarray):
        return places.start + places.step * pick if isinstance(places, range) else places[pick]
    return places[pick] if isinstance(pick, slice) else int(places[pick])


def parse(key: Index, shape: tuple[int, ...]) -> tuple[Gather | None, Step]:
    """Check an index against a shape and say what it does.

    Returns
    -------
    Gather or None
        To be done first, where the index holds a mask over several axes.
    Step
        To be done then.

    Raises
    ------
    IndexError
        It is out of range, has too many axes, holds what is not an index, or more than one list or mask.
    """
    items = [_plain(item) for item in (key if isinstance(key, tuple) else (key,))]
    if sum(isinstance(item, np.ndarray) for item in items) > 1:
        raise IndexError(
            "at most one list, index array or mask in an index: for every combination of two lists index "
            "twice, as in a[[0, 1]][:, [2, 3]]; for numpy's pointwise pairs read first, with numpy.asarray"
        )
    placed = _place(items, shape)
    for number, (axis, item) in enumerate(placed):
        if _is_mask(item):
            points = _mask_points(item, axis, shape)
            if len(points) == 1:
                placed[number] = (axis, points[0])
                break
            # the points become one axis first, and all of it is then taken with an array in the mask's stead
            placed[number] = (axis, np.arange(len(points[0])))
            placed[number + 1 :] = [(later - len(points) + 1, item) for later, item in placed[number + 1 :]]
            joined = (*shape[:axis], len(points[0]), *shape[axis + len(points) :])
            return Gather(axis, points), _step(placed, joined)
    return None, _step(placed, shape)


def _is_mask(item: Item) -> TypeIs[NDArray[Any]]:
    return isinstance(item, np.ndarray) and item.dtype == np.bool_


def _plain(item: object) -> Item:
    """Return the item as one of few types: integers as int, lists as arrays of integers or bool."""
    if item is None or isinstance(item, EllipsisType | slice):
        return item
    if isinstance(item, bool | np.bool):
        raise IndexError(f"a bare {item} is not an index here; use a list or an array of bool as a mask")
    if isinstance(item, SupportsIndex) and not isinstance(item, np.ndarray):
        return operator.index(item)
    array = np.asarray(item)
    if array.ndim == 0 and array.dtype.kind in "iu":
        return int(array)
    if not isinstance(item, np.ndarray) and array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.intp)  # an empty list is one of integers
    if array.dtype.kind not in "biu" or array.ndim == 0:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and one list or array of "
            f"integers or bool are valid indices, got {item!r:.80}"
        )
    if array.dtype != np.bool_ and array.ndim != 1:
        raise IndexError(f"an index array must have one axis, got one with {array.ndim}")
    return array if array.dtype == np.bool_ else array.astype(np.intp)


def _place(items: list[Item], shape: tuple[int, ...]) -> list[tuple[int, Item]]:
    """Pair every item with the axis it is about.

    An ellipsis is followed by the slices it stands for, and stays, as even an empty one keeps arrays apart.
    """
    ellipses = sum(item is ... for item in items)
    if ellipses > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not ellipses:
        items = [*items, ...]
    widths = [0 if item is None or item is ... else item.ndim if _is_mask(item) else 1 for item in items]
    rest = len(shape) - sum(widths)
    if rest < 0:
        raise IndexError(
            f"too many indices for array: array is {len(shape)}-dimensional, but {sum(widths)} were indexed"
        )
    placed: list[tuple[int, Item]] = []
    axis = 0
    for item, width in zip(items, widths, strict=True):
        placed.append((axis, item))
        if item is ...:
            placed += [(axis + more, slice(None)) for more in range(rest)]
        axis += rest if item is ... else width
    return placed


def _mask_points(mask: NDArray[np.bool], axis: int, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    for number, length in enumerate(mask.shape, axis):
        if length != shape[number]:
            raise IndexError(
                f"boolean index did not match indexed array along axis {number}; size of axis is "
                f"{shape[number]} but size of corresponding boolean axis is {length}"
            )
    return mask.nonzero()


def _step(placed: list[tuple[int, Item]], shape: tuple[int, ...]) -> Step:
    """Check places against the shape and put the axes of the result in numpy's order.

    In the presence of an array, integers count as arrays too. Their common axis goes where the first of them
    stands if they all stand side by side, and to the front if anything, be it an empty ellipsis, stands
    between them.
    """
    picks: list[int | slice | NDArray[np.intp]] = []
    order: list[int | None] = []
    array_axis: int | None = None
    advanced: list[int] = []
    target = 0
    for number, (axis, item) in enumerate(placed):
        if item is None:
            order.append(None)
        elif isinstance(item, slice):
            picks.append(item)
            order.append(axis)
        elif item is not ...:
            target = target if advanced else len(order)
            advanced.append(number)
            picks.append(_from_zero(item, axis, shape[axis]))
            array_axis = axis if isinstance(item, np.ndarray) else array_axis
    if array_axis is not None:
        side_by_side = advanced[-1] - advanced[0] == len(advanced) - 1
        order.insert(target if side_by_side else 0, array_axis)
    return Step(tuple(picks), tuple(order))


def _from_zero(item: int | NDArray[np.intp], axis: int, length: int) -> int | NDArray[np.intp]:
    """Check the item against the axis and count it from 0."""
    wrong = np.flatnonzero((np.asarray(item) < -length) | (np.asarray(item) >= length))
    if wrong.size:
        first = np.atleast_1d(item)[wrong[0]]
        raise IndexError(f"index {first} is out of bounds for axis {axis} with size {length}")
    if isinstance(item, int):
        return item + length if item < 0 else item
    return np.where(item < 0, item + length, item)


def _ascending(pick: int | Places) -> slice | NDArray[np.intp]:
    pick = _as_range(pick)
    if isinstance(pick, np.ndarray):
        distinct = np.unique(pick)
        if len(distinct) == len(pick):
            return pick
        return slice(int(distinct[0]), int(distinct[0]) + 1, 1) if len(distinct) == 1 else distinct
    if isinstance(pick, int):
        return slice(pick, pick + 1, 1)
    low, high = sorted((pick[0], pick[-1]))
    return slice(low, high + 1, abs(pick.step))


def _turn(pick: int | Places) -> int | slice:
    pick = _as_range(pick)
    backwards = isinstance(pick, range) and pick.step < 0
    return 0 if isinstance(pick, int) else slice(None, None, -1 if backwards else None)


def _as_range(pick: int | Places) -> int | Places:
    """Return listed places at even distances as a range: sources read slices faster, and flip for free."""
    if not isinstance(pick, np.ndarray) or not len(pick):
        return pick
    step = int(pick[1] - pick[0]) if len(pick) > 1 else 1
    if step == 0 or np.any(np.diff(pick) != step):
        return pick
    return range(int(pick[0]), int(pick[-1]) + (1 if step > 0 else -1), step)


def _run_stops(places: Places, chunk: int) -> NDArray[np.intp]:
    owner = np.asarray(places, dtype=np.intp) // max(chunk, 1)
    return np.append(np.flatnonzero(owner[1:] != owner[:-1]) + 1, len(places))


def _join(stops: NDArray[np.intp], limit: int) -> list[slice]:
    """Join neighbouring runs to slices of at most ``limit``, or of one run."""
    cuts = [slice(0, 0)]
    while (start := cuts[-1].stop) < stops[-1]:
        far = int(np.searchsorted(stops, start + limit, side="right")) - 1
        next_one = int(np.searchsorted(stops, start, side="right"))
        cuts.append(slice(start, int(stops[max(far, next_one)])))
    return cuts[1:] or cuts
