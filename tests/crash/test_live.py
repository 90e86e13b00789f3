"""Living writers are left alone: by readers, and by whoever opens the store for writing beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import examine, snapshot
from zygote import Child, Zygote

from gently_bluesky import Store
from gently_bluesky.documents.live import LiveFile, is_live


def heard_until_waiting(child: Child) -> list[str]:
    """Return the uids of the events announced before the child waits."""
    announced: list[str] = []
    while "waiting" not in (message := child.hear()):
        if message.get("name") == "event":
            announced.append(message["doc"]["uid"])
    return announced


@pytest.fixture
def held(zygote: Zygote, root: Path, format: str) -> Iterator[Child]:
    """A process in the middle of a run of six events, three of them announced, that waits for us."""
    child = zygote.start("acquire", root=str(root), format=format, night="live", events=6, pause_before=4)
    child.announced = heard_until_waiting(child)
    yield child
    child.kill()


def live_files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {name: about for name, about in snapshot(root, index=False).items() if "/derived-" not in name}


def test_reader_sees_what_a_living_writer_has_announced_and_changes_no_file(
    zygote: Zygote, root: Path, held: Child
) -> None:
    files = snapshot(root, index=False)
    run = zygote.call("examine", root=str(root))["live"]
    assert run["status"] == "running"
    assert [uid for uid, _ in run["events"]] == held.announced
    assert (run["frames"], run["stop"], run["received"]) == (3, None, None)
    assert snapshot(root, index=False) == files


def test_reader_tells_the_dead_from_the_living(zygote: Zygote, root: Path, held: Child, format: str) -> None:
    dying = {"format": format, "night": "dead", "events": 6, "die_after_events": 2}
    zygote.start("acquire", root=str(root), **dying).last_words()
    files = snapshot(root, index=False)
    seen = zygote.call("examine", root=str(root))
    assert {night: (run["status"], len(run["events"])) for night, run in seen.items()} == {
        "live": ("running", 3),
        "dead": ("incomplete", 2),
    }
    assert snapshot(root, index=False) == files


def test_opening_for_writing_recovers_the_dead_and_leaves_the_living_alone(
    zygote: Zygote, root: Path, held: Child, format: str
) -> None:
    files = live_files(root)
    dying = {"format": format, "night": "dead", "events": 6, "die_after_events": 2}
    zygote.start("acquire", root=str(root), **dying).last_words()
    seen = zygote.call("examine", root=str(root), mode="a")
    assert (seen["live"]["status"], seen["dead"]["status"]) == ("running", "incomplete")
    assert seen["dead"]["stop"]["exit_status"] == "abort"
    assert {name: about for name, about in live_files(root).items() if name in files} == files

    held.tell("go on")
    held.result()
    seen = zygote.call("examine", root=str(root))
    assert seen["live"]["status"] == "complete"
    assert [number for _, number in seen["live"]["events"]] == [1, 2, 3, 4, 5, 6]
    assert [uid for uid, _ in seen["live"]["events"]][:3] == held.announced


def test_two_processes_write_into_one_store_at_once(
    zygote: Zygote, root: Path, held: Child, format: str
) -> None:
    other = zygote.start("acquire", root=str(root), format=format, night="two", events=5, pause_before=3)
    heard_until_waiting(other)
    for child in (held, other):
        child.tell("go on")
    for child in (held, other):
        child.result()
    seen = zygote.call("examine", root=str(root))
    assert {night: (run["status"], len(run["events"])) for night, run in seen.items()} == {
        "live": ("complete", 6),
        "two": ("complete", 5),
    }
    told = zygote.call("told_answers", root=str(root))
    files = snapshot(root, index=False)
    assert zygote.call("told_answers", root=str(root), mode="a") == told
    assert snapshot(root, index=False) == files
    (root / "index.sqlite").unlink()
    assert zygote.call("told_answers", root=str(root), mode="a") == told


def test_store_that_stays_open_sees_what_another_process_wrote(
    zygote: Zygote, root: Path, held: Child
) -> None:
    with Store(root) as store:
        run = store[-1]
        assert run.status == "running"
        held.tell("go on")
        held.result()
        assert run.status == "complete"
        assert run["view_a"].shape[0] == 6
        assert store.record(run.uid).received == 6
    assert examine(None, str(root))["live"]["status"] == "complete"


# -- the lock itself -----------------------------------------------------------------------------------------


def test_lock_is_refused_to_all_but_its_holder_until_it_is_closed(tmp_path: Path) -> None:
    live = LiveFile.create(tmp_path)
    assert is_live(tmp_path)
    assert LiveFile.take(tmp_path) is None
    live.count_received(3)
    live.close(remove=False)
    assert not is_live(tmp_path)
    taken = LiveFile.take(tmp_path)
    assert taken is not None
    assert taken.last_words.counts == (3, 0)
    taken.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_looking_for_life_keeps_nobody_from_taking_the_lock_of_a_dead_run(tmp_path: Path) -> None:
    """A reader that is caught in the middle of looking holds a shared lock; it must not pass for a writer."""
    import fcntl
    import threading

    LiveFile.create(tmp_path).close(remove=False)
    looking = os.open(tmp_path / ".live", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_live(tmp_path)
    timer = threading.Timer(0.02, os.close, [looking])
    timer.start()
    taken = LiveFile.take(tmp_path)
    timer.join()
    assert taken is not None
    taken.close(remove=True)


def test_lock_of_a_folder_that_was_swept_away_is_not_believed(tmp_path: Path) -> None:
    LiveFile.create(tmp_path).close(remove=False)
    (tmp_path / ".live").unlink()
    with pytest.raises(FileNotFoundError, match=r"\.live"):
        LiveFile.take(tmp_path)
    assert not is_live(tmp_path)


def test_reason_of_a_failure_is_kept_where_no_disk_can_refuse_it(tmp_path: Path) -> None:
    live = LiveFile.create(tmp_path)
    assert live.last_words.failure is None
    live.note_failure("StorageFull: no ü room " + "x" * 9000)
    live.close(remove=False)
    taken = LiveFile.take(tmp_path)
    assert taken is not None
    assert taken.last_words.failure is not None
    assert taken.last_words.failure.startswith("StorageFull: no ü room xxx")
    assert (tmp_path / ".live").stat().st_size == 4096
    assert taken.last_words.counts == (0, 0)
    taken.close(remove=True)
    assert taken.path == tmp_path / ".live"
    taken.close(remove=True)
