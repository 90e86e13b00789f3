"""Every kind of document finds its run, is announced in event-model's order, and says what came in."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest
import zarr
from event_model import DocumentNames, Filler, schema_validators

from gently_bluesky import Store, handler_registry
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


RICH = {
    "nan": math.nan,
    "inf": [math.inf, -math.inf],
    "big": 2**64 - 1,
    "negative": -(2**63),
    "unicode": "Nähe \u2603 \U0001f52c",
    "tiny": 5e-324,
    "nothing": None,
    "nested": {"a": [{"b": (1, 2)}, []], "c": {}},
    "numpy": {"f": np.float64(0.1), "i": np.int8(-3), "b": np.bool_(True), "array": np.arange(3)},
}
PLAIN = {
    **RICH,
    "nested": {"a": [{"b": [1, 2]}, []], "c": {}},
    "numpy": {"f": 0.1, "i": -3, "b": True, "array": [0, 1, 2]},
}


def rich_run() -> tuple[HandMadeRun, list[Named]]:
    """Return the documents of a run in which everything that documents may hold stands."""
    run = HandMadeRun(plan_name="rich", hints={"dimensions": [[["x"], "primary"]]}, **RICH)
    declared = {
        "camera": {"units": "counts", "precision": None, "object_name": "cam"},
        "x": {"units": "mm"},
        "words": {},
    }
    descriptor = run.descriptor("primary", **declared)
    configured = {
        "data": {"gain": np.float32(1.5), "roi": np.array([1, 2])},
        "timestamps": {"gain": 1.0, "roi": 1.0},
    }
    data_keys = {"gain": {"source": "x", "dtype": "number", "shape": []}, "roi": {"source": "x"}}
    descriptor["configuration"] = {"device": {**configured, "data_keys": data_keys, "more": [1]}}
    descriptor["hints"] = {"device": {"fields": ["camera"]}}
    descriptor["note"] = {"deep": [1, {"er": math.nan}], "big": [2**80, -(2**63) - 1]}
    events = [
        run.event(
            descriptor, camera=encoded_frame((2, 5, 7), "u2", run="rich", event=n), x=values, words=["a", "ü"]
        )
        for n, values in enumerate([math.nan, -math.inf, np.float64(1 / 3), 2**70])
    ]
    named: list[Named] = [
        ("start", run.start),
        ("descriptor", descriptor),
        *(("event", event) for event in events),
    ]
    return run, [*named, ("stop", {**run.stop(), "reason": "done \u2603", "extra": [1, None]})]


def same(a: Any, b: Any) -> bool:
    """Say whether two values of JSON are equal, NaN to NaN, and integers as integers."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def test_neither_what_came_in_nor_what_went_out_is_shared_with_anybody(store: Store) -> None:
    run, named = rich_run()
    writer = store.writer()
    kept: list[Named] = []

    def spoil(_: str, doc: dict[str, Any]) -> None:
        for value in doc.values():
            if isinstance(value, dict):
                value.clear()
        doc["uid"] = "spoilt"

    writer.subscribe(spoil)
    writer.subscribe(lambda name, doc: kept.append((name, doc)))
    for name, doc in named:
        mine = copy.deepcopy(doc)
        writer(name, mine)
        np.testing.assert_equal(mine, doc)
        if name == "event":
            mine["data"]["camera"][...] = 0
        spoil(name, mine)
    for n in range(4):
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), run="rich", event=n)
    assert [doc["uid"] for name, doc in kept if name == "start"] == [run.uid]
    lines = [json.loads(line) for line in (store.root / store.record(run.uid).path).read_text().splitlines()]
    assert all(
        same({"name": name, "doc": doc}, {k: line[k] for k in ("name", "doc")})
        for (name, doc), line in zip(kept, lines, strict=True)
    )
    assert same({key: lines[0]["doc"][key] for key in RICH}, PLAIN)


@pytest.mark.xfail(strict=True, reason="index/fields.py json_text: orjson writes NaN as null")
def test_nan_in_a_start_document_is_nan_in_the_run(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun(drift_um=math.nan)
    writer("start", run.start)
    writer("stop", run.stop())

    assert same(store[run.uid].start["drift_um"], math.nan)


@pytest.mark.xfail(strict=True, reason="index/fields.py json_text: orjson takes no integer beyond 64 bits")
def test_an_integer_beyond_64_bits_in_a_start_document_is_kept(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun(big=2**80)
    try:
        writer("start", run.start)
    finally:
        writer.close()

    assert store[run.uid].start["big"] == 2**80


def test_documents_are_valid_and_fill_with_event_models_own_filler(store: Store) -> None:
    run, named = rich_run()
    writer, seen = listened(store)
    for name, doc in named:
        writer(name, doc)

    frames: list[np.ndarray] = []
    with Filler(handler_registry(), inplace=False) as filler:
        for name, doc in seen:
            schema_validators[DocumentNames[name]].validate(doc)
            _, filled = filler(name, doc)
            if name == "event":
                frames.append(np.asarray(filled["data"]["camera"]))
                assert doc["data"]["camera"].count("/") == 1
                assert filled["data"]["words"] == ["a", "ü"]
    assert len(frames) == 4
    for n, frame in enumerate(frames):
        check_frame(frame, run="rich", event=n)


def test_a_document_is_announced_when_an_outsider_finds_it_in_the_journal_and_its_pixels_on_disk(
    store: Store,
) -> None:
    writer = store.writer()
    resources: dict[str, Path] = {}
    checked: list[int] = []

    def outsider(name: str, doc: dict[str, Any]) -> None:
        journals = list(store.root.glob("runs/*/*/*/*/documents.jsonl"))
        lines = [json.loads(line) for line in journals[0].read_text().splitlines()]
        assert any(line["name"] == name and same(line["doc"], doc) for line in lines)
        if name == "resource":
            resources[doc["uid"]] = Path(doc["root"]) / doc["resource_path"]
        elif name == "event":
            uid, place = doc["data"]["camera"].split("/")
            array = zarr.open_group(resources[uid], mode="r")["0"]
            check_frame(array[int(place)], run="rich", event=doc["seq_num"] - 1)
            assert store.record(doc["data"]["camera"]).kind == "datum"
            checked.append(doc["seq_num"])

    writer.subscribe(outsider)
    for name, doc in rich_run()[1]:
        writer(name, doc)
    assert checked == [1, 2, 3, 4]


def test_a_fresh_process_gives_back_all_of_a_run_from_the_files_alone(store: Store, tmp_path: Path) -> None:
    run, named = rich_run()
    writer, seen = listened(store)
    for name, doc in named:
        writer(name, doc)
    store.close()
    for index in store.root.glob("index.sqlite*"):
        index.unlink()
    moved = tmp_path / "elsewhere"
    store.root.rename(moved)
    reading = (
        "import pickle, sys, numpy as np\n"
        "from gently_bluesky import Store\n"
        "with Store(sys.argv[1], mode='r') as store:\n"
        "    found = [(name, dict(doc)) for name, doc in store[sys.argv[2]].documents(fill=True)]\n"
        "    announced = list(store[sys.argv[2]].documents())\n"
        "for name, doc in found:\n"
        "    if name == 'event': doc['data'] = {**doc['data'], 'camera': np.asarray(doc['data']['camera'])}\n"
        "open(sys.argv[3], 'wb').write(pickle.dumps((found, announced)))\n"
    )
    command = [sys.executable, "-W", "error", "-c", reading, str(moved), run.uid, str(tmp_path / "found")]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONPATH": ""})
    found, announced = pickle.loads((tmp_path / "found").read_bytes())

    assert [name for name, _ in found] == [name for name, _ in named]
    for (name, came), (_, went) in zip(named, found, strict=True):
        if name == "event":
            assert went["data"]["camera"].dtype == np.uint16
            check_frame(went["data"]["camera"], run="rich", event=came["seq_num"] - 1)
            assert same(
                went["data"]["x"],
                came["data"]["x"].item() if hasattr(came["data"]["x"], "item") else came["data"]["x"],
            )
            assert list(went["data"]["words"]) == ["a", "ü"]
            assert went["timestamps"] == came["timestamps"]
        elif name == "descriptor":
            assert went["configuration"]["device"]["data"] == {"gain": 1.5, "roi": [1, 2]}
            assert went["configuration"]["device"]["more"] == [1]
            assert same(went["note"], came["note"])
            assert went["hints"] == came["hints"]
            assert went["data_keys"]["camera"]["units"] == "counts"
            assert went["data_keys"]["camera"]["object_name"] == "cam"
        elif name == "start":
            assert same({key: went[key] for key in RICH}, PLAIN)
        else:
            assert same(went, came)
    for (name, went), (_, was) in zip(announced, seen, strict=True):
        assert same({**went, "root": ""}, {**was, "root": ""}), name
