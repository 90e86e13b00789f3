"""Conversion: the same arrays before and after, to everybody, or nothing changed; and what they were is put away."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import zarr
from event_model import Filler
from foreign_runs import datum_run, write_tiffs
from memory_left import clear
from nights import EVENTS, SHAPE, acquire, event_file, folder_of

from gently_bluesky import Store, handler_registry
from gently_bluesky.documents.resolver import StreamResolver
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    InputError,
    InvalidSetting,
    StorageFull,
    StoreReadOnly,
    UnknownUid,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

Nights = Callable[[Path, str, str], str]

WAYS = [
    ("zarr", {"format": "tiff"}, "datum"),
    ("tiff", {"format": "zarr"}, "stream"),
    ("zarr", {"chunks": "blocks", "compression": "zstd"}, "stream"),
    ("tiff", {"format": "memory"}, "datum"),
    ("zarr", {"levels": 2, "keep_original": False}, "datum"),
]
"""From which format, what is asked for, and by which documents the arrays are announced."""
CONVERTED = pytest.mark.parametrize(("format", "how", "assets"), WAYS, ids=str)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store; what is in memory of it goes after the test."""
    yield tmp_path / "store"
    clear(tmp_path / "store")


def check(array, key: str, events=(1, 2, 3)) -> None:
    frames = np.asarray(array)
    assert len(frames) == len(events)
    for frame, event in zip(frames, events, strict=True):
        check_frame(frame, key=key, event=event)


def journal_of(store: Store, uid: str) -> Path:
    return folder_of(store, uid) / "documents.jsonl"


def answers(store: Store, uid: str) -> list[object]:
    """All that a store says of a run by its uids, but for how its pixels are kept."""
    said: list[object] = [store.record(uid), str(store.lineage(uid)), store.children(uid), store.pins()]
    for kind in ("asset", "datum"):
        for one in store.query(kind=kind):
            said.append(
                (one.uid, one.stream, one.data_key, one.seq_num, one.shape, one.dtype, one.dims, one.time)
            )
            if one.run_uid == uid:
                said.append(np.asarray(store.array(one.uid)).tobytes())
    run = store[uid]
    return [*said, run.status, run.start, run.stop, [*run["primary"].events]]


# -- what changes and what does not ------------------------------------------------------------------------


@CONVERTED
def test_nobody_who_asks_by_uid_can_tell(nights: Nights, root: Path, format, how, assets) -> None:
    uid = nights(root, format, assets)
    with Store(root) as store, Store(root, mode="r") as other:
        before = answers(store, uid)
        journal = journal_of(store, uid).read_bytes().splitlines()
        opened = [place[uid][key] for place in (store, other) for key in ("view_a", "view_b")]
        documents = list(store[uid].documents())

        said = store.convert(uid, **how, progress=False)

        assert [one.became for one in said.converted] == [how.get("format", format)] * 2
        assert (said.ok, said.left) == (True, ())
        assert answers(store, uid) == answers(other, uid) == before
        for array in opened:
            check(array, array.name)
            assert np.asarray(array).tobytes() == np.asarray(store[uid][array.name]).tobytes()
        lines = journal_of(store, uid).read_bytes().splitlines()
        changed = [now for was, now in zip(journal, lines, strict=True) if was != now]
        names = {"datum": "resource", "stream": "stream_resource"}
        assert [orjson.loads(line)["name"] for line in changed] == [names[assets]] * 2
        for known in (documents, list(store[uid].documents())):
            fill(known, assets)
        report = store.verify(uid, progress=False)
        assert (report.ok, report.events, report.without_digest) == (True, 2 * EVENTS, 0)
        left = {"kept": how.get("keep_original", True), "trash": [one.purged for one in store.trash()]}
        assert left == {"kept": bool(left["trash"]), "trash": [None] * len(left["trash"])}
        assert len(list((root / "trash").glob("runs/*/*/*/*/*"))) == len(left["trash"])
        assert {entry.name for entry in folder_of(store, uid).iterdir()} == {
            "documents.jsonl",
            *(one.path.rpartition("/")[2] for one in said.converted),
        }
    (root / "index.sqlite").unlink()
    with Store(root) as again:
        assert answers(again, uid) == before
        assert again.last_reconciliation is not None
        assert not again.last_reconciliation.needs_attention


def fill(documents, assets: str) -> None:
    """Check the arrays that documents tell of, by what others fill them with."""
    if assets == "datum":
        with Filler(handler_registry(), inplace=False) as filler:
            events = [doc for name, doc in (filler(*named) for named in documents) if name == "event"]
        for event, number in zip(events, range(EVENTS), strict=True):
            for key in ("view_a", "view_b"):
                check_frame(np.asarray(event["data"][key]), key=key, event=number)
        return
    resolver = StreamResolver()
    for name, doc in documents:
        resolver(name, doc)
    keys = {doc["uid"]: doc["data_key"] for name, doc in documents if name == "stream_resource"}
    for name, doc in documents:
        if name == "stream_datum":
            key, number = keys[doc["stream_resource"]], doc["indices"]["start"]
            check_frame(np.asarray(resolver.array(doc))[0], key=key, event=number)


def test_what_it_was_made_from_is_on_record(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        asset = store[uid]["view_a"].uid
        first = store.record(asset)
        store.convert(asset, format="tiff", progress=False)
        store.convert(asset, format="zarr", compression="zstd", progress=False)
        record = store.record(asset)
        was_zarr, was_tiff = record.metadata["made_from"]
        assert (was_zarr["spec"], was_zarr["path"]) == ("GENTLY_ZARR", first.path)
        assert was_zarr["packing"] == first.metadata["packing"]
        assert was_zarr["asked"]["format"] == "tiff"
        assert (was_tiff["spec"], was_tiff["asked"]["compression"]) == ("GENTLY_TIFF", "zstd")
        assert first.time < was_zarr["time"] < was_tiff["time"]
        assert record.path.endswith("primary-view_a-2.ome.zarr"), "an old name would lead who knows it astray"
        assert store.record(store[uid]["view_b"].uid).format == "GENTLY_ZARR"


def test_arrays_are_cut_and_compressed_anew_and_the_rest_stays(root: Path) -> None:
    with Store(root) as store:
        uid = acquire(store, chunks=(1, 20, 25), compression="zstd")
        asset = store[uid]["view_a"].uid
        was = store.record(asset).metadata["packing"]
        store.convert(asset, levels=3, progress=False)
        packing = store.record(asset).metadata["packing"]
        assert (packing["chunks"], packing["levels"], packing["codecs"]) == ([1, 20, 25], 3, was["codecs"])
        group = zarr.open_group(root / store.record(asset).path, mode="r")
        assert sorted(group.array_keys()) == ["0", "1", "2"]
        store.convert(asset, chunks="volume", compression="lz4", progress=False)
        packing = store.record(asset).metadata["packing"]
        assert (packing["chunks"], packing["levels"]) == ([*SHAPE], 3)
        assert packing["codecs"] != was["codecs"]
        check(store[uid]["view_a"], "view_a")


def test_reader_goes_on_while_it_is_converted_to_and_fro(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    done, wrong, looks = threading.Event(), list[BaseException](), [0]

    def look() -> None:
        try:
            with Store(root, mode="r") as reader:
                array = reader[uid]["view_a"]
                while not done.is_set():
                    check(array, "view_a")
                    check(reader[uid]["view_b"], "view_b")
                    looks[0] += 1
        except BaseException as error:
            wrong.append(error)

    with Store(root) as store:
        thread = threading.Thread(target=look)
        thread.start()
        for format in ("tiff", "zarr") * 3:
            store.convert(uid, format=format, keep_original=format == "zarr", progress=False)
            seen = looks[0]
            while looks[0] == seen and thread.is_alive():
                threading.Event().wait(0.001)
        done.set()
        thread.join()
        assert not wrong
        check(store[uid]["view_a"], "view_a")


def test_reader_that_follows_the_journals_reads_on(root: Path) -> None:
    """It has no index that anybody tells, and looks again before it would follow."""
    with Store(root) as store:
        uid = acquire(store)
    (root / "index.sqlite").unlink()
    with Store(root, mode="r") as follower:
        array = follower[uid]["view_a"]
        follower._index._rest_until = float("inf")
        with Store(root) as store:
            store.convert(uid, format="tiff", keep_original=False, progress=False)
        check(array, "view_a")
        check(follower[uid]["view_b"], "view_b")


def test_copy_to_carry_away_is_that_of_the_run(nights: Nights, root: Path, tmp_path: Path) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        store.convert(uid, format="zarr", keep_original=False, progress=False)
        copied = store.export(uid, tmp_path / "copy", format="npy", progress=False)
        assert copied.unchecked == 0
        check(np.load(tmp_path / "copy" / "primary-view_a.npy"), "view_a")


# -- what they were ----------------------------------------------------------------------------------------


def test_what_it_was_is_a_safety_copy_that_is_purged_and_not_restored(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        asset = store[uid]["view_a"].uid
        store.convert(asset, format="tiff", keep_days=1, progress=False)
        (copy,) = store.trash()
        assert (copy.copy_of, copy.run_uid, copy.events) == (asset, uid, EVENTS)
        assert copy.uid != asset
        assert 0 < copy.nbytes == sum(p.stat().st_size for p in (root / copy.trash).rglob("*") if p.is_file())
        assert store.tombstone(asset) is store.tombstone(uid) is store.record(asset).deleted is None
        with pytest.raises(InputError, match="nothing of asset"):
            store.restore(asset)
        assert store.purge() == []
        (gone,) = store.purge(asset, now=True)
        assert gone.purged is not None
        assert not list((root / "trash").rglob("*.zarr"))
        check(store[uid]["view_a"], "view_a")


def test_what_memory_lost_is_made_again_from_what_it_was(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        store.convert(uid, levels=2, progress=False)
        store.purge(now=True)
        store.convert(uid, format="memory", progress=False)
    clear(root)  # as a restart of the machine does
    with Store(root) as store:
        for key in ("view_a", "view_b"):
            with pytest.raises(AssetMissing, match=r"memory only.*lies in the trash.*store\.materialize"):
                np.asarray(store[uid][key])
        store.materialize(uid, format="tiff")
        for key in ("view_a", "view_b"):
            check(store[uid][key], key)
        assert store.verify(uid, progress=False).ok
        assert len(store.purge(now=True)) == 2
        check(store[uid]["view_a"], "view_a")


def test_deleted_after_it_was_converted_it_comes_back_as_it_was_then(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        store.convert(uid, format="tiff", progress=False)
        store.delete(uid, reason="no room", although=["children", "unverified"])
        assert len(store.trash()) == 4
        said = store.convert(uid, format="zarr", progress=False)
        assert not said.converted
        assert all("was deleted" in one.why for one in said.left)
        store.restore(uid)
        assert [one.copy_of for one in store.trash()] == [store[uid][key].uid for key in ("view_a", "view_b")]
        check(store[uid]["view_a"], "view_a")
        assert store.verify(uid, progress=False).ok


def test_coarser_arrays_that_are_open_read_on_where_such_are_kept(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        store.convert(uid, levels=3, progress=False)
        array = store[uid]["view_a"]
        coarse, by = array.coarser(dict.fromkeys("zyx", 4))
        assert set(by.values()) != {1}
        expected = np.asarray(coarse)
        store.convert(uid, chunks="blocks", progress=False)
        store.purge(now=True)
        np.testing.assert_array_equal(np.asarray(coarse), expected)
        store.convert(uid, format="tiff", progress=False)
        with pytest.raises(AssetMissing, match="does not keep the resolution"):
            np.asarray(coarse)
        check(array, "view_a")


# -- again, and on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"format": "tiff"}, {"chunks": "blocks"}], ids=str)
def test_doing_it_again_changes_nothing(nights: Nights, root: Path, how) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store:
        store.convert(uid, **how, progress=False)
        before = {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*") if path.is_file()}
        again = store.convert(uid, **how, progress=False)
        assert (again.converted, [one.is_so for one in again.left]) == ((), [True, True])
        assert {path: path.stat().st_mtime_ns for path in root.glob("runs/**/*") if path.is_file()} == before


def test_broken_off_it_goes_on_with_what_is_left(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    told: list[tuple[int, int]] = []

    def break_off(done: int, total: int, words: str) -> None:
        told.append((done, total))
        if done > 0.7 * total:
            raise KeyboardInterrupt

    with Store(root) as store:
        with pytest.raises(KeyboardInterrupt):
            store.convert([uid], format="tiff", progress=break_off)
        assert sorted(asset.format for asset in store.query(kind="asset") if asset.run_uid == uid) == [
            "GENTLY_TIFF",
            "GENTLY_ZARR",
        ]
        assert {entry.name for entry in folder_of(store, uid).iterdir()} == {
            "documents.jsonl",
            "primary-view_a",
            "primary-view_b.ome.zarr",
        }
        said = store.convert(store.query(), format="tiff", progress=lambda *now: told.append(now[:2]))
        assert [one.data_key for one in said.converted if one.run_uid == uid] == ["view_b"]
        assert told[-1][0] <= told[-1][1]
        for key in ("view_a", "view_b"):
            check(store[uid][key], key)


def test_of_several_runs_those_that_are_well_are_converted(root: Path) -> None:
    with Store(root) as store:
        uids = [acquire(store, "tiff") for _ in range(3)]
        file = event_file(store, uids[1], 2)
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        said = store.convert(store.query(data_type=None), format="zarr", progress=False)
        assert not said.ok
        assert [one.uid for one in said.failed] == [uids[1]]
        assert "crc32c" in said.failed[0].why
        assert {one.run_uid for one in said.converted} == {uids[0], uids[2]}
        assert "failed: " in str(said)
        assert orjson.dumps(said.to_dict())
        with pytest.raises(AssetDamaged, match=r"crc32c.*event 2.*nothing was changed"):
            store.convert(uids[1], format="zarr", progress=False)
        file.write_bytes(content)
        assert store.convert(uids, format="zarr", progress=False).ok
        check(store[uids[1]]["view_a"], "view_a")


# -- what is refused, and what goes wrong ------------------------------------------------------------------


def as_it_was(store: Store, uid: str, journal: bytes, format: str) -> None:
    """Check that a run is as it was, and nothing of an attempt is left."""
    assert journal_of(store, uid).read_bytes() == journal
    suffix = {"zarr": ".ome.zarr", "tiff": ""}[format]
    assert {entry.name for entry in folder_of(store, uid).iterdir()} == {
        "documents.jsonl",
        *(f"primary-{key}{suffix}" for key in ("view_a", "view_b")),
    }
    assert store.trash() == []
    for key in ("view_a", "view_b"):
        check(store[uid][key], key)


REFUSED = {
    "nothing": ({}, InvalidSetting, "got none of them"),
    "format": ({"format": "hdf5"}, InvalidSetting, "hdf5"),
    "levels of tiff": ({"format": "tiff", "levels": 3}, InvalidSetting, "one way"),
    "axes": ({"chunks": (5, 5)}, InvalidSetting, "3 axes"),
    "word": ({"compression": "zip"}, InvalidSetting, "zip"),
    "stream in memory": ({"format": "memory"}, InvalidSetting, "no mimetype.*not converted"),
    "several formats": ({"format": ["zarr"]}, InvalidSetting, "expected a format among"),
    "words for days": ({"format": "tiff", "keep_days": "7"}, InvalidSetting, "a number of days"),
    "days": ({"format": "tiff", "keep_days": -1}, InvalidSetting, "0 or more"),
    "only memory": ({"format": "memory", "keep_original": False}, InvalidSetting, "restart"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_lost(nights: Nights, root: Path, what: str) -> None:
    how, error, message = REFUSED[what]
    uid = nights(root, "zarr", "stream")
    with Store(root) as store, Store(root, mode="r") as reader:
        journal = journal_of(store, uid).read_bytes()
        with pytest.raises(error, match=message):
            store.convert(uid, **how, progress=False)
        with pytest.raises(StoreReadOnly, match="mode='r'"):
            reader.convert(uid, format="tiff")
        with pytest.raises(UnknownUid, match="no such"):
            store.convert("no such", format="tiff")
        as_it_was(store, uid, journal, "zarr")


def test_run_that_is_being_written_is_refused(root: Path) -> None:
    run = HandMadeRun()
    descriptor = run.descriptor(view={})
    with Store(root) as store, store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, view=encoded_frame(SHAPE, "<u2")))
        with pytest.raises(InputError, match=r"is being written.*nothing was changed"):
            store.convert(run.uid, format="tiff")
        writer("stop", run.stop())
        assert store.convert(run.uid, format="tiff").converted


def test_a_disk_without_room_for_the_copy_is_told_before_and_while_it_is_made(
    nights: Nights, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = nights(root, "zarr", "datum")
    usage, looks = shutil.disk_usage(root), 0

    def filling(free_at_first: int, then: int) -> Callable[[object], object]:
        def now(_: object) -> object:
            nonlocal looks
            looks += 1
            return usage._replace(free=free_at_first if looks == 1 else then)

        return now

    with Store(root) as store:
        journal = journal_of(store, uid).read_bytes()
        for at_first, then in ((64 * 2**20, 2**40), (2**40, 0)):
            looks = 0
            with monkeypatch.context() as full:
                full.setattr(shutil, "disk_usage", filling(at_first, then))
                with pytest.raises(
                    StorageFull, match=r"was not converted.*must stay free for runs; make room"
                ):
                    store.convert(uid, format="tiff", progress=False)
            as_it_was(store, uid, journal, "zarr")
        assert store.convert(uid, format="tiff", progress=False).ok


def test_event_is_refused(nights: Nights, root: Path) -> None:
    uid = nights(root, "zarr", "datum")
    with Store(root) as store, pytest.raises(InputError, match="that of one event"):
        store.convert(store[uid]["view_a"][0].uid, format="tiff")


def test_files_of_others_are_left_as_they_are(root: Path, tmp_path: Path) -> None:
    write_tiffs(tmp_path / "ioc", 3)
    how = {"template": "%s%s_%6.6d.tiff", "filename": "img", "frame_per_point": 1}
    documents = datum_run("AD_TIFF", tmp_path, "ioc", how, [{"point_number": n} for n in range(3)])
    with Store(root, allowed_roots=[tmp_path]) as store:
        with store.writer() as writer:
            for name, doc in documents:
                writer(name, doc)
        uid = documents[0][1]["uid"]
        (left,) = store.convert(uid, format="zarr").left
        assert "written by others" in left.why
        with pytest.raises(InputError, match=r"written by others.*nothing was converted"):
            store.convert(left.uid, format="zarr")
        assert len(list((tmp_path / "ioc").iterdir())) == 3


@pytest.mark.parametrize("when", ["copied", "read back", "announced", "put away"])
def test_whatever_goes_wrong_the_run_can_be_read_and_converted_again(
    nights: Nights, root: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Disks that are really full, and processes that really die, are met in tests/crash."""
    import errno

    from gently_bluesky.backends.tiff import TiffSink
    from gently_bluesky.upkeep import conversion, recoding
    from gently_bluesky.upkeep.logbook import Logbook

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    uid = nights(root, "zarr", "datum")
    spoil = {
        "copied": (TiffSink, "publish", full),
        "read back": (recoding, "digest_of_event", lambda *_: "crc32c:00000000"),
        "announced": (conversion, "write_atomic", full),
        "put away": (Logbook, "append", full),
    }
    with Store(root) as store:
        journal = journal_of(store, uid).read_bytes()
        with monkeypatch.context() as spoilt:
            spoilt.setattr(*spoil[when])
            with pytest.raises(
                AssetDamaged if when == "read back" else StorageFull, match=r"read back|No space"
            ):
                store.convert(uid, format="tiff", progress=False)
        if when == "put away":  # it is converted, and the next one puts away what it was
            assert (folder_of(store, uid) / ".live").exists()
        else:
            as_it_was(store, uid, journal, "zarr")
        for key in ("view_a", "view_b"):
            check(store[uid][key], key)
        assert store.convert(uid, format="tiff", progress=False).ok
        for key in ("view_a", "view_b"):
            check(store[uid][key], key)
        assert len(store.trash()) == 2
        assert len(list(root.glob("trash/runs/*/*/*/*/*"))) == 2
        assert {entry.name for entry in folder_of(store, uid).iterdir()} == {
            "documents.jsonl",
            "primary-view_a",
            "primary-view_b",
        }
