"""The journal: a run's documents as they were announced, one JSON object per line. The record of truth.

Lines are only ever appended. What was appended last and is torn is a crash, and is dropped; damage in the middle is
corruption, and is refused. To tell one from the other, a line begins with a space if all before it was on the disk when
it was written. So that a flipped bit is not taken for what a document says, each line ends with a checksum of itself.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from crc32c import crc32c

from gently_bluesky.errors import JournalDamaged
from gently_bluesky.files import may_pass, open_plain, storage_error, try_lock, wait_for_lock, write_all
from gently_bluesky.jsontext import decode, encode
from gently_bluesky.model import JournalLine

__all__ = [
    "SETTLED",
    "Journal",
    "encode_line",
    "envelope_of",
    "last_line_of",
    "read_journal",
    "rewritten",
    "scan_journal",
    "scan_lines",
    "sealed",
    "unsealed",
]

Line = TypeVar("Line")
PIECE_BYTES = 2**16

TAIL_BYTES = 4096
"""Read of the end of a journal to begin with; a stop is seldom longer."""
SETTLED = b" "
"""What a line begins with behind which nothing can be torn any more: what is wrong there is damage."""
CHECKSUM = re.compile(rb',"crc32c":"([0-9a-f]{8})"\}\s*')
"""How a line of ours ends. One without it, made by hand or by others, is believed as it stands."""
LONGEST_END = 64
NEVER_WRITTEN = b"\0"
"""What a file is found to hold where power was lost before its bytes were on the disk."""


def encode_line(line: JournalLine) -> bytes:
    """Return a journal line's bytes, newline included."""
    return sealed(envelope_of(line))


def envelope_of(line: JournalLine) -> dict[str, Any]:
    """Return what a journal line says, as it is written."""
    envelope: dict[str, Any] = {"name": line.name, "doc": line.doc}
    if line.digest is not None:
        envelope["digest"] = line.digest
    if line.timestamps is not None:
        envelope["timestamps"] = line.timestamps
    if line.outcome is not None:
        envelope["outcome"] = line.outcome
    if line.storing is not None:
        envelope["storing"] = line.storing
    return envelope


def sealed(envelope: Mapping[str, Any]) -> bytes:
    """Return the bytes of a line that says this, its checksum and a newline at the end."""
    said = encode(envelope)[:-1]
    return b'%b,"crc32c":"%08x"}\n' % (said, crc32c(said))


def unsealed(raw: bytes) -> dict[str, Any]:
    """Return what a line says.

    Raises
    ------
    ValueError
        Its checksum is that of other bytes, or it is no JSON.
    TypeError
        It is no object.
    """
    raw = raw.removeprefix(SETTLED)
    end = max(0, len(raw) - LONGEST_END)
    checksum = CHECKSUM.fullmatch(raw, max(end, raw.rfind(b",", end)))
    if checksum is not None and int(checksum[1], 16) != crc32c(raw[: checksum.start()]):
        raise ValueError(
            "its checksum is that of other bytes; take it away if the line was changed on purpose"
        )
    envelope = decode(raw)
    if not isinstance(envelope, dict):
        raise TypeError(f"expected an object, got {type(envelope).__name__}")
    return envelope


def rewritten(
    text: bytes,
    start: int,
    lines: Iterable[tuple[JournalLine, int]],
    change: Callable[[JournalLine], JournalLine],
) -> tuple[list[JournalLine], list[bytes]]:
    """Return lines of a journal as they become, and their bytes: those of lines that stay the same as they are.

    Parameters
    ----------
    text
        Of the journal.
    start
        Where in it the lines begin.
    lines
        Each with the offset behind it, as `scan_journal` yields them.
    change
        Returns what a line becomes: the same object where nothing changes.
    """
    become: list[JournalLine] = []
    pieces: list[bytes] = []
    for line, end in lines:
        piece, now = text[start:end], change(line)
        if now is not line:
            piece = (SETTLED if piece.startswith(SETTLED) else b"") + encode_line(now)
        become.append(now)
        pieces.append(piece)
        start = end
    return become, pieces


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
            self._file = os.fstat(self._fd)
            self.end = self._file.st_size
        except BaseException:
            self.close()
            raise
        self._synced = -1 if existing else self.end
        """Up to where the lines are known to be on the disk."""
        self._is_torn = False
        self._is_doubted = False
        """A sync of lines that had never been synced has failed, and one that succeeds later proves nothing."""

    def append(self, lines: Sequence[bytes], *, sync: bool = True, is_edge: bool = False) -> tuple[int, int]:
        """Append whole lines; they and those before them are *synced* on return. Return where they begin and end.

        Without ``sync`` they are only *stored*; what is before those that begin or end a run (``is_edge``) is
        not doubted even so. After a failure the file is as it was before, or, if that cannot be, nothing more
        is appended. After an error that may pass the lines are cut off and written anew, once, where all those
        before them are on the disk: of lines that were never synced nobody could say what is left of them, and
        then no line behind them says that they are there. Where the journal's path leads to the file no more, nobody
        would find them: that is a failure too.

        Raises
        ------
        StorageError
            The lines are not in the journal.
        """
        begin, data = self.end, b"".join(lines)
        if data and (sync or is_edge) and not self._is_doubted:
            data = SETTLED + data
        for is_last in (False, True):
            try:
                self._write(data, sync=sync)
                break
            except OSError as error:
                self._is_torn = True
                with suppress(OSError):  # tried again before anything is appended; readers drop a torn tail
                    self._cut(sync=sync)
                if is_last or not may_pass(error) or self._synced != self.end:
                    raise storage_error(
                        error, f"{self.path}: {len(lines)} documents could not be recorded"
                    ) from error
        self.end += len(data)
        if sync and not self._is_doubted:
            self._synced = self.end
        return begin, self.end

    def sync(self) -> None:
        """Sync all lines, unless that was done. One that has failed once fails always.

        Raises
        ------
        StorageError
            Of those that were never synced nobody can say what the disk holds.
        """
        try:
            if self._is_doubted:
                raise OSError(errno.EIO, "a sync of them has failed before")
            self._sync_earlier()
        except OSError as error:
            what = f"{self.path}: documents that were announced could not be synced, a loss of power may take them"
            raise storage_error(error, what) from error

    def _write(self, data: bytes, *, sync: bool) -> None:
        if self._is_torn:
            self._cut(sync=sync)
        if sync and data and not self._is_doubted:
            self._sync_earlier()  # or else the lines could not say that all before them is on the disk
        os.lseek(self._fd, self.end, os.SEEK_SET)
        write_all(self._fd, data)
        if sync:
            self._fsync()
        if not self.is_there():
            raise FileNotFoundError(
                errno.ENOENT, "the file is gone: somebody removed it, or its disk; bring it back"
            )

    def is_there(self) -> bool:
        """Say whether the path leads to the file that is open. Raises OSError where nobody can say."""
        try:
            return os.path.samestat(self._file, self.path.stat())
        except FileNotFoundError:
            return False

    def _cut(self, *, sync: bool) -> None:
        os.ftruncate(self._fd, self.end)
        if sync:
            self._fsync()
        self._is_torn = False

    def _sync_earlier(self) -> None:
        if self._synced != self.end:
            self._fsync()
            self._synced = self.end

    def _fsync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError:
            self._is_doubted |= self._synced != self.end
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_journal(path: Path, start: int = 0) -> Iterator[JournalLine]:
    """Yield a journal's whole lines from byte ``start`` on, where lines were appended; a torn tail is left out.

    Raises
    ------
    JournalDamaged
        A line in the middle cannot be read; the message names it.
    FileNotFoundError
        There is no such journal.
    """
    for line, _ in scan_journal(path, start):
        yield line


def last_line_of(journal: Path) -> int:
    """Return where the last whole line of a journal begins."""
    with open_plain(journal) as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while tail.count(b"\n") < 2 and len(tail) < end:
            length = min(end, max(TAIL_BYTES, 2 * len(tail)))
            file.seek(end - length)
            tail = file.read(length) or b""
    whole = tail.rfind(b"\n")
    return end - len(tail) + tail.rfind(b"\n", 0, max(whole, 0)) + 1


def scan_journal(path: Path, start: int = 0) -> Iterator[tuple[JournalLine, int]]:
    """Yield each whole line with the offset behind it; raises as `read_journal` does."""
    return scan_lines(
        path, _parse, start, what="a document", so="its run is not opened", settled=SETTLED + b'{"'
    )


def scan_lines(
    path: Path,
    parse: Callable[[bytes], Line],
    start: int = 0,
    *,
    what: str,
    so: str,
    settled: bytes | None = None,
) -> Iterator[tuple[Line, int]]:
    """Yield what is in the whole lines of a file that is only appended to, each with the offset behind it.

    Parameters
    ----------
    path, start
        The file, and the byte to begin at.
    parse
        Makes of a line, newline included, what it says; raises ValueError, KeyError, TypeError or
        RecursionError where it says nothing. The last line may: it is torn, and left out.
    what, so
        What each line is, and what damage in the middle leads to, for messages.
    settled
        How a line begins behind which all is on the disk: what follows a torn line and does not begin so was
        appended together with it, and is left out too. Without this, or in a file that has no such line, nothing
        is torn but the last one.

    Raises
    ------
    JournalDamaged
        A line in the middle cannot be read; the message names it.
    FileNotFoundError
        There is no such file.
    """
    with BufferedReader(open_plain(path)) as file:
        begins = file.read(len(settled or b""))
        file.seek(start)
        position = start
        torn: tuple[int, Exception] | None = None
        is_damage = follows = False
        knows = settled is not None and start > 0 and begins == settled
        for raw in file:
            if torn is not None:
                follows = True
                is_damage = is_damage or settled is None or raw.startswith(settled)
                continue
            if settled is not None:
                knows |= raw.startswith(settled) or (start == position == 0 and raw.startswith(NEVER_WRITTEN))
            try:
                if not raw.endswith(b"\n"):
                    raise ValueError("the line has no end")
                line = parse(raw)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                torn = position, error
                is_damage = settled is not None and settled in raw[1:]  # its end is gone too
                continue
            position += len(raw)
            yield line, position
    if torn is not None and (is_damage or (follows and not knows)):
        raise JournalDamaged(
            f"{path}: line {_number_of_line(path, torn[0])} is not {what} ({torn[1]}) but others follow it: the file "
            f"was damaged after it was written; it is not changed and {so}; restore the line from a copy"
        ) from torn[1]


def _number_of_line(path: Path, position: int) -> int:
    number = 1
    with path.open("rb") as file:
        while position > 0 and (piece := file.read(min(position, PIECE_BYTES))):
            number += piece.count(b"\n")
            position -= len(piece)
    return number


def _parse(raw: bytes) -> JournalLine:
    envelope = unsealed(raw)
    name, doc = envelope["name"], envelope["doc"]
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise TypeError("expected a name and a document")
    beside = {key: envelope.get(key) for key in ("digest", "outcome", "storing", "timestamps")}
    return JournalLine(name, doc, **beside)
