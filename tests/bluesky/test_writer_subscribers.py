"""Who subscribes to a writer can hurt neither storage, nor the other subscribers, nor itself."""

from __future__ import annotations

import errno
import threading
from typing import Any

import numpy as np
import pytest

from gently_bluesky import Store
from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import (
    InputError,
    StorageError,
    StorageStalled,
    SubscriberError,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend
from gently_bluesky.testing.frames import encoded_frame


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


class Clumsy(BaseException):
    """What no handler of Exception catches."""


@pytest.mark.parametrize("raised", [ValueError("plot"), Clumsy("plot")])
def test_what_a_subscriber_raises_is_raised_at_stop_and_hurts_nobody_else(
    store: Store, raised: BaseException
) -> None:
    writer = store.writer()
    seen: list[str] = []

    def clumsy(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            raise raised

    writer.subscribe(clumsy)
    writer.subscribe(lambda name, doc: seen.append(name))
    run, descriptor = opened(writer)
    for n in range(3):
        writer("event", run.event(descriptor, camera=frame(n)))
    with pytest.raises(
        SubscriberError, match=r"every frame was stored and announced, but 1 .* raised, first .*plot"
    ) as caught:
        writer("stop", run.stop())
    assert len(caught.value.errors) == 1
    assert seen.count("event") == 3
    assert seen[-1] == "stop"
    assert (store[run.uid].status, store[run.uid].record.stored) == ("complete", 3)


def test_a_subscriber_that_raised_is_told_of_the_next_run_again(store: Store) -> None:
    writer = store.writer()
    starts: list[str] = []

    def clumsy(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            starts.append(doc["uid"])
            raise ValueError("plot")

    writer.subscribe(clumsy)
    for _ in range(2):
        run, _ = opened(writer)
        with pytest.raises(SubscriberError):
            writer("stop", run.stop())
    assert len(starts) == 2


def test_when_storage_and_a_subscriber_fail_storage_is_raised_and_says_so(store: Store) -> None:
    writer = writer_onto(store, FailingBackend(OSError(errno.EIO, "Input/output error")))

    def clumsy(name: str, doc: dict[str, Any]) -> None:
        raise ValueError("plot")

    writer.subscribe(clumsy)
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    with pytest.raises(StorageError, match="Input/output error") as caught:
        writer("stop", run.stop())
    assert "subscribers raised too, first ValueError('plot')" in caught.value.__notes__[0]


def test_a_subscriber_may_unsubscribe_itself_while_the_producer_waits_for_the_stop(store: Store) -> None:
    writer = store.writer(stall_timeout_s=5)
    seen: list[str] = []

    def once(name: str, doc: dict[str, Any]) -> None:
        seen.append(name)
        if name == "stop":
            writer.unsubscribe(token)
            writer.subscribe(lambda name, doc: None)

    token = writer.subscribe(once)
    for _ in range(2):
        run, _ = opened(writer)
        writer("stop", run.stop())
    assert seen == ["start", "descriptor", "stop"]


def test_a_subscriber_that_sends_documents_into_its_own_writer_is_told_and_the_run_goes_on(
    store: Store,
) -> None:
    writer = store.writer(stall_timeout_s=5)
    writer.subscribe(lambda name, doc: writer(name, doc))
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    with pytest.raises(SubscriberError) as caught:
        writer("stop", run.stop())
    assert isinstance(caught.value.errors[0], InputError)
    assert "let it use a writer of its own" in str(caught.value.errors[0])
    assert store[run.uid].status == "complete"


def test_a_subscriber_that_closes_its_own_writer_is_told_and_the_run_goes_on(store: Store) -> None:
    writer = store.writer(stall_timeout_s=5)
    writer.subscribe(lambda name, doc: writer.close())
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    with pytest.raises(SubscriberError, match="close it on another thread"):
        writer("stop", run.stop())
    assert store[run.uid].status == "complete"


def test_subscriber_that_is_slower_than_a_disk_may_be_is_waited_for(store: Store) -> None:
    writer, told = store.writer(stall_timeout_s=1), []

    def slow(name: str, doc: dict[str, Any]) -> None:
        if name == "event" and "event" not in told:
            threading.Event().wait(1.5)  # longer than a disk may take, as a server may that is busy
        told.append(name)

    writer.subscribe(slow)
    run, descriptor = opened(writer)
    for _ in range(3):
        writer("event", run.event(descriptor, camera=frame()))
    writer("stop", run.stop())
    assert told[-1] == "stop"
    assert store[run.uid].status == "complete"


def test_subscriber_that_never_returns_is_named(store: Store) -> None:
    writer, called, released = store.writer(), threading.Event(), threading.Event()

    def never_return(name: str, doc: dict[str, Any]) -> None:
        if name == "descriptor":
            called.set()
            released.wait()

    writer.subscribe(never_return)
    run, descriptor = opened(writer)
    writer("event", run.event(descriptor, camera=frame()))
    assert called.wait(30)
    writer._desk.pipeline._stall_timeout_s = 0.3  # only from here on: what was stored had all the time
    with pytest.raises(StorageStalled, match="look at a subscriber of the writer"):
        writer("stop", run.stop())
    released.set()
