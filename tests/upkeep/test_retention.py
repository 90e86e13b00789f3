"""Retention of real stores: what a plan says is what happens, and nothing else."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from memory_left import clear

from gently_bluesky import Store, retention
from gently_bluesky.errors import ClockJumped, InvalidSetting, StalePlan, StoreReadOnly
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.retention import Keep, Policy, Rule

DAY_S = 86_400.0
LAST = Policy(rules=[Rule(keep_last=1)], name="last")


def take(
    store: Store, age_days: float = 0, *, exit_status: str = "success", stop: bool = True, **start: object
) -> str:
    """Acquire a run of one frame, so long ago."""
    run = HandMadeRun(**{"session": "night", "scan_id": 1, **start})
    run.start["time"] -= age_days * DAY_S
    descriptor = run.descriptor(camera={})
    writer = store.writer(format="tiff")
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=encoded_frame((8, 9), "<u2")))
    if stop:
        writer("stop", run.stop(exit_status))
        writer.close()
    return run.uid


def reasons(plan) -> dict[str, set[str]]:
    return {one.uid: set(one.why) for one in plan.stays}


def test_what_a_plan_says_goes_and_all_else_stays(store: Store):
    uids = [take(store, 9 - n) for n in range(3)]
    store.verify(progress=False)
    plan = store.retention.plan(LAST)
    assert [one.uid for one in plan.goes] == uids[:2]
    assert plan.goes[0].why == ("not among the last 1",)
    assert plan.nbytes == sum(path.stat().st_size for uid in uids[:2] for path in files_of(store, uid))

    done = store.retention.apply(plan)
    assert sorted(one.run_uid for one in done.deleted) == sorted(uids[:2])
    assert sum(one.nbytes for one in done.deleted) == plan.nbytes
    assert (done.purged, done.left) == ((), {})
    assert [store.record(uid).deleted is None for uid in uids] == [False, False, True]
    stone = store.tombstone(uids[0])
    assert stone is not None
    assert (stone.policy, stone.reason) == ("last", "not among the last 1")
    assert stone.keep_until - stone.time == pytest.approx(7 * DAY_S)
    store.restore(uids[0])
    assert store.verify(progress=False).ok


def files_of(store: Store, uid: str) -> list[Path]:
    folder = (store.root / store.record(uid).path).parent
    return [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]


def test_a_plan_changes_nothing_and_a_store_that_is_read_makes_one(store: Store):
    take(store, 2), take(store)
    store.verify(progress=False)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.jsonl")}
    plan = store.retention.plan(LAST)
    with Store(store.root, mode="r") as reader:
        again = reader.retention.plan(LAST)
        assert (again.fingerprint, again.uids) == (plan.fingerprint, plan.uids)
        with pytest.raises(StoreReadOnly):
            reader.retention.apply(again)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.jsonl")} == before


def test_nothing_that_somebody_has_to_look_at_goes(store: Store):
    uids = {
        "pinned": take(store, 9),
        "incomplete": take(store, 8, exit_status="fail"),
        "damaged": take(store, 7),
        "children": take(store, 6),
        "running": take(store, 5, stop=False),
    }
    store.pin(uids["pinned"], reason="figure 3")
    store.put(np.zeros((4, 4), "u2"), data_type="projection", parents=[store[uids["children"]]["camera"].uid])
    (file,) = files_of(store, uids["damaged"])
    pixels = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as tiff:
        pixels[tiff.pages[0].dataoffsets[0]] ^= 1
    file.write_bytes(pixels)
    store.verify(progress=False)
    uids["unverified"] = take(store, 4)
    plan = store.retention.plan(Policy(rules=[Rule(max_age="1 h", max_size=1, derived=False)]))
    assert plan.goes == ()
    found = {name: reasons(plan)[uid] for name, uid in uids.items()}
    found["running"].discard("unverified")  # which it is where its event came after it was verified
    assert found == {name: {name} for name in uids}
    assert store.retention.apply(plan).deleted == ()


def test_a_run_whose_journal_grew_since_it_was_verified_is_not_verified(store: Store):
    uid = take(store, 2)
    store.verify(progress=False)
    journal = store.root / store.record(uid).path
    line = journal.read_bytes().splitlines(keepends=True)[-1]
    assert store.retention.plan(Policy(rules=[Rule(max_age="1 h")])).uids == {uid}
    logbook = Logbook(store.root)
    (stamp,) = (one for one in logbook.entries("verified") if one["run"] == uid)
    stamp["journal"]["bytes"] -= len(line)
    logbook.append({**stamp, "time": time.time()})
    assert reasons(store.retention.plan(Policy(rules=[Rule(max_age="1 h")])))[uid] == {"unverified"}


def test_what_a_stamp_cannot_tell_is_left_alone_when_it_is_looked_at_exactly(store: Store):
    """A plan compares lengths of journals; deletion reads them."""
    uid, other = take(store, 3), take(store, 2)
    store.verify(progress=False)
    journal = store.root / store.record(uid).path
    journal.write_bytes(journal.read_bytes().replace(b'"night"', b'"nigtt"'))
    plan = store.retention.plan(Policy(rules=[Rule(max_age="1 h")]))
    assert plan.uids == {uid, other}
    done = store.retention.apply(plan)
    assert {one.run_uid for one in done.deleted} == {other}
    assert [*done.left] == [uid]
    assert "left alone" in str(done)
    assert files_of(store, uid)


def test_parents_go_where_a_rule_says_that_results_suffice(store: Store):
    uid = take(store, 3, embryo="e3")
    mip = store.put(np.zeros((4, 4), "u2"), data_type="projection", parents=[uid])
    store.verify(progress=False)
    rule = Rule(max_age="1 day", derived=False, derived_suffice=True)
    assert store.retention.plan(Policy(rules=[Rule(max_age="1 day")])).uids == frozenset()
    plan = store.retention.plan(Policy(rules=[rule]))
    assert plan.goes[0].although == ("children",)
    assert {one.run_uid for one in store.retention.apply(plan).deleted} == {uid}
    assert np.asarray(store.get(mip.uid)).shape == (4, 4)


def test_what_results_were_made_from_goes_by_the_plan_after_theirs(store: Store):
    uid = take(store, 3)
    mip = store.put(np.zeros((4, 4), "u2"), data_type="projection", parents=[uid], format="tiff")
    store.verify(progress=False)
    policy = Policy(rules=[Rule(max_size=1)])
    first = store.retention.plan(policy)
    assert first.uids == {mip.uid}
    assert "wants" in first.remarks[0]
    store.retention.apply(first)
    assert store.retention.plan(policy).uids == {uid}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(session="paper"), "b"),
        (Keep(query={"embryo": "e3"}), "a"),
        (Keep(children="segmentation"), "a"),
        (Keep(session="paper", query={"embryo": "e3"}), ""),
    ],
)
def test_what_the_policy_keeps_stays(store: Store, keep: Keep, kept: str):
    uids = {"a": take(store, 3, embryo="e3"), "b": take(store, 2, session="paper")}
    store.put({"n": 3}, data_type="segmentation", parents=[uids["a"]])
    store.verify(progress=False)
    policy = Policy(rules=[Rule(max_age="1 h", derived_suffice=True)], keep=[keep])
    plan = store.retention.plan(policy)
    assert plan.uids == {uid for name, uid in uids.items() if name != kept}
    assert all("keep" in why for why in reasons(plan).values())


def test_a_query_that_is_none_is_refused(store: Store):
    policy = Policy(rules=[Rule(keep_last=1)], keep=[Keep(query={"since": "long ago"})])
    with pytest.raises(InvalidSetting, match="expected since"):
        store.retention.plan(policy)


def test_what_others_wrote_is_not_touched(store: Store, tmp_path: Path):
    run = HandMadeRun(scan_id=1)
    run.start["time"] -= 9 * DAY_S
    np.save(tmp_path / "image.npy", np.zeros((4, 4)))
    descriptor = run.descriptor(image={"shape": [4, 4], "external": "FILESTORE:"})
    resource = {
        "uid": "res",
        "run_start": run.uid,
        "spec": "NPY_SEQ",
        "root": str(tmp_path),
        "resource_path": "image",
        "resource_kwargs": {},
        "path_semantics": "posix",
    }
    with store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("resource", resource)
        writer("datum", {"datum_id": "res/0", "resource": "res", "datum_kwargs": {"index": 0}})
        writer("event", {**run.event(descriptor, image="res/0"), "filled": {"image": False}})
        writer("stop", run.stop())
    store.verify(progress=False)
    plan = store.retention.plan(Policy(rules=[Rule(max_age="1 h")]))
    assert plan.goes == ()
    assert "elsewhere" in reasons(plan)[run.uid]


# -- stale plans ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["again", "pin", "run", "result", "restored", "verified", "policy"])
def test_a_plan_that_has_gone_stale_is_refused(store: Store, change: str):
    old, trashed = take(store, 9), take(store, 8)
    take(store, 7)
    store.verify(progress=False)
    store.delete(trashed, reason="bad")
    plan = store.retention.plan(LAST)
    assert plan.uids == {old}
    changes: dict[str, Callable[[], object]] = {
        "again": lambda: store.retention.apply(plan),
        "pin": lambda: store.pin(old, reason="it is needed"),
        "run": lambda: take(store),
        "result": lambda: store.put({"n": 1}, data_type="count", parents=[old]),
        "restored": lambda: store.restore(trashed),
        "verified": lambda: (files_of(store, old)[0].unlink(), store.verify(old, progress=False)),
        "policy": lambda: None,
    }
    changes[change]()
    if change == "policy":
        store.retention.apply(plan)  # nothing changed: it stands
        return
    deleted = {one.uid for one in store.trash()}
    with pytest.raises(StalePlan, match="nothing was deleted; make another one"):
        store.retention.apply(plan)
    assert {one.uid for one in store.trash()} == deleted


def test_a_pin_that_this_index_has_not_seen_makes_a_plan_stale(store: Store, tmp_path: Path):
    uid = take(store, 9)
    store.verify(progress=False)
    plan = store.retention.plan(Policy(rules=[Rule(max_age="1 day")]))
    with Store(store.root, index=f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        other.pin(uid, reason="somebody else needs it")
    with pytest.raises(StalePlan):
        store.retention.apply(plan)
    assert store.trash() == []


def test_a_result_that_this_index_has_not_seen_makes_a_plan_stale(store: Store, tmp_path: Path):
    uid = take(store, 9)
    store.verify(progress=False)
    aged = Policy(rules=[Rule(max_age="1 day")])
    plan = store.retention.plan(aged)
    with Store(store.root, index=f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        other.put({"count": 3}, data_type="count", parents=[uid])
    with pytest.raises(StalePlan):
        store.retention.apply(plan)
    assert store.retention.plan(aged).goes == ()


def test_a_plan_stands_while_a_run_goes_on_and_not_when_it_has_ended(store: Store):
    old = take(store, 9)
    store.verify(progress=False)
    run = HandMadeRun(session="night", scan_id=1)
    descriptor = run.descriptor(camera={})
    announced = threading.Event()
    with store.writer() as writer:
        writer.subscribe(lambda name, doc: announced.set() if name == "event" else None)
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=encoded_frame((8, 9), "<u2")))
        assert announced.wait(30)
        plan = store.retention.plan(LAST)
        writer("event", run.event(descriptor, camera=encoded_frame((8, 9), "<u2")))
        assert {one.run_uid for one in store.retention.apply(plan).deleted} == {old}
        plan = store.retention.plan(LAST)
        writer("stop", run.stop())
    with pytest.raises(StalePlan):
        store.retention.apply(plan)


# -- the trash -----------------------------------------------------------------------------------------------


def test_applying_purges_what_has_been_in_the_trash_for_long_enough(store: Store):
    past, kept = take(store, 9), take(store, 8)
    take(store, 7)
    store.verify(progress=False)
    store.delete(past, reason="bad", keep_days=0)
    store.delete(kept, reason="bad", keep_days=1)
    plan = store.retention.plan(LAST)
    assert {one.run_uid for one in plan.purges} == {past}
    assert plan.purged_nbytes == sum(one.nbytes for one in plan.purges) > 0
    done = store.retention.apply(plan)
    assert {one.run_uid for one in done.purged} == {past}
    assert {one.run_uid for one in store.trash()} == {kept}


def test_a_plan_purges_nothing_that_is_pinned(store: Store):
    uid = take(store, 9)
    store.verify(progress=False)
    store.delete(uid, reason="bad", keep_days=0)
    store.pin(uid, reason="after all")
    plan = store.retention.plan(LAST)
    assert plan.purges == ()
    assert plan.in_trash_nbytes > 0


def test_thinning_wants_results_that_are_complete_and_on_disk(store: Store):
    uids = [take(store, 9 - n) for n in range(4)]
    for uid, format in ((uids[1], "memory"), (uids[3], "tiff")):
        store.put(np.eye(5), data_type="mip", parents=[uid], format=format)
    store.verify(progress=False)
    plan = store.retention.plan(Policy(rules=[Rule(thin=2, derived=False, derived_suffice=True)]))
    assert [one.uid for one in plan.goes] == [uids[3]]
    clear(store.root)


def test_applying_purges_no_more_than_its_plan_said(store: Store, monkeypatch: pytest.MonkeyPatch):
    soon = take(store, 9)
    take(store, 7)
    store.verify(progress=False)
    store.delete(soon, reason="bad", keep_days=30 / DAY_S)
    plan = store.retention.plan(LAST)
    now, ticks = time.time, retention._ticks
    monkeypatch.setattr(time, "time", lambda: now() + 40)
    monkeypatch.setattr(retention, "_ticks", lambda: ticks() + 40)
    assert store.retention.apply(plan).purged == plan.purges == ()
    assert [one.run_uid for one in store.retention.plan(LAST).purges] == [soon]


def test_without_days_in_the_trash_the_room_is_regained_at_once(store: Store):
    uid = take(store, 9)
    store.verify(progress=False)
    done = store.retention.apply(store.retention.plan(Policy(rules=[Rule(max_age="1 day")], keep_days=0)))
    assert {one.run_uid for one in done.purged} == {uid}
    assert store.trash() == []


# -- the store's own policy ----------------------------------------------------------------------------------


def test_a_store_has_no_policy_unless_somebody_writes_one(store: Store):
    take(store, 9)
    store.verify(progress=False)
    assert store.retention.policy is None
    with pytest.raises(InvalidSetting, match=r"expected a policy in .*retention\.toml"):
        store.retention.plan()
    assert store.retention.relieve() == ""
    (store.root / "retention.toml").write_text("[[rule]]\nmax_age = '1 day'\n")
    assert store.retention.policy == Policy(rules=[Rule(max_age="1 day")])
    assert len(store.retention.plan().goes) == 1
    with Store(store.root, mode="r") as reader:
        assert len(reader.retention.plan().goes) == 1


def test_more_room_than_the_disk_has_is_refused(store: Store):
    with pytest.raises(InvalidSetting, match="more to be free than the disk"):
        store.retention.plan(Policy(rules=[Rule(min_free="1 PB")]))


# -- the clock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "match"), [(-1, "was put on record at"), (400, "verify the store first")])
def test_a_clock_that_cannot_be_right_deletes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, days: float, match: str
):
    take(store, 9)
    store.verify(progress=False)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * DAY_S)
    with Store(store.root, mode="r") as later, pytest.raises(ClockJumped, match=match) as caught:
        later.retention.plan(Policy(rules=[Rule(max_age="1 day")]))
    assert "nothing was deleted" in str(caught.value)


def test_a_clock_that_is_set_while_a_store_is_open_deletes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    take(store, 9)
    store.verify(progress=False)
    policy = Policy(rules=[Rule(max_age="30 days")])
    plan = store.retention.plan(policy)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 40 * DAY_S)
    for call in (lambda: store.retention.plan(policy), lambda: store.retention.apply(plan)):
        with pytest.raises(ClockJumped, match="was set by"):
            call()


# -- what is used --------------------------------------------------------------------------------------------


def test_usage_is_what_the_files_take(store: Store):
    uids = [
        take(store, 100, embryo="e1"),
        take(store, 2, embryo="e2"),
        take(store, session="day", embryo="e2"),
    ]
    store.verify(progress=False)
    sizes = {uid: sum(path.stat().st_size for path in files_of(store, uid)) for uid in uids}
    usage = store.retention.usage("embryo")
    assert {one.name: (one.runs, one.nbytes) for one in usage.shares} == {
        "e1": (1, sizes[uids[0]]),
        "e2": (2, sizes[uids[1]] + sizes[uids[2]]),
    }
    assert [one.name for one in usage.shares] == ["e2", "e1"]
    by_age = store.retention.usage("age")
    assert [one.name for one in by_age.shares] == ["up to a day", "up to a week", "up to a year"]
    store.delete(uids[0], reason="bad")
    usage = store.retention.usage()
    assert {one.name: one.runs for one in usage.shares} == {"night": 1, "day": 1}
    assert usage.in_trash_nbytes == sizes[uids[0]]
    assert json.loads(json.dumps(usage.to_dict()))["nbytes"] == usage.nbytes
    assert max(map(len, str(usage).splitlines())) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_what_a_link_leads_out_of_the_store_to_is_not_touched(store: Store, tmp_path: Path):
    uid = take(store, 9)
    store.verify(progress=False)
    (file,) = files_of(store, uid)
    (tmp_path / "elsewhere").mkdir()
    file.parent.rename(tmp_path / "elsewhere" / "camera")
    file.parent.symlink_to(tmp_path / "elsewhere" / "camera", target_is_directory=True)
    plan = store.retention.plan(Policy(rules=[Rule(max_age="1 h")]))
    assert plan.goes == ()
    assert reasons(plan)[uid] == {"elsewhere"}
    assert (tmp_path / "elsewhere" / "camera" / file.name).exists()
