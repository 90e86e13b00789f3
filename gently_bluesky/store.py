"""The front door: a store is a root folder with its index."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from gently_bluesky.derived import Derivation, parent_uids, record_run, steps_um
from gently_bluesky.documents.handling import Handler, checked_handlers
from gently_bluesky.documents.overflow import open_overflow
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import InvalidSetting, StorageStalled, UnknownUid
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.importing import ImportingStore
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record
from gently_bluesky.opening import index_to_read, index_to_write, open_root
from gently_bluesky.results import take_apart
from gently_bluesky.settings import Chunks, Compression, Settings
from gently_bluesky.writing import Writing

if TYPE_CHECKING:
    from gently_bluesky.devices.recorder import Recorder

__all__ = ["Store"]


class Store(ImportingStore):
    """A root folder that keeps runs, and the index that finds them. Any thread; a context manager.

    Parameters
    ----------
    root
        Made if it is missing. ``~`` is the home folder.
    mode
        ``"a"`` reads and writes, and recovers runs whose process died (see `reconcile`); ``"r"`` only reads. On
        a file system that is mounted read-only ``"a"`` becomes ``"r"``, with a RuntimeWarning.
    index
        URL of the index, e.g. ``"sqlite:////local/disk/x.sqlite"`` for a root on a network share; by default
        ``index.sqlite`` in the root.
    allowed_roots
        Folders where other writers put their files (an area detector's, an ophyd-async detector's): assets
        that lie in the store or below one of these are opened, and no others.
    handlers
        What opens kinds of assets that nothing here knows, by spec, as for `handler_registry`: classes that
        are called with a path and ``resource_kwargs``, and what they return with ``datum_kwargs`` (of stream
        documents with ``parameters`` and ``point_number``). They win over all others.
    overflow
        A folder, best on another disk, where a run goes on, loudly, when the root fails: full, gone, read-only. Made
        if it is missing. `reconcile`, and the next opening, bring such runs home as soon as the root has room. Readers
        that are to see them before that give it too. What devices write by themselves (`recorder`) and derived results
        (`put`) have no second place.

    Raises
    ------
    NotAStore
        The root is a file, holds something else or a damaged marker, or, with ``mode="r"``, is not there.
    StoreTooNew
        A newer version of this package made it.
    StoreReadOnly
        ``mode="a"``, and the root may not be written.
    InvalidSetting
        Another mode, an index that is none, ``allowed_roots`` that are no whole paths, ``handlers`` that
        are no callables by spec, or an ``overflow`` that is another store's or lies in this one.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        mode: Literal["a", "r"] = "a",
        index: str | None = None,
        allowed_roots: Iterable[str | Path] = (),
        handlers: Mapping[str, Handler] | None = None,
        overflow: str | Path | None = None,
    ) -> None:
        if mode not in ("a", "r"):
            raise InvalidSetting(f"expected mode 'a' or 'r', got {mode!r}; nothing was opened")
        place = Path(root).expanduser().resolve()
        roots = Roots(allowed_roots).beside(place)
        given = checked_handlers(handlers, "nothing was opened")
        uid, way = open_root(place, mode)
        second = None if overflow is None else open_overflow(overflow, place, uid, way)
        roots = roots if second is None else roots.beside(second)
        reconciled = None
        if way == "r":
            opened = index_to_read(place, index, second)
        else:
            opened, reconciled = index_to_write(place, index, second)
        super().__init__(place, uid, opened, roots, given, way, index, reconciled, second)
        self._writing = Writing(place, uid, self._index, second, self.retention.relieve)
        self._warn(asked_for=mode)

    def _warn(self, asked_for: str) -> None:
        """Say what opening left undone, by RuntimeWarnings at the line that opens the store."""
        found = self.last_reconciliation
        texts = [f"a run was left alone: {one}" for one in found.left] if found is not None else []
        texts += found.waiting if found is not None else ()
        if self.mode != asked_for:
            texts.append(
                f"{self.root} is mounted read-only: it was opened with mode='r', and nothing can be stored"
            )
        try:
            for text in texts:
                warnings.warn(text, RuntimeWarning, stacklevel=3)
        except RuntimeWarning:  # who makes errors of warnings gets no store
            self.close()
            raise

    # -- writing ----------------------------------------------------------------------------------------

    def writer(
        self,
        *,
        format: str = "zarr",  # the field's word, and the one people type
        chunks: Chunks | Mapping[str, Chunks] | None = None,
        compression: Compression | Mapping[str, Compression] | None = None,
        levels: int | Mapping[str, int] = 1,
        assets: str = "datum",
        adopt: str = "reference",
        sync: str = "event",
        copy: bool = True,
        hot_bytes: int = 0,
        max_pending_bytes: int | None = None,
        stall_timeout_s: float = 60.0,
        min_free_bytes: int = 64 * 2**20,
        on_failure: Callable[[Exception], object] | None = None,
    ) -> StoreWriter:
        """Return a callback for ``RE.subscribe`` that stores what it is given.

        Parameters
        ----------
        format
            ``"zarr"`` (OME-Zarr), ``"tiff"`` (one OME-TIFF per event), ``"memory"`` (shared memory, which does
            not survive a restart of the machine: see `materialize`), or another backend's name.
        chunks
            How arrays are cut: ``"planes"``, ``"blocks"``, ``"volume"``, ``"auto"`` or lengths along the axes
            of one event; or a mapping of data keys to these. By default what the format does by itself. What
            it came to, and why, is in ``store.record(uid).metadata["packing"]``, by the uid of an asset.
        compression
            ``"lz4"``, ``"zstd"``, ``"none"``, ``"auto"``, or codecs as Zarr's metadata spells them; or a
            mapping of data keys to these. By default what the format does by itself.
        levels
            Resolutions kept, each half as fine as the one before it; or a mapping of data keys to numbers.
        assets
            Which documents announce arrays: ``"datum"`` (resource and datum, which `event_model.Filler` fills)
            or ``"stream"`` (stream_resource and stream_datum, as newer consumers like them).
        adopt
            What becomes of files that devices put into the store's ``incoming`` folder: ``"reference"`` reads them
            where they lie, ``"move"`` renames them into the folder of their run when that ends; a RuntimeWarning
            says of what stays where it is, and why. For devices that begin new files for each run.
        sync
            What survives a loss of power: with ``"event"`` every event that was announced; with ``"run"`` every
            run whose stop was, for nothing is synced between a run's start and its stop; with ``"never"`` what
            the system has happened to write. The death of the process takes nothing that was announced in any case.
        copy
            Copy each array as it comes. False takes it as it is, where it is laid out as it is stored: for
            devices that give their buffer away and never touch it again.
        hot_bytes
            Keep so many bytes of the newest arrays in shared memory too, where any process reads them at
            once.
        max_pending_bytes
            Bound of the buffer between the RunEngine and storage; when it is full the RunEngine waits. By
            default 128 MiB, or one event where that is larger.
        stall_timeout_s
            A wait for storage without progress longer than this is a failure.
        min_free_bytes
            A run does not start with less free space, and fails, or goes on in the overflow, when there is less. With
            less than four times as much there is a RuntimeWarning, and with less than twice as much what the store's
            own policy says is done, if it has one (see `retention`).
            One whose start document says how many events it will have (``num_points``) fails with its first one if
            they would not leave so much after that either. 0 looks at nothing.
        on_failure
            Called with the first failure of a run, at once, on a thread of its own; before that, where the run goes on
            in the overflow, with a `RunGoesOn`, which says so and is no reason to end the plan.

        Raises
        ------
        InvalidSetting
            A setting is out of range, or there is no such format.
        StoreReadOnly
            The store was opened with ``mode="r"``.
        """
        settings = Settings(
            format=format,
            chunks=chunks,
            compression=compression,
            levels=levels,
            assets=assets,
            adopt=adopt,
            sync=sync,
            copy=copy,
            hot_bytes=hot_bytes,
            max_pending_bytes=max_pending_bytes,
            stall_timeout_s=stall_timeout_s,
            min_free_bytes=min_free_bytes,
        )
        self._require_writable()
        return self._writing.writer(settings, on_failure)

    def recorder(
        self,
        *,
        format: str = "zarr",  # as in `writer`
        chunks: Chunks | Mapping[str, Chunks] | None = None,
        compression: Compression | Mapping[str, Compression] | None = None,
        levels: int | Mapping[str, int] = 1,
        sync: str = "event",
        copy: bool = True,
        max_pending_bytes: int | None = None,
        stall_timeout_s: float = 60.0,
        min_free_bytes: int = 64 * 2**20,
    ) -> Recorder:
        """Return what devices that write their arrays by themselves write them through: see `gently_bluesky.devices`.

        Any number of devices share one, and its buffer. The parameters are those of `writer`; ``format`` is one
        that keeps pixels on disk.

        Raises
        ------
        InvalidSetting
            A setting is out of range, or there is no such format.
        StoreReadOnly
            The store was opened with ``mode="r"``.
        """
        settings = Settings(
            format=format,
            chunks=chunks,
            compression=compression,
            levels=levels,
            sync=sync,
            copy=copy,
            max_pending_bytes=max_pending_bytes,
            stall_timeout_s=stall_timeout_s,
            min_free_bytes=min_free_bytes,
        )
        self._require_writable()
        return self._writing.recorder(settings)

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
            Names of the axes of an array; a lazy array has its own. ``t``, the name of what the store keeps events
            along, becomes ``event``. Steps along axes of space are those of the lazy array, or of the first parent
            that has any.
        format
            As in `writer`, for a result with arrays.
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
            dims = data.dims
        derivation = Derivation(
            data_type=data_type,
            parents=tuple(known),
            runs=tuple(self._index.record(parent.run_uid) for parent in known),
            operation=operation,
            parameters=dict(parameters or {}),
            metadata={**metadata, **({} if session is None else {"session": session})},
            dims=None if dims is None else tuple("event" if dim == "t" else dim for dim in dims),
            steps_um=self._steps_um(
                [data, parents, *(parents if isinstance(parents, list | tuple) else [])], known
            ),
        )
        documents = derivation.documents(result)
        record_run(self._writing.of_results(format if result.has_assets else None), documents)
        return self._recorded(documents[0][1]["uid"])

    def _recorded(self, uid: str) -> Record:
        try:
            return self.record(uid)
        except UnknownUid as error:
            raise StorageStalled(
                f"result {uid} is stored, but another process has held the index for too long, so that it cannot "
                "be found; do not store it again; end that process, and open the store again"
            ) from error

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

    # -- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every recorder and writer, and the index. Runs without a stop end as incomplete. Idempotent.

        Raises
        ------
        GentlyError
            The first failure of a run that was still open.
        """
        if self._closed:
            return
        self._closed = True
        try:
            failure = self._writing.close()
        finally:
            self._index.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as failure:
            if error is None or failure is not error.__cause__:  # that one says more of it
                raise

    def __repr__(self) -> str:
        state = "closed" if self._closed else "read only" if self.mode == "r" else "read and write"
        return f"<Store {self.root} ({state})>"
