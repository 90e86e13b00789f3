"""The storing half of one run, on the pipeline's thread: frames to sinks, then commit, then announce.

The order is the promise: frames synced, shape published, journal synced, index, subscribers. The first
failure ends the run on record; what came before it stays announced and readable.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.adopting import Adoption
from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.event_count import EventCount, events_missing
from gently_bluesky.documents.failure import FirstFailure
from gently_bluesky.documents.home import RunHome
from gently_bluesky.documents.index_feed import NOT_INDEXED, IndexFeed
from gently_bluesky.documents.journal import encode_line
from gently_bluesky.documents.pipeline import Owner, Pipeline, Task
from gently_bluesky.documents.tally import Tally
from gently_bluesky.documents.tasks import (
    DocumentTask,
    DuplicateTask,
    FailTask,
    OpenTask,
    StopTask,
)
from gently_bluesky.errors import AssetDamaged, ConflictingDocument, LookupFailed, RunExists, StorageError
from gently_bluesky.files import storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.jsontext import decode
from gently_bluesky.model import JournalLine, Record, Settings

if TYPE_CHECKING:
    from gently_bluesky.backends.hot import HotPool

__all__ = ["Desk", "RunStorage", "conflicting_event"]

Subscriber = Callable[[str, dict[str, Any]], object]


@dataclass(slots=True)
class Desk:
    """What all runs of one writer share."""

    root: Path
    index: Index
    backend: Backend
    settings: Settings
    pipeline: Pipeline
    subscribers: dict[int, Subscriber] = field(default_factory=dict[int, Subscriber])
    on_failure: Callable[[Exception], object] | None = None
    tally: Tally = field(default_factory=Tally)
    pool: HotPool | None = None
    feed: IndexFeed = field(init=False)

    def __post_init__(self) -> None:
        self.feed = IndexFeed(self.root, self.index, self.settings.stall_timeout_s)


class RunStorage(Owner):
    """Stores one run. `receive` and `fail` are called by its `RunWriter`, everything else by the pipeline."""

    def __init__(self, start: dict[str, Any], desk: Desk, home: RunHome, failure: FirstFailure) -> None:
        self.home = home
        self.ended = False
        self.subscriber_errors: list[Exception] = []
        self.stand_ins: set[str] = set()
        """Resources of this run that stand in for those of other runs."""
        self._start = start
        self._desk = desk
        self._failure = failure
        self._open = False
        self._broken = False
        self._recorded = False
        self.tally = Tally(desk.tally)
        self.adoption = Adoption(desk.root, start["uid"], desk.settings)
        self._received = 0
        self._events = EventCount()
        self._assets: dict[str, Asset] = {}
        self._fingerprints: dict[str, bytes] = {}
        self._unwritten: list[JournalLine] = []
        self._silenced: set[int] = set()

    def receive(self, frames: int) -> None:
        """Count frames as they come, stored or not. On the producer's thread; no call to the system."""
        self._received += frames
        self.home.count_received(self._received)

    def remarks(self) -> Iterator[str]:
        """Yield what to warn of, of a run that has ended and lost nothing by it."""
        yield from self.adoption.remarks
        yield from self.tally.remarks(f"run {self._start['uid'][:8]}")
        if self._open and self._desk.feed.is_behind(self.home.journal):
            yield f"run {self._start['uid']} is stored and on record, {NOT_INDEXED}"

    # -- the pipeline's calls --------------------------------------------------------------------------------

    def begin(self, task: Task) -> None:
        """Start a task's writes."""
        if self._broken or not isinstance(task, DocumentTask):
            return
        if isinstance(task, DuplicateTask):
            task.take_digest()
            return
        self._assets.update({frame.asset.uid: frame.asset for frame in task.frames})
        if task.frames:
            task.begin_writes(task.doc["time"])

    def commit(self, tasks: Sequence[Task]) -> None:
        """Announce what is stored; documents that follow each other share one sync of the journal."""
        batch: list[DocumentTask] = []
        for task in tasks:
            if isinstance(task, DocumentTask) and not isinstance(task, DuplicateTask):
                batch.append(task)
                continue
            self._guarded(self._commit_documents, batch)
            batch = []
            if isinstance(task, OpenTask):
                self._open_run(task)
            elif isinstance(task, DuplicateTask):
                self._guarded(self._compare, task)
            elif isinstance(task, FailTask):
                self._record_failure()
            elif isinstance(task, StopTask):
                self._finish(task)
        self._guarded(self._commit_documents, batch)

    def stall(self, tasks: Sequence[Task], error: Exception) -> None:  # noqa: ARG002 # they may end yet
        """Fail the run at once; on record it is when the disk goes on, behind what was accepted before."""
        if self._failure.set(error):
            self._desk.pipeline.put(FailTask(self))

    def _guarded(self, step: Callable[[Any], None], argument: object) -> None:
        if self._broken or not argument:
            return
        try:
            step(argument)
        except Exception as error:  # noqa: BLE001 # the first failure, of any kind, is final and is kept
            self._fail(error)

    def _open_run(self, task: OpenTask) -> None:
        try:
            self._refuse_known_run()
            self.home.open(self._start)
            self._open = True
            self._announce([JournalLine("start", self._start)])
        except Exception as error:  # noqa: BLE001 # raised on the thread that waits for the start
            if self._open:
                self.home.discard()
            self._open = False
            self._broken = True
            self._failure.set(error)
        task.ended = True
        self._desk.pipeline.wake()

    def _refuse_known_run(self) -> None:
        uid = self._start["uid"]
        known = self._known(uid)
        if known is not None:
            raise RunExists(
                f"run {uid} is in this store already ({known.status}, at {known.path}); nothing of it was "
                "touched and nothing was stored; replay into another store, or acquire under a new uid"
            )

    def _known(self, uid: str) -> Record | None:
        try:
            found = self._desk.index.record(uid)
        except LookupFailed:
            return None
        return found if found.uid == uid else None

    def _refuse_known_uid(self, name: str, doc: Mapping[str, Any]) -> None:
        """Refuse a uid that another run brought: in the journal it would keep this run out of the index."""
        uid = doc["datum_id" if name == "datum" else "uid"]
        if name == "descriptor":
            known = self._desk.index.has_descriptor(uid)
        else:
            known = name != "event" and self._known(uid) is not None
        if known:
            raise ConflictingDocument(
                f"run {self._start['uid'][:8]}: {name} {uid} is in this store already, from another run, "
                "which was not touched; the second one was not stored; give every document a uid of its own"
            )

    def _commit_documents(self, batch: Sequence[DocumentTask]) -> None:
        failure: Exception | None = None
        lines: list[JournalLine] = []
        stored: list[DocumentTask] = []
        counts: dict[str, int] = {}
        frames = nbytes = 0
        for task in batch:
            try:
                if self._is_of_another_run(task):
                    continue
                self._await(task)
                lines.extend(self._lines(task))
            except Exception as error:  # noqa: BLE001 # raised below, behind what came before it
                failure = error
                break
            stored.append(task)
            frames += len(task.frames)
            nbytes += task.nbytes
            self.tally.store(len(task.frames), anew=task.is_begun_anew)
            counts.update({frame.asset.uid: frame.place + 1 for frame in task.frames})
        if lines:
            for uid, count in counts.items():
                self._assets[uid].publish(count)
            self._announce(lines, frames, nbytes)
            for task in stored:
                task.is_announced = True
                self.adoption.note(task.name, task.doc)
        if failure is not None:
            raise failure

    def _is_of_another_run(self, task: DocumentTask) -> bool:
        """Say whether a datum is one that the run which announced its resource first had already: it came again."""
        if task.name != "datum" or task.doc["resource"] not in self.stand_ins:
            return False
        uid = task.doc["datum_id"]
        if self._known(uid) is None:
            return False
        return self._desk.index.datum_document(uid).get("datum_kwargs") == task.doc["datum_kwargs"]

    def _await(self, task: DocumentTask) -> None:
        self._refuse_known_uid(task.name, task.doc)
        task.wait()

    def _lines(self, task: DocumentTask) -> list[JournalLine]:
        digest = task.digest or None
        self._check_digest(task)
        documents = (frame.asset.documents(frame.place, task.doc) for frame in task.frames)
        lines = [JournalLine(*named) for named in chain.from_iterable(documents)]
        if task.name == "event":
            self._fingerprints[task.doc["uid"]] = task.fingerprint()
        return [*lines, JournalLine(task.name, task.doc, digest, timestamps=task.timestamps or None)]

    def _check_digest(self, task: DocumentTask) -> None:
        wrong = [key for key, known in task.recorded.items() if task.digest.get(key, known) != known]
        if wrong:
            raise AssetDamaged(
                f"run {self._start['uid'][:8]}: event {task.doc['seq_num']} came with pixels of "
                f"{', '.join(wrong)} that are not those that were recorded; the event was not stored; verify "
                "where it came from"
            )

    def _announce(
        self, lines: Sequence[JournalLine], frames: int = 0, nbytes: int = 0, *, last: bool = False
    ) -> None:
        """Journal, index, subscribers; so many frames of the lines' events become announced."""
        new, lines = lines, [*self._unwritten, *lines]
        if self.home.whole_runs and not last:
            self._unwritten = lines
            self._events.note(new)
            return
        raw = [encode_line(line) for line in lines]
        begin, end = self.home.append(raw, is_edge=last or lines[0].name == "start")
        self._unwritten = []
        self._recorded = last
        self.tally.announce(frames, nbytes)
        self.home.count_stored(self.tally.announced)
        self._events.note(new)
        try:
            self._index(lines, end, begin, last=last)
        finally:
            self._tell(raw)  # the journal has them: they are announced, whatever became of the index

    def _index(self, lines: Sequence[JournalLine], end: int, begin: int, *, last: bool) -> None:
        try:
            self._desk.feed.add(self.home.journal, lines, end, begin, last=last)
        except StorageError as error:
            raise type(error)(
                error.errno,
                f"run {self._start['uid'][:8]}: the index could not be written ({error}); what the journal holds "
                "is stored and announced, and the index follows it when the store is next opened",
            ) from error

    def _tell(self, raw: Sequence[bytes]) -> None:
        """Call the subscribers, each with copies of its own.

        One that raises is not called again in this run.
        """
        for token, subscriber in list(self._desk.subscribers.items()):
            if token in self._silenced:
                continue
            try:
                for line in raw:
                    named = decode(line)
                    with self._desk.pipeline.telling():
                        subscriber(named["name"], named["doc"])
            except BaseException as error:  # noqa: BLE001 # raised at stop as SubscriberError; storage goes on
                self._silenced.add(token)
                odd = RuntimeError(f"it raised {error!r}")
                self.subscriber_errors.append(error if isinstance(error, Exception) else odd)

    def _compare(self, task: DuplicateTask) -> None:
        if self._fingerprints.get(task.doc["uid"]) != task.fingerprint():
            raise conflicting_event(self._start["uid"], task.doc["uid"])

    # -- the end, good or bad --------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            error = storage_error(error, f"run {self._start['uid'][:8]}: an event could not be stored")
        self._failure.set(error)
        self._record_failure()

    def _record_failure(self, stop: Mapping[str, Any] | None = None) -> None:
        """Write our own stop into the journal.

        If even that is refused, the next opening says what happened.
        """
        if self._recorded or not self._open or self.ended:
            return
        self._broken = True
        for asset in self._assets.values():
            with suppress(Exception):  # what cannot be synced is no worse off than before; the run has failed
                asset.sync()
        try:
            self.home.make_room(self._reason())
            self._announce([self._stop_line("failed", stop or self._own_stop())], last=True)
        except Exception as error:  # noqa: BLE001 # the failure that led here is raised; the run is labelled when the store is next opened
            self._failure.set(error)
        self._desk.pipeline.wake()

    def _reason(self) -> str:
        return f"{type(self._failure.error).__name__}: {self._failure.error}"

    def _own_stop(self) -> dict[str, Any]:
        return {
            "uid": str(uuid.uuid4()),
            "run_start": self._start["uid"],
            "time": time.time(),
            "exit_status": "abort",
            "reason": "the writer was closed before a stop document came",
            "num_events": self._events.num_events,
        }

    def _stop_line(
        self, status: str, stop: Mapping[str, Any], missing: Mapping[str, int] | None = None
    ) -> JournalLine:
        doc = dict(stop)
        if self._failure.error is not None:
            doc.update(exit_status="fail", reason=self._reason(), num_events=self._events.num_events)
        stored = self.tally.announced
        outcome: dict[str, Any] = {
            "status": status,
            "received": self._received,
            "stored": stored,
            "lost": self._received - stored,
            **({"missing": missing} if missing else {}),
        }
        return JournalLine("stop", doc, outcome=outcome, storing=self.tally.line() if stored else None)

    def _finish(self, task: StopTask) -> None:
        if not self._broken and self._failure.error is None:
            self._guarded(self._finish_well, task)
        if self._failure.error is not None:
            self._record_failure(task.stop)
        self._close_assets_quietly()
        try:
            self.home.close(recorded=self._recorded)
        except OSError as error:
            self._failure.set(
                storage_error(error, f"run {self._start['uid'][:8]}: its files could not be closed")
            )
        self.ended = True
        self._desk.pipeline.wake()

    def _finish_well(self, task: StopTask) -> None:
        for asset in self._assets.values():
            asset.close()
        status, missing = "incomplete", dict[str, int]()
        if task.stop is not None:
            status = {"success": "complete", "abort": "aborted"}.get(task.stop["exit_status"], "failed")
            missing = self._events.missing(task.stop)
        if missing and status == "complete":
            status = "incomplete"
        line = self._stop_line(status, task.stop or self._own_stop(), missing)
        if task.outcome is not None:  # a copy ends as its original did, and has lost what that one lost
            line = replace(line, outcome=task.outcome)
        self.adoption.move(self.home.folder)
        self._announce([line], last=True)
        if missing and status == "incomplete" and task.outcome is None:
            raise events_missing(self._start["uid"], missing)

    def _close_assets_quietly(self) -> None:
        for asset in self._assets.values():
            # only after a failure that is on record and raised; close() finishes metadata, not pixels
            with suppress(Exception):
                asset.close()


def conflicting_event(run_uid: str, uid: str) -> ConflictingDocument:
    """Return the error for an event that came again under its uid and says something else."""
    return ConflictingDocument(
        f"run {run_uid[:8]}: event {uid} came twice with different contents; the first one is stored and "
        "stands, the second was not stored; give every event a uid of its own"
    )
