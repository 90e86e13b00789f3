"""A run on its way home meets full disks, lost power, and other processes: nothing of it is lost, or told twice."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lost_power import Disk, Luck, WorstLuck
from overflowing import look
from shim import Call, Kind, one_of_each_stretch, read_log
from templates import Templates
from waiting import EVENTS, FAILS_AT, Places, acquiring, looked, waiting_store, where
from zygote import Zygote

FORMATS = pytest.mark.parametrize("format", ["zarr", pytest.param("tiff", marks=pytest.mark.long)])


class Homecoming(NamedTuple):
    """What there was of a run that waited in the second place, all calls that brought it home, and what it is."""

    disk: Disk
    calls: list[Call]
    run: dict[str, Any]


Logged = Callable[[str], Homecoming]


@pytest.fixture(scope="session")
def logged(zygote: Zygote, templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Return the homecoming of a run of this format, which is made once."""

    @cache
    def made(format: str) -> Homecoming:
        folder = tmp_path_factory.mktemp("homecoming")
        templates.copy(
            f"overflow-{format}",
            folder / "both",
            lambda both: waiting_store(zygote, both, format, "datum"),
        )
        disk = Disk(folder / "both")
        disk.take(folder / "both")
        zygote.call("come_home", **where(folder / "both"), log=str(folder / "log"))
        return Homecoming(disk, list(read_log(folder / "log")), looked(zygote, folder / "both", overflow=""))

    return made


def loses_power(homecoming: Homecoming, point: int, folder: Path, luck: Luck) -> None:
    """Lose power after so many calls, and look what there is, before it comes home and after."""
    disk = deepcopy(homecoming.disk)
    for call in homecoming.calls[:point]:
        disk.play(call)
    place = folder / str(point)
    disk.write_what_is_left(place, luck)
    try:
        both = where(place)
        assert look(None, **both)["runs"]["n"]["events"] == homecoming.run["events"]
        home = look(None, **both, mode="a")["runs"]["n"]
        assert home["events"] == homecoming.run["events"]
        assert (home["status"], home["names"].count("stop")) == ("incomplete", 1)
        assert look(None, both["root"])["runs"]["n"] == home
        assert not list(place.glob("*/quarantine"))
        assert [path.name for path in (place / "second").rglob("*") if path.is_file()] == [
            "gently-overflow.json"
        ]
    except BaseException as error:
        error.add_note(f"after call {point} of {len(homecoming.calls)}: {homecoming.calls[point - 1][:5]}")
        raise
    shutil.rmtree(place)


def test_log_holds_everything_that_a_homecoming_changes(logged: Logged, tmp_path: Path) -> None:
    """Or else the other tests here would prove nothing."""
    homecoming = logged("zarr")
    disk = deepcopy(homecoming.disk)
    for call in homecoming.calls:
        disk.play(call)
    disk.write_all(tmp_path / "both")
    assert look(None, str(tmp_path / "both" / "store"))["runs"]["n"] == homecoming.run
    assert not list((tmp_path / "both" / "second").glob("runs/*/*/*/*"))


@FORMATS
def test_run_that_is_home_is_whole_though_all_is_lost_that_was_not_synced(
    logged: Logged, tmp_path: Path, format: str
) -> None:
    homecoming = logged(format)
    begins_to_remove = next(
        number
        for number, call in enumerate(homecoming.calls, 1)
        if call.kind is Kind.RENAME and ".came-home" in call.other
    )
    for point in (begins_to_remove, len(homecoming.calls)):
        loses_power(homecoming, point, tmp_path, WorstLuck())


def worst_moments(calls: list[Call]) -> list[int]:
    """Return where most is to lose: just before something is synced, and just after something was renamed."""
    return [
        number
        for number, (before, call) in enumerate(pairwise(calls), 1)
        if before.kind is Kind.RENAME or (call.kind is Kind.SYNC and "index.sqlite" not in call.path)
    ]


@FORMATS
def test_lost_power_on_the_way_home_takes_nothing(logged: Logged, tmp_path: Path, format: str) -> None:
    homecoming = logged(format)
    moments = worst_moments(homecoming.calls)
    for chosen in one_of_each_stretch(len(moments), 4, format):
        point = moments[chosen - 1]
        loses_power(homecoming, point, tmp_path, Luck(random.Random(f"{format} {point}")))


@pytest.mark.long
@pytest.mark.parametrize("format", ["zarr", "tiff"])
@pytest.mark.parametrize("first", range(8))
def test_lost_power_at_each_call_on_the_way_home_takes_nothing(
    logged: Logged, tmp_path: Path, format: str, first: int
) -> None:
    homecoming = logged(format)
    for point in range(1 + first, len(homecoming.calls) + 1, 8):
        for luck in (WorstLuck(), Luck(random.Random(f"{format} {point}"))):
            loses_power(homecoming, point, tmp_path, luck)


@pytest.mark.parametrize("full", ["second", "store/runs"])
def test_run_that_a_full_disk_keeps_from_coming_home_is_whole_and_comes_when_there_is_room(
    zygote: Zygote, tmp_path: Path, templates: Templates, full: str
) -> None:
    """Its end cannot be written; or no copy: then nothing of one stays. What the dead process counted is kept."""
    both = tmp_path / "both"
    templates.copy("overflow-zarr", both, lambda made: waiting_store(zygote, made, "zarr", "datum"))
    before = looked(zygote, both)["events"]
    zygote.call("come_home", **where(both), refused=str(both / full))
    assert not list(both.rglob("*coming-home*"))
    assert looked(zygote, both)["events"] == before
    home = looked(zygote, both, mode="a")
    received, stored, lost = home["counts"]
    assert (home["events"], stored, received) == (before, len(before), stored + lost)
    assert home["names"].count("stop") == 1


@pytest.mark.parametrize("but_for", ["half", pytest.param("brought", marks=pytest.mark.long)])
def test_run_that_fits_comes_home_whatever_is_there_of_it_already(
    zygote: Zygote, tmp_path: Path, but_for: str
) -> None:
    places = Places(zygote, tmp_path)
    first, waiting, _, home, alone = places.do(
        acquiring("tiff", "datum", "fill", FAILS_AT),
        ("look", {"mode": "a"}),
        ("leave_room", {"but_for": but_for}),
        ("look", {"mode": "a"}),
        ("look", {"overflow": ""}),
    )
    assert any("make room" in warning for warning in waiting["warned"])
    assert home["warned"] == []
    assert alone["runs"]["n"]["events"] == home["runs"]["n"]["events"] == first["announced"]
    assert len(first["announced"]) == EVENTS


def test_store_opens_though_its_second_place_is_mounted_read_only(zygote: Zygote, tmp_path: Path) -> None:
    places = Places(zygote, tmp_path)
    places.root, places.overflow = tmp_path / "store", places.disk / "second"
    first, seen = places.do(acquiring("tiff", "datum", "forbid", FAILS_AT), ("look_beside_frozen", {}))
    assert seen["runs"]["n"]["events"] == first["announced"]
    assert seen["runs"]["n"]["status"] == "complete"
    assert len(seen["warned"]) == 2
    assert all("Read-only file system" in warning for warning in seen["warned"])


@pytest.mark.parametrize("time", [1, *(pytest.param(time, marks=pytest.mark.long) for time in range(2, 20))])
def test_processes_that_open_a_store_at_once_bring_its_run_home_once_and_warn_of_nothing(
    zygote: Zygote, tmp_path: Path, templates: Templates, time: int
) -> None:
    both = tmp_path / "both"
    templates.copy("overflow-zarr", both, lambda made: waiting_store(zygote, made, "zarr", "datum"))
    before = looked(zygote, both)["events"]
    children = [zygote.start("open_among_others", **where(both)) for _ in range(3)]
    for seen in [child.result() for child in children]:
        assert seen == {"frames": len(before), "warned": []}
    assert looked(zygote, both, overflow="")["events"] == before
    assert not list((both / "store").glob("quarantine"))
