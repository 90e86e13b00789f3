"""The storing half of one run, on the pipeline's thread: frames to sinks, then commit, then announce.

The order is the promise: frames synced, shape published, journal synced, index, subscribers. The first
failure ends the run on record; what came before it stays announced and readable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from gently_bluesky.documents.adopting import Adoption
from gently_bluesky.documents.announcer import Announcer
from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.event_count import events_missing, own_stop
from gently_bluesky.documents.events import check_digest, conflicting_event, referring_anew
from gently_bluesky.documents.failure import FirstFailure
from gently_bluesky.documents.home import RunHome
from gently_bluesky.documents.known import KnownUids
from gently_bluesky.documents.leaving import LeftHome, leave_home
from gently_bluesky.documents.overflow import is_of_its_place
from gently_bluesky.documents.room_watch import RoomWatch
from gently_bluesky.documents.tally import Tally
from gently_bluesky.documents.tasks import (
    DocumentTask,
    DuplicateTask,
    FailTask,
    OpenTask,
    StopTask,
)
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.files import storage_error
from gently_bluesky.model import JournalLine

__all__ = ["RunStorage"]


class RunStorage(Owner):
    """Stores one run. `receive` is called by its `RunWriter`, everything else by the pipeline."""

    def __init__(self, start: dict[str, Any], desk: Desk, home: RunHome, failure: FirstFailure) -> None:
        self.home = home
        self.root = desk.root
        """Where frames go now: the store's root, or its overflow."""
        self.ended = False
        self.stand_ins: set[str] = set()
        """Resources of this run that stand in for those of other runs."""
        self._start = start
        self._desk = desk
        self._failure = failure
        self._open = False
        self._broken = False
        self.tally = Tally(desk.tally)
        self.adoption = Adoption(desk.root, start["uid"], desk.settings)
        self._announcer = Announcer(start["uid"], desk, home, self.tally)
        self._room = RoomWatch(start, desk, self.remarks.append)
        self._known = KnownUids(start["uid"], desk.index)
        self._received = 0
        self._assets: dict[Asset, None] = {}
        self._fingerprints: dict[str, bytes] = {}
        self._left: LeftHome | None = None

    @property
    def subscriber_errors(self) -> list[Exception]:
        """What subscribers of the writer raised over documents of this run."""
        return self._announcer.subscriber_errors

    @property
    def remarks(self) -> deque[str]:
        """What people have to be told and no error says."""
        return self._announcer.remarks

    def receive(self, frames: int) -> None:
        """Count frames as they come, stored or not. On the producer's thread; no call to the system."""
        self._received += frames
        self.home.count_received(self._received)

    def last_remarks(self) -> Iterator[str]:
        """Yield what to warn of, of a run that has ended and lost nothing by it."""
        yield from self.adoption.remarks
        yield from self.tally.remarks(f"run {self._start['uid'][:8]}")
        why = self._desk.feed.why_behind(self.home.journal) if self._open else None
        if why is not None:
            yield f"run {self._start['uid']} is stored and on record, {why}"

    # -- the pipeline's calls --------------------------------------------------------------------------------

    def begin(self, task: Task) -> None:
        """Start a task's writes."""
        if self._broken or not isinstance(task, DocumentTask):
            return
        if isinstance(task, DuplicateTask):
            task.take_digest()
        elif task.frames:
            try:
                self._room.look(self.root, task.nbytes)
            except OSError as error:
                task.error = error
            else:
                self._write(task)

    def _write(self, task: DocumentTask) -> None:
        """Start to write an event's frames, or start it again where the run goes on."""
        if task.root is not self.root:
            task.is_begun_anew = False  # there it was not written yet
        for frame in task.frames:
            self._assets[frame.asset] = None
            if frame.asset.root is not self.root:
                frame.asset.move(self.root)
        task.root, task.error = self.root, None
        task.pendings.clear()
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
            self._known.refuse_run()
            try:
                self._room.prepare(self.root)
                self.home.open(self._start)
                self._open = True
                self._announcer.announce([JournalLine("start", self._start)])
            except OSError as error:
                self._go_on(error)
                self._open = True
                self._announcer.announce([JournalLine("start", self._start)])
        except Exception as error:  # noqa: BLE001 # raised on the thread that waits for the start
            if self._open:
                self.home.discard()
            self._open = False
            self._broken = True
            self._failure.set(error)
        task.ended = True
        self._desk.pipeline.wake()

    def _commit_documents(self, batch: Sequence[DocumentTask]) -> None:
        try:
            self._store(batch)
        except OSError as error:
            self._go_on(error)
            self._store([task for task in batch if not task.is_announced])
        self._room.foresee(batch, self.root)

    def _store(self, batch: Sequence[DocumentTask]) -> None:
        """Wait for the frames, and announce what is stored; what fails is raised behind what came before it."""
        failure: Exception | None = None
        lines: list[JournalLine] = []
        stored: list[DocumentTask] = []
        counts: dict[Asset, int] = {}
        for task in batch:
            try:
                if self._known.has_come_again(task.name, task.doc, self.stand_ins):
                    continue
                self._await(task)
                lines.extend(self._lines(task))
            except Exception as error:  # noqa: BLE001 # raised below, behind what came before it
                failure = error
                break
            stored.append(task)
            self.tally.store(len(task.frames), anew=task.is_begun_anew)
            counts.update({frame.asset: frame.place + 1 for frame in task.frames})
        if lines:
            for asset, count in counts.items():
                asset.publish(count)
            self._announcer.announce(lines, stored)
            for task in stored:
                self.adoption.note(task.name, task.doc)
        if failure is not None:
            raise failure

    def _await(self, task: DocumentTask) -> None:
        self._known.refuse(task.name, task.doc)
        if task.frames and self._left is not None and task.root is not self.root:
            self._write(task)
            if task.is_to_begin_anew():
                self._write(task)
        task.wait()

    def _lines(self, task: DocumentTask) -> list[JournalLine]:
        digest = task.digest or None
        check_digest(self._start["uid"], task)
        if any(frame.asset.has_moved for frame in task.frames):
            task.doc = referring_anew(task.doc, task.frames)
        documents = (frame.asset.documents(frame.place, task.doc) for frame in task.frames)
        lines = [JournalLine(*named) for named in chain.from_iterable(documents)]
        if task.name == "event":
            self._fingerprints[task.doc["uid"]] = task.fingerprint()
        return [*lines, JournalLine(task.name, task.doc, digest, timestamps=task.timestamps or None)]

    def _compare(self, task: DuplicateTask) -> None:
        if self._fingerprints.get(task.doc["uid"]) != task.fingerprint():
            raise conflicting_event(self._start["uid"], task.doc["uid"])

    # -- the end, good or bad --------------------------------------------------------------------------------

    def _go_on(self, error: OSError) -> None:
        """Let the run go on in the store's overflow; raise ``error`` if it cannot, or if that is not the way."""
        overflow = self._desk.overflow
        if overflow is None or self._left is not None or not self._is_of_place(error):
            raise error
        error = storage_error(error, f"run {self._start['uid'][:8]}: it could not go on in {self.root}")
        stored = self.tally.announced if self._announcer.has_begun else None
        self._left = left = leave_home(self._desk, self.home, self._start, error, stored)
        self._announcer.move(left.next, {asset.uid for asset in self._assets})
        self.home, self.root = left.next, overflow
        self.home.count_received(self._received)
        self.tally.overflow()
        self.remarks.append(left.remark())
        self._failure.tell(left.told())

    def _is_of_place(self, error: Exception) -> bool:
        """Say whether it is the place that failed where the run is, and not its index, or a document."""
        of_index = self._announcer.index_failed or self._known.index_failed
        return is_of_its_place(error) and not of_index

    def _return(self, left: LeftHome) -> None:
        """Undo `_go_on`, after which nothing was announced."""
        self.home = left.home  # first: frames are counted on another thread
        self._announcer.move_back(left.home)
        left.next.discard()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            error = storage_error(error, f"run {self._start['uid'][:8]}: an event could not be stored")
        if self._left is not None and self._failure.error is None and self._is_of_place(error):
            self._left.error.add_note(f"It went on in the overflow, and that failed too: {error}")
            error = self._left.error
        if self._left is not None and not self._announcer.has_begun:
            self._return(self._left)
        self._failure.set(error)
        self._record_failure()

    def _record_failure(self, stop: Mapping[str, Any] | None = None) -> None:
        """Write our own stop into the journal.

        If even that is refused, the next opening says what happened.
        """
        if self._announcer.is_ended or not self._open or self.ended:
            return
        self._broken = True
        self._sync_quietly()
        try:
            self.home.make_room(self._reason())
            self._announcer.announce([self._stop_line("failed", stop or self._own_stop())], last=True)
        except Exception as error:  # noqa: BLE001 # the failure that led here is raised; the run is labelled when the store is next opened
            self._failure.set(error)
        self._desk.pipeline.wake()

    def _reason(self) -> str:
        error = self._failure.error
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])

    def _own_stop(self) -> dict[str, Any]:
        return own_stop(self._start["uid"], self._announcer.events.num_events)

    def _stop_line(
        self, status: str, stop: Mapping[str, Any], missing: Mapping[str, int] | None = None
    ) -> JournalLine:
        doc = dict(stop)
        if self._failure.error is not None:
            num_events = self._announcer.events.num_events
            doc.update(exit_status="fail", reason=self._reason(), num_events=num_events)
        stored = self.tally.announced
        outcome: dict[str, Any] = {
            "status": status,
            "received": self._received,
            "stored": stored,
            "lost": self._received - stored,
            **({"missing": missing} if missing else {}),
            **({} if self._left is None else {"overflow": self._left.on_record(stored)}),
        }
        return JournalLine("stop", doc, outcome=outcome, storing=self.tally.line() if stored else None)

    def _finish(self, task: StopTask) -> None:
        if not self._broken and self._failure.error is None:
            self._guarded(self._finish_well, task)
        if self._failure.error is not None:
            self._record_failure(task.stop)
        self._close_assets_quietly()
        self._sync_quietly()
        try:
            self.home.close(recorded=self._announcer.is_ended)
        except OSError as error:
            self._failure.set(
                storage_error(error, f"run {self._start['uid'][:8]}: its files could not be closed")
            )
        if self._left is not None:
            self._left.close()
        self.ended = True
        self._desk.pipeline.wake()

    def _finish_well(self, task: StopTask) -> None:
        status, missing = "incomplete", dict[str, int]()
        if task.stop is not None:
            status = {"success": "complete", "abort": "aborted"}.get(task.stop["exit_status"], "failed")
            missing = self._announcer.events.missing(task.stop)
        if missing and status == "complete":
            status = "incomplete"
        try:
            for asset in self._assets:
                if asset.root is self.root:
                    asset.close()
        except OSError as error:
            self._go_on(error)
        self._close_assets_quietly()
        self._sync_announced()
        try:
            self._announce_end(task, status, missing)
        except OSError as error:
            self._go_on(error)
            self._announce_end(task, status, missing)
        if missing and status == "incomplete" and task.outcome is None:
            raise events_missing(self._start["uid"], missing)

    def _sync_announced(self) -> None:
        """Sync what was left for the run's end, wherever it lies; nothing of it could be written elsewhere."""
        try:
            for synced in (*self._assets, *self._homes()):
                synced.sync()
        except OSError as error:
            self._failure.set(error)  # before anybody takes it for one of the second place
            raise

    def _homes(self) -> list[RunHome]:
        return [self.home] if self._left is None else [self._left.home, self.home]

    def _announce_end(self, task: StopTask, status: str, missing: Mapping[str, int]) -> None:
        line = self._stop_line(status, task.stop or self._own_stop(), missing)
        if task.outcome is not None:  # a copy ends as its original did, and has lost what that one lost
            line = replace(line, outcome=task.outcome)
        if self._left is None:
            self.adoption.move(self.home.folder)
        self._announcer.announce([line], last=True)

    def _close_assets_quietly(self) -> None:
        """Let go of the assets after a failure that is on record and raised, or of those that were left."""
        for asset in self._assets:
            with suppress(Exception):  # it finishes metadata, not pixels
                asset.close()

    def _sync_quietly(self) -> None:
        """Sync what can be synced of a run that has failed."""
        for synced in (*self._assets, *self._homes()):
            with suppress(Exception):  # what cannot be synced is no worse off than before
                synced.sync()
