"""The hot pool: the newest arrays once more in shared memory, where any process of this user reads them at once.

It is a cache over what is stored, never the only copy. The process that made it is its only writer; it takes
buffers in it, fills them, and lets readers find them once their events are announced. A table in the segment
says what is where. Readers (``hot_source``) take no locks: each row has a generation, odd while the row stands
for nothing, which they look at before and after they copy.

One segment file holds all of it: a page of header, the table, the pixels.
"""

from __future__ import annotations

import atexit
import heapq
import mmap
import os
import shutil
import sys
import threading
import time
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidSetting, StorageError
from gently_bluesky.files import unlock, write_all
from gently_bluesky.segments import HOT, make_locked, random_name, shared_folder, tag_of

__all__ = ["DATA_OFFSET", "MAGIC", "PAGE", "ROW", "SLOTS", "HotPool", "key_of"]

MAGIC = b"gently-hot-pool1"
PAGE = 4096
SLOTS = 1024
"""Most arrays in a pool, in flight or kept."""
ROW = np.dtype(
    [
        ("generation", "<u8"),
        ("low", "<u8"),
        ("high", "<u8"),
        ("offset", "<u8"),
        ("nbytes", "<u8"),
        ("used", "<u8"),
        ("spare", "<u8", (2,)),
    ]
)
"""A row of the table: what a reader compares (``generation`` to ``nbytes``), and when it was last used, in
nanoseconds of the system's monotonic clock, which readers set too."""
DATA_OFFSET = PAGE + SLOTS * ROW.itemsize
ATTEMPTS = 20
ZEROS = bytes(1 << 20)


def key_of(asset_uid: str, index: int) -> tuple[int, int]:
    """Return the two numbers by which a row says whose array it stands for."""
    digest = blake2b(f"{asset_uid}\0{index}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


@dataclass(slots=True, eq=False)
class _Block:
    """A stretch of the pool: free (no slot), in flight, or kept."""

    offset: int
    size: int
    slot: int | None = None
    kept: bool = False
    stamp: int = 0
    """When it was last used, as far as the heap knows; readers may have used it since."""


class HotPool:
    """A bounded piece of shared memory, and who lies where in it. Any thread."""

    _turns: ClassVar[count[int]] = count()

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path: Path = path
        self._fd: int = fd
        self._pid: int = os.getpid()
        self._lock: threading.Lock = threading.Lock()
        # populated: the first lap is as fast as the later ones
        flags = {"flags": mmap.MAP_SHARED | mmap.MAP_POPULATE} if sys.platform == "linux" else {}
        self._bytes: NDArray[np.uint8] = np.frombuffer(mmap.mmap(fd, size, **flags), np.uint8)
        self._base: int = _address(self._bytes)
        self._rows: NDArray[Any] = self._bytes[PAGE:DATA_OFFSET].view(ROW)
        self._rows["generation"] = 1
        self._blocks: list[_Block] = [_Block(DATA_OFFSET, size - DATA_OFFSET)]
        self._free_nbytes: int = size - DATA_OFFSET
        self._free_slots: list[int] = list(range(SLOTS))
        self._taken: dict[int, _Block] = {}
        self._heap: list[tuple[int, int, _Block]] = []
        _fence()
        self._bytes[: len(MAGIC)] = np.frombuffer(MAGIC, np.uint8)  # from here on readers believe the table

    @classmethod
    def create(cls, store_uid: str, nbytes: int) -> HotPool:
        """Make a pool for a store; all of its memory is taken now.

        Parameters
        ----------
        nbytes
            Of shared memory, table included.

        Raises
        ------
        InvalidSetting
            It would hold nothing, or there is not as much free shared memory; nothing was written.
        StorageError
            The segment cannot be made.
        """
        folder, size = shared_folder(), nbytes - nbytes % PAGE
        free = shutil.disk_usage(folder).free
        if not DATA_OFFSET + PAGE <= size <= free:
            raise InvalidSetting(
                f"expected hot_bytes from {DATA_OFFSET + PAGE} to what is free in {folder}, {free}, got "
                f"{nbytes}; nothing was written; give less, or make room there"
            )
        for _ in range(ATTEMPTS):
            path = folder / (random_name(tag_of(store_uid)) + HOT)
            with suppress(FileNotFoundError):  # swept while it was made
                fd = make_locked(path)
                try:
                    _take_space(fd, size)
                    pool = cls(path, fd, size)
                    atexit.register(pool.close)
                    return pool
                except BaseException as error:
                    path.unlink(missing_ok=True)
                    os.close(fd)
                    if isinstance(error, OSError):
                        raise InvalidSetting(
                            f"hot_bytes={nbytes} could not be taken in {folder}: {error}; nothing was written; "
                            "give less, or make room there"
                        ) from error
                    raise
        raise StorageError(f"a hot pool in {folder} was swept {ATTEMPTS} times while it was made")

    def take(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Return a buffer of ``nbytes`` to be filled and then kept, or given back; no call to the system.

        What was used longest ago makes room for it. The buffer may hold anything.

        Returns
        -------
        NDArray or None
            1-D; None where there is no room beside the buffers that are in flight.
        """
        size = -(-nbytes // PAGE) * PAGE
        with self._lock:
            block = self._room_for(size) if size > 0 and not self.closed else None
            if block is None:
                return None
            self._taken[block.offset] = block
            return self._bytes[block.offset : block.offset + nbytes]

    def keep(self, buffer: NDArray[Any], asset_uid: str, index: int) -> None:
        """Let readers find a buffer that holds an array which is announced; from now on it may make room.

        Parameters
        ----------
        buffer
            From `take`, or any view of it with as many bytes: C-order, little-endian, as it is stored.
        asset_uid, index
            Of the asset, and the array's place in it.
        """
        low, high = key_of(asset_uid, index)
        with self._lock:
            block = self._taken.pop(_address(buffer) - self._base)
            if self.closed:
                return
            row = self._rows[block.slot]
            row["low"], row["high"], row["offset"], row["nbytes"] = low, high, block.offset, buffer.nbytes
            block.stamp = time.monotonic_ns()
            row["used"] = block.stamp
            _fence()
            row["generation"] += 1
            block.kept = True
            heapq.heappush(self._heap, (block.stamp, next(self._turns), block))

    def give_back(self, buffer: NDArray[Any]) -> None:
        """Take back a buffer that nothing announced is in."""
        with self._lock:
            block = self._taken.pop(_address(buffer) - self._base)
            if not self.closed:
                self._free(block)

    @property
    def closed(self) -> bool:
        """Whether it was closed: then there is no room in it."""
        return self._fd < 0

    def close(self) -> None:
        """Remove the pool. Idempotent. Readers go on from what is stored; buffers in flight stay usable.

        Its memory is given back as soon as no buffer is in flight. A process that ends well does it by itself. In
        a child that was forked it does nothing.
        """
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.close)
        with self._lock:
            if self.closed:
                return
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # Windows removes no file that is mapped: the next opening does
                self.path.unlink(missing_ok=True)
            unlock(fd)  # the map has a descriptor of its own, which lives as long as the last buffer
            os.close(fd)
            self._bytes = self._rows = np.empty(0, np.uint8)

    # -- with the lock held ---------------------------------------------------------------------------------

    def _room_for(self, size: int) -> _Block | None:
        oldest = self._oldest()
        is_full = self._free_nbytes < size or not self._free_slots
        if is_full and oldest is not None and oldest.size == size:
            self._evict(oldest)  # where all are of one size, nothing is cut or joined
            return oldest
        found = self._window(size)
        if found is None:
            return None
        first, last = found
        for block in self._blocks[first : last + 1]:
            if block.kept:
                self._evict(block)
                self._release_slot(block)
        if not self._free_slots:
            oldest = self._oldest()
            if oldest is None:
                return None
            self._evict(oldest)
            self._release_slot(oldest)
        block = self._join(first, last)
        self._free_nbytes -= size
        if block.size > size:
            self._blocks.insert(first + 1, _Block(block.offset + size, block.size - size))
            block.size = size
        block.slot = self._free_slots.pop()
        return block

    def _window(self, size: int) -> tuple[int, int] | None:
        """Return the neighbours, none in flight, of which even the last used one was used longest ago."""
        stamps = [self._last_used(block) for block in self._blocks]
        best: tuple[int, int] | None = None
        least: float = float("inf")
        for first in range(len(self._blocks)):
            total, newest = 0, 0.0
            for last in range(first, len(self._blocks)):
                total, newest = total + self._blocks[last].size, max(newest, stamps[last])
                if newest >= least:
                    break
                if total >= size:
                    best, least = (first, last), newest
                    break
            if least == 0:
                break
        return best

    def _last_used(self, block: _Block) -> float:
        if block.slot is None:
            return 0.0
        return float(self._rows["used"][block.slot]) if block.kept else float("inf")

    def _oldest(self) -> _Block | None:
        """Return the kept block that was used longest ago, by anybody."""
        while self._heap:
            stamp, turn, block = self._heap[0]
            if not block.kept or block.stamp != stamp:
                heapq.heappop(self._heap)  # made room since
                continue
            used = int(self._rows["used"][block.slot])
            if used <= stamp:
                return block
            block.stamp = used
            heapq.heapreplace(self._heap, (used, turn, block))
        return None

    def _evict(self, block: _Block) -> None:
        """Let no reader find a kept block any more; it keeps its slot."""
        row = self._rows[block.slot]
        row["generation"] += 1
        row["low"] = row["high"] = 0
        _fence()  # before anybody writes where its pixels are
        block.kept = False

    def _release_slot(self, block: _Block) -> None:
        if block.slot is not None:
            self._free_slots.append(block.slot)
            block.slot = None
            self._free_nbytes += block.size

    def _free(self, block: _Block) -> None:
        self._release_slot(block)
        place = bisect_left(self._blocks, block.offset, key=lambda known: known.offset)
        before = place > 0 and self._blocks[place - 1].slot is None
        behind = place + 1 < len(self._blocks) and self._blocks[place + 1].slot is None
        self._join(place - before, place + behind)

    def _join(self, first: int, last: int) -> _Block:
        """Make neighbours that are free one."""
        block = self._blocks[first]
        block.size = sum(one.size for one in self._blocks[first : last + 1])
        del self._blocks[first + 1 : last + 1]
        return block


def _take_space(fd: int, size: int) -> None:
    """Take the memory of a file now: where there is none that is an error, later it would be a SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    left = memoryview(ZEROS)
    for start in range(0, size, len(left)):
        write_all(fd, left[: size - start])


def _address(array: NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]


def _fence() -> None:
    """Keep the processor from moving what is written before this behind what is written after it.

    Unlocking a lock orders what came before it, locking what comes after it, and a lock is not locked ahead
    of an unlocking (on ARM too, "LDAR after STLR" in its memory model), so that two locks in a row are a
    barrier. x86 keeps writes in order by itself.
    """
    for lock in (threading.Lock(), threading.Lock()):
        with lock:
            pass
