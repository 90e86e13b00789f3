"""Materialising: what was kept in memory is on disk, and nobody who asks by uid can tell."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from event_model import Filler
from memory_left import clear, segments_of

from gently_bluesky import Store, handler_registry
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.documents.live import LiveFile, is_live
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    InputError,
    InvalidSetting,
    StoreReadOnly,
    UnknownUid,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame
from gently_bluesky.upkeep.sweeping import PLAN

SHAPE = (3, 40, 50)
FORMATS = ["zarr", "tiff"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store; what is in memory of it goes after the test."""
    yield tmp_path / "store"
    clear(tmp_path / "store")


def record(store: Store, events: int = 4, *, stop: bool = True, keys: tuple[str, ...] = ("view_a",)) -> str:
    """Keep a run in memory, of which the second event is repeated by a rewind."""
    run = HandMadeRun(session="night", embryo="e3")
    descriptor = run.descriptor(**{key: {} for key in keys}, n={"dtype": "number"})
    with store.writer(format="memory") as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(events):
            frames = {key: encoded_frame(SHAPE, "<u2", key=key, event=event) for key in keys}
            writer("event", run.event(descriptor, max(event, 1), n=event, **frames))
        if stop:
            writer("stop", run.stop())
    return run.uid


def check(array: Any, events: list[int], key: str = "view_a") -> None:
    frames = np.asarray(array)
    assert len(frames) == len(events)
    for frame, event in zip(frames, events, strict=True):
        check_frame(frame, key=key, event=event)


def journal_of(store: Store, uid: str) -> Path:
    return store.root / store.record(uid).path


def answers(store: Store, uid: str) -> list[object]:
    """All that a store says of a run by its uids, but for how its pixels are kept."""
    said: list[object] = [store.record(uid), str(store.lineage(uid)), store.children(uid)]
    for kind in ("asset", "datum"):
        for found in store.query(kind=kind):
            if found.run_uid == uid:
                about = (found.stream, found.data_key, found.seq_num, found.shape, found.dtype, found.dims)
                said += [found.uid, about, found.time, np.asarray(store.array(found.uid)).tobytes()]
    run = store[uid]
    said += [run.status, run.start, run.stop, list(run["primary"].events)]
    return said


# -- what changes and what does not ------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_nobody_who_asks_by_uid_can_tell(store, format):
    uid = record(store)
    array = store[uid]["primary"]["view_a"]
    store.put(array[0].max(axis=0), data_type="projection", parents=[array[0].uid], operation="max_z")
    before = answers(store, uid)

    said = store.materialize(uid, format=format)

    assert said == store.record(uid)
    assert answers(store, uid) == before
    check(store[uid]["primary"]["view_a"], [1, 2, 3])
    check(store.array(array.uid), [0, 1, 2, 3])
    assert store.record(array.uid).format == f"GENTLY_{format.upper()}"
    assert segments_of(store.root) == []


@pytest.mark.parametrize("format", FORMATS)
def test_every_line_of_the_journal_but_that_of_the_asset_stays_as_it_is(store, format):
    uid = record(store)
    before = journal_of(store, uid).read_bytes().splitlines()
    store.materialize(uid, format=format)
    after = journal_of(store, uid).read_bytes().splitlines()
    (changed,) = [number for number, line in enumerate(before) if line != after[number]]
    assert len(after) == len(before)
    was, now = (orjson.loads(lines[changed]) for lines in (before, after))
    assert now["name"] == was["name"] == "resource"
    assert now.pop("crc32c") != was.pop("crc32c")
    assert was["doc"].pop("spec") == "GENTLY_MEMORY"
    assert now["doc"].pop("spec") == f"GENTLY_{format.upper()}"
    (made_from,) = now["doc"]["resource_kwargs"].pop("made_from")
    assert (made_from["spec"], made_from["asked"]["format"]) == ("GENTLY_MEMORY", format)
    assert now["doc"]["resource_kwargs"].pop("sync") == "event"
    kept = was["doc"]["resource_kwargs"]
    assert kept.pop("sync") == "never"
    assert {name: now["doc"]["resource_kwargs"][name] for name in kept} == kept
    for doc in (was["doc"], now["doc"]):
        del doc["resource_path"], doc["resource_kwargs"]
    assert now == was


def test_new_journal_is_never_as_long_as_the_old_one(store, tmp_path, monkeypatch):
    """By its length an index that was not told, because somebody died, sees that it is another one."""
    monkeypatch.setattr("gently_bluesky.upkeep.conversion.time", SimpleNamespace(time=lambda: 1e9))
    uid = record(store)
    store.close()
    shutil.copytree(store.root, tmp_path / "trial")
    with Store(tmp_path / "trial") as trial:
        trial.materialize(uid)
        lines = journal_of(trial, uid).read_bytes().splitlines()
        length = len(next(line for line in lines if b"GENTLY_ZARR" in line))
    with Store(store.root) as again:
        journal = journal_of(again, uid)
        lines = journal.read_bytes().splitlines()
        journal.write_bytes(
            b"".join(line.ljust(length if b"GENTLY_MEMORY" in line else 0) + b"\n" for line in lines)
        )
    with Store(store.root) as again:
        before = journal.stat().st_size
        again.materialize(uid)
        assert journal.stat().st_size == before + 1
        check(again[uid]["primary"]["view_a"], [1, 2, 3])


def test_outsider_finds_the_copy_as_any_other(store):
    import zarr

    uid = record(store)
    store.materialize(uid)
    (path,) = store.root.glob("runs/*/*/*/*/primary-view_a.ome.zarr")
    group = zarr.open_group(path, mode="r")
    check(group["0"][:], [0, 1, 2, 3])
    origin = group.attrs["gently_bluesky"]["origin"]
    assert (origin["run"], origin["stream"], origin["data_key"]) == (uid, "primary", "view_a")
    assert group.attrs["gently_bluesky"]["event_time_s"] == [
        line.doc["time"] for line in read_journal(journal_of(store, uid)) if line.name == "event"
    ]


def test_axes_steps_and_views_come_along(store, acquire):
    views = np.stack([encoded_frame(SHAPE, "<u2", event=event) for event in range(2)])
    uid = acquire(store, [{"views": views}] * 2, backend="memory")
    before = store[uid]["views"]
    store.materialize(uid)
    after = store[uid]["views"]
    assert (after.dims, after.scale, after.units) == (before.dims, before.scale, before.units)
    assert after.scale[-3:] == (1.5, 0.1625, 0.25)
    np.testing.assert_array_equal(np.asarray(after[1]), views)


@pytest.mark.parametrize("dtype", ["|b1", "<i8", "<f2", "<c8"])
@pytest.mark.parametrize("format", FORMATS)
def test_any_dtype_comes_along(store, acquire, format, dtype):
    frames = [encoded_frame((9, 11), dtype, event=event) for event in range(3)]
    uid = acquire(store, [{"view": frame} for frame in frames], backend="memory")
    store.materialize(uid, format=format)
    after = store[uid]["view"]
    assert after.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(after), np.stack(frames))


def test_copy_is_packed_as_asked_for_and_says_why(store):
    uid = record(store)
    store.materialize(uid, chunks="auto", compression="auto", levels=2)
    array = store[uid]["primary"]["view_a"]
    packing = store.record(array.uid).metadata["packing"]
    assert packing["levels"] == 2
    assert "volume, chosen because" in packing["why"]
    assert "chosen because a sample shrank" in packing["why"]
    check(array, [1, 2, 3])


def test_one_asset_of_several_can_be_materialised_alone(store):
    uid = record(store, keys=("view_a", "view_b"))
    view_a, view_b = (store[uid]["primary"][key].uid for key in ("view_a", "view_b"))
    assert store.materialize(view_b) == store.record(view_b)
    assert store.record(view_a).format == "GENTLY_MEMORY"
    assert store.record(view_b).format == "GENTLY_ZARR"
    assert len(segments_of(store.root)) == 1
    store.materialize(uid, format="tiff")
    assert store.record(view_a).format == "GENTLY_TIFF"
    for key in ("view_a", "view_b"):
        check(store[uid]["primary"][key], [1, 2, 3], key)
    assert segments_of(store.root) == []


def test_result_that_was_put_into_memory_can_be_materialised(store):
    uid = record(store)
    array = store[uid]["primary"]["view_a"]
    put = store.put(
        np.asarray(array[0]) * 2,
        data_type="double",
        parents=[array[0].uid],
        operation="twice",
        format="memory",
    )
    store.materialize(put.uid)
    np.testing.assert_array_equal(np.asarray(store.get(put.uid)), np.asarray(array[0]) * 2)
    assert [parent.uid for parent in (store.record(uid) for uid in store.record(put.uid).parents)] == [
        array[0].uid
    ]
    assert len(segments_of(store.root)) == 1


def test_what_is_open_reads_on(store):
    uid = record(store)
    with Store(store.root, mode="r") as other:
        ours, theirs = store[uid]["primary"]["view_a"], other[uid]["primary"]["view_a"]
        run = other[uid]
        store.materialize(uid)
        for array in (ours, theirs, run["primary"]["view_a"], other[uid]["view_a"]):
            check(array, [1, 2, 3])


def test_documents_that_were_announced_before_can_be_filled_after(store):
    """As by a databroker that was told of the run while it went on."""
    uid = record(store)
    before = list(store[uid].documents())
    store.materialize(uid)
    for documents in (before, list(store[uid].documents())):
        with Filler(handler_registry(), inplace=False) as filler:
            events = [doc for name, doc in (filler(*named) for named in documents) if name == "event"]
        check([np.asarray(event["data"]["view_a"]) for event in events], [0, 1, 2, 3])


def test_index_that_is_built_anew_says_the_same(store):
    uid = record(store)
    store.materialize(uid)
    before = answers(store, uid)
    store.close()
    (store.root / "index.sqlite").unlink()
    with Store(store.root) as again:
        assert answers(again, uid) == before


def test_reader_that_follows_the_journals_notices(store):
    """It has no other index, and must not read the new journal from the middle on."""
    uid = record(store)
    store.close()
    (store.root / "index.sqlite").unlink()
    with Store(store.root, mode="r") as follower:
        asset = follower[uid]["view_a"].uid
        assert follower.record(asset).format == "GENTLY_MEMORY"
        with Store(store.root) as writing:
            writing.materialize(uid)
            events = record(writing)
        follower._index._rest_until = 0.0
        assert follower.record(asset).format == "GENTLY_ZARR"
        assert follower.record(events).status == "complete"
        check(follower[uid]["primary"]["view_a"], [1, 2, 3])


# -- doing it again, and what is refused -------------------------------------------------------------------


def test_doing_it_again_changes_nothing(store):
    uid = record(store)
    store.materialize(uid)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("runs/*/*/*/*/*")}
    assert store.materialize(uid) == store.materialize(uid, format="tiff") == store.record(uid)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("runs/*/*/*/*/*")} == before


def test_run_without_anything_in_memory_is_left_alone(store, acquire):
    uid = acquire(store, [{"view": np.ones((9, 11), "<u2")}])
    value = store.put({"n": 3}, data_type="count")
    before = journal_of(store, uid).read_bytes()
    store.materialize(uid)
    store.materialize(value.uid)
    assert journal_of(store, uid).read_bytes() == before


def test_run_that_is_being_written_is_refused(store):
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    with store.writer(format="memory") as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(2):
            writer(
                "event", run.event(descriptor, view_a=encoded_frame(SHAPE, "<u2", key="view_a", event=event))
            )
            with pytest.raises(InputError, match=r"is being written.*nothing was changed"):
                store.materialize(run.uid)
        writer("stop", run.stop())
    store.materialize(run.uid)
    check(store[run.uid]["view_a"], [0, 1])


def test_run_that_somebody_else_materialises_is_refused(store):
    uid = record(store)
    live = LiveFile.take(journal_of(store, uid).parent, make=True)
    assert live is not None
    with pytest.raises(InputError, match=r"is being written, converted or deleted; nothing was changed"):
        store.materialize(uid)
    live.close(remove=True)
    store.materialize(uid)


@pytest.mark.parametrize("what", ["datum", "memory", "absent", "format", "packing", "chunks", "read only"])
def test_what_cannot_be_materialised_is_refused(store, what):
    uid = record(store)
    datum = store[uid]["view_a"][0].uid
    before = journal_of(store, uid).read_bytes()
    with Store(store.root, mode="r") as reader:
        refused = {
            "datum": (lambda: store.materialize(datum), InputError, "run or an asset"),
            "memory": (lambda: store.materialize(uid, format="memory"), InputError, "on disk"),
            "absent": (lambda: store.materialize("no such uid"), UnknownUid, "no such uid"),
            "format": (lambda: store.materialize(uid, format="hdf5"), InvalidSetting, "hdf5"),
            "packing": (
                lambda: store.materialize(uid, format="tiff", levels=3),
                InvalidSetting,
                "one way|levels",
            ),
            "chunks": (lambda: store.materialize(uid, chunks=(5, 5)), InvalidSetting, "3 axes"),
            "read only": (lambda: reader.materialize(uid), StoreReadOnly, "mode='r'"),
        }
        call, error, message = refused[what]
        with pytest.raises(error, match=message):
            call()
    assert journal_of(store, uid).read_bytes() == before
    only_in_memory(store, uid)
    check(store[uid]["primary"]["view_a"], [1, 2, 3])


# -- what goes wrong ---------------------------------------------------------------------------------------


def only_in_memory(store: Store, uid: str) -> None:
    """Check that a run is as it was, and nothing of an attempt is left."""
    folder = journal_of(store, uid).parent
    assert {entry.name for entry in folder.iterdir()} <= {"documents.jsonl", "primary-view_a.memory", "mine"}
    assert not is_live(folder)
    assert store.record(store[uid]["view_a"].uid).format == "GENTLY_MEMORY"


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_that_are_not_those_that_were_announced_are_not_kept(store, format):
    uid = record(store)
    (segment,) = segments_of(store.root)
    file = segment / "000002.raw"
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(AssetDamaged, match=r"crc32c:.*event 2.*nothing was changed"):
        store.materialize(uid, format=format)
    only_in_memory(store, uid)
    file.write_bytes(content)
    store.materialize(uid, format=format)
    check(store[uid]["primary"]["view_a"], [1, 2, 3])


def test_pixels_that_are_gone_are_missing_and_nothing_changes(store):
    uid = record(store)
    before = journal_of(store, uid).read_bytes()
    clear(store.root)
    with pytest.raises(AssetMissing, match="memory only"):
        store.materialize(uid)
    assert journal_of(store, uid).read_bytes() == before


def test_something_in_the_place_of_the_copy_is_not_touched(store):
    uid = record(store)
    place = journal_of(store, uid).parent / "primary-view_a.ome.zarr"
    place.write_text("mine")
    store.materialize(uid)
    assert place.read_text() == "mine"
    assert (
        store.record(store[uid]["primary"]["view_a"].uid).path.rpartition("/")[2]
        == "primary-view_a-2.ome.zarr"
    )
    check(store[uid]["primary"]["view_a"], [1, 2, 3])


def test_full_disk_leaves_the_run_in_memory(store, monkeypatch):
    """At the journal's replacement; a disk that is really full is met in tests/crash."""
    uid = record(store)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "documents.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.materialize(uid)
    monkeypatch.undo()
    only_in_memory(store, uid)
    check(store[uid]["primary"]["view_a"], [1, 2, 3])
    store.materialize(uid)
    check(store[uid]["primary"]["view_a"], [1, 2, 3])


def test_copied_store_is_materialised_without_taking_the_originals_pixels(store, tmp_path):
    uid = record(store)
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    with Store(copy) as copied:
        copied.materialize(uid)
        check(copied[uid]["primary"]["view_a"], [1, 2, 3])
    with Store(store.root) as original:
        check(original[uid]["primary"]["view_a"], [1, 2, 3])
        original.materialize(uid)
    assert segments_of(store.root) == []


def test_moved_store_is_materialised_where_it_is(store, tmp_path):
    uid = record(store)
    store.close()
    moved = store.root.rename(tmp_path / "moved")
    with Store(moved) as again:
        check(again[uid]["primary"]["view_a"], [1, 2, 3])
        again.materialize(uid)
        check(again[uid]["primary"]["view_a"], [1, 2, 3])
        assert segments_of(moved) == []


def test_plan_that_leads_elsewhere_is_not_followed(store):
    uid = record(store)
    folder = journal_of(store, uid).parent
    mine = folder.parent / "mine"
    mine.write_text("mine")
    asset = store[uid]["view_a"].uid
    plan = {"uid": asset, "old": "primary-view_a.memory", "old_spec": "GENTLY_MEMORY", "entry": None}
    (folder / PLAN).write_text(json.dumps({**plan, "new": "../mine", "spec": "GENTLY_ZARR"}))
    (folder / ".live").touch()
    store.close()
    with Store(store.root) as again:
        check(again[uid]["primary"]["view_a"], [1, 2, 3])
    assert mine.read_text() == "mine"
    assert not (folder / PLAN).exists()
