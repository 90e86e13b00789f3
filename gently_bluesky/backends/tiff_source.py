"""Reading events kept as TIFF files, several at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.own_files import SMALL_BYTES, open_own, require_room
from gently_bluesky.backends.planes import Crop, distinct, places
from gently_bluesky.backends.tiff_layout import file_shape, find_pixels, planes_shape, stored_dtype
from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError
from gently_bluesky.files import storage_error
from gently_bluesky.lazy import ArraySource, Selection
from gently_bluesky.parallel import in_order, reading_threads

__all__ = ["TiffSource"]

KNOWN_OFFSETS = 2**15
PIECE_BYTES = 4 * 2**20
"""What one thread reads at a time, unless a plane is larger."""
CHUNK_BYTES = 2**19
SHARED_BYTES = 16 * 2**20
SHARED_FILES = 16
"""Reading more than that is worth starting threads for."""


class TiffSource(ArraySource):
    """Published event files, read by selection. Holds no file open between reads. Any thread.

    Files are read, not mapped: where a disk fails, reading raises, while touching a map kills the process
    (SIGBUS). A crop costs whole rows of its planes where they are short.
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
        """Lengths of what is worth reading at once: rows of one plane, of 512 KiB together."""
        rows, columns = planes_shape(self._shape[1:])[-2:]
        most = max(1, CHUNK_BYTES // self._dtype.itemsize)
        plane = (min(max(1, rows), max(1, most // max(1, columns))), min(max(1, columns), most))
        ndim = len(self._shape)
        return ((1,) * ndim + plane)[-ndim:] if ndim > 2 else (1, *plane[3 - ndim :])

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array of the selected elements; takes memory for them and 1 MiB for each thread.

        Raises
        ------
        AssetMissing
            The file of an event is gone.
        AssetDamaged
            A file is not a whole event of the declared shape and dtype.
        StorageError
            The system could not read.
        """
        self._require_room(selection)
        wanted = [places(entry) for entry in selection]
        out = np.empty(tuple(map(len, wanted)), self._dtype)
        if not out.size:
            return out
        crop = Crop.of(self._shape[1:], wanted[1:], self._dtype.itemsize)
        result = out.reshape(len(out), *crop.shape)
        cost = len(out) * len(crop.planes) * crop.plane_nbytes
        shared = cost > SHARED_BYTES or len(out) > SHARED_FILES
        with closing(
            in_order(
                lambda piece: self._read_piece(piece, crop, wanted[0], result),
                _pieces(len(out), crop),
                reading_threads() if shared else 1,
            )
        ) as reading:
            deque(reading, maxlen=0)
        return out

    def _require_room(self, selection: Selection) -> None:
        """Look whether a file has room for a large event, before memory is taken for what is selected of it."""
        claimed = prod(self._shape[1:]) * self._dtype.itemsize
        if claimed > SMALL_BYTES and distinct(selection):
            event = selection[0].start if isinstance(selection[0], slice) else int(selection[0][0])
            require_room(self._path / self._template.format(event), claimed)

    def _read_piece(self, piece: _Piece, crop: Crop, events: NDArray[np.intp], out: NDArray[Any]) -> None:
        for number in piece.events:
            self._read_event(int(events[number]), crop, out[number], piece.planes)

    def _read_event(self, event: int, crop: Crop, out: NDArray[Any], planes: range) -> None:
        file_path = self._path / self._template.format(event)
        try:
            with open_own(file_path) as file:
                crop.read(file, self._locate(file, event), out, planes)
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
        shape = file_shape(self._shape[1:], is_ome=".ome." in self._template)
        offset = find_pixels(file, shape, stored_dtype(self._dtype), status.st_size)
        with self._lock:
            if len(self._offsets) >= KNOWN_OFFSETS:
                self._offsets.clear()
            self._offsets[key] = offset
        return offset


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one thread reads at a time: some planes of some events, by their numbers in the result."""

    events: range
    planes: range


def _pieces(events: int, crop: Crop) -> Iterator[_Piece]:
    """Cut a read into pieces: several whole events where they are small, else some planes of one."""
    planes = len(crop.planes)
    at_once = max(1, PIECE_BYTES // crop.plane_nbytes)
    if at_once >= planes:
        several = min(SHARED_FILES, max(1, at_once // planes))
        for start in range(0, events, several):
            yield _Piece(range(start, min(start + several, events)), range(planes))
        return
    for event in range(events):
        for start in range(0, planes, at_once):
            yield _Piece(range(event, event + 1), range(start, min(start + at_once, planes)))
