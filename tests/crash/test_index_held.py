"""An index that others write too: transactions that are cut off, processes that hold it, and disks without locks."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import answers, examine, snapshot
from zygote import Child, Zygote

from gently_bluesky import Store


def rebuilt(root: Path) -> list[str]:
    """What the index says that is made from the files alone."""
    (root / "index.sqlite").unlink()
    return answers(root, "a")


@pytest.mark.parametrize("at", [1, 2, "stop"])
def test_transaction_that_is_cut_off_by_a_kill_leaves_an_index_that_is_whole(
    zygote: Zygote, root: Path, at: int | str
) -> None:
    """At the first the start is in the journal and not in the index, then come events, and last the stop."""
    zygote.call("acquire", root=str(root), format="tiff", night="before", events=3)
    halted = {"format": "tiff", "night": "cut off", "how": "SIGKILL", "at": at}
    words = zygote.start("halt_inside_transaction", root=str(root), **halted).last_words()
    assert words == [{"inside": at}]
    assert (root / "index.sqlite-wal").stat().st_size > 0
    files = snapshot(root, index=False)
    seen = examine(None, str(root))
    assert snapshot(root, index=False) == files
    assert (seen["before"]["status"], seen["before"]["frames"]) == ("complete", 3)
    assert set(seen) == {"before", "cut off"}
    recovered = examine(None, str(root), mode="a")
    assert recovered["before"] == seen["before"]
    assert recovered["cut off"]["events"] == seen["cut off"]["events"]
    said = answers(root, "a")
    assert rebuilt(root) == said


@pytest.fixture
def stopped(zygote: Zygote, root: Path) -> Iterator[Child]:
    """A process that was stopped inside a transaction, as by Ctrl-Z or a debugger, and holds the index."""
    zygote.call("acquire", root=str(root), format="tiff", night="before", events=3)
    halted = {"format": "tiff", "night": "stopped", "how": "SIGSTOP", "at": 2}
    child = zygote.start("halt_inside_transaction", root=str(root), **halted)
    assert child.hear() == {"inside": 2}
    yield child
    child.kill()


def test_runs_go_on_beside_a_process_that_is_stopped_while_it_holds_the_index(
    zygote: Zygote, root: Path, stopped: Child
) -> None:
    halted = examine(None, str(root))["stopped"]["uid"]
    reader = zygote.start("follow_next_run", root=str(root), mode="r", after=halted)
    assert "ready" in reader.hear()
    nights = ["while", "after"]
    writer = zygote.start("acquire_beside", root=str(root), format="tiff", nights=nights)
    writer.tell("go on")
    told = writer.hear()
    assert [number for _, number in told["announced"]] == [1, 2, 3, 4, 5]
    assert "another process has held the index for too long" in told["warned"][0]
    assert "the index follows with this writer's next run" in told["warned"][0]
    assert told["put"].startswith("StorageStalled: result ")
    assert "is stored, but another process has held the index" in told["put"]
    assert told["known"] == ["before", "stopped"]
    seen = reader.result()
    assert (len(seen["seen"]), seen["status"]) == (5, "complete")

    os.kill(stopped.pid, signal.SIGCONT)
    stopped.result()
    writer.tell("go on")
    told = writer.hear()
    assert (told["warned"], told["put"]) == ([], None)
    assert told["known"] == ["after", "before", "stopped", "while"]
    writer.result()
    seen = examine(None, str(root))
    assert {night: (run["status"], run["frames"]) for night, run in seen.items()} == {
        "before": ("complete", 3),
        "stopped": ("complete", 4),
        "while": ("complete", 5),
        "after": ("complete", 5),
    }
    said = answers(root, "a")
    assert rebuilt(root) == said
    with Store(root, mode="r") as store:
        assert sorted(store.get(one.uid)["of"] for one in store.query(data_type="nuclei")) == [
            "after",
            "while",
        ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_refused_before_anything_moves_and_can_be_read(
    zygote: Zygote, root: Path, number: int
) -> None:
    zygote.call("acquire", root=str(root), format="tiff", night="whole", events=2)
    dying = {"format": "tiff", "night": "dead", "events": 6, "die_after_events": 2}
    zygote.start("acquire", root=str(root), **dying).last_words()
    files = snapshot(root, index=False)
    told = zygote.call("acquire_without_locks", root=str(root), number=number, night="never")
    assert told["error"].startswith(f"StorageError: [Errno {number}] ")
    assert "this file system keeps no locks (flock)" in told["error"]
    assert "keep the store on one that does" in told["error"]
    assert (told["errno"], told["triggered"]) == (number, 0)
    assert any("a run was left alone" in warned for warned in told["warned"])
    assert told["status"] == {"whole": "complete", "dead": "running"}
    assert len(told["folders"]) == 2
    assert snapshot(root, index=False) == files
