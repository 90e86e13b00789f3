"""What a copy to carry away consists of, and how one array of it is written."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.base import Sink
from gently_bluesky.labels import bytes_text
from gently_bluesky.model import ArraySpec
from gently_bluesky.wording import many

__all__ = ["BackendAsset", "Exported", "ExportedArray", "NumpyFile", "Target"]

IN_MEMORY_BYTES = 256 * 2**20
"""An event that is larger is put together in a file, which the system takes out of memory when it needs the room."""


@dataclass(frozen=True, slots=True)
class ExportedArray:
    """One array of a copy.

    Attributes
    ----------
    file
        Its file, or folder, in the copy.
    uid
        Of the asset or datum in the store.
    stream, data_key
        Where it belongs.
    shape, dtype, dims, scale, units, channel_names
        Of the array; with the event axis ``t`` in front but for a single event.
    event_time_s
        When each event happened, in seconds since the epoch; None where nothing says so.
    """

    file: str
    uid: str
    stream: str
    data_key: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    channel_names: tuple[str, ...]
    event_time_s: tuple[float | None, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Exported:
    """What was copied, and where to.

    Attributes
    ----------
    path
        The folder of the copy: arrays, ``documents.jsonl`` and ``arrays.json``, which says what each array is.
    run, status
        The run that it is of, and how that stood: of one that is ``"running"`` there is what was announced by then.
    format
        As asked for.
    arrays
        In the order of streams and data keys.
    unchecked
        Events that nothing was known of to compare their pixels with: those of other writers.
    """

    path: Path
    run: str
    status: str
    format: str
    arrays: tuple[ExportedArray, ...]
    unchecked: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of pixels."""
        return sum(array.nbytes for array in self.arrays)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path), "nbytes": self.nbytes}

    def __str__(self) -> str:
        lines = [f"{array.file}  {array.shape} {np.dtype(array.dtype).name}" for array in self.arrays]
        if self.status == "running":
            lines.append("the run is still being written: these are the events that it had announced by now")
        if self.unchecked:
            lines.append(
                f"{many(self.unchecked, 'event')} of other writers: their pixels were compared with nothing"
            )
        return "\n".join([*lines, f"{bytes_text(self.nbytes)} of pixels are in {self.path}"])


class Target(ABC):
    """One array of a copy being written."""

    @abstractmethod
    def room(self, event: int) -> NDArray[Any]:
        """Return memory for the pixels of an event, C-contiguous; it may be used again for the next one."""

    @abstractmethod
    def store(self, event: int, pixels: NDArray[Any], time: float) -> None:
        """Store what was put into the room of an event. Raises OSError."""

    @abstractmethod
    def finish(self, events: int) -> None:
        """Say that this is all of it. Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything open, finished or not."""


class NumpyFile(Target):
    """One ``.npy`` file, which is filled in place."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, is_event: bool) -> None:
        self._is_event = is_event
        self._pixels: NDArray[Any] | None = None
        if math.prod(shape):
            self._pixels = np.lib.format.open_memmap(path, "w+", dtype, shape)
            _take_room(path)
        else:
            np.save(path, np.empty(shape, dtype))  # there is nothing to map

    def room(self, event: int) -> NDArray[Any]:
        """Return the place of the event in the file."""
        if self._pixels is None:
            return np.empty(0)
        return self._pixels if self._is_event else self._pixels[event, ...]

    def store(self, event: int, pixels: NDArray[Any], time: float) -> None:
        """Do nothing: it is there."""

    def finish(self, events: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Let go of the file."""
        self._pixels = None


class BackendAsset(Target):
    """An asset as a backend writes it, one event after the other.

    Parameters
    ----------
    scratch
        Where an event that is too large for memory is put together.
    """

    def __init__(self, sink: Sink, spec: ArraySpec, scratch: Path) -> None:
        self._sink = sink
        self._scratch = scratch
        self._pixels: NDArray[Any] | None
        if spec.nbytes > IN_MEMORY_BYTES:
            try:
                self._pixels = np.memmap(scratch, spec.dtype, "w+", shape=spec.shape)
                _take_room(scratch)
            except OSError:
                sink.close()
                raise
        else:
            self._pixels = np.empty(spec.shape, spec.dtype)

    def room(self, event: int) -> NDArray[Any]:  # noqa: ARG002
        """Return the same memory for all events."""
        return np.empty(0) if self._pixels is None else self._pixels

    def store(self, event: int, pixels: NDArray[Any], time: float) -> None:
        """Wait until the event is stored."""
        self._sink.write(event, pixels, time).result()

    def finish(self, events: int) -> None:
        """Publish the events."""
        self._sink.publish(events)

    def close(self) -> None:
        """Close the sink and remove the scratch."""
        self._sink.close()
        self._pixels = None
        self._scratch.unlink(missing_ok=True)


def _take_room(path: Path) -> None:
    """Have the disk set aside what a file is long: mapped, it is killed where there is no room, and told nothing.

    Raises
    ------
    OSError
        There is not as much.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
