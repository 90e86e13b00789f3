"""A run goes on in a second place when its disk fails, can be read all the while, and comes home."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from overflowing import come_back
from templates import Templates
from typer.testing import CliRunner
from waiting import (
    EVENTS,
    FAILS_AT,
    Places,
    acquiring,
    kill_in_overflow,
    looked,
    told_until,
    waiting_store,
    where,
)
from zygote import Zygote

from gently_bluesky.cli import app

KINDS = [("zarr", "datum"), ("tiff", "stream")]
OTHER_KINDS = [("zarr", "stream"), ("tiff", "datum")]
EVERY_KIND = [*KINDS, *(pytest.param(*kind, marks=pytest.mark.long) for kind in OTHER_KINDS)]
SOME_KINDS = [KINDS[0], *(pytest.param(*kind, marks=pytest.mark.long) for kind in [KINDS[1], *OTHER_KINDS])]


@pytest.fixture
def places(zygote: Zygote, tmp_path: Path) -> Places:
    return Places(zygote, tmp_path)


LOOK = ("look", {})
WITHOUT = ("look", {"overflow": ""})
WRITABLE = ("look", {"mode": "a"})
HEALED = ("look", {"mode": "a", "heal": True})


def assert_whole(run: dict[str, Any], announced: list[list[Any]]) -> None:
    assert run["status"] == "complete"
    assert run["events"] == announced
    assert run["counts"] == [EVENTS, EVENTS, 0]
    assert run["names"].count("start") == run["names"].count("descriptor") == 1
    assert run["names"][-1] == "stop"
    assert run["frames"] == run["rows"] == EVENTS


@pytest.mark.parametrize(
    ("fault", "format", "assets"),
    [
        ("fill", "zarr", "datum"),
        ("forbid", "tiff", "stream"),
        ("vanish", "zarr", "stream"),
        *(pytest.param("fill", *kind, marks=pytest.mark.long) for kind in [*KINDS[1:], *OTHER_KINDS]),
        *(pytest.param("forbid", *kind, marks=pytest.mark.long) for kind in [*KINDS[:1], *OTHER_KINDS]),
        *(pytest.param("vanish", *kind, marks=pytest.mark.long) for kind in [*KINDS, *OTHER_KINDS[1:]]),
    ],
)
def test_run_goes_on_in_the_second_place_loudly_and_comes_home(
    places: Places, fault: str, format: str, assets: str
) -> None:
    meanwhile = {"fill": WRITABLE, "forbid": LOOK, "vanish": ("look", {"heal": True})}[fault]
    first, waiting, home, without = places.do(
        acquiring(format, assets, fault, FAILS_AT), meanwhile, HEALED, WITHOUT
    )
    assert first["error"] is None
    assert [number for _, number in first["announced"]] == list(range(1, EVENTS + 1))
    assert len(first["failures"]) == first["overflowed"] == 1
    assert f"goes on in {places.overflow}" in first["warned"][0]
    assert "store.reconcile()" in first["warned"][0]
    if fault != "vanish":
        assert_whole(first["seen"]["n"], first["announced"])
    if fault == "fill":
        assert any("make room" in warning for warning in waiting["warned"])
    assert_whole(waiting["runs"]["n"], first["announced"])
    assert home["runs"] == without["runs"] == waiting["runs"]
    assert [path for path in places.overflow.rglob("*") if path.is_file()] == [
        places.overflow / "gently-overflow.json"
    ]


@pytest.mark.parametrize(("format", "assets"), SOME_KINDS)
def test_frames_in_the_buffer_when_the_disk_fails_are_stored_in_the_second_place(
    places: Places, format: str, assets: str
) -> None:
    first, home = places.do(acquiring(format, assets, "fill", FAILS_AT, going_on=True), HEALED)
    assert first["error"] is None
    assert_whole(home["runs"]["n"], first["announced"])


@pytest.mark.parametrize(
    ("format", "fault"),
    [("zarr", "fill"), ("tiff", "freeze"), pytest.param("tiff", "forbid_runs", marks=pytest.mark.long)],
)
def test_run_that_the_root_does_not_take_at_all_is_in_the_second_place_as_a_whole(
    places: Places, format: str, fault: str
) -> None:
    elsewhere = f"sqlite:///{places.overflow.parent / 'elsewhere.sqlite'}"
    first, seen = places.do(acquiring(format, "datum", fault, 0, index=elsewhere), LOOK)
    assert first["error"] is None
    assert len(first["failures"]) == 1
    assert_whole(first["seen"]["n"], first["announced"])
    assert_whole(seen["runs"]["n"], first["announced"])


@pytest.mark.parametrize("format", ["zarr", pytest.param("tiff", marks=pytest.mark.long)])
def test_run_that_neither_place_takes_fails_with_the_first_error(places: Places, format: str) -> None:
    inside = {"overflow": str(places.disk / "second")}  # on the disk that is full
    name, arguments = acquiring(format, "datum", "fill", FAILS_AT)
    first, seen = places.do((name, arguments | inside), ("look", inside))
    assert first["error"][0] == "StorageFull"
    assert "took it neither" in first["error"][-1]
    assert [number for _, number in first["announced"]] == list(range(1, FAILS_AT))
    run = seen["runs"]["n"]
    assert (run["status"], run["events"]) == ("failed", first["announced"])
    assert "took it neither" in run["stop"]["reason"]


def test_disk_that_fills_up_is_left_before_it_is_full(places: Places) -> None:
    """With ``min_free_bytes`` the run goes on elsewhere, or fails, while journal and index have room."""
    job = acquiring("tiff", "datum", "nothing", 1, events=60, min_free_bytes=7 << 20)
    first, seen = places.do(job, LOOK, size=8 << 20)
    assert (first["error"], first["overflowed"]) == (None, 1)
    assert "min_free_bytes" in first["warned"][0]
    assert seen["runs"]["n"]["events"] == first["announced"]
    alone, seen = places.do((job[0], job[1] | {"overflow": ""}), WITHOUT, size=8 << 20)
    assert alone["error"][0] == "StorageFull"
    assert "make room" in alone["error"][1]
    assert seen["runs"]["n"]["events"] == alone["announced"]
    assert len(alone["announced"]) >= 1


@pytest.mark.parametrize(
    ("format", "overflow", "fits"), [("tiff", "", False), ("zarr", "", True), ("tiff", "x", True)]
)
def test_run_whose_points_do_not_fit_is_refused_with_its_first_event(
    places: Places, format: str, overflow: str, fits: bool
) -> None:
    """Its length is ``num_points``; what compresses is counted as it is stored, and the second place counts too."""
    second = {"overflow": str(places.overflow) if overflow else ""}
    job = acquiring(format, "datum", "nothing", 1, num_points=450, min_free_bytes=1 << 20, going_on=True)
    first, seen = places.do((job[0], job[1] | second), ("look", second))
    assert seen["runs"]["n"]["events"] == first["announced"]
    if fits:
        assert (first["error"], first["overflowed"]) == (None, 0)
    else:
        assert first["error"][0] == "StorageFull"
        assert "num_points=450" in first["error"][1]
        assert first["raised_at"][-1] == "stop"
        assert seen["runs"]["n"]["status"] == "failed"


@pytest.mark.parametrize(("format", "assets"), SOME_KINDS)
def test_another_process_reads_both_parts_while_the_run_goes_on(
    zygote: Zygote, tmp_path: Path, format: str, assets: str
) -> None:
    where = {"root": str(tmp_path / "store"), "overflow": str(tmp_path / "second")}
    name, arguments = acquiring(format, assets, "forbid", FAILS_AT, pause_before=EVENTS)
    child = zygote.start(name, **where, **arguments)
    announced = told_until(child, "waiting")
    seen = zygote.call("look", **where)["runs"]["n"]
    assert seen["status"] == "running"
    assert seen["events"] == announced
    assert len(announced) == EVENTS - 1
    child.tell("go on")
    report = child.result()
    come_back(tmp_path / "store")
    assert zygote.call("look", **where, held=True)["held"] == {"n": EVENTS}
    assert_whole(zygote.call("look", **where)["runs"]["n"], report["announced"])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))])
@pytest.mark.parametrize(("format", "assets"), EVERY_KIND)
def test_killed_in_the_second_place_loses_nothing_that_was_announced(
    zygote: Zygote, tmp_path: Path, format: str, assets: str, seed: int
) -> None:
    after = random.Random(f"{format} {assets} {seed}").randrange(1, 20)
    announced = kill_in_overflow(zygote, tmp_path, format, assets, after)
    where = {"root": str(tmp_path / "store"), "overflow": str(tmp_path / "second")}
    before = zygote.call("look", **where)["runs"]["n"]
    home = zygote.call("look", **where, mode="a")["runs"]["n"]
    again = zygote.call("look", **where, mode="a")["runs"]["n"]
    alone = zygote.call("look", root=where["root"])["runs"]["n"]
    assert before["events"][: len(announced)] == announced
    assert home == again == alone
    assert home["events"] == before["events"]
    assert home["status"] == "incomplete"
    received, stored, lost = home["counts"]
    assert stored == len(home["events"]) == home["stop"]["num_events"]["primary"]
    assert received == stored + lost


@pytest.mark.parametrize(
    "part", [0.5, 0.8, *(pytest.param(step / 150, marks=pytest.mark.long) for step in range(150))]
)
@pytest.mark.parametrize(("format", "assets"), KINDS)
def test_dying_on_the_way_home_changes_nothing_that_is_told(
    zygote: Zygote, tmp_path: Path, templates: Templates, format: str, assets: str, part: float
) -> None:
    name = f"overflow-{format}"
    templates.copy(name, tmp_path / "whole", lambda folder: waiting_store(zygote, folder, format, assets))
    shutil.copytree(tmp_path / "whole", tmp_path / "dying")
    expected = looked(zygote, tmp_path / "whole")
    calls = zygote.call("come_home", **where(tmp_path / "whole"))
    zygote.start("come_home", **where(tmp_path / "dying"), die_at_call=1 + int(part * calls)).last_words()
    between = looked(zygote, tmp_path / "dying")
    assert between["events"] == expected["events"]
    home = looked(zygote, tmp_path / "dying", mode="a")
    assert home == looked(zygote, tmp_path / "dying", overflow="")
    assert home["events"] == expected["events"]
    assert (home["status"], home["stop"]["num_events"]["primary"]) == ("incomplete", len(home["events"]))
    left = [path.name for path in (tmp_path / "dying" / "second").rglob("*") if path.is_file()]
    assert left == ["gently-overflow.json"]


def test_command_brings_home_what_waits_in_the_second_place(zygote: Zygote, tmp_path: Path) -> None:
    announced = kill_in_overflow(zygote, tmp_path, "tiff", "datum", FAILS_AT + 2)
    root, second = where(tmp_path).values()
    run = CliRunner().invoke
    nowhere = run(app, ["reconcile", "--store", root, "--overflow", f"{second}nd"])
    assert (nowhere.exit_code, "there is no second place" in nowhere.stderr) == (1, True)
    assert not Path(f"{second}nd").exists()
    dry = run(app, ["reconcile", "--store", root, "--overflow", second, "--dry-run"])
    assert (dry.exit_code, "home" in dry.stdout) == (0, True)
    assert looked(zygote, tmp_path)["events"][: len(announced)] == announced
    done = run(app, ["reconcile", "--store", root, "--overflow", second])
    assert (done.exit_code, "home" in done.stdout) == (0, True)
    assert looked(zygote, tmp_path, overflow="")["events"][: len(announced)] == announced


def test_without_the_second_place_the_first_part_ends_on_record_and_says_where_it_went_on(
    zygote: Zygote, tmp_path: Path
) -> None:
    announced = kill_in_overflow(zygote, tmp_path, "zarr", "datum", FAILS_AT + 2)
    alone = looked(zygote, tmp_path, mode="a", overflow="")
    assert alone["events"] == announced[: FAILS_AT - 1]
    assert str(tmp_path / "second") in alone["stop"]["reason"]
    both = looked(zygote, tmp_path, mode="a")
    assert both["events"][: len(announced)] == announced
    assert both["names"].count("stop") == 1
