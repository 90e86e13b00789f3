"""Bad input gets one clear error of our tree, is final for its run, and touches nothing that is stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from opened_run import Spoil, frame, opened, require_untouched, resource

from gently_bluesky import Store
from gently_bluesky.errors import (
    InvalidDocument,
    UnknownReference,
)
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun


def without(key: str) -> Spoil:
    """Return what takes a key out of a document."""
    return lambda doc: {name: value for name, value in doc.items() if name != key}


def having(**values: Any) -> Spoil:
    """Return what puts values into a document."""
    return lambda doc: {**doc, **values}


SPOILT_EVENTS: dict[str, Spoil] = {
    "without uid": without("uid"),
    "without time": without("time"),
    "without seq_num": without("seq_num"),
    "without data": without("data"),
    "without timestamps": without("timestamps"),
    "with a number as uid": having(uid=5),
    "with text as time": having(time="now"),
    "with NaN as time": having(time=float("nan")),
    "with an absurd time": having(time=10**400),
    "with a fraction as seq_num": having(seq_num=1.5),
    "with a negative seq_num": having(seq_num=-1),
    "with True as seq_num": having(seq_num=True),
    "with a list as data": having(data=[1, 2]),
    "with other timestamps": having(timestamps={"camera": 1.0}),
    "with filled of another kind": having(filled={"camera": 3}),
    "with filled that is a list": having(filled=["camera"]),
    "with filled that is an empty array": having(filled=np.zeros((0, 5))),
    "with more keys": having(note="hello"),
    "with a key too few": lambda doc: {**doc, "data": {"n": 1}, "timestamps": {"n": 1.0}},
    "with a key too many": lambda doc: {
        **doc,
        "data": {**doc["data"], "more": 1},
        "timestamps": {**doc["timestamps"], "more": 1.0},
    },
    "with a number as key": lambda doc: {**doc, "data": {1: 1}, "timestamps": {1: 1.0}},
}


@pytest.mark.parametrize("spoilt", SPOILT_EVENTS)
def test_an_event(store: Store, spoilt: str) -> None:
    writer, run, descriptor = opened(store)
    with pytest.raises(InvalidDocument, match=r"not stored") as first:
        writer("event", SPOILT_EVENTS[spoilt](run.event(descriptor, camera=frame(1), n=2)))
    assert first.value.code == "invalid-document"
    with pytest.raises(InvalidDocument) as again:
        writer("stop", run.stop("fail"))
    assert again.value is first.value
    require_untouched(store, run)


SPOILT_PAGES: dict[str, tuple[str, Spoil]] = {
    "event_page without uid": ("event_page", without("uid")),
    "event_page with more keys": ("event_page", having(note=[1, 2])),
    "event_page with a short column": ("event_page", having(time=[1.0])),
    "event_page with a short data column": (
        "event_page",
        lambda doc: {**doc, "data": {**doc["data"], "n": [1]}},
    ),
    "event_page with data that is a list": ("event_page", having(data=[1, 2])),
    "event_page with a number as a column": ("event_page", having(time=1.0)),
    "event_page with a bad event": ("event_page", having(seq_num=[2, "x"])),
    "datum_page without datum_kwargs": ("datum_page", without("datum_kwargs")),
    "datum_page with a short column": ("datum_page", having(datum_kwargs={"n": [1]})),
    "datum_page with a bad datum": ("datum_page", having(datum_id=["a", 5])),
    "bulk_datum with a short column": ("bulk_datum", having(datum_ids=["a"])),
    "bulk_datum without ids": ("bulk_datum", without("datum_ids")),
}


@pytest.mark.parametrize("spoilt", SPOILT_PAGES)
def test_a_page(store: Store, spoilt: str) -> None:
    writer, run, descriptor = opened(store)
    writer("resource", resource(run))
    name, spoil = SPOILT_PAGES[spoilt]
    pages: dict[str, dict[str, Any]] = {
        "event_page": {
            "descriptor": descriptor["uid"],
            "uid": ["a", "b"],
            "time": [1.0, 2.0],
            "seq_num": [2, 3],
            "data": {"camera": [frame(1), frame(2)], "n": [2, 3]},
            "timestamps": {"camera": [1.0, 2.0], "n": [1.0, 2.0]},
            "filled": {},
        },
        "datum_page": {"resource": "theirs", "datum_id": ["a", "b"], "datum_kwargs": {"n": [1, 2]}},
        "bulk_datum": {
            "resource": "theirs",
            "datum_ids": ["a", "b"],
            "datum_kwarg_list": [{"n": 1}, {"n": 2}],
        },
    }
    with pytest.raises(InvalidDocument, match=r"not(hing of it was)? stored") as first:
        writer(name, spoil(pages[name]))
    with pytest.raises(InvalidDocument) as again:
        writer("stop", run.stop("fail"))
    assert again.value is first.value
    assert store[run.uid].status == "failed"


SPOILT_DOCUMENTS: dict[str, tuple[str, Callable[[HandMadeRun], Any]]] = {
    "descriptor without data_keys": ("descriptor", lambda run: without("data_keys")(run.descriptor(x={}))),
    "descriptor with a list as data_keys": (
        "descriptor",
        lambda run: {**run.descriptor(x={}), "data_keys": ["x"]},
    ),
    "descriptor with text as a data key": (
        "descriptor",
        lambda run: {**run.descriptor(x={}), "data_keys": {"x": "y"}},
    ),
    "descriptor with a number as name": ("descriptor", lambda run: {**run.descriptor(x={}), "name": 5}),
    "descriptor with a set": ("descriptor", lambda run: {**run.descriptor(x={}), "note": {1, 2}}),
    "descriptor with bad configuration": (
        "descriptor",
        lambda run: {**run.descriptor(x={}), "configuration": {"x": 1}},
    ),
    "descriptor with bad units": ("descriptor", lambda run: run.descriptor(x={"units": 5})),
    "descriptor without a time": ("descriptor", lambda run: without("time")(run.descriptor(x={}))),
    "resource without a spec": ("resource", lambda run: without("spec")(resource(run))),
    "resource with more keys": ("resource", lambda run: resource(run, note=1)),
    "resource with a number as uid": ("resource", lambda run: resource(run, uid=5)),
    "resource with an empty uid": ("resource", lambda run: resource(run, uid="")),
    "datum without kwargs": ("datum", lambda run: {"datum_id": "a", "resource": "theirs"}),
    "datum with more keys": (
        "datum",
        lambda run: {"datum_id": "a", "resource": "theirs", "datum_kwargs": {}, "x": 1},
    ),
    "descriptor with half a character": ("descriptor", lambda run: run.descriptor("a\ud800", x={})),
    "data key with half a character": ("descriptor", lambda run: run.descriptor(**{"a\ud800": {}})),
    "resource with half a character": ("resource", lambda run: resource(run, "a\ud800")),
    "stream_resource without uri": (
        "stream_resource",
        lambda run: {"uid": "s", "run_start": run.uid, "data_key": "x"},
    ),
    "stream_datum without indices": ("stream_datum", lambda run: {"uid": "d", "stream_resource": "stream"}),
}


@pytest.mark.parametrize("spoilt", SPOILT_DOCUMENTS)
def test_a_document(store: Store, spoilt: str) -> None:
    writer, run, _ = opened(store)
    writer("resource", resource(run))
    said = {
        "mimetype": "application/x-hdf5",
        "uri": "file://localhost/x",
        "parameters": {},
        "run_start": run.uid,
    }
    writer("stream_resource", {"uid": "stream", "data_key": "det", **said})
    name, make = SPOILT_DOCUMENTS[spoilt]
    with pytest.raises(InvalidDocument, match=r"expected .*; it was not stored") as first:
        writer(name, make(run))
    with pytest.raises(InvalidDocument) as again:
        writer("stop", run.stop("fail"))
    assert again.value is first.value
    require_untouched(store, run)


@pytest.mark.parametrize(
    ("name", "doc", "said"),
    [
        ("nonsense", {}, "expected a document named one of start, descriptor"),
        (["start"], {}, "expected a document named one of start, descriptor"),
        ("start", None, "expected a start document, got NoneType"),
        ("event", [1, 2], "expected a event document, got list"),
        ("start", {}, "expected a valid start document, .* is a required property"),
        ("start", {"uid": "", "time": 1.0}, "expected a string that is not empty as 'uid'"),
        ("start", {"uid": 5, "time": 1.0}, "uid is not: 5 is not of type 'string'"),
        ("start", {"uid": "x", "time": float("inf")}, "expected a finite number of seconds as 'time'"),
        ("start", {"uid": "x", "time": 1e17}, "expected the start document's time in seconds since 1970"),
        ("start", {"uid": "x", "time": 1.0, "a.b": 1}, "'a.b' does not match"),
        ("start", {"uid": "x", "time": 1.0, "sample": {1, 2}}, "got one that cannot be written"),
        ("start", {"uid": "x", "time": 1.0, "note": "\ud800"}, "of Unicode text, got half a character in"),
        ("bulk_events", {"x": 5}, "expected lists of events by descriptor"),
        ("bulk_events", {"x": [5]}, "expected a event document, got int"),
    ],
)
def test_what_belongs_to_no_run(store: Store, name: Any, doc: Any, said: str) -> None:
    writer = store.writer()
    with pytest.raises(InvalidDocument, match=said):
        writer(name, doc)
    with suppress(InvalidDocument):  # of a run that could not be opened, and has not ended yet
        writer.close()
    assert list(store.query()) == []


def test_metadata_that_cannot_be_written_stop_the_plan_and_are_not_hidden_by_its_stop(
    store: Store, RE: RunEngine
) -> None:
    raised: list[Exception] = []
    writer = store.writer()

    def tell(name: str, doc: dict[str, Any]) -> None:
        try:
            writer(name, doc)
        except Exception as error:
            raised.append(error)
            raise

    RE.subscribe(tell)
    with pytest.raises(InvalidDocument, match=r"got one that cannot be written: .*datetime"):
        RE(bp.count([EncodedCamera()]), when=datetime(2026, 11, 21, tzinfo=UTC))
    assert len(raised) == 2
    assert raised[0] is raised[1]
    assert list(store.query()) == []


@pytest.mark.parametrize(
    ("name", "doc"),
    [
        ("event", {"descriptor": "nobody"}),
        ("event_page", {"descriptor": "nobody"}),
        ("datum", {"resource": "nobody"}),
        ("datum_page", {"resource": "nobody"}),
        ("bulk_datum", {"resource": "nobody"}),
        ("stream_datum", {"stream_resource": "nobody"}),
        ("descriptor", {"run_start": "nobody"}),
        ("resource", {"run_start": "nobody"}),
        ("stream_resource", {"run_start": "nobody"}),
        ("stop", {"run_start": "nobody", "uid": "x", "time": 1.0, "exit_status": "success"}),
    ],
)
def test_what_refers_to_what_never_came(store: Store, name: str, doc: dict[str, Any]) -> None:
    writer, run, _ = opened(store)
    with pytest.raises(
        UnknownReference, match=f"a {name} document names 'nobody' as its .*, which has not come; it w"
    ) as first:
        writer(name, doc)
    if name == "stop":
        writer("stop", run.stop())
        require_untouched(store, run, "complete")
        return
    with pytest.raises(UnknownReference) as again:
        writer("stop", run.stop("fail"))
    assert again.value is first.value
    require_untouched(store, run)


@pytest.mark.parametrize("reference", ["camera", "theirs"])
def test_a_reference_to_a_document_of_another_kind(store: Store, reference: str) -> None:
    writer, run, descriptor = opened(store)
    writer("resource", resource(run))
    kind = {
        "indices": {"start": 0, "stop": 1},
        "seq_nums": {"start": 1, "stop": 2},
        "descriptor": descriptor["uid"],
    }
    wrong = {"theirs": "theirs", "camera": descriptor["uid"]}[reference]
    with pytest.raises(UnknownReference, match="as its stream_resource, which has not come"):
        writer("stream_datum", {"uid": "x", "stream_resource": wrong, **kind})
    with pytest.raises(UnknownReference):
        writer("stop", run.stop("fail"))
    require_untouched(store, run)


@pytest.mark.parametrize(
    "spoil", [having(exit_status="fine"), without("time"), having(num_events=3), having(time=None)]
)
def test_a_bad_stop_ends_its_run_as_failed(store: Store, spoil: Spoil) -> None:
    writer, run, _ = opened(store)
    with pytest.raises(InvalidDocument, match=r"expected a (valid )?stop document") as caught:
        writer("stop", spoil(run.stop()))
    require_untouched(store, run)
    assert str(caught.value) in store[run.uid].stop["reason"]
