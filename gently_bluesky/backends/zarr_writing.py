"""Writing the events of one Zarr array, shard by shard with TensorStore, few at a time; and publishing them.

A whole volume handed over at once takes most of its size again in memory, and is slower.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.chunks import Layout
from gently_bluesky.backends.page_cache import NewestFiles
from gently_bluesky.backends.zarr_folders import EventFolders
from gently_bluesky.backends.zarr_source import NO_CACHE, kvstore, os_error
from gently_bluesky.files import storage_error, write_atomic

__all__ = ["ArrayWriter", "as_json", "when_all_ended"]

MAX_IN_FLIGHT_BYTES = 128 * 2**20
"""Of pixels handed to TensorStore and not yet synced: two slabs of 8 planes of 2048 x 2048, or 16 frames."""
UNBOUNDED_EVENTS = 1 << 40


class ArrayWriter:
    """One Zarr array being written through a handle without bounds; what readers see is ``publish``'s alone.

    Writing beyond the shape that is on disk needs a handle that was not told it: a resize first would show
    zeros.

    Parameters
    ----------
    folder
        Of the array, with its metadata in it.
    metadata
        What is in it.
    layout
        Of one event.
    syncs
        Whether what is written is synced before it is said to be stored.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any], layout: Layout, *, syncs: bool) -> None:
        self.layout: Layout = layout
        self._syncs: bool = syncs
        self.shape: tuple[int, ...] = tuple(metadata["shape"][1:])
        self._folder: Path = folder
        self._metadata: dict[str, Any] = dict(metadata)
        self._shards: _ShardWriter = _ShardWriter(_open_unbounded(folder, metadata, syncs=syncs))
        self._grid: tuple[int, ...] = tuple(map(_ceil_div, self.shape, layout.shard))
        # Folders above the shards: one for each place along each axis of an event but the last.
        self._folders: EventFolders = EventFolders(folder / "c", self._grid[:-1])
        self._newest: NewestFiles = NewestFiles()

    def write(self, index: int, frame: NDArray[Any], what: str) -> Future[None]:
        """Begin to store an event; the future ends when all its shards are stored, or have failed to be.

        Parameters
        ----------
        index
            Along the first axis of the array.
        frame
            Must stay as it is until the future has ended.
        what
            Names the event in the ``StorageFull`` or ``StorageError`` that the future ends with.

        Raises
        ------
        StorageError
            The folders for it could not be made.
        """
        self.prepare(index, what)
        parts = [(box, frame[box]) for box in self.layout.boxes(self.shape)]
        return when_all_ended(self._shards.begin(index, parts, what))

    def write_box(self, index: int, box: tuple[slice, ...], pixels: NDArray[Any], what: str) -> Future[None]:
        """Begin to store the part of an event that is one shard, after `prepare`; else like `write`."""
        (future,) = self._shards.begin(index, [(box, pixels)], what)
        return future

    def prepare(self, index: int, what: str) -> None:
        """Make and sync the folders of an event: TensorStore syncs only the folder that the shard is in.

        Where nothing is synced they are left to TensorStore, which makes what is missing.

        Raises
        ------
        StorageError
            They could not be made.
        """
        if not self.shape or not self._syncs:
            return
        try:
            self._folders.prepare(index)
        except OSError as error:
            raise storage_error(error, f"{what} was not stored") from error

    def publish(self, count: int, events: Iterable[int]) -> None:
        """Set the shape on disk, where these events are new. Synced where shards are. Raises OSError."""
        self._metadata["shape"] = [count, *self.shape]
        write_atomic(self._folder / "zarr.json", as_json(self._metadata), sync=self._syncs)
        for event in events:
            self._newest.add(
                "/".join(map(str, (self._folder, "c", event, *place)))
                for place in product(*map(range, self._grid))
            )

    def remove_unused(self, was_written: Callable[[int], bool]) -> None:
        """Remove the folders that were made for events that never came."""
        self._folders.remove_unused(was_written)


def when_all_ended(futures: Sequence[Future[None]]) -> Future[None]:
    """Return a future that ends when the last of these has, with the first error there was."""
    if len(futures) == 1:
        return futures[0]
    joined: Future[None] = Future()
    if not futures:
        joined.set_result(None)
    lock, errors, left = threading.Lock(), list[BaseException](), [len(futures)]

    def tell(future: Future[None]) -> None:
        error = future.exception()
        with lock:
            left[0] -= 1
            if error is not None:
                errors.append(error)
            if left[0]:
                return
        if errors:
            joined.set_exception(errors[0])
        else:
            joined.set_result(None)

    for future in futures:
        future.add_done_callback(tell)
    return joined


def as_json(metadata: Mapping[str, Any]) -> bytes:
    """Return what is written of metadata."""
    return orjson.dumps(metadata, option=orjson.OPT_INDENT_2)


@dataclass(frozen=True, slots=True)
class _Shard:
    array: ts.TensorStore
    pixels: NDArray[Any]
    what: str
    written: Future[None]


class _ShardWriter:
    """Writes under way to one array, begun in order: by one thread; they end on threads of TensorStore's."""

    def __init__(self, array: ts.TensorStore) -> None:
        self._array: ts.TensorStore = array
        self._lock: threading.Lock = threading.Lock()
        self._waiting: deque[_Shard] = deque()
        self._in_flight_bytes: int = 0

    def begin(
        self, index: int, parts: Sequence[tuple[tuple[slice, ...], NDArray[Any]]], what: str
    ) -> list[Future[None]]:
        """Begin to store parts of an event, a shard each, as soon as there is room."""
        shards = [_Shard(self._array[(index, *box)], pixels, what, Future()) for box, pixels in parts]
        with self._lock:
            self._waiting += shards
        self._begin_waiting()
        return [shard.written for shard in shards]

    def _begin_waiting(self) -> None:
        """Begin what there is room for. Any thread."""
        while (shard := self._next()) is not None:
            try:
                future = shard.array.write(shard.pixels, can_reference_source_data_indefinitely=True).commit
            except Exception as error:  # noqa: BLE001 - it is the event's, like those that come later
                self._end(shard, error)
                continue
            future.force()

            def tell(done: ts.Future[None], shard: _Shard = shard) -> None:
                self._end(shard, done.exception())
                self._begin_waiting()

            future.add_done_callback(tell)

    def _next(self) -> _Shard | None:
        with self._lock:
            room = MAX_IN_FLIGHT_BYTES - self._in_flight_bytes
            if not self._waiting or (self._in_flight_bytes and self._waiting[0].pixels.nbytes > room):
                return None
            shard = self._waiting.popleft()
            self._in_flight_bytes += shard.pixels.nbytes
            return shard

    def _end(self, shard: _Shard, error: BaseException | None) -> None:
        with self._lock:
            self._in_flight_bytes -= shard.pixels.nbytes
        if error is None:
            shard.written.set_result(None)
        else:
            told = storage_error(os_error(error), f"{shard.what} was not stored")
            told.__cause__ = error
            shard.written.set_exception(told)


def _open_unbounded(folder: Path, metadata: Mapping[str, Any], *, syncs: bool) -> ts.TensorStore:
    unbounded = {
        key: value for key, value in metadata.items() if key not in {"attributes", "storage_transformers"}
    }
    unbounded["shape"] = [UNBOUNDED_EVENTS, *metadata["shape"][1:]]
    spec = {
        "driver": "zarr3",
        "kvstore": kvstore(folder),
        "metadata": unbounded,
        "store_data_equal_to_fill_value": True,
    }
    context = ts.Context({"file_io_sync": syncs, **NO_CACHE})
    return ts.open(spec, open=True, assume_metadata=True, context=context).result()


def _ceil_div(length: int, piece: int) -> int:
    return -(-length // piece)
