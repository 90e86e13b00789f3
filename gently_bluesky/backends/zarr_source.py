"""Reading a published Zarr array with TensorStore, without caches and without trust in the files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import count as numbers
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.chunks import MAX_CHUNK_BYTES
from gently_bluesky.backends.frames import declared_frame
from gently_bluesky.backends.own_files import SMALL_BYTES, open_own, require_own, require_plausible
from gently_bluesky.backends.planes import TRUSTED_EVENTS, distinct
from gently_bluesky.errors import AssetDamaged, AssetDiffers, AssetMissing, GentlyError
from gently_bluesky.files import storage_error
from gently_bluesky.lazy import ArraySource, Selection

__all__ = ["ARRAY", "NO_CACHE", "ZarrSource", "kvstore", "open_published", "os_error"]

ARRAY = "0"
MOST_METADATA = 2**20
NO_CACHE = {"cache_pool": {"total_bytes_limit": 0}}
OS_ERROR_CODE = re.compile(r"os_error_code='(\d+)'")


def open_published(path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> ZarrSource:
    """Open the events published by now; with a ``count`` of those that are known to be, without a look at
    their files. Raises AssetMissing, AssetDamaged, StorageError.
    """
    shape, dtype = declared_frame(path, resource_kwargs)
    for name in ("", f"/{ARRAY}"):
        require_own(f"{path}{name}")
    _require_metadata(path / ARRAY / "zarr.json")
    array = _opened(path, ARRAY)
    _check_declared(path, array, shape, dtype)
    if count is None or count > TRUSTED_EVENTS:
        _check_events(path, array.shape[0])
    return ZarrSource(path, array)


def _opened(path: Path, name: str) -> ts.TensorStore:
    spec = {"driver": "zarr3", "kvstore": kvstore(path / name), "fill_missing_data_reads": False}
    try:
        return ts.open(spec, open=True, read=True, context=ts.Context(NO_CACHE)).result()
    except Exception as error:
        raise _read_error(error, path, "cannot be opened") from error


class ZarrSource(ArraySource):
    """A published Zarr array, read by selection, with the shape of when it was opened. Any thread."""

    def __init__(self, path: Path, array: ts.TensorStore, name: str = ARRAY) -> None:
        self._path: Path = path
        self._array: ts.TensorStore = array
        self._chunks: str = str(path / name / "c")
        self._shard: tuple[int, ...] = tuple(
            length or 1 for length in array.chunk_layout.write_chunk.shape or ()
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, ``t`` first."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns."""
        return np.dtype(self._array.dtype.numpy_dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of an inner chunk."""
        return _chunk_shape(self._array)

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array of the selected elements; takes memory for them and the chunks they lie in.

        Raises
        ------
        AssetMissing
            The files of an event are gone.
        AssetDamaged
            A chunk is not what was stored.
        StorageError
            The system could not read.
        """
        found = require_own(self._chunks, self._shards(selection))
        claimed = distinct(selection) * self.dtype.itemsize
        if claimed > SMALL_BYTES and not found:
            raise AssetMissing(f"{self._path}: the files of these events are gone; no pixels were returned")
        require_plausible(self._path, claimed, found)
        try:
            selected = self._array.oindex[selection]
            # numpy asks the system for large pages, which TensorStore's own memory does without: faster by half
            out = np.empty(selected.shape, self.dtype)
            ts.array(out, copy=False).write(selected).result()
            return out
        except Exception as error:
            raise _read_error(error, self._path, "cannot be read") from error

    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:
        """Look for arrays ``"1"``, ``"2"``, ... beside this; what cannot be opened, or is of other pixels, is none."""
        found: tuple[ArraySource, tuple[int, ...]] | None = None
        for level in numbers(1):
            name = str(level)
            try:
                require_own(f"{self._path}/{name}")
                _require_metadata(self._path / name / "zarr.json")
                array = _opened(self._path, name)
            except GentlyError:
                return found
            factors = _factors(self.shape, tuple(array.shape))
            if factors is None or np.dtype(array.dtype.numpy_dtype) != self.dtype:
                return found
            if all(whole % factor == 0 for whole, factor in zip(most, factors, strict=True)):
                found = ZarrSource(self._path, array, name), factors
        return found

    def _shards(self, selection: Selection) -> list[Sequence[int]]:
        """Return the numbers of the shards that hold the selected elements, along each axis."""
        return [
            range(entry.start // length, -(-entry.stop // length))
            if isinstance(entry, slice)
            else sorted({*(entry // length).tolist()})
            for entry, length in zip(selection, self._shard, strict=True)
        ]


def _factors(full: tuple[int, ...], coarse: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return by which powers of 2 an array is coarser, along all axes but that of the events."""
    if len(full) != len(coarse) or coarse[0] < full[0]:
        return None
    factors = [1]
    for length, left in zip(full[1:], coarse[1:], strict=True):
        factor = 1
        while -(-length // factor) > max(left, 1):
            factor *= 2
        if -(-length // factor) != left:
            return None
        factors.append(factor)
    return tuple(factors) if max(factors) > 1 else None


def kvstore(folder: Path) -> dict[str, str]:
    """Return where an array is, in TensorStore's terms."""
    return {"driver": "file", "path": f"{folder}{os.sep}"}


def os_error(error: BaseException) -> OSError:
    """Return the system's error that TensorStore reports in the text of a ValueError."""
    found = OS_ERROR_CODE.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def _read_error(error: Exception, path: Path, what: str) -> Exception:
    text = str(error).partition(" [tensorstore_spec=")[0]
    if isinstance(error, MemoryError):
        return error
    if text.startswith("NOT_FOUND"):
        return AssetMissing(f"{path} {what}: {text}")
    if "os_error_code" in text:
        return storage_error(os_error(error), f"{path} {what}: {text}")
    return AssetDamaged(f"{path} {what}: {text}; no pixels were returned")


def _chunk_shape(array: ts.TensorStore) -> tuple[int, ...]:
    return tuple(length or 1 for length in array.chunk_layout.read_chunk.shape or ())


def _require_metadata(file: Path) -> None:
    """Look at an array's metadata first: of JSON nested too deep TensorStore's parser ends the process."""
    try:
        with open_own(file) as opened:
            orjson.loads(opened.read(MOST_METADATA + 1) or b"")
    except GentlyError:
        raise
    except FileNotFoundError as error:
        raise AssetMissing(f"{file} is gone; no pixels were returned") from error
    except ValueError as error:
        raise AssetDamaged(
            f"{file} is not the metadata of an array: {error}; no pixels were returned"
        ) from error
    except OSError as error:
        raise storage_error(error, f"{file} cannot be read") from error


def _check_declared(path: Path, array: ts.TensorStore, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    stored, stored_dtype = tuple(array.shape), np.dtype(array.dtype.numpy_dtype)
    if stored[1:] != shape or len(stored) != len(shape) + 1 or stored_dtype != dtype:
        raise AssetDiffers(
            f"{path}: expected events of shape {shape} and dtype {dtype}, as announced, "
            f"found {stored[1:]} and {stored_dtype}; no pixels were returned"
        )
    chunk_bytes = prod(_chunk_shape(array)) * dtype.itemsize
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise AssetDamaged(f"{path}: declares chunks of {chunk_bytes} bytes, which no asset of ours has")


def _check_events(path: Path, declared: int) -> None:
    """Refuse a shape that invents events by the thousand. One lost event must not close the others."""
    chunks = path / ARRAY / "c"
    if declared == 0 or (chunks / str(declared - 1)).exists():
        return
    there = sum(1 for _ in chunks.iterdir()) if chunks.is_dir() else 0
    if declared > 2 * there + 1000:
        raise AssetDamaged(
            f"{path}: declares {declared} events, holds files of {there}; no pixels were returned"
        )
