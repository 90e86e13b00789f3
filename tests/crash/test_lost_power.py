"""Power is lost at any call: what was announced is on the disk, bit for bit, and what is not is not claimed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from looking import answers, examine, snapshot
from lost_power import Disk, Luck, WorstLuck, played
from shim import Call, Kind, one_of_each_stretch, read_log
from zygote import Zygote

RUNS = pytest.mark.parametrize(
    ("format", "assets", "by"),
    [
        ("zarr", "datum", "writer"),
        ("zarr", "stream", "writer"),
        ("tiff", "datum", "writer"),
        ("tiff", "stream", "writer"),
        ("zarr", "stream", "device"),
        ("tiff", "datum", "device"),
    ],
)
JOBS = {"writer": "acquire", "device": "acquire_by_device"}

Logged = Callable[..., tuple[Path, list[Call]]]


@pytest.fixture(scope="session")
def logged(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Return where a run of this kind was stored, and all calls that stored it; each is acquired once."""
    known: dict[tuple[str, ...], tuple[Path, list[Call]]] = {}

    def acquired(format: str, assets: str, by: str, **how: str) -> tuple[Path, list[Call]]:
        kind = (format, assets, by, *how.values())
        if kind not in known:
            folder = tmp_path_factory.mktemp("logged")
            job = {
                "root": str(folder / "store"),
                "format": format,
                "assets": assets,
                "night": "n",
                "events": 3,
            }
            zygote.call(JOBS[by], **job, shape=(3, 48, 64), log=str(folder / "log"), **how)
            known[kind] = folder / "store", list(read_log(folder / "log"))
        return known[kind]

    return acquired


def told(calls: Iterable[Call], name: str) -> list[list[Any]]:
    """Return uid and number of the documents of this name that subscribers had been told of."""
    marks = [json.loads(call.data) for call in calls if call.kind is Kind.MARK]
    return [[uid, number] for kind, uid, number in marks if kind == name]


@RUNS
def test_log_holds_everything_that_changes_a_file(
    logged: Logged, tmp_path: Path, format: str, assets: str, by: str
) -> None:
    """Or else the other tests here would prove nothing."""
    root, calls = logged(format, assets, by)
    played(root, calls).write_all(tmp_path / "again")
    expected, found = (
        {name: content for name, (_, content) in snapshot(at).items()} for at in (root, tmp_path / "again")
    )
    assert found == expected
    assert len(told(calls, "event")) == 3


def loses_power(calls: list[Call], disk: Disk, place: Path, luck: Luck, surplus: int) -> None:
    """Lose power after these calls, and look what there is; a device may have told of so many frames more."""
    disk.write_what_is_left(place, luck)
    run = examine(None, str(place), mode="a").get("n")
    if told(calls, "start"):
        assert run is not None
    if run is not None:
        announced = told(calls, "event")
        assert run["events"][: len(announced)] == announced
        stored = len(run["events"])
        assert 0 <= run["frames"] - stored <= surplus
        assert run["stored"] in (stored, 0 if surplus else stored)
        assert [number for _, number in run["events"]] == list(range(1, stored + 1))
        assert run["stops"] == 1
        if told(calls, "stop"):
            assert run["status"] == "complete"
    files, said = snapshot(place), answers(place, "a")
    assert snapshot(place) == files
    (place / "index.sqlite").unlink()
    assert answers(place, "a") == said


def worst_moments(calls: list[Call]) -> list[int]:
    """Return where most is to lose: just before something is synced, and just after somebody was told."""
    return [
        number
        for number, (before, call) in enumerate(pairwise(calls), 1)
        if before.kind is Kind.MARK or (call.kind is Kind.SYNC and "index.sqlite" not in call.path)
    ]


def loses_power_at(
    root: Path, calls: list[Call], folder: Path, points: Iterable[int], lucks: int, surplus: int
) -> None:
    """Lose power after each of these calls, so many times, as the dice fall; or once, with the worst luck."""
    folder.mkdir(exist_ok=True)
    disk, done = Disk(root), 0
    for point in points:
        for call in calls[done:point]:
            disk.play(call)
        done = point
        for seed in range(max(lucks, 1)):
            place = folder / f"store-{point}-{seed}"
            luck = Luck(random.Random(f"{point}-{seed}")) if lucks else WorstLuck()
            try:
                loses_power(calls[:point], disk, place, luck, surplus)
            except BaseException as error:
                error.add_note(f"after call {point} of {len(calls)}, dice {seed}: {calls[point - 1][:5]}")
                raise
            shutil.rmtree(place)


@RUNS
def test_whoever_was_told_finds_it_though_all_is_lost_that_was_not_synced(
    logged: Logged, tmp_path: Path, format: str, assets: str, by: str
) -> None:
    root, calls = logged(format, assets, by)
    points = [number for number, call in enumerate(calls, 1) if call.kind is Kind.MARK]
    loses_power_at(root, calls, tmp_path, points, lucks=0, surplus=by == "device")


@RUNS
def test_lost_power_takes_nothing_that_was_announced(
    logged: Logged, tmp_path: Path, format: str, assets: str, by: str
) -> None:
    root, calls = logged(format, assets, by)
    moments = worst_moments(calls)
    chosen = one_of_each_stretch(len(moments), 6, f"{format}-{assets}-{by}")
    points = [moments[number - 1] for number in chosen]
    loses_power_at(root, calls, tmp_path, points, lucks=1, surplus=by == "device")


def test_lost_power_takes_nothing_of_a_run_that_was_synced_when_it_ended(
    logged: Logged, tmp_path: Path, format: str
) -> None:
    root, calls = logged(format, "datum", "writer", sync="run")
    ended = next(number for number in range(len(calls)) if told(calls[:number], "stop"))
    loses_power_at(root, calls, tmp_path, range(ended, len(calls), 12), lucks=3, surplus=False)


@pytest.mark.long
@RUNS
@pytest.mark.parametrize("first", range(8))
def test_lost_power_at_each_call_takes_nothing_that_was_announced(
    logged: Logged, tmp_path: Path, format: str, assets: str, by: str, first: int
) -> None:
    root, calls = logged(format, assets, by)
    points = range(1 + first, len(calls) + 1, 8)
    loses_power_at(root, calls, tmp_path, points, lucks=2, surplus=by == "device")
    loses_power_at(
        root, calls, tmp_path / "worst", worst_moments(calls)[first::8], 20, surplus=by == "device"
    )
