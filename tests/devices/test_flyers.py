"""Flyers that write for themselves: flown, collected meanwhile, paused and aborted in flight, failing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import FailedStatus, ProgressBar, ProgressBarManager
from cameras import FLYERS, PLANS, DatumFlyer, ask_to_pause
from event_model import DocumentNames, schema_validators

from gently_bluesky import Store
from gently_bluesky.devices.plans import fly_and_collect
from gently_bluesky.errors import InputError
from gently_bluesky.run import Run

Shows = Callable[[Run, list[int]], None]


def test_a_flight_is_one_run_of_all_its_events(
    store: Store, RE: Any, flyer: Any, family: str, shows: Shows
) -> None:
    received: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(store.writer())
    RE.subscribe(lambda name, doc: received.append((name, doc)))
    (uid,) = RE(PLANS[family](flyer))
    shows(store[uid], [1, 2, 3, 4])
    assert store[uid].status == "complete"
    for name, doc in received:
        schema_validators[DocumentNames[name]].validate(doc)


def test_flights_follow_each_other(store: Store, RE: Any, flyer: Any, family: str, shows: Shows) -> None:
    RE.subscribe(store.writer())
    uids = [RE(PLANS[family](flyer))[0] for _ in range(2)]
    for uid in uids:
        shows(store[uid], [1, 2, 3, 4])
    assert not list(store.root.glob("incoming/**/.live"))


def test_a_flight_does_not_wait_for_storage_between_events(store: Store, RE: Any) -> None:
    flyer = FLYERS["datum"](store.recorder())
    went_on = threading.Event()

    class Held:
        """A disk that stores nothing until the flight has gone on."""

        def __init__(self, sink: Any) -> None:
            self.sink = sink

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sink, name)

        def publish(self, count: int) -> None:
            assert went_on.wait(10)
            self.sink.publish(count)

    flyer.before_event = lambda number: went_on.set() if number == flyer.num else None
    create = flyer._recorder._desk.backend.create
    flyer._recorder._desk.backend.create = lambda *given, **how: Held(create(*given, **how))
    RE.subscribe(store.writer())
    (uid,) = RE(bp.fly([flyer]))
    assert store[uid]["view_a"].shape[0] == flyer.num


def test_what_is_stored_is_announced_while_it_flies(store: Store, RE: Any, shows: Shows) -> None:
    flyer = FLYERS["stream"](store.recorder())
    first_announced = threading.Event()
    seen: list[int] = []

    def wait_for_first(number: int) -> None:
        if number == 3:
            assert first_announced.wait(10)

    def look(name: str, doc: dict[str, Any]) -> None:
        if name == "stream_datum":
            first_announced.set()
            seen.append(doc["indices"]["stop"])

    flyer.before_event = wait_for_first
    RE.subscribe(store.writer())
    RE.subscribe(look)
    (uid,) = RE(fly_and_collect(flyer, period_s=0.01))
    assert seen[0] < seen[-1] == 4
    shows(store[uid], [1, 2, 3, 4])


@pytest.mark.parametrize("at", [1, 3])
def test_a_paused_flight_goes_on_where_it_was(
    store: Store,
    RE: Any,
    flyer: Any,
    family: str,
    interrupted: Any,
    shows: Shows,
    newest: Callable[[], Run],
    at: int,
) -> None:
    paused = threading.Event()

    def pause(number: int) -> None:
        if number == at and not paused.is_set():
            paused.set()
            ask_to_pause(RE)

    flyer.before_event = pause
    RE.subscribe(store.writer())
    interrupted(PLANS[family](flyer))
    RE.resume()
    assert newest().status == "complete"
    shows(newest(), [1, 2, 3, 4])


def test_an_aborted_flight_shows_all_that_was_taken(
    store: Store, RE: Any, flyer: Any, family: str, interrupted: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    flyer.before_event = lambda number: ask_to_pause(RE) if number == 3 else None
    RE.subscribe(store.writer())
    interrupted(PLANS[family](flyer))
    RE.abort()
    assert newest().status == "aborted"
    taken = len(newest()["view_a"])
    assert 3 <= taken < 5
    shows(newest(), list(range(1, taken + 1)))
    assert not list(store.root.glob("incoming/**/.live"))


def test_hardware_that_fails_fails_the_plan_and_what_was_taken_is_announced(
    store: Store, RE: Any, flyer: Any, family: str, shows: Shows, newest: Callable[[], Run]
) -> None:
    def fail(number: int) -> None:
        if number == 3:
            raise RuntimeError("the camera is gone")

    flyer.before_event = fail
    RE.subscribe(store.writer())
    with pytest.raises(FailedStatus) as raised:
        RE(PLANS[family](flyer))
    assert "the camera is gone" in repr(raised.value.__cause__)
    assert newest().status == "failed"
    shows(newest(), [1, 2])


def test_several_flyers_are_announced_in_step(store: Store, RE: Any) -> None:
    recorder = store.recorder()
    one, two = FLYERS["stream"](recorder), FLYERS["stream"](recorder)
    two.name, two.num = "other", 4
    described = two.describe_arrays()
    two.describe_arrays = lambda: {f"other_{key}": said for key, said in described.items()}
    take = two.take
    two.take = lambda: ({f"other_{key}": array for key, array in arrays.items()} for arrays in take())
    RE.subscribe(store.writer())
    (uid,) = RE(fly_and_collect(one, two, period_s=0.01))
    run = store[uid]
    assert {run[key].shape[0] for key in ("view_a", "view_b", "other_view_a", "other_view_b")} == {4}


def test_a_second_kickoff_in_flight_is_refused(store: Store, flyer: Any) -> None:
    hold = threading.Event()
    flyer.before_event = lambda number: hold.wait(10)
    flyer.kickoff().wait(10)
    with pytest.raises(InputError, match="still flying"):
        flyer.kickoff()
    hold.set()
    flyer.complete().wait(10)


def test_a_flyer_that_has_not_flown_has_nothing_to_complete(flyer: Any) -> None:
    with pytest.raises(InputError, match="kickoff"):
        flyer.complete()


def test_no_flyers_are_refused(RE: Any) -> None:
    with pytest.raises(InputError, match="one flyer or more"):
        RE(fly_and_collect())


def test_a_stopped_flyer_keeps_what_it_took(
    store: Store, RE: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    flyer = FLYERS["datum"](store.recorder())
    reached = threading.Event()
    go_on = threading.Event()

    def hold(number: int) -> None:
        if number == 2:
            reached.set()
            assert go_on.wait(10)

    flyer.before_event = hold

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.kickoff(flyer, wait=True)
        assert reached.wait(10)
        go_on.set()
        yield from bps.stop(flyer)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer)

    RE.subscribe(store.writer())
    RE(plan())
    shows(newest(), list(range(1, len(newest()["view_a"]) + 1)))
    assert 2 <= len(newest()["view_a"]) <= 4


def test_a_run_may_adopt_what_a_flight_wrote(
    store: Store, RE: Any, flyer: Any, family: str, shows: Shows, tmp_path: Path
) -> None:
    RE.subscribe(store.writer(adopt="move"))
    (uid,) = RE(PLANS[family](flyer))
    assert not list(store.root.glob("incoming/*/*/*/*"))
    shows(store[uid], [1, 2, 3, 4])
    store.close()
    with Store(store.root.rename(tmp_path / "elsewhere")) as moved:
        shows(moved[uid], [1, 2, 3, 4])


class Counted(DatumFlyer):
    num_events = property(lambda self: self.num)


def test_a_progress_bar_is_told_how_far_a_flight_is(store: Store, RE: Any) -> None:
    told: list[dict[str, Any]] = []
    flyer = Counted(name="flyer", recorder=store.recorder())
    watching = threading.Event()
    flyer.before_event = lambda number: watching.wait(10)

    def watch(statuses: Any) -> None:
        for status in statuses or ():
            if hasattr(status, "watch"):
                status.watch(lambda **progress: told.append(progress))
                watching.set()

    RE.waiting_hook = watch
    RE(bp.fly([flyer]))
    assert [progress["current"] for progress in told] == [1, 2, 3, 4]
    assert {progress["target"] for progress in told} == {4}
    assert [progress["fraction"] for progress in told] == [0.75, 0.5, 0.25, 0.0]


def test_bluesky_s_own_progress_bar_draws_what_it_is_told(
    store: Store, RE: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    RE.waiting_hook = ProgressBarManager(partial(ProgressBar, delay_draw=0.0))
    flyer = Counted(name="flyer", recorder=store.recorder())
    RE(bp.fly([flyer]))
    assert "flyer" in "".join(capsys.readouterr())
