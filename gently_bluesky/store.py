"""The front door: a store is a root folder with its index."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from gently_bluesky.backends.base import get_backend
from gently_bluesky.derived import Derivation, has_assets, read_result
from gently_bluesky.documents.home import SharedJournal
from gently_bluesky.documents.live import is_live
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.run_storage import Desk
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import (
    GentlyError,
    InvalidSetting,
    LookupFailed,
    NotAStore,
    StorageError,
    StoreReadOnly,
    StoreTooNew,
    UnknownUid,
    WriterClosed,
)
from gently_bluesky.files import make_folders, write_atomic
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import Lineage, ancestors, children
from gently_bluesky.index.schema import IndexUnusable
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record, Settings
from gently_bluesky.run import Run, open_asset
from gently_bluesky.upkeep.recovery import find_journals, index_journals, reconcile

__all__ = ["Store"]

MARKER = "gently-store.json"
FORMAT_VERSION = 1


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
        The root is a file, holds something else, or, with ``mode="r"``, is not there.
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
        self.uid = _open_root(self.root, mode)
        self._index_url = index or f"sqlite:///{self.root / 'index.sqlite'}"
        self._index = self._open_index()
        self._writers: list[StoreWriter] = []
        self._result_writers: dict[str | None, StoreWriter] = {}
        self._lock = threading.Lock()
        self._closed = False

    def _open_index(self) -> Index:
        if self.mode == "r":
            return _index_to_read(self.root, self._index_url)
        try:
            index = Index(self._index_url)
        except IndexUnusable:
            _remove_index(self.root / "index.sqlite", self._index_url)
            index = Index(self._index_url)
        try:
            reconcile(self.root, index)
        except BaseException:
            index.close()
            raise
        return index

    # -- writing -----------------------------------------------------------------------------------------------

    def writer(
        self,
        *,
        format: str = "zarr",  # noqa: A002 # the field's word, and the one people type
        max_pending_bytes: int = 512 * 2**20,
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
            Bound of the buffer between the RunEngine and storage; when it is full the RunEngine waits.
        stall_timeout_s
            A wait for storage without progress longer than this is a failure.
        min_free_bytes
            A run does not start with less free space.
        on_failure
            Called with the first failure of a run, at once, on the thread where it happened.

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

    def _desk(self, settings: Settings, on_failure: Callable[[Exception], object] | None = None) -> Desk:
        if self.mode == "r":
            raise StoreReadOnly(f"{self.root} was opened with mode='r'; nothing was written; open it with mode='a'")
        if self._closed:
            raise WriterClosed(f"the store {self.root} was closed; nothing was written; open it again")
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
        parents: Sequence[object] = (),
        operation: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        session: str | None = None,
        dims: Sequence[str] | None = None,
        format: str = "zarr",  # noqa: A002 # as in `writer`
        **metadata: Any,
    ) -> Record:
        """Keep a derived result as a small run of its own; *synced* on return.

        Parameters
        ----------
        data
            An array; a mapping of names to numbers, text, lists or arrays; or a table: a structured array or a
            DataFrame.
        data_type
            What it is: ``"projection"``, ``"segmentation"``, ``"nuclei"``.
        parents
            What it was made from: uids, records, runs or lazy arrays. What all parents' start documents agree on,
            session and metadata, is taken over unless given here.
        operation, parameters
            How it was made.
        dims
            Names of the axes of an array; steps along axes that the first parent has too are taken over.
        **metadata
            More for its start document.

        Raises
        ------
        UnknownUid
            A parent is not in the store; nothing was stored.
        UnstorableDtype, InvalidDocument
            ``data`` cannot be stored; nothing was.
        """
        known = [self._index.record(_uid_of(parent)) for parent in parents]
        derivation = Derivation(
            data_type=data_type,
            parents=tuple(known),
            runs=tuple(self._index.record(parent.run_uid) for parent in known),
            operation=operation,
            parameters=dict(parameters or {}),
            metadata={**metadata, **({} if session is None else {"session": session})},
            dims=None if dims is None else tuple(dims),
            steps_um=self._steps_um(known),
        )
        documents = list(derivation.documents(data))
        writer = self._writer_of_results(format if has_assets(data) else None)
        for name, doc in documents:
            writer(name, doc)
        return self._index.record(documents[0][1]["uid"])

    def _steps_um(self, parents: Sequence[Record]) -> dict[str, float]:
        for parent in parents:
            try:
                array = self.array(parent.uid)
            except (LookupFailed, StorageError):
                continue  # a parent without pixels, or without its pixels, still is a parent
            axes = zip(array.dims, array.scale, array.units, strict=True)
            return {dim: step for dim, step, unit in axes if unit == "micrometer"}
        return {}

    def _writer_of_results(self, format: str | None) -> StoreWriter:  # noqa: A002 # as in `writer`
        """Return the writer of results in this format, or, with None, of those without arrays."""
        with self._lock:
            if format not in self._result_writers:
                settings = Settings() if format is None else Settings(format)
                shared = SharedJournal(self.root, uuid.uuid4().hex[:8]) if format is None else None
                self._result_writers[format] = StoreWriter(self._desk(settings), shared=shared)
            return self._result_writers[format]

    # -- reading -----------------------------------------------------------------------------------------------

    def __getitem__(self, uid: str | int) -> Run:
        """Return a run by its uid, a unique beginning of it, or -1, -2, ... for the latest acquired ones.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, or there are several.
        """
        if isinstance(uid, int):
            return Run(self.root, self._index, self._nth_latest(uid))
        record = self._index.record(uid)
        if record.kind != "run":
            raise UnknownUid(
                f"{uid!r} is {_article(record.kind)} of run {record.run_uid}, not a run; ask for store.array({uid!r})"
            )
        return Run(self.root, self._index, record)

    def run(self, uid: str | int) -> Run:
        """Return a run, as ``store[uid]`` does."""
        return self[uid]

    def _nth_latest(self, number: int) -> Record:
        if number >= 0:
            raise UnknownUid(f"expected a uid, or -1 for the latest run, got {number}")
        for place, record in enumerate(self._index.query(derived=False), 1):
            if place == -number:
                return record
        raise UnknownUid(f"expected at least {-number} acquired runs in {self.root}, there are fewer")

    def array(self, uid: str) -> LazyArray:
        """Return the array of an asset ``(t, ...)``, of a datum, or of a run that has just one. Reads no pixels.

        All of an asset's announced events are in it, those that a rewind superseded too.

        Raises
        ------
        LookupFailed
            There is no such uid, the run has several arrays, or nothing installed opens it.
        AssetMissing, AssetDamaged
            The files are not what the record says.
        """
        record = self._index.record(uid)
        if record.kind == "run":
            assets = list(dict.fromkeys(self._assets_of(record.uid)))
            if len(assets) != 1:
                raise LookupFailed(
                    f"run {uid} holds {len(assets)} arrays; ask for one: {', '.join(assets) or 'it has only values'}"
                )
            record = self._index.record(assets[0])
        if record.kind == "asset":
            rows = [point.point_number for point in self._index.points_of_asset(record.uid)]
            array = open_asset(self.root, record)
            return array[: len(rows)] if rows == list(range(len(rows))) else array[rows]
        asset = self._index.record(self._index.datum_document(record.uid)["resource"])
        return open_asset(self.root, asset)[self._index.datum_document(record.uid)["datum_kwargs"]["point_number"]]

    def _assets_of(self, run_uid: str) -> Iterator[str]:
        for stream, keys in self._index.streams(run_uid).items():
            for key in keys:
                yield from (point.asset_uid for point in self._index.points(run_uid, stream, key))

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
        return self._index.query(
            kind=kind,
            data_type=data_type,
            session=session,
            status=status,
            stream=stream,
            data_key=data_key,
            since=since,
            until=until,
            derived=derived,
            operation=operation,
            **metadata,
        )

    def latest(self, **conditions: Any) -> Record:
        """Return the newest record that answers the conditions of `query`. Raises LookupFailed if none does."""
        found = next(self.query(**conditions), None)
        if found is None:
            raise LookupFailed(f"nothing in {self.root} answers {conditions}")
        return found

    def lineage(self, uid: str) -> Lineage:
        """Return what a record was made from, as a tree to print or walk. Raises UnknownUid."""
        return ancestors(self._index, uid)

    def children(self, uid: str) -> list[Record]:
        """Return the results made directly from this run, asset or datum, or from anything in it, newest last."""
        return children(self._index, uid)

    def stats(self) -> dict[str, Any]:
        """Return counts of runs, assets, datums and derived results, bytes of pixels, and the free space."""
        free_bytes = shutil.disk_usage(self.root).free
        return {"root": str(self.root), "uid": self.uid, **self._index.stats(), "free_bytes": free_bytes}

    # -- the end -----------------------------------------------------------------------------------------------

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
        for writer in [*self._writers, *self._result_writers.values()]:
            try:
                writer.close()
            except GentlyError as error:
                failure = failure or error
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
        return f"<Store {self.root} mode={self.mode!r}>"


def _open_root(root: Path, mode: str) -> str:
    """Return the store's uid, from its marker, which is made where there may be a new store."""
    marker = root / MARKER
    if root.exists() and not root.is_dir():
        raise NotAStore(f"expected a folder, {root} is a file; nothing was written; give another root")
    if not marker.exists():
        if mode == "r":
            raise NotAStore(f"there is no store at {root}; nothing was read; open it with mode='a' to make one")
        _make_root(root, marker)
    try:
        found = orjson.loads(marker.read_bytes())
        version, uid = found["format_version"], found["store_uid"]
    except (ValueError, TypeError, KeyError) as error:
        raise NotAStore(f"{marker} is not a store's marker ({error!r}); nothing was written") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{root} is a store of format {version}, this version of gently-bluesky knows formats up to "
            f"{FORMAT_VERSION}; nothing was written; upgrade gently-bluesky"
        )
    if mode == "a":
        _require_writable(root)
    return str(uid)


def _make_root(root: Path, marker: Path) -> None:
    try:
        make_folders(root)
        strange = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")]
        if strange:
            raise NotAStore(
                f"{root} is no store and not empty ({', '.join(sorted(strange)[:3])}, ...); nothing was written; give an "
                "empty or new folder"
            )
        created = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"format_version": FORMAT_VERSION, "store_uid": str(uuid.uuid4()), "created": created}
        write_atomic(marker, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise StoreReadOnly(f"a store cannot be made at {root}: {error}; nothing was written") from error


def _require_writable(root: Path) -> None:
    probe = root / f".probe-{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreReadOnly(f"{root} cannot be written: {error}; open it with mode='r' to read it") from error


def _index_to_read(root: Path, url: str) -> Index:
    """Return the index as it is, or one in memory where there is none that tells all the journals do."""
    try:
        index = Index(url, read_only=True)
    except GentlyError:
        index = None  # missing, damaged, of another version: the journals say all it would
    if index is not None:
        known = index.journals()
        if all(_in_step(root, journal, known.get(journal, 0)) for journal in find_journals(root)):
            return index
        index.close()
    index = Index("sqlite://")
    index_journals(root, index)
    return index


def _in_step(root: Path, journal: str, indexed: int) -> bool:
    path = root / journal
    return path.stat().st_size == indexed or is_live(path.parent)


def _remove_index(default: Path, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else default
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _uid_of(parent: object) -> str:
    uid = parent if isinstance(parent, str) else getattr(parent, "uid", None)
    if not isinstance(uid, str) or not uid:
        raise UnknownUid(
            f"expected parents by uid, or as records, runs or lazy arrays of a store, got {parent!r:.100}; nothing was "
            "stored; an array in memory has no uid: give the uid of what it was computed from"
        )
    return uid


def _article(kind: str) -> str:
    return "an asset" if kind == "asset" else f"a {kind}"
