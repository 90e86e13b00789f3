"""The journal: a run's documents as they were announced, one JSON object per line. The record of truth.

Lines are only ever appended. A torn last line is a crash and is dropped; damage in the middle is corruption and is
refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gently_bluesky.errors import JournalDamaged
from gently_bluesky.files import storage_error, try_lock, wait_for_lock, write_all
from gently_bluesky.jsontext import decode, encode
from gently_bluesky.model import JournalLine

__all__ = ["Journal", "encode_line", "read_journal", "scan_journal"]


def encode_line(line: JournalLine) -> bytes:
    """Return a journal line's bytes, newline included."""
    envelope: dict[str, Any] = {"name": line.name, "doc": line.doc}
    if line.digest is not None:
        envelope["digest"] = line.digest
    if line.timestamps is not None:
        envelope["timestamps"] = line.timestamps
    if line.outcome is not None:
        envelope["outcome"] = line.outcome
    if line.storing is not None:
        envelope["storing"] = line.storing
    return encode(envelope) + b"\n"


class Journal:
    """An open journal, appended to by one thread. Its file is made by this object and never overwritten.

    Raises
    ------
    FileExistsError
        There is a file at ``path``.
    """

    def __init__(self, path: Path, *, lock: bool = False, existing: bool = False) -> None:
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        self.path = path
        self._fd = os.open(path, flags if existing else flags | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            if lock and not existing:
                wait_for_lock(self._fd)
            elif lock and not try_lock(self._fd):
                raise JournalDamaged(f"{path} is being written by another process; nothing was written")
            self.end = os.fstat(self._fd).st_size
        except BaseException:
            self.close()
            raise
        self._is_torn = False

    def append(self, lines: Sequence[bytes]) -> int:
        """Append whole lines; *synced* on return. Return the offset behind them.

        After a failure the file is as it was before, or, if that cannot be, nothing more is appended.

        Raises
        ------
        StorageError
            The lines are not in the journal.
        """
        data = b"".join(lines)
        try:
            if self._is_torn:
                self._cut()
            os.lseek(self._fd, self.end, os.SEEK_SET)
            write_all(self._fd, data)
            os.fsync(self._fd)
        except OSError as error:
            self._is_torn = True
            with suppress(OSError):  # tried again before anything is appended; a reader drops the torn tail
                self._cut()
            raise storage_error(
                error, f"{self.path}: {len(lines)} documents could not be recorded"
            ) from error
        self.end += len(data)
        return self.end

    def _cut(self) -> None:
        os.ftruncate(self._fd, self.end)
        os.fsync(self._fd)
        self._is_torn = False

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_journal(path: Path, start: int = 0) -> Iterator[JournalLine]:
    """Yield a journal's whole lines from byte ``start`` on; a torn tail is left out.

    Raises
    ------
    JournalDamaged
        A line in the middle cannot be read; the message names it.
    FileNotFoundError
        There is no such journal.
    """
    for line, _ in scan_journal(path, start):
        yield line


def scan_journal(path: Path, start: int = 0) -> Iterator[tuple[JournalLine, int]]:
    """Yield each whole line with the offset behind it; raises as `read_journal` does."""
    with path.open("rb") as file:
        file.seek(start)
        position = start
        torn: tuple[int, Exception] | None = None
        for number, raw in enumerate(file, 1):
            if torn is not None:
                raise JournalDamaged(
                    f"{path}: line {torn[0]} is not a document ({torn[1]}) but others follow it: the file was damaged "
                    "after it was written; it is not changed and its run is not opened; restore the line from a copy"
                ) from torn[1]
            position += len(raw)
            try:
                line = _parse(raw)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                torn = number, error
                continue
            yield line, position


def _parse(raw: bytes) -> JournalLine:
    if not raw.endswith(b"\n"):
        raise ValueError("the line has no end")
    envelope = decode(raw)
    if not isinstance(envelope, dict):
        raise TypeError(f"expected an object, got {type(envelope).__name__}")
    name, doc = envelope["name"], envelope["doc"]
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise TypeError("expected a name and a document")
    beside = {key: envelope.get(key) for key in ("digest", "outcome", "storing", "timestamps")}
    return JournalLine(name, doc, **beside)
