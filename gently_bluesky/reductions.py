"""Maximum, minimum, sum, mean and standard deviation of arrays that do not fit into memory.

An array is read block by block, every block once, by a few threads; what is kept is one running result for each
block of the output. Results have the dtype numpy gives them, and do not depend on which thread was faster. It
knows nothing of sources, selections or names: it asks for blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, product
from operator import itemgetter
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.parallel import in_order, reading_threads

__all__ = ["Axes", "Blocked", "Operation", "reduce_blocks"]

BLOCK_BYTES = 8 * 2**20
"""Of a block, unless one chunk has more. Allocators hand memory of this size on; larger pieces come anew from
the system each time, which takes longer than decoding them."""
KEPT_ELEMENTS = 2**18
"""Left of a block: tall blocks, so that running results fit into the processor's cache."""
BYTES_AT_ONCE = 64 * 2**20
"""Of the blocks that threads work on at once. Larger ones are read one after the other."""
PIECE_ELEMENTS = 2**19
"""Of a block worked on in double precision."""

Axes = int | tuple[int, ...] | None
Operation = Literal["max", "min", "sum", "mean", "std"]
State = TypeVar("State")


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """An array that can be read in blocks.

    Attributes
    ----------
    shape, dtype
        Of the array.
    cuts
        Returns the cuts along each axis, for blocks of at most so many elements where chunks allow it, of
        which at most so many are left along these axes: ``cuts(limit, kept, kept_limit)``.
    read
        Reads one combination of cuts, or anything else that slices with steps of 1 describe.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    cuts: Callable[[int, Sequence[int], int], list[list[slice]]]
    read: Callable[[tuple[slice, ...]], NDArray[Any]]


def reduce_blocks(
    array: Blocked,
    operation: Operation,
    axis: Axes,
    *,
    keepdims: bool,
    dtype: DTypeLike | None = None,
    ddof: float = 0,
) -> NDArray[Any] | np.generic:
    """Reduce an array as the numpy function of this name does, in bounded memory.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.
    ValueError
        An axis is given twice, or a maximum or minimum is over nothing.
    TypeError
        numpy does not do this for this dtype.
    """
    options: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if operation in ("sum", "mean", "std"):
        options["dtype"] = dtype
    of_numpy = getattr(np, operation)
    ndim = len(array.shape)
    if not ndim or 0 in array.shape:
        if operation == "std":
            options["ddof"] = ddof
        return of_numpy(array.read(tuple(slice(0, length) for length in array.shape)), **options)
    # numpy itself says which dtype comes out, and refuses what it does not do
    result = of_numpy(np.zeros((1,) * ndim, array.dtype), **options).dtype
    axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
    match operation:
        case "max" | "min":
            out = _extreme(array, axes, result, operation)
        case "sum" | "mean":
            out = _total(array, axes, result, mean=operation == "mean")
        case "std":
            out = _deviation(array, axes, result, ddof)
    return out if keepdims else np.squeeze(out, axis=axes)[()]


def _extreme(
    array: Blocked, axes: tuple[int, ...], result: np.dtype[Any], operation: Literal["max", "min"]
) -> NDArray[Any]:
    ufunc = np.maximum if operation == "max" else np.minimum
    return _reduce(
        array,
        axes,
        result,
        lambda block: ufunc.reduce(block, axis=axes, keepdims=True),
        lambda state, more: ufunc(state, more, out=state),
    )


def _total(array: Blocked, axes: tuple[int, ...], result: np.dtype[Any], *, mean: bool) -> NDArray[Any]:
    """Sum, floats in double precision; divided by the count for the mean."""
    work = np.result_type(result, np.float64) if result.kind in "fc" else result
    count = math.prod(array.shape[axis] for axis in axes) if mean else 1
    return _reduce(
        array,
        axes,
        result,
        lambda block: _sum(block, axes, work),
        lambda state, more: np.add(state, more, out=state),
        lambda total: total / count if mean else total,
    )


def _sum(block: NDArray[Any], axes: tuple[int, ...], work: np.dtype[Any]) -> NDArray[Any]:
    """Sum small integers along one axis in 32 bits first, which is as exact and twice as fast."""
    longest = max(axes, key=lambda axis: block.shape[axis], default=0)
    if axes and block.dtype.kind in "bui" and block.itemsize <= 2 and block.shape[longest] <= 2**15:
        narrow = np.int32 if block.dtype.kind == "i" else np.uint32
        block = block.sum(axis=longest, dtype=narrow, keepdims=True)
    return block.sum(axis=axes, dtype=work, keepdims=True)


def _deviation(array: Blocked, axes: tuple[int, ...], result: np.dtype[Any], ddof: float) -> NDArray[Any]:
    work = np.result_type(array.dtype, result, np.float64)
    count = math.prod(array.shape[axis] for axis in axes)
    return _reduce(
        array,
        axes,
        result,
        lambda block: _Moments.of(block, axes, work),
        _Moments.merge,
        lambda moments: np.sqrt(moments.squares / max(count - ddof, 0)),
    )


def _reduce(
    array: Blocked,
    axes: tuple[int, ...],
    result: np.dtype[Any],
    begin: Callable[[NDArray[Any]], State],
    merge: Callable[[State, State], State],
    finish: Callable[[State], State | NDArray[Any]] = lambda state: state,
) -> NDArray[Any]:
    """Go through the blocks of the output, and for each through the blocks that add to it.

    Blocks are read and begun on several threads, and merged on this one, in their order.
    """
    kept = [axis for axis in range(len(array.shape)) if axis not in axes]
    cuts = array.cuts(BLOCK_BYTES // array.dtype.itemsize, kept, KEPT_ELEMENTS)
    out = np.empty([1 if axis in axes else length for axis, length in enumerate(array.shape)], result)

    def blocks() -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        for place in product(*([slice(0, 1)] if axis in axes else along for axis, along in enumerate(cuts))):
            for block in product(
                *(along if axis in axes else [place[axis]] for axis, along in enumerate(cuts))
            ):
                yield place, block

    largest = math.prod(max(cut.stop - cut.start for cut in along) for along in cuts) * array.dtype.itemsize
    threads = min(reading_threads(), BYTES_AT_ONCE // largest)
    begun = in_order(lambda one: (one[0], begin(array.read(one[1]))), blocks(), threads)
    with closing(begun):
        for place, parts in groupby(begun, itemgetter(0)):
            out[place] = finish(reduce(merge, (state for _, state in parts)))
    return out


def _square(array: NDArray[Any]) -> NDArray[Any]:
    """Return the squared absolute value, in place where the array is real."""
    if array.dtype.kind == "c":
        return np.real(array) ** 2 + np.imag(array) ** 2
    return np.multiply(array, array, out=array)


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Count, mean and sum of squared distances from the mean.

    Merged as in T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", Stanford CS-TR-79-773 (1979), http://i.stanford.edu/TR/CS-TR-79-773.html: no
    large squares are subtracted from each other.
    """

    count: int
    mean: NDArray[Any]
    squares: NDArray[Any]

    @classmethod
    def of(cls, block: NDArray[Any], axes: tuple[int, ...], dtype: np.dtype[Any]) -> _Moments:
        """Work in pieces that fit into the processor's cache."""
        kept = [axis for axis in range(block.ndim) if axis not in axes and block.shape[axis] > 1]
        along = kept[0] if kept else int(np.argmax(block.shape))
        length = max(1, PIECE_ELEMENTS * block.shape[along] // block.size)
        pieces: list[_Moments] = [
            cls._of_piece(block[(slice(None),) * along + (slice(start, start + length),)], axes, dtype)
            for start in range(0, block.shape[along], length)
        ]
        if not kept:
            return reduce(_Moments.merge, pieces)
        mean = np.concatenate([piece.mean for piece in pieces], axis=along)
        return cls(pieces[0].count, mean, np.concatenate([piece.squares for piece in pieces], axis=along))

    @classmethod
    def _of_piece(cls, piece: NDArray[Any], axes: tuple[int, ...], dtype: np.dtype[Any]) -> _Moments:
        distance = piece.astype(dtype)
        mean = distance.mean(axis=axes, keepdims=True)
        distance -= mean
        count = distance.size // mean.size
        return cls(count, mean, _square(distance).sum(axis=axes, keepdims=True))

    def merge(self, other: _Moments) -> _Moments:
        """Return the moments of both; uses up this one."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = np.add(self.mean, apart * (other.count / count), out=self.mean)
        squares = np.add(self.squares, other.squares, out=self.squares)
        squares += _square(apart) * (self.count * other.count / count)
        return _Moments(count, mean, squares)
