"""Verification: what was announced is read back, and each thing that is not as it was is told by its kind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from nights import EVENTS, SHAPE, acquire, event_file, folder_of

from gently_bluesky import Store
from gently_bluesky.errors import UnknownUid
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame
from gently_bluesky.upkeep.findings import PutAway
from gently_bluesky.upkeep.quarantine import put_away
from gently_bluesky.upkeep.verification import Verification

KEPT = [("zarr", "datum"), ("zarr", "stream"), ("tiff", "datum"), ("tiff", "stream")]
ARRAYS = 2 * EVENTS + 1
NBYTES = 2 * np.prod((2 * EVENTS, *SHAPE)) + 2 * np.prod(SHAPE[1:])


@pytest.fixture(params=[KEPT[0], KEPT[3]], ids="-".join)
def night(
    request: pytest.FixtureRequest, root: Path, nights: Callable[..., str]
) -> Iterator[tuple[Store, str]]:
    """A store with a night in it, and the uid of what was acquired: both formats, both families of documents."""
    uid = nights(root, *request.param)
    with Store(root) as store:
        yield store, uid


def verified(store: Store, *uids: str) -> Verification:
    return store.verify(uids or None, progress=False)


def told(report: Verification) -> list[tuple[str, str, int | None]]:
    return [(finding.kind, finding.data_key, finding.event) for finding in report.findings]


def altered(journal: Path, was: bytes, becomes: bytes) -> None:
    """Change a journal as somebody would who knows how its lines are made."""
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if was in line)
    said = lines[number].rpartition(b',"crc32c"')[0].replace(was, becomes)
    lines[number] = b'%b,"crc32c":"%08x"}\n' % (said, crc32c(said))
    journal.write_bytes(b"".join(lines))


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in root.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return {str(file.relative_to(root)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


# -- kinds of damage ---------------------------------------------------------------------------------------


def gone(file: Path) -> None:
    file.unlink()


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4000] ^= 16
    file.write_bytes(data)


def refused_by_the_system(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)  # ELOOP, whoever asks


def one_too_many(file: Path) -> None:
    (file.parent / "photo.png").write_bytes(b"of a cat")


DAMAGES = {
    gone: ("missing", 2),
    half: ("torn", 2),
    emptied: ("torn", 2),
    flipped: ("corrupted", 2),
    refused_by_the_system: ("unreadable", 2),
    one_too_many: ("foreign", None),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_an_event_is_told_by_its_kind_and_hides_no_other_event(
    night: tuple[Store, str], damage: Callable[[Path], None]
) -> None:
    store, uid = night
    damage(event_file(store, uid, 2))
    report = verified(store)
    kind, event = DAMAGES[damage]
    assert told(report) == [(kind, "view_a", event)]
    (finding,) = report.findings
    assert (finding.run, finding.asset) == (uid, store[uid]["view_a"].uid)
    assert finding.datum == ("" if event is None else store.array(finding.asset)[event].uid)
    assert (store.root / finding.path).is_relative_to(folder_of(store, uid))
    assert finding.reason
    assert not report.ok
    assert "1 finding; nothing was changed" in str(report)
    assert str(finding) in str(report)
    assert report.to_dict()["counts"][kind] == 1
    assert told(verified(store, finding.asset)) == told(report)
    # the other view, and events beside the damage, are read and well
    assert verified(store, store[uid]["view_b"].uid).ok
    assert verified(store, f"{finding.asset}/1").ok
    assert report.events in (ARRAYS, ARRAYS - 1)  # what is not there cannot be read


@pytest.mark.parametrize("night", KEPT, indirect=True, ids="-".join)
def test_what_was_announced_is_well_and_nothing_but_stamps_is_written(night: tuple[Store, str]) -> None:
    store, _ = night
    before = contents(store.root)
    report = verified(store)
    assert report.ok
    assert (report.runs, report.assets, report.events, report.nbytes) == (3, 3, ARRAYS, NBYTES)
    assert (report.without_digest, report.skipped, report.unopened, report.remarks) == (0, 0, (), ())
    assert re.fullmatch(r"3 runs, 3 arrays, 9 events, .* kB read back in .*\nall is well", str(report))
    after = contents(store.root)
    after.pop("upkeep.jsonl")
    assert after == before


def test_runs_arrays_events_and_results_are_verified_by_their_uids(night: tuple[Store, str]) -> None:
    store, uid = night
    array, projection = store.array(store[uid]["view_a"].uid), store.latest(data_type="projection").uid
    sums = {uid: 8, array.uid: 4, array[1].uid: 1, projection: 1, store.latest(data_type="count").uid: 0}
    assert {one: verified(store, one).events for one in sums} == sums
    assert verified(store, uid[:8], projection, array.uid).events == 9  # the run is verified once
    assert verified(store, array.uid, array[0].uid).events == 4
    with pytest.raises(UnknownUid, match="no run"):
        store.verify("0123")
    flipped(event_file(store, uid, 1))
    assert told(verified(store, array[1].uid)) == [("corrupted", "view_a", 1)]
    assert verified(store, array[0].uid, projection).ok


def test_another_array_in_the_place_of_the_announced_one_is_foreign(night: tuple[Store, str]) -> None:
    store, uid = night
    format = "zarr" if event_file(store, uid, 0).name == "0" else "tiff"
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    with store.writer(format=format) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(EVENTS):
            frame = encoded_frame((3, 20, 25), "<u2", key="view_a", event=event)
            writer("event", run.event(descriptor, view_a=frame))
        writer("stop", run.stop())
    (other,) = folder_of(store, run.uid).glob("primary-view_a*")
    shutil.rmtree(folder_of(store, uid) / other.name)
    shutil.copytree(other, folder_of(store, uid) / other.name)
    report = verified(store, uid)
    assert {finding.kind for finding in report.findings} == {"foreign"}
    assert "as announced" in report.findings[0].reason
    assert len(report.findings) == (1 if format == "zarr" else EVENTS)


def test_events_that_were_exchanged_are_corrupted(night: tuple[Store, str]) -> None:
    """Each is whole by its own checksums: the journal knows which is which."""
    store, uid = night
    one, other = (event_file(store, uid, event) for event in (0, 3))
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert told(verified(store, uid)) == [("corrupted", "view_a", 0), ("corrupted", "view_a", 3)]


def test_what_lies_in_a_runs_folder_and_nobody_announced_is_foreign(night: tuple[Store, str]) -> None:
    store, uid = night
    (folder_of(store, uid) / "notes.txt").write_text("of the operator")
    report = verified(store)
    assert [(finding.kind, finding.asset, Path(finding.path).name) for finding in report.findings] == [
        ("foreign", "", "notes.txt")
    ]


def test_what_recovery_has_put_away_is_missing_and_named_where_it_lies(night: tuple[Store, str]) -> None:
    store, uid = night
    file = event_file(store, uid, 2)
    half(file)
    away = [
        PutAway(
            uid,
            store[uid]["view_a"].uid,
            "torn",
            (2, 3),
            str(file.relative_to(store.root)),
            "quarantine/x",
            "",
        )
    ]
    put_away(store.root, away)
    (finding,) = verified(store).findings
    assert (finding.kind, finding.event) == ("missing", 2)
    assert finding.reason.endswith("it was put in quarantine when its run was recovered: quarantine/x")


# -- journals ----------------------------------------------------------------------------------------------


def test_a_damaged_line_is_named_and_what_stands_behind_it_is_verified(night: tuple[Store, str]) -> None:
    store, uid = night
    journal = store.root / store.record(uid).path
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(
        number for number, line in enumerate(lines, 1) if b'"seq_num":1' in line and b'"event"' in line
    )
    lines[number - 1] = lines[number - 1][:40] + b"\x00" + lines[number - 1][41:]
    journal.write_bytes(b"".join(lines))
    flipped(event_file(store, uid, 3))
    report = verified(store)
    assert told(report) == [("corrupted", "", None), ("corrupted", "view_a", 3)]
    assert f"line {number} is not a document" in report.findings[0].reason
    assert report.findings[0].path == store.record(uid).path
    assert (report.runs, report.events) == (3, ARRAYS)


def test_a_document_that_lacks_what_it_needs_is_a_damaged_line(
    root: Path, nights: Callable[..., str]
) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        journal = root / store.record(uid).path
        altered(journal, b'"datum_kwargs"', b'"datum_qwargs"')
        (finding,) = verified(store).findings
        assert (finding.kind, finding.path) == ("corrupted", store.record(uid).path)
        assert "is no whole datum document" in finding.reason


def test_a_journal_that_changed_since_it_was_verified_is_corrupted_each_time(
    root: Path, nights: Callable[..., str]
) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        assert verified(store).ok
        journal = root / store.record(uid).path
        altered(journal, b'"n":2', b'"n":3')
        for _ in range(2):
            (finding,) = verified(store).findings
            assert (finding.kind, finding.path) == ("corrupted", store.record(uid).path)
            assert "are not those that were verified" in finding.reason
        altered(journal, b'"n":3', b'"n":2')
        assert verified(store).ok


def test_a_journal_that_lost_its_end_or_all_of_it_is_told(root: Path, nights: Callable[..., str]) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        journal = root / store.record(uid).path
        data = journal.read_bytes()
        journal.write_bytes(data + b'{"name": "ev')
        assert [finding.kind for finding in verified(store).findings] == ["torn"]
        journal.write_bytes(data[: data.rstrip().rfind(b"\n") + 1])
        assert [finding.kind for finding in verified(store, uid).findings] == ["torn"]
        journal.unlink()
        for report in (verified(store), verified(store, uid)):
            (finding,) = (one for one in report.findings if one.path == store.record(uid).path)
            assert (finding.kind, finding.run) == ("missing", uid)


# -- other ways of keeping, and runs that go on ------------------------------------------------------------


def test_a_run_that_is_being_written_is_verified_as_far_as_it_was_announced(store: Store) -> None:
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    with store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(3):
            announced = store.array(run.uid).shape[0] if event else 0
            assert (verified(store).events, verified(store).ok) == (announced, True)
            writer("event", run.event(descriptor, view_a=encoded_frame(SHAPE, "<u2", event=event)))
            store[run.uid].wait("primary", "view_a", event + 1, timeout_s=30)
        with Store(store.root, mode="r") as reader:
            assert (verified(reader).events, verified(reader).ok) == (3, True)
            flipped(event_file(store, run.uid, 1))
            assert told(verified(reader)) == [("corrupted", "view_a", 1)]
        writer("event", run.event(descriptor, view_a=encoded_frame(SHAPE, "<u2", event=3)))
        writer("stop", run.stop())
    assert store[run.uid].status == "complete"
    assert (verified(store).events, len(verified(store).findings)) == (4, 1)


def test_coarser_levels_are_looked_at_too(store: Store) -> None:
    uid = acquire(store, levels=2)
    assert verified(store).ok
    (folder,) = (folder_of(store, uid) / "primary-view_b.ome.zarr" / "1" / "c").glob("1")
    half(next(path for path in folder.rglob("*") if path.is_file()))
    assert told(verified(store)) == [("torn", "view_b", None)]


def test_a_thousand_findings_are_told_in_few_lines(store: Store) -> None:
    uid = acquire(store, "tiff")
    for number in range(200):
        (folder_of(store, uid) / f"stray-{number}").touch()
    report = verified(store)
    assert len(report.findings) == len(report.to_dict()["findings"]) == 200
    assert "... and 150 more" in str(report)
    assert len(str(report).splitlines()) < 60
