"""StoreWriter: the callback for ``RE.subscribe``. It routes documents to the writer of their run, and nothing else."""

from __future__ import annotations

import asyncio
import enum
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NoReturn, Self

from event_model import unpack_datum_page, unpack_event_page

from gently_bluesky.documents.checks import checked
from gently_bluesky.documents.home import FolderHome, RunHome, SharedHome, SharedJournal
from gently_bluesky.documents.journal import digest_of
from gently_bluesky.documents.pipeline import Owner, Task
from gently_bluesky.documents.run_storage import Desk, Subscriber
from gently_bluesky.documents.run_writer import RunWriter
from gently_bluesky.errors import (
    ConflictingDocument,
    GentlyError,
    InvalidDocument,
    RunClosed,
    UnknownReference,
    WriterClosed,
)

__all__ = ["StoreWriter"]

REMEMBERED_RUNS = 1000


class _Barrier(Owner):
    """Reached when everything that was put before it is committed."""

    def __init__(self) -> None:
        self.reached: Future[None] = Future()

    def begin(self, task: Task) -> None:
        """Nothing to start."""

    def commit(self, tasks: Sequence[Task]) -> None:
        """Tell whoever waits."""
        self.reached.set_result(None)


class StoreWriter:
    """Takes documents, stores the arrays in them, and announces documents that refer to what is stored.

    Made by ``store.writer()``; hand it to ``RE.subscribe`` as it is. Documents may come on any thread; runs may be
    interleaved. Call it with a document's name and the document: *accepted* on return; after a stop document
    everything of its run is *synced* and announced. The documents that come in are not changed.

    The first failure of a run is final: it is raised by the next document of the run, whatever thread it comes on,
    and at its stop, always the same object; ``on_failure`` is called with it at once.
    """

    def __init__(self, desk: Desk, *, shared: SharedJournal | None = None) -> None:
        self._desk = desk
        self._shared = shared
        self._entry = threading.RLock()
        self._closed = False
        self._tokens = itertools.count()
        self._runs: dict[str, RunWriter] = {}
        self._run_of: dict[str, RunWriter] = {}
        self._ended: OrderedDict[str, bytes] = OrderedDict()
        self._takers: dict[str, Callable[[Any], None]] = {
            "start": self._start,
            "descriptor": lambda doc: self._introduce("descriptor", doc),
            "resource": lambda doc: self._introduce("resource", doc),
            "stream_resource": lambda doc: self._introduce("stream_resource", doc),
            "event": lambda doc: self._follow("event", doc, "descriptor"),
            "datum": lambda doc: self._follow("datum", doc, "resource"),
            "stream_datum": lambda doc: self._follow("stream_datum", doc, "stream_resource"),
            "event_page": self._event_page,
            "datum_page": self._datum_page,
            "bulk_events": self._bulk_events,
            "bulk_datum": self._bulk_datum,
            "stop": self._stop,
        }

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        GentlyError
            The document cannot be taken, or the run it belongs to has failed.
        """
        key = str(name.value) if isinstance(name, enum.Enum) else name
        taker = self._takers.get(key)
        if taker is None:
            raise InvalidDocument(
                f"expected a document named one of {', '.join(self._takers)}, got {name!r}; it was not stored"
            )
        if not isinstance(doc, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # documents come from anywhere
            raise InvalidDocument(f"expected a {key} document, got {type(doc).__name__}; it was not stored")
        with self._entry:
            if self._closed:
                raise WriterClosed(f"a {key} document came after close(); it was not stored; make a new writer")
            taker(doc)

    def subscribe(self, callback: Subscriber) -> int:
        """Have ``callback(name, doc)`` called with every document announced from now on; return a token.

        It is called on the writer's own thread, after the document is in the journal, with copies of its own. What it
        raises is raised at the run's stop as SubscriberError; it never stops the storing.
        """
        with self._entry:
            token = next(self._tokens)
            self._desk.subscribers[token] = callback
            return token

    def unsubscribe(self, token: int) -> None:
        """Undo `subscribe`; an unknown token is ignored."""
        with self._entry:
            self._desk.subscribers.pop(token, None)

    def stored(self) -> Generator[Any, Any, None]:
        """Wait, as a plan, until everything accepted by now is announced: ``yield from writer.stored()``.

        The RunEngine's loop goes on meanwhile. Raises the first failure of the runs that are open.
        """
        from bluesky import plan_stubs as bps

        barrier = _Barrier()
        with self._entry:
            runs = list(self._runs.values())
            if runs:
                self._desk.pipeline.put(Task(barrier))
            else:
                barrier.reached.set_result(None)
        yield from bps.wait_for([lambda: asyncio.wrap_future(barrier.reached)])
        for run in runs:
            run.failure.raise_if_set()

    def close(self) -> None:
        """End every run that has had no stop, as incomplete, and take nothing more. Idempotent.

        Raises
        ------
        GentlyError
            The first failure of those runs.
        """
        failure: GentlyError | None = None
        with self._entry:
            self._closed = True
            for run in list(self._runs.values()):
                try:
                    self._end(run, None)
                except GentlyError as error:
                    failure = failure or error
            if self._shared is not None:
                self._shared.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- routing -----------------------------------------------------------------------------------------------

    def _start(self, doc: Mapping[str, Any]) -> None:
        start = checked("start", doc)
        run = self._runs.get(start["uid"])
        if run is not None:
            if digest_of(run.start) == digest_of(start):
                return
            raise ConflictingDocument(
                f"start {start['uid']} came twice with different contents; the run goes on under the first one"
            )
        run = RunWriter(start, self._desk, self._home())
        self._runs[run.uid] = run  # also if it fails to open: its stop has to raise the same error
        run.open()

    def _home(self) -> RunHome:
        if self._shared is not None:
            return SharedHome(self._shared)
        return FolderHome(self._desk.root, self._desk.settings.min_free_bytes)

    def _introduce(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document that names its run and will be named by others."""
        uid, run_uid = doc.get("uid"), doc.get("run_start")
        if run_uid is None and len(self._runs) == 1:
            run_uid = next(iter(self._runs))
        run = self._runs.get(run_uid) if isinstance(run_uid, str) else None
        if run is None:
            self._refuse_unknown(name, "run_start", run_uid)
        owner = self._run_of.get(uid, run) if isinstance(uid, str) else run
        if owner is not run:
            error = ConflictingDocument(
                f"{name} {uid} belongs to run {owner.uid} already, and came again for run {run_uid}; the second one was "
                "not stored; give every document a uid of its own"
            )
            run.fail(error)
            raise error
        run.receive(name, {**doc, "run_start": run_uid})
        self._run_of[str(uid)] = run

    def _follow(self, name: str, doc: Mapping[str, Any], reference: str) -> None:
        """Take a document that belongs to a run through another document."""
        named = doc.get(reference)
        run = self._run_of.get(named) if isinstance(named, str) else None
        if run is None:
            self._refuse_unknown(name, reference, named)
        run.receive(name, doc)

    def _refuse_unknown(self, name: str, reference: str, named: object) -> NoReturn:
        """Refuse a document of no open run. If just one is open it is that run's failure: a device's thread that
        brought the document only logs what is raised, and nothing is lost in silence."""
        if isinstance(named, str) and named in self._ended:
            raise RunClosed(f"a {name} document came for run {named}, which has ended; it was not stored")
        error = UnknownReference(
            f"a {name} document names {named!r} as its {reference}, which has not come, or belongs to a run that has "
            "ended; it was not stored; documents must come in the order in which they were made"
        )
        if len(self._runs) == 1 and name != "stop":
            next(iter(self._runs.values())).fail(error)
        raise error

    def _stop(self, doc: Mapping[str, Any]) -> None:
        stop = checked("stop", doc)
        uid = stop["run_start"]
        ended = self._ended.get(uid)
        if ended is not None:
            if ended == digest_of(stop):
                return
            raise RunClosed(f"a second stop document came for run {uid}, which has ended; the first one stands")
        run = self._runs.get(uid)
        if run is None:
            self._refuse_unknown("stop", "run_start", uid)
        self._end(run, stop)

    def _end(self, run: RunWriter, stop: Mapping[str, Any] | None) -> None:
        try:
            run.stop(stop)
        finally:
            del self._runs[run.uid]
            self._run_of = {uid: owner for uid, owner in self._run_of.items() if owner is not run}
            self._ended[run.uid] = digest_of(stop)
            while len(self._ended) > REMEMBERED_RUNS:
                self._ended.popitem(last=False)

    # -- pages are taken as the documents they hold ------------------------------------------------------------

    def _event_page(self, page: Mapping[str, Any]) -> None:
        for event in _unpacked("event_page", unpack_event_page, page):
            self._takers["event"](event)

    def _datum_page(self, page: Mapping[str, Any]) -> None:
        for datum in _unpacked("datum_page", unpack_datum_page, page):
            self._takers["datum"](datum)

    def _bulk_events(self, bulk: Mapping[str, Any]) -> None:
        for events in bulk.values():
            for event in events:
                self._takers["event"](event)

    def _bulk_datum(self, bulk: Mapping[str, Any]) -> None:
        columns = (bulk.get("datum_ids"), bulk.get("datum_kwarg_list"))
        if not all(isinstance(column, list | tuple) for column in columns) or len(columns[0]) != len(columns[1]):
            raise InvalidDocument("bulk_datum: expected datum_ids and datum_kwarg_list of one length; nothing was stored")
        for datum_id, datum_kwargs in zip(*columns, strict=True):
            self._takers["datum"]({"datum_id": datum_id, "resource": bulk.get("resource"), "datum_kwargs": datum_kwargs})


def _unpacked(name: str, unpack: Callable[[Any], Any], page: Mapping[str, Any]) -> list[dict[str, Any]]:
    lengths = {
        len(column)
        for value in page.values()
        for column in (value.values() if isinstance(value, Mapping) else [value])
        if isinstance(column, list | tuple)
    }
    try:
        documents = list(unpack(page))
    except Exception as error:
        raise InvalidDocument(f"{name}: cannot be taken apart ({error!r}); nothing of it was stored") from error
    if lengths - {len(documents)}:
        raise InvalidDocument(
            f"{name}: expected columns of one length, got lengths {sorted(lengths)}; nothing of it was stored"
        )
    return documents
