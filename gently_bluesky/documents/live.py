"""The ``.live`` file of a run being written: a lock that dies with its process, and counters that do not.

The counters stand in a memory map, so that counting a frame is a store to memory and still is read after a SIGKILL;
so does the reason of a failure that a full disk would not let into the journal. Beside the file lies a reserve of
disk space, given back at a failure so that there is room for saying so.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gently_bluesky.files import NO_LOCKS, open_plain, try_lock, unlock, wait_for_lock, write_all

__all__ = ["LastWords", "LiveFile", "is_live", "read_last_words"]

MAGIC = b"gently-1"
LAYOUT = struct.Struct("<8sQQI")
COUNTER = struct.Struct("<Q")
LENGTH = struct.Struct("<I")
SIZE = 4096
LONGEST_REASON = SIZE - LAYOUT.size
RESERVE = 256 * 1024
TAKE_ATTEMPTS = 20
TAKE_PAUSE_S = 0.005
BINARY = getattr(os, "O_BINARY", 0)
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""A link in the place of the lock is none of ours: what it leads to is not changed."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """What the file says of its run.

    Attributes
    ----------
    counts
        Frames received and stored, or None if it says nothing (power was lost before it was written).
    failure
        Why the run failed, if it did and its journal does not say so.
    """

    counts: tuple[int, int] | None = None
    failure: str | None = None

    @classmethod
    def of(cls, data: bytes | mmap.mmap) -> LastWords:
        """Read them from what is in the file, taking nothing on trust."""
        if len(data) < LAYOUT.size:
            return cls()
        magic, received, stored, length = LAYOUT.unpack_from(data)
        if magic != MAGIC:
            return cls()
        if not 0 < length <= LONGEST_REASON:
            return cls((received, stored))
        return cls((received, stored), data[LAYOUT.size : LAYOUT.size + length].decode(errors="ignore"))


def read_last_words(folder: Path) -> LastWords:
    """Return what the file in a run's folder says, without taking its lock; nothing where there is none."""
    try:
        with open_plain(folder / ".live") as file:
            return LastWords.of(file.read(SIZE))
    except OSError:
        return LastWords()


class LiveFile:
    """An open, locked ``.live`` file. Each counter is set by one thread."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, SIZE)

    @classmethod
    def create(cls, folder: Path) -> LiveFile:
        """Make and lock the file of a new run, and its reserve.

        Raises
        ------
        FileNotFoundError
            The folder is gone: somebody took it for what a dead process left. Make another one.
        OSError
            It cannot be made; what there is of it is for the caller to remove.
        """
        path = folder / ".live"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | BINARY, 0o644)
        try:
            wait_for_lock(fd)  # others take it for a moment, to see whether it is free
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(fd, LAYOUT.pack(MAGIC, 0, 0, 0).ljust(SIZE, b"\0"))
            if not _is_at(fd, path):
                raise FileNotFoundError(f"{path} was removed while it was made")
            # of noise: what a file system would compress is no reserve
            (folder / ".reserve").write_bytes(os.urandom(RESERVE))
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def take(cls, folder: Path, *, make: bool = False) -> LiveFile | None:
        """Lock the file that a dead process left; None while its process lives.

        Raises
        ------
        FileNotFoundError
            There is none; with ``make`` one is made that knows no counts.
        """
        path = folder / ".live"
        fd = os.open(path, os.O_RDWR | BINARY | NO_LINKS | (os.O_CREAT if make else 0), 0o644)
        try:
            if not _lock_unless_held(fd):
                os.close(fd)
                return None
            if not _is_at(fd, path):
                raise FileNotFoundError(f"{path} was removed by another process")
            if os.fstat(fd).st_size < SIZE:
                os.ftruncate(fd, SIZE)
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise

    @property
    def last_words(self) -> LastWords:
        """What it says now."""
        return LastWords.of(self._map)

    def count_received(self, frames: int) -> None:
        """Set the counter: a store to memory, no call to the system."""
        COUNTER.pack_into(self._map, 8, frames)

    def count_stored(self, frames: int) -> None:
        """Set the counter: a store to memory, no call to the system."""
        COUNTER.pack_into(self._map, 16, frames)

    def note_failure(self, reason: str) -> None:
        """Keep why the run failed, cut to what there is room for: a store to memory, no call to the system."""
        text = reason.encode(errors="replace")[:LONGEST_REASON]
        self._map[LAYOUT.size : LAYOUT.size + len(text)] = text
        LENGTH.pack_into(self._map, 24, len(text))

    def release_reserve(self) -> None:
        """Give the reserved space back to the file system."""
        (self.path.parent / ".reserve").unlink(missing_ok=True)

    def close(self, *, remove: bool) -> None:
        """Let go of the lock; with ``remove`` the run has ended and the files go, ``.live`` last. Idempotent."""
        if self._fd < 0:
            return
        self._map.close()
        fd, self._fd = self._fd, -1
        try:
            if remove:
                self.release_reserve()
            if remove and sys.platform != "win32":
                self.path.unlink(missing_ok=True)
        finally:
            os.close(fd)
        if remove:
            self.path.unlink(missing_ok=True)


def is_live(folder: Path) -> bool:
    """Say whether a living process writes the run in this folder. Changes nothing, and hinders no writer."""
    try:
        fd = os.open(folder / ".live", os.O_RDONLY | BINARY | NO_LINKS | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return False
        raise
    try:
        return not try_lock(fd, shared=True)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return True  # nobody can say: who takes it for alive leaves it alone
        raise
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _lock_unless_held(fd: int) -> bool:
    """Take the exclusive lock unless a process has it. One that looks, as `is_live` does, is waited for."""
    for _ in range(TAKE_ATTEMPTS):
        if try_lock(fd):
            return True
        if not try_lock(fd, shared=True):
            return False
        unlock(fd)
        time.sleep(TAKE_PAUSE_S)
    return False
