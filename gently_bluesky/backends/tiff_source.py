"""Reading events kept as TIFF files: which there are, where their pixels stand, and the selected ones."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from io import FileIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError
from gently_bluesky.files import storage_error
from gently_bluesky.lazy import ArraySource, Selection

__all__ = ["EVENT_FILE", "TiffSource", "as_bytes", "count_events", "planes_shape", "stored_dtype"]

EVENT_FILE = re.compile(r"(\d{6,})(?:\.ome)?\.tif")
KNOWN_OFFSETS = 4096


class TiffSource(ArraySource):
    """Published event files, read by selection. Holds no file open between reads. Any thread.

    Files are read, not mapped: where a disk fails, reading raises, while touching a map kills the process
    (SIGBUS). A crop costs whole rows of its planes.
    """

    def __init__(self, path: Path, template: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path: Path = path
        self._template: str = template
        self._shape: tuple[int, ...] = shape
        self._dtype: np.dtype[Any] = dtype
        self._offsets: dict[tuple[int, ...], int] = {}
        self._lock: threading.Lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, ``t`` first."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns."""
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of a plane: what is worth reading at once."""
        ones = max(0, len(self._shape) - 2)
        return (1,) * ones + tuple(max(1, length) for length in self._shape[ones:])

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array of the selected elements; takes memory for them and one plane.

        Raises
        ------
        AssetMissing
            The file of an event is gone.
        AssetDamaged
            A file is not a whole event of the declared shape and dtype.
        StorageError
            The system could not read.
        """
        places = [_places(entry) for entry in selection]
        out = np.empty(tuple(map(len, places)), self._dtype)
        if out.size:
            for number, event in enumerate(places[0]):
                self._read_event(int(event), places[1:], out[number : number + 1])
        return out

    def _read_event(self, event: int, places: Sequence[NDArray[np.intp]], out: NDArray[Any]) -> None:
        file_path = self._path / self._template.format(event)
        try:
            with file_path.open("rb", buffering=0) as file:
                offset = self._locate(file, event)
                _read_planes(file, offset, self._shape[1:], places, out)
        except (GentlyError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise AssetMissing(f"{file_path} is gone; no pixels were returned") from error
        except OSError as error:
            raise storage_error(error, f"{file_path} cannot be read") from error
        except Exception as error:  # at a damaged header tifffile raises errors of many kinds
            raise AssetDamaged(
                f"{file_path} is not a whole event: {error}; no pixels were returned"
            ) from error

    def _locate(self, file: FileIO, event: int) -> int:
        """Return where the pixels begin in a file that holds what was declared; looks into each file once."""
        status = os.fstat(file.fileno())
        key = (event, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._offsets.get(key)
        if known is not None:
            return known
        offset = _find_pixels(file, planes_shape(self._shape[1:]), stored_dtype(self._dtype), status.st_size)
        with self._lock:
            if len(self._offsets) >= KNOWN_OFFSETS:
                self._offsets.clear()
            self._offsets[key] = offset
        return offset


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array; ``memoryview.cast`` knows neither float16 nor complex."""
    return array.reshape(-1).view(np.uint8).data


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the file: TIFF's own bool is one bit, which cannot be mapped."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


def planes_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in the file: TIFF knows planes only, so a waveform is a plane of one row."""
    return (1,) * (2 - len(shape)) + shape


def count_events(path: Path) -> int:
    """Return one more than the highest number of an event file in a folder.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        There is no such folder, it is no folder of ours, or it cannot be listed.
    """
    try:
        names = [entry.name for entry in path.iterdir()]
    except FileNotFoundError as error:
        raise AssetMissing(f"{path} is gone; no pixels were returned") from error
    except NotADirectoryError as error:
        raise AssetDamaged(f"{path}: expected a folder with a file for each event, found a file") from error
    except OSError as error:
        raise storage_error(error, f"{path} cannot be listed") from error
    events = [int(found[1]) for found in map(EVENT_FILE.fullmatch, names) if found]
    count = max(events, default=-1) + 1
    # One lost event must not close the others; a name that invents them by the thousand is another matter.
    if count > 2 * len(events) + 1000:
        raise AssetDamaged(
            f"{path}: names {count} events, holds {len(events)} files; no pixels were returned"
        )
    return count


def _find_pixels(file: FileIO, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> int:
    """Return the offset of the pixels, if all planes are there, uncompressed, one behind the other."""
    plane_nbytes = shape[-2] * shape[-1] * dtype.itemsize
    planes = prod(shape[:-2])
    # tifffile closes what it opened itself, and leaves a handle it was given alone.
    with tifffile.TiffFile(file) as tiff:
        first = tiff.pages.first
        found = (len(tiff.pages), *first.shape)
        wanted = (planes, *shape[-2:])
        if found != wanted or first.dtype != dtype or first.compression != 1 or tiff.byteorder != "<":
            raise AssetDamaged(
                f"{file.name}: expected {wanted} planes, rows, columns of {dtype}, as announced, "
                f"found {found} of {first.dtype}, byte order {tiff.byteorder}, compression "
                f"{first.compression}; no pixels were returned"
            )
        if not first.description:
            raise EOFError("its description, written last, is not there")
        tiff.pages.set_keyframe(0)
        tiff.pages.useframes = True
        offset = first.dataoffsets[0]
        starts = [page.dataoffsets[0] for page in tiff.pages]
    if starts != list(range(offset, offset + planes * plane_nbytes, plane_nbytes)):
        raise AssetDamaged(
            f"{file.name}: its planes do not stand one behind the other; no pixels were returned"
        )
    if size < offset + planes * plane_nbytes:
        raise EOFError(f"{size} bytes, expected {offset + planes * plane_nbytes}")
    return offset


def _places(entry: slice | NDArray[np.intp]) -> NDArray[np.intp]:
    return np.arange(entry.start, entry.stop, entry.step) if isinstance(entry, slice) else entry


def _read_planes(
    file: FileIO, offset: int, shape: tuple[int, ...], places: Sequence[NDArray[np.intp]], out: NDArray[Any]
) -> None:
    """Read the selected elements of each selected plane into ``out``, whose first axis is of length 1."""
    missing = 2 - len(shape)
    if missing > 0:
        shape, places = (1,) * missing + shape, [np.zeros(1, np.intp)] * missing + list(places)
    out = out.reshape(tuple(map(len, places)))
    raw = out.view(np.uint8) if out.dtype.kind == "b" else out
    *leading, rows, columns = places
    top, height = int(rows.min()), int(np.ptp(rows)) + 1
    row_nbytes = shape[-1] * raw.itemsize
    in_place = _is_run(rows) and _is_run(columns) and len(columns) == shape[-1]
    scratch = np.empty((height, shape[-1]), raw.dtype)
    for to, at in zip(np.ndindex(raw.shape[:-2]), product(*leading), strict=True):
        plane = int(np.ravel_multi_index(at, shape[:-2])) if leading else 0
        target = raw[to] if in_place else scratch
        _read_exactly(file, offset + (plane * shape[-2] + top) * row_nbytes, target)
        if not in_place:
            raw[to] = scratch[rows - top][:, columns]
    if out.dtype.kind == "b" and raw.max() > 1:
        raise AssetDamaged(
            f"{file.name}: holds numbers where true and false were announced; no pixels were returned"
        )


def _is_run(places: NDArray[np.intp]) -> bool:
    return bool(np.all(np.diff(places) == 1))


def _read_exactly(file: FileIO, position: int, target: NDArray[Any]) -> None:
    file.seek(position)
    view = as_bytes(target)
    while view:
        read = file.readinto(view)
        if not read:
            raise EOFError("it ends before its pixels do")
        view = view[read:]
