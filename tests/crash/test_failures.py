"""The first failure of a run is final: one error for everybody, on record, and nothing announced is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from looking import snapshot
from zygote import Zygote

SMALL = 16 << 20
FAULTS = {
    "fill": errno.ENOSPC,
    "limit_files": errno.EFBIG,
    "exhaust_descriptors": errno.EMFILE,
    "forbid": errno.EACCES,
}


class Disk:
    """A place for a store, on which jobs are done in processes of their own."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self._zygote = zygote
        self._folder = folder
        self.root = str(folder / "disk" / "store")
        Path(self.root).parent.mkdir()

    def do(self, *jobs: tuple[str, dict[str, Any]], size: int = SMALL) -> list[Any]:
        """Do the jobs on a small disk of their own; where nobody may mount one, files are limited."""
        jobs = tuple((name, {"root": self.root, **arguments}) for name, arguments in jobs)
        folder = str(Path(self.root).parent)
        results = self._zygote.call("on_small_disk", folder=folder, size=size, jobs=jobs)
        if isinstance(results, list):
            return results
        return [
            self._zygote.call(
                name, **{**arguments, "fault": "limit_files"} if "fault" in arguments else arguments
            )
            for name, arguments in jobs
        ]


@pytest.fixture
def disk(zygote: Zygote, tmp_path: Path) -> Disk:
    return Disk(zygote, tmp_path)


def failing(format: str, fault: str, when: str, events: int = 6) -> tuple[str, dict[str, Any]]:
    return "acquire_on_failing_disk", {
        "format": format,
        "night": "n",
        "events": events,
        "fault": fault,
        "when": when,
    }


LOOK = ("examine", {})


def assert_on_record(run: dict[str, Any], report: dict[str, Any], received: int) -> None:
    """The run ended as failed, with the frames that were announced, bit for bit, and right counts."""
    assert run["status"] == "failed"
    assert run["stop"]["exit_status"] == "fail"
    assert report["message"] in run["stop"]["reason"]
    assert run["stops"] == 1
    stored = len(run["events"])
    assert (run["received"], run["stored"], run["lost"]) == (received, stored, received - stored)
    assert run["outcome"] == {
        "status": "failed",
        "received": received,
        "stored": stored,
        "lost": received - stored,
    }
    assert run["stop"]["num_events"] == {"primary": stored}
    assert run["frames"] == stored
    assert run["events"][: len(report["announced"])] == report["announced"]
    assert [number for _, number in run["events"]] == list(range(1, stored + 1))
    assert not {".live", ".reserve"} & set(run["left"])


@pytest.mark.parametrize("fault", FAULTS)
def test_failure_at_one_event_spares_those_before_it(disk: Disk, format: str, fault: str) -> None:
    report, seen = disk.do(failing(format, fault, "waiting 3"), LOOK)
    assert report["is_one_object"]
    assert report["error"] == ("StorageFull" if fault == "fill" else "StorageError")
    assert report["errno"] == FAULTS[fault]
    assert [number for _, number in report["announced"]] == [1, 2]
    assert_on_record(seen["n"], report, received=3)


@pytest.mark.parametrize("fault", FAULTS)
def test_failure_is_raised_by_the_next_document_and_again_at_stop(
    disk: Disk, format: str, fault: str
) -> None:
    report, seen = disk.do(failing(format, fault, "going on 3"), LOOK)
    assert report["raised_at"] == ["event", "stop"]
    assert report["is_one_object"]
    assert_on_record(seen["n"], report, received=3)


@pytest.mark.parametrize("fault", ["fill", "limit_files", "exhaust_descriptors"])
def test_failure_while_the_buffer_drains_is_raised_at_stop(disk: Disk, format: str, fault: str) -> None:
    report, seen = disk.do(failing(format, fault, "stop"), LOOK)
    assert report["raised_at"] == ["stop"]
    assert report["is_one_object"]
    assert report["announced"][0][1] == 1
    assert_on_record(seen["n"], report, received=6)
    assert seen["n"]["lost"] > 0


@pytest.mark.parametrize("fault", ["fill", "limit_files", "exhaust_descriptors"])
def test_failure_at_the_first_frame_leaves_a_failed_run_without_events(
    disk: Disk, format: str, fault: str
) -> None:
    report, seen = disk.do(failing(format, fault, "going on 1"), LOOK)
    assert report["is_one_object"]
    assert report["announced"] == []
    assert_on_record(seen["n"], report, received=1)


def test_disk_that_fills_up_by_itself_stops_the_plan(disk: Disk, format: str) -> None:
    report, seen = disk.do(failing(format, "", "crowded", events=400), LOOK, size=6 << 20)
    if report["error"] is None:  # nobody may mount a small disk here
        pytest.fail("400 frames went onto a disk for 200")
    assert report["is_one_object"]
    received = seen["n"]["received"]
    assert len(report["announced"]) <= seen["n"]["stored"] <= received < 400
    assert_on_record(seen["n"], report, received)


def test_next_run_after_a_full_disk_has_room_again_is_stored(disk: Disk, format: str) -> None:
    again = ("make_room_and_acquire", {"format": format, "night": "after", "events": 3})
    report, _, seen = disk.do(failing(format, "fill", "going on 3"), again, LOOK)
    assert_on_record(seen["n"], report, received=3)
    assert seen["after"]["status"] == "complete"
    assert [number for _, number in seen["after"]["events"]] == [1, 2, 3]


def test_failure_that_cannot_even_be_recorded_is_on_record_after_the_next_opening(
    zygote: Zygote, root: Path, format: str
) -> None:
    arguments = failing(format, "limit_all_files", "going on 3")[1]
    report = zygote.call("acquire_on_failing_disk", root=str(root), **arguments)
    assert report["raised_at"] == ["event", "stop"]
    assert report["is_one_object"]
    before = zygote.call("examine", root=str(root))["n"]
    assert before["status"] == "incomplete"
    assert before["events"] == report["announced"]
    assert_on_record(zygote.call("examine", root=str(root), mode="a")["n"], report, received=3)
    assert_on_record(zygote.call("examine", root=str(root))["n"], report, received=3)


def test_run_killed_on_a_full_disk_is_recovered_in_the_space_it_had_set_aside(
    disk: Disk, format: str
) -> None:
    killed = ("die_on_full_disk", {"format": format, "night": "n"})
    _, before, opened, after = disk.do(killed, LOOK, ("examine", {"mode": "a"}), LOOK)
    assert (before["n"]["status"], before["n"]["stop"]) == ("incomplete", None)
    assert opened == after
    assert (after["n"]["status"], after["n"]["stop"]["exit_status"]) == ("incomplete", "abort")
    assert (after["n"]["received"], after["n"]["lost"]) == (2, 0)
    assert after["n"]["events"] == before["n"]["events"]


def test_store_opens_although_the_disk_lets_no_dead_run_be_recovered(zygote: Zygote, root: Path) -> None:
    zygote.start(
        "acquire", root=str(root), format="zarr", night="n", events=9, die_after_events=2
    ).last_words()
    before = snapshot(root)
    warned = zygote.call("open_for_writing_in_vain", root=str(root))
    assert len(warned) == 1
    assert "documents could not be recorded: File too large" in warned[0]
    assert {name for name in before if not name.endswith(".reserve")} == set(snapshot(root))
    after = zygote.call("examine", root=str(root), mode="a")["n"]
    assert (after["status"], after["stops"], len(after["events"])) == ("incomplete", 1, after["stored"])


@pytest.mark.parametrize("fault", ["wrong_shape", "fill", "limit_files"])
def test_failure_on_a_monitored_device_s_thread_stops_the_plan(disk: Disk, format: str, fault: str) -> None:
    job = ("monitor_on_failing_disk", {"format": format, "night": "n", "fault": fault, "at": 3})
    report, seen = disk.do(job, LOOK)
    assert report["is_one_object"]
    assert report["error"] == {"wrong_shape": "FrameMismatch", "fill": "StorageFull"}.get(
        fault, "StorageError"
    )
    assert report["raised_at"][-2:] == ["descriptor", "stop"]
    assert not report["moved"]
    run = seen["n"]
    assert run["status"] == "failed"
    assert run["stop"]["exit_status"] == "fail"
    assert [uid for uid, _ in run["events"]] == [uid for uid, _ in report["announced"]]
    assert run["stored"] == len(run["events"]) >= 2
    assert run["lost"] == run["received"] - run["stored"] >= 1
