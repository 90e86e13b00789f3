"""LazyArray: an array that is still in storage, sliced with numpy's meaning, read when asked for.

It turns indexing into selections; an ``ArraySource`` (a backend's reader) turns selections into pixels.
It knows neither files nor documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import InputError
from gently_bluesky.exports import dask_array, write_zarr
from gently_bluesky.growing import Growth, Waiting, keeps_events
from gently_bluesky.indexing import BLOCK_BYTES, Gather, Index, View, parse
from gently_bluesky.labels import free_name
from gently_bluesky.looking import Looking
from gently_bluesky.reductions import Axes, Blocked, reduce_blocks
from gently_bluesky.sources import ArraySource, Events, Points, Selection, read_view

if TYPE_CHECKING:
    import dask.array

__all__ = ["ArraySource", "LazyArray", "Selection", "growing"]


class LazyArray(Waiting, Looking, NDArrayOperatorsMixin):
    """An array in storage: slicing it costs nothing, and only what is left is read.

    Indexing has numpy's meaning and gives another LazyArray. Nothing is read until the numbers are asked for:
    by ``numpy.asarray(a)``, ``a.compute()``, any numpy function, any arithmetic or comparison. ``a - 1``
    reads all of ``a`` and gives a numpy array. ``max``, ``min``, ``sum``, ``mean`` and ``std``, called here
    or through numpy, read block by block.

    One index may hold one list, index array or mask, which may cover several axes. Every method works on any
    thread.

    Parameters
    ----------
    source
        Where the pixels are. Axis 0 is the event axis where ``event_uid`` is given.
    dims
        A name for each axis, no two alike. An axis added by ``numpy.newaxis`` is ``"new"``, one made by a
        mask over several axes ``"point"``, with a number behind it where that name is taken.
    scale
        Step along each axis, in ``units``, 1.0 if not given; it grows with the step of a slice.
    units
        Unit of each axis as in OME (``"micrometer"``), None where there is none.
    uid
        Of the asset.
    event_uid
        Gives the datum uid of the event at a place along axis 0 of the source.
    name
        What people call it.
    channels
        Names of the views or channels along ``v`` or ``c``, one for each, or none.

    Raises
    ------
    InputError
        Not one entry per axis, or a name twice.
    """

    def __init__(
        self,
        source: ArraySource,
        *,
        dims: tuple[str, ...],
        scale: tuple[float, ...] | None = None,
        units: tuple[str | None, ...] | None = None,
        uid: str = "",
        event_uid: Callable[[int], str] | None = None,
        name: str = "",
        channels: tuple[str, ...] = (),
    ) -> None:
        ndim = len(source.shape)
        self._source = source
        self._view = View.whole(source.shape)
        self._dims = tuple(dims)
        self._scale = (1.0,) * ndim if scale is None else tuple(scale)
        self._units = (None,) * ndim if units is None else tuple(units)
        self._uid = uid
        self._event_uid = event_uid if ndim else None
        self._events = Events(source.shape[0], 0, range(source.shape[0])) if ndim else Events(0, None, 0)
        self._name = name
        self._channels = tuple(channels)
        for what, got in (("dims", self._dims), ("scale", self._scale), ("units", self._units)):
            if len(got) != ndim:
                raise InputError(f"{name!r}: expected {what} for {ndim} axes, got {got}; nothing was read")
        if len(set(self._dims)) != ndim:
            raise InputError(f"{name!r}: expected dims that differ, got {self._dims}; nothing was read")

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._view.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._view.order)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that reading all of it takes."""
        return self.size * self.dtype.itemsize

    @property
    def touched_chunks(self) -> int:
        """How many pieces the chunks of the source are in it."""
        return math.prod(len(stops) for stops in self._view.stops(self._source.chunks)) if self.size else 0

    @property
    def touched_nbytes(self) -> int:
        """Bytes of all elements in the chunks that reading it touches: what it costs to read, uncompressed."""
        return self._view.touched(self._source.shape, self._source.chunks) * self.dtype.itemsize

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return self._dims

    @property
    def scale(self) -> tuple[float, ...]:
        """Step along each axis, in ``units``; above 0 also where a slice runs backwards."""
        return self._scale

    @property
    def units(self) -> tuple[str | None, ...]:
        """Unit of each axis."""
        return self._units

    @property
    def name(self) -> str:
        """What people call it."""
        return self._name

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the views or channels along ``v`` or ``c``; none where they have none."""
        for axis, dim in enumerate(self._dims):
            if dim in ("v", "c") and self._view.order[axis] < self._view.depth:
                places = self._view.places(axis)
                known = len(self._channels) == self._source.shape[self._view.order[axis]]
                return tuple(self._channels[place] for place in places) if known else ()
        return ()

    @property
    def chunks(self) -> tuple[int, ...]:
        """Most elements along each axis that lie in one chunk of the source."""
        return self._view.longest_runs(self._source.chunks)

    @property
    def uid(self) -> str:
        """The datum's uid where one event was chosen, else the asset's.

        An event is chosen by an integer along the event axis, or by anything that leaves one of several.
        """
        event = self._events.chosen(self._view) if self._event_uid else None
        return self._uid if event is None or not self._event_uid else self._event_uid(event)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __getitem__(self, key: Index) -> LazyArray:
        try:
            gather, step = parse(key, self.shape)
        except IndexError as error:
            to_come = self._to_come(key)
            if to_come is None:
                raise
            raise to_come from error
        whole = self if gather is None else self._gather(gather)
        taken = {whole._dims[axis] for axis in step.order if axis is not None}
        dims: list[str] = []
        for axis in step.order:
            dims.append(free_name("new", {*taken, *dims}) if axis is None else whole._dims[axis])
        part = copy(whole)
        part._view = whole._view.select(step)
        part._dims = tuple(dims)
        part._scale = tuple(
            1.0 if axis is None else whole._scale[axis] * _stride(step.picks[axis]) for axis in step.order
        )
        part._units = tuple(None if axis is None else whole._units[axis] for axis in step.order)
        part._growth = self._growth if keeps_events(gather, step) else None
        part._cuts = (*self._cuts, key)
        return part

    def __iter__(self) -> Iterator[LazyArray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[index] for index in range(len(self)))

    def _gather(self, gather: Gather) -> LazyArray:
        """Return what a mask over several axes leaves, as an array over a source of its own."""
        first, after = gather.axis, gather.axis + len(gather.points)
        point = free_name("point", {*self._dims[:first], *self._dims[after:]})
        part = copy(self)
        part._source, part._channels = Points(self._source, self._view, gather), ()
        part._view = View.whole(part._source.shape)
        part._dims = (*self._dims[:first], point, *self._dims[after:])
        part._scale = (*self._scale[:first], 1.0, *self._scale[after:])
        part._units = (*self._units[:first], None, *self._units[after:])
        part._events = self._events.gathered(self._view, gather)
        return part

    def coarser(self, most: Mapping[str, int]) -> tuple[LazyArray, Mapping[str, int]]:
        """Return it at the coarsest resolution that is stored beside it and suits, and how many elements are one there.

        Elements of such an array are means of the full resolution's, rounded to its dtype; steps grow with them. Where
        none is stored that suits, that is itself. Reads no pixels.

        Parameters
        ----------
        most
            By axis how many elements may be averaged, in parts of which no more is left: 12 may be 4 and 3 of these.
            Axes that are not named, or were cut, stay as they are.
        """
        view, wanted = self._view, [1] * self._view.depth
        for dim, place in zip(self._dims, view.order, strict=True):
            if place < view.depth and view.picks[place] == range(self._source.shape[place]):
                wanted[place] = most.get(dim, 1)
        found = self._source.coarser(wanted) if max(wanted, default=1) > 1 else None
        if found is None:
            return self, dict.fromkeys(self._dims, 1)
        source, factors = found
        picks = [
            pick if number >= view.depth or factors[number] == 1 else range(source.shape[number])
            for number, pick in enumerate(view.picks)
        ]
        by = [1 if place >= view.depth else factors[place] for place in view.order]
        part = copy(self)
        part._source, part._view = source, View(tuple(picks), view.order, view.depth)
        part._scale = tuple(step * factor for step, factor in zip(self._scale, by, strict=True))
        part._growth = None
        return part, dict(zip(self._dims, by, strict=True))

    def compute(self) -> NDArray[Any]:
        """Read it into memory.

        Returns
        -------
        numpy.ndarray
            New and the caller's own; axes in the order of ``dims``.

        Raises
        ------
        AssetMissing, AssetDamaged
            The pixels are not there, or not what was stored.
        """
        return read_view(self._source, self._view)

    async def read_async(self) -> NDArray[Any]:
        """Read it on a thread of asyncio's pool, as ``compute`` does.

        A cancelled call returns at once; the read it began ends by itself and what it read is let go.
        """
        import asyncio

        return await asyncio.to_thread(self.compute)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a LazyArray cannot become an array without a copy: reading makes a new array")
        return self.compute().astype(self.dtype if dtype is None else dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object) -> object:
        out = kwargs.get("out")
        outputs = cast("tuple[object, ...]", out if isinstance(out, tuple) else (out,))
        if method == "at" or any(isinstance(one, LazyArray) for one in outputs):
            raise TypeError(f"a LazyArray is read-only: {ufunc.__name__} cannot write into it; read it first")
        read = [np.asarray(one) if isinstance(one, LazyArray) else one for one in inputs]
        return getattr(ufunc, method)(*read, **kwargs)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("the truth value of an array without exactly one element is ambiguous")
        return bool(self.compute())

    def __int__(self) -> int:
        return int(self._scalar())

    def __float__(self) -> float:
        return float(self._scalar())

    def __complex__(self) -> complex:
        return complex(self._scalar())

    def _scalar(self) -> NDArray[Any]:
        if self.ndim:
            raise TypeError(f"only 0-dimensional arrays can be converted to Python scalars, not {self!r}")
        return self.compute()

    def max(
        self, axis: Axes = None, *, out: None = None, keepdims: bool = False
    ) -> NDArray[Any] | np.generic:
        """Return the largest element along ``axis`` (all axes if None), as ``numpy.max`` does.

        Reads every chunk once, block by block on several threads; takes memory for 64 MiB of blocks, or for one
        chunk where that is larger, and for what is left of them.
        """
        return reduce_blocks(self._blocked(out), "max", axis, keepdims=keepdims)

    def min(
        self, axis: Axes = None, *, out: None = None, keepdims: bool = False
    ) -> NDArray[Any] | np.generic:
        """Return the smallest element, as ``numpy.min`` does. Read like ``max``."""
        return reduce_blocks(self._blocked(out), "min", axis, keepdims=keepdims)

    def sum(
        self, axis: Axes = None, *, dtype: DTypeLike | None = None, out: None = None, keepdims: bool = False
    ) -> NDArray[Any] | np.generic:
        """Return the sum, as ``numpy.sum`` does, of floats in double precision. Read like ``max``."""
        return reduce_blocks(self._blocked(out), "sum", axis, keepdims=keepdims, dtype=dtype)

    def mean(
        self, axis: Axes = None, *, dtype: DTypeLike | None = None, out: None = None, keepdims: bool = False
    ) -> NDArray[Any] | np.generic:
        """Return the mean, as ``numpy.mean`` does, in double precision. Read like ``max``."""
        return reduce_blocks(self._blocked(out), "mean", axis, keepdims=keepdims, dtype=dtype)

    def std(
        self,
        axis: Axes = None,
        *,
        dtype: DTypeLike | None = None,
        out: None = None,
        ddof: float = 0,
        keepdims: bool = False,
    ) -> NDArray[Any] | np.generic:
        """Return the standard deviation, as ``numpy.std`` does, in double precision. Read like ``max``."""
        return reduce_blocks(self._blocked(out), "std", axis, keepdims=keepdims, dtype=dtype, ddof=ddof)

    def to_dask(self) -> dask.array.Array:
        """Return a dask array over this one, in blocks of at most 64 MiB cut along the chunks.

        Reads nothing; dask's workers read their blocks on any thread.

        Raises
        ------
        MissingExtra
            dask is not installed.
        """
        return dask_array(self, self._view.blocks(self._source.chunks, BLOCK_BYTES // self.dtype.itemsize))

    def to_zarr(self, path: str | PathLike[str]) -> None:
        """Write the elements, and nothing of the axes, into a new Zarr array, block by block in bounded memory.

        Not *synced*: a copy to carry away or to work on, not a way of keeping pixels.

        Raises
        ------
        MissingExtra
            dask is not installed.
        FileExistsError
            Something is at ``path``; it is not touched.
        """
        write_zarr(self.to_dask(), path)

    def _blocked(self, out: object = None) -> Blocked:
        if out is not None:
            raise TypeError("a LazyArray is not reduced into an array of the caller's: leave out away")
        return Blocked(
            self.shape,
            self.dtype,
            partial(self._view.blocks, self._source.chunks),
            lambda block: read_view(self._source, self._view.take(*block)),
        )


def _stride(pick: int | slice | NDArray[np.intp]) -> int:
    return abs(int(pick.step)) if isinstance(pick, slice) and pick.step is not None else 1


def growing(array: LazyArray, growth: Growth) -> LazyArray:
    """Return the array of all events of a run's data key or asset as one that can wait for more."""
    grown = copy(array)
    grown._growth, grown._cuts = growth, ()  # pyright: ignore[reportPrivateUsage] # of this module
    return grown
