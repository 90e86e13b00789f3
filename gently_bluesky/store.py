"""The front door: a store is a root folder with its index."""

from __future__ import annotations

import operator
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex

from gently_bluesky.backends.base import get_backend
from gently_bluesky.derived import Derivation, parent_uids, read_result, record_run, steps_um
from gently_bluesky.documents.home import SharedJournal
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.run_storage import Desk
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import (
    GentlyError,
    InvalidSetting,
    LookupFailed,
    StoreReadOnly,
    UnknownUid,
    WriterClosed,
)
from gently_bluesky.index.lineage import Lineage, ancestors, children
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record, Settings
from gently_bluesky.opening import index_to_read, index_to_write, open_root
from gently_bluesky.results import take_apart
from gently_bluesky.run import Run, asset_events, datum_array

__all__ = ["Store"]


class Store:
    """A root folder that keeps runs, and the index that finds them. Any thread; a context manager.

    Parameters
    ----------
    root
        Made if it is missing. ``~`` is the home folder.
    mode
        ``"a"`` reads and writes, and gives runs whose process died their end on record; ``"r"`` only reads.
    index
        URL of the index, e.g. ``"sqlite:////local/disk/x.sqlite"`` for a root on a network share; by default
        ``index.sqlite`` in the root.

    Raises
    ------
    NotAStore
        The root is a file, holds something else or a damaged marker, or, with ``mode="r"``, is not there.
    StoreTooNew
        A newer version of this package made it.
    StoreReadOnly
        ``mode="a"``, and the root cannot be written.
    """

    def __init__(self, root: str | Path, *, mode: Literal["a", "r"] = "a", index: str | None = None) -> None:
        if mode not in ("a", "r"):
            raise InvalidSetting(f"expected mode 'a' or 'r', got {mode!r}; nothing was opened")
        self.root = Path(root).expanduser().resolve()
        self.mode = mode
        self.uid = open_root(self.root, mode)
        self._index = (index_to_read if mode == "r" else index_to_write)(self.root, index)
        self._writers: list[StoreWriter] = []
        self._result_writers: dict[str | None, StoreWriter] = {}
        self._lock = threading.Lock()
        self._closed = False

    # -- writing ----------------------------------------------------------------------------------------

    def writer(
        self,
        *,
        format: str = "zarr",  # the field's word, and the one people type
        max_pending_bytes: int | None = None,
        stall_timeout_s: float = 60.0,
        min_free_bytes: int = 64 * 2**20,
        on_failure: Callable[[Exception], object] | None = None,
    ) -> StoreWriter:
        """Return a callback for ``RE.subscribe`` that stores what it is given.

        Parameters
        ----------
        format
            ``"zarr"`` (OME-Zarr), ``"tiff"`` (one OME-TIFF per event), or another backend's name.
        max_pending_bytes
            Bound of the buffer between the RunEngine and storage; when it is full the RunEngine waits. By
            default 512 MiB, or one event where that is larger.
        stall_timeout_s
            A wait for storage without progress longer than this is a failure.
        min_free_bytes
            A run does not start with less free space.
        on_failure
            Called with the first failure of a run, at once, on a thread of its own.

        Raises
        ------
        InvalidSetting
            A setting is out of range, or there is no such format.
        StoreReadOnly
            The store was opened with ``mode="r"``.
        """
        settings = Settings(format, max_pending_bytes, stall_timeout_s, min_free_bytes)
        writer = StoreWriter(self._desk(settings, on_failure))
        with self._lock:
            self._writers = [known for known in self._writers if not known.closed]
            self._writers.append(writer)
        return writer

    def _require_writable(self) -> None:
        if self.mode == "r":
            raise StoreReadOnly(
                f"{self.root} was opened with mode='r'; nothing was written; open it with mode='a'"
            )
        if self._closed:
            raise WriterClosed(f"the store {self.root} was closed; nothing was written; open it again")

    def _desk(self, settings: Settings, on_failure: Callable[[Exception], object] | None = None) -> Desk:
        self._require_writable()
        backend = get_backend(settings.format)
        pipeline = Pipeline(
            max_pending_bytes=settings.max_pending_bytes, stall_timeout_s=settings.stall_timeout_s
        )
        return Desk(self.root, self._index, backend, settings, pipeline, on_failure=on_failure)

    def put(
        self,
        data: Any,
        *,
        data_type: str,
        parents: object = (),
        operation: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        session: str | None = None,
        dims: tuple[str, ...] | None = None,
        format: str = "zarr",  # as in `writer`
        **metadata: Any,
    ) -> Record:
        """Keep a derived result as a small run of its own; *synced* on return. Any thread.

        Parameters
        ----------
        data
            An array; a mapping of names to numbers, text, lists, arrays and mappings; a table, that is a
            structured array or a DataFrame; or one number or text. `get` gives it back, tuples as lists.
        data_type
            What it is: ``"projection"``, ``"segmentation"``, ``"nuclei"``.
        parents
            What it was made from: uids, records, runs or lazy arrays, or one of them. What all parents' start
            documents agree on, session and metadata, is taken over unless given here.
        operation, parameters
            How it was made.
        dims
            Names of the axes of an array; a lazy array has its own. Steps along axes of space are those of
            the lazy array, or of the first parent that has any.
        **metadata
            More for its start document.

        Raises
        ------
        UnknownUid
            A parent is not in the store; nothing was stored.
        InputError
            ``data``, ``parameters`` or ``metadata`` cannot be stored; nothing was.
        StoreReadOnly, StorageError
            The store cannot be written.
        """
        self._require_writable()
        known = [self._index.record(uid) for uid in parent_uids(parents)]
        result = take_apart(data, data_type)
        if dims is None and isinstance(data, LazyArray):
            dims = tuple("event" if dim == "t" else dim for dim in data.dims)
        derivation = Derivation(
            data_type=data_type,
            parents=tuple(known),
            runs=tuple(self._index.record(parent.run_uid) for parent in known),
            operation=operation,
            parameters=dict(parameters or {}),
            metadata={**metadata, **({} if session is None else {"session": session})},
            dims=None if dims is None else tuple(dims),
            steps_um=self._steps_um(
                [data, parents, *(parents if isinstance(parents, list | tuple) else [])], known
            ),
        )
        documents = derivation.documents(result)
        record_run(self._writer_of_results(format if result.has_assets else None), documents)
        return self._index.record(documents[0][1]["uid"])

    def _steps_um(self, arrays: list[object], parents: list[Record]) -> dict[str, float]:
        """Return the steps of the first of these that has any: lazy arrays know how they were sliced."""
        for array in arrays:
            if isinstance(array, LazyArray) and (found := steps_um(array.dims, array.scale, array.units)):
                return found
        for parent in parents:
            steps: list[dict[str, float]] = []
            for uid in self._assets_of(parent):
                known = self._index.record(uid).metadata
                steps.append(steps_um(*(known.get(name, ()) for name in ("dims", "scale", "units"))))
            if any(steps) and all(step == steps[0] for step in steps):
                return steps[0]
        return {}

    def _writer_of_results(self, format: str | None) -> StoreWriter:  # as in `writer`
        """Return the writer of results in this format, or, with None, of those without arrays."""
        with self._lock:
            if format not in self._result_writers:
                settings = Settings() if format is None else Settings(format)
                shared = SharedJournal(self.root, uuid.uuid4().hex[:8]) if format is None else None
                self._result_writers[format] = StoreWriter(self._desk(settings), shared=shared)
            return self._result_writers[format]

    # -- reading ----------------------------------------------------------------------------------------

    def __getitem__(self, uid: str | SupportsIndex) -> Run:
        """Return a run by its uid, a unique beginning of it, or -1, -2, ... for the latest acquired ones.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, or there are several.
        """
        if isinstance(uid, SupportsIndex):
            return Run(self.root, self._index, self._nth_latest(operator.index(uid)))
        record = self._index.record(uid)
        if record.kind != "run":
            raise UnknownUid(
                f"expected the uid of a run, {uid!r} is that of the {record.kind} {record.uid} of run "
                f"{record.run_uid}; ask for store.array({uid!r})"
            )
        return Run(self.root, self._index, record)

    def run(self, uid: str | SupportsIndex) -> Run:
        """Return a run, as ``store[uid]`` does."""
        return self[uid]

    def _nth_latest(self, number: int) -> Record:
        if number >= 0:
            raise UnknownUid(f"expected a uid, or -1 for the latest run, got {number}")
        found = next(islice(self._index.query(derived=False), -number - 1, None), None)
        if found is None:
            raise UnknownUid(f"expected at least {-number} acquired runs in {self.root}, there are fewer")
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
        InvalidDocument
            The resource document leads out of the store.
        """
        record = self._index.record(uid)
        if record.kind == "datum":
            return datum_array(self.root, self._index, record)
        assets = self._assets_of(record)
        if len(assets) != 1:
            raise LookupFailed(
                f"run {uid} holds {len(assets)} arrays; "
                + (f"ask for one: {', '.join(assets)}" if assets else "it has only values")
            )
        return asset_events(self.root, self._index, self._index.record(assets[0]))

    def _assets_of(self, record: Record) -> list[str]:
        """Return the uids of the assets that a record is, contains or belongs to."""
        if record.kind == "asset":
            return [record.uid]
        if record.kind == "datum":
            document = self._index.datum_document(record.uid)
            return [str(document.get("resource") or document.get("stream_resource"))]
        streams = self._index.streams(record.uid)
        points = (
            self._index.points(record.uid, stream, key) for stream in streams for key in streams[stream]
        )
        return list(dict.fromkeys(point.asset_uid for of_key in points for point in of_key))

    def get(self, uid: str) -> Any:
        """Return what `put` was given under this uid: an array (lazily), a dict, or a structured array.

        An asset's or datum's uid gives its array, an acquired run's its `Run`.
        """
        record = self._index.record(uid)
        if record.kind != "run":
            return self.array(uid)
        return read_result(Run(self.root, self._index, record))

    def record(self, uid: str) -> Record:
        """Return what the index keeps about a run, asset or datum. Raises UnknownUid, AmbiguousUid."""
        return self._index.record(uid)

    def query(
        self,
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
        return self._index.query(since=since, until=until, derived=derived, **conditions)

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
        return children(self._index, uid)

    def stats(self) -> dict[str, Any]:
        """Return counts of runs, assets, datums and derived results, bytes of pixels, and the free space."""
        free_bytes = shutil.disk_usage(self.root).free
        return {"root": str(self.root), "uid": self.uid, **self._index.stats(), "free_bytes": free_bytes}

    # -- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every writer and the index. Runs without a stop end as incomplete. Idempotent.

        Raises
        ------
        GentlyError
            The first failure of a run that was still open.
        """
        if self._closed:
            return
        self._closed = True
        failure: GentlyError | None = None
        try:
            for writer in [*self._writers, *self._result_writers.values()]:
                try:
                    writer.close()
                except GentlyError as error:
                    failure = failure or error
        finally:
            self._index.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "read only" if self.mode == "r" else "read and write"
        return f"<Store {self.root} ({state})>"
