"""The bounded way between the threads that produce documents and the one thread that stores them.

Tasks go in by ``put``, after ``reserve``, which waits while too many bytes are pending, and are begun and
committed in that order on the pipeline's thread; the writes that ``begin`` starts may overlap. A task whose
writes have ended gives its bytes back, and waits a moment for more before it is committed, unless somebody
waits for it, so that many tasks share one commit. Where nothing moves for too long, the owners of what is on its
way are told. The pipeline knows nothing of documents: a task and its owner do. The thread lives while somebody
holds the pipeline open.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby

from gently_bluesky.documents.hanging import Doubt, Watch
from gently_bluesky.documents.ring import Ring
from gently_bluesky.documents.work import Task
from gently_bluesky.errors import InputError, InvalidSetting, StorageError, StorageStalled

__all__ = ["Pipeline"]

DEFAULT_PENDING_BYTES = 128 * 2**20
KEPT_BETWEEN_RUNS_BYTES = DEFAULT_PENDING_BYTES
"""Of the ring, so that the next run begins as fast as this one ended."""
BETWEEN_COMMITS_S = 0.05
"""A commit costs a few syncs and a transaction, however much it commits."""
SLOWEST_BYTES_PER_S = 5e6
"""A disk that is no faster than this counts as one that hangs."""
SUBSCRIBERS_PATIENCE = 10
"""A server that a subscriber talks to may take longer than a disk, and tries again."""


class Pipeline:
    """A queue bounded in bytes, and its thread.

    Parameters
    ----------
    max_pending_bytes
        Most bytes of tasks that were put and are not yet stored; None is `DEFAULT_PENDING_BYTES`, or one task
        where that is larger.
    stall_timeout_s
        A wait without any progress for longer than this raises StorageStalled; and the owners of what is on
        its way are told, whether somebody waits or not.
    keeps_stored
        What is large is kept, and counts, until a task is committed, and not only until its writes have ended: it may
        have to be written elsewhere.

    Attributes
    ----------
    ring
        Where tasks get their memory from.
    """

    def __init__(
        self, *, max_pending_bytes: int | None, stall_timeout_s: float, keeps_stored: bool = False
    ) -> None:
        self._keeps_stored = keeps_stored
        self._max_pending_bytes = DEFAULT_PENDING_BYTES if max_pending_bytes is None else max_pending_bytes
        self._takes_any_event = max_pending_bytes is None
        self._stall_timeout_s = stall_timeout_s
        self.ring = Ring(self._max_pending_bytes)
        self._changed = threading.Condition()
        self._queue: deque[Task] = deque()
        self._in_flight: deque[Task] = deque()
        self._unstored: deque[Task] = deque()
        self._committing: Sequence[Task] = ()
        self._telling = False
        self._commit_from_s = 0.0
        self._to_begin = False
        self._is_idle_waiting = False
        self._hurry = 0
        self._pending_bytes = 0
        self._holders = 0
        self._progress_s = time.monotonic()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def hold(self) -> None:
        """Keep the thread alive until as many calls of `release` have come."""
        with self._changed:
            self._holders += 1
            if self._thread is None:
                # a daemon, so that an interpreter that exits in mid-run is not held for ever; the store
                # drains at exit
                self._thread = threading.Thread(
                    target=self._work, name="gently-bluesky-pipeline", daemon=True
                )
                self._thread.start()
                atexit.register(self._drain)

    def release(self, *, join: bool = True) -> None:
        """Undo one `hold`; after the last one the thread ends when all is committed.

        With ``join`` it is waited for. A thread that hangs in a disk's call is not: it ends when the disk
        lets it.
        """
        with self._changed:
            self._holders -= 1
            self._changed.notify_all()
            thread = self._thread if self._holders == 0 else None
        if join and thread is not None and not (self.is_own_thread or sys.is_finalizing()):
            thread.join()

    def _drain(self) -> None:
        """Let what was accepted be stored before an interpreter that exits takes the thread with it."""
        with suppress(StorageError):
            self.wait_until(self._is_idle, "the buffer to drain at exit")

    def _is_idle(self) -> bool:
        return not (self._queue or self._in_flight or self._committing)

    @property
    def stall_timeout_s(self) -> float:
        """How long a wait without any progress may last."""
        return self._stall_timeout_s

    @property
    def pending(self) -> tuple[int, int]:
        """How many tasks were put and are not committed, and how many bytes are reserved and not stored."""
        return len(self._queue) + len(self._in_flight), self._pending_bytes

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is on the pipeline's thread, where it must not wait for the pipeline."""
        return threading.current_thread() is self._thread

    def reserve(self, nbytes: int, check: Callable[[], object] | None = None) -> float:
        """Take this much of the buffer, waiting while it is full; a task of that size must follow, or
        `give_back`. Return for how many seconds it was waited.

        Parameters
        ----------
        nbytes
            Of the task.
        check
            Called while waiting; what it raises ends the wait, and nothing is taken.

        Raises
        ------
        InvalidSetting
            It alone is larger than the bound that was set.
        StorageStalled
            The buffer was full and nothing was stored for ``stall_timeout_s``.
        """
        if nbytes > self._max_pending_bytes and not self._takes_any_event:
            raise InvalidSetting(
                f"one event holds {nbytes} bytes, more than max_pending_bytes={self._max_pending_bytes}; "
                "it was not stored; make the writer with a larger max_pending_bytes"
            )
        with self._changed:
            bound = max(self._max_pending_bytes, nbytes)
            self.ring.most_bytes = max(self.ring.most_bytes, bound)
            waited_s = 0.0
            if self._pending_bytes + nbytes > bound:
                begun_s = time.monotonic()
                self.wait_until(
                    lambda: self._pending_bytes + nbytes <= bound, "room in the buffer", check, hurries=False
                )
                waited_s = time.monotonic() - begun_s
            self._pending_bytes += nbytes
            return waited_s

    def give_back(self, nbytes: int) -> None:
        """Undo `reserve` for a task that does not come."""
        with self._changed:
            self._pending_bytes -= nbytes
            self._changed.notify_all()

    def put(self, task: Task) -> None:
        """Queue a task whose bytes are reserved: *accepted*."""
        with self._changed:
            if self._is_idle():
                self._progress_s = time.monotonic()
            self._queue.append(task)
            self._to_begin |= task.nbytes > 0
            self._hurry += not task.is_patient
            if self._to_begin or self._hurry or self._is_idle_waiting:
                self._changed.notify_all()

    def wait_until(
        self,
        predicate: Callable[[], bool],
        what: str,
        check: Callable[[], object] | None = None,
        *,
        hurries: bool = True,
    ) -> None:
        """Wait until ``predicate``, which storing makes true, holds; ``check`` may end the wait by raising.

        With ``hurries`` what is stored is committed at once.

        Raises
        ------
        StorageStalled
            Nothing was stored or committed for ``stall_timeout_s``, nor when it was looked again: a process that was
            only stopped finds its disk well.
        """
        entered_s = time.monotonic()
        doubt = Doubt(self._stall_timeout_s)
        with self._changed:
            self._hurry += hurries
            self._changed.notify_all()
            try:
                while not predicate():
                    if check is not None:
                        check()
                    pause_s = doubt.pause_s(self.patience_s(entered_s))
                    if pause_s <= 0:
                        raise self.stalled(what)
                    self._changed.wait(pause_s)
            finally:
                self._hurry -= hurries

    def patience_s(self, since_s: float) -> float:
        """Return for how long whoever waits since then (`time.monotonic`) should go on.

        Raises
        ------
        InputError
            It is the pipeline's own thread that waits.
        StorageError
            The thread has died, with the interpreter or by a fault in this package.
        """
        if self.is_own_thread:
            raise InputError(
                "a subscriber sent documents into the writer that called it, which would wait for itself for "
                "ever; they were not stored; let it use a writer of its own"
            )
        if self._fault is not None:
            raise StorageError(
                f"the storing thread died of {self._fault!r}; what was announced is safe, what was only "
                "accepted is lost; make a new writer, and please report this"
            ) from self._fault
        if sys.is_finalizing():
            # a paused RunEngine ends its run only as the interpreter takes it apart, after our thread is gone
            raise StorageError(
                "the interpreter has exited and stores nothing more; what was accepted before is stored; the "
                "run ends as incomplete when the store is next opened"
            )
        return self._left_s(since_s)

    def _left_s(self, since_s: float) -> float:
        # a slow disk that works on a large volume makes progress without a commit
        patience_s = self._stall_timeout_s + self._pending_bytes / SLOWEST_BYTES_PER_S
        if self._telling:
            patience_s += SUBSCRIBERS_PATIENCE * self._stall_timeout_s
        return max(self._progress_s, since_s) + patience_s - time.monotonic()

    def stalled(self, what: str) -> StorageStalled:
        """Return the error for a wait that was longer than `patience_s`."""
        culprit = "a subscriber of the writer, which has not returned" if self._telling else "the disk"
        return StorageStalled(
            f"waited for {what}, but storage made no progress for {self._stall_timeout_s:g} s; what was "
            f"announced is safe, what was only accepted may be lost; look at {culprit}"
        )

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    # -- on the pipeline's thread ----------------------------------------------------------------------------

    @contextmanager
    def telling(self) -> Generator[None, None, None]:
        """Have a subscriber that is called meanwhile not taken for a disk that hangs."""
        self._telling = True
        try:
            yield
        finally:
            self._progress_s = time.monotonic()
            self._telling = False

    def _work(self) -> None:
        watch = Watch(
            lambda: None if self._is_idle() else self._left_s(0.0),
            self._tell_who_hangs,
            self._stall_timeout_s,
        )
        try:
            while self._wait_for_work():
                self._begin_queued()
                self._give_back_stored()
                self._commit_ended()
        except BaseException as error:
            # an owner raised, which it must not: nobody may wait for this thread any longer
            with self._changed:
                self._fault = error
                self._thread = None
                self._changed.notify_all()
            raise
        finally:
            watch.end()

    def _tell_who_hangs(self) -> None:
        """Tell the owners of all that is on its way. On the watch's thread."""
        with self._changed:
            tasks = [*self._committing, *self._in_flight, *self._queue]
        for owner in dict.fromkeys(task.owner for task in tasks):
            mine = [task for task in tasks if task.owner is owner]
            owner.stall(mine, self.stalled("what was accepted to be stored"))

    def _wait_for_work(self) -> bool:
        """Wait until there is something to begin, give back or commit; False is the end of the thread."""
        with self._changed:
            while not (self._to_begin or _has_ended_head(self._unstored)):
                if self._queue or _has_ended_head(self._in_flight):
                    left_s = self._commit_from_s - time.monotonic()
                    if left_s <= 0 or self._hurry > 0:
                        break
                    self._changed.wait(left_s)
                elif not self._in_flight and self._holders == 0:
                    self._thread = None
                    atexit.unregister(self._drain)
                    self.ring.keep_at_most(KEPT_BETWEEN_RUNS_BYTES)
                    return False
                else:
                    self._is_idle_waiting = True
                    self._changed.wait()
                    self._is_idle_waiting = False
        return True

    def _begin_queued(self) -> None:
        with self._changed:
            fresh = list(self._queue)
            self._queue.clear()
            self._to_begin = False
            self._in_flight.extend(fresh)
            self._unstored.extend(task for task in fresh if task.nbytes)
        for task in fresh:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        task.owner.begin(task)
        for pending in task.pendings:
            pending.add_done_callback(self._on_done)

    def _on_done(self, _: object) -> None:
        self.wake()

    def _give_back_stored(self) -> None:
        nbytes = 0
        while _has_ended_head(self._unstored):
            if self._unstored[0].is_to_begin_anew():
                self._begin(self._unstored[0])
                continue
            task = self._unstored.popleft()
            self._progress_s = time.monotonic()
            if not self._keeps_stored:
                task.let_go_stored()  # before its bytes are given back, so that the bound is one of memory
                nbytes += task.nbytes
        if nbytes:
            self.give_back(nbytes)

    def _commit_ended(self) -> None:
        ended: list[Task] = []
        with self._changed:
            if time.monotonic() >= self._commit_from_s or self._hurry > 0:
                while self._has_committable_head():
                    ended.append(self._in_flight.popleft())
            self._committing = ended
        for owner, tasks in groupby(ended, key=lambda task: task.owner):
            mine = list(tasks)
            owner.commit(mine)
            self._progress_s = time.monotonic()
            for task in mine:
                task.let_go()
        with self._changed:
            if self._keeps_stored:
                self._pending_bytes -= sum(task.nbytes for task in ended)
            if ended:
                self._hurry -= sum(not task.is_patient for task in ended)
                self._commit_from_s = time.monotonic() + BETWEEN_COMMITS_S
            self._committing = ()
            self._changed.notify_all()

    def _has_committable_head(self) -> bool:
        """Say whether a task is first whose writes have ended, and were found not to need another try."""
        is_looked_at = not self._unstored or self._unstored[0] is not self._in_flight[0]
        return _has_ended_head(self._in_flight) and is_looked_at


def _has_ended_head(tasks: deque[Task]) -> bool:
    return bool(tasks) and all(pending.done() for pending in tasks[0].pendings)
