"""Recorded files: which form one is in, by what it begins with, and its documents, one by one.

The forms are lines of JSON (ours, those of bluesky's JSONLinesWriter and of suitcase-jsonl), a JSON array
(bluesky's JSONWriter), JSON text sequences (RFC 7464, what Tiled exports) and MessagePack (suitcase-msgpack), each
also compressed with gzip. No file is held in memory as a whole, and nothing is ever unpickled. What documents say
of each other is not looked at here.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gently_bluesky.documents.journal import CHECKSUM, LONGEST_END, scan_journal, unsealed
from gently_bluesky.documents.packed import MAGIC as PACKED
from gently_bluesky.documents.packed import packed_values, restored
from gently_bluesky.errors import GentlyError, InvalidDocument, JournalDamaged
from gently_bluesky.files import open_plain, storage_error
from gently_bluesky.jsontext import decode
from gently_bluesky.model import JournalLine

__all__ = ["NAMES", "BadDocument", "Meter", "Recorded", "Refuse", "is_journal_name", "line_of"]

NAMES = frozenset(
    {
        *("start", "stop", "descriptor", "event", "event_page", "bulk_events"),
        *("resource", "datum", "datum_page", "bulk_datum", "stream_resource", "stream_datum"),
    }
)
"""What event-model calls its documents."""

MOST_BYTES = 2**30
"""Of one document's JSON; a larger one is refused before it is read."""
CHUNK_BYTES = 2**18
GZIP = b"\x1f\x8b"
SEPARATOR = b"\x1e"
BETWEEN = re.compile(r"[\s,]*")
DOCUMENT = re.compile(
    rf'[\[{{]\s*(?:"name"\s*:\s*)?"(?:{"|".join(sorted(NAMES))})"\s*,\s*(?:"doc"\s*:\s*)?\{{'
)
"""How an element of an array begins: where one goes on behind a damaged one."""


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
        kind: type[GentlyError] = JournalDamaged,
        cause: BaseException | None = None,
    ) -> None:
        """Tell that what stands at this place is bad.

        Raises
        ------
        JournalDamaged, or ``kind``
            Nothing is to be passed over.
        """
        place = f"{self.unit} {self.number}" if self.number else "its beginning"
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
            with io.BufferedReader(open_plain(path)) as file:
                file.seek(start)
                yield from _journal_lines(file, self)
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


def line_of(value: Any) -> JournalLine:
    """Return the document that stands in a recording as ``{"name", "doc"}`` or ``[name, doc]``.

    Raises
    ------
    ValueError, TypeError, KeyError
        None stands there.
    """
    if isinstance(value, dict):
        name, doc = value["name"], value["doc"]
        kept = ("digest", "outcome", "storing", "timestamps") if len(value) > 2 else ()
        beside = {key: value[key] for key in kept if key in value}
        if "arrays" in value:
            doc = restored(doc, value["arrays"])
    elif isinstance(value, list | tuple) and len(value) == 2:
        (name, doc), beside = value, {}
    else:
        raise TypeError("expected a name and a document")
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise TypeError("expected a name and a document")
    return JournalLine(name, doc, **beside)


def _form_of(head: bytes) -> Callable[[Any, Recorded], Iterator[JournalLine]] | None:
    if head[:1] == SEPARATOR:
        return _json_sequence
    if head[:1] == b"{":
        return _json_lines
    if head[:1] == b"[":
        return _json_lines if head[1:].lstrip()[:1] == b'"' else _json_array
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


# -- JSON ------------------------------------------------------------------------------------------------------

NONE_THERE = (ValueError, TypeError, KeyError, RecursionError)


def _line(raw: bytes) -> JournalLine:
    return line_of(decode(raw) if raw.lstrip()[:1] == b"[" else unsealed(raw))


def _json_lines(file: BinaryIO, at: Recorded) -> Iterator[JournalLine]:
    while raw := file.readline(MOST_BYTES):
        at.number += 1
        try:
            if raw.isspace():
                continue
            line = _line(raw)
        except NONE_THERE as error:
            at.bad(_why(raw, error), cause=error)
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MOST_BYTES)
            continue
        yield line


def _journal_lines(file: BinaryIO, at: Recorded) -> Iterator[JournalLine]:
    """Yield a journal's lines, those behind damaged ones too."""
    held: tuple[int, str, Exception] | None = None
    for number, raw in enumerate(file, 1):
        if held is not None:  # it was not the last one, torn by a crash
            at.number, reason, error = held
            at.bad(reason, cause=error)
            held = None
        at.number = number
        try:
            line = _line(raw)
        except NONE_THERE as error:
            held = number, _why(raw, error), error
            continue
        yield line


def _why(raw: bytes, error: Exception) -> str:
    if len(raw) >= MOST_BYTES:
        return f"expected a document of less than {MOST_BYTES} bytes, it is longer"
    if not raw.endswith(b"\n"):
        return f"the file ends within the document ({error!s:.100})"
    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else f"{error!s:.200}"
    return f"it is no document ({reason})"


def _json_sequence(file: Any, at: Recorded) -> Iterator[JournalLine]:
    next_number = 1
    for raw in _separated(file):
        at.number = next_number
        next_number += raw.count(b"\n")
        if not raw.strip():
            continue
        try:
            line = _line(raw)
        except NONE_THERE as error:
            at.bad(_why(raw, error), cause=error)
            continue
        yield line


def _separated(file: Any) -> Iterator[bytes]:
    """Yield what is between record separators; of a record that is too long, no more than its beginning."""
    held: list[bytes] = []
    length = 0
    while chunk := file.read1(CHUNK_BYTES):
        first, *others = chunk.split(SEPARATOR)
        if length < MOST_BYTES:
            held.append(first)
            length += len(first)
        for other in others:
            yield b"".join(held)
            held, length = [other], len(other)
    yield b"".join(held)


def _json_array(file: Any, at: Recorded) -> Iterator[JournalLine]:
    """Yield the elements of an array, or of several; of the file no more is held than an element needs."""
    text = _Text(file)
    text.more()
    text.position = text.text.index("[") + 1
    is_open = True
    while True:
        text.skip_separators()
        at.number = text.line_number()
        if text.position == len(text.text):
            if text.more():
                continue
            if is_open:
                at.bad("the file ends before its array does: its last documents may be missing")
            return
        if text.text[text.position] == ("]" if is_open else "["):
            is_open = not is_open
            text.position += 1
            continue
        begin = text.position
        try:
            value = text.element()
            line = line_of(value)
        except NONE_THERE as error:
            at.bad(f"it is no document ({error!s:.200})", cause=error)
            if text.position == begin and not text.find_next():
                return
            continue
        yield line


class _Text:
    """The part of a JSON array that is being read."""

    def __init__(self, file: Any) -> None:
        self.text = ""
        self.position = 0
        self._file = file
        self._decode = getincrementaldecoder("utf-8")("surrogateescape").decode
        self._scan = json.JSONDecoder().raw_decode
        self._lines_before = 1
        self._counted = 0

    def line_number(self) -> int:
        self._lines_before += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._lines_before

    def skip_separators(self) -> None:
        found = BETWEEN.match(self.text, self.position)
        self.position = self.position if found is None else found.end()

    def more(self, at_least: int = CHUNK_BYTES) -> bool:
        """Read on, and let go of what is done with; say whether there was more."""
        self.line_number()
        pieces = [self.text[self.position :]]
        self.position = self._counted = 0
        length = 0
        while length < at_least and (chunk := self._file.read1(CHUNK_BYTES)):
            pieces.append(self._decode(chunk))
            length += len(chunk)
        self.text = "".join(pieces)
        return length > 0

    def element(self) -> Any:
        """Return the element that begins here, and go behind it.

        Raises
        ------
        ValueError
            There is none, or not a whole one, or one of more than a gigabyte.
        """
        while True:
            try:
                value, end = self._scan(self.text, self.position)
            except (ValueError, RecursionError):
                begun = len(self.text) - self.position
                is_damaged = DOCUMENT.search(self.text, self.position + 1) is not None
                if is_damaged or begun > MOST_BYTES or not self.more(max(CHUNK_BYTES, begun)):
                    raise
                continue
            piece, self.position = self.text[self.position : end], end
            if not piece.isascii():
                piece.encode()  # bytes that are no UTF-8 are an error here
            return value

    def find_next(self) -> bool:
        """Go to where the next document seems to begin; False where there is none."""
        begin = self.position + 1
        while True:
            found = DOCUMENT.search(self.text, begin)
            if found is not None:
                self.position = found.start()
                return True
            self.position = max(begin, len(self.text) - 100)
            if not self.more():
                return False
            begin = 0


def _packed(file: Any, at: Recorded) -> Iterator[JournalLine]:
    at.unit = "document"
    for value in packed_values(file, at):
        try:
            line = line_of(value)
        except NONE_THERE as error:
            at.bad(f"it is no document ({error!s:.200})", cause=error)
            continue
        yield line
