"""What every reader of other writers' files is made of: arrays read event by event, and no claim that is believed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.planes import places
from gently_bluesky.errors import AssetDamaged, AssetDiffers, AssetMissing, GentlyError
from gently_bluesky.files import open_plain, storage_error
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.names import numbered
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.lazy import ArraySource, Selection

__all__ = [
    "EventFiles",
    "EventSource",
    "Places",
    "box_around",
    "count_of",
    "files_of_stream",
    "fitted",
    "plausible",
    "text_of",
    "translated",
]

MOST_EXPANSION = 2**16
SMALL_BYTES = 2**28
MOST_AXES = 31
KINDS_OF_NUMBERS = "biufc"

Places = Sequence[NDArray[np.intp]]


class EventSource(ArraySource):
    """Arrays read event by event; what is open is closed when a read ends. Any thread.

    Parameters
    ----------
    count
        Number of events.
    stored
        Shape of one event's array as it is stored.
    dtype
        As stored, in either byte order.
    shape
        Of one event's array: ``stored``, but for axes of length 1 in front.
    """

    has_colours: bool = False
    """The last axis is that of colours."""

    def __init__(
        self, count: int, stored: tuple[int, ...], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self._count: int = count
        self._stored: tuple[int, ...] = stored
        self._frame: tuple[int, ...] = shape
        self._dtype: np.dtype[Any] = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, ``t`` first."""
        return (self._count, *self._frame)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns: as stored, in this machine's byte order."""
        return self._dtype.newbyteorder("=")

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of what is read at once."""
        chunks = self.stored_chunks
        added = len(self._frame) - len(self._stored)
        return (chunks[0], *(1,) * added, *chunks[1 + max(0, -added) :])

    @property
    def stored_chunks(self) -> tuple[int, ...]:
        """Lengths along the axes of the arrays as they are stored, events in front: one plane here."""
        leading = max(0, len(self._stored) - 2)
        return (1, *(1,) * leading, *(max(1, length) for length in self._stored[leading:]))

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array of the selected elements; takes memory for them, and for what one event needs.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            The files are not there, not what was announced, or cannot be read.
        """
        events, *wanted = (places(entry) for entry in selection)
        added = len(wanted) - len(self._stored)
        inner = [np.zeros(1, np.intp)] * -added + wanted[max(0, added) :]
        out = np.empty((len(events), *map(len, inner)), self._dtype)
        if out.size:
            self.read_events(events, inner, out)
        out = out.astype(self.dtype, copy=False)
        if added <= 0:
            return out.reshape(len(events), *map(len, wanted))
        out = out.reshape(len(events), *(1,) * added, *map(len, inner))
        return np.ascontiguousarray(np.broadcast_to(out, (len(events), *map(len, wanted))))

    # Doing nothing is right where all events are in one file, whose length is known.
    def require(self, event: int) -> None:
        """Look whether an event is there, by the headers of its files. Raises AssetMissing, AssetDamaged."""

    @abstractmethod
    def read_events(self, events: NDArray[np.intp], inner: Places, out: NDArray[Any]) -> None:
        """Fill ``out`` with the selected elements of these events as they are stored; none of it is empty."""


class EventFiles(EventSource):
    """Events kept in files of their own, one or several for each.

    Parameters
    ----------
    asset
        As it was announced.
    file_of
        Gives the path of a file, by its number from 0 on. Each is allowed before it is opened.
    files_per_event
        None: one, which holds the whole of it.
    """

    def __init__(
        self, asset: ForeignAsset, file_of: Callable[[int], Path], files_per_event: int | None
    ) -> None:
        self._file_of: Callable[[int], Path] = file_of
        self._roots: Roots = asset.roots
        self._per_event: int | None = files_per_event
        with self._opened(0) as file:
            shape, dtype = self.look(file)
        stored = shape if files_per_event is None else (files_per_event, *shape)
        self._file_shape: tuple[int, ...] = shape
        super().__init__(asset.count, stored, dtype, fitted(asset.shape, stored))

    def read_events(self, events: NDArray[np.intp], inner: Places, out: NDArray[Any]) -> None:
        """Read the selected part of each file that holds some of the events."""
        for number, event in enumerate(events):
            if self._per_event is None:
                self._read(int(event), inner, out[number])
                continue
            for within, frame in enumerate(inner[0]):
                self._read(int(event) * self._per_event + int(frame), inner[1:], out[number, within])

    def require(self, event: int) -> None:
        """Look at each file of an event."""
        several = self._per_event or 1
        for number in range(event * several, (event + 1) * several):
            with self._opened(number) as file:
                self._require_same(file)

    def _require_same(self, file: FileIO) -> None:
        shape, dtype = self.look(file)
        if (shape, dtype) != (self._file_shape, self._dtype):
            raise AssetDiffers(
                f"{file.name}: expected {self._file_shape} of {self._dtype}, as in the first file, found {shape} of "
                f"{dtype}; no pixels were returned"
            )

    def _read(self, number: int, wanted: Places, out: NDArray[Any]) -> None:
        with self._opened(number) as file:
            self._require_same(file)
            self.take(file, wanted, out)

    @contextmanager
    def _opened(self, number: int) -> Generator[FileIO]:
        path = self._file_of(number)
        path = self._roots.allowed(path, path.name)
        with translated(path), open_plain(path) as file:
            yield file

    @abstractmethod
    def look(self, file: FileIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype of what a file holds, if it can hold that."""

    @abstractmethod
    def take(self, file: FileIO, wanted: Places, out: NDArray[Any]) -> None:
        """Fill ``out`` with the selected elements of a file that was looked at before."""


@contextmanager
def translated(path: Path, so: str = "no pixels were returned") -> Generator[None]:
    """Turn whatever a reader of a format raises into our errors; ``so`` is what they say of the data."""
    try:
        yield
    except (GentlyError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise AssetMissing(f"{path} is not there; {so}; if its writer is still at it, try again") from error
    except EOFError as error:
        raise AssetDamaged(f"{path} is not whole: {error}; {so}") from error
    except OSError as error:
        if error.errno is not None:
            raise storage_error(error, f"{path} cannot be read") from error
        raise AssetDamaged(f"{path} cannot be read: {error}; {so}") from error
    except Exception as error:  # at a damaged header libraries raise errors of many kinds
        raise AssetDamaged(f"{path} cannot be read as what it is said to be: {error}; {so}") from error


def box_around(along: NDArray[np.intp]) -> tuple[slice, slice | NDArray[np.intp]]:
    """Return what to read of an axis, and what of that is wanted."""
    step = int(along[1] - along[0]) if len(along) > 1 else 1
    if step > 0 and bool(np.all(np.diff(along) == step)):
        return slice(int(along[0]), int(along[-1]) + 1, step), slice(None)
    first = int(along.min())
    return slice(first, int(along.max()) + 1, 1), along - first


def fitted(declared: tuple[int, ...] | None, stored: tuple[int, ...]) -> tuple[int, ...]:
    """Return the declared shape of an event where it differs from what is stored in leading ones only.

    Otherwise what is stored: devices often declare wrong shapes.
    """
    if declared is None or len(declared) > MOST_AXES:
        return stored
    longer, shorter = sorted((declared, stored), key=len, reverse=True)
    added = len(longer) - len(shorter)
    return declared if longer[added:] == shorter and set(longer[:added]) <= {1} else stored


def plausible(
    shape: Sequence[int], dtype: np.dtype[Any], nbytes: int, most_expansion: int = MOST_EXPANSION
) -> None:
    """Refuse a claim of more than ``nbytes`` of a compressed file can be, before memory is taken for it.

    Raises
    ------
    ValueError
        It is absurd, or holds no numbers.
    """
    if dtype.kind not in KINDS_OF_NUMBERS:
        raise ValueError(f"it holds {dtype}, not numbers")
    claimed = prod(shape) * dtype.itemsize
    if (
        len(shape) > MOST_AXES
        or min(shape, default=0) < 0
        or claimed > max(SMALL_BYTES, nbytes * most_expansion)
    ):
        raise ValueError(f"it claims {tuple(shape)} of {dtype} in {nbytes} bytes")


def files_of_stream(asset: ForeignAsset) -> tuple[Callable[[int], Path], int | None]:
    """Return the path of each file of a sequence that stream documents announce, and how many files an event has.

    None where one file holds the whole of it.

    Raises
    ------
    AssetDamaged
        The documents name no files, or cut events so that they are in no whole files.
    """
    filename = text_of(asset, "filename") if "filename" in asset.kwargs else ""
    file_of = numbered(asset.path, text_of(asset, "template"), filename)
    if asset.kwargs.get("join_method", "concat") == "stack" or not asset.shape:
        return file_of, None
    chunk_shape = asset.kwargs.get("chunk_shape")
    frames = chunk_shape[0] if isinstance(chunk_shape, Sequence) and chunk_shape else 1
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1 or asset.shape[0] % frames:
        raise AssetDamaged(
            f"{asset.path}: expected a chunk_shape whose first length divides the {asset.shape[0]} frames of an "
            f"event, got {chunk_shape!r:.80}; nothing was read"
        )
    if frames not in (1, asset.shape[0]):
        raise AssetDamaged(
            f"{asset.path}: expected files of one frame, or of all {asset.shape[0]} frames of an event, got files of "
            f"{frames}; nothing was read"
        )
    return file_of, None if frames == asset.shape[0] else asset.shape[0]


def text_of(asset: ForeignAsset, name: str) -> str:
    """Return a text that must stand in what was announced. Raises AssetDamaged."""
    value = asset.kwargs.get(name)
    if not isinstance(value, str) or "\0" in value:
        raise AssetDamaged(
            f"{asset.path}: expected a text as {name!r} in what announced it, got {value!r:.100}; nothing was read"
        )
    return value


def count_of(asset: ForeignAsset, name: str, default: int) -> int:
    """Return a number of things, 1 or more, of what was announced. Raises AssetDamaged."""
    value = asset.kwargs.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise AssetDamaged(
            f"{asset.path}: expected a number of frames as {name!r} in what announced it, got {value!r:.100}; "
            "nothing was read"
        )
    return value
