"""A torn tail is a crash and is dropped; damage in the middle is refused with its place, and harms no other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from looking import answers, examine, snapshot
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.documents.journal import Journal, encode_line, read_journal
from gently_bluesky.errors import JournalDamaged, LookupFailed
from gently_bluesky.files import try_lock
from gently_bluesky.index.index import Index
from gently_bluesky.upkeep.recovery import reconcile

DYING = {"format": "zarr", "night": "n", "events": 9, "die_after_events": 3}


def journal_of(root: Path, night: str) -> Path:
    journals = root.glob("runs/*/*/*/*/documents.jsonl")
    return next(path for path in journals if next(read_journal(path)).doc["night"] == night)


@pytest.fixture
def dead(zygote: Zygote, templates: Any, root: Path) -> Path:
    """The journal of a run of three events whose process died."""
    if root.exists():
        zygote.start("acquire", root=str(root), **DYING).last_words()
    else:
        templates.copy("dead", root, lambda at: zygote.start("acquire", root=str(at), **DYING).last_words())
    return journal_of(root, "n")


@pytest.fixture
def whole(zygote: Zygote, templates: Any, root: Path) -> Path:
    """The journal of a whole run of two events."""
    job = {"format": "zarr", "night": "whole", "events": 2}
    templates.copy("whole", root, lambda at: zygote.call("acquire", root=str(at), **job))
    return journal_of(root, "whole")


def the_run(root: Path, mode: str = "a") -> dict[str, Any]:
    return examine(None, str(root), mode=mode)["n"]


@pytest.mark.parametrize(
    "tail",
    [
        b'{"name":"event","doc":{"uid"',
        b"{",
        b"\0" * 5000,
        b'{"name":"event","doc":{}}',
        "ü".encode()[:1],
        b"not JSON\n",
    ],
)
def test_torn_tail_is_dropped(root: Path, dead: Path, tail: bytes) -> None:
    whole = dead.read_bytes()
    dead.write_bytes(whole + tail)
    assert len(the_run(root, "r")["events"]) == 3
    assert dead.read_bytes() == whole + tail
    run = the_run(root)
    assert (len(run["events"]), run["status"], run["stops"]) == (3, "incomplete", 1)
    assert dead.read_bytes().startswith(whole + b' {"name":"stop"')


def test_journal_cut_at_any_byte_gives_the_events_that_are_whole(root: Path, dead: Path) -> None:
    whole = dead.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == 10]
    cuts = {cut for end in ends for cut in (end - 1, end, end + 40) if ends[0] <= cut <= len(whole)}
    lines = [orjson.loads(line)["name"] for line in whole.splitlines()]
    live = (dead.parent / ".live").read_bytes()
    for cut in sorted(cuts, reverse=True):  # what is not announced any more is put in quarantine
        dead.write_bytes(whole[:cut])
        (dead.parent / ".live").write_bytes(live)
        kept = sum(end <= cut for end in ends)
        run = the_run(root)
        assert len(run["events"]) == lines[:kept].count("event")
        assert run["stops"] == 1
        # what was written to announce an event that is not there is not there either
        names = [line.name for line in read_journal(dead)]
        assert names.count("datum") == names.count("event")
        with Store(root, mode="r") as store:
            assert len(list(store.query(kind="datum"))) == names.count("event")


def test_run_with_only_a_torn_start_never_was(root: Path, dead: Path) -> None:
    dead.write_bytes(dead.read_bytes()[:50])
    folder = dead.parent
    shutil.rmtree(folder / "primary-view_a.ome.zarr")
    assert examine(None, str(root), mode="r") == {}
    assert examine(None, str(root), mode="a") == {}
    assert not folder.exists()


def test_journal_without_a_start_beside_assets_is_left_alone(root: Path, dead: Path) -> None:
    dead.write_bytes(dead.read_bytes()[:50])
    files = snapshot(dead.parent)
    with pytest.warns(
        RuntimeWarning, match=r"holds no start document, but beside it there is 'primary-view_a"
    ):
        Store(root).close()
    assert snapshot(dead.parent) == files


def test_what_people_put_into_a_dead_run_s_folder_is_kept_in_quarantine(root: Path, dead: Path) -> None:
    notes = dead.parent / "notes.txt"
    notes.write_text("embryo 3 moved")
    inner = dead.parent / "primary-view_a.ome.zarr" / "notes.tmp"
    inner.write_text("mine")
    the_run(root)
    assert not notes.exists()
    assert not inner.exists()
    kept = [root / "quarantine" / path.relative_to(root) for path in (notes, inner)]
    assert [path.read_text() for path in kept] == ["embryo 3 moved", "mine"]


@pytest.mark.parametrize("has_index", [True, False])
def test_damage_in_the_middle_is_refused_with_its_place_and_other_runs_stay_usable(
    root: Path, whole: Path, dead: Path, has_index: bool
) -> None:
    lines = dead.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:20] + b"\xff" + lines[3][21:]
    lines[-1] = b" " + lines[-1].lstrip()  # the mark that all before it was on the disk
    dead.write_bytes(b"".join(lines))
    if not has_index:
        (root / "index.sqlite").unlink()
    files = snapshot(dead.parent)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"documents\.jsonl: line 4 is not a document"):
            store = Store(root)
        with store:
            assert [record.metadata["night"] for record in store.query(status="complete")] == ["whole"]
            assert store.run(store.latest(status="complete").uid)["view_a"].shape[0] == 2
        assert snapshot(dead.parent) == files


def test_damage_to_a_run_that_has_ended_is_said_when_it_is_read(root: Path, whole: Path) -> None:
    uid = next(read_journal(whole)).doc["uid"]
    lines = whole.read_bytes().splitlines(keepends=True)
    lines[1] = b"#" + lines[1][1:]
    whole.write_bytes(b"".join(lines))
    with Store(root) as store, pytest.raises(JournalDamaged, match="line 2 is not a document"):
        _ = list(store[uid].documents())


@pytest.mark.parametrize("mode", ["a", "r"])
def test_end_of_a_journal_that_was_blanked_is_said_and_not_read_as_fewer_events(
    root: Path, whole: Path, mode: str
) -> None:
    content = whole.read_bytes()
    begin = content.index(b'"event"')
    whole.write_bytes(content[:begin] + bytes(len(content) - begin))
    with Store(root, mode=mode) as store:
        run = store[-1]
        assert run.status == "complete"
        with pytest.raises(JournalDamaged, match="the index knows the end of run"):
            run.table()
        with pytest.raises(JournalDamaged, match="restore it from a copy"):
            _ = list(run.documents())


@pytest.mark.parametrize("missing", ["uid", "descriptor"])
def test_journal_of_documents_that_make_no_sense_is_left_alone(root: Path, dead: Path, missing: str) -> None:
    lines = [orjson.loads(line) for line in dead.read_bytes().splitlines()]
    for line in lines:
        line["doc"].pop(missing, None)
    dead.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    (root / "index.sqlite").unlink()
    files = snapshot(dead.parent)
    for mode in ("a", "a", "r"):
        with pytest.warns(RuntimeWarning, match="left alone"), Store(root, mode=mode) as store:
            assert list(store.query()) == []
        assert snapshot(dead.parent) == files


def test_journal_that_nobody_may_read_keeps_no_other_run_from_being_read(
    root: Path, whole: Path, dead: Path
) -> None:
    dead.unlink()
    dead.mkdir()
    with pytest.warns(RuntimeWarning, match="left alone"), Store(root) as store:
        assert [record.metadata["night"] for record in store.query(status="complete")] == ["whole"]


# -- journals of derived results -----------------------------------------------------------------------------


def derived_runs(root: Path, number: int) -> Path:
    with Store(root) as store:
        for i in range(number):
            store.put({"n": i}, data_type="nuclei", session="s")
    return next(root.glob("runs/*/*/*/derived-*.jsonl"))


@pytest.mark.parametrize("cut", [1, 5, 300, 700])
def test_torn_journal_of_results_is_cut_back_to_its_last_whole_run(root: Path, cut: int) -> None:
    journal = derived_runs(root, 3)
    lines = journal.read_bytes().splitlines(keepends=True)
    first_two = b"".join(lines[: 2 * len(lines) // 3])
    journal.write_bytes(first_two + b"".join(lines[2 * len(lines) // 3 :])[:-cut])
    with Store(root) as store:
        assert sorted(store.get(record.uid)["n"] for record in store.query()) == [0, 1]
        assert {record.status for record in store.query()} == {"complete"}
    assert journal.read_bytes() == first_two
    (root / "index.sqlite").unlink()
    with Store(root) as store:
        assert sorted(store.get(record.uid)["n"] for record in store.query()) == [0, 1]


def test_reader_takes_no_torn_result_for_a_run(root: Path) -> None:
    journal = derived_runs(root, 2)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    (root / "index.sqlite").unlink()
    with Store(root, mode="r") as store:
        assert [store.get(record.uid)["n"] for record in store.query()] == [0]


def test_journal_of_results_that_a_process_is_writing_is_left_alone(root: Path) -> None:
    journal = derived_runs(root, 1)
    torn = journal.read_bytes() + b'{"name":"start"'
    with journal.open("r+b") as file:
        assert try_lock(file.fileno())
        file.seek(0, 2)
        file.write(b'{"name":"start"')
        file.flush()
        said = answers(root, "a")
        assert journal.read_bytes() == torn
    assert answers(root, "a") == said
    assert journal.read_bytes() == torn[: -len(b'{"name":"start"')]


def test_two_stores_put_results_at_once_and_each_sees_all(root: Path) -> None:
    with Store(root) as one, Store(root) as two:
        for i in range(3):
            one.put({"n": i}, data_type="a")
            two.put({"n": i}, data_type="b")
            with Store(root):
                pass
        for store in (one, two):
            assert len(list(store.query(data_type="a"))) == len(list(store.query(data_type="b"))) == 3


# -- what reconcile says -------------------------------------------------------------------------------------


def test_reconcile_tells_what_it_found_and_did(root: Path, whole: Path, dead: Path, tmp_path: Path) -> None:
    uid = next(read_journal(dead)).doc["uid"]
    index = Index("sqlite://")
    first = reconcile(root, index)
    assert [one.run for one in first.ended] == [uid]
    assert len(first.indexed) == 2
    assert (first.forgotten, first.left) == ((), ())
    second = reconcile(root, index)
    assert str(second) == f"{root}: nothing to do"
    whole.parent.rename(tmp_path / "elsewhere")
    third = reconcile(root, index)
    assert third.forgotten == (whole.relative_to(root).as_posix(),)
    assert [record.uid for record in index.query()] == [uid]
    index.close()


def test_copy_of_a_run_s_folder_is_refused_and_the_run_stays(root: Path, whole: Path) -> None:
    shutil.copytree(whole.parent, whole.parent.with_name("zzz_copy"))
    with pytest.warns(RuntimeWarning, match="is in the index already"), Store(root) as store:
        assert [record.path for record in store.query()] == [whole.relative_to(root).as_posix()]


def test_empty_folder_that_a_process_left_at_its_death_is_removed_and_a_full_one_is_not(root: Path) -> None:
    Store(root).close()
    day = root / "runs/2026/11/21"
    (day / "empty").mkdir(parents=True)
    (day / "notes").mkdir()
    (day / "notes" / "a.txt").write_text("mine")
    Store(root).close()
    assert [path.name for path in day.iterdir()] == ["notes"]


def test_second_stop_is_not_written_into_a_run_that_ended_as_its_process_died(
    root: Path, whole: Path
) -> None:
    """Died between recording the stop and letting go of the lock."""
    from gently_bluesky.documents.live import LiveFile

    before = whole.read_bytes()
    LiveFile.create(whole.parent).close(remove=False)
    assert examine(None, str(root), mode="a")["whole"]["status"] == "complete"
    assert whole.read_bytes() == before
    assert not (whole.parent / ".live").exists()
    with pytest.raises(LookupFailed), Store(root) as store:
        store.latest(status="incomplete")


def test_lines_that_follow_a_stop_by_mistake_do_not_reopen_the_run(root: Path, whole: Path) -> None:
    lines = list(read_journal(whole))
    journal = Journal(whole, existing=True)
    journal.append([encode_line(lines[-1])])
    journal.close()
    assert examine(None, str(root), mode="a")["whole"]["status"] == "complete"
