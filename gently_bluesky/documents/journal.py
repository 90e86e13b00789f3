"""The journal: a run's documents as they were announced, one JSON object per line. The record of truth.

Lines are only ever appended. A torn last line is a crash and is dropped; damage in the middle is corruption and is
refused. Numbers and NaN come back as they went in: a line that strict JSON cannot hold is written as Python's own
json module writes it (``NaN``, ``Infinity``, integers of any length), which it also reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gently_bluesky.errors import InvalidDocument, JournalDamaged
from gently_bluesky.files import storage_error, try_lock, wait_for_lock, write_all
from gently_bluesky.model import JournalLine

__all__ = ["Journal", "decode", "digest_of", "encode", "encode_line", "plain", "read_journal", "scan_journal"]

FAST = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
LONG_INTEGER = b"0" * 19
"""orjson reads integers beyond 64 bits as floats; those have 19 digits or more."""


def encode(value: object) -> bytes:
    """Return ``value`` as one line of JSON, without the newline; numpy scalars and arrays become numbers and lists.

    Raises
    ------
    InvalidDocument
        Something in it is not of JSON's types.
    """
    try:
        line = orjson.dumps(value, default=_unknown, option=FAST)
        if b"null" not in line:
            return line
    except (TypeError, orjson.JSONEncodeError):
        pass
    try:
        # orjson writes NaN as null and refuses integers beyond 64 bits: Python's own encoder keeps both
        return json.dumps(value, default=_unknown, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDocument(
            f"expected a document of JSON types (and numpy numbers), got one that cannot be written: {error}; "
            "it was not stored"
        ) from error


def _unknown(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufUS":
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def decode(line: bytes) -> Any:
    """Undo `encode`; raises ValueError on anything that is not JSON."""
    if LONG_INTEGER in line.translate(AS_ZEROS):
        return json.loads(line)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def plain(value: Any) -> Any:
    """Return a deep copy of ``value`` in JSON's own types, cheap for the numbers and strings that most values are."""
    kind = type(value)
    if kind in {float, int, str, bool, type(None)}:
        return value
    if isinstance(value, np.generic):
        return value.item()
    return decode(encode(value))


def encode_line(line: JournalLine) -> bytes:
    """Return a journal line's bytes, newline included."""
    envelope: dict[str, Any] = {"name": line.name, "doc": line.doc}
    if line.digest is not None:
        envelope["digest"] = line.digest
    if line.outcome is not None:
        envelope["outcome"] = line.outcome
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
    return JournalLine(name, doc, envelope.get("digest"), envelope.get("outcome"))


def digest_of(value: Any) -> bytes:
    """Return a short digest of what a JSON value says: equal for equal values, NaN equal to NaN."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode("ascii")
    return hashlib.blake2b(canonical, digest_size=16).digest()
