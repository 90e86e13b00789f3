"""What is announced says all that came in, is on disk before it is said, and opens in a fresh process."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from event_model import DocumentNames, Filler, schema_validators

from gently_bluesky import Store, handler_registry
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

Named = tuple[str, dict[str, Any]]


def listened(store: Store) -> tuple[StoreWriter, list[Named]]:
    """Return a writer and the list of what it will announce."""
    writer = store.writer()
    seen: list[Named] = []
    writer.subscribe(lambda name, doc: seen.append((name, doc)))
    return writer, seen


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


def test_nan_in_a_start_document_is_nan_in_the_run(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun(drift_um=math.nan)
    writer("start", run.start)
    writer("stop", run.stop())

    assert same(store[run.uid].start["drift_um"], math.nan)


def test_an_integer_beyond_64_bits_in_a_start_document_is_kept(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun(big=2**80)
    try:
        writer("start", run.start)
    finally:
        writer.close()

    assert store[run.uid].start["big"] == 2**80


def test_documents_are_valid_and_fill_with_event_models_own_filler(store: Store) -> None:
    _, named = rich_run()
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
