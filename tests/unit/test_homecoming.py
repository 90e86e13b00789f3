"""The way home from the second place keeps what was announced, whatever has become of the files there, and says it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from second_place import EVENTS, FAILS_AT, FRAMES, SHAPE, frame, overflowing

from gently_bluesky import Store
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.errors import AssetMissing, AssetQuarantined, StoreReadOnly
from gently_bluesky.index.index import Index
from gently_bluesky.index.moving import _copy
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.upkeep.bringing import take_lock
from gently_bluesky.upkeep.findings import Findings, Reconciliation
from gently_bluesky.upkeep.homecoming import bring_home

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="links need rights there")


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with a second place."""
    with Store(root, overflow=tmp_path / "second") as opened:
        yield opened


def second(store: Store) -> Path:
    assert store.overflow is not None
    return store.overflow


def journal_in_overflow(store: Store, uid: str) -> Path:
    return second(store) / store.record(uid).path


def file_of(store: Store, uid: str, event: int) -> Path:
    """Return the file in the overflow that holds the pixels of an event."""
    folder = journal_in_overflow(store, uid).parent
    number = event - FAILS_AT
    found = [path for path in folder.rglob("*") if path.is_file()]
    named = [
        path for path in found if path.name == f"{number:06}.ome.tif" or path.parts[-4:-3] == (str(number),)
    ]
    named = named or [path for path in found if f"/0/c/{number}/" in path.as_posix()]
    (file,) = named
    return file


def flip(file: Path) -> None:
    """Flip a bit among the pixels."""
    data = bytearray(file.read_bytes())
    places = [data.find(one.tobytes()) for one in FRAMES]  # of a TIFF; a shard is small, and compressed
    data[max(places) + 9 if max(places) >= 0 else len(data) // 2] ^= 1
    file.write_bytes(data)


def tear(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], None]] = {"flipped": flip, "torn": tear, "missing": Path.unlink}


def nothing_to_do(store: Store) -> None:
    """Nothing is left in the overflow, no copy in the root, and nothing happens when it is looked at again."""
    again = store.reconcile()
    assert not again.changes, str(again)
    assert not again.left
    files = [path.name for path in second(store).rglob("*") if path.is_file()]
    assert files == ["gently-overflow.json"]
    assert not list(store.root.rglob("*coming-home*"))


@pytest.mark.parametrize(
    ("format", "damage"),
    [
        ("tiff", "flipped"),
        ("zarr", "torn"),
        ("tiff", "missing"),
        pytest.param("zarr", "flipped", marks=pytest.mark.long),
        pytest.param("tiff", "torn", marks=pytest.mark.long),
        pytest.param("zarr", "missing", marks=pytest.mark.long),
    ],
)
def test_run_that_was_damaged_in_the_second_place_comes_home_as_it_is_once_and_says_so(
    store: Store, root: Path, format: str, damage: str
) -> None:
    uid = overflowing(store, format=format)
    DAMAGE[damage](file_of(store, uid, EVENTS - 1))
    found = store.reconcile()
    assert found.home == (uid,)
    assert found.needs_attention or damage == "torn"
    said = {"flipped": found.left, "torn": found.quarantined, "missing": found.missing}[damage]
    assert len(said) == len((*found.left, *found.quarantined, *found.missing)) == 1
    if damage == "flipped":
        assert uid in str(said[0])
        assert f"place {EVENTS - 1 - FAILS_AT}: corrupted" in str(said[0])
    if damage == "torn":
        assert (root / found.quarantined[0].now).exists()
    nothing_to_do(store)
    store.close()
    with Store(root, mode="r") as alone:
        assert alone[uid].status == "complete"
        assert [name for name, _ in alone[uid].documents()].count("stop") == 1
        array = alone[uid]["camera"]
        np.testing.assert_array_equal(array[: EVENTS - 1].compute(), FRAMES[:-1])
        verified = alone.verify(progress=False)
        kind = {"flipped": "corrupted", "torn": "missing", "missing": "missing"}[damage]
        assert [one.kind for one in verified.findings] == [kind]
        if damage != "flipped":
            with pytest.raises(AssetQuarantined if damage == "torn" else AssetMissing, match="-overflow"):
                array[EVENTS - 1].compute()


def test_run_whose_array_is_gone_from_the_second_place_comes_home_and_is_given_no_second_end(
    store: Store, root: Path
) -> None:
    uid = overflowing(store)
    before = [doc for name, doc in store[uid].documents() if name in ("event", "stop")]
    (array,) = (path for path in journal_in_overflow(store, uid).parent.iterdir() if path.is_dir())
    shutil.rmtree(array)
    found = store.reconcile()
    assert (found.home, found.ended) == ((uid,), ())
    assert len(found.missing) == 1
    nothing_to_do(store)
    assert [doc for name, doc in store[uid].documents() if name in ("event", "stop")] == before
    for datum, expected in zip(store[uid].table()["camera"][:FAILS_AT], FRAMES, strict=False):
        np.testing.assert_array_equal(store.array(datum).compute(), expected)


def lone_run(store: Store) -> str:
    """Take a run that the root does not take at all."""
    (store.root / "runs").write_text("in the way of a folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer, run = store.writer(), HandMadeRun()
        writer("start", run.start)
        data_key = {"dtype": "array", "shape": list(SHAPE), "source": "test"}
        descriptor = run.descriptor("primary", camera=data_key)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=frame(0)))
        writer("stop", run.stop())
    (store.root / "runs").unlink()
    return str(run.uid)


def respecified(journal: Path) -> None:
    """Let a journal name a kind of asset that nothing opens."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.pop("crc32c")
        if line["name"] == "resource":
            line["doc"]["spec"] = "NOBODYS"
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize("which", ["continued", "alone", "beheaded"])
def test_run_that_cannot_come_home_stays_as_it_is_and_others_come(
    store: Store, root: Path, which: str
) -> None:
    """Nothing opens its array, which somebody copied before; or the part in the root is gone that it continues."""
    alone, stays, comes = lone_run(store), overflowing(store), overflowing(store)
    stays, comes = (alone, {stays, comes}) if which == "alone" else (stays, {alone, comes})
    place, overflow = store.record(stays).path, second(store)
    here, there = (root / place).parent, (overflow / place).parent
    if which == "beheaded":
        (root / place).unlink()
    else:
        respecified(overflow / place)
        (array,) = (path for path in there.iterdir() if path.is_dir())
        shutil.copytree(array, here / array.name)
    before = {path: path.read_bytes() for at in (here, there) for path in at.rglob("*") if path.is_file()}
    store.close()
    with pytest.warns(RuntimeWarning, match="stays there"):
        opened = Store(root, overflow=overflow)
    with opened:
        found = opened.last_reconciliation
        assert found is not None
        assert set(found.home) == comes
        assert [one.path for one in found.left] == [place]
        assert not found.strays
        for uid in comes:
            array = opened[uid]["camera"]
            np.testing.assert_array_equal(array.compute(), FRAMES[: len(array)])
    after = {path: path.read_bytes() for at in (here, there) for path in at.rglob("*") if path.is_file()}
    assert after == before
    assert not list(root.rglob("*coming-home*"))


def test_journal_of_results_in_the_second_place_is_no_run_of_it(store: Store) -> None:
    """Its folder is that of a day."""
    uid = overflowing(store)
    day = journal_in_overflow(store, uid).parents[1]
    (day / "derived-4711.jsonl").write_bytes(b"")
    assert store.reconcile().home == (uid,)
    assert [path.name for path in day.iterdir()] == ["derived-4711.jsonl"]


@ON_POSIX
def test_file_that_cannot_be_copied_leaves_the_run_in_both_places_and_gives_it_no_second_end(
    store: Store, root: Path
) -> None:
    """A link to nothing, as programs leave it that keep versions of files: nobody has brought that run home."""
    uid = overflowing(store)
    file = file_of(store, uid, EVENTS - 1)
    file.rename(second(store) / "kept")
    file.symlink_to(second(store) / "nothing")
    journals = [root / store.record(uid).path, journal_in_overflow(store, uid)]
    before = [journal.read_bytes() for journal in journals]
    for _ in range(2):
        found = store.reconcile()
        assert (found.home, found.ended, len(found.left)) == ((), (), 1)
        assert [journal.read_bytes() for journal in journals] == before
        assert not list(root.rglob("*coming-home*"))
    file.unlink()
    (second(store) / "kept").rename(file)
    assert store.reconcile().home == (uid,)
    np.testing.assert_array_equal(store[uid]["camera"].compute(), FRAMES)


@pytest.mark.parametrize("format", ["tiff", "zarr"])
def test_documents_with_arrays_are_read_on_though_the_run_comes_home_meanwhile(
    store: Store, format: str
) -> None:
    uid = overflowing(store, format=format)
    documents = store[uid].documents(fill=True)
    events: list[dict[str, Any]] = []
    while len(events) <= FAILS_AT:
        name, doc = next(documents)
        events += [doc] if name == "event" else []
    assert store.reconcile().home == (uid,)
    events += [doc for name, doc in documents if name == "event"]
    np.testing.assert_array_equal([event["data"]["camera"].compute() for event in events], FRAMES)


@ON_POSIX
@pytest.mark.parametrize("link", ["journal", "folder", "file"])
def test_links_that_lead_out_of_the_second_place_are_not_followed(
    store: Store, root: Path, tmp_path: Path, link: str
) -> None:
    uid = overflowing(store)
    journal = journal_in_overflow(store, uid)
    outside = tmp_path / "outside"
    linked = {"journal": journal, "folder": journal.parent, "file": file_of(store, uid, FAILS_AT)}[link]
    without_stop = b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]) + b'{"torn": '
    journal.write_bytes(without_stop)
    linked.rename(outside)
    linked.symlink_to(outside)
    before = {path: path.read_bytes() for path in (outside, *outside.rglob("*")) if path.is_file()}
    for dry_run in (True, False):
        found = store.reconcile(dry_run=dry_run)
        assert found.home == ()
        assert len(found.left) == 1
        assert "nothing was read or written there" in str(found.left[0])
    assert {path: path.read_bytes() for path in (outside, *outside.rglob("*")) if path.is_file()} == before


def test_what_is_told_before_is_what_is_done_and_all_of_it_lies_where_it_is_said_to(
    store: Store, root: Path
) -> None:
    """Torn files, those that nobody announced, in the root and in the second place, and notes of people."""
    uid = overflowing(store, format="tiff")
    journal = journal_in_overflow(store, uid)
    here, there = (root / store.record(uid).path).parent, journal.parent
    tear(file_of(store, uid, EVENTS - 1))
    for folder, name in ((here, "mine"), (there, "theirs")):
        (folder / f"primary-{name}").mkdir()
        (folder / f"primary-{name}" / "000000.ome.tif").write_bytes(name.encode())
        (folder / f"primary-{name}.tif.partial").write_bytes(b"half")
    (there / "note.txt").write_text("of people")
    (here / "note.txt").write_text("another")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]) + b'{"torn": ')
    would, did = store.reconcile(dry_run=True), store.reconcile()
    names = ("home", "ended", "torn", "missing", "swept", "left", "waiting")
    for name in names:
        assert sorted(map(str, getattr(would, name))) == sorted(map(str, getattr(did, name)))
    assert did.home == (uid,)
    assert [one.journal for one in did.ended] == [store.record(uid).path]
    assert [one.journal for one in did.torn] == [str(journal)]
    held = {(root / one.now).parent.name: root / one.now for one in did.quarantined}
    assert all(path.exists() for path in held.values())
    notes = [one.read_text() for one in root.glob("quarantine/**/note*")]
    assert sorted(notes) == ["another", "of people"]
    pixels = [one.read_bytes() for one in sorted(root.glob("quarantine/**/primary-*s/*"))]
    assert pixels == [b"theirs"]
    assert [one.read_bytes() for one in root.glob("quarantine/**/primary-mine/*")] == [b"mine"]
    assert {one.path for one in would.quarantined} <= {one.path for one in did.quarantined}
    assert not list(here.glob("*.partial"))
    nothing_to_do(store)


def test_copy_that_is_not_what_was_announced_is_put_away_and_made_again(store: Store, root: Path) -> None:
    """Somebody died after copying, and the disk has flipped a bit since, of a format without checksums."""
    uid = overflowing(store, format="tiff")
    there = journal_in_overflow(store, uid).parent
    (array,) = (path for path in there.iterdir() if path.is_dir())
    brought = root / array.relative_to(second(store))
    shutil.copytree(array, brought)
    flip(brought / "000001.ome.tif")
    found = store.reconcile()
    assert found.home == (uid,)
    assert [one.path for one in found.quarantined] == [brought.relative_to(root).as_posix()]
    assert not found.left
    np.testing.assert_array_equal(store[uid]["camera"].compute(), FRAMES)
    assert store.verify(progress=False).ok
    nothing_to_do(store)


def test_journal_that_does_not_say_what_it_continues_concerns_its_run_alone(store: Store, root: Path) -> None:
    uid, other = overflowing(store), overflowing(store)
    journal = journal_in_overflow(store, uid)
    whole = journal.read_bytes()
    first, _, rest = whole.partition(b"\n")
    said = json.loads(first)
    said.pop("crc32c")
    wrongs = ({"bytes": "many"}, {"bytes": -4}, {"bytes": True}, {"repeats": 0}, {"repeats": None})
    spoilt = [
        first.replace(b'"bytes":', b'"bytes":1'),
        *(json.dumps(said | {"continues": said["continues"] | wrong}).encode() for wrong in wrongs),
    ]
    before = (root / store.record(uid).path).read_bytes()
    place, overflow = store.record(uid).path, second(store)
    store.close()
    for line, mode in zip(spoilt, cycle("ra"), strict=False):
        journal.write_bytes(line + b"\n" + rest)
        with pytest.warns(RuntimeWarning, match="does not say what it continues"):
            opened = Store(root, mode=mode, overflow=overflow)
        with opened:
            np.testing.assert_array_equal(opened[other]["camera"].compute(), FRAMES)
        assert (root / place).read_bytes() == before
    journal.write_bytes(whole)
    with Store(root, overflow=overflow) as opened:
        np.testing.assert_array_equal(opened[uid]["camera"].compute(), FRAMES)


def test_torn_journal_of_which_nothing_was_announced_is_put_away_and_not_removed(store: Store) -> None:
    uid = overflowing(store)
    journal = journal_in_overflow(store, uid)
    torn = journal.read_bytes()[:300]
    journal.write_bytes(torn)
    would, did = store.reconcile(dry_run=True), store.reconcile()
    assert would.quarantined == did.quarantined
    assert torn in [Path(one.now).read_bytes() for one in did.quarantined if Path(one.now).is_file()]
    assert all(Path(one.now).is_relative_to(second(store)) for one in did.quarantined)
    assert not journal.exists()
    assert [one.run for one in did.ended] == [uid]
    np.testing.assert_array_equal(store[uid]["camera"].compute(), FRAMES[:FAILS_AT])


def test_marks_of_what_cannot_be_torn_any_more_come_home_too(store: Store) -> None:
    uid = overflowing(store)
    place, there = store.record(uid).path, journal_in_overflow(store, uid)
    there.write_bytes(there.read_bytes().replace(b'\n{"name":"resource"', b'\n {"name":"resource"'))
    marked, before = ([raw[:1] for raw in at.read_bytes().splitlines()] for at in (there, store.root / place))
    assert marked.count(b" ") > 2
    store.reconcile()
    after = [raw[:1] for raw in (store.root / place).read_bytes().splitlines()]
    assert after == before + marked[-(len(after) - len(before)) :]


def test_what_other_processes_are_making_in_the_second_place_is_left_to_them(
    store: Store, tmp_path: Path
) -> None:
    making = second(store) / ".gently-overflow.json.4711-4712.tmp"
    making.write_bytes(b"{")
    store.reconcile()
    assert making.exists()


class Swept(type(Path())):
    """The path of a file that another process has swept when it is to be removed."""

    def unlink(self, missing_ok: bool = False) -> None:
        super().unlink()
        super().unlink(missing_ok=missing_ok)


@pytest.mark.skipif(os.name != "posix", reason="an open file keeps its name there")
def test_index_goes_on_in_a_copy_whose_name_another_process_has_swept(store: Store, tmp_path: Path) -> None:
    copy = _copy(store.root / "index.sqlite", Swept(tmp_path / ".index-1.sqlite"))
    try:
        assert copy.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    finally:
        copy.close()


def test_run_that_another_process_is_bringing_home_is_left_to_it(store: Store) -> None:
    uid = overflowing(store)
    live = LiveFile.take(journal_in_overflow(store, uid).parent, make=True)
    assert live is not None
    try:
        found = store.reconcile()
    finally:
        live.close(remove=True)
    assert found == Reconciliation(str(store.root))
    assert store.reconcile().home == (uid,)


def test_lock_that_somebody_lets_go_of_and_removes_is_taken_all_the_same(tmp_path: Path) -> None:
    journal = tmp_path / "documents.jsonl"
    journal.touch()
    enough = threading.Event()

    def take_and_let_go() -> None:
        while not enough.is_set():
            with suppress(FileNotFoundError):
                live = LiveFile.take(tmp_path, make=True)
                if live is not None:
                    live.close(remove=True)

    others = [threading.Thread(target=take_and_let_go) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(300):
            live = take_lock(tmp_path, journal)
            if live is not None:
                live.close(remove=True)
    finally:
        enough.set()
        for other in others:
            other.join()
    journal.unlink()
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match="live"):
        take_lock(tmp_path, journal)


def test_index_that_cannot_be_written_is_an_error_and_what_is_home_is_home(store: Store, root: Path) -> None:
    uid, overflow = overflowing(store), second(store)
    store.close()
    index = Index(f"sqlite:///{root / 'index.sqlite'}", read_only=True)
    try:
        with pytest.raises(StoreReadOnly):
            bring_home(Journals(root, overflow), index, Findings(), dry_run=False)
    finally:
        index.close()
    with Store(root, mode="r") as alone:
        np.testing.assert_array_equal(alone[uid]["camera"].compute(), FRAMES)
    with Store(root, overflow=overflow) as opened:
        np.testing.assert_array_equal(opened[uid]["camera"].compute(), FRAMES)
        nothing_to_do(opened)
