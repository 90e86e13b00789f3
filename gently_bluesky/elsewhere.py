"""Assets that are not in the folder of their run, or that another writer made: found, and opened where allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.resources import announced_path
from gently_bluesky.errors import LookupFailed
from gently_bluesky.files import inside
from gently_bluesky.foreign.kinds import KINDS, ForeignAsset, foreign_dims, open_foreign
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.index import Index
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import Record
from gently_bluesky.sources import InlineSource

__all__ = ["Places", "axes_of", "foreign_source", "place_of"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a store's assets may lie: below its root, and below the roots that it is allowed to read."""

    root: Path
    roots: Roots

    @classmethod
    def of(cls, root: Path, allowed_roots: Roots | None = None) -> Places:
        """Return those of a store; by default nothing but its root."""
        return cls(root, Roots((root,)) if allowed_roots is None else allowed_roots)


def place_of(places: Places, index: Index, record: Record) -> Path:
    """Return where an asset lies: in the store, wherever that was moved to, or where its document says.

    Raises
    ------
    PathNotAllowed
        It may not be read there.
    InvalidDocument
        The document names no file.
    """
    here = inside(places.root, record.path) if record.path else None
    if here is not None and here.exists():
        return here
    said = places.root / announced_path(index.asset_document(record.uid))
    if here is not None and not _is_there(said):
        return here
    return places.roots.allowed(said, f"asset {record.uid} of run {record.run_uid[:8]}")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (ValueError, OSError):  # a NUL in it, a folder that may not be looked into
        return False


def foreign_source(
    places: Places, index: Index, record: Record, count: int, backend: Backend | None
) -> ArraySource:
    """Open an asset of which ``count`` events are known to be announced, as ``(t, ...)``. Reads no pixels.

    Raises
    ------
    LookupFailed
        Nothing installed here reads it.
    PathNotAllowed, InvalidDocument
        As `place_of`.
    AssetMissing, AssetDamaged, StorageError, MissingExtra
        The files are not what the record says, or what reads them is not installed.
    """
    kind = record.format or ""
    if backend is None and kind not in KINDS:
        raise LookupFailed(
            f"asset {record.uid} is of the kind {record.format!r}, which nothing installed here opens; it is "
            "indexed, and its resource document is in the journal of its run; pass a handler for it to "
            f"handler_registry({{{record.format!r}: ...}}) and fill the run's documents with event_model.Filler"
        )
    path = place_of(places, index, record)
    if backend is not None:
        return backend.open(path, record.metadata, count)
    shape = None if record.shape is None else record.shape[1:]
    if not count:
        return InlineSource(
            np.empty((0, *(shape or ())), "u1")
        )  # of an event that is not there yet nobody knows
    return open_foreign(kind, ForeignAsset(path, record.metadata, count, shape, places.roots))


def axes_of(record: Record, source: ArraySource) -> list[str]:
    """Return names of the axes of one event: those that its descriptor gives, if it names each once."""
    ndim = len(source.shape) - 1
    declared = [*record.dims[1:]]
    return declared if len(declared) == ndim == len({*declared} - {"t"}) else foreign_dims(source)
