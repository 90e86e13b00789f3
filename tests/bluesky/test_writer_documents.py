"""Every kind of document finds its run, is announced in event-model's order, and says what came in."""

from __future__ import annotations

import threading
from typing import Any

import event_model
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators

from gently_bluesky import Store
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

Named = tuple[str, dict[str, Any]]


def resource(run: HandMadeRun, uid: str = "theirs", **extra: Any) -> dict[str, Any]:
    """Return a resource document of somebody else's."""
    return {
        "uid": uid,
        "spec": "AD_HDF5",
        "root": "/data",
        "resource_path": "x.h5",
        "resource_kwargs": {},
        "path_semantics": "posix",
        "run_start": run.uid,
        **extra,
    }


def stream_resource(run: HandMadeRun, uid: str = "stream", data_key: str = "det") -> dict[str, Any]:
    """Return a stream_resource document of somebody else's."""
    said = {
        "mimetype": "application/x-hdf5",
        "uri": "file://localhost/data/x.h5",
        "parameters": {"dataset": "/x"},
    }
    return {"uid": uid, "data_key": data_key, "run_start": run.uid, **said}


def stream_datum(descriptor: dict[str, Any], number: int, uid: str = "stream") -> dict[str, Any]:
    """Return the stream_datum document of one event."""
    return {
        "uid": f"{uid}/{number}",
        "stream_resource": uid,
        "descriptor": descriptor["uid"],
        "indices": {"start": number, "stop": number + 1},
        "seq_nums": {"start": number + 1, "stop": number + 2},
    }


def listened(store: Store) -> tuple[StoreWriter, list[Named]]:
    """Return a writer and the list of what it will announce."""
    writer = store.writer()
    seen: list[Named] = []
    writer.subscribe(lambda name, doc: seen.append((name, doc)))
    return writer, seen


def test_every_kind_of_document_is_taken_and_announced_in_order(store: Store) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    descriptor = run.descriptor(
        camera={}, h5={"external": "FILESTORE:"}, det={"external": "STREAM:", "shape": [4]}
    )

    def event(n: int) -> dict[str, Any]:
        made = run.event(descriptor, camera=encoded_frame((4, 6), "u2", event=n), h5=f"theirs/{n}")
        return {**made, "filled": {"h5": False}}

    events = [event(n) for n in range(5)]
    page = event_model.pack_event_page(*events[1:3])
    writer(DocumentNames.start, run.start)
    writer("descriptor", descriptor)
    writer("resource", resource(run))
    writer("stream_resource", stream_resource(run))
    writer("datum", {"datum_id": "theirs/0", "resource": "theirs", "datum_kwargs": {"n": 0}})
    ids = ["theirs/1", "theirs/2"]
    writer("datum_page", {"datum_id": ids, "resource": "theirs", "datum_kwargs": {"n": [1, 2]}})
    ids = ["theirs/3", "theirs/4"]
    writer("bulk_datum", {"datum_ids": ids, "resource": "theirs", "datum_kwarg_list": [{"n": 3}, {"n": 4}]})
    writer("stream_datum", stream_datum(descriptor, 0))
    writer("event", events[0])
    writer("stream_datum", stream_datum(descriptor, 1))
    writer("event_page", page)
    writer("bulk_events", {descriptor["uid"]: events[3:]})
    writer("stop", run.stop())

    assert [name for name, _ in seen] == [
        *("start", "resource", "stream_resource", *["datum"] * 5, "descriptor", "stream_datum"),
        *("resource", "datum", "event", "stream_datum", *["datum", "event"] * 4, "stop"),
    ]
    for name, doc in seen:
        schema_validators[DocumentNames[name]].validate(doc)
    assert [doc["datum_kwargs"] for name, doc in seen if name == "datum"][:5] == [{"n": n} for n in range(5)]
    announced = [doc for name, doc in seen if name == "event"]
    for came, went in zip(events, announced, strict=True):
        assert went["data"]["h5"] == came["data"]["h5"]
        assert went["filled"] == {"camera": False, "h5": False}
        same = ("uid", "time", "seq_num", "descriptor", "timestamps")
        assert {key: went[key] for key in same} == {key: came[key] for key in same}
    for n in range(5):
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), event=n)


def test_interleaved_runs_are_kept_apart(store: Store) -> None:
    writer, seen = listened(store)
    runs = [HandMadeRun() for _ in range(3)]
    descriptors = []
    for run in runs:
        writer("start", run.start)
        descriptors.append(run.descriptor(camera={}))
        writer("descriptor", descriptors[-1])
    for n in range(4):
        for run, descriptor in zip(runs, descriptors, strict=True):
            frame = encoded_frame((5, 7), "u2", run=run.uid, event=n)
            writer("event", run.event(descriptor, camera=frame))
    for run in reversed(runs):
        writer("stop", run.stop())

    assert len([name for name, _ in seen if name == "stop"]) == 3
    for run in runs:
        assert store[run.uid].status == "complete"
        for n in range(4):
            check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), run=run.uid, event=n)


def test_an_event_page_may_hold_its_frames_as_one_array(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun()
    descriptor = run.descriptor(camera={}, n={})
    frames = np.stack([encoded_frame((5, 7), "u2", event=n) for n in range(3)])
    page = {
        "descriptor": descriptor["uid"],
        "uid": [f"{run.uid}-{n}" for n in range(3)],
        "seq_num": [1, 2, 3],
        "time": [10.0, 11.0, 12.0],
        "data": {"camera": frames, "n": [7, 8, 9]},
        "timestamps": {"camera": [10.0, 11.0, 12.0], "n": [10.0, 11.0, 12.0]},
        "filled": {},
    }
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event_page", page)
    writer("stop", run.stop())

    for n in range(3):
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), event=n)
    assert store[run.uid]["n"].compute().tolist() == [7, 8, 9]


def test_a_resource_without_its_run_belongs_to_the_only_one_there_is(store: Store) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    writer("start", run.start)
    anonymous = resource(run)
    del anonymous["run_start"]
    writer("resource", anonymous)
    writer("stop", run.stop())

    assert [doc["run_start"] for name, doc in seen if name == "resource"] == [run.uid]


def test_a_stream_that_others_write_is_announced_as_it_goes_on(store: Store) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    descriptor = run.descriptor(det={"external": "STREAM:", "shape": [1, 4, 6], "dtype_numpy": "<u2"})
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("stream_resource", stream_resource(run))
    third = threading.Event()
    writer.subscribe(lambda name, doc: third.set() if doc.get("uid") == "stream/2" else None)
    for n in range(3):
        writer("stream_datum", stream_datum(descriptor, n))
    assert third.wait(30)  # before the run has ended
    writer("stop", run.stop())

    assert [name for name, _ in seen] == [
        "start",
        "descriptor",
        "stream_resource",
        *["stream_datum"] * 3,
        "stop",
    ]
    assert seen[1][1] == descriptor


def test_the_descriptor_comes_out_before_what_names_it_and_after_what_came_before_its_first_event(
    store: Store,
) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    first, second = run.descriptor("a", camera={}), run.descriptor("b", x={}, det={"external": "STREAM:"})
    writer("start", run.start)
    writer("descriptor", first)
    writer("descriptor", second)
    writer("stream_resource", stream_resource(run))
    writer("stream_datum", stream_datum(second, 0))
    writer("event", run.event(first, camera=encoded_frame((3, 4), "u2")))
    writer("event", run.event(second, x=1))
    writer("stop", run.stop())

    found = [
        (name, doc.get("descriptor") or doc["uid"]) for name, doc in seen if name not in {"datum", "resource"}
    ]
    assert [uid for name, uid in found if name == "descriptor"] == [first["uid"], second["uid"]]
    assert found.index(("descriptor", second["uid"])) < found.index(("stream_datum", second["uid"]))
    assert [name for name, _ in found][-2:] == ["event", "stop"]


def test_a_descriptor_without_an_event_is_released_at_the_stop(store: Store) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    descriptor = run.descriptor(
        camera={"dtype": "uint16", "dtype_numpy": "uint16", "shape": None}, x={"dtype": "number"}
    )
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("stop", run.stop())

    assert [name for name, _ in seen] == ["start", "descriptor", "stop"]
    schema_validators[DocumentNames.descriptor].validate(seen[1][1])
    assert seen[1][1]["data_keys"]["camera"]["dtype_numpy"] == "<u2"
    assert store[run.uid].streams == ("primary",)
    assert len(store[run.uid]["primary"]) == 0


@pytest.mark.parametrize(
    "says",
    [
        {
            "dtype": "uint16",
            "dtype_numpy": "uint16",
            "shape": None,
            "external": None,
            "dims": "yx",
            "source": None,
        },
        {"dtype": None, "dtype_numpy": None, "shape": [2, None], "dims": ["a", "a"]},
        {"dtype_numpy": "what?", "shape": "4x6", "dims": ["t", "y"]},
        {"dims": [[], "x"]},
        {"dtype_numpy": "2026-01-01T00:00:00"},
        {"dtype_numpy": "(1,f4"},
    ],
)
def test_what_a_device_says_against_event_model_is_put_right_by_its_frame(
    store: Store, says: dict[str, Any]
) -> None:
    writer, seen = listened(store)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={**says, "units": "counts"}, n=says, bare={})
    del descriptor["data_keys"]["bare"]["dtype"], descriptor["data_keys"]["bare"]["shape"]
    del descriptor["data_keys"]["bare"]["source"]
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=encoded_frame((4, 6), ">u2"), n=np.float32(3), bare=True))
    writer("stop", run.stop())

    (announced,) = [doc for name, doc in seen if name == "descriptor"]
    schema_validators[DocumentNames.descriptor].validate(announced)
    keys = announced["data_keys"]
    exact = {
        "dtype": "array",
        "shape": [4, 6],
        "dtype_numpy": "<u2",
        "dims": ["y", "x"],
        "external": "FILESTORE:",
    }
    assert {name: keys["camera"][name] for name in exact} == exact
    assert keys["camera"]["units"] == "counts"
    assert (keys["n"]["dtype"], keys["n"]["shape"], keys["n"]["dtype_numpy"]) == ("number", [], "<f4")
    assert keys["bare"] == {"source": "unknown", "dtype": "boolean", "shape": []}
