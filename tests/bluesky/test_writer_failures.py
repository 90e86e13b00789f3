"""The first failure of a run is final and told to everybody, always the same object."""

from __future__ import annotations

import errno
import json
import threading
from contextlib import suppress
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from gently_bluesky import Store
from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import (
    FrameMismatch,
    InvalidDocument,
    RunClosed,
    StorageError,
    StorageFull,
    UnknownReference,
)
from gently_bluesky.plans import PauseOnFailure
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame


def writer_onto(store: Store, backend: Backend, **settings: Any) -> StoreWriter:
    """Return a writer whose pixels go to this backend."""
    writer = store.writer(**settings)
    writer._desk.backend = backend
    return writer


def opened(writer: StoreWriter, **data_keys: dict[str, Any]) -> tuple[HandMadeRun, dict[str, Any]]:
    """Open a run with one stream."""
    run = HandMadeRun()
    descriptor = run.descriptor(**(data_keys or {"camera": {}}))
    writer("start", run.start)
    writer("descriptor", descriptor)
    return run, descriptor


def frame(n: int = 0) -> np.ndarray:
    """Return a small frame."""
    return encoded_frame((8, 8), "u2", event=n)


def journal_of(store: Store, uid: str) -> list[dict[str, Any]]:
    """Read a run's journal with nothing but json."""
    return [json.loads(line) for line in (store.root / store.record(uid).path).read_text().splitlines()]


@pytest.mark.parametrize("by", ["write", "result", "publish"])
def test_what_storage_fails_at_is_raised_by_the_next_document_and_at_stop_the_same_object(
    store: Store, by: str
) -> None:
    told: list[Exception] = []
    is_told = threading.Event()

    def tell(error: Exception) -> None:
        told.append(error)
        is_told.set()

    writer = writer_onto(
        store, FailingBackend(OSError(errno.ENOSPC, "No space left"), at=2, by=by), on_failure=tell
    )
    run, descriptor = opened(writer)
    for n in range(3):
        writer("event", run.event(descriptor, camera=frame(n)))
    assert is_told.wait(30)  # at once, though no document comes
    caught: list[BaseException] = []
    for name, doc in [
        ("event", run.event(descriptor, camera=frame(3))),
        ("event", {"descriptor": descriptor["uid"]}),
        ("descriptor", run.descriptor("other", camera={})),
        ("event_page", {"descriptor": descriptor["uid"]}),
        ("stop", run.stop()),
    ]:
        with pytest.raises(StorageFull, match="No space left") as raised:
            writer(name, doc)
        caught.append(raised.value)
    assert len({id(error) for error in [*caught, *told]}) == 1
    assert caught[0].errno == errno.ENOSPC
    last = journal_of(store, run.uid)[-1]
    assert last["name"] == "stop"
    # events that were to be published together with the one that could not be are not announced either
    stored = last["doc"]["num_events"].get("primary", 0)
    assert stored == 2 or (by == "publish" and stored < 2)
    assert last["doc"]["exit_status"] == "fail"
    assert last["doc"]["reason"] == f"StorageFull: {caught[0]}"
    assert last["outcome"] == {"status": "failed", "received": 3, "stored": stored, "lost": 3 - stored}
    for n in range(stored):
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), event=n)
    assert len(told) == 1


def test_a_writer_goes_on_with_the_next_run_after_one_has_failed(store: Store) -> None:
    backend = FailingBackend(OSError(errno.EIO, "Input/output error"))
    writer = writer_onto(store, backend)
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    with pytest.raises(StorageError, match="Input/output error"):
        writer("stop", run.stop())
    backend.at = 1000
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame(5)))
    writer("stop", run.stop())
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][0]), event=5)


def test_one_runs_failure_leaves_the_runs_beside_it_alone(store: Store) -> None:
    writer = store.writer()
    (bad, bad_descriptor), (good, good_descriptor) = opened(writer), opened(writer)
    writer("event", bad.event(bad_descriptor, camera=frame()))
    with pytest.raises(FrameMismatch):
        writer("event", bad.event(bad_descriptor, camera=np.zeros((2, 2))))
    for n in range(3):
        writer("event", good.event(good_descriptor, camera=frame(n)))
    with pytest.raises(FrameMismatch):
        writer("stop", bad.stop())
    writer("stop", good.stop())
    assert (store[bad.uid].status, store[good.uid].status) == ("failed", "complete")


def test_the_run_engine_fails_the_run_and_the_plan_ends(store: Store, RE: RunEngine) -> None:
    RE.subscribe(writer_onto(store, FailingBackend(OSError(errno.EIO, "Input/output error"), at=1)))
    with pytest.raises(StorageError, match="Input/output error") as caught:
        RE(bp.count([EncodedCamera()], num=200))
    assert caught.value.errno == errno.EIO
    assert store[-1].status == "failed"
    assert store[-1].record.stored == 1


def test_on_failure_may_pause_the_run_engine_while_it_sleeps(store: Store, RE: RunEngine) -> None:
    failing = FailingBackend(OSError(errno.EIO, "Input/output error"))
    RE.subscribe(writer_onto(store, failing, on_failure=PauseOnFailure(RE)))

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([EncodedCamera()])
        yield from bps.checkpoint()
        yield from bps.sleep(3600)

    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    with pytest.raises(StorageError, match="Input/output error"):
        RE.abort()
    assert store[-1].status == "failed"


def test_on_failure_may_pause_the_run_engine_whose_own_thread_brought_the_bad_document(
    store: Store, RE: RunEngine
) -> None:
    asked = threading.Event()

    def pause(error: Exception) -> None:
        asked.set()
        RE.request_pause()

    camera = EncodedCamera()
    RE.subscribe(store.writer(on_failure=pause))

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([camera])
        camera.shape = (3, 3)
        yield from bps.trigger_and_read([camera])

    with pytest.raises((FrameMismatch, RunEngineInterrupted)):
        RE(plan())
    assert asked.wait(30)
    if RE.state == "paused":
        with suppress(FrameMismatch):  # or bluesky logs it: the plan had ended with it when the pause came
            RE.abort()
    assert store[-1].status == "failed"


def test_what_on_failure_raises_goes_with_the_failure(store: Store) -> None:
    called = threading.Event()

    def clumsy(error: Exception) -> None:
        called.set()
        raise RuntimeError("no such telephone")

    writer = writer_onto(store, FailingBackend(OSError(errno.EIO, "Input/output error")), on_failure=clumsy)
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    assert called.wait(30)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        writer("stop", run.stop())
    for thread in threading.enumerate():
        if thread.name == "gently-bluesky-on-failure":
            thread.join(30)
    assert caught.value.__notes__ == ["on_failure raised RuntimeError('no such telephone')"]


def test_a_refused_descriptor_is_what_its_events_raise(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun()
    writer("start", run.start)
    descriptor = run.descriptor(camera={})
    with pytest.raises(InvalidDocument, match="expected a valid descriptor document") as first:
        writer("descriptor", {**descriptor, "name": 5})
    for name, doc in (("event", run.event(descriptor, camera=frame())), ("stop", run.stop())):
        with pytest.raises(InvalidDocument) as again:
            writer(name, doc)
        assert again.value is first.value
    assert store[run.uid].status == "failed"


def test_a_failure_at_a_fault_in_the_index_is_final_and_the_index_is_put_right(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.writer()
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    index = store._index
    add, failures = index.add, [StorageError(errno.EIO, "the index is on a bad disk")]

    def add_or_fail(journal: str, lines: Any, end: int, **begin: Any) -> None:
        if failures and any(line.name == "event" and line.doc["seq_num"] == 2 for line in lines):
            raise failures.pop()
        add(journal, lines, end, **begin)

    monkeypatch.setattr(index, "add", add_or_fail)
    writer("event", run.event(descriptor, camera=frame(1)))
    with pytest.raises(StorageError, match="the index is on a bad disk"):
        writer("stop", run.stop())
    # what is in the journal is announced, and the index holds all of it
    assert store[run.uid].status == "failed"
    assert len(store[run.uid]["primary"]["camera"]) == 2
    assert store[run.uid].record.stored == 2


def test_a_failure_of_the_index_at_the_stop_says_that_all_is_stored_and_subscribers_see_the_stop(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, seen = store.writer(), []
    writer.subscribe(lambda name, doc: seen.append(name))
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    add = store._index.add

    def fail_at_stop(journal: str, lines: Any, end: int, **begin: Any) -> None:
        if any(line.name == "stop" for line in lines):
            raise StorageFull(errno.ENOSPC, "No space left on device")
        add(journal, lines, end, **begin)

    monkeypatch.setattr(store._index, "add", fail_at_stop)
    with pytest.raises(StorageFull, match="what the journal holds is stored and announced"):
        writer("stop", run.stop())
    assert seen[-1] == "stop"
    store.close()
    with Store(store.root) as again:
        assert again[run.uid].status == "complete"
        assert again[run.uid].record.stored == 1


def test_a_document_of_no_run_fails_the_only_run_there_is_so_that_a_device_thread_cannot_lose_it(
    store: Store,
) -> None:
    writer = store.writer()
    run, descriptor = opened(writer)
    with pytest.raises(
        UnknownReference, match="names 'nobody' as its descriptor, which has not come"
    ) as first:
        writer("event", {**run.event(descriptor, camera=frame()), "descriptor": "nobody"})
    with pytest.raises(UnknownReference) as last:
        writer("stop", run.stop())
    assert last.value is first.value


def test_our_own_stop_counts_events_as_the_run_engine_does(store: Store) -> None:
    writer = store.writer()
    run, descriptor = opened(writer)
    theirs = run.descriptor("theirs", det={"external": "STREAM:"})
    said = {
        "mimetype": "application/x-hdf5",
        "uri": "file://localhost/x",
        "parameters": {},
        "run_start": run.uid,
    }
    writer("descriptor", theirs)
    writer("stream_resource", {"uid": "s", "data_key": "det", **said})
    ranges = {"indices": {"start": 0, "stop": 7}, "seq_nums": {"start": 1, "stop": 8}}
    writer("stream_datum", {"uid": "s/0", "stream_resource": "s", "descriptor": theirs["uid"], **ranges})
    for n, seq_num in enumerate([1, 2, 3, 2, 3]):  # as after a rewind
        writer("event", run.event(descriptor, seq_num, camera=frame(n)))
    with pytest.raises(FrameMismatch):
        writer("event", run.event(descriptor, camera=np.zeros((2, 2))))
    with pytest.raises(FrameMismatch):
        writer("stop", run.stop())

    assert store[run.uid].stop["num_events"] == {"primary": 3, "theirs": 7}
    assert len(store[run.uid]["primary"]["camera"]) == 3
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][1]), event=3)


def test_a_late_document_of_an_ended_run_does_not_hurt_the_next_one(store: Store) -> None:
    writer = store.writer()
    old, old_descriptor = opened(writer)
    writer("stop", old.stop())
    new, new_descriptor = opened(writer)
    late = old.event(old_descriptor, camera=frame())
    with pytest.raises(RunClosed, match=f"came for run {old.uid}, which has ended; it was not st"):
        writer("event", late)
    writer("event", new.event(new_descriptor, camera=frame(1)))
    writer("stop", new.stop())
    assert (store[old.uid].status, store[new.uid].status) == ("complete", "complete")
