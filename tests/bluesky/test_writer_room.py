"""A disk that fills up during a night: it is warned of, room is made by the store's policy, and then the plan ends."""

from __future__ import annotations

import re
import shutil
import threading
import time
import warnings
from collections import namedtuple
from pathlib import Path

import pytest

from gently_bluesky import Store
from gently_bluesky.documents.relief import Relief
from gently_bluesky.errors import StorageFull
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

Usage = namedtuple("Usage", "total used free")
LEAST = 1000
POLICY = "keep_days = 0\n[[rule]]\nmax_age = '1 day'\n"
PLENTY = 10**12


class Disk:
    """A disk that says how much of it is free, and has plenty when a file is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = [PLENTY]
        self.until_gone: Path | None = None
        monkeypatch.setattr(shutil, "disk_usage", self.usage)

    def usage(self, path: object) -> Usage:
        if self.until_gone is not None and not self.until_gone.exists():
            return Usage(2 * PLENTY, 0, PLENTY)
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return Usage(2 * PLENTY, 0, free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def take(store: Store, events: int = 1, age_days: float = 0, **settings: object) -> str:
    run = HandMadeRun(session="night", scan_id=1)
    run.start["time"] -= age_days * 86_400
    descriptor = run.descriptor(camera={})
    with store.writer(format="tiff", **{"min_free_bytes": LEAST, **settings}) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for _ in range(events):
            writer("event", run.event(descriptor, camera=encoded_frame((8, 9), "<u2")))
        writer("stop", run.stop())
    return run.uid


def old_run(store: Store, *, verified: bool = True) -> tuple[str, Path]:
    uid = take(store, age_days=9)
    if verified:
        store.verify(progress=False)
    (file,) = (store.root / store.record(uid).path).parent.rglob("*.tif")
    return uid, file


def test_it_warns_once_while_there_is_still_room(store: Store, disk: Disk):
    disk.free = [4 * LEAST - 1]
    with pytest.warns(
        RuntimeWarning, match="3999 bytes free, and with fewer than min_free_bytes=1000"
    ) as told:
        uid = take(store, events=5)
    assert len(told) == 1
    assert store[uid].status == "complete"


def test_with_enough_room_or_where_nothing_is_looked_at_nobody_is_warned(store: Store, disk: Disk):
    (store.root / "retention.toml").write_text(POLICY)
    disk.free = [4 * LEAST]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(store, events=3)
        disk.free = [1]
        take(store, events=3, min_free_bytes=0)


@pytest.mark.parametrize("at_start", [True, False])
def test_room_is_made_by_the_policy_and_the_run_goes_on(store: Store, disk: Disk, at_start: bool):
    uid, file = old_run(store)
    (store.root / "retention.toml").write_text(POLICY)
    disk.free, disk.until_gone = ([] if at_start else [PLENTY] * 3) + [LEAST - 1], file
    with warnings.catch_warnings(record=True, action="always") as told:
        new = take(store, events=4)
    first, second = (str(one.message) for one in told)
    assert "999 bytes free, and with fewer than min_free_bytes=1000 the run ends" in first
    assert re.search(r"there was little room in .*, 1 run \(1.1 kB\) purged", second)
    assert store[new].status == "complete"
    assert store.tombstone(uid).purged is not None


def test_room_is_made_for_a_run_that_says_how_long_it_will_be(store: Store, disk: Disk, RE):
    uid, file = old_run(store)
    (store.root / "retention.toml").write_text(POLICY)
    disk.free, disk.until_gone = [5 * LEAST], file
    RE.subscribe(store.writer(format="tiff", min_free_bytes=LEAST))
    with pytest.warns(RuntimeWarning, match=r"there was little room in .*, 1 run \(1.1 kB\) purged"):
        RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=2), num=50))
    assert store[-1].status == "complete"
    assert store.tombstone(uid).purged is not None


def test_it_begins_before_the_room_is_gone(store: Store, disk: Disk):
    uid, file = old_run(store)
    (store.root / "retention.toml").write_text(POLICY)
    disk.free, disk.until_gone = [2 * LEAST - 1], file
    with pytest.warns(RuntimeWarning, match="bytes free"):
        take(store)
    store.close()  # which waits until it is done
    assert not file.exists()
    with Store(store.root, mode="r") as reader:
        assert reader.tombstone(uid).policy == "retention"


@pytest.mark.parametrize(
    ("policy", "said"),
    [("none", None), ("unverified", "lets nothing go"), ("not one", "no room could be made: .* is not TOML")],
)
def test_a_plan_ends_before_the_disk_is_full_and_only_what_is_verified_goes(
    store: Store, disk: Disk, RE, policy: str, said: str | None
):
    uid, file = old_run(store, verified=policy != "unverified")
    if policy != "none":
        (store.root / "retention.toml").write_text("[[rule]" if policy == "not one" else POLICY)
    disk.free = [PLENTY, PLENTY, 3 * LEAST, LEAST - 1]
    failures: list[Exception] = []
    writer = store.writer(format="tiff", min_free_bytes=LEAST, on_failure=failures.append)
    RE.subscribe(writer)
    with (
        warnings.catch_warnings(record=True, action="always") as told,
        pytest.raises(StorageFull, match="min_free_bytes=1000") as caught,
    ):
        RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=2), num=50))
    assert failures == [caught.value]
    first, *more = (str(one.message) for one in told if one.category is RuntimeWarning)
    assert "3000 bytes free" in first
    assert [said and re.search(said, one) is not None for one in more] == [True] * (said is not None)
    run = store[-1]
    assert (run.status, run.stop["exit_status"]) == ("failed", "fail")
    assert store.verify(run.uid, progress=False).ok
    assert file.exists()
    assert store.tombstone(uid) is None


def test_room_is_asked_for_once_at_a_time_and_closing_waits_for_it():
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def make_room() -> str:
        calls.append(time.monotonic())
        begun.set()
        assert go_on.wait(30)
        return "done"

    relief = Relief(make_room)
    for _ in range(3):
        relief.ask()
    assert begun.wait(30)
    relief.wait(0.0)
    assert relief.told == []
    threading.Timer(0.05, go_on.set).start()
    relief.close()
    assert relief.told == ["done"]
    relief.ask()
    relief.close()
    assert len(calls) == 1


def test_what_making_room_raises_is_told():
    relief = Relief(lambda: 1 // 0)
    relief.ask()
    relief.close()
    assert relief.told == [
        "by its policy no room could be made: ZeroDivisionError('integer division or modulo by zero')"
    ]
