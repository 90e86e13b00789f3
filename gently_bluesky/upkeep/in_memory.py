"""Upkeep of what is kept in memory: copies to disk that were begun, and segments whose makers are gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from gently_bluesky.backends.memory import MemoryBackend, drop_segment
from gently_bluesky.backends.memory_source import read_place
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.live import is_live
from gently_bluesky.files import inside, read_plain, sync_folder
from gently_bluesky.model import JournalLine
from gently_bluesky.segments import Owner
from gently_bluesky.upkeep.sweeping import DOCUMENTS, PLAN

__all__ = ["forget", "is_forwarded", "settle", "sweep_segment"]


def settle(folder: Path, lines: Sequence[JournalLine]) -> None:
    """Finish what `materialize` began in a run's folder if the journal announces it, else undo it.

    Doing it again changes nothing.

    Parameters
    ----------
    lines
        Of the run's journal, as it stands.

    Raises
    ------
    OSError
        Something could not be removed or said; either way of keeping the pixels is whole.
    """
    try:
        planned = orjson.loads(read_plain(folder / PLAN))
    except FileNotFoundError:
        return
    except ValueError:
        planned = {}  # written atomically: not by us
    resources = {line.doc["uid"]: line.doc for line in lines if line.name == "resource"}
    for uid, (old, spec, new) in planned.items():
        backend, doc = backend_for_spec(spec), resources.get(uid)
        if doc is None or backend is None or Path(old).name != old or Path(new).name != new:
            continue
        if doc["spec"] == spec:
            MemoryBackend().forward(folder / old, new, spec, doc["resource_kwargs"])
        else:
            backend.remove(folder / new, {})
    (folder / PLAN).unlink(missing_ok=True)
    sync_folder(folder)


def is_forwarded(path: Path) -> bool:
    """Say whether an asset in memory says only where its pixels are on disk now; for those who know it of old."""
    try:
        return read_place(path).moved_to is not None
    except OSError:
        return False


def forget(path: Path) -> None:
    """Remove an asset in memory that no run announces. Raises StorageError."""
    MemoryBackend().remove(path, {})


def sweep_segment(root: Path, name: str, owner: Owner, *, dry_run: bool) -> bool:
    """Remove a segment that nobody writes, unless a run announces it as one of its assets; say whether it is none's.

    Raises
    ------
    OSError
        It could not be removed, or it cannot be said whose it is.
    """
    path = inside(root, owner.asset)
    named: str | None = name
    with suppress(OSError):  # gone or damaged: then the journal alone says whose the segment is
        named = read_place(path).segment
    if is_live(path.parent) or (named == name and _announces(path)):
        return False
    if dry_run:
        return True
    if named == name:
        MemoryBackend().remove(path, {})
    drop_segment(path, name)
    return True


def _announces(path: Path) -> bool:
    """Say whether the journal beside an asset has a resource document of it, as one in memory."""
    try:
        documents = (line for line, _ in scan_journal(path.parent / DOCUMENTS) if line.name == "resource")
        return any(
            line.doc.get("spec") == MemoryBackend.spec
            and str(line.doc.get("resource_path", "")).rpartition("/")[2] == path.name
            for line in documents
        )
    except FileNotFoundError:
        return False
