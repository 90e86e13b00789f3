"""Lineage: a graph over runs, assets and datums with several parents, walked up and down in one query."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gently_bluesky.errors import AmbiguousUid, UnknownUid
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import Lineage, ancestors, children, descendants
from gently_bluesky.model import JournalLine

NOON = 1_000_000.0


def acquired(uid: str, *, arrays: int = 2) -> list[JournalLine]:
    """A run with one asset of some arrays, and no parents."""
    keys = {
        "view_a": {"shape": [4, 6], "dtype": "array", "dtype_numpy": "<u2", "external": "OLD:", "source": "c"}
    }
    resource = {
        "uid": f"{uid}-r",
        "spec": "GENTLY_ZARR",
        "root": "/s",
        "resource_path": "a.zarr",
        "resource_kwargs": {},
    }
    lines = [
        JournalLine("start", {"uid": uid, "time": NOON, "plan_name": "acquire_volume"}),
        JournalLine(
            "descriptor", {"uid": f"{uid}-d", "run_start": uid, "name": "primary", "data_keys": keys}
        ),
        JournalLine("resource", resource | {"run_start": uid}),
    ]
    for i in range(arrays):
        name = f"{uid}-r/{i}"
        about = {"uid": f"{uid}-e{i}", "descriptor": f"{uid}-d", "seq_num": i + 1, "time": NOON + i}
        lines.append(JournalLine("datum", {"datum_id": name, "resource": f"{uid}-r", "datum_kwargs": {}}))
        lines.append(JournalLine("event", about | {"data": {"view_a": name}, "filled": {"view_a": False}}))
    return [*lines, stop(uid)]


def derived(uid: str, *parents: str, later: float = 10.0, **start: Any) -> list[JournalLine]:
    start = {"uid": uid, "time": NOON + later, "data_type": "projection"} | start
    return [
        JournalLine("start", start | {"lineage": {"parents": list(parents), "operation": "max_z"}}),
        stop(uid),
    ]


def stop(uid: str) -> JournalLine:
    return JournalLine("stop", {"uid": f"{uid}-s", "run_start": uid, "time": NOON, "exit_status": "success"})


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index("sqlite://")
    yield index
    index.close()


def add(index: Index, *runs: list[JournalLine]) -> None:
    for i, lines in enumerate(runs):
        index.add(f"{len(index.journals())}-{i}.jsonl", lines, 1)


def uids(records: Any) -> list[str]:
    return [record.uid for record in records]


def drawn(lineage: Lineage) -> list[str]:
    """The tree with nothing but bars, uids and marks."""
    lines = str(lineage).splitlines()
    marks = ("(not in this store)", "^ shown elsewhere")
    cleaned: list[str] = []
    for line, node in zip(lines, lineage.nodes, strict=True):
        bars = line[: len(line) - len(line.lstrip("│├└─ "))]
        cleaned.append(f"{bars}{node.uid}" + "".join(f" {mark}" for mark in marks if line.endswith(mark)))
    return cleaned


def test_what_was_acquired_has_no_parents(index: Index) -> None:
    add(index, acquired("run"))
    lineage = ancestors(index, "run")
    assert (lineage.record, lineage.parents, lineage.depth) == (index.record("run"), (), 0)
    assert uids(lineage) == ["run"]
    assert len(lineage) == 1


def test_a_result_leads_to_its_parents_and_theirs(index: Index) -> None:
    add(index, acquired("run"), derived("mip", "run-r/1"), derived("count", "mip"))
    lineage = ancestors(index, "count")
    assert uids(lineage) == ["count", "mip", "run-r/1"]
    assert [parent.uid for parent in lineage.parents] == ["mip"]
    assert lineage.parents[0].parents[0].record == index.record("run-r/1")
    assert lineage.depth == 2


@pytest.mark.parametrize("uid", ["fused", "fused-r", "fused-r/0"])
def test_a_part_of_a_derived_run_has_the_runs_parents(index: Index, uid: str) -> None:
    lines = acquired("fused")
    lines[0].doc["lineage"] = {"parents": ["a-r/0", "b-r/0"], "operation": "fuse"}  # type: ignore[index]
    add(index, acquired("a"), acquired("b"), lines, derived("mip", uid))
    assert [parent.uid for parent in ancestors(index, uid).parents] == ["a-r/0", "b-r/0"]
    assert uids(ancestors(index, "mip")) == ["mip", uid, "a-r/0", "b-r/0"]


def test_a_shared_ancestor_is_shown_in_full_once(index: Index) -> None:
    add(index, acquired("run"), derived("base", "run-r/0"), derived("left", "base"), derived("right", "base"))
    add(index, derived("top", "left", "right"))
    lineage = ancestors(index, "top")
    assert drawn(lineage) == [
        "top",
        "├─ left",
        "│  └─ base",
        "│     └─ run-r/0",
        "└─ right",
        "   └─ base ^ shown elsewhere",
    ]
    assert uids(lineage) == ["top", "left", "base", "run-r/0", "right"]
    assert lineage.depth == 3
    assert lineage.parents[1].parents[0].repeated


def test_ladders_of_diamonds_do_not_explode(index: Index) -> None:
    runs = [derived("rung-00-a"), derived("rung-00-b")]
    for i in range(1, 60):
        runs += [
            derived(f"rung-{i:02d}-{side}", f"rung-{i - 1:02d}-a", f"rung-{i - 1:02d}-b") for side in "ab"
        ]
    add(index, *runs)
    lineage = ancestors(index, "rung-59-a")
    assert len(lineage) == 119
    assert lineage.depth == 59
    assert len(descendants(index, "rung-00-a")) == 118


def test_cycles_end(index: Index) -> None:
    add(
        index,
        derived("a", "c"),
        derived("b", "a"),
        derived("c", "b"),
        derived("self", "self"),
        derived("d", "c"),
    )
    assert drawn(ancestors(index, "a")) == ["a", "└─ c", "   └─ b", "      └─ a ^ shown elsewhere"]
    assert drawn(ancestors(index, "self")) == ["self", "└─ self ^ shown elsewhere"]
    assert uids(descendants(index, "a")) == ["b", "c", "d"]
    assert uids(children(index, "self")) == []


def test_a_parent_that_is_not_in_the_store_is_named(index: Index) -> None:
    add(index, derived("top", "gone", "gone"))
    lineage = ancestors(index, "top")
    assert drawn(lineage) == ["top", "└─ gone (not in this store)"]
    assert lineage.parents[0].record is None
    assert uids(lineage) == ["top"]


def test_children_are_those_of_all_that_a_record_contains(index: Index) -> None:
    add(index, acquired("run"), derived("of-run", "run", later=40), derived("of-asset", "run-r", later=30))
    add(
        index,
        derived("of-datum", "run-r/1", "run-r/0", later=20),
        derived("grandchild", "of-datum", later=50),
    )
    assert uids(children(index, "run")) == ["of-datum", "of-asset", "of-run"]
    assert uids(children(index, "run-r")) == ["of-datum", "of-asset"]
    assert uids(children(index, "run-r/1")) == ["of-datum"]
    assert uids(children(index, "grandchild")) == []
    assert uids(descendants(index, "run-r/1")) == ["of-datum", "grandchild"]
    assert uids(descendants(index, "run")) == ["of-datum", "of-asset", "of-run", "grandchild"]


def test_children_come_before_their_parents_were_indexed(index: Index) -> None:
    add(index, derived("mip", "run-r/0"), acquired("run"))
    assert uids(children(index, "run")) == ["mip"]
    assert uids(ancestors(index, "mip")) == ["mip", "run-r/0"]


def test_prefixes_are_resolved(index: Index) -> None:
    add(index, acquired("run"), derived("mip", "run-r/0"))
    assert ancestors(index, "mi") == ancestors(index, "mip")
    with pytest.raises(UnknownUid):
        children(index, "none")
    with pytest.raises(AmbiguousUid):
        descendants(index, "ru")


def test_a_thousand_steps_are_walked_without_recursion(index: Index) -> None:
    lines = [line for i in range(1001) for line in derived(f"step-{i:04d}", f"step-{i - 1:04d}", later=i)]
    index.add("derived.jsonl", lines, 1)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        lineage = ancestors(index, "step-1000")
        again = ancestors(index, "step-1000")
        assert lineage == again
        assert len(str(lineage).splitlines()) == 1002
        assert repr(lineage) == "<Lineage of step-1000: 1001 records, depth 1001>"
        assert len(descendants(index, "step-0000")) == 1000
        below = lineage
        while below.parents:
            below = below.parents[0]
    finally:
        sys.setrecursionlimit(limit)
    assert lineage.depth == 1001
    assert below.uid == "step--001"


def test_the_tree_says_what_each_record_is(index: Index) -> None:
    add(
        index,
        acquired("0123456789abcdef"),
        derived("fedcba9876543210", "0123456789abcdef-r/1", "0123456789abcdef"),
    )
    top, of_datum, of_run = str(ancestors(index, "fedc")).splitlines()
    assert top.startswith("projection fedcba98 max_z (complete, 1970-01-12 ")
    assert of_datum.startswith("├─ primary/view_a 01234567/1 of 01234567 (complete, 1970-01-12 ")
    assert of_run.startswith("└─ acquire_volume 01234567 (complete, 1970-01-12 ")


def test_what_documents_say_can_move_no_cursor_and_inject_no_html(index: Index) -> None:
    add(index, derived("top", "<script>\x1b[2J\n", data_type="<b>\x1b[31m", later=1e300))
    lineage = ancestors(index, "top")
    assert "\x1b" not in str(lineage)
    assert len(str(lineage).splitlines()) == 2
    html = lineage._repr_html_()
    assert html.startswith("<pre")
    assert "&lt;b&gt;" in html
    assert "<script>" not in html
