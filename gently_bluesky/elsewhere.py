"""Assets that are not in the folder of their run, or that another writer made: found, and opened where allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.adopting import adopted_place, below_incoming, has_files_at
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.converted import open_asset
from gently_bluesky.documents.handling import Handler, installed_handler
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import announced_path
from gently_bluesky.errors import LookupFailed
from gently_bluesky.files import inside, is_there
from gently_bluesky.foreign.kinds import KINDS, TOLD_BY_DATUMS, ForeignAsset, foreign_dims, open_foreign
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.index import Index
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import Record
from gently_bluesky.sources import no_events
from gently_bluesky.upkeep.trash import explained
from gently_bluesky.wrapped import ExplainedSource, MovingSource

__all__ = ["Means", "Places", "axes_of", "foreign_source", "handled_source", "means_of", "place_of"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a store's assets may lie: below its root, and below the roots that it is allowed to read.

    ``handlers`` are those of the user, by spec. ``journals`` know the store's second place too.
    """

    root: Path
    roots: Roots
    journals: Journals
    handlers: Mapping[str, Handler] = field(default_factory=dict[str, Handler])

    @classmethod
    def of(
        cls,
        root: Path,
        allowed_roots: Roots | None = None,
        handlers: Mapping[str, Handler] | None = None,
        overflow: Path | None = None,
    ) -> Places:
        """Return those of a store; by default nothing but its root."""
        roots = Roots((root,)) if allowed_roots is None else allowed_roots
        return cls(root, roots, Journals(root, overflow), dict(handlers or {}))


class Means(NamedTuple):
    """What opens the assets of a kind: a backend of ours, a reader of ours for what others wrote, or a handler."""

    kind: str
    backend: Backend | None = None
    handler: Handler | None = None

    @property
    def by_datum(self) -> bool:
        """What the datums say is needed to open it, not only how many there are."""
        return self.handler is not None or self.kind in TOLD_BY_DATUMS


def means_of(places: Places, index: Index, record: Record) -> Means:
    """Return what opens an asset: the user's handler, what is ours, or a handler of an installed package.

    A stream_resource is known by the ``spec`` among its parameters, or else by its mimetype.

    Raises
    ------
    LookupFailed
        Nothing installed here does.
    """
    spec = record.format or ""
    found = _means(places, spec)
    if found is None:
        mimetype = index.asset_document(record.uid).get("mimetype", spec)
        found = None if mimetype == spec else _means(places, mimetype)
    if found is None:
        raise LookupFailed(
            f"asset {record.uid} is of the kind {record.format!r}, which nothing installed here opens; it is "
            "indexed, and its resource document is in the journal of its run; install the package that has a "
            f"handler for it, or give one: Store(root, handlers={{{record.format!r}: ...}})"
        )
    return found


def _means(places: Places, kind: str) -> Means | None:
    if kind in places.handlers:
        return Means(kind, handler=places.handlers[kind])
    if kind in KINDS:
        return Means(kind)
    backend = backend_for_spec(kind)
    if backend is not None:
        return Means(kind, backend=backend)
    handler = installed_handler(kind)
    return None if handler is None else Means(kind, handler=handler)


def place_of(places: Places, index: Index, record: Record) -> Path:
    """Return where an asset lies: in its run's folder, if that adopted it, in the store or its overflow, wherever these
    were moved to, or where its document says.

    Raises
    ------
    PathNotAllowed
        It may not be read there.
    InvalidDocument
        The document names no file.
    """
    what = f"asset {record.uid} of run {record.run_uid[:8]}"
    here = places.roots.allowed(places.root / record.path, what) if record.path else None
    if here is not None and INCOMING not in record.path.split("/"):
        if is_there(here):
            return here
        if places.journals.overflow is not None:
            second = inside(places.journals.overflow, record.path)
            if is_there(second):
                return second
        if index.tombstone(record.uid) is not None:
            return here  # what its document says may be the place of another copy of the store
    said = places.root / announced_path(index.asset_document(record.uid))
    for path in (said, Path(record.path)):
        if INCOMING in path.parts:
            folder = (places.root / index.record(record.run_uid).path).parent
            adopted = adopted_place(places.root, folder, path)
            if adopted is not None:
                return places.roots.allowed(adopted, what)
    if here is not None and (is_there(here) or not has_files_at(said)):
        return here
    return places.roots.allowed(said, what)


def foreign_source(
    places: Places,
    index: Index,
    record: Record,
    count: int,
    means: Means,
    more: Mapping[str, Any] | None = None,
) -> ArraySource:
    """Open an asset of which ``count`` events are known to be announced, as ``(t, ...)``. Reads no pixels.

    ``more`` is what its datums say beside what it says itself.

    Raises
    ------
    PathNotAllowed, InvalidDocument
        As `place_of`.
    AssetMissing, AssetDamaged, StorageError, MissingExtra
        The files are not what the record says, or what reads them is not installed.
    """
    backend, kwargs = means.backend, {**record.metadata, **(more or {})}

    def open_at(path: Path) -> ArraySource:
        if backend is not None:
            journal = places.root / index.record(record.run_uid).path if INCOMING in path.parts else None
            return open_asset(backend, path, record.metadata, count, journal=journal, uid=record.uid)
        if not count:
            return _no_events(record)
        return open_foreign(means.kind, ForeignAsset(path, kwargs, count, _declared(record), places.roots))

    return ExplainedSource.opened(
        lambda: _opened_where_it_is(places, index, record, open_at),
        partial(explained, places.root, record.uid),
    )


def handled_source(
    places: Places, index: Index, record: Record, datums: Sequence[Mapping[str, Any]], means: Means
) -> ArraySource:
    """Open the events of an asset that these ``datum_kwargs`` stand for by a handler. Raises as `foreign_source`."""
    from gently_bluesky.documents.handled import HandledSource  # a store brings no backend

    handler = means.handler

    def open_at(path: Path) -> ArraySource:
        if handler is None or not datums:
            return _no_events(record)
        asset = ForeignAsset(path, record.metadata, len(datums), _declared(record), places.roots)
        return HandledSource(means.kind, handler, asset, datums)

    return _opened_where_it_is(places, index, record, open_at)


def _opened_where_it_is(
    places: Places, index: Index, record: Record, open_at: Callable[[Path], ArraySource]
) -> ArraySource:
    """Open an asset at its place, and again where its run, or its homecoming, moves it to in the meantime."""
    path = place_of(places, index, record)
    overflow = places.journals.overflow
    may_move = below_incoming(places.root, path) is not None or (
        overflow is not None and path.is_relative_to(overflow)
    )
    if not may_move:
        return open_at(path)
    return MovingSource.following(lambda: place_of(places, index, record), open_at)


def _no_events(record: Record) -> ArraySource:
    return no_events(_declared(record) or (), "u1")  # of what is not there nobody knows


def _declared(record: Record) -> tuple[int, ...] | None:
    return None if record.shape is None else record.shape[1:]


def axes_of(record: Record, source: ArraySource) -> list[str]:
    """Return names of the axes of one event: those that its descriptor gives, if it names each once."""
    ndim = len(source.shape) - 1
    declared = [*record.dims[1:]]
    return declared if len(declared) == ndim == len({*declared} - {"t"}) else foreign_dims(source)
