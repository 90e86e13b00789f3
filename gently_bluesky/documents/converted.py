"""Assets that were converted: opened where they are by now, also by who knows of them from before.

A conversion gives an asset another place and another kind, and leaves its uid. The journal of its run says which, and
what it was made from; it is asked where an asset is not found any more, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.resources import AnnouncedAsset, announced_asset
from gently_bluesky.errors import AssetMissing, InvalidDocument, StorageError
from gently_bluesky.files import inside
from gently_bluesky.lazy import ArraySource, Selection

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
    journal = path.with_name(JOURNAL) if journal is None else journal
    try:
        return _Convertible(backend.open(path, kwargs, count), path, journal, uid, count)
    except AssetMissing:
        found = _opened_now(path, journal, uid, count)
        if found is None:
            raise
        return _Convertible(*found, journal, uid, count)


def former_places(kwargs: Mapping[str, Any]) -> list[str]:
    """Return where an asset lay before it was converted, relative to the store's root, oldest first."""
    said: Any = kwargs.get(MADE_FROM)
    known = said if isinstance(said, list) else []
    return [one["path"] for one in known if isinstance(one, Mapping) and isinstance(one.get("path"), str)]


class _Convertible(ArraySource):
    """An asset that may be converted while it is open. Any thread."""

    def __init__(
        self, source: ArraySource, path: Path, journal: Path, uid: str | None, count: int | None
    ) -> None:
        self._now: tuple[ArraySource, Path] = source, path
        self._shape: tuple[int, ...] = source.shape
        self._journal: Path = journal
        self._uid: str | None = uid
        self._count: int | None = count

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, of when it was opened."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns."""
        return self._now[0].dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of what is read at once, as it is kept by now."""
        return self._now[0].chunks

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read, from what it is by now. Raises as the source."""
        while True:
            source, path = self._now
            try:
                return source.read(selection)
            except AssetMissing:
                found = _opened_now(path, self._journal, self._uid, self._count)
                if found is None:
                    raise
                self._now = found

    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:
        """Ask the source, as it was when it was last read."""
        return self._now[0].coarser(most)


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
