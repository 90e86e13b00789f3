"""Maximum, minimum, sum, mean and standard deviation of arrays that do not fit into memory.

An array is read block by block, every block once; what is kept is one running result per block of the output.
Results have the dtype numpy gives them. It knows nothing of sources, selections or names: it asks for blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.indexing import BLOCK_BYTES

__all__ = ["Axes", "Blocked", "Operation", "reduce_blocks"]

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
        Returns the cuts along each axis, for blocks of at most so many elements where chunks allow it.
    read
        Reads one combination of cuts, or anything else that slices with steps of 1 describe.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    cuts: Callable[[int], list[list[slice]]]
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
    reduce = getattr(np, operation)
    ndim = len(array.shape)
    if not ndim or 0 in array.shape:
        if operation == "std":
            options["ddof"] = ddof
        return reduce(array.read(tuple(slice(0, length) for length in array.shape)), **options)
    # numpy itself says which dtype comes out, and refuses what it does not do
    result = reduce(np.zeros((1,) * ndim, array.dtype), **options).dtype
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
    return _reduce(array, axes, result, lambda block: ufunc.reduce(block, axis=axes, keepdims=True), ufunc)


def _total(array: Blocked, axes: tuple[int, ...], result: np.dtype[Any], *, mean: bool) -> NDArray[Any]:
    """Sum, floats in double precision; divided by the count for the mean."""
    work = np.result_type(result, np.float64) if result.kind in "fc" else result
    count = math.prod(array.shape[axis] for axis in axes) if mean else 1
    return _reduce(
        array,
        axes,
        result,
        lambda block: block.sum(axis=axes, dtype=work, keepdims=True),
        np.add,
        lambda total: total / count if mean else total,
    )


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
        itemsize=work.itemsize,
    )


def _reduce(
    array: Blocked,
    axes: tuple[int, ...],
    result: np.dtype[Any],
    begin: Callable[[NDArray[Any]], State],
    merge: Callable[[State, State], State],
    finish: Callable[[State], State | NDArray[Any]] = lambda state: state,
    *,
    itemsize: int = 0,
) -> NDArray[Any]:
    """Go through the blocks of the output, and for each through the blocks that add to it."""
    cuts = array.cuts(BLOCK_BYTES // max(itemsize, array.dtype.itemsize))
    out = np.empty([1 if axis in axes else length for axis, length in enumerate(array.shape)], result)
    for place in product(*([slice(0, 1)] if axis in axes else along for axis, along in enumerate(cuts))):
        blocks = product(*(along if axis in axes else [place[axis]] for axis, along in enumerate(cuts)))
        state = begin(array.read(next(blocks)))
        for block in blocks:
            state = merge(state, begin(array.read(block)))
        out[place] = finish(state)
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
        mean = block.mean(axis=axes, dtype=dtype, keepdims=True)
        distance = np.subtract(block, mean, dtype=dtype)
        count = block.size // mean.size
        return cls(count, mean, _square(distance).sum(axis=axes, keepdims=True))

    def merge(self, other: _Moments) -> _Moments:
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + _square(apart) * (self.count * other.count / count)
        return _Moments(count, mean, squares)
