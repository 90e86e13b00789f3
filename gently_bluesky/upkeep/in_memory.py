"""Upkeep of what is kept in memory: assets that nobody announces, and segments whose makers are gone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from gently_bluesky.backends.memory import MemoryBackend, drop_segment
from gently_bluesky.backends.memory_source import read_place
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.live import is_live
from gently_bluesky.files import inside
from gently_bluesky.segments import Owner
from gently_bluesky.upkeep.sweeping import DOCUMENTS

__all__ = ["forget", "sweep_segment"]


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
