"""Documents that come twice, or after the end:

ignored if they say the same, refused if not; nothing is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from opened_run import Spoil, frame, opened, require_untouched, resource

from gently_bluesky import Store
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import (
    ConflictingDocument,
    RunClosed,
    RunExists,
    WriterClosed,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame


def having(**values: Any) -> Spoil:
    """Return what puts values into a document."""
    return lambda doc: {**doc, **values}


def send(writer: StoreWriter, *documents: tuple[str, dict[str, Any]]) -> None:
    """Send documents."""
    for name, doc in documents:
        writer(name, doc)


def test_documents_that_come_again_unchanged_are_ignored(store: Store) -> None:
    writer, run, descriptor = opened(store)
    seen: list[str] = []
    writer.subscribe(lambda name, doc: seen.append(name))
    event = run.event(descriptor, camera=frame(1), n=float("nan"))
    datum = {"datum_id": "theirs/0", "resource": "theirs", "datum_kwargs": {"n": 0}}
    stop = run.stop()
    for name, doc in [
        *[("start", run.start)] * 2,
        *[("descriptor", descriptor)] * 2,
        *[("resource", resource(run))] * 2,
        *[("datum", datum)] * 2,
        *[("event", event)] * 3,
        *[("stop", stop)] * 2,
    ]:
        writer(name, {**doc})
    # what came before may still be on its way when the subscriber comes
    assert seen[-5:] == ["resource", "datum", "datum", "event", "stop"]
    assert (store[run.uid].status, store[run.uid].record.received) == ("complete", 2)
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][1]), event=1)


def changed(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with one pixel changed."""
    camera = event["data"]["camera"].copy()
    camera[7, 7] ^= 1
    return {**event, "data": {**event["data"], "camera": camera}}


def value_of(**values: Any) -> Spoil:
    """Return what changes an event's data."""
    return lambda doc: {**doc, "data": {**doc["data"], **values}}


CONFLICTS: dict[str, tuple[str, Spoil]] = {
    "a pixel of an event": ("event", changed),
    "a value of an event": ("event", value_of(n=3)),
    "a value of an event to NaN": ("event", value_of(n=float("nan"))),
    "the time of an event": ("event", having(time=1.0)),
    "the shape of an event's array": ("event", value_of(camera=np.zeros((3, 3), "u2"))),
    "the dtype of an event's array": (
        "event",
        lambda doc: value_of(camera=doc["data"]["camera"].astype("u4"))(doc),
    ),
    "an event's array to none": ("event", value_of(camera=None)),
    "a descriptor": ("descriptor", having(time=1.0)),
    "a resource": ("resource", having(spec="OTHER")),
    "a datum": ("datum", having(datum_kwargs={"n": 7})),
}


@pytest.mark.parametrize("changed", CONFLICTS)
def test_a_document_that_comes_again_changed_is_refused(store: Store, changed: str) -> None:
    writer, run, descriptor = opened(store)
    event = run.event(descriptor, 1, camera=frame(), n=1)
    datum = {"datum_id": "theirs/0", "resource": "theirs", "datum_kwargs": {"n": 0}}
    documents = {"event": event, "descriptor": descriptor, "resource": resource(run), "datum": datum}
    writer("resource", documents["resource"])
    writer("datum", datum)
    writer("event", event)
    name, spoil = CONFLICTS[changed]
    with pytest.raises(
        ConflictingDocument, match=r"came twice with different contents; the first one .*stands"
    ) as first:
        send(
            writer, (name, spoil(documents[name])), ("stop", run.stop())
        )  # pixels are compared behind the scenes
    assert first.value.code == "conflicting-document"
    if run.uid in writer._runs:
        with pytest.raises(ConflictingDocument) as again:
            writer("stop", run.stop())
        assert again.value is first.value
    assert store[run.uid].status == "failed"
    assert store[run.uid].record.stored == 2
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][0]))


def test_a_start_that_comes_again_changed_is_refused_and_the_run_goes_on(store: Store) -> None:
    writer, run, _ = opened(store)
    with pytest.raises(
        ConflictingDocument, match="came twice with different contents; the run goes on under the first"
    ):
        writer("start", {**run.start, "sample": "other"})
    writer("stop", run.stop())
    require_untouched(store, run, "complete")


@pytest.mark.parametrize("spoil", [having(reason="other"), having(uid="other")])
def test_a_second_stop_that_says_something_else_is_refused(store: Store, spoil: Spoil) -> None:
    writer, run, _ = opened(store)
    stop = run.stop()
    writer("stop", stop)
    with pytest.raises(ConflictingDocument, match="different from the first one, which stands"):
        writer("stop", spoil(stop))
    require_untouched(store, run, "complete")
    assert store[run.uid].stop == stop


@pytest.mark.parametrize(("first", "second"), [("resource", "resource"), ("resource", "descriptor")])
def test_one_uid_in_two_runs_at_once_fails_the_second(store: Store, first: str, second: str) -> None:
    writer, run, _ = opened(store)
    other = HandMadeRun()
    writer("start", other.start)
    made: dict[str, Callable[[HandMadeRun], dict[str, Any]]] = {
        "resource": resource,
        "descriptor": lambda run: {**run.descriptor(x={}), "uid": "theirs"},
    }
    writer(first, made[first](run))
    with pytest.raises(
        ConflictingDocument, match=f"theirs belongs to run {run.uid} already, and came again for run"
    ) as caught:
        writer(second, made[second](other))
    writer("stop", run.stop())
    with pytest.raises(ConflictingDocument) as again:
        writer("stop", other.stop())
    assert again.value is caught.value
    require_untouched(store, run, "complete")


@pytest.mark.parametrize("kind", ["resource", "datum", "descriptor"])
def test_one_uid_in_two_runs_one_after_the_other_fails_the_second_and_both_are_found(
    store: Store, kind: str
) -> None:
    writer, run, descriptor = opened(store)
    writer("resource", resource(run))
    writer("datum", {"datum_id": "a", "resource": "theirs", "datum_kwargs": {}})
    writer("stop", run.stop())
    other = HandMadeRun()
    again: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "resource": [("resource", resource(other))],
        "datum": [
            ("resource", resource(other, "another")),
            ("datum", {"datum_id": "a", "resource": "another", "datum_kwargs": {}}),
        ],
        "descriptor": [("descriptor", {**descriptor, "run_start": other.uid})],
    }
    with pytest.raises(
        ConflictingDocument, match=r"is in this store already, from another run, which was not touched"
    ):
        send(writer, ("start", other.start), *again[kind], ("stop", other.stop()))
    with suppress(ConflictingDocument):  # where it came before the stop
        writer.close()
    require_untouched(store, run, "complete")
    assert store[other.uid].status == "failed"
    store.close()
    for index in store.root.glob("index.sqlite*"):
        index.unlink()
    with Store(store.root) as rebuilt:  # from the journals
        require_untouched(rebuilt, run, "complete")
        assert rebuilt[other.uid].status == "failed"


def test_documents_for_an_ended_run_are_refused(store: Store) -> None:
    writer, run, descriptor = opened(store)
    writer("resource", resource(run))
    writer("stop", run.stop())
    for name, doc in [
        ("event", run.event(descriptor, camera=frame(), n=1)),
        ("event_page", {"descriptor": descriptor["uid"]}),
        ("descriptor", run.descriptor(x={})),
        ("resource", resource(run, "more")),
        ("datum", {"datum_id": "x", "resource": "theirs", "datum_kwargs": {}}),
    ]:
        with pytest.raises(
            RunClosed, match=f"a {name} document came for run {run.uid}, which has ended; it was not stor"
        ):
            writer(name, doc)
    require_untouched(store, run, "complete")


def test_a_run_that_is_in_the_store_is_not_written_again_by_whomever(store: Store) -> None:
    writer, run, descriptor = opened(store)
    writer("stop", run.stop())
    for again in (writer, store.writer()):
        with pytest.raises(
            RunExists, match=r"is in this store already \(complete, .*\); nothing of it was touched"
        ) as first:
            again("start", run.start)
        with pytest.raises(RunExists) as second:
            again("descriptor", descriptor)
        with pytest.raises(RunExists) as third:
            again("stop", run.stop())
        assert first.value is second.value is third.value
        again.close()
    require_untouched(store, run, "complete")


def test_a_closed_writer_ends_its_runs_as_incomplete_and_takes_nothing_more(store: Store) -> None:
    writer, run, descriptor = opened(store)
    writer.close()
    writer.close()
    require_untouched(store, run, "incomplete")
    assert store[run.uid].stop["exit_status"] == "abort"
    assert store[run.uid].stop["num_events"] == {"primary": 1}
    with pytest.raises(WriterClosed, match="a event document came after close"):
        writer("event", run.event(descriptor, camera=frame(), n=1))


def test_closing_the_store_ends_its_runs_as_incomplete(store: Store) -> None:
    _, run, _ = opened(store)
    store.close()
    with Store(store.root, mode="r") as again:
        require_untouched(again, run, "incomplete")
