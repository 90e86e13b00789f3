"""Documents out of JSON, in the forms that it is recorded in: lines, sequences of RFC 7464, and arrays.

Each form is a generator that holds no more of a file than a document needs, and tells its place in the file of what is
no document.
"""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import Any, BinaryIO

from gently_bluesky.documents.journal import unsealed
from gently_bluesky.documents.packed import Place, restored
from gently_bluesky.jsontext import decode
from gently_bluesky.model import JournalLine

__all__ = [
    "MOST_BYTES",
    "NAMES",
    "NONE_THERE",
    "SEPARATOR",
    "journal_lines",
    "json_array",
    "json_lines",
    "json_sequence",
    "line_of",
]

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
SEPARATOR = b"\x1e"
BETWEEN = re.compile(r"[\s,]*")
DOCUMENT = re.compile(
    rf'[\[{{]\s*(?:"name"\s*:\s*)?"(?:{"|".join(sorted(NAMES))})"\s*,\s*(?:"doc"\s*:\s*)?\{{'
)
"""How an element of an array begins: where one goes on behind a damaged one."""
NONE_THERE = (ValueError, TypeError, KeyError, RecursionError)
"""Raised where no document stands."""


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


def _line(raw: bytes) -> JournalLine:
    return line_of(decode(raw) if raw.lstrip()[:1] == b"[" else unsealed(raw))


def json_lines(file: BinaryIO, at: Place) -> Iterator[JournalLine]:
    """Yield the documents of lines, each with its name."""
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


def journal_lines(file: BinaryIO, at: Place) -> Iterator[JournalLine]:
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


def json_sequence(file: Any, at: Place) -> Iterator[JournalLine]:
    """Yield the documents between record separators; each may take several lines."""
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


def json_array(file: Any, at: Place) -> Iterator[JournalLine]:
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
        try:
            value = text.element()
        except NONE_THERE as error:
            at.bad(f"it is no document ({error!s:.200})", cause=error)
            if not text.find_next():
                return
            continue
        try:
            line = line_of(value)
        except NONE_THERE as error:
            at.bad(f"it is no document ({error!s:.200})", cause=error)
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
