"""The pipeline alone: order, the bound, and what becomes of those who wait when its thread dies."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from gently_bluesky.documents import pipeline as pipeline_module
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.errors import InputError, StorageError


class Payload(Task):
    """A task that says when it lets go."""

    def __init__(self, owner: Owner, name: str, said: list[str]) -> None:
        super().__init__(owner, nbytes=1)
        self.name = name
        self.said = said

    def let_go_stored(self) -> None:
        super().let_go_stored()
        self.said.append(f"{self.name} let go")


class Patient(Payload):
    """A payload that may wait for others."""

    is_patient = True


class Recorder(Owner):
    """Says what is done, and waits at ``gate`` before it commits."""

    def __init__(self, said: list[str], error: BaseException | None = None) -> None:
        self.said = said
        self.error = error
        self.gate = threading.Event()

    def begin(self, task: Task) -> None:
        assert isinstance(task, Payload)
        self.said.append(f"{task.name} begun")

    def commit(self, tasks: Sequence[Task]) -> None:
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.said.extend(f"{task.name} committed" for task in tasks if isinstance(task, Payload))

    def stall(self, tasks: Sequence[Task], error: Exception) -> None:
        self.said.extend(f"{task.name} hangs" for task in tasks if isinstance(task, Payload))


def test_room_is_given_back_when_the_memory_is_though_nothing_is_committed_yet() -> None:
    said: list[str] = []
    owner, pipeline = Recorder(said), Pipeline(max_pending_bytes=1, stall_timeout_s=30)
    pipeline.hold()
    pipeline.reserve(1)
    pipeline.put(Payload(owner, "first", said))
    pipeline.reserve(1)
    said.append("room for the second")
    pipeline.put(Payload(owner, "second", said))
    owner.gate.set()
    pipeline.release()
    assert said == [
        *("first begun", "first let go", "room for the second", "first committed"),
        *("second begun", "second let go", "second committed"),
    ]
    assert not [thread for thread in threading.enumerate() if thread.name == "gently-bluesky-pipeline"]


def test_tasks_of_several_owners_are_committed_in_the_order_they_were_put() -> None:
    said: list[str] = []
    pipeline = Pipeline(max_pending_bytes=100, stall_timeout_s=30)
    owners = [Recorder(said), Recorder(said)]
    pipeline.hold()
    for n in range(10):
        pipeline.reserve(1)
        pipeline.put(Payload(owners[n % 3 == 0], str(n), said))
    for owner in owners:
        owner.gate.set()
    pipeline.release()
    assert [text for text in said if text.endswith("committed")] == [f"{n} committed" for n in range(10)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_died() -> None:
    said: list[str] = []
    owner = Recorder(said, MemoryError("no memory"))
    pipeline = Pipeline(max_pending_bytes=1, stall_timeout_s=3600)
    pipeline.hold()
    pipeline.reserve(1)
    pipeline.put(Payload(owner, "first", said))
    owner.gate.set()
    with pytest.raises(
        StorageError, match=r"the storing thread died of MemoryError\('no memory'\)"
    ) as caught:
        pipeline.wait_until(lambda: False, "the thread to die")
    assert caught.value.__cause__ is owner.error
    pipeline.release()


def test_its_own_thread_must_not_wait_for_it() -> None:
    raised: list[Exception] = []
    pipeline = Pipeline(max_pending_bytes=1, stall_timeout_s=3600)

    class Foolish(Recorder):
        def commit(self, tasks: Sequence[Task]) -> None:
            try:
                pipeline.wait_until(lambda: False, "itself")
            except InputError as error:
                raised.append(error)

    pipeline.hold()
    pipeline.reserve(1)
    pipeline.put(Payload(Foolish([]), "first", []))
    pipeline.release()
    assert "would wait for itself for ever" in str(raised[0])


class Counting(Recorder):
    """Says how many tasks each commit took."""

    def __init__(self) -> None:
        super().__init__([])
        self.gate.set()
        self.commits: list[int] = []

    def commit(self, tasks: Sequence[Task]) -> None:
        super().commit(tasks)
        self.commits.append(len(tasks))


def test_patient_tasks_share_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "BETWEEN_COMMITS_S", 3600.0)
    owner, pipeline = Counting(), Pipeline(max_pending_bytes=10_000, stall_timeout_s=30)
    pipeline.hold()
    for n in range(1000):
        pipeline.reserve(1)
        pipeline.put(Patient(owner, str(n), []))
    pipeline.reserve(1)
    pipeline.put(Payload(owner, "last", []))  # it waits for nobody
    pipeline.wait_until(lambda: sum(owner.commits) == 1001, "all to be committed")
    pipeline.release()
    assert len(owner.commits) <= 3  # the first ones alone, perhaps, and all the others together


def test_nobody_waits_for_a_commit_that_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "BETWEEN_COMMITS_S", 3600.0)
    owner, pipeline = Counting(), Pipeline(max_pending_bytes=3, stall_timeout_s=30)
    pipeline.hold()
    for n in range(100):  # the buffer is full after three: whoever waits for room must not wait an hour
        pipeline.reserve(1)
        pipeline.put(Patient(owner, str(n), []))
    pipeline.wait_until(lambda: sum(owner.commits) == 100, "all to be committed")
    assert pipeline.pending == (0, 0)
    pipeline.release()


def test_a_patient_task_is_committed_though_nothing_follows_it() -> None:
    owner, pipeline = Counting(), Pipeline(max_pending_bytes=100, stall_timeout_s=30)
    pipeline.hold()
    committed = threading.Event()
    for n in range(2):  # the second comes while the pause behind the first one lasts
        committed.clear()
        pipeline.reserve(1)
        pipeline.put(Said(owner, str(n), committed))
        assert committed.wait(30)
    pipeline.release()


class Said(Patient):
    """Sets an event when it is let go."""

    def __init__(self, owner: Owner, name: str, committed: threading.Event) -> None:
        super().__init__(owner, name, [])
        self.committed = committed

    def let_go(self) -> None:
        super().let_go()
        self.committed.set()
