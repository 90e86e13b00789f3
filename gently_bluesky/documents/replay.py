"""Replay: recorded documents sent to callbacks again, as if the run took place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gently_bluesky.documents.filling import filled
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.errors import AssetMissing

__all__ = ["read_documents", "replay"]


def replay(
    source: str | Path, *callbacks: Callable[[str, dict[str, Any]], object], fill: bool = True
) -> tuple[str, ...]:
    """Send the documents of a recorded stream to callbacks, each with copies of its own; return the uids of the runs.

    Into ``store.writer()`` of another store it gives an equal store: the same documents but for the uids and paths of
    resources, and the same pixels.

    Parameters
    ----------
    source
        A JSON-lines file of ``{"name", "doc"}`` (a run's ``documents.jsonl``, or what bluesky's JSONLinesWriter
        writes), the folder of a run, or a folder with runs below it, which are replayed one after another.
    *callbacks
        Called with each document's name and the document, in this order; what one raises ends the replay.
    fill
        Events hold this package's stored arrays as lazy arrays, read when asked for. Otherwise they hold references,
        and the documents that announce the assets are sent too.

    Raises
    ------
    AssetMissing
        There is nothing at ``source``, or an announced asset is gone.
    JournalDamaged
        A line cannot be read; the message says where. What came before it was sent.
    """
    runs: list[str] = []
    for name, doc in read_documents(source, fill=fill):
        if name == "start":
            runs.append(doc["uid"])
        for callback in callbacks:
            callback(name, _copy(doc))
    return tuple(runs)


def read_documents(source: str | Path, *, fill: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a recorded stream; arguments and errors as `replay`."""
    for path in _files(Path(source).expanduser().resolve()):
        documents = ((line.name, dict(line.doc)) for line in read_journal(path))
        yield from filled(documents, _root_of(path)) if fill else documents


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if (source / "documents.jsonl").is_file():
        return [source / "documents.jsonl"]
    found = sorted([*source.rglob("documents.jsonl"), *source.rglob("derived-*.jsonl")])
    if not found:
        reason = "holds no recorded documents" if source.is_dir() else "is not there"
        raise AssetMissing(f"{source} {reason}; nothing was replayed; give a file, or a folder with runs")
    return found


def _root_of(journal: Path) -> Path | None:
    """Return the root of the store a journal stands in, wherever it was moved to."""
    return next((folder for folder in journal.parents if (folder / "gently-store.json").is_file()), None)


def _copy(value: Any) -> Any:
    """Return a copy of a document down to its leaves; lazy arrays are shared, they cannot be changed."""
    if isinstance(value, dict):
        return {key: _copy(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_copy(held) for held in value]
    return value
