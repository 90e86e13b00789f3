"""The buffer makes producers wait and loses nothing; a disk that hangs is a failure; plans can wait."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.backends.base import Backend
from gently_bluesky.documents import pipeline
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import FrameMismatch, InvalidSetting, StorageStalled
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend, GatedBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame


def writer_onto(store: Store, backend: Backend, **settings: Any) -> StoreWriter:
    """Return a writer whose pixels go to this backend."""
    writer = store.writer(**settings)
    writer._desk.backend = backend
    return writer


def lose_patience(writer: StoreWriter) -> None:
    """Take a wait that begins now for one for a disk that hangs after 0.3 s; what was before had all the time."""
    writer._desk.pipeline._stall_timeout_s = 0.3


@pytest.fixture
def gated() -> Iterator[GatedBackend]:
    """A backend that waits until its gate is set, at the latest when the test has ended."""
    backend = GatedBackend()
    yield backend
    backend.gate.set()


def filling(
    writer: StoreWriter, run: HandMadeRun, frames: int, taken: threading.Semaphore
) -> threading.Thread:
    """Start a thread that sends a run with these frames, and releases ``taken`` behind each."""

    def produce() -> None:
        descriptor = run.descriptor(camera={})
        writer("start", run.start)
        writer("descriptor", descriptor)
        for n in range(frames):
            writer("event", run.event(descriptor, camera=encoded_frame((64, 64), "u2", event=n)))
            taken.release()
        writer("stop", run.stop())

    thread = threading.Thread(target=produce, name="producer")
    thread.start()
    return thread


def test_a_full_buffer_makes_the_producer_wait_and_loses_no_frame(store: Store, gated: GatedBackend) -> None:
    writer = writer_onto(store, gated, max_pending_bytes=3 * 64 * 64 * 2)
    taken = threading.Semaphore(0)
    run = HandMadeRun()
    producer = filling(writer, run, 20, taken)
    for _ in range(3):
        assert taken.acquire(timeout=30)
    assert not taken.acquire(timeout=0.3)  # the fourth has no room
    gated.gate.set()
    producer.join(60)
    assert not producer.is_alive()
    assert (store[run.uid].status, store[run.uid].record.stored) == ("complete", 20)
    for n in range(20):
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), event=n)


def test_an_event_larger_than_the_buffer_is_a_wrong_setting(store: Store) -> None:
    writer, run = store.writer(max_pending_bytes=1000), HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    with pytest.raises(
        InvalidSetting, match="holds 8192 bytes, more than max_pending_bytes=1000; it was not st"
    ) as first:
        writer("event", run.event(descriptor, camera=encoded_frame((64, 64), "u2")))
    with pytest.raises(InvalidSetting) as last:
        writer("stop", run.stop())
    assert last.value is first.value
    assert (store[run.uid].status, store[run.uid].record.lost) == ("failed", 1)


def send(writer: StoreWriter, documents: list[tuple[str, dict[str, Any]]]) -> None:
    """Send documents."""
    for name, doc in documents:
        writer(name, doc)


def test_an_event_larger_than_the_default_buffer_is_taken_when_nothing_else_is_pending(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "DEFAULT_PENDING_BYTES", 100)
    writer, run = store.writer(), HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for number in range(3):
        writer("event", run.event(descriptor, camera=encoded_frame((8, 8), "u2", event=number)))
    writer("stop", run.stop())
    assert store[run.uid].record.stored == 3


def test_a_disk_that_hangs_is_a_failure_for_who_waits_for_room(store: Store, gated: GatedBackend) -> None:
    writer = writer_onto(store, gated, max_pending_bytes=2 * 64 * 64 * 2)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    lose_patience(writer)
    writer("descriptor", descriptor)
    with pytest.raises(
        StorageStalled, match=r"waited for .*, but storage made no progress for 0.3 s; "
    ) as first:
        send(
            writer, [("event", run.event(descriptor, camera=encoded_frame((64, 64), "u2"))) for _ in range(3)]
        )
    with pytest.raises(StorageStalled) as last:
        writer("stop", run.stop("fail"))
    assert last.value is first.value
    gated.gate.set()
    wait_for(lambda: store[run.uid].status == "failed")
    assert (store[run.uid].record.received, store[run.uid].record.stored, store[run.uid].record.lost) == (
        3,
        2,
        1,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread does by and by."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


def test_a_disk_that_hangs_in_the_journal_does_not_hold_the_run_engine_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    fsync = os.fsync
    writer, run = store.writer(), HandMadeRun()
    descriptor = run.descriptor(n={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    lose_patience(writer)
    monkeypatch.setattr(os, "fsync", lambda fd: (hanging.wait(60), fsync(fd))[1])
    writer("event", run.event(descriptor, n=1))
    with pytest.raises(StorageStalled, match="storage made no progress") as caught:
        writer("stop", run.stop())
    hanging.set()
    wait_for(lambda: store[run.uid].status == "failed")
    assert str(caught.value) in store[run.uid].stop["reason"]
    assert store[run.uid]["n"].compute().tolist() == [1]


def test_a_start_that_hangs_stops_the_plan_and_is_ended_on_record_when_the_disk_comes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    fsync = os.fsync
    writer, run = store.writer(stall_timeout_s=0.3), HandMadeRun()
    monkeypatch.setattr(os, "fsync", lambda fd: (hanging.wait(60), fsync(fd))[1])
    with pytest.raises(StorageStalled, match="storage made no progress") as first:
        writer("start", run.start)
    with pytest.raises(StorageStalled) as last:
        writer("stop", run.stop("fail"))
    assert last.value is first.value
    hanging.set()
    wait_for(lambda: next(store.query(), None) is not None and store[-1].status == "failed")
    wait_for(lambda: not list(store.root.glob("runs/*/*/*/*/.live")))


def test_a_plan_waits_for_storage_and_the_loop_goes_on(
    store: Store, RE: RunEngine, gated: GatedBackend
) -> None:
    writer = writer_onto(store, gated)
    RE.subscribe(writer)
    announced: list[str] = []
    writer.subscribe(lambda name, doc: announced.append(name))
    beats: list[str] = []

    async def heart() -> None:
        while len(beats) < 5:
            beats.append("beat")
            await asyncio.sleep(0)
        gated.gate.set()  # only a loop that runs gets here

    @bpp.run_decorator()
    def plan() -> Any:
        camera = EncodedCamera()
        for _ in range(3):
            yield from bps.trigger_and_read([camera])
        asyncio.run_coroutine_threadsafe(heart(), RE.loop)
        yield from writer.stored()
        beats.append("stored")
        assert announced.count("event") == 3
        yield from bps.trigger_and_read([camera])

    (uid,) = RE(plan())
    assert beats == ["beat"] * 5 + ["stored"]
    assert len(store[uid]["primary"]["camera"]) == 4


def test_waiting_for_storage_raises_what_has_failed(store: Store, RE: RunEngine) -> None:
    error = OSError(5, "Input/output error")
    writer = writer_onto(store, FailingBackend(error))
    RE.subscribe(writer)

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([EncodedCamera()])
        yield from writer.stored()

    with pytest.raises(OSError, match="Input/output error") as caught:
        RE(plan())
    assert caught.value.errno == 5
    assert store[-1].status == "failed"


def test_waiting_for_storage_that_hangs_ends(store: Store, RE: RunEngine, gated: GatedBackend) -> None:
    writer = writer_onto(store, gated)
    RE.subscribe(writer)

    @bpp.run_decorator()
    def plan() -> Any:
        lose_patience(writer)
        yield from bps.trigger_and_read([EncodedCamera()])
        yield from writer.stored()

    with pytest.raises(StorageStalled, match="waited for what was accepted to be stored"):
        RE(plan())
    gated.gate.set()
    wait_for(lambda: store[-1].status == "failed")


def test_waiting_for_storage_without_a_run_waits_for_nothing(store: Store, RE: RunEngine) -> None:
    writer = store.writer()
    RE(writer.stored())


def test_a_failure_frees_a_producer_that_waits_for_room(store: Store, gated: GatedBackend) -> None:
    writer = writer_onto(store, gated, max_pending_bytes=64 * 64 * 2)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=encoded_frame((64, 64), "u2")))
    caught: list[BaseException] = []

    def produce() -> None:
        try:
            writer("event", run.event(descriptor, camera=encoded_frame((64, 64), "u2")))
        except Exception as error:
            caught.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    assert gated.waiting.wait(30)
    failure = FrameMismatch("from elsewhere")
    writer._runs[run.uid].fail(failure)
    producer.join(30)
    assert caught == [failure]
    gated.gate.set()
    with pytest.raises(FrameMismatch):
        writer("stop", run.stop("fail"))
    assert store[run.uid].record.stored == 1
