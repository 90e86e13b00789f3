"""Recorded files: which form one is in, by what it begins with, and its documents, one by one.

The forms are lines of JSON (ours, those of bluesky's JSONLinesWriter and of suitcase-jsonl), a JSON array
(bluesky's JSONWriter), JSON text sequences (RFC 7464, what Tiled exports) and MessagePack (suitcase-msgpack), each
also compressed with gzip. No file is held in memory as a whole, and nothing is ever unpickled. What documents say
of each other is not looked at here.
"""

from __future__ import annotations

import gzip
import io
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from event_model import unpack_datum_page, unpack_event_page

from gently_bluesky.documents.journal import CHECKSUM, LONGEST_END, scan_journal
from gently_bluesky.documents.json_forms import (
    MOST_BYTES,
    NONE_THERE,
    SEPARATOR,
    journal_lines,
    json_array,
    json_lines,
    json_sequence,
    line_of,
)
from gently_bluesky.documents.packed import MAGIC as PACKED
from gently_bluesky.documents.packed import packed_values
from gently_bluesky.errors import GentlyError, InvalidDocument, JournalDamaged
from gently_bluesky.files import open_plain, storage_error
from gently_bluesky.model import JournalLine

__all__ = ["BadDocument", "Meter", "Recorded", "Refuse", "is_journal_name", "is_sealed"]

CHUNK_BYTES = 2**18
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class BadDocument:
    """A document, or what should be one, that is not replayed.

    Attributes
    ----------
    source
        The file it stands in, or what was handed in.
    place
        Where in it: ``"line 12"``, or ``"document 3"`` where there are no lines.
    name
        Of the document; empty where nobody can say.
    reason
        What is wrong with it.
    """

    source: str
    place: str
    name: str
    reason: str

    def __str__(self) -> str:
        which = f" ({self.name})" if self.name else ""
        return f"{self.source}: {self.place}{which}: {self.reason}"


Refuse = Callable[[BadDocument, type[GentlyError], BaseException | None], None]
"""Told of what is bad: raises an error of that kind, or returns to have it passed over."""


class Meter:
    """How many bytes of the recorded files were read."""

    def __init__(self) -> None:
        self.nbytes = 0


class Recorded:
    """Documents on their way out of one place, and where in it the last one stands.

    Parameters
    ----------
    source
        The place, for messages.
    refuse
        Told of what is bad.
    unit
        What its places are called.

    Attributes
    ----------
    number
        Of the line or document that was yielded last, from 1 on.
    has_lost
        Whether something was passed over, so that what names it is bad, too.
    """

    def __init__(self, source: str, refuse: Refuse, unit: str = "line") -> None:
        self.number = 0
        self.has_lost = False
        self.unit = unit
        self._source = source
        self._refuse = refuse

    def bad(
        self,
        reason: str,
        *,
        name: str = "",
        number: int | None = None,
        kind: type[GentlyError] = JournalDamaged,
        cause: BaseException | None = None,
    ) -> None:
        """Tell that what stands at this place, or at the one of this number, is bad.

        Raises
        ------
        JournalDamaged, or ``kind``
            Nothing is to be passed over.
        """
        number = number or self.number
        place = f"{self.unit} {number}" if number else "its beginning"
        self._refuse(BadDocument(self._source, place, name, reason), kind, cause)
        self.has_lost = True

    def journal(self, path: Path, start: int, meter: Meter, *, is_strict: bool) -> Iterator[JournalLine]:
        """Yield a journal's lines from a byte on; what is torn at its end was never announced.

        Raises
        ------
        JournalDamaged
            A line in the middle cannot be read, and nothing is to be passed over.
        """
        if not is_strict:
            with open_plain(path) as raw:
                raw.seek(start)
                yield from journal_lines(io.BufferedReader(_Counted(raw, meter), CHUNK_BYTES), self)
            return
        before = start
        for self.number, (line, end) in enumerate(scan_journal(path, start), 1):
            meter.nbytes += end - before
            before = end
            yield line

    def file(self, path: Path, meter: Meter) -> Iterator[JournalLine]:
        """Yield the documents of a recorded file.

        Raises
        ------
        JournalDamaged, InvalidDocument
            One cannot be read, or is none, and nothing is to be passed over.
        StorageError
            The file cannot be read.
        """
        try:
            with io.BufferedReader(_Counted(open_plain(path), meter), CHUNK_BYTES) as raw:
                yield from self.stream(raw)
        except GentlyError:
            raise
        except OSError as error:
            raise storage_error(error, f"{path} could not be read; what came before was sent") from error

    def stream(self, raw: io.BufferedReader[Any]) -> Iterator[JournalLine]:
        """Yield the documents of what is read from an open file; errors as `file`."""
        with ExitStack() as stack:
            is_compressed = raw.peek(2)[:2] == GZIP
            file: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if is_compressed else raw
            try:
                yield from self._documents(file)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.number += 1
                self.bad(f"the compressed data end here, or are damaged ({error})", cause=error)

    def _documents(self, file: Any) -> Iterator[JournalLine]:
        head: bytes = file.peek(64)
        if head.startswith(BOM_UTF8):
            file.read(len(BOM_UTF8))
            head = head[len(BOM_UTF8) :]
        read = _form_of(head.lstrip())
        if read is None:
            first = f"one that begins with {head[:16]!r}" if head else "an empty one"
            self.bad(
                f"expected recorded documents (JSON, JSON lines, RFC 7464 or MessagePack), got {first}: there are "
                "none in it",
                kind=InvalidDocument,
            )
            return
        yield from read(file, self)


def is_journal_name(name: str) -> bool:
    """Say whether a file is called as journals of a store are."""
    return name == "documents.jsonl" or (name.startswith("derived-") and name.endswith(".jsonl"))


def is_sealed(path: Path) -> bool:
    """Say whether the first line of a file is one of a journal that nobody has touched."""
    with io.BufferedReader(open_plain(path)) as file:
        return CHECKSUM.search(file.readline(MOST_BYTES)[-LONGEST_END:]) is not None


def _form_of(head: bytes) -> Callable[[Any, Recorded], Iterator[JournalLine]] | None:
    if head[:1] == SEPARATOR:
        return json_sequence
    if head[:1] == b"{":
        return json_lines
    if head[:1] == b"[":
        return json_lines if head[1:].lstrip()[:1] == b'"' else json_array
    return _packed if head[:1] in PACKED else None


class _Counted(io.RawIOBase):
    """A file whose bytes are counted as they are read."""

    def __init__(self, file: io.FileIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._meter.nbytes += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _packed(file: Any, at: Recorded) -> Iterator[JournalLine]:
    at.unit = "document"
    for value in packed_values(file, at):
        try:
            line = _single(line_of(value))
        except NONE_THERE as error:
            at.bad(f"it is no document ({error!s:.200})", cause=error)
            continue
        yield line


def _single(line: JournalLine) -> JournalLine:
    """Return an event or datum as it was: suitcase-msgpack makes a page of each."""
    if line.name == "event_page" and len(line.doc["uid"]) == 1:
        (event,) = unpack_event_page(dict(line.doc))  # pyright: ignore[reportArgumentType] # a page, by its name
        return JournalLine("event", dict(event))
    if line.name == "datum_page" and len(line.doc["datum_id"]) == 1:
        (datum,) = unpack_datum_page(dict(line.doc))  # pyright: ignore[reportArgumentType] # as above
        return JournalLine("datum", dict(datum))
    return line
