"""The logbook of upkeep: what was done to a store that no run's journal tells. One JSON object per line.

Lines are only ever appended, by any process. As in a journal a line that begins with a space says that all before it
was on the disk; each append begins with one, and ends with one that says nothing else. What is torn behind the last of
them is a crash, and is cut by whoever appends next; damage before it is corruption, and is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gently_bluesky.documents.journal import SETTLED, scan_lines
from gently_bluesky.errors import InputError
from gently_bluesky.files import storage_error, sync_folder, wait_for_lock, write_all
from gently_bluesky.jsontext import decode, encode

__all__ = ["LOGBOOK", "Logbook"]

LOGBOOK = "upkeep.jsonl"
SEAL = "settled"
"""Kind of the line that ends an append; not synced, for where it is gone the append was not damaged since."""
PIECE_BYTES = 2**16


class Logbook:
    """The logbook of one store. Holds nothing open; any thread, any process.

    An entry has a ``kind`` ("quarantine", "verified", ...), a ``time`` (seconds since the epoch) and what
    belongs to its kind.

    Parameters
    ----------
    root
        Of the store. The file is made by the first entry.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / LOGBOOK

    def append(self, *entries: Mapping[str, Any], require: Callable[[], object] | None = None) -> None:
        """Append entries, all of them or none; *synced* on return. The time is added where one has none.

        A loss of power meanwhile may leave some of them.

        Parameters
        ----------
        require
            Called when nobody else can append any more; nothing was written where it raises.

        Raises
        ------
        InputError
            An entry has no kind, or is not of JSON types; nothing was written.
        StorageError
            The entries are not in the logbook.
        """
        if not entries:
            return
        data = SETTLED + b"".join(_encoded(entry) for entry in entries)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            fd = os.open(self.path, flags, 0o644)
            try:
                wait_for_lock(fd)  # goes when the file is closed
                if require is not None:
                    require()
                self._append_locked(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            raise storage_error(
                error, f"{self.path}: {len(entries)} entries could not be recorded"
            ) from error

    def entries(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the entries, of one kind if that is given, oldest first; a torn tail is left out.

        Safe while others append. No logbook is an empty one.

        Raises
        ------
        JournalDamaged
            A line in the middle cannot be read; the message names it.
        StorageError
            The file cannot be read.
        """
        for entry, _ in self.behind(0):
            if kind in (None, entry["kind"]):
                yield entry

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def behind(self, begin: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the entries from a byte on that one began at, each with where it ends. As `entries`."""
        settled = SETTLED + b'{"'
        try:
            for entry, end in scan_lines(
                self.path, _parse, begin, what="an entry", so="nothing behind it was read", settled=settled
            ):
                if entry["kind"] != SEAL:
                    yield entry, end
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"{self.path} cannot be read") from error

    def _append_locked(self, fd: int, data: bytes) -> None:
        end = _end_of_what_is_whole(fd)
        os.ftruncate(fd, end)
        if end == 0:
            sync_folder(self.path.parent)
        try:
            os.lseek(fd, end, os.SEEK_SET)
            write_all(fd, data)
            os.fsync(fd)
            with suppress(OSError):
                write_all(fd, SETTLED + _encoded({"kind": SEAL}))
        except BaseException:
            with suppress(OSError):  # else the next one to append cuts it
                os.ftruncate(fd, end)
                os.fsync(fd)
            raise


def _encoded(entry: Mapping[str, Any]) -> bytes:
    if not isinstance(entry.get("kind"), str):
        raise InputError(f"expected an entry with a kind, got {dict(entry)!r:.200}; nothing was written")
    return encode({"time": time.time(), **entry}) + b"\n"


def _parse(raw: bytes) -> dict[str, Any]:
    entry = decode(raw)
    if not isinstance(entry, dict) or not isinstance(entry["kind"], str):
        raise TypeError("expected an object with a kind")
    return entry


def _end_of_what_is_whole(fd: int) -> int:
    """Return where the last append ends, or what is whole of it, by a look at no more than that."""
    begin, data = os.fstat(fd).st_size, b""
    while begin > 0 and b"\n" + SETTLED not in data:
        length = min(begin, PIECE_BYTES)
        begin -= length
        os.lseek(fd, begin, os.SEEK_SET)
        data = os.read(fd, length) + data
    first = data.rfind(b"\n" + SETTLED) + 1
    end = begin + first
    for raw in data[first:].splitlines(keepends=True):
        try:
            if not raw.endswith(b"\n"):
                return end
            _parse(raw)
        except (ValueError, KeyError, TypeError, RecursionError):
            return end
        end += len(raw)
    return end
