"""The index answers everything from journals' lines, however they came in."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gently_bluesky.errors import (
    AmbiguousUid,
    ConflictingDocument,
    InputError,
    InvalidDocument,
    InvalidSetting,
    StorageError,
    StorageStalled,
    StoreReadOnly,
    StoreUnusable,
    UnknownReference,
    UnknownUid,
)
from gently_bluesky.index.index import PAGE, Index, IndexUnusable, JournalOutOfStep, Point
from gently_bluesky.index.lineage import ancestors, children, descendants
from gently_bluesky.model import JournalLine, Record

DAY = "runs/2026/11/21"
LINE = 100
"""Bytes that a line of these journals takes."""


def run_lines(
    uid: str, *, time: float = 1000.0, events: int = 3, stop: bool = True, **start: Any
) -> list[JournalLine]:
    """A run with one Zarr asset: its uids are the run's with a letter behind."""
    data_keys = {
        "motor": {"shape": [], "dtype": "number", "source": "m"},
        "view_a": {
            "shape": [2, 4, 6],
            "dtype": "array",
            "dtype_numpy": "<u2",
            "external": "OLD:",
            "source": "c",
        },
    }
    resource = {
        "uid": f"{uid}-r",
        "spec": "GENTLY_ZARR",
        "root": "/somewhere/store",
        "resource_path": f"{DAY}/{uid}/primary-view_a.ome.zarr",
        "resource_kwargs": {"dims": ["z", "y", "x"], "dtype": "<u2"},
        "path_semantics": "posix",
        "run_start": uid,
    }
    lines = [
        JournalLine("start", {"uid": uid, "time": time, **start}),
        JournalLine(
            "descriptor",
            {"uid": f"{uid}-d", "run_start": uid, "name": "primary", "time": time, "data_keys": data_keys},
        ),
        JournalLine("resource", resource),
    ]
    for i in range(events):
        lines += [
            datum(f"{uid}-r/{i}", f"{uid}-r", point_number=i),
            event(uid, i, f"{uid}-r/{i}", time=time + 1 + i),
        ]
    if stop:
        lines.append(stop_line(uid, time + 100, events))
    return lines


def datum(uid: str, resource: str, **kwargs: Any) -> JournalLine:
    return JournalLine("datum", {"datum_id": uid, "resource": resource, "datum_kwargs": kwargs})


def event(
    run: str, i: int, datum_id: str, *, time: float, seq_num: int | None = None, name: str = "e"
) -> JournalLine:
    return JournalLine(
        "event",
        {
            "uid": f"{run}-{name}{i}",
            "descriptor": f"{run}-d",
            "seq_num": i + 1 if seq_num is None else seq_num,
            "time": time,
            "data": {"motor": 0.5, "view_a": datum_id},
            "timestamps": {"motor": time, "view_a": time},
            "filled": {"view_a": False},
        },
    )


def stop_line(uid: str, time: float, frames: int, **outcome: Any) -> JournalLine:
    outcome = {"status": "complete", "received": frames, "stored": frames, "lost": 0} | outcome
    return JournalLine(
        "stop", {"uid": f"{uid}-s", "run_start": uid, "time": time, "exit_status": "success"}, outcome=outcome
    )


def derived_lines(uid: str, parents: list[str], *, time: float = 5000.0, **start: Any) -> list[JournalLine]:
    lineage = {"parents": parents, "operation": "max_z", "parameters": {"axis": 0}, "environment": {}}
    start = {"uid": uid, "time": time, "data_type": "measurement", "lineage": lineage, **start}
    return [JournalLine("start", start), stop_line(uid, time, 0)]


def foreign_lines(uid: str, *, time: float = 2000.0) -> list[JournalLine]:
    """What an area detector writes: a file elsewhere, random datum uids, a rewind, a datum named twice."""
    lines = run_lines(uid, time=time, events=0, stop=False, detectors=["det"])
    resource = {
        "uid": f"{uid}-h",
        "spec": "AD_HDF5",
        "root": "/data",
        "resource_path": "x/y.h5",
        "resource_kwargs": {"fpp": 1},
    }
    lines.append(JournalLine("resource", resource))
    lines += [datum(f"{uid}-random-{i}", f"{uid}-h", frame=i) for i in range(4)]
    for i, (name, seq_num) in enumerate([(0, 1), (1, 2), (2, 2), (2, 3)]):
        lines.append(event(uid, i, f"{uid}-random-{name}", time=time + i, seq_num=seq_num))
    lines.append(
        JournalLine("stop", {"uid": f"{uid}-s", "run_start": uid, "time": time + 9, "exit_status": "abort"})
    )
    return lines


def stream_lines(uid: str, *, time: float = 3000.0) -> list[JournalLine]:
    lines = run_lines(uid, time=time, events=0, stop=False)[:2]
    lines[1].doc["data_keys"]["view_a"]["external"] = "STREAM:"  # type: ignore[index]
    resource = {
        "uid": f"{uid}-r",
        "data_key": "view_a",
        "mimetype": "application/x-zarr",
        "uri": f"file://localhost/mnt/my%20store/{DAY}/{uid}/primary-view_a.ome.zarr/0",
        "parameters": {"chunk_shape": [1, 2, 4, 6]},
        "run_start": uid,
    }
    lines.append(JournalLine("stream_resource", resource))
    for first, last, seq_num in [(0, 2, 1), (2, 3, 2), (3, 4, 3)]:
        doc = {
            "uid": f"{uid}-r/{first}",
            "stream_resource": f"{uid}-r",
            "descriptor": f"{uid}-d",
            "indices": {"start": first, "stop": last},
            "seq_nums": {"start": seq_num, "stop": seq_num + last - first},
        }
        lines += [
            JournalLine("stream_datum", doc),
            JournalLine("event", _scalar_event(uid, first, time + first)),
        ]
    return [*lines, stop_line(uid, time + 9, 4)]


def _scalar_event(run: str, i: int, time: float) -> dict[str, Any]:
    about = {"uid": f"{run}-e{i}", "descriptor": f"{run}-d", "seq_num": i + 1, "time": time}
    return about | {"data": {"motor": 0.5}, "timestamps": {"motor": time}, "filled": {}}


def journal_of(uid: str) -> str:
    return f"{DAY}/{uid}/documents.jsonl"


@pytest.fixture
def index():
    index = Index("sqlite://")
    yield index
    index.close()


@pytest.fixture
def journals() -> dict[str, list[JournalLine]]:
    """Journals with everything in them that can be in one."""
    small = derived_lines("small-1", ["whole-r/1"]) + derived_lines(
        "small-2", ["small-1", "foreign-h"], time=5001.0
    )
    return {
        journal_of("whole"): run_lines("whole", session="night", sample={"embryo": "e3", "age_h": 3}),
        journal_of("running"): run_lines("running", time=1500.0, stop=False)[:-1],
        journal_of("foreign"): foreign_lines("foreign"),
        journal_of("stream"): stream_lines("stream"),
        f"{DAY}/derived-w1.jsonl": small,
    }


def add_whole(index: Index, journals: dict[str, list[JournalLine]]) -> None:
    for journal, lines in journals.items():
        index.add(journal, lines, LINE * len(lines))


def uids(records: Any) -> list[str]:
    return [record.uid for record in records]


def every_answer(index: Index) -> dict[str, Any]:
    """Everything an index can be asked for."""
    records: list[Record] = [r for kind in ("run", "asset", "datum") for r in index.query(kind=kind)]
    runs = [r.uid for r in records if r.kind == "run"]
    keys = [
        (run, stream, key) for run in runs for stream, names in index.streams(run).items() for key in names
    ]
    assets = [r.uid for r in records if r.kind == "asset"]
    return {
        "records": records,
        "by uid": [index.record(r.uid) for r in records],
        "streams": [index.streams(run) for run in runs],
        "points": {key: index.points(*key) for key in keys},
        "points of assets": {uid: index.points_of_asset(uid) for uid in assets},
        "documents": [index.asset_document(uid) for uid in assets]
        + [index.datum_document(r.uid) for r in records if r.kind == "datum"],
        "lineage": [ancestors(index, r.uid) for r in records],
        "children": [uids(children(index, r.uid)) for r in records],
        "descendants": [uids(descendants(index, r.uid)) for r in records],
        "queries": [
            uids(index.query(kind=kind, **conditions))
            for kind in ("run", "asset", "datum")
            for conditions in (
                {"session": "night"},
                {"sample": {"age_h": 3}},
                {"derived": True},
                {"stream": "primary"},
            )
        ],
        "stats": index.stats(),
        "journals": index.journals(),
    }


def ask_everything(url: str, *, read_only: bool) -> None:
    with closing(Index(url, read_only=read_only)) as index:
        every_answer(index)


# -- records -------------------------------------------------------------------------------------------------


def test_a_run_is_recorded_with_its_start_document_and_its_outcome(index: Index) -> None:
    lines = run_lines("whole", data_type="volume", session="night")
    index.add(journal_of("whole"), lines, 10)
    assert index.record("whole") == Record(
        uid="whole",
        kind="run",
        run_uid="whole",
        time=1000.0,
        data_type="volume",
        session="night",
        status="complete",
        path=journal_of("whole"),
        received=3,
        stored=3,
        lost=0,
        metadata=dict(lines[0].doc),
    )


def test_an_asset_is_recorded_where_the_first_event_puts_it(index: Index) -> None:
    index.add(journal_of("whole"), run_lines("whole", session="night"), 10)
    assert index.record("whole-r") == Record(
        uid="whole-r",
        kind="asset",
        run_uid="whole",
        time=1001.0,
        session="night",
        status="complete",
        stream="primary",
        data_key="view_a",
        shape=(3, 2, 4, 6),
        dtype="<u2",
        dims=("t", "z", "y", "x"),
        format="GENTLY_ZARR",
        path=f"{DAY}/whole/primary-view_a.ome.zarr",
        metadata={"dims": ["z", "y", "x"], "dtype": "<u2"},
    )


def test_a_datum_is_recorded_as_one_events_array(index: Index) -> None:
    index.add(journal_of("whole"), run_lines("whole"), 10)
    record = index.record("whole-r/1")
    assert (record.kind, record.run_uid, record.time, record.seq_num) == ("datum", "whole", 1002.0, 2)
    assert (record.shape, record.dtype, record.dims) == ((2, 4, 6), "<u2", ("z", "y", "x"))
    assert (record.stream, record.data_key, record.metadata) == ("primary", "view_a", {"point_number": 1})
    assert index.datum_document("whole-r/1")["resource"] == "whole-r"


def test_a_derived_result_is_a_run_with_operation_and_parents(index: Index) -> None:
    index.add("derived-w.jsonl", derived_lines("small", ["a", "b/1"]), 10)
    record = index.record("small")
    assert (record.operation, record.parents, record.data_type) == ("max_z", ("a", "b/1"), "measurement")
    assert record.path == "derived-w.jsonl"


def test_assets_of_other_writers_are_recorded_without_a_path(index: Index) -> None:
    index.add(journal_of("foreign"), foreign_lines("foreign"), 10)
    record = index.record("foreign-h")
    assert (record.format, record.path, record.dims) == ("AD_HDF5", "", ())
    assert (record.stream, record.shape) == ("primary", (4, 2, 4, 6))
    assert index.record("foreign-random-2").metadata == {"frame": 2}
    assert index.record("foreign").status == "aborted"


def test_paths_that_leave_the_store_are_not_recorded(index: Index) -> None:
    lines = run_lines("whole", events=0)
    lines[2].doc["resource_path"] = "../../etc/passwd"  # type: ignore[index]
    index.add(journal_of("whole"), lines, 10)
    assert index.record("whole-r").path == ""


def test_stream_assets_are_recorded_with_their_ranges(index: Index) -> None:
    index.add(journal_of("stream"), stream_lines("stream"), 10)
    asset = index.record("stream-r")
    assert (asset.stream, asset.data_key, asset.shape) == ("primary", "view_a", (4, 2, 4, 6))
    assert (asset.format, asset.path) == ("application/x-zarr", f"{DAY}/stream/primary-view_a.ome.zarr/0")
    assert index.record("stream-r/2").metadata["indices"] == {"start": 2, "stop": 3}
    found = index.points("stream", "primary", "view_a")
    assert [(p.point_number, p.seq_num) for p in found] == [(0, 1), (1, 2), (2, 2), (3, 3)]
    assert index.asset_document("stream-r")["data_key"] == "view_a"


@pytest.mark.parametrize(
    ("exit_status", "outcome", "status"),
    [
        ("success", None, "complete"),
        ("abort", None, "aborted"),
        ("fail", None, "failed"),
        ("fail", {"status": "incomplete", "received": 5, "stored": 4, "lost": None}, "incomplete"),
    ],
)
def test_status_comes_from_the_outcome_else_from_the_exit_status(
    index: Index, exit_status: str, outcome: dict[str, Any] | None, status: str
) -> None:
    doc = {"uid": "s", "run_start": "whole", "time": 1.0, "exit_status": exit_status}
    index.add("j", [*run_lines("whole", stop=False)], 10)
    assert index.record("whole").status == "running"
    index.add("j", [JournalLine("stop", doc, outcome=outcome)], 20)
    record = index.record("whole")
    assert record.status == status
    assert (record.received, record.stored, record.lost) == ((5, 4, None) if outcome else (None, None, None))


# -- points --------------------------------------------------------------------------------------------------


def test_points_come_in_the_order_of_announcement_with_superseded_ones(index: Index) -> None:
    index.add(journal_of("foreign"), foreign_lines("foreign"), 10)
    found = index.points("foreign", "primary", "view_a")
    assert [(p.seq_num, p.point_number) for p in found] == [(1, 0), (2, 1), (2, 2), (3, 2)]
    assert found[0] == Point("foreign-h", "foreign-random-0", 0, "foreign-e0", 1, 2000.0, "foreign-d", 8)
    assert index.points_of_asset("foreign-h") == found
    assert index.points("foreign", "primary", "motor") == []


def test_a_stream_datum_that_claims_a_trillion_events_is_not_believed(index: Index) -> None:
    lines = stream_lines("stream")
    lines[3].doc["indices"]["stop"] = 10**12  # type: ignore[index]
    index.add("j", lines, 10)
    with pytest.raises(InvalidDocument, match="claim more"):
        index.points("stream", "primary", "view_a")


def test_streams_are_listed_with_their_keys_in_order(index: Index) -> None:
    lines = run_lines("whole", stop=False)
    second = {
        "uid": "d2",
        "run_start": "whole",
        "name": "baseline",
        "time": 1.0,
        "data_keys": {"b": {}, "a": {}},
    }
    again = {
        "uid": "d3",
        "run_start": "whole",
        "name": "primary",
        "time": 1.0,
        "data_keys": {"view_a": {}, "c": {}},
    }
    index.add("j", [*lines, JournalLine("descriptor", second), JournalLine("descriptor", again)], 10)
    assert index.streams("whole") == {"primary": ["motor", "view_a", "c"], "baseline": ["b", "a"]}


# -- rebuilding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("reopened", [False, True], ids=["one index", "reopened for each batch"])
def test_a_rebuilt_index_answers_as_the_live_one(
    tmp_path: Path, journals: dict[str, list[JournalLine]], size: int, reopened: bool
) -> None:
    live = Index(f"sqlite:///{tmp_path}/live.sqlite")
    longest = max(map(len, journals.values()))
    for begin in range(0, longest, size):  # journals interleaved, a batch of each in turn
        for journal, lines in journals.items():
            batch = lines[begin : begin + size]
            if batch:
                live.add(journal, batch, LINE * (begin + len(batch)), begin=LINE * begin)
                if reopened:
                    live.close()
                    live = Index(f"sqlite:///{tmp_path}/live.sqlite")
    rebuilt = Index("sqlite://")
    add_whole(rebuilt, dict(reversed(journals.items())))
    assert every_answer(live) == every_answer(rebuilt)
    live.close()
    rebuilt.close()


def test_a_forgotten_journal_leaves_nothing_and_can_be_added_again(
    index: Index, journals: dict[str, list[JournalLine]]
) -> None:
    add_whole(index, journals)
    before = every_answer(index)
    kept = Index("sqlite://")
    rest = dict(journals)
    lines = rest.pop(journal_of("foreign"))
    add_whole(kept, rest)
    index.forget(journal_of("foreign"))
    assert every_answer(index) == every_answer(kept)
    index.add(journal_of("foreign"), lines, LINE * len(lines))
    assert every_answer(index) == before
    kept.close()


def test_lines_that_are_indexed_are_not_indexed_again(
    index: Index, journals: dict[str, list[JournalLine]]
) -> None:
    add_whole(index, journals)
    before = every_answer(index)
    add_whole(index, journals)
    assert every_answer(index) == before


def test_a_gap_between_what_is_indexed_and_the_lines_is_refused(index: Index) -> None:
    lines = run_lines("whole")
    index.add("j", lines[:3], 300)
    with pytest.raises(JournalOutOfStep, match="up to byte 500, found it indexed up to 300"):
        index.add("j", lines[5:], 1000, begin=500)
    index.forget("j")
    index.add("j", lines, 1000, begin=0)
    assert index.record("whole").status == "complete"


def test_what_another_process_indexed_meanwhile_is_noticed(tmp_path: Path) -> None:
    lines = run_lines("whole")
    ours, theirs = (Index(f"sqlite:///{tmp_path}/x.sqlite") for _ in range(2))
    ours.add("j", lines[:3], 300)
    theirs.add("j", lines[3:5], 500)
    ours.add("j", lines[3:5], 500)
    ours.add("j", lines[5:7], 700)
    assert len(ours.points("whole", "primary", "view_a")) == 2
    theirs.add("j", lines[7:9], 900, begin=700)
    with pytest.raises(JournalOutOfStep):
        ours.add("j", lines[7:], 1000, begin=700)
    ours.close()
    theirs.close()


def test_who_waits_for_a_moment_does_not_wait_behind_a_thread_that_waits_for_long(tmp_path: Path) -> None:
    index = Index(f"sqlite:///{tmp_path}/x.sqlite")
    with closing(sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        patient = threading.Thread(target=index.add, args=("j", run_lines("whole"), 1000))
        patient.start()
        for _ in range(3):
            with pytest.raises(StorageStalled, match="for longer than was waited for it"):
                index.add("k", run_lines("other"), 1000, patience_s=0.01)
        assert patient.is_alive()
        other.execute("COMMIT")
        patient.join()
    index.add("k", run_lines("other"), 1000, patience_s=1)
    assert index.journals() == {"j": 1000, "k": 1000}
    index.close()


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", ["whole", "whole-r", "whole-r/1"])
def test_a_uid_that_two_journals_have_is_refused_and_nothing_of_the_second_is_indexed(
    index: Index, twice: str
) -> None:
    index.add("first.jsonl", run_lines("whole"), 10)
    before = every_answer(index)
    lines = run_lines("other", stop=False)
    text = json.dumps([line.doc for line in lines]).replace(f'"other{twice[5:]}"', f'"{twice}"')
    copies = [JournalLine(line.name, doc) for line, doc in zip(lines, json.loads(text), strict=True)]
    with pytest.raises(ConflictingDocument, match=r"second\.jsonl: .* 'whole.*from first\.jsonl"):
        index.add("second.jsonl", copies, 10)
    assert every_answer(index) == before


def test_a_document_that_came_twice_in_one_call_is_refused(index: Index) -> None:
    lines = run_lines("whole", stop=False)
    with pytest.raises(ConflictingDocument, match="two documents of one uid"):
        index.add("j", [*lines, lines[1]], 10)
    assert index.journals() == {}


@pytest.mark.parametrize(
    ("name", "doc", "error"),
    [
        ("start", {"time": 1.0}, InvalidDocument),
        ("start", {"uid": "x", "time": "noon"}, InvalidDocument),
        ("start", {"uid": 5, "time": 1.0}, InvalidDocument),
        ("datum", {"datum_id": "x"}, InvalidDocument),
        ("event", {"uid": "x", "descriptor": "whole-d", "seq_num": 1, "time": 1.0}, InvalidDocument),
        ("event", {"uid": "x", "descriptor": ["d"], "seq_num": 1, "time": 1.0}, InvalidDocument),
        ("event_page", {}, InvalidDocument),
        (
            "event",
            {"uid": "x", "descriptor": "none", "seq_num": 1, "time": 1.0, "data": {}},
            UnknownReference,
        ),
        ("descriptor", {"uid": "x", "run_start": "none", "data_keys": {}, "time": 1.0}, UnknownReference),
    ],
)
def test_a_malformed_document_undoes_the_whole_call(
    index: Index, name: str, doc: Any, error: type[Exception]
) -> None:
    lines = run_lines("whole", stop=False)
    index.add("j", lines[:3], 300)
    before = every_answer(index)
    with pytest.raises(error, match="j line 6: expected"):
        index.add("j", [*lines[3:5], JournalLine(name, doc)], 600)
    assert every_answer(index) == before
    index.add("j", lines[3:5], 500, begin=300)
    assert len(index.points("whole", "primary", "view_a")) == 1


def test_odd_but_possible_documents_are_indexed(index: Index) -> None:
    lines = run_lines(
        "whole", data_type=7, session=["s"], lineage="no mapping", sample=None, huge="x" * 10**6
    )
    lines[1].doc["data_keys"]["view_a"].update(dtype_numpy=[["a", "<u2"]], shape=[2, None, -1])  # type: ignore[index]
    lines[4].doc["seq_num"] = 2**64  # type: ignore[index]
    index.add("j", lines, 10)
    assert index.record("whole").data_type is None
    assert index.stats()["nbytes"] == 0
    assert uids(index.query(huge="x" * 10**6)) == ["whole"]
    assert uids(index.query(huge="x" * (10**6 - 1))) == []
    assert uids(index.query(sample=None)) == ["whole"]


# -- finding by prefix ---------------------------------------------------------------------------------------


def test_a_prefix_that_one_uid_has_finds_it(index: Index, journals: dict[str, list[JournalLine]]) -> None:
    add_whole(index, journals)
    assert index.resolve("small-2") == index.resolve("small-2"[:-1] + "2") == "small-2"
    assert index.resolve("stream-r/2") == "stream-r/2"
    assert index.record("foreign-h").uid == "foreign-h"
    assert index.resolve("foreign-random-3") == "foreign-random-3"


def test_an_asset_is_preferred_to_its_own_datums(index: Index) -> None:
    index.add("j", run_lines("whole"), 10)
    assert index.resolve("whole-") == "whole-r"
    assert index.resolve("whole-r") == "whole-r"
    with pytest.raises(AmbiguousUid, match=r"whole-r/0, whole-r/1, whole-r/2; give more"):
        index.resolve("whole-r/")


def test_an_ambiguous_prefix_lists_a_few_candidates(index: Index) -> None:
    for i in range(9):
        index.add(f"j{i}", derived_lines(f"abc{i}", []), 10)
    with pytest.raises(AmbiguousUid, match=r"abc0, abc1, abc2, abc3, abc4, \.\.\.; give more characters"):
        index.record("ab")


@pytest.mark.parametrize(
    "uid", ["", "zzz", "whole-r/9", "%", "_hole", "\ud800", "\U0010ffff", "WHOLE", "'; drop"]
)
def test_what_no_uid_begins_with_is_unknown(index: Index, uid: str) -> None:
    index.add("j", run_lines("whole"), 10)
    with pytest.raises(UnknownUid):
        index.resolve(uid)
    with pytest.raises(UnknownUid):
        index.record(uid)


def test_what_is_not_text_is_refused(index: Index) -> None:
    with pytest.raises(InputError, match="expected a uid as text, got -1"):
        index.record(-1)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["\ud7ff", "x\U0010ffff", "é", "a b", "\x00"])
def test_prefixes_at_the_edges_of_unicode_find_what_begins_with_them(index: Index, prefix: str) -> None:
    index.add("j", derived_lines(prefix + "tail", []), 10)
    index.add("k", derived_lines("other", []), 10)
    assert index.resolve(prefix) == prefix + "tail"


def test_documents_are_given_by_full_uid_of_their_kind_only(index: Index) -> None:
    index.add("j", run_lines("whole"), 10)
    with pytest.raises(UnknownUid, match="no asset has the uid 'whole'"):
        index.asset_document("whole")
    with pytest.raises(UnknownUid, match="no datum"):
        index.datum_document("whole-r")


# -- queries -------------------------------------------------------------------------------------------------


@pytest.fixture
def nights(index: Index) -> Index:
    samples: list[dict[str, Any]] = [
        {"session": "a", "sample": {"embryo": "e1", "age_h": 3}, "detectors": ["left", "right"], "n": 1},
        {"session": "a", "sample": {"embryo": "e2", "age_h": 3.0}, "detectors": ["left"], "n": 1.0},
        {
            "session": "b",
            "sample": {"embryo": "e1", "age_h": 4},
            "n": True,
            "tree": {"a": {"b": {"c": [1, [2]]}}},
        },
        {"session": "b", "data_type": "volume", "sample": "none", "n": "1", "note": None},
    ]
    for i, start in enumerate(samples):
        index.add(journal_of(f"r{i}"), run_lines(f"r{i}", time=1000.0 + 1000 * i, events=1, **start), 10)
    index.add("derived.jsonl", derived_lines("d0", ["r0"], session="a"), 10)
    return index


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({}, "d0 r3 r2 r1 r0"),
        ({"session": "a"}, "d0 r1 r0"),
        ({"data_type": "volume"}, "r3"),
        ({"sample": {"age_h": 3}}, "r1 r0"),
        ({"sample": {"age_h": 3.0, "embryo": "e1"}}, "r0"),
        ({"sample.embryo": "e1"}, "r2 r0"),
        ({"sample": {}}, "r2 r1 r0"),
        ({"sample": "none"}, "r3"),
        ({"detectors": "left"}, "r1 r0"),
        ({"detectors": ["left"]}, "r1"),
        ({"detectors": ("left", "right")}, "r0"),
        ({"n": 1}, "r1 r0"),
        ({"n": True}, "r2"),
        ({"n": "1"}, "r3"),
        ({"note": None}, "r3"),
        ({"tree": {"a": {"b": {"c": 1}}}}, "r2"),
        ({"tree.a": {"b.c": [2]}}, "r2"),
        ({"tree.a.b.c": 3}, ""),
        ({"derived": True}, "d0"),
        ({"derived": False, "session": "a"}, "r1 r0"),
        ({"operation": "max_z"}, "d0"),
        ({"status": "complete", "since": 2000.0, "until": 3000.0}, "r2 r1"),
        ({"stream": "primary", "data_key": "view_a"}, "r3 r2 r1 r0"),
        ({"stream": "baseline"}, ""),
        ({"data_key": "motor", "session": "b"}, "r3 r2"),
        ({"kind": "asset", "sample": {"age_h": 3}}, "r1-r r0-r"),
        ({"kind": "asset", "data_key": "motor"}, ""),
        ({"kind": "datum", "data_key": "view_a", "session": "b"}, "r3-r/0 r2-r/0"),
        ({"kind": "datum", "derived": True}, ""),
        ({"session": "\x00"}, ""),
    ],
)
def test_queries_find_what_answers_all_conditions_newest_first(
    nights: Index, conditions: dict[str, Any], found: str
) -> None:
    assert uids(nights.query(**conditions)) == found.split()


@pytest.mark.parametrize(
    "conditions",
    [
        {"kind": "frame"},
        {"kind": None},
        {"status": "done"},
        {"session": 5},
        {"derived": "yes"},
        {"since": "noon"},
        {"since": True},
        {"until": float("nan")},
        {"until": [1]},
        {"sample": object()},
        {"sample": {"a": {1, 2}}},
    ],
)
def test_conditions_that_nothing_can_answer_are_refused_at_once(
    nights: Index, conditions: dict[str, Any]
) -> None:
    with pytest.raises(InvalidSetting, match="nothing was looked for"):
        nights.query(**conditions)


def test_times_are_accepted_in_every_common_form(index: Index) -> None:
    noon = datetime(2026, 11, 21, 12).astimezone()
    index.add("j", run_lines("whole", time=noon.timestamp()), 10)
    just_before, just_after = noon - timedelta(seconds=1), noon + timedelta(seconds=1)
    for since in (
        noon.timestamp(),
        noon,
        noon.replace(tzinfo=None),
        noon.isoformat(),
        "2026-11-21",
        noon.date(),
    ):
        assert uids(index.query(since=since)) == ["whole"]
    assert uids(index.query(since=just_after)) == []
    for until in (noon.timestamp(), noon, "2026-11-21T12:00", "2026-11-21", noon.date()):
        assert uids(index.query(until=until)) == ["whole"]
    for until in (just_before, "2026-11-20"):
        assert uids(index.query(until=until)) == []


def test_long_answers_come_whole_and_in_order_though_times_are_equal(index: Index) -> None:
    number = 2 * PAGE + 5
    lines = [line for i in range(number) for line in derived_lines(f"r{i:04d}", [], time=1000.0 + i // 300)]
    index.add("derived.jsonl", lines, 10)
    found = uids(index.query())
    assert found == sorted(found, reverse=True)
    assert len(found) == number


def test_a_query_reads_a_page_at_a_time_and_holds_no_lock(index: Index) -> None:
    lines = [line for i in range(2 * PAGE) for line in derived_lines(f"r{i:04d}", [], time=float(i))]
    index.add("derived.jsonl", lines, 10)
    answer = index.query()
    first = next(answer)
    index.forget("derived.jsonl")
    assert first.uid == f"r{2 * PAGE - 1:04d}"
    assert len(list(answer)) == PAGE - 1


def test_stats_count_everything(index: Index, journals: dict[str, list[JournalLine]]) -> None:
    add_whole(index, journals)
    assert index.stats() == {
        "runs": {"aborted": 1, "complete": 4, "running": 1},
        "assets": 5,
        "datums": 3 + 3 + 4 + 3,
        "derived": 2,
        "nbytes": (3 + 3 + 4 + 4) * 2 * 4 * 6 * 2,
        "sessions": ["night"],
    }


# -- several processes and threads ---------------------------------------------------------------------------

WRITER = """
import sys
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine
url, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
index = Index(url)
for i in range(number):
    uid = f"{name}-{i:03d}"
    start = JournalLine("start", {"uid": uid, "time": float(i), "sample": {"i": i}})
    index.add(f"{name}.jsonl", [start], 2 * i + 1)
    stop = {"uid": uid + "s", "run_start": uid, "time": float(i), "exit_status": "success"}
    index.add(f"{name}.jsonl", [JournalLine("stop", stop)], 2 * i + 2)
index.close()
"""


def test_two_processes_write_to_one_index_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, url, name, "150"], stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", "", ""]
    index = Index(url)
    assert index.stats()["runs"] == {"complete": 450}
    assert index.journals() == {f"{name}.jsonl": 300 for name in ("one", "two", "three")}
    index.close()


@pytest.mark.parametrize("place", ["file", "memory"])
def test_threads_read_while_one_writes(tmp_path: Path, place: str) -> None:
    index = Index("sqlite://" if place == "memory" else f"sqlite:///{tmp_path}/index.sqlite")
    index.add("j", run_lines("whole", events=0, stop=False), 1)
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        seen = 0
        while not done.is_set():
            found = index.points("whole", "primary", "view_a")
            asset = index.record("whole-r")
            whole = [p.point_number for p in found] == list(range(len(found)))
            if len(found) < seen or not whole or (asset.shape or (0,))[0] < len(found):
                wrong.append((seen, found, asset))
            seen = len(found)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(100):
            lines = [
                datum(f"whole-r/{i}", "whole-r", point_number=i),
                event("whole", i, f"whole-r/{i}", time=2000.0 + i),
            ]
            index.add("j", lines, 2 + i)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(index.points("whole", "primary", "view_a")) == 100
    index.close()


# -- files that are damaged, old, or read-only ---------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, journals: dict[str, list[JournalLine]]) -> Path:
    path = tmp_path / "index.sqlite"
    index = Index(f"sqlite:///{path}")
    add_whole(index, journals)
    index.close()
    return path


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["not a database", "torn header", "zeros within"])
def test_a_damaged_file_is_said_to_be_unusable(file: Path, damage: str, read_only: bool) -> None:
    content = bytearray(file.read_bytes())
    if damage == "not a database":
        content[:] = b"This is a letter. " * 1000
    elif damage == "torn header":
        content[:100] = os.urandom(100)
    else:
        content[4096:] = bytes(len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(IndexUnusable, match="build it again from the journals"):
        ask_everything(f"sqlite:///{file}", read_only=read_only)


def test_an_index_of_another_version_is_said_to_be_unusable(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("UPDATE gently_index SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(IndexUnusable, match=r"expected an index of version 4, found \[99\]"):
        Index(f"sqlite:///{file}")


def test_a_database_of_something_else_is_not_touched(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "theirs.sqlite")
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(IndexUnusable, match="found none"):
        Index(f"sqlite:///{tmp_path}/theirs.sqlite")


def test_a_file_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        Index(f"sqlite:///{tmp_path}/none/index.sqlite")


def test_many_open_at_once_where_the_log_of_a_deleted_index_was_left(tmp_path: Path) -> None:
    # each of them wants to delete that log; about one round in twenty has two that try
    together = threading.Barrier(4)

    def make(file: Path) -> None:
        together.wait()
        Index(f"sqlite:///{file}").close()

    with ThreadPoolExecutor(4) as threads:
        for attempt in range(60):
            file = tmp_path / f"{attempt}.sqlite"
            Path(f"{file}-wal").write_bytes(bytes(100))
            list(threads.map(make, [file] * 4))


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="expected the URL of a database"):
        Index("index.sqlite")


def test_reading_only_needs_an_index_that_exists(tmp_path: Path) -> None:
    with pytest.raises(IndexUnusable, match="there is no index"):
        Index(f"sqlite:///{tmp_path}/index.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_reading_only_writes_nothing_and_answers_everything(
    file: Path, journals: dict[str, list[JournalLine]]
) -> None:
    def folder() -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in file.parent.iterdir()}

    before = folder()
    index = Index(f"sqlite:///{file}", read_only=True)
    with closing(Index("sqlite://")) as expected:
        add_whole(expected, journals)
        assert every_answer(index) == every_answer(expected)
    with pytest.raises(StoreReadOnly, match="nothing was written"):
        index.add("j", run_lines("new"), 10)
    with pytest.raises(StoreReadOnly, match="nothing was written"):
        index.forget("j")
    assert folder() == before
    index.close()
    assert folder() == before


def test_a_reader_sees_what_is_written_after_it_was_opened(file: Path) -> None:
    before_writer = Index(f"sqlite:///{file}", read_only=True)
    writer = Index(f"sqlite:///{file}")
    writer.add("one", run_lines("one"), 10)
    beside_writer = Index(f"sqlite:///{file}", read_only=True)
    assert until_known(before_writer, "one") == beside_writer.record("one")
    writer.add("two", run_lines("two"), 10)
    assert until_known(before_writer, "two") == beside_writer.record("two")
    writer.close()
    assert beside_writer.record("two") == before_writer.record("two")
    beside_writer.close()
    before_writer.close()


def until_known(index: Index, uid: str) -> Record:
    """A copy is read for a few times as long as it took to make, so that a reader may lag by so much."""
    give_up = monotonic() + 30
    while True:
        try:
            return index.record(uid)
        except UnknownUid:
            if monotonic() > give_up:
                raise


READER = """
import os, sys
from gently_bluesky.index.index import Index
Index("sqlite://").close()  # everything is imported before we lose the right to
os.setgroups([]), os.setgid(65534), os.setuid(65534)
index = Index(sys.argv[1], read_only=True)
print(index.record("whole").uid, index.stats()["datums"])
index.close()
"""


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.getuid() != 0, reason="becomes another user, so it must be root"
)
@pytest.mark.parametrize("writing", [False, True], ids=["nobody writes", "beside a writer"])
def test_another_user_reads_in_a_folder_that_is_not_theirs(writing: bool) -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        writer = Index(f"sqlite:///{folder}/index.sqlite")
        writer.add("j", run_lines("whole"), 10)
        if not writing:
            writer.close()
        names = sorted(path.name for path in folder.iterdir())
        command = [sys.executable, "-W", "error", "-c", READER, f"sqlite:///{folder}/index.sqlite"]
        answer = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert (answer.stdout, answer.stderr) == ("whole 3\n", "")
        assert sorted(path.name for path in folder.iterdir()) == names
        writer.close()
    finally:
        shutil.rmtree(folder)


def test_a_closed_index_says_so(index: Index) -> None:
    index.close()
    index.close()
    with pytest.raises(StoreUnusable, match="was closed"):
        index.record("whole")
    with pytest.raises(StoreUnusable, match="was closed"):
        index.add("j", run_lines("whole"), 10)
