"""Replay: recorded documents sent to callbacks again, as if the run took place.

How recorded files are read is in `recorded`, how those of a folder are put together in `merging`.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from gently_bluesky.documents.adopting import settled_lines
from gently_bluesky.documents.filling import filled_lines
from gently_bluesky.documents.json_forms import line_of
from gently_bluesky.documents.merging import Part, merged, parts_below
from gently_bluesky.documents.pace import SHOWN_EVERY_S, Pace, ReplayProgress, progress_bar
from gently_bluesky.documents.recorded import (
    BadDocument,
    Meter,
    Recorded,
    is_journal_name,
    is_sealed,
)
from gently_bluesky.documents.vetting import Vetting
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    ConflictingDocument,
    EventsMissing,
    FrameMismatch,
    GentlyError,
    InvalidDocument,
    InvalidSetting,
    RunClosed,
    UnknownReference,
    UnstorableDtype,
)
from gently_bluesky.model import JournalLine
from gently_bluesky.segments import MARKER

__all__ = ["BadDocument", "ReplayProgress", "Restores", "Source", "read_documents", "replay"]

Callback = Callable[[str, dict[str, Any]], object]
Documents = Iterable[tuple[str, Mapping[str, Any]]]
TOLD = 3
"""Bad documents that a warning names."""
LOOKED_AT_EVERY = 256
"""Documents between two looks at the clock, where nobody waits."""
REFUSALS = (
    *(InvalidDocument, ConflictingDocument, UnknownReference, RunClosed, FrameMismatch, UnstorableDtype),
    *(EventsMissing, AssetDamaged, AssetMissing),
)
"""What a store's writer says of documents, and pixels, that are not as they should be."""


class HasDocuments(Protocol):
    """A run, of ours or of databroker's."""

    def documents(self) -> Documents:
        """Return its documents, each with its name."""
        ...


Source = str | Path | Documents | HasDocuments | io.BufferedReader
"""What is replayed: `replay` says which of these is read in which way."""


@runtime_checkable
class Restores(Protocol):
    """A callback that is told, beside the documents, what stood with them in the journal's envelopes."""

    def restore(self, line: JournalLine) -> None:
        """Take a line instead of a call with its name and document."""
        ...


def replay(
    source: Source,
    *callbacks: Callback,
    fill: bool = True,
    speed: float | None = None,
    longest_wait_s: float | None = None,
    progress: bool | Callable[[ReplayProgress], object] = False,
    skip_bad: bool | Callable[[BadDocument], object] = False,
) -> tuple[str, ...]:
    """Send recorded documents to callbacks, each with copies of its own, and return the uids of the runs.

    Into ``store.writer()`` of another store it gives an equal store: the same documents but for the uids and
    paths of resources, the same pixels, and runs that ended as they ended: complete, failed, aborted or
    incomplete. A run that has no stop yet gets none here either. Nothing is ever unpickled.

    Parameters
    ----------
    source
        A file: a run's ``documents.jsonl``, lines of ``{"name", "doc"}`` or ``["name", doc]``, a JSON array of
        these, RFC 7464, or MessagePack, as `record`, bluesky's writers, suitcase-jsonl, suitcase-msgpack and
        Tiled write them; compressed with gzip or not. What it is, it says with its first bytes, not by its
        ending. It may hold several runs. Or a folder, a store's root for instance: all that was recorded
        below it, in the order in which it happened; runs that were interleaved are again. Or an open file
        (``sys.stdin.buffer``), or a run, or anything that gives pairs of a name and a document.
    *callbacks
        Called with each document's name and the document, in this order; what one raises ends the replay. A
        document that a store's writer refuses is told with its place, and passed over with ``skip_bad``.
    fill
        Events hold this package's stored arrays as lazy arrays, read when asked for, and small ones as numpy
        arrays. Otherwise they hold references and lists, and what announces the assets is sent too.
    speed
        1.0 is the original timing, by the documents' times, 10.0 ten times as fast; by default as fast as can be.
    longest_wait_s
        With ``speed``: no pause is longer, so that a night's rest does not take a night.
    progress
        Draw a bar on a terminal's stderr, or call this with `ReplayProgress`, a few times a second.
    skip_bad
        Pass over what cannot be read or followed, and what refers to it, instead of raising; a RuntimeWarning
        says how much it was. Or call this with each `BadDocument`.

    Raises
    ------
    AssetMissing
        There is nothing at ``source``, or an announced asset is gone.
    InvalidDocument
        The file holds no documents, or one that cannot be followed, or that a store's writer refuses; as other
        InputErrors, such as FrameMismatch.
    JournalDamaged
        A document cannot be read; the message says where. What came before it was sent.
    InvalidSetting
        ``speed`` or ``longest_wait_s`` is no number above 0, or the source is nothing of the above.
    """
    pace = Pace(speed, longest_wait_s)
    reading = _Reading(skip_bad)
    with progress_bar(progress) as shown:
        told = _Told(reading, shown)
        # what is read from a file nobody else holds: the last callback may have it as it is
        kept = callbacks[-1:] if reading.owns(source) else ()
        takers = [
            _taker(one, reading, fill=fill, copies=True) for one in callbacks[: len(callbacks) - len(kept)]
        ]
        takers += [_taker(one, reading, fill=fill, copies=False) for one in kept]
        with closing(reading.lines(source, fill=fill)) as lines:
            for line in pace.timed(lines, told.wait):
                told.take(line)
                for take in takers:
                    take(line)
        told.show()
    reading.warn()
    return tuple(told.runs)


def read_documents(source: Source, *, fill: bool = True) -> Generator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a recorded stream; arguments and errors as `replay`."""
    for line in _Reading(skip_bad=False).lines(source, fill=fill):
        yield line.name, dict(line.doc)


class _Told:
    """Counts what is sent, and shows it now and then."""

    def __init__(self, reading: _Reading, shown: Callable[[ReplayProgress], object] | None) -> None:
        self.runs: list[str] = []
        self._reading = reading
        self._shown = shown
        self._count = 0
        self._next_s = 0.0

    def take(self, line: JournalLine) -> None:
        self._count += 1
        if line.name == "start":
            self.runs.append(line.doc["uid"])
        if self._shown is not None and self._count % LOOKED_AT_EVERY == 0 and time.monotonic() > self._next_s:
            self.show()

    def wait(self, left_s: float) -> None:
        if self._shown is not None and (left_s or time.monotonic() > self._next_s):
            self.show(left_s)

    def show(self, waiting_s: float = 0.0) -> None:
        if self._shown is None:
            return
        reading = self._reading
        now = ReplayProgress(
            self._count,
            len(self.runs),
            min(reading.meter.nbytes, reading.total_nbytes),
            reading.total_nbytes,
            reading.skipped,
            waiting_s,
        )
        self._next_s = time.monotonic() + SHOWN_EVERY_S
        self._shown(now)


class _Reading:
    """Everything that is read in one replay."""

    def __init__(self, skip_bad: bool | Callable[[BadDocument], object]) -> None:
        self.meter = Meter()
        self.total_nbytes = 0
        self.skipped = 0
        self._is_strict = skip_bad is False
        self._tell = skip_bad if callable(skip_bad) else None
        self._first_bad: list[BadDocument] = []
        self._vetting: Vetting | None = None
        """Of those that the line which was sent last comes from."""

    def owns(self, source: Source) -> bool:
        """Say whether what is read is nobody else's."""
        return isinstance(source, str | Path)

    def lines(self, source: Source, *, fill: bool) -> Generator[JournalLine]:
        if not isinstance(source, str | Path):
            at, lines = self._handed_in(source)
            self._vetting, lines = self._followed(lines, at, None, None, fill=fill)
            yield from lines
            return
        path = Path(source).expanduser().resolve()
        parts = parts_below(path, self.refuse) if path.is_dir() else [Part(0.0, path)] * path.exists()
        if not parts:
            reason = "holds no recorded runs" if path.is_dir() else "is not there"
            raise AssetMissing(
                f"{path} {reason}; nothing was replayed; give a file, or a folder with recorded runs"
            )
        self.total_nbytes = sum(one.stat().st_size for one in {part.path for part in parts})
        if len(parts) == 1:
            self._vetting, lines = self._part(parts[0], fill=fill)
            yield from lines
        else:
            yield from merged(parts, lambda part: self._part(part, fill=fill), self._begin_turn)

    def _begin_turn(self, vetting: Vetting) -> None:
        self._vetting = vetting

    def _part(self, part: Part, *, fill: bool) -> tuple[Vetting, Iterator[JournalLine]]:
        path = part.path
        at = Recorded(str(path), self.refuse)
        if part.start is not None:
            lines = _one_run(at.journal(path, part.start, self.meter, is_strict=self._is_strict))
        elif is_journal_name(path.name) and is_sealed(path):
            lines = at.journal(path, 0, self.meter, is_strict=self._is_strict)
        else:
            lines = at.file(path, self.meter)
        return self._followed(lines, at, _root_of(path), path.parent, fill=fill)

    def _followed(
        self,
        lines: Iterator[JournalLine],
        at: Recorded,
        root: Path | None,
        folder: Path | None,
        *,
        fill: bool,
    ) -> tuple[Vetting, Iterator[JournalLine]]:
        vetting = Vetting(at, is_strict=self._is_strict)
        lines = vetting.sound(lines)
        if folder is not None:
            lines = settled_lines(lines, root, folder)
        return vetting, filled_lines(lines, root, refuse=vetting.refuse) if fill else lines

    def _handed_in(
        self, source: Documents | HasDocuments | io.BufferedReader
    ) -> tuple[Recorded, Iterator[JournalLine]]:
        if isinstance(source, io.BufferedReader):
            at = Recorded(str(source.name), self.refuse)
            return at, at.stream(source)
        has_some = hasattr(source, "documents")
        documents = cast(HasDocuments, source).documents() if has_some else cast(Documents, source)
        if isinstance(documents, Mapping) or not isinstance(documents, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] # as anywhere
            raise InvalidSetting(
                "expected a path, a run, or pairs of a name and a document, got "
                f"{type(source).__name__}; nothing was replayed"
            )
        at = Recorded("what was handed in", self.refuse, "document")
        return at, _lines_of(documents, at)

    def refuse_line(self, line: JournalLine, error: GentlyError) -> None:
        """Take note that a store does not take the document that was sent last, or raise that."""
        if self._vetting is None:
            raise error
        if isinstance(error, EventsMissing) and self.skipped:
            error = EventsMissing(f"its run is stored without what was passed over: {error}")
        self._vetting.refuse(line, error)

    def refuse(self, bad: BadDocument, kind: type[GentlyError], cause: BaseException | None) -> None:
        """Take note of a bad document, or raise an error of this kind."""
        if self._is_strict:
            raise kind(
                f"{bad}; what came before it was sent; mend it, or pass it over: skip_bad=True, or --skip-bad"
            ) from cause
        self.skipped += 1
        if self._tell is not None:
            self._tell(bad)
        elif len(self._first_bad) < TOLD:
            self._first_bad.append(bad)

    def warn(self) -> None:
        """Say what was passed over, if nobody was told."""
        if self._first_bad:
            more = f" (and {self.skipped - TOLD} more)" if self.skipped > TOLD else ""
            warnings.warn(
                f"{self.skipped} documents were not replayed: {'; '.join(map(str, self._first_bad))}{more}",
                RuntimeWarning,
                stacklevel=3,
            )


def _lines_of(documents: Documents, at: Recorded) -> Iterator[JournalLine]:
    for at.number, pair in enumerate(documents, 1):
        try:
            line = line_of(tuple(pair) if not isinstance(pair, Mapping) else pair)
        except (ValueError, TypeError, KeyError) as error:
            at.bad(f"expected a name and a document, got {pair!r:.80}", kind=InvalidDocument, cause=error)
            continue
        yield line


def _one_run(lines: Iterator[JournalLine]) -> Iterator[JournalLine]:
    """Yield the lines of the run that begins them; in its journal others may follow."""
    for number, line in enumerate(lines):
        if number and line.name == "start":
            return
        yield line


def _taker(
    callback: Callback, reading: _Reading, *, fill: bool, copies: bool
) -> Callable[[JournalLine], object]:
    copied: Callable[[Any], dict[str, Any]] = _copy if copies else lambda doc: doc
    if not isinstance(callback, Restores):
        return (
            (lambda line: callback(line.name, _copy(line.doc)))
            if copies
            else (lambda line: callback(line.name, cast(dict[str, Any], line.doc)))
        )

    def restore(line: JournalLine) -> None:
        sent = replace(line, doc=copied(line.doc))
        if not fill:  # a digest says which pixels an event holds, and these hold references
            sent = replace(sent, digest=None, timestamps=None)
        try:
            callback.restore(sent)
        except REFUSALS as error:
            reading.refuse_line(line, error)

    return restore


def _root_of(journal: Path) -> Path | None:
    """Return the root of the store a journal stands in, wherever it was moved to."""
    return next((folder for folder in journal.parents if (folder / MARKER).is_file()), None)


def _copy(value: Any) -> Any:
    """Return a copy of a document down to its leaves; lazy arrays are shared, they cannot be changed."""
    if isinstance(value, dict):
        return {key: _copy(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_copy(held) for held in value]
    return value.copy() if isinstance(value, np.ndarray) else value
