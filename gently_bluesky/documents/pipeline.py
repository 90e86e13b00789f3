"""The bounded way between the threads that produce documents and the one thread that stores them.

Tasks go in by ``put``, after ``reserve``, which waits while too many bytes are pending, and are begun and committed
in that order on the pipeline's thread; the writes that ``begin`` starts may overlap. The pipeline knows nothing of documents: a task
and its owner do. The thread lives while somebody holds the pipeline open.
"""

from __future__ import annotations

import atexit
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby

from gently_bluesky.backends.base import Pending
from gently_bluesky.errors import InputError, InvalidSetting, StorageStalled

__all__ = ["Owner", "Pipeline", "Task"]


class Task:
    """Something to be stored, in its turn."""

    __slots__ = ("nbytes", "owner", "pendings")

    def __init__(self, owner: Owner, nbytes: int = 0) -> None:
        self.owner = owner
        self.nbytes = nbytes
        self.pendings: list[Pending] = []


class Owner(ABC):
    """Whoever tasks belong to. Both methods are called on the pipeline's thread and raise nothing."""

    @abstractmethod
    def begin(self, task: Task) -> None:
        """Start the task's writes and leave them in ``task.pendings``."""

    @abstractmethod
    def commit(self, tasks: Sequence[Task]) -> None:
        """Take tasks whose writes have ended, well or badly, in the order they were put."""


class Pipeline:
    """A queue bounded in bytes, and its thread.

    Parameters
    ----------
    max_pending_bytes
        Most bytes of tasks that were put and not yet committed.
    stall_timeout_s
        A wait without any progress for longer than this raises StorageStalled.
    """

    def __init__(self, *, max_pending_bytes: int, stall_timeout_s: float) -> None:
        self._max_pending_bytes = max_pending_bytes
        self._stall_timeout_s = stall_timeout_s
        self._changed = threading.Condition()
        self._queue: deque[Task] = deque()
        self._in_flight: deque[Task] = deque()
        self._pending_bytes = 0
        self._holders = 0
        self._progress_s = time.monotonic()
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """Keep the thread alive until as many calls of `release` have come."""
        with self._changed:
            self._holders += 1
            if self._thread is None:
                # a daemon, so that an interpreter that exits in mid-run is not held for ever; the store drains at exit
                self._thread = threading.Thread(target=self._work, name="gently-bluesky-pipeline", daemon=True)
                self._thread.start()
                atexit.register(self._drain)

    def release(self) -> None:
        """Undo one `hold`; after the last one the thread ends when all is committed, and is waited for."""
        with self._changed:
            self._holders -= 1
            self._changed.notify_all()
            thread = self._thread if self._holders == 0 else None
        if thread is not None and not self._stalled:
            thread.join()
            atexit.unregister(self._drain)

    def _drain(self) -> None:
        """Let what was accepted be stored before an interpreter that exits in mid-run takes the thread with it."""
        with suppress(StorageStalled):
            self.wait_until(lambda: not self._queue and not self._in_flight, "the buffer to drain at exit")

    def reserve(self, nbytes: int) -> None:
        """Take this much of the buffer, waiting while it is full; a task of that size must follow, or `give_back`.

        Raises
        ------
        InvalidSetting
            It alone is larger than the buffer.
        StorageStalled
            The buffer was full and nothing was committed for ``stall_timeout_s``.
        """
        if nbytes > self._max_pending_bytes:
            raise InvalidSetting(
                f"one event holds {nbytes} bytes, more than max_pending_bytes={self._max_pending_bytes}; "
                "it was not stored; make the writer with a larger max_pending_bytes"
            )
        self.wait_until(lambda: self._pending_bytes + nbytes <= self._max_pending_bytes, "room in the buffer")
        with self._changed:
            self._pending_bytes += nbytes

    def give_back(self, nbytes: int) -> None:
        """Undo `reserve` for a task that does not come."""
        with self._changed:
            self._pending_bytes -= nbytes
            self._changed.notify_all()

    def put(self, task: Task) -> None:
        """Queue a task whose bytes are reserved: *accepted*."""
        with self._changed:
            self._queue.append(task)
            self._changed.notify_all()

    def wait_until(self, predicate: Callable[[], bool], what: str) -> None:
        """Wait until ``predicate``, which storing makes true, holds. Raises StorageStalled."""
        if threading.current_thread() is self._thread:
            raise InputError(
                "a subscriber sent documents into the writer that called it, which would wait for itself for ever; "
                "they were not stored; let it use a writer of its own"
            )
        entered_s = time.monotonic()
        with self._changed:
            while not predicate():
                left_s = max(self._progress_s, entered_s) + self._stall_timeout_s - time.monotonic()
                if left_s <= 0:
                    raise StorageStalled(
                        f"waited for {what}, but storage made no progress for {self._stall_timeout_s:g} s; what was "
                        "announced is safe, what was only accepted may be lost; look at the disk"
                    )
                self._changed.wait(left_s)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def _stalled(self) -> bool:
        return bool(self._in_flight) and time.monotonic() - self._progress_s > self._stall_timeout_s

    # -- on the pipeline's thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._wait_for_work():
            with self._changed:
                fresh = list(self._queue)
                self._queue.clear()
                self._in_flight.extend(fresh)
            for task in fresh:
                task.owner.begin(task)
                for pending in task.pendings:
                    pending.add_done_callback(self._on_done)
            self._commit_ended()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._queue or self._head_ended()):
                if not self._in_flight and self._holders == 0:
                    self._thread = None
                    self._changed.notify_all()
                    return False
                self._changed.wait()
        return True

    def _head_ended(self) -> bool:
        return bool(self._in_flight) and all(pending.done() for pending in self._in_flight[0].pendings)

    def _on_done(self, _: object) -> None:
        self.wake()

    def _commit_ended(self) -> None:
        ended: list[Task] = []
        while self._head_ended():
            ended.append(self._in_flight.popleft())
        for owner, tasks in groupby(ended, key=lambda task: task.owner):
            mine = list(tasks)
            owner.commit(mine)
            self._progress_s = time.monotonic()
            self.give_back(sum(task.nbytes for task in mine))
