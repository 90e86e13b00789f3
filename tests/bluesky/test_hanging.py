"""A disk that hangs is told at once, though nobody waits for it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.errors import StorageStalled
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import GatedBackend
from gently_bluesky.testing.frames import encoded_frame

FAR_TOO_LONG_S = 30
PATIENCE_S = 1.0
"""What is stored before anything hangs takes a hundredth of it, and more where much else is going on."""


@pytest.fixture
def gated() -> Iterator[GatedBackend]:
    """A backend that waits until its gate is set, at the latest when the test has ended."""
    backend = GatedBackend()
    yield backend
    backend.gate.set()


def test_disk_that_hangs_while_a_plan_sleeps_is_told_at_once_and_raised_by_the_next_document(
    store: Store, RE: RunEngine, gated: GatedBackend
) -> None:
    told: queue.Queue[Exception] = queue.Queue()
    writer = store.writer(stall_timeout_s=PATIENCE_S, on_failure=told.put)
    writer._desk.backend = gated
    RE.subscribe(writer)
    first: list[Exception] = []

    async def sleep_until_told() -> None:
        first.append(await RE.loop.run_in_executor(None, told.get, True, FAR_TOO_LONG_S))

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([EncodedCamera()])
        yield from bps.wait_for([sleep_until_told])
        yield from bps.trigger_and_read([EncodedCamera()])
        pytest.fail("the second event was taken")

    with pytest.raises(StorageStalled, match="storage made no progress") as caught:
        RE(plan())
    assert caught.value is first[0]
    gated.gate.set()
    while store[-1].status == "running":  # until the storing thread has put it on record
        threading.Event().wait(0.01)
    record = store[-1].record
    assert (record.status, record.received, record.stored, record.lost) == ("failed", 1, 1, 0)
    assert "no progress" in store[-1].stop["reason"]


def test_journal_that_hangs_is_told_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: queue.Queue[Exception] = queue.Queue()
    hanging, fsync = threading.Event(), os.fsync
    writer, run = store.writer(stall_timeout_s=PATIENCE_S, on_failure=told.put), HandMadeRun()
    descriptor = run.descriptor(n={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    monkeypatch.setattr(os, "fsync", lambda fd: (hanging.wait(60), fsync(fd))[1])
    writer("event", run.event(descriptor, n=1))
    first = told.get(timeout=FAR_TOO_LONG_S)
    hanging.set()
    with pytest.raises(StorageStalled) as caught:
        writer("stop", run.stop())
    assert caught.value is first
    assert store[run.uid].status == "failed"
    assert store[run.uid]["n"].compute().tolist() == [1]  # what hung was stored when the disk went on


def test_every_run_that_waits_behind_a_hanging_disk_is_told(store: Store, gated: GatedBackend) -> None:
    told: queue.Queue[Exception] = queue.Queue()
    writer = store.writer(stall_timeout_s=PATIENCE_S, on_failure=told.put)
    writer._desk.backend = gated
    runs = [HandMadeRun(), HandMadeRun()]
    descriptors = [run.descriptor(camera={}) for run in runs]
    for run, descriptor in zip(runs, descriptors, strict=True):
        writer("start", run.start)
        writer("descriptor", descriptor)
    for number, (run, descriptor) in enumerate(zip(runs, descriptors, strict=True)):
        writer("event", run.event(descriptor, camera=encoded_frame((8, 8), "u2", event=number)))
    errors = [told.get(timeout=FAR_TOO_LONG_S) for _ in runs]
    assert errors[0] is not errors[1]
    gated.gate.set()
    for run in runs:
        with pytest.raises(StorageStalled):
            writer("stop", run.stop())
    assert [store[run.uid].status for run in runs] == ["failed", "failed"]
