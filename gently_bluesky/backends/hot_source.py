"""Reading from hot pools: a few of the newest events from shared memory, everything else from storage.

Nothing here can give wrong pixels: a copy is believed only if the table's row says before and after it that
the place held that event all the while. On any doubt storage is read. Nothing is locked, nothing is removed,
and nothing is held open between reads, so that a reader neither keeps a pool's memory nor its owner.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Sequence
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.hot import DATA_OFFSET, MAGIC, PAGE, ROW, SLOTS, key_of
from gently_bluesky.backends.planes import places, read_planes
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.segments import BINARY, HOT, NO_LINKS, names_of, shared_folder
from gently_bluesky.sources import ArraySource, Selection
from gently_bluesky.wrapped import WrappedSource

__all__ = ["HotSource"]

MOST_EVENTS = 8
"""Of one read. Who reads more than a live view does is served as well from storage."""
LOOK_AGAIN_S = 0.1
COMPARED = 40
"""Bytes of a row that say what is where, ``generation`` to ``nbytes``; behind them stands when it was used."""


class HotSource(WrappedSource):
    """A source of stored events that reads the newest ones from the hot pools of its store. Any thread.

    Parameters
    ----------
    source
        Of the stored events.
    tag
        Of the store's segments.
    asset_uid
        Of the asset.
    """

    def __init__(self, source: ArraySource, tag: str, asset_uid: str) -> None:
        super().__init__(source)
        self._tag: str = tag
        self._asset_uid: str = asset_uid
        self._lock: threading.Lock = threading.Lock()
        self._pools: Sequence[Path] = ()
        self._look_again_s: float = 0.0

    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array of the selected elements; raises as the source of stored events does."""
        wanted = [places(entry) for entry in selection]
        if 0 < len(wanted[0]) <= MOST_EVENTS:
            out = np.empty(tuple(map(len, wanted)), self.dtype)
            if out.size and self._copy(wanted, out):
                return out
        return self._source.read(selection)

    def _copy(self, wanted: Sequence[NDArray[np.intp]], out: NDArray[Any]) -> bool:
        """Copy all selected events, or say that some cannot be."""
        pools = self._pools
        tried: Sequence[Path] = ()
        for number, event in enumerate(wanted[0]):
            key = key_of(self._asset_uid, int(event))
            place = out[number : number + 1]
            while not any(_copied(pool, key, self.shape[1:], wanted[1:], place) for pool in pools):
                tried, pools = pools, self._look(pools)
                if pools == tried:
                    return False
        return True

    def _look(self, known: Sequence[Path]) -> Sequence[Path]:
        """Return the pools there are, which is looked up only now and then."""
        with self._lock:
            now_s = time.monotonic()
            if now_s >= self._look_again_s:
                self._look_again_s = now_s + LOOK_AGAIN_S
                folder = shared_folder()
                self._pools = [folder / name for name in sorted(names_of(self._tag, HOT))]
            return self._pools if self._pools != known else known


def _copied(
    pool: Path,
    key: tuple[int, int],
    shape: tuple[int, ...],
    wanted: Sequence[NDArray[np.intp]],
    out: NDArray[Any],
) -> bool:
    """Copy the selected elements of one event from a pool; say whether they are that event's."""
    try:
        fd = os.open(pool, os.O_RDWR | BINARY | NO_LINKS)
        with FileIO(fd, "r+b") as file:
            if not _is_own(fd):
                return False
            return _copied_from(file, key, shape, wanted, out)
    except (OSError, EOFError, AssetDamaged):  # gone, or overwritten while it was read
        return False


def _copied_from(
    file: FileIO,
    key: tuple[int, int],
    shape: tuple[int, ...],
    wanted: Sequence[NDArray[np.intp]],
    out: NDArray[Any],
) -> bool:
    head = file.read(DATA_OFFSET) or b""
    if len(head) < DATA_OFFSET or not head.startswith(MAGIC):
        return False
    table = np.frombuffer(head, ROW, SLOTS, PAGE)
    for slot in np.flatnonzero((table["low"] == key[0]) & (table["high"] == key[1])):
        row, start = table[slot], PAGE + int(slot) * ROW.itemsize
        if row["generation"] % 2 or row["nbytes"] != prod(shape) * out.itemsize:
            continue
        read_planes(file, int(row["offset"]), shape, wanted, out)
        file.seek(start)
        if file.read(COMPARED) == head[start : start + COMPARED]:
            file.write(time.monotonic_ns().to_bytes(8, "little"))
            return True
    return False


def _is_own(fd: int) -> bool:
    """Say whether a file is one that this user made: anybody may make files in the folder."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and (sys.platform == "win32" or status.st_uid == os.geteuid())
