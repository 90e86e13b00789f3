"""Reading events kept in shared memory: where they are, which there are, and the selected ones."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gently_bluesky.backends.inspecting import Fault, inspect_event_files
from gently_bluesky.backends.own_files import SMALL_BYTES, require_room
from gently_bluesky.backends.planes import distinct, places, read_planes
from gently_bluesky.errors import AssetDamaged, AssetDiffers, AssetMissing, GentlyError
from gently_bluesky.files import open_plain, read_plain, storage_error
from gently_bluesky.lazy import ArraySource, Selection
from gently_bluesky.segments import LOCK, is_segment_name, shared_folder

__all__ = [
    "EVENT_FILE",
    "MemorySource",
    "Place",
    "count_events",
    "event_name",
    "find_pixels",
    "inspect_events",
    "read_place",
]

EVENT_FILE = re.compile(r"(?P<hidden>\.?)(?P<number>\d{6,})\.raw")


def event_name(index: int, *, hidden: bool = False) -> str:
    """Return the name of an event's file in its segment.

    Examples
    --------
    >>> event_name(7), event_name(7, hidden=True)
    ('000007.raw', '.000007.raw')
    """
    return f"{'.' if hidden else ''}{index:06d}.raw"


@dataclass(frozen=True, slots=True)
class Place:
    """What the small file at an asset's path says: a segment, and what an event in it is."""

    segment: str
    frame_shape: object
    dtype: object


def read_place(path: Path) -> Place:
    """Return what the small file at ``path`` says, taking nothing on trust.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        There is none, it says nothing that a writer of ours says, or it cannot be read.
    """
    try:
        said = orjson.loads(read_plain(path))
        if not is_segment_name(said["segment"]):
            raise ValueError(f"no name of a segment: {said['segment']!r:.80}")
        return Place(said["segment"], said["frame_shape"], said["dtype"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AssetMissing(f"{path} is gone; no pixels were returned") from error
    except IsADirectoryError as error:
        raise AssetDamaged(f"{path}: expected a file that names a segment, found a folder") from error
    except OSError as error:
        raise storage_error(error, f"{path} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AssetDamaged(
            f"{path} does not say where its pixels are: {error}; no pixels were returned"
        ) from error


def find_pixels(path: Path, place: Place, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Path:
    """Return the segment folder that holds events of this shape and dtype.

    Raises
    ------
    AssetMissing
        It is not there: the machine was restarted, or it was removed.
    AssetDamaged
        It holds something else, or somebody else made it.
    """
    if place.frame_shape != list(shape) or place.dtype != dtype.str:
        raise AssetDiffers(
            f"{path}: expected events of shape {shape} and dtype {dtype}, as announced, found "
            f"{place.frame_shape!r:.80} and {place.dtype!r:.80}; no pixels were returned"
        )
    folder = shared_folder() / place.segment
    try:
        status = folder.lstat()
        owner = path.stat().st_uid
    except FileNotFoundError as error:
        raise _gone(path, folder) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner:
        raise AssetDamaged(f"{path}: {folder} is not what its writer made; no pixels were returned")
    return folder


def _gone(path: Path, folder: Path) -> AssetMissing:
    return AssetMissing(
        f"{path}: its pixels were kept in memory only, in {folder}, and are gone: the machine was restarted "
        "since, or they were removed; no pixels were returned; the documents of the run are as they were"
    )


def count_events(path: Path, folder: Path) -> int:
    """Return one more than the highest number of a published event in a segment folder.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        It is gone, or holds names that no writer of ours gives, or cannot be listed.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError as error:
        raise _gone(path, folder) from error
    except OSError as error:
        raise storage_error(error, f"{folder} cannot be listed") from error
    events = [
        int(found["number"]) for found in map(EVENT_FILE.fullmatch, names) if found and not found["hidden"]
    ]
    count = max(events, default=-1) + 1
    # One lost event must not close the others; a name that invents them by the thousand is another matter.
    if count > 2 * len(events) + 1000:
        raise AssetDamaged(
            f"{path}: names {count} events, holds {len(events)} files; no pixels were returned"
        )
    return count


def inspect_events(folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> Iterator[Fault]:
    """Return the faults of a segment folder, where each file has the size of one event."""
    nbytes = prod(shape) * dtype.itemsize

    def look(file_path: Path) -> None:
        size = file_path.stat().st_size
        if size < nbytes:
            raise EOFError(f"it has {size} bytes, an event has {nbytes}")
        if size > nbytes:
            raise AssetDamaged(f"it has {size} bytes, an event has {nbytes}")

    def is_half_written(name: str) -> bool:
        hidden = EVENT_FILE.fullmatch(name)
        return name == LOCK or (hidden is not None and bool(hidden["hidden"]))

    return inspect_event_files(folder, count, event_name, look, is_half_written)


class MemorySource(ArraySource):
    """Published events in shared memory, read by selection. Holds no file open between reads. Any thread."""

    def __init__(self, path: Path, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path: Path = path
        self._folder: Path = folder
        self._shape: tuple[int, ...] = shape
        self._dtype: np.dtype[Any] = dtype

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
            An event is gone, or all of them are with a restart of the machine.
        AssetDamaged
            A file is not a whole event of the declared shape and dtype.
        StorageError
            The system could not read.
        """
        self._require_room(selection)
        wanted = [places(entry) for entry in selection]
        out = np.empty(tuple(map(len, wanted)), self._dtype)
        for number, event in enumerate(wanted[0] if out.size else ()):
            self._read_event(int(event), wanted[1:], out[number : number + 1])
        return out

    def _require_room(self, selection: Selection) -> None:
        claimed = prod(self._shape[1:]) * self._dtype.itemsize
        if claimed > SMALL_BYTES and distinct(selection):
            event = selection[0].start if isinstance(selection[0], slice) else int(selection[0][0])
            require_room(self._folder / event_name(event), claimed)

    def _read_event(self, event: int, wanted: Sequence[NDArray[np.intp]], out: NDArray[Any]) -> None:
        file_path = self._folder / event_name(event)
        nbytes = prod(self._shape[1:]) * self._dtype.itemsize
        try:
            with open_plain(file_path, follow=False) as file:
                size = os.fstat(file.fileno()).st_size
                if size != nbytes:
                    raise EOFError(f"{size} bytes, expected {nbytes}")
                read_planes(file, 0, self._shape[1:], wanted, out)
        except (GentlyError, MemoryError):
            raise
        except FileNotFoundError as error:
            if not self._folder.exists():
                raise _gone(self._path, self._folder) from error
            raise AssetMissing(f"{self._path}: {file_path} is gone; no pixels were returned") from error
        except OSError as error:
            raise storage_error(error, f"{self._path}: {file_path} cannot be read") from error
        except EOFError as error:
            raise AssetDamaged(
                f"{self._path}: {file_path} is not a whole event: {error}; no pixels were returned"
            ) from error
