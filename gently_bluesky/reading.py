"""A store as it is read: runs, arrays, derived results, records and lineage, by uid or by query.

It changes nothing. What writes is in ``store``.
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from gently_bluesky.arrivals import next_run
from gently_bluesky.derived import read_result
from gently_bluesky.documents.handling import Handler
from gently_bluesky.elsewhere import Places
from gently_bluesky.errors import LookupFailed, UnknownUid
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import Lineage, ancestors, children
from gently_bluesky.lazy import LazyArray
from gently_bluesky.looking import traced
from gently_bluesky.model import Record
from gently_bluesky.pages import datum_page, lineage_text, page, store_page
from gently_bluesky.progress import terminal_bar
from gently_bluesky.run import Run
from gently_bluesky.stored import asset_events, datum_array
from gently_bluesky.wording import many

if TYPE_CHECKING:
    from gently_bluesky.exported import Exported

__all__ = ["StoreView"]


class StoreView:
    """What a `Store` is to those who read.

    Parameters
    ----------
    root
        Folder of the store.
    uid
        Of the store.
    index
        Finds what is in it.
    roots
        Folders below which assets of others are read; by default the root.
    handlers
        The user's, by spec.
    overflow
        The second place of its runs, if it has one.

    Attributes
    ----------
    component_names
        Empty. bluesky-queueserver takes whatever has ``children`` in its namespace for a device, and asks for these.
    """

    component_names: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path,
        uid: str,
        index: Index,
        roots: Roots | None = None,
        handlers: Mapping[str, Handler] | None = None,
        overflow: Path | None = None,
    ) -> None:
        self.root = root
        self.overflow = overflow
        self._places = Places.of(root, roots, handlers, overflow)
        self.uid = uid
        self._index = index

    def __getitem__(self, uid: str | SupportsIndex) -> Run:
        """Return a run by its uid, a unique beginning of it, or -1, -2, ... for the latest acquired ones.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, or there are several.
        """
        if isinstance(uid, SupportsIndex):
            return Run(self._places, self._index, self._nth_latest(operator.index(uid)))
        record = self._index.record(uid)
        if record.kind != "run":
            raise UnknownUid(
                f"expected the uid of a run, {uid!r} is that of the {record.kind} {record.uid} of run "
                f"{record.run_uid}; ask for store.array({uid!r})"
            )
        return Run(self._places, self._index, record)

    def run(self, uid: str | SupportsIndex) -> Run:
        """Return a run, as ``store[uid]`` does."""
        return self[uid]

    def wait_for_run(self, after: Run | str | None = None, timeout_s: float | None = None) -> Run:
        """Wait for a run to begin, in whatever process, and return it once its start is announced.

        For displays that are started before the run, and go on from run to run:
        ``run = store.wait_for_run()``, then ``run = store.wait_for_run(after=run)``. Any thread but the
        RunEngine's own, which may have to begin it.

        Parameters
        ----------
        after
            A run or its uid: the acquired run that began next after it, by the times of the start documents,
            also if it has ended by now. None: the newest run that is being written, or else the next one to
            begin. A run that is replayed under its old time is not the next one.
        timeout_s
            Longest wait; 0 asks once, None has no end.

        Raises
        ------
        NotYetStored
            No run has begun; call again.
        UnknownUid, AmbiguousUid
            There is no run ``after``, or there are several.
        """
        known = self[after] if isinstance(after, str) else after
        record = None if known is None else known.record
        return Run(self._places, *next_run(self._places.journals, self._index, record, timeout_s))

    def _nth_latest(self, number: int) -> Record:
        if number >= 0:
            raise UnknownUid(f"expected a uid, or -1 for the latest run, got {number}")
        found = next(islice(self._index.query(derived=False), -number - 1, None), None)
        if found is None:
            there = "is none" if number == -1 else "are fewer"
            raise UnknownUid(
                f"expected at least {many(-number, 'acquired run')} in {self.root}, there {there}"
            )
        return found

    def array(self, uid: str) -> LazyArray:
        """Return the array of an asset ``(t, ...)``, a datum, or a run that has just one; reads no pixels.

        All of an asset's announced events are in it, those that a rewind superseded too.

        Raises
        ------
        LookupFailed
            There is no such uid, the run has several arrays, or nothing installed opens it.
        AssetMissing, AssetDamaged
            The files are not what the record says.
        PathNotAllowed
            They lie outside of the store, and of the roots that it may read.
        InvalidDocument
            The document names no file here.
        """
        record = self._index.record(uid)
        return traced(self._array_of(record, uid), self._origin)

    def _array_of(self, record: Record, uid: str) -> LazyArray:
        if record.kind == "datum":
            return datum_array(self._places, self._index, record)
        assets = self._assets_of(record)
        if len(assets) != 1:
            raise LookupFailed(
                f"run {uid} holds {len(assets)} arrays; "
                + (f"ask for one: {', '.join(assets)}" if assets else "it has only values")
            )
        return asset_events(self._places, self._index, self._index.record(assets[0]))

    def _assets_of(self, record: Record) -> list[str]:
        """Return the uids of the assets that a record is, contains or belongs to."""
        if record.kind == "asset":
            return [record.uid]
        if record.kind == "datum":
            document = self._index.datum_document(record.uid)
            return [str(document.get("resource") or document.get("stream_resource"))]
        return list(dict.fromkeys(extent.asset_uid for extent in self._index.extents_of_run(record.uid)))

    def get(self, uid: str) -> Any:
        """Return what `put` was given under this uid: an array (lazily), a dict, or a structured array.

        An asset's or datum's uid gives its array, an acquired run's its `Run`.
        """
        record = self._index.record(uid)
        if record.kind != "run":
            return self.array(uid)
        return read_result(Run(self._places, self._index, record))

    def assets(self, uid: str) -> list[Record]:
        """Return the records of a run's assets, in the order of their events; of a datum, that of its asset.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, asset or datum, or there are several.
        """
        return [self._index.record(asset) for asset in self._assets_of(self._index.record(uid))]

    def export(
        self,
        uid: str,
        path: str | Path,
        *,
        format: str = "zarr",  # as in `Store.writer`
        progress: bool | Callable[[int, int, str], object] = True,
    ) -> Exported:
        """Copy the arrays of a run, or one array or event, to a new folder; *synced* on return. Any thread.

        Beside them it holds ``documents.jsonl``, the run's documents as `Run.documents` gives them, and
        ``arrays.json``, which says what each array is. Every event is compared with the digest that the journal took
        of it. The folder appears when it is whole; nothing is left of one that could not be made, or was broken off.
        Of a run that is being written there is in it what was announced so far. Takes memory for one event, or for
        64 MiB and what writing takes where an event is large.

        Parameters
        ----------
        path
            Where nothing is yet, in a folder that exists, outside of the store.
        format
            ``"zarr"`` (OME-Zarr) or ``"tiff"`` (OME-TIFF), as the store writes them, another backend's name that
            keeps pixels on disk, or ``"npy"``: one file of NumPy's for each array.
        progress
            A bar, where standard error is a terminal; or what is called with the bytes that are copied, of how many,
            and a word of what, on this thread.

        Raises
        ------
        UnknownUid, AmbiguousUid, LookupFailed
            There is no such uid, or several, or it has no arrays.
        InputError
            Something is at ``path``, or it is in the store; or there is no such format.
        AssetMissing, AssetDamaged, PathNotAllowed
            The pixels are gone, not those that were announced, or may not be read.
        StorageError
            There is no room, or the copy could not be written.
        """
        from gently_bluesky.exporting import export  # a store brings no backend

        record, place = self._index.record(uid), Path(path).expanduser()
        place = place.parent.resolve() / place.name
        if callable(progress):
            return export(self._places, self._index, record, place, format, progress)
        with terminal_bar("Copying", wanted=progress) as tell:
            return export(self._places, self._index, record, place, format, tell)

    def record(self, uid: str) -> Record:
        """Return what the index keeps about a run, asset or datum. Raises UnknownUid, AmbiguousUid."""
        return self._index.record(uid).shown_by(self._record_page)

    def query(
        self,
        /,  # start documents may hold a "self"
        *,
        kind: str = "run",
        data_type: str | None = None,
        session: str | None = None,
        status: str | None = None,
        stream: str | None = None,
        data_key: str | None = None,
        since: float | str | date | None = None,
        until: float | str | date | None = None,
        derived: bool | None = None,
        deleted: bool | None = None,
        operation: str | None = None,
        **metadata: object,
    ) -> Iterator[Record]:
        """Yield the records that answer all conditions, newest first, read a page at a time.

        Parameters
        ----------
        kind
            ``"run"`` (a derived result is a run too), ``"asset"`` or ``"datum"``.
        data_type, session, status, operation
            Of the run.
        stream, data_key
            That it has, or that it belongs to.
        since, until
            Seconds since the epoch, a datetime, or text such as ``"2026-11-21"``, which is local time.
        derived
            Only derived results, or only acquired runs.
        deleted
            Only what was deleted, or only what was not; of a run, all of its pixels.
        **metadata
            What the start document holds; a mapping asks for nested keys: ``sample={"age_h": 3}``.

        Raises
        ------
        InvalidSetting
            A condition cannot be understood.
        """
        of_run = {"data_type": data_type, "session": session, "status": status, "operation": operation}
        place = {"kind": kind, "stream": stream, "data_key": data_key}
        conditions: dict[str, Any] = {**metadata, **of_run, **place}
        found = self._index.query(since=since, until=until, derived=derived, deleted=deleted, **conditions)
        return (record.shown_by(self._record_page) for record in found)

    def latest(self, **conditions: Any) -> Record:
        """Return the newest record that answers the conditions of `query`. Raises LookupFailed."""
        found = next(self.query(**conditions), None)
        if found is None:
            raise LookupFailed(f"nothing in {self.root} answers {conditions}")
        return found

    def lineage(self, uid: str) -> Lineage:
        """Return what a record was made from, as a tree to print or walk. Raises UnknownUid."""
        return ancestors(self._index, uid)

    def children(self, uid: str) -> list[Record]:
        """Return the results made directly from a run, asset or datum, or anything in it, newest last."""
        return [record.shown_by(self._record_page) for record in children(self._index, uid)]

    def stats(self) -> dict[str, Any]:
        """Return counts of runs, assets, datums and derived results, bytes of pixels, and the free space."""
        free_bytes = shutil.disk_usage(self.root).free
        return {"root": str(self.root), "uid": self.uid, **self._index.stats(), "free_bytes": free_bytes}

    # -- what notebooks show ----------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        """Return a table for notebooks, with small pictures of the newest run, as `gently_bluesky.pages` says."""
        return page("Store", lambda: store_page(self))

    def _record_page(self, record: Record) -> str:
        if record.kind == "run":
            return Run(self._places, self._index, record)._repr_html_()  # pyright: ignore[reportPrivateUsage] # IPython's name
        array = partial(self.array, record.uid)
        return page("Record", lambda: datum_page(record, array, partial(self._origin, record.uid)))

    def _origin(self, uid: str) -> str:
        return lineage_text(self.lineage(uid))
