"""A run that meets a bad disk: what is tried anew, where it goes on, what is told of it, and how it ends."""

from __future__ import annotations

import errno
import os
import queue
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gently_bluesky import Store
from gently_bluesky.backends.base import Pending, Sink
from gently_bluesky.documents.failure import FirstFailure
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.errors import RunGoesOn, StorageError, StorageStalled
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (8, 9)
EVENTS = 4
BROKEN = OSError(errno.EIO, "Input/output error")
FULL = OSError(errno.ENOSPC, "No space left on device")
NO_THREAD = 1 << 46
"""Bytes of stack that no thread is given."""


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with a second place."""
    with Store(root, overflow=tmp_path / "second") as opened:
        yield opened


@pytest.fixture
def no_threads() -> Iterator[None]:
    """No further thread can be started."""
    before = threading.stack_size(NO_THREAD)
    yield
    threading.stack_size(before)


class AilingBackend(FailingBackend):
    """Fails the writes of one frame of each asset so often, and then no more: pairs of the frame's place and that."""

    def __init__(self, *faults: tuple[int, int]) -> None:
        super().__init__(BROKEN)
        self._faults = iter(faults)

    def wrapped(self, sink: Sink) -> Sink:
        return _AilingSink(sink, *next(self._faults, (0, 0)))


class _AilingSink(Sink):
    def __init__(self, sink: Sink, at: int, times: int) -> None:
        self._sink, self._at, self._left = sink, at, times

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        return self._sink.resource_kwargs

    def write(self, index: int, frame: NDArray[Any], time: float) -> Pending:
        if index != self._at or not self._left:
            return self._sink.write(index, frame, time)
        self._left -= 1
        failed: Future[object] = Future()
        failed.set_exception(BROKEN)
        return failed

    def publish(self, count: int) -> None:
        self._sink.publish(count)

    def close(self) -> None:
        self._sink.close()

    def sync(self) -> None:
        self._sink.sync()


class Acquired:
    """A run of some frames, of which nothing is asked while it goes on."""

    def __init__(self, store: Store, backend: FailingBackend | None = None, **settings: Any) -> None:
        self.told: queue.Queue[Exception] = queue.Queue()
        self.raised: list[Exception] = []
        self.warned: list[str] = []
        self.run = HandMadeRun()
        self.writer = store.writer(on_failure=self.told.put, **settings)
        self._announced: queue.Queue[str] = queue.Queue()
        self.writer.subscribe(lambda name, _: self._announced.put(name))
        self._descriptor = self.run.descriptor(camera={})
        if backend is not None:
            self.writer._desk.backend = backend

    def begin(self) -> None:
        self.send("start", self.run.start)
        self.send("descriptor", self._descriptor)

    def take(self, events: int = EVENTS) -> None:
        for _ in range(events):
            number = self.run.num_events["primary"]
            self.send("event", self.run.event(self._descriptor, camera=frame(number)))

    def announced(self, name: str = "event") -> None:
        """Wait until a document of this name is announced."""
        while self._announced.get(timeout=30) != name:
            pass

    def end(self) -> None:
        self.send("stop", self.run.stop())

    def send(self, name: str, doc: Any) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.writer(name, doc)
            except Exception as error:
                self.raised.append(error)
        self.warned += [str(one.message) for one in caught]


def frame(number: int) -> NDArray[Any]:
    return encoded_frame(SHAPE, "u2", event=number)


def acquired(store: Store, backend: FailingBackend | None = None, **settings: Any) -> Acquired:
    whole = Acquired(store, backend, **settings)
    whole.begin()
    whole.take()
    whole.end()
    return whole


# -- written anew, and elsewhere -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "overflowed", "written_anew"),
    [(1, 0, 1), (2, 1, 0)],
    ids=["failed once", "failed again"],
)
def test_with_a_second_place_too_an_event_is_written_anew_before_the_run_goes_on_there(
    store: Store, times: int, overflowed: int, written_anew: int
) -> None:
    whole = acquired(store, AilingBackend((1, times)))
    assert whole.raised == []
    stats = whole.writer.stats()
    assert (stats["overflowed"], stats["written_anew"]) == (overflowed, written_anew)
    run = store[whole.run.uid]
    assert run.status == "complete"
    np.testing.assert_array_equal(run["camera"], [frame(number) for number in range(EVENTS)])


def test_frames_that_are_written_again_in_the_second_place_are_written_anew_there_too(store: Store) -> None:
    """The first of them meets an error of the other disk."""
    whole = acquired(store, AilingBackend((1, 2), (0, 1)))
    assert whole.raised == []
    assert whole.writer.stats()["overflowed"] == 1
    np.testing.assert_array_equal(store[whole.run.uid]["camera"], [frame(number) for number in range(EVENTS)])


# -- what is told ----------------------------------------------------------------------------------------------


def test_going_on_is_told_as_what_it_is_and_the_failure_once_as_the_object_that_is_raised(
    store: Store,
) -> None:
    whole = acquired(store, FailingBackend(FULL, 1))
    goes_on, failure = whole.told.get(timeout=30), whole.told.get(timeout=30)
    assert isinstance(goes_on, RunGoesOn)
    assert goes_on.errno == errno.ENOSPC
    assert f"goes on in {store.overflow}" in str(goes_on)
    assert not isinstance(failure, RunGoesOn)
    assert whole.raised
    assert all(error is failure for error in whole.raised)
    assert goes_on.__cause__ is failure
    assert "that failed too" in failure.__notes__[0]
    assert whole.told.empty()


def test_index_that_fails_in_the_second_place_is_the_failure_and_not_its_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError(errno.EIO, "the index has an error of its own")

    whole = Acquired(store, AilingBackend((1, 2)))
    whole.begin()
    whole.take(2)
    assert isinstance(whole.told.get(timeout=30), RunGoesOn)
    monkeypatch.setattr(store._index, "add", refuse)
    whole.take(1)
    whole.end()
    failure = whole.told.get(timeout=30)
    assert "the index could not be written" in str(failure)
    assert whole.raised[-1] is failure


def test_on_failure_is_called_where_no_thread_can_be_started(no_threads: None) -> None:
    told: list[Exception] = []
    failure = StorageError(errno.EIO, "the disk is gone")
    assert FirstFailure(told.append, lambda: None).set(failure)
    assert told == [failure]


@pytest.mark.parametrize("format", ["result", "memory"])
def test_remark_of_an_index_that_moved_names_where_it_is(
    store: Store, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gently_bluesky.index import index

    refused, store_batch = [StorageError(errno.EIO, "Input/output error")], index.keeping.store_batch

    def refuse_once(*arguments: Any) -> None:
        if refused:
            raise refused.pop()
        store_batch(*arguments)

    monkeypatch.setattr(index.keeping, "store_batch", refuse_once)
    said = re.escape(f"goes on in a copy in {store.overflow} that")
    if format == "result":
        with pytest.warns(RuntimeWarning, match=said):
            store.put(1.0, data_type="number")
        return
    writer, run = store.writer(format=format), HandMadeRun()
    with pytest.warns(RuntimeWarning, match=said):
        writer("start", run.start)
    writer("stop", run.stop())


def test_frames_that_come_while_a_run_returns_to_its_root_are_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted on the thread that brings them, in a file that the storing thread is about to close."""
    whole = Acquired(store, FailingBackend(FULL, 0))
    close, counted = LiveFile.close, list[Exception | None]()

    def close_and_count(live: LiveFile, *, remove: bool) -> None:
        close(live, remove=remove)
        if live.path.is_relative_to(store.overflow or ""):
            (run,) = whole.writer._runs.values()
            try:
                run._storage.receive(1)
            except ValueError as error:
                counted.append(error)
            else:
                counted.append(None)

    monkeypatch.setattr(LiveFile, "close", close_and_count)
    whole.begin()
    whole.take(1)
    whole.end()
    assert counted == [None]
    record = store[whole.run.uid].record
    assert (record.status, record.received) == ("failed", 2)


# -- whose disk it is ------------------------------------------------------------------------------------------


def test_empty_folder_in_the_place_of_the_overflow_is_no_second_place(store: Store, tmp_path: Path) -> None:
    assert store.overflow is not None
    store.overflow.rename(tmp_path / "unmounted")
    store.overflow.mkdir()
    whole = acquired(store, FailingBackend(FULL, 1))
    assert "took it neither" in whole.raised[0].__notes__[0]
    assert list(store.overflow.iterdir()) == []
    assert store[whole.run.uid].status == "failed"


@pytest.mark.parametrize("said", ["{}", "[]", "no JSON", '{"store_uid": "another"}'])
def test_root_that_names_another_store_takes_no_run(root: Path, said: str) -> None:
    with Store(root) as store:
        marker = root / "gently-store.json"
        kept = marker.read_text()
        marker.write_text(said)
        run = HandMadeRun()
        writer = store.writer()
        for name, doc in (("start", run.start), ("stop", run.stop())):
            with pytest.raises(
                StorageError, match=r"to name the store .* nothing was written there"
            ) as caught:
                writer(name, doc)
            assert caught.value.errno == errno.ENOENT
        with pytest.raises(StorageError, match="to name the store"):
            store.recorder().record("camera")
        with pytest.raises(StorageError, match="to name the store"):
            store.put(1.0, data_type="number")
        assert not (root / "runs").exists()
        marker.write_text(kept)
        whole = acquired(store)
        assert (whole.raised, store[whole.run.uid].status) == ([], "complete")


def test_results_are_kept_in_a_new_journal_where_theirs_was_removed(root: Path) -> None:
    with Store(root) as store:
        store.put(1.0, data_type="first")
        (journal,) = root.rglob("derived-*.jsonl")
        journal.unlink()
        kept = store.put(2.0, data_type="second")
    (root / "index.sqlite").unlink()
    with Store(root) as store:
        assert [record.uid for record in store.query()] == [kept.uid]
        assert store.get(kept.uid) == 2.0


# -- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["zarr", "tiff"])
def test_each_file_of_a_run_is_synced_once_at_its_end(
    store: Store, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Acquired(store, format=format, sync="run")
    whole.begin()
    whole.take()
    whole.announced()
    fsync, synced = os.fsync, Counter[int]()

    def count(fd: int) -> None:
        synced[os.fstat(fd).st_ino] += 1
        fsync(fd)

    monkeypatch.setattr(os, "fsync", count)
    whole.end()
    assert whole.raised == []
    (asset,) = store.root.rglob("primary-*")
    files = [path for path in asset.rglob("*") if path.is_file()]
    assert files
    assert [synced[path.stat().st_ino] for path in files] == [1] * len(files)


def test_every_writer_of_a_store_is_closed_whatever_the_first_of_them_raises(root: Path) -> None:
    store = Store(root)
    broken = Acquired(store, FailingBackend(ValueError("a library's own error")))
    other = Acquired(store)
    for each in (broken, other):
        each.begin()
        each.take(1)
    with pytest.raises(ValueError, match="a library's own error"):
        store.close()
    assert (broken.writer.closed, other.writer.closed) == (True, True)
    with Store(root, mode="r") as reader:
        assert [reader[each.run.uid].status for each in (broken, other)] == ["failed", "incomplete"]
        np.testing.assert_array_equal(reader[other.run.uid]["camera"], [frame(0)])


def test_who_waits_looks_twice_before_storage_is_said_to_hang() -> None:
    pipeline = Pipeline(max_pending_bytes=1, stall_timeout_s=0.2)
    looks = iter([False, False, True])
    pipeline.wait_until(lambda: next(looks), "a disk that answers just when patience is gone")
    with pytest.raises(StorageStalled, match="waited for a disk that does not"):
        pipeline.wait_until(lambda: False, "a disk that does not")
