"""A lazy array handed to dask, or written into a Zarr array of the caller's, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gently_bluesky.errors import MissingExtra

if TYPE_CHECKING:
    import dask.array

    from gently_bluesky.lazy import LazyArray

__all__ = ["dask_array", "write_zarr"]


def dask_array(array: LazyArray, cuts: Sequence[Sequence[slice]]) -> dask.array.Array:
    """Return a dask array over a lazy one, in these blocks.

    Raises
    ------
    MissingExtra
        dask is not installed.
    """
    try:
        import dask.array as da
    except ImportError as error:
        raise MissingExtra(
            "to_dask needs dask, which is not installed; nothing was read; it comes with the extra "
            "'dask': pip install 'gently-bluesky[dask]'"
        ) from error
    lengths = tuple(tuple(cut.stop - cut.start for cut in along) for along in cuts)
    # name=False gives a random name: the hash that dask would make instead wants to read everything
    # fancy=False keeps dask from handing us an index with several lists
    return da.from_array(
        array,
        chunks=lengths,  # pyright: ignore[reportArgumentType]  # dask types it by its default, "auto"
        name=False,
        fancy=False,
        meta=np.empty((0,) * array.ndim, array.dtype),
    )


def write_zarr(blocks: dask.array.Array, path: str | PathLike[str]) -> None:
    """Write a dask array into a new Zarr array.

    Raises
    ------
    FileExistsError
        Something is at ``path``; it is not touched.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already; nothing was written; give a new path")
    chunks: Any = tuple(max(along) for along in blocks.chunks)  # a Zarr array has chunks of one length
    blocks.map_blocks(np.asarray, dtype=blocks.dtype).rechunk(chunks).to_zarr(str(path))
