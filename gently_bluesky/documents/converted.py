"""Assets that were converted: opened where they are by now, also by who knows of them from before.

A conversion gives an asset another place and another kind, and leaves its uid. The journal of its run says which, and
what it was made from; it is asked where an asset is not found any more, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.resources import AnnouncedAsset, announced_asset
from gently_bluesky.errors import AssetMissing, InvalidDocument, StorageError
from gently_bluesky.files import inside
from gently_bluesky.lazy import ArraySource
from gently_bluesky.wrapped import MovingSource

__all__ = ["MADE_FROM", "former_places", "open_asset"]

JOURNAL: Final = "documents.jsonl"
MADE_FROM: Final = "made_from"
"""In the ``resource_kwargs`` or parameters of an asset that was converted: what it was, oldest first."""


def open_asset(
    backend: Backend,
    path: Path,
    kwargs: Mapping[str, Any],
    count: int | None = None,
    *,
    journal: Path | None = None,
    uid: str | None = None,
) -> ArraySource:
    """Open an asset as `Backend.open` does, and read on from what it is converted to, before or while it is open.

    Parameters
    ----------
    backend, path, kwargs, count
        As its document says that is known here.
    journal
        Of its run; by default the one beside it.
    uid
        Of the asset; without one it is known by its place.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        As `Backend.open`.
    """
    beside = path.with_name(JOURNAL) if journal is None else journal

    def opened_now(was: Path) -> tuple[ArraySource, Path] | None:
        return _opened_now(was, beside, uid, count)

    return MovingSource.at(path, lambda place: backend.open(place, kwargs, count), opened_now)


def former_places(kwargs: Mapping[str, Any]) -> list[str]:
    """Return where an asset lay before it was converted, relative to the store's root, oldest first."""
    said: Any = kwargs.get(MADE_FROM)
    known = said if isinstance(said, list) else []
    return [one["path"] for one in known if isinstance(one, Mapping) and isinstance(one.get("path"), str)]


def _opened_now(
    path: Path, journal: Path, uid: str | None, count: int | None
) -> tuple[ArraySource, Path] | None:
    """Open what was at ``path`` where it is by now; None where nothing says that it is elsewhere."""
    asset = _announced_now(path, journal, uid)
    if asset is None:
        return None
    now = inside(journal.parent, asset.path.rpartition("/")[2])
    backend = backend_for_spec(asset.spec)
    if now == path.resolve():
        return None
    if backend is None:
        raise AssetMissing(
            f"{path} was converted to {now}, of the kind {asset.spec!r}, which nothing installed here opens; no "
            "pixels were returned; install the package that brings it"
        )
    return backend.open(now, asset.kwargs, count), now


def _announced_now(path: Path, journal: Path, uid: str | None) -> AnnouncedAsset | None:
    found: AnnouncedAsset | None = None
    with suppress(
        FileNotFoundError, NotADirectoryError, StorageError, InvalidDocument
    ):  # then nothing says so
        for line, _ in scan_journal(journal):
            if line.name not in {"resource", "stream_resource"}:
                continue
            asset = announced_asset(line.name, line.doc)
            former = [] if asset is None else former_places(asset.kwargs)
            is_it = (
                any(path.as_posix().endswith(f"/{one}") for one in former) if uid is None else bool(former)
            )
            if asset is not None and is_it and uid in (None, asset.uid):
                found = asset
    return found
