"""The ``.live`` file of a run being written: a lock that dies with its process, and counters that do not.

The counters stand in a memory map, so that counting a frame is a store to memory and still is read after a SIGKILL.
Beside it lies a reserve of disk space, given back at a failure so that a full disk has room for saying so.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from pathlib import Path

from gently_bluesky.files import try_lock, write_all

__all__ = ["LiveFile", "is_live"]

MAGIC = b"gently-1"
LAYOUT = struct.Struct("<8sQQ")
COUNTER = struct.Struct("<Q")
SIZE = 4096
RESERVE = 256 * 1024


class LiveFile:
    """An open, locked ``.live`` file. Each counter is set by one thread."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, SIZE)

    @classmethod
    def create(cls, folder: Path) -> LiveFile:
        """Make and lock the file of a new run, and its reserve. Raises OSError."""
        path = folder / ".live"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o644)
        try:
            try_lock(fd)
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(fd, LAYOUT.pack(MAGIC, 0, 0).ljust(SIZE, b"\0"))
            live = cls(path, fd)
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        (folder / ".reserve").write_bytes(bytes(RESERVE))
        return live

    @classmethod
    def take(cls, folder: Path) -> LiveFile | None:
        """Lock the file that a dead process left; None while its process lives. Raises FileNotFoundError."""
        path = folder / ".live"
        fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            if not try_lock(fd):
                os.close(fd)
                return None
            if os.fstat(fd).st_size < SIZE:
                os.ftruncate(fd, SIZE)
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise

    @property
    def counts(self) -> tuple[int, int] | None:
        """Frames received and stored, or None if the file says nothing (power was lost before it was written)."""
        magic, received, stored = LAYOUT.unpack_from(self._map)
        return (received, stored) if magic == MAGIC else None

    def count_received(self, frames: int) -> None:
        """Set the counter: a store to memory, no call to the system."""
        COUNTER.pack_into(self._map, 8, frames)

    def count_stored(self, frames: int) -> None:
        """Set the counter: a store to memory, no call to the system."""
        COUNTER.pack_into(self._map, 16, frames)

    def release_reserve(self) -> None:
        """Give the reserved space back to the file system."""
        (self.path.parent / ".reserve").unlink(missing_ok=True)

    def close(self, *, remove: bool) -> None:
        """Let go of the lock; with ``remove`` the run has ended and the file goes. Idempotent."""
        if self._fd < 0:
            return
        self._map.close()
        fd, self._fd = self._fd, -1
        if remove and sys.platform != "win32":
            self.path.unlink(missing_ok=True)
        os.close(fd)
        if remove:
            self.path.unlink(missing_ok=True)
            self.release_reserve()


def is_live(folder: Path) -> bool:
    """Say whether a living process writes the run in this folder. Changes nothing."""
    try:
        fd = os.open(folder / ".live", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)
