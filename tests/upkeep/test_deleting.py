"""Pixels that are deleted lie in the trash, come back or are purged; what is protected stays; documents always do."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from memory_left import clear
from nights import acquire, event_file, folder_of

from gently_bluesky import Store
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.errors import (
    AssetDeleted,
    AssetPurged,
    ClockJumped,
    InputError,
    InvalidSetting,
    Protected,
    StorageError,
    StoreReadOnly,
    UnknownUid,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.upkeep.conversion_plan import ConversionPlan
from gently_bluesky.upkeep.logbook import LOGBOOK, Logbook
from gently_bluesky.upkeep.sweeping import PLAN
from gently_bluesky.upkeep.trash import TRASH

ANYWAY = ("unverified", "children")
Nights = Callable[[Path, str, str], str]


@pytest.fixture(params=["zarr-datum", "zarr-stream", "tiff-datum", "tiff-stream"])
def form(request: pytest.FixtureRequest) -> tuple[str, str]:
    format, _, assets = request.param.partition("-")
    return format, assets


@pytest.fixture
def night(tmp_path: Path, nights: Nights) -> Iterator[tuple[Store, str]]:
    """A store with a run, a projection of it and a count; and the run's uid."""
    uid = nights(tmp_path / "store", "zarr", "datum")
    with Store(tmp_path / "store") as store:
        yield store, uid
    clear(tmp_path / "store")


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in (root / "runs").rglob("*") if path.is_file()}


# -- there, gone, and back ---------------------------------------------------------------------------------


def test_what_is_deleted_comes_back_as_it_was(tmp_path: Path, nights: Nights, form: tuple[str, str]) -> None:
    root = tmp_path / "store"
    uid = nights(root, *form)
    with Store(root) as store, Store(root, mode="r") as reader:
        before, opened = files(root), reader[uid]["view_a"]
        filled = dict(reader[uid].documents(fill=True))["event"]["data"]["view_a"]
        pixels, held = np.asarray(store[uid]["view_a"]), store.stats()["nbytes"]
        gone = store.delete(uid, reason="room", although=ANYWAY)
        assert {one.uid for one in gone} == {asset.uid for asset in store.assets(uid)}
        assert sum(one.nbytes for one in gone) > 0
        assert [one.events for one in gone] == [4, 4]  # the one that a rewind superseded too
        for array in (
            lambda: opened,
            lambda: filled,
            lambda: store[uid]["view_a"],
            lambda: store.array(gone[0].uid),
            lambda: dict(store[uid].documents(fill=True)),
        ):
            with pytest.raises(AssetDeleted, match=r"were deleted on .*: room; .*store.restore\("):
                np.asarray(array())
        assert list(store[uid]["primary"]["n"]) == [1, 2, 3]  # values stay
        assert store.stats()["nbytes"] < held
        assert [record.uid for record in reader.query(deleted=True)] == [uid]
        assert uid not in {record.uid for record in reader.query(deleted=False)}
        assert len(store.children(uid)) == 2
        assert store.verify(progress=False).ok
        back = store.restore(uid)
        assert {one.uid for one in back} == {one.uid for one in gone}
        assert files(root) == before
        assert np.array_equal(opened, pixels)
        assert not (root / TRASH).exists() or not list((root / TRASH).iterdir())
        assert store.tombstone(uid) is None
        assert store.record(uid).deleted is None


def test_what_is_purged_leaves_a_tombstone_that_a_new_index_knows(night: tuple[Store, str]) -> None:
    store, uid = night
    start = dict(store[uid].start)
    store.delete(uid, reason="room", although=ANYWAY, keep_days=0)
    store.purge()
    with pytest.raises(AssetPurged, match=r"purged on .*store.tombstone\("):
        np.asarray(store[uid]["view_b"][0])
    with pytest.raises(AssetPurged):
        list(store[uid].documents(fill=True))
    assert dict(store[uid].documents())["start"] == start
    store.close()
    (store.root / "index.sqlite").unlink()
    with Store(store.root) as again:
        stone = again.tombstone(uid)
        assert stone is not None
        assert (stone.reason, stone.start, stone.events) == ("room", start, 8)
        assert stone.purged is not None
        assert again.tombstone(again.assets(uid)[0].uid).digest.startswith("crc32c:")
        assert str(again.lineage(again.children(uid)[0].uid)).count(uid[:8]) == 1
        assert again.last_reconciliation.needs_attention is False
        with pytest.raises(InputError, match=r"run .* was purged .*: its pixels are gone"):
            again.restore(uid)
        with pytest.raises(InputError, match="is deleted already, since"):
            again.delete(uid, reason="again", although=ANYWAY)


def test_one_array_goes_and_the_other_stays(night: tuple[Store, str]) -> None:
    store, uid = night
    first, second = store.assets(uid)
    store.delete(first.uid, reason="view A was dark", although=ANYWAY)
    with pytest.raises(AssetDeleted):
        np.asarray(store[uid]["view_a"])
    assert np.asarray(store[uid]["view_b"]).any()
    assert store.record(uid).deleted is None
    assert store.record(first.uid).deleted == store.record(f"{first.uid}/0").deleted is not None
    store.delete(uid, reason="and view B", although=ANYWAY)
    assert len(store.trash()) == 2
    assert [one.reason for one in store.trash() if one.uid == second.uid] == ["and view B"]
    store.restore(first.uid)
    assert np.asarray(store[uid]["view_a"]).any()
    assert [one.uid for one in store.trash()] == [second.uid]


def test_the_trash_is_emptied_of_what_was_kept_for_long_enough(night: tuple[Store, str]) -> None:
    store, uid = night
    first, second = store.assets(uid)
    store.delete(first.uid, reason="a", although=ANYWAY, keep_days=0)
    store.delete(second.uid, reason="b", although=ANYWAY)
    assert [one.uid for one in store.purge()] == [first.uid]
    assert store.purge() == []
    assert [one.uid for one in store.purge(second.uid, now=True)] == [second.uid]
    assert not (store.root / TRASH).exists() or not list((store.root / TRASH).iterdir())


def test_a_clock_that_cannot_be_right_purges_nothing_unless_it_is_asked_for_by_name(
    night: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uid = night
    store.delete(uid, reason="room", although=ANYWAY)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 300 * 86_400)
    with pytest.raises(ClockJumped, match="nothing was deleted"):
        store.purge()
    assert len(store.trash()) == 2
    assert len(store.purge(uid, now=True)) == 2


def test_a_clock_that_is_behind_deletes_nothing(
    night: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uid = night
    store.pin(uid, reason="now")
    store.unpin(uid)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 100 * 86_400)
    with Store(store.root) as behind, pytest.raises(ClockJumped, match="was put on record at"):
        behind.delete(uid, reason="x", although=ANYWAY, keep_days=30)


def test_what_a_result_is_being_made_of_stays_whatever_is_waived(night: tuple[Store, str]) -> None:
    store, uid = night
    making = HandMadeRun(lineage={"parents": [uid]}, data_type="mip")
    with store.writer() as writer:
        writer("start", making.start)
        with pytest.raises(Protected, match=r"a result is being made from it.*wait until that has ended"):
            store.delete(uid, reason="x", although=ANYWAY)
        writer("stop", making.stop())
    assert store.delete(uid, reason="x", although=ANYWAY)


def test_a_store_that_is_only_read_deletes_nothing(night: tuple[Store, str]) -> None:
    store, uid = night
    with Store(store.root, mode="r") as reader:
        for refused in (
            lambda: reader.delete(uid, reason="x", although=ANYWAY),
            lambda: reader.pin(uid, reason="x"),
            lambda: reader.restore(uid),
            reader.purge,
        ):
            with pytest.raises(StoreReadOnly):
                refused()


def test_a_reader_without_an_index_knows_what_was_deleted(night: tuple[Store, str]) -> None:
    store, uid = night
    store.pin(store.children(uid)[0].uid, reason="figure")
    store.delete(uid, reason="room", although=ANYWAY)
    store.close()
    (store.root / "index.sqlite").unlink()
    with Store(store.root, mode="r") as reader:
        assert len(reader.trash()) == 2
        assert reader.record(uid).deleted is not None
        assert [pin.reason for pin in reader.pins()] == ["figure"]


# -- what is protected -------------------------------------------------------------------------------------


def test_what_is_protected_stays_until_that_is_waived(night: tuple[Store, str]) -> None:
    store, uid = night
    before = files(store.root)
    with pytest.raises(
        Protected, match=r"not verified .*; 2 results made from it are there .*\['unverified', 'ch"
    ):
        store.delete(uid, reason="room")
    store.verify(uid, progress=False)
    with pytest.raises(Protected, match=r"say although=\['children'\]"):
        store.delete(uid, reason="room")
    store.pin(uid, reason="figure 2")
    with pytest.raises(Protected, match=r"was pinned .*: figure 2; nothing was deleted"):
        store.delete(uid, reason="room", although=["children"])
    store.unpin(uid, reason="published")
    with pytest.raises(InputError, match="is not"):
        store.unpin(uid)
    assert files(store.root) == before
    store.delete(uid, reason="room", although=["children"])
    for child in store.children(uid):
        if child.shape is None and store.assets(child.uid):
            store.delete(child.uid, reason="room", although=["unverified"])


def test_parents_are_free_when_what_was_made_of_them_is_deleted(night: tuple[Store, str]) -> None:
    store, uid = night
    (projection,) = (one for one in store.children(uid) if store.assets(one.uid))
    raw = acquire(store)
    mip = store.put(np.eye(40, dtype="u2"), data_type="projection", parents=[raw])
    with pytest.raises(Protected, match="1 result made from it is there"):
        store.delete(raw, reason="room", although=["unverified"])
    store.delete(mip.uid, reason="wrong", although=["unverified"])
    store.delete(raw, reason="room", although=["unverified"])
    assert projection.deleted is None


def test_damage_that_was_found_protects(night: tuple[Store, str]) -> None:
    store, uid = night
    path = event_file(store, uid, 1)
    path.write_bytes(path.read_bytes()[:-3])
    assert not store.verify(uid, progress=False).ok
    with pytest.raises(Protected, match="what is wrong with it was found"):
        store.delete(uid, reason="room", although=ANYWAY)
    assert store.delete(uid, reason="beyond repair", although=[*ANYWAY, "damaged"])


def test_a_run_that_is_written_and_one_that_is_incomplete_stay(night: tuple[Store, str]) -> None:
    store, _ = night
    writer = store.writer()
    run = HandMadeRun()
    described = run.descriptor(view_a={})
    writer("start", run.start)
    writer("descriptor", described)
    writer("event", run.event(described, 1, view_a=np.ones((3, 4), "u2")))
    store[run.uid].wait("primary", "view_a", 1)
    with pytest.raises(InputError, match="is being written"):
        store.delete(run.uid, reason="room", although=ANYWAY)
    writer.close()
    assert store[run.uid].status == "incomplete"
    with pytest.raises(Protected, match="it is incomplete"):
        store.delete(run.uid, reason="room", although=ANYWAY)
    assert store.delete(run.uid, reason="room", although=[*ANYWAY, "incomplete"])


def test_what_was_pinned_in_the_trash_stays_there(night: tuple[Store, str]) -> None:
    store, uid = night
    store.delete(uid, reason="room", although=ANYWAY, keep_days=0)
    store.pin(uid, reason="figure 2 after all")
    assert store.purge() == store.purge(now=True) == []
    store.restore(uid)
    assert np.asarray(store[uid]["view_a"]).any()


def test_the_only_copy_on_disk_of_what_is_in_memory_is_not_purged(night: tuple[Store, str]) -> None:
    store, uid = night
    with pytest.raises(InvalidSetting, match="do not survive a restart"):
        store.convert(uid, format="memory", keep_original=False, progress=False)
    assert store.convert(uid, format="memory", progress=False).ok
    assert store.purge(now=True) == []
    assert len(store.trash()) == 2
    assert store.convert(uid, format="zarr", progress=False).ok
    assert len(store.purge(now=True)) == 2


def test_what_lies_in_the_folder_of_another_run_is_not_of_this_one(night: tuple[Store, str]) -> None:
    store, uid = night
    resource = next(doc for name, doc in store[uid].documents() if name == "resource")
    run = HandMadeRun()
    described = run.descriptor(view_a={"external": "FILESTORE:", "shape": [3, 40, 50], "dtype_numpy": "<u2"})
    again = {**resource, "uid": "again", "run_start": run.uid}
    datum = {"datum_id": "again/0", "resource": "again", "datum_kwargs": {"point_number": 0}}
    event = {**run.event(described, 1, view_a="again/0"), "filled": {"view_a": False}}
    with store.writer() as writer:
        for name, doc in (
            ("start", run.start),
            ("descriptor", described),
            ("resource", again),
            ("datum", datum),
            ("event", event),
            ("stop", run.stop()),
        ):
            writer(name, doc)
    with pytest.raises(InputError, match="no pixels on disk"):
        store.delete(run.uid, reason="x", although=[*ANYWAY, "incomplete"])
    assert np.asarray(store[uid]["view_a"]).any()


def test_a_refusal_leaves_the_mark_of_a_run_whose_process_died(night: tuple[Store, str]) -> None:
    store, uid = night
    mark = folder_of(store, uid) / ".live"
    mark.write_bytes(bytes(4096))
    with pytest.raises(Protected):
        store.delete(uid, reason="x")
    assert mark.exists()
    store.reconcile()
    assert not mark.exists()


def test_a_conversion_finishes_a_deletion_that_died_beside_another_conversion(
    night: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uid = night
    folder = folder_of(store, uid)
    first, second = (store[uid][key].uid for key in ("view_a", "view_b"))
    monkeypatch.setattr("gently_bluesky.upkeep.run_lock.place", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.delete(second, reason="x", although=ANYWAY)
    monkeypatch.undo()
    place = store.record(first).path
    plan = ConversionPlan(first, place, "GENTLY_ZARR", "primary-view_a", "GENTLY_TIFF", None)
    plan.write(folder)
    assert (folder / "primary-view_b.ome.zarr").exists()
    assert store.convert(first, format="tiff", progress=False).ok
    assert not (folder / "primary-view_b.ome.zarr").exists()
    assert not (folder / ".live").exists()
    assert np.asarray(store[uid]["view_a"]).any()
    store.restore(second)
    assert np.asarray(store[uid]["view_b"]).any()


# -- other processes, with an index of their own -----------------------------------------------------------


@pytest.fixture
def two(night: tuple[Store, str], tmp_path: Path) -> Iterator[tuple[Store, Store, str]]:
    """The store once more, as a process with another index has it."""
    store, uid = night
    with Store(store.root, index=f"sqlite:///{tmp_path / 'another.sqlite'}") as other:
        yield store, other, uid


def test_what_an_index_does_not_know_is_not_purged_as_if_its_folder_were_gone(
    two: tuple[Store, Store, str],
) -> None:
    store, other, _ = two
    uid = acquire(other)
    other.delete(uid, reason="x", although=ANYWAY)
    with pytest.raises(InputError, match=r"not in this index.*reconcile the store first"):
        store.purge(now=True)
    other.pin(uid, reason="after all")
    store.reconcile()
    assert store.purge(now=True) == []
    other.restore(uid)
    assert np.asarray(other[uid]["view_a"]).any()


@pytest.mark.parametrize("kind", ["small", "array"])
def test_a_result_that_another_index_knows_protects_what_it_was_made_from(
    two: tuple[Store, Store, str], kind: str
) -> None:
    store, other, _ = two
    uid = acquire(store)
    other.reconcile()
    result = np.zeros((70, 80, 90), "u2") if kind == "array" else {"dividing": 3}
    made = other.put(result, data_type="dividing", parents=[uid])
    assert not list(store.query(data_type="dividing"))
    with pytest.raises(Protected, match=rf"result made from it is there \({made.run_uid[:8]}\)"):
        store.delete(uid, reason="room", although=["unverified"])
    assert [one.uid for one in store.query(data_type="dividing")] == [made.run_uid]
    assert not store.reconcile().changes


def test_what_is_being_written_elsewhere_and_what_was_rewritten_there_is_left_alone(
    two: tuple[Store, Store, str],
) -> None:
    store, other, uid = two
    kept = acquire(other)
    store.reconcile()
    other.convert(kept, format="tiff", progress=False)
    for name in ("damaged", "strange"):
        folder = store.root / f"runs/2026/01/01/120000_none_{name}"
        folder.mkdir(parents=True)
        text = {"damaged": "{}\nno line\n{}\n", "strange": '{"name": "stop", "doc": {}}\n'}[name]
        (folder / "documents.jsonl").write_text(text)
    with other.writer() as writer:
        run = HandMadeRun(scan_id=9)
        writer("start", run.start)
        store.delete(uid, reason="room", although=ANYWAY)
        assert not list(store.query(status="running"))
        writer("stop", run.stop())
    assert store.record(kept).status == "complete"


def test_what_was_deleted_again_is_kept_for_its_new_time(two: tuple[Store, Store, str]) -> None:
    store, other, uid = two
    store.delete(uid, reason="x", although=ANYWAY, keep_days=0)
    other.restore(uid)
    other.delete(uid, reason="x", although=ANYWAY, keep_days=30)
    assert store.purge() == []
    assert len(other.trash()) == 2


@pytest.mark.parametrize("what", ["delete", "purge"])
def test_a_pin_that_comes_while_it_is_looked_at_holds(
    two: tuple[Store, Store, str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store, other, uid = two
    if what == "purge":
        store.delete(uid, reason="x", although=ANYWAY)
    append = Logbook.append

    def pinned_before(book: Logbook, *entries: dict, **more: object) -> None:
        if entries[0]["kind"] == what:
            other.pin(uid, reason="figure 2")
        append(book, *entries, **more)

    monkeypatch.setattr(Logbook, "append", pinned_before)
    with pytest.raises(InputError, match="is pinned; nothing was deleted"):
        store.delete(uid, reason="x", although=ANYWAY) if what == "delete" else store.purge(now=True)
    monkeypatch.undo()
    if what == "purge":
        store.restore(uid)
    assert np.asarray(store[uid]["view_a"]).any()
    assert store.reconcile().changes is False


def test_what_others_deleted_is_not_missing_when_it_is_verified(two: tuple[Store, Store, str]) -> None:
    store, other, uid = two
    other.delete(uid, reason="x", although=ANYWAY)
    assert store.verify(uid, progress=False).ok


def test_an_entry_that_was_taken_back_after_it_was_read_is_forgotten(
    two: tuple[Store, Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other, uid = two
    fsync = os.fsync

    def read_and_fail(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        other.purge()  # follows
        raise OSError(5, "Input/output error")

    store.pin(uid, reason="before")
    monkeypatch.setattr("gently_bluesky.upkeep.logbook.os.fsync", read_and_fail)
    with pytest.raises(StorageError):
        store.unpin(uid)
    store.pin(uid, reason="something longer than what was taken back " * 3)
    for one in (store, other):
        one.verify(progress=False)
        assert [pin.run_uid for pin in one.pins()] == [uid]


def test_one_run_that_is_held_keeps_no_other_from_being_purged(two: tuple[Store, Store, str]) -> None:
    store, _, uid = two
    second = acquire(store)
    for one in (uid, second):
        store.delete(one, reason="x", although=ANYWAY)
    held = LiveFile.take(folder_of(store, uid), make=True)
    assert held is not None
    with pytest.raises(InputError, match=r"1 run could not be purged: .*2 assets were removed"):
        store.purge(now=True)
    held.close(remove=True)
    assert {one.run_uid for one in store.purge(now=True)} == {uid}


def test_a_purge_of_a_run_whose_folder_is_gone_is_finished_by_the_next_opening(
    night: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uid = night
    store.delete(uid, reason="x", although=ANYWAY)
    shutil.rmtree(folder_of(store, uid))
    store.reconcile()
    monkeypatch.setattr("gently_bluesky.upkeep.run_lock.place", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.purge(now=True)
    monkeypatch.undo()
    store.reconcile()
    assert not [path for path in (store.root / TRASH).rglob("*") if path.is_file()]


# -- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reason": " "}, "expected a reason in words"),
        ({"reason": 3}, "expected a reason in words"),
        ({"reason": "half \ud800"}, "expected a reason in words"),
        ({"reason": "x", "although": None}, "expected although to be a list of some of"),
        (
            {"reason": "x", "although": "children"},
            "expected although to be a list of some of children, damaged",
        ),
        ({"reason": "x", "although": ["haste"]}, "expected although to be a list of some of"),
        ({"reason": "x", "keep_days": "7"}, "expected keep_days to be a number"),
        ({"reason": "x", "keep_days": True}, "expected keep_days to be a number"),
        ({"reason": "x", "keep_days": -1}, "expected keep_days to be a number"),
        ({"reason": "x", "keep_days": float("nan")}, "expected keep_days to be a number"),
        ({"reason": "x", "keep_days": float("inf")}, "expected keep_days to be a number"),
    ],
)
def test_absurd_settings_are_refused(night: tuple[Store, str], settings: dict, said: str) -> None:
    store, uid = night
    with pytest.raises(InvalidSetting, match=said):
        store.delete(uid, **settings)
    assert store.trash() == []


def test_what_has_no_pixels_of_its_own_is_refused(night: tuple[Store, str]) -> None:
    store, uid = night
    (count,) = (one for one in store.children(uid) if not store.assets(one.uid))
    with pytest.raises(InputError, match="keeps no pixels of its own"):
        store.delete(count.uid, reason="x", although=ANYWAY)
    with pytest.raises(InputError, match="is that of one event"):
        store.delete(f"{store.assets(uid)[0].uid}/0", reason="x", although=ANYWAY)
    with pytest.raises(UnknownUid):
        store.delete("nothing", reason="x")
    kept = acquire(store, "memory")
    with pytest.raises(InputError, match="materialize them first"):
        store.delete(kept, reason="x", although=ANYWAY)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_trash_that_leads_elsewhere_is_not_followed(night: tuple[Store, str], tmp_path: Path) -> None:
    store, uid = night
    before = files(store.root)
    (tmp_path / "elsewhere").mkdir()
    (store.root / TRASH).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"found a link.*nothing was changed"):
        store.delete(uid, reason="x", although=ANYWAY)
    assert files(store.root) == before
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert store.tombstone(uid) is None
    store.close()
    with Store(store.root) as again:
        assert np.asarray(again[uid]["view_a"]).any()


def test_what_is_forged_in_the_folder_of_a_run_removes_nothing(night: tuple[Store, str]) -> None:
    store, uid = night
    folder = folder_of(store, uid)
    store.close()
    for new in ("..", ".", "documents.jsonl", "primary-view_a.ome.zarr"):
        plan = {
            "uid": "x",
            "old": "runs",
            "old_spec": "GENTLY_TIFF",
            "new": new,
            "spec": "GENTLY_TIFF",
            "entry": None,
        }
        (folder / PLAN).write_text(json.dumps(plan))
        (folder / ".live").write_bytes(bytes(4096))
        with Store(store.root) as again:
            assert np.asarray(again[uid]["view_a"]).any()
            assert not (folder / PLAN).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_in_an_asset_is_moved_and_removed_but_never_followed(
    night: tuple[Store, str], tmp_path: Path
) -> None:
    store, uid = night
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("x")
    (folder_of(store, uid) / "primary-view_a.ome.zarr" / "link").symlink_to(tmp_path / "precious")
    store.delete(uid, reason="x", although=ANYWAY)
    store.purge(now=True)
    assert (tmp_path / "precious" / "data").read_text() == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_an_asset_that_is_a_link_is_left_alone_and_so_is_what_it_leads_to(night: tuple[Store, str]) -> None:
    store, uid = night
    linked = acquire(store)
    for key in ("view_a", "view_b"):
        asset = folder_of(store, linked) / f"primary-{key}.ome.zarr"
        shutil.rmtree(asset)
        asset.symlink_to(folder_of(store, uid) / asset.name)
    with pytest.raises(InputError, match="no pixels on disk in this store"):
        store.delete(linked, reason="x", although=ANYWAY)
    assert np.asarray(store[uid]["view_a"]).any()


def test_what_cannot_be_moved_is_where_it_was(
    night: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uid = night
    before, rename = files(store.root), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if "view_b" in self.name and TRASH in Path(target).parts:
            raise PermissionError(13, "somebody has it open")  # as Windows says
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="could not be moved to the trash; nothing was deleted"):
        store.delete(uid, reason="x", although=ANYWAY)
    assert files(store.root) == before
    assert store.trash() == []
    assert np.asarray(store[uid]["view_a"]).any()
    store.close()
    with Store(store.root) as again:
        assert not again.last_reconciliation.changes
        assert again.trash() == []


def test_a_restoration_onto_something_else_leaves_both(night: tuple[Store, str]) -> None:
    store, uid = night
    folder = folder_of(store, uid)
    store.delete(uid, reason="x", although=ANYWAY)
    (folder / "primary-view_a.ome.zarr").mkdir()
    with pytest.raises(StorageError, match="could not be moved out of the trash"):
        store.restore(uid)
    store.close()
    (folder / "primary-view_a.ome.zarr").rmdir()
    with Store(store.root) as again:
        assert np.asarray(again[uid]["view_a"]).any()
        assert np.asarray(again[uid]["view_b"]).any()
        assert again.trash() == []


def test_a_trash_that_somebody_emptied_by_hand_is_purged(night: tuple[Store, str]) -> None:
    store, uid = night
    store.delete(uid, reason="x", although=ANYWAY)
    (store.root / TRASH).rename(store.root / "away")
    for ask in (
        lambda: store.restore(uid),
        lambda: store.purge(now=True),
    ):  # it may be a disk that is not mounted
        with pytest.raises(StorageError, match=r"nothing (is there|was purged).*put .* back"):
            ask()
    (store.root / "away").rename(store.root / TRASH)
    store.restore(uid)
    store.delete(uid, reason="x", although=ANYWAY)
    shutil.rmtree(store.root / TRASH)
    (store.root / TRASH).mkdir()
    assert len(store.purge(now=True)) == 2
    with pytest.raises(AssetPurged):
        np.asarray(store[uid]["view_a"])


def test_entries_that_say_nothing_are_passed_over(night: tuple[Store, str]) -> None:
    store, uid = night
    folder = store.record(uid).path.rpartition("/")[0]
    asset = {"uid": "x", "path": f"{folder}/primary-view_a.ome.zarr", "trash": "trash/x"}
    book = Logbook(store.root)
    ways_out = (f"trash/../{folder}", folder, "trash", "trash//", f"trash/./../{folder}", "trash\\..\\runs")
    book.append(
        {"kind": "delete"},
        {"kind": "delete", "run": uid, "folder": folder, "assets": [{**asset, "path": "../../etc"}]},
        {"kind": "delete", "run": uid, "folder": folder, "assets": [{**asset, "path": "index.sqlite"}]},
        {"kind": "delete", "run": uid, "folder": "", "assets": [asset]},
        {"kind": "delete", "run": uid, "folder": folder, "assets": [asset], "time": "yesterday"},
        *(
            {"kind": "purge", "run": uid, "folder": folder, "assets": [{**asset, "trash": way}]}
            for way in ways_out
        ),
        {"kind": "restore", "run": uid, "folder": "..", "assets": 3},
        {"kind": "pin"},
        {"kind": "later", "run": uid},
    )
    store.close()
    with Store(store.root) as again:
        assert (again.trash(), again.pins()) == ([], [])
        assert np.asarray(again[uid]["view_a"]).any()
        again.pin(uid, reason="still works")
        assert len(again.pins()) == 1


def test_a_damaged_logbook_is_told_and_the_store_opens(night: tuple[Store, str]) -> None:
    store, uid = night
    for number in range(3):
        store.pin(uid, reason=f"{number}")
    store.close()
    path = store.root / LOGBOOK
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"{" + os.urandom(4).hex().encode() + b"\n"
    path.write_bytes(b"".join(lines))
    (store.root / "index.sqlite").unlink()
    with pytest.warns(RuntimeWarning, match=LOGBOOK), Store(store.root) as again:
        assert np.asarray(again[uid]["view_a"]).any()
