"""StoreWriter, the callback for ``RE.subscribe``: it routes documents to the writer of their run, and nothing else."""

from __future__ import annotations

import asyncio
import enum
import itertools
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NoReturn, Self

from gently_bluesky.documents.checks import checked
from gently_bluesky.documents.desk import Desk, Subscriber
from gently_bluesky.documents.ended import EndedRuns
from gently_bluesky.documents.hanging import Doubt
from gently_bluesky.documents.home import FolderHome, RunHome, SharedHome, SharedJournal
from gently_bluesky.documents.pages import REFERENCES, documents_in, events_in_bulk
from gently_bluesky.documents.run_writer import RunWriter
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.errors import (
    ConflictingDocument,
    InputError,
    InvalidDocument,
    RunClosed,
    UnknownReference,
    WriterClosed,
)
from gently_bluesky.jsontext import digest_of
from gently_bluesky.model import JournalLine

__all__ = ["StoreWriter"]


class _Barrier(Owner):
    """Reached when everything that was put before it is committed."""

    def __init__(self) -> None:
        self.reached: Future[None] = Future()
        # a plan that is aborted must not cancel what the pipeline sets
        self.reached.set_running_or_notify_cancel()

    def begin(self, task: Task) -> None:
        """Nothing to start."""

    def commit(self, tasks: Sequence[Task]) -> None:  # noqa: ARG002 # it is the only one
        """Tell whoever waits."""
        self.reached.set_result(None)

    def stall(self, tasks: Sequence[Task], error: Exception) -> None:
        """Nothing to tell: whoever waits looks for as long as there is progress."""


class StoreWriter:
    """Takes documents, stores the arrays in them, and announces documents that refer to what is stored.

    Made by ``store.writer()``; hand it to ``RE.subscribe`` as it is. Documents may come on any thread; runs
    may be interleaved. Call it with a document's name and the document: *accepted* on return; after a stop
    document everything of its run is announced, and *synced* as its ``sync`` says. The documents that come in are
    not changed.

    The first failure of a run is final: it is raised by the next document of the run, whatever thread it
    comes on, and at its stop, always the same object; ``on_failure`` is called with it at once. A run that goes on in
    the store's overflow has not failed: ``on_failure`` is called with a `RunGoesOn`, which nobody raises.
    """

    def __init__(self, desk: Desk, *, shared: SharedJournal | None = None) -> None:
        self._desk = desk
        self._shared = shared
        self._entry = threading.RLock()
        self._closed = False
        self._tokens = itertools.count()
        self._runs: dict[str, RunWriter] = {}
        self._run_of: dict[str, RunWriter] = {}
        self._ended = EndedRuns()
        self._beside: JournalLine | None = None
        self._takers: dict[str, Callable[[Any], None]] = {
            "start": self._start,
            "descriptor": lambda doc: self._introduce("descriptor", doc),
            "resource": lambda doc: self._introduce("resource", doc),
            "stream_resource": lambda doc: self._introduce("stream_resource", doc),
            "event": lambda doc: self._follow("event", doc, "descriptor"),
            "datum": lambda doc: self._follow("datum", doc, "resource"),
            "stream_datum": self._stream_datum,
            "event_page": lambda doc: self._page("event_page", doc),
            "datum_page": lambda doc: self._page("datum_page", doc),
            "bulk_events": self._bulk_events,
            "bulk_datum": lambda doc: self._page("bulk_datum", doc),
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
        taker = self._takers.get(key) if isinstance(key, str) else None  # pyright: ignore[reportUnnecessaryIsInstance] # as below
        if taker is None:
            raise InvalidDocument(
                f"expected a document named one of {', '.join(self._takers)}, got {name!r}; it was not stored"
            )
        if not isinstance(doc, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # documents come from anywhere
            raise InvalidDocument(f"expected a {key} document, got {type(doc).__name__}; it was not stored")
        if self._desk.pipeline.is_own_thread:
            raise InputError(
                f"a subscriber sent a {key} document into the writer that called it, which would wait for "
                "itself for ever; it was not stored; let it use a writer of its own"
            )
        with self._entry:
            if self._closed:
                raise WriterClosed(
                    f"a {key} document came after close(); it was not stored; make a new writer"
                )
            taker(doc)

    def restore(self, line: JournalLine) -> None:
        """Take a line of a journal: its document, and what stands beside it.

        Pixels whose digest is another one fail the run; it ends on record as the line of its stop says.
        """
        with self._entry:
            self._beside = line
            try:
                self(line.name, line.doc)
            finally:
                self._beside = None

    def subscribe(self, callback: Subscriber) -> int:
        """Have ``callback(name, doc)`` called with every document announced from now on; return a token.

        It is called on the writer's own thread, after the document is in the journal, with copies of its own.
        What it raises is raised at the run's stop as SubscriberError; it never stops the storing, which waits
        until it returns, for ten times ``stall_timeout_s`` at most.
        """
        token = next(self._tokens)  # no lock: a subscriber may do this while a producer waits
        self._desk.subscribers[token] = callback
        return token

    def unsubscribe(self, token: int) -> None:
        """Undo `subscribe`; an unknown token is ignored."""
        self._desk.subscribers.pop(token, None)

    def stored(self) -> Generator[Any, Any, None]:
        """Wait, as a plan, until everything accepted by now is announced: ``yield from writer.stored()``.

        The RunEngine's loop goes on meanwhile. Raises the first failure of the runs that are open, and
        StorageStalled, which fails them, when storage makes no progress for ``stall_timeout_s``.
        """
        from bluesky import plan_stubs as bps

        barrier = _Barrier()
        with self._entry:
            runs = list(self._runs.values())
            if runs:
                self._desk.pipeline.put(Task(barrier))
            else:
                barrier.reached.set_result(None)
        yield from bps.wait_for([lambda: self._reach(barrier)])
        if not barrier.reached.done():
            for run in runs:
                run.fail(self._desk.pipeline.stalled("what was accepted to be stored"))
        for run in runs:
            run.failure.raise_if_set()

    async def _reach(self, barrier: _Barrier) -> None:
        """Wait for a barrier, on an event loop, for as long as there is progress."""
        since_s, pipeline = time.monotonic(), self._desk.pipeline
        doubt = Doubt(pipeline.stall_timeout_s)
        reached = asyncio.wrap_future(barrier.reached)
        while not reached.done() and (pause_s := doubt.pause_s(pipeline.patience_s(since_s))) > 0:
            await asyncio.wait({reached}, timeout=pause_s)

    def stats(self) -> dict[str, Any]:
        """Return what has gone through the writer, and what is on its way. Any thread.

        Returns
        -------
        dict
            Frames ``accepted``, ``stored`` (found to be when they are committed) and ``announced``,
            ``accepted_bytes`` and ``announced_bytes`` of pixels, ``bytes_per_s`` from the first frame to the
            last; ``pending_documents`` and ``pending_bytes`` in the buffer now, ``peak_pending_bytes`` at
            most; ``waited_s``, for which producers were held because the buffer was full; ``written_anew``,
            frames of events that the disk took only at the second try; ``overflowed``, runs that went on in the
            store's overflow.
        """
        tally, (documents, nbytes) = self._desk.tally, self._desk.pipeline.pending
        return {
            "accepted": tally.accepted,
            "stored": tally.stored,
            "announced": tally.announced,
            "accepted_bytes": tally.accepted_bytes,
            "announced_bytes": tally.announced_bytes,
            "bytes_per_s": tally.bytes_per_s,
            "pending_documents": documents,
            "pending_bytes": nbytes,
            "peak_pending_bytes": tally.peak_pending_bytes,
            "waited_s": tally.waited_s,
            "written_anew": tally.written_anew,
            "overflowed": tally.overflowed,
        }

    def close(self) -> None:
        """End every run that has had no stop, as incomplete, and take nothing more. Idempotent.

        Raises
        ------
        GentlyError
            The first failure of those runs.
        """
        failure: Exception | None = None
        if self._desk.pipeline.is_own_thread:
            raise InputError(
                "a subscriber closed the writer that called it; it goes on; close it on another thread"
            )
        with self._entry:
            self._closed = True
            for run in list(self._runs.values()):
                try:
                    self._end(run, None)
                except Exception as error:  # noqa: BLE001 # the first one is raised when all runs have ended
                    failure = failure or error
            if self._shared is not None:
                self._shared.close()
            if self._desk.pool is not None:
                self._desk.pool.close()
            self._desk.pipeline.ring.keep_at_most(0)
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

    # -- routing ---------------------------------------------------------------------------------------------

    def _start(self, doc: Mapping[str, Any]) -> None:
        try:
            start = checked("start", doc)
        except InvalidDocument as error:
            if isinstance(uid := doc.get("uid"), str):
                self._ended.refuse(uid, error)  # its stop still comes, and has to raise the same
            raise
        run = self._runs.get(start["uid"])
        if run is not None:
            if digest_of(run.start) == digest_of(start):
                return
            raise ConflictingDocument(
                f"start {start['uid']} came twice with different contents; the run goes on under the first "
                "one"
            )
        run = RunWriter(start, self._desk, self._home())
        self._runs[run.uid] = run  # also if it fails to open: its stop has to raise the same error
        run.open()

    def _home(self) -> RunHome:
        if self._shared is not None:
            return SharedHome(self._shared)
        settings = self._desk.settings
        return FolderHome(self._desk.place, settings.min_free_bytes, sync=settings.sync)

    def _introduce(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document that names its run and will be named by others."""
        uid, run_uid = doc.get("uid"), doc.get("run_start")
        if run_uid is None and len(self._runs) == 1:
            run_uid = next(iter(self._runs))
        run = self._runs.get(run_uid) if isinstance(run_uid, str) else None
        if run is None:
            self._ended.refuse_with(run_uid, uid)
            self._refuse_unknown(name, "run_start", run_uid)
        if isinstance(uid, str):
            owner = self._run_of.setdefault(uid, run)  # also if it is refused: what names it is told why
            if owner is not run:
                run.refuse(
                    ConflictingDocument(
                        f"{name} {uid} belongs to run {owner.uid} already, and came again for run {run_uid}; "
                        "the second one was not stored; give every document a uid of its own"
                    )
                )
        run.receive(name, {**doc, "run_start": run_uid})

    def _follow(self, name: str, doc: Mapping[str, Any], reference: str) -> None:
        """Take a document that belongs to a run through another document."""
        digest = None if self._beside is None else self._beside.digest
        self._run_named(name, doc, reference).receive(name, doc, digest)

    def _stream_datum(self, doc: Mapping[str, Any]) -> None:
        """Take what names two documents: it is the run's whose events it is for, whatever else is wrong with it."""
        descriptor = doc.get("descriptor")
        is_described = isinstance(descriptor, str) and descriptor in self._run_of
        self._follow("stream_datum", doc, "descriptor" if is_described else "stream_resource")

    def _page(self, name: str, page: Mapping[str, Any]) -> None:
        """Take a page as the documents it holds."""
        run = self._run_named(name, page, REFERENCES[name])
        try:
            kind, documents = documents_in(name, page)
        except InvalidDocument as error:
            run.refuse(error)
        for document in documents:
            run.receive(kind, document)

    def _bulk_events(self, bulk: Mapping[str, Any]) -> None:
        for event in events_in_bulk(bulk):
            self("event", event)

    def _run_named(self, name: str, doc: Mapping[str, Any], reference: str) -> RunWriter:
        named = doc.get(reference)
        run = self._run_of.get(named) if isinstance(named, str) else None
        if run is None and reference == "resource":
            run = self._taken_over(named)
        if run is None:
            self._refuse_unknown(name, reference, named)
        return run

    def _taken_over(self, named: object) -> RunWriter | None:
        """Have the run that is open take over a resource of one that has ended: its device was staged for both."""
        resource = self._ended.resource(named)
        if resource is None or len(self._runs) != 1:
            return None
        (run,) = self._runs.values()
        run.take_over(resource)
        self._run_of[resource["uid"]] = run
        return run

    def _refuse_unknown(self, name: str, reference: str, named: object) -> NoReturn:
        """Refuse a document of no open run; if just one is open it is that run's failure.

        A device's thread that brought the document only logs what is raised, and nothing is lost in silence.
        """
        self._ended.raise_if_refused(named)
        ended = self._ended.run_of(named)
        if ended is not None:
            raise RunClosed(
                f"a {name} document came for run {ended}, which has ended; it was not stored; what the run "
                "holds was not touched; let its documents come before its stop, and stage devices again for a "
                "run beside which another one is open"
            )
        error = UnknownReference(
            f"a {name} document names {named!r} as its {reference}, which has not come; it was not stored; "
            "documents must come in the order in which they were made"
        )
        if len(self._runs) == 1 and name != "stop":
            next(iter(self._runs.values())).refuse(error)
        raise error

    def _stop(self, doc: Mapping[str, Any]) -> None:
        run = self._runs.get(str(doc.get("run_start")))
        try:
            stop = checked("stop", doc)
        except InvalidDocument as error:
            if run is not None:  # nothing else will end it
                run.fail(error)
                self._end(run, None)
            raise
        if run is not None:
            self._end(run, stop)
            return
        ended = self._ended.stop_of(stop["run_start"])
        if ended is None:
            self._refuse_unknown("stop", "run_start", stop["run_start"])
        if ended != digest_of(stop):
            raise ConflictingDocument(
                f"a second stop document came for run {stop['run_start']}, different from the first one, "
                "which stands; it was not stored; what the run holds was not touched"
            )

    def _end(self, run: RunWriter, stop: Mapping[str, Any] | None) -> None:
        try:
            run.stop(stop, None if self._beside is None else self._beside.outcome)
        finally:
            del self._runs[run.uid]
            references = [uid for uid, owner in self._run_of.items() if owner is run]
            for uid in references:
                del self._run_of[uid]
            self._ended.add(run.uid, stop, references, run.resources)
