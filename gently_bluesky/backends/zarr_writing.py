"""Writing events shard by shard with TensorStore, few at a time.

A whole volume handed over at once takes most of its size again in memory, and is slower.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from typing import Any

import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.zarr_source import os_error
from gently_bluesky.files import storage_error

__all__ = ["ShardWriter"]

MAX_IN_FLIGHT_BYTES = 64 * 2**20
"""Of pixels handed to TensorStore and not yet synced: one slab of 8 planes of 2048 x 2048, or 8 frames."""


@dataclass(slots=True)
class _Event:
    what: str
    written: Future[None]
    left: int
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Shard:
    event: _Event
    array: ts.TensorStore
    pixels: NDArray[Any]


class ShardWriter:
    """Writes under way to one array, begun in order: by one thread; they end on threads of TensorStore's."""

    def __init__(self, array: ts.TensorStore, shard: tuple[int, ...]) -> None:
        self._array: ts.TensorStore = array
        self._shard: tuple[int, ...] = shard
        self._lock: threading.Lock = threading.Lock()
        self._waiting: deque[_Shard] = deque()
        self._in_flight_bytes: int = 0

    def write(self, index: int, frame: NDArray[Any], what: str) -> Future[None]:
        """Begin to store a frame; the future ends when all its shards are synced, or have failed to be.

        Parameters
        ----------
        index
            Along the first axis of the array.
        frame
            Must stay as it is until the future has ended.
        what
            Names the frame in the ``StorageFull`` or ``StorageError`` that the future ends with.
        """
        boxes = list(self._boxes(frame.shape))
        event = _Event(what, Future(), len(boxes))
        if not boxes:
            event.written.set_result(None)
        with self._lock:
            self._waiting += [_Shard(event, self._array[(index, *box)], frame[box]) for box in boxes]
        self._begin()
        return event.written

    def _boxes(self, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        starts = (range(0, length, piece) for length, piece in zip(shape, self._shard, strict=True))
        for corner in product(*starts):
            ends = map(min, shape, map(sum, zip(corner, self._shard, strict=True)))
            yield tuple(map(slice, corner, ends))

    def _begin(self) -> None:
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
                self._begin()

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
        event = shard.event
        with self._lock:
            self._in_flight_bytes -= shard.pixels.nbytes
            event.left -= 1
            event.error = event.error or error
            if event.left:
                return
        if event.error is None:
            event.written.set_result(None)
        else:
            told = storage_error(os_error(event.error), f"{event.what} was not stored")
            told.__cause__ = event.error
            event.written.set_exception(told)
