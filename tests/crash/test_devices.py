"""Devices that write for themselves: SIGKILL loses nothing that was announced, and a failing disk stops the plan."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from looking import snapshot
from test_failures import Disk
from test_kill import assert_opening_changes_nothing, wait_at_most
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame

SHAPE = (4, 96, 128)
FAULTS = {"fill": "StorageFull", "limit_files": "StorageError", "exhaust_descriptors": "StorageError"}

FAMILIES = pytest.mark.parametrize("assets", ["datum", "stream"])


@pytest.fixture
def disk(zygote: Zygote, tmp_path: Path) -> Disk:
    return Disk(zygote, tmp_path)


def job(root: Path, format: str, assets: str, night: str = "n", events: int = 400) -> dict[str, Any]:
    return {
        "root": str(root),
        "format": format,
        "night": night,
        "events": events,
        "assets": assets,
        "shape": SHAPE,
    }


def look(root: Path, mode: str, night: str) -> tuple[str, list[int]]:
    """Check every frame of a run that a store shows, bit for bit; return its status, and the numbers of its events."""
    with Store(root, mode=mode) as store:
        found = [record for record in store.query() if record.metadata.get("night") == night]
        if not found:
            return "none", []
        run = store[found[0].uid]
        numbers = [event["data"]["number"] for event in run["primary"].events] if run.streams else []
        frames = run["primary"]["view_a"] if run.streams else []
        assert len(numbers) <= len(frames) <= len(numbers) + 1
        for number, frame in enumerate(frames, start=1):
            check_frame(frame.compute(), run=night, key="view_a", event=number)
        return run.status, numbers


def assert_nothing_lost(root: Path, night: str, announced: list[int]) -> None:
    status, numbers = look(root, "r", night)
    assert numbers[: len(announced)] == announced
    status, numbers = look(root, "a", night)
    assert status in ("complete", "incomplete", "none")
    assert numbers[: len(announced)] == announced
    in_place = [name for name in snapshot(root) if not name.startswith("quarantine/")]
    assert not [name for name in in_place if name.endswith((".live", ".reserve", ".__lock", ".partial"))]
    assert_opening_changes_nothing(root)


def kill_and_look(zygote: Zygote, root: Path, format: str, seed: int, assets: str) -> None:
    dice, night = random.Random(seed), f"night-{seed}"
    child = zygote.start("acquire_by_device", **job(root, format, assets, night))
    heard = [child.hear() for _ in range(int(24 ** dice.random()))]
    wait_at_most(dice.random() * 0.01)
    heard += child.kill()
    events = [message["doc"] for message in heard if message and message.get("name") == "event"]
    assert_nothing_lost(root, night, [event["data"]["number"] for event in events])


@FAMILIES
@pytest.mark.parametrize("seed", range(5))
def test_killed_device_loses_no_announced_event(
    zygote: Zygote, root: Path, format: str, seed: int, assets: str
) -> None:
    kill_and_look(zygote, root, format, seed, assets)


@pytest.mark.long
@FAMILIES
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_device_loses_no_announced_event_at_many_moments(
    zygote: Zygote, root: Path, format: str, seed: int, assets: str
) -> None:
    kill_and_look(zygote, root, format, seed, assets)


@FAMILIES
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_disk_stops_the_plan_and_spares_what_was_announced(
    disk: Disk, format: str, fault: str, assets: str
) -> None:
    acquisition = {"format": format, "night": "n", "events": 6, "assets": assets, "shape": SHAPE}
    results = disk.do(
        ("acquire_by_device", {**acquisition, "fault": fault, "at": 3}),
        ("numbers_shown", {"night": "n"}),
    )
    failed, shown = results
    assert "FailedStatus" in failed["errors"] or set(failed["errors"]) & {"StorageFull", "StorageError"}
    assert shown["numbers"] == [1, 2]
    assert shown["status"] in ("failed", "incomplete")
