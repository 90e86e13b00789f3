"""A store that cannot take a run stops the plan before anything moves, and keeps no half of a run."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from zygote import Zygote

FAULTS = {
    "fill": errno.ENOSPC,
    "fill_but_for_pages": errno.ENOSPC,
    "freeze": errno.EROFS,
    "forbid_runs": errno.EACCES,
    "exhaust_descriptors": errno.EMFILE,
    "limit_all_files": errno.EFBIG,
}


def start(
    zygote: Zygote, folder: Path, format: str, **arguments: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Begin a run on a disk of its own, and look what is there afterwards."""
    disk = folder / "disk"
    disk.mkdir()
    root = str(disk / "store")
    jobs = [
        ("start_on_failing_disk", {"root": root, "format": format, **arguments}),
        ("examine", {"root": root}),
    ]
    results = zygote.call("on_small_disk", folder=str(disk), size=8 << 20, jobs=jobs)
    if isinstance(results, dict):  # nobody may mount a disk here
        if arguments["fault"] in ("fill", "fill_but_for_pages", "freeze"):
            jobs[0][1]["fault"] = "limit_all_files"
        results = [zygote.call(name, **arguments) for name, arguments in jobs]
    return results[0], results[1]


def assert_nothing_began(report: dict[str, Any], seen: dict[str, Any]) -> None:
    assert report["is_one_object"]
    assert report["raised_at"][0] == "start"
    assert set(report["raised_at"][1:]) <= {"stop"}
    assert (report["moved"], report["triggered"]) == (False, 0)
    assert len(report["folders"]) == 1
    assert set(seen) == {"before"}
    assert seen["before"]["status"] == "complete"


@pytest.mark.parametrize("fault", FAULTS)
def test_plan_stops_before_anything_moves_where_no_run_can_be_opened(
    zygote: Zygote, tmp_path: Path, format: str, fault: str
) -> None:
    report, seen = start(zygote, tmp_path, format, fault=fault)
    assert_nothing_began(report, seen)
    assert report["errno"] in {FAULTS[fault], errno.EFBIG}


def test_plan_stops_before_anything_moves_where_there_is_less_room_than_wanted(
    zygote: Zygote, tmp_path: Path, format: str
) -> None:
    report, seen = start(zygote, tmp_path, format, fault="", min_free_bytes=1 << 60)
    assert_nothing_began(report, seen)
    assert report["error"] == "StorageFull"
    assert f"min_free_bytes={1 << 60}" in report["message"]
