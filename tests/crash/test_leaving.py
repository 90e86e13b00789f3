"""What a run leaves in its root is synced before its stop, or the run fails; and no run begins on another disk."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from zygote import Zygote

STOPPED_S = 2.3
"""Longer than the patience of who waits in the child."""
LONG = pytest.mark.long


def on_disk(zygote: Zygote, folder: Path, job: str, **arguments: Any) -> dict[str, Any]:
    """Do a job with a store on a disk of its own, and a second place beside that, if it asks for one."""
    disk = folder / "disk"
    disk.mkdir()
    job_arguments = {"root": str(disk / "store"), "overflow": str(folder / "second"), **arguments}
    done = zygote.call("on_small_disk", folder=str(disk), size=16 << 20, jobs=[(job, job_arguments)])
    assert isinstance(done, list), f"no disk can be mounted here: {done}"
    return done[0]


@pytest.mark.parametrize(
    ("format", "failing", "leaves"),
    [
        ("zarr", "primary-*", False),
        ("tiff", "documents.jsonl", False),
        ("zarr", "baseline-*", True),
        ("tiff", "primary-*", True),
        ("tiff", "documents.jsonl", True),
        pytest.param("tiff", "primary-*", False, marks=LONG),
        pytest.param("zarr", "documents.jsonl", False, marks=LONG),
        pytest.param("tiff", "baseline-*", True, marks=LONG),
        pytest.param("zarr", "primary-*", True, marks=LONG),
        pytest.param("zarr", "documents.jsonl", True, marks=LONG),
    ],
)
def test_run_whose_part_in_the_root_cannot_be_synced_at_its_end_fails_and_never_says_complete(
    zygote: Zygote, tmp_path: Path, format: str, failing: str, leaves: bool
) -> None:
    """What was announced cannot be written elsewhere any more: its pixels are gone from memory."""
    job = {"root": str(tmp_path / "store"), "overflow": str(tmp_path / "second"), "format": format}
    told = zygote.call("end_unsynced", **job, failing=failing, leaves=leaves)
    ((kind, number, message),) = told["raised"]
    assert (kind, number) == ("StorageError", errno.EIO)
    assert "could not be synced" in message
    assert told["status"] == "failed"
    assert told["events"] == 1 + leaves
    assert told["overflowed"] == leaves
    assert told["told"] == [*(["RunGoesOn"] if leaves else []), "StorageError"]


@pytest.mark.parametrize("format", ["tiff", pytest.param("zarr", marks=LONG)])
def test_no_run_begins_where_the_disk_was_taken_away_between_two_runs(
    zygote: Zygote, tmp_path: Path, format: str
) -> None:
    told = on_disk(zygote, tmp_path, "lose_disk_between_runs", overflow="", format=format)
    assert {(kind, number) for kind, number, _ in told["raised"]} == {("StorageError", errno.ENOENT)}
    assert "gently-store.json to name the store" in told["raised"][0][2]
    assert told["told"] == ["StorageError"]
    assert told["put"][:2] == ["StorageError", errno.ENOENT]
    assert told["bare"] == []


def test_run_that_begins_after_its_disk_was_taken_away_is_in_the_second_place(
    zygote: Zygote, tmp_path: Path
) -> None:
    told = on_disk(zygote, tmp_path, "lose_disk_between_runs", format="tiff")
    assert (told["raised"], told["told"], told["overflowed"]) == ([], ["RunGoesOn"], 1)
    assert told["bare"] == []
    (journal,) = (tmp_path / "second").rglob("documents.jsonl")
    assert '"stop"' in journal.read_text()


@pytest.mark.parametrize("format", ["tiff", pytest.param("zarr", marks=LONG)])
def test_room_of_a_run_that_went_on_elsewhere_is_that_of_the_second_place(
    zygote: Zygote, tmp_path: Path, format: str
) -> None:
    told = on_disk(zygote, tmp_path, "lose_root_with_points_to_come", format=format)
    assert (told["raised"], told["told"], told["overflowed"]) == ([], ["RunGoesOn"], 1)
    assert told["status"] == "complete"


@LONG
def test_run_of_a_process_that_was_only_stopped_goes_on(zygote: Zygote, tmp_path: Path) -> None:
    child = zygote.start("be_stopped", root=str(tmp_path / "store"))
    assert child.hear() == {"waiting": True}
    os.kill(child.pid, signal.SIGSTOP)
    threading.Event().wait(STOPPED_S)  # until its patience is gone
    child.tell("the disk answers")
    os.kill(child.pid, signal.SIGCONT)
    assert child.result() == []
