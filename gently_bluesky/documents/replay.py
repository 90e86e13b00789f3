"""Replay: recorded documents sent to callbacks again, as if the run took place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gently_bluesky.documents.adopting import settled_lines
from gently_bluesky.documents.filling import filled_lines
from gently_bluesky.documents.journal import read_journal, scan_journal
from gently_bluesky.errors import AssetMissing, InvalidDocument
from gently_bluesky.model import JournalLine

__all__ = ["Restores", "read_documents", "replay"]

Callback = Callable[[str, dict[str, Any]], object]


@runtime_checkable
class Restores(Protocol):
    """A callback that is told, beside the documents, what stood with them in the journal's envelopes."""

    def restore(self, line: JournalLine) -> None:
        """Take a line instead of a call with its name and document."""
        ...


def replay(source: str | Path, *callbacks: Callback, fill: bool = True) -> tuple[str, ...]:
    """Send recorded documents to callbacks, each with copies of its own, and return the uids of the runs.

    Into ``store.writer()`` of another store it gives an equal store: the same documents but for the uids and
    paths of resources, the same pixels, and runs that ended as they ended: complete, failed, aborted or
    incomplete. A run that has no stop yet gets none here either.

    Parameters
    ----------
    source
        A JSON-lines file of ``{"name", "doc"}`` (a run's ``documents.jsonl``, or what bluesky's
        JSONLinesWriter writes), the folder of a run, or a folder with runs below it, a store's root for
        instance: those are replayed one after another in the order in which they were started.
    *callbacks
        Called with each document's name and the document, in this order; what one raises ends the replay.
    fill
        Events hold this package's stored arrays as lazy arrays, read when asked for, and small ones as numpy
        arrays. Otherwise they hold references and lists, and what announces the assets is sent too.

    Raises
    ------
    AssetMissing
        There is nothing at ``source``, or an announced asset is gone.
    InvalidDocument
        The file holds no documents, or one that cannot be followed.
    JournalDamaged
        A line cannot be read; the message says where. What came before it was sent.
    """
    runs: list[str] = []
    takers = [_taker(callback, fill=fill) for callback in callbacks]
    for line in _read_lines(Path(source).expanduser().resolve(), fill=fill):
        if line.name == "start":
            runs.append(line.doc["uid"])
        for take in takers:
            take(line)
    return tuple(runs)


def _taker(callback: Callback, *, fill: bool) -> Callable[[JournalLine], object]:
    if not isinstance(callback, Restores):
        return lambda line: callback(line.name, _copy(line.doc))
    if fill:
        return lambda line: callback.restore(replace(line, doc=_copy(line.doc)))
    # a digest says which pixels an event holds, and these hold references
    return lambda line: callback.restore(replace(line, doc=_copy(line.doc), digest=None, timestamps=None))


def read_documents(source: str | Path, *, fill: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a recorded stream; arguments and errors as `replay`."""
    for line in _read_lines(Path(source).expanduser().resolve(), fill=fill):
        yield line.name, dict(line.doc)


def _read_lines(source: Path, *, fill: bool) -> Iterator[JournalLine]:
    if source.is_file():
        yield from _filled(source, _whole_file(source), fill=fill)
        return
    for path, start in _runs_below(source):
        yield from _filled(path, _one_run(path, start), fill=fill)


def _filled(path: Path, lines: Iterator[JournalLine], *, fill: bool) -> Iterator[JournalLine]:
    root = _root_of(path)
    lines = settled_lines(lines, root, path.parent)
    return filled_lines(lines, root) if fill else lines


def _whole_file(path: Path) -> Iterator[JournalLine]:
    empty = True
    for line in read_journal(path):
        empty = False
        yield line
    if empty:
        raise InvalidDocument(
            f"{path}: expected lines of JSON with name and doc, there are none; nothing was replayed"
        )


def _one_run(path: Path, start: int) -> Iterator[JournalLine]:
    """Yield the lines of the run that starts at this byte of a journal, in which other runs may follow."""
    for number, line in enumerate(read_journal(path, start)):
        if number and line.name == "start":
            return
        yield line


def _runs_below(source: Path) -> list[tuple[Path, int]]:
    """Return the journal and the first byte of each run below a folder, the first started first."""
    found: list[tuple[float, Path, int]] = []
    for path in _journals_below(source):
        before = 0
        for line, end in scan_journal(path):
            if line.name == "start":
                found.append((line.doc.get("time", 0.0), path, before))
            if path.name == "documents.jsonl":
                break  # it holds one run
            before = end
    if not found:
        reason = "holds no recorded runs" if source.is_dir() else "is not there"
        raise AssetMissing(f"{source} {reason}; nothing was replayed; give a file, or a folder with runs")
    return [(path, start) for _, path, start in sorted(found)]


def _journals_below(source: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(source):
        if "documents.jsonl" in files:
            folders.clear()  # below it there are only pixels
            yield Path(folder, "documents.jsonl")
        yield from (
            Path(folder, name) for name in files if name.startswith("derived-") and name.endswith(".jsonl")
        )


def _root_of(journal: Path) -> Path | None:
    """Return the root of the store a journal stands in, wherever it was moved to."""
    return next((folder for folder in journal.parents if (folder / "gently-store.json").is_file()), None)


def _copy(value: Any) -> Any:
    """Return a copy of a document down to its leaves; lazy arrays are shared, they cannot be changed."""
    if isinstance(value, dict):
        return {key: _copy(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_copy(held) for held in value]
    return value.copy() if isinstance(value, np.ndarray) else value
