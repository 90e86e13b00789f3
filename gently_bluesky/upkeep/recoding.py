"""The pixels of one asset copied into another one, and read back: bounded memory, both cores, nothing believed.

Nothing here knows of journals, or what becomes of either asset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend, Pending
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec
from gently_bluesky.parallel import in_order, reading_threads
from gently_bluesky.settings import Packing
from gently_bluesky.upkeep.announced import Announced
from gently_bluesky.upkeep.pixels import BLOCK_BYTES, c_order_blocks, digest_of_event

__all__ = ["Recoding"]

SMALL_BYTES: Final = 32 * 2**20
"""Events up to this size are copied several at a time; of a larger one several pieces are read at a time."""
HELD_BYTES: Final = 512 * 2**20
COPIES: Final = 3
"""Of an event there are so many at once, read, waiting and being written, and of all together no more bytes."""


@dataclass(frozen=True, slots=True)
class Recoding:
    """What is copied.

    Attributes
    ----------
    announced
        With the digests of its events, where they have any, and their times.
    source, path
        It, opened, and where it lies.
    spec
        What one event is.
    time
        Of events that name none, in seconds since the epoch.
    tell
        Called with the bytes of an event that was copied, or read back.
    """

    announced: Announced
    source: ArraySource
    path: Path
    spec: ArraySpec
    time: float
    tell: Callable[[int], object]

    def into(self, backend: Backend, packing: Packing, path: Path) -> Mapping[str, Any]:
        """Copy all events to a new asset at ``path``, read them back, and return what opens it; *synced*.

        Takes memory for one event, or for as many small ones as `HELD_BYTES` hold.

        Raises
        ------
        AssetMissing, AssetDamaged
            Pixels are gone, or not those that were announced, or not those that were written.
        OSError
            They could not be written; what there is of the new asset is for the caller to remove.
        """
        count = self.announced.count
        sample = read_event(self.source, 0) if count else None
        sink = backend.create(path, self.spec, packing, sample)
        del sample
        try:
            digests = self._write(sink.write)
            sink.publish(count)
            kwargs = dict(sink.resource_kwargs)
        finally:
            sink.close()
        made = backend.open(path, kwargs, count)
        with closing(in_order(partial(digest_of_event, made), range(count), self._threads)) as found:
            for event, digest in enumerate(found):
                if digest != digests[event]:
                    raise AssetDamaged(
                        f"{path}: the copy of event {event} was read back as {digest}, expected {digests[event]}; "
                        f"nothing was changed, and {self.path} is what it was; try again, and look after the disk"
                    )
                self.tell(self.spec.nbytes)
        return kwargs

    @property
    def _threads(self) -> int:
        if self.spec.nbytes > SMALL_BYTES:
            return 1
        return max(1, min(reading_threads(), HELD_BYTES // (COPIES * max(1, self.spec.nbytes))))

    def _write(self, write: Callable[[int, NDArray[Any], float], Pending]) -> list[str]:
        """Write all events; return their digests."""
        digests: list[str] = []
        writing: deque[tuple[Pending, NDArray[Any]]] = deque()
        read = partial(self._checked, threads=1 if self._threads > 1 else reading_threads())
        with closing(in_order(read, range(self.announced.count), self._threads)) as events:
            for frame, digest in events:  # enumerate() would hold on to a frame while the next one is read
                event = len(digests)
                digests.append(digest)
                writing.append((write(event, frame, self.announced.times.get(event, self.time)), frame))
                del frame
                while len(writing) >= self._threads:
                    writing.popleft()[0].result()
                self.tell(self.spec.nbytes)
        while writing:
            writing.popleft()[0].result()
        return digests

    def _checked(self, event: int, threads: int) -> tuple[NDArray[Any], str]:
        frame = read_event(self.source, event, threads)
        digest, announced = digest_of_pixels(frame), self.announced.digests.get(event)
        if announced not in (None, digest):
            raise AssetDamaged(
                f"{self.path}: expected pixels of {announced} for event {event}, as announced, found {digest}; nothing "
                "was changed, and what there is can still be read; verify the run, and restore the event from a copy"
            )
        return frame, digest


def read_event(source: ArraySource, event: int, threads: int = 1) -> NDArray[Any]:
    """Return one event, C-contiguous, read in pieces, so many at a time. Raises as ``source.read``."""
    shape = source.shape[1:]
    frame = np.empty(shape, source.dtype)

    def read(box: tuple[slice, ...]) -> None:
        frame[box] = source.read((slice(event, event + 1, 1), *box))[0]

    boxes = c_order_blocks(shape, source.chunks[1:], BLOCK_BYTES // source.dtype.itemsize)
    with closing(in_order(read, boxes if frame.size else (), threads)) as done:
        for _ in done:
            pass
    return frame
