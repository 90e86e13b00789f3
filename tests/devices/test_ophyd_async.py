"""An ophyd-async StandardDetector whose arrays the recorder stores: counted, flown, paused, aborted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from cameras import ask_to_pause
from event_model import DocumentNames, schema_validators
from ophyd_async.core import StandardDetector, TriggerInfo, init_devices

from gently_bluesky import Store
from gently_bluesky.devices.ophyd_async import RecorderDataLogic
from gently_bluesky.devices.plans import fly_and_collect
from gently_bluesky.errors import InputError
from gently_bluesky.run import Run
from gently_bluesky.sim import SimulatedDiSPIM
from gently_bluesky.sim.async_sheet import AsyncLightSheet

KEYS = ("sheet-view_a", "sheet-view_b")


class Scope:
    """A light sheet for ophyd-async, and the volumes that its twin takes."""

    def __init__(self, store: Store, format: str) -> None:
        self._scope, twin = (SimulatedDiSPIM(size=32, n_slices=3) for _ in range(2))
        self._volumes = twin.light_sheet.volumes(20)
        self.before_volume: Callable[[int], object] = lambda number: None
        draw = self._scope.light_sheet._draw

        def drawn(volume: Any, *more: Any) -> Any:
            self.before_volume(volume.number)
            return draw(volume, *more)

        self._scope.light_sheet._draw = drawn  # pyright: ignore[reportAttributeAccessIssue]
        with init_devices():
            self.sheet = AsyncLightSheet(self._scope.light_sheet, store.recorder(format=format), name="sheet")

    def shown_by(self, run: Run, numbers: list[int]) -> None:
        volumes = [next(self._volumes) for _ in range(max(numbers) + 1)]
        for key in KEYS:
            array = run["primary"][key]
            expected = np.stack([volumes[number][key.removeprefix("sheet-")] for number in numbers])
            np.testing.assert_array_equal(array, expected)
            assert array.dims == ("t", "z", "y", "x")
            assert array.units[1:] == ("micrometer",) * 3


@pytest.fixture
def scope(store: Store, RE: Any, format: str) -> Iterator[Scope]:
    yield Scope(store, format)
    asyncio.run_coroutine_threadsafe(_cancel_the_rest(), RE.loop).result(10)


async def _cancel_the_rest() -> None:
    """End what waits for detectors of a plan that was aborted."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def flown(sheet: StandardDetector, events: int) -> Any:
    @bpp.stage_decorator([sheet])
    def plan() -> Any:
        yield from bps.prepare(sheet, TriggerInfo(number_of_events=events), wait=True)
        return (yield from fly_and_collect(sheet, period_s=0.01))

    return plan()


def test_it_is_a_standard_detector(scope: Scope) -> None:
    assert isinstance(scope.sheet, StandardDetector)


def test_counted_volumes_are_stored_and_shown(store: Store, RE: Any, scope: Scope) -> None:
    received: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(store.writer())
    RE.subscribe(lambda name, doc: received.append((name, doc)))
    (uid,) = RE(bp.count([scope.sheet], num=3))
    scope.shown_by(store[uid], [0, 1, 2])
    assert store[uid].status == "complete"
    for name, doc in received:
        schema_validators[DocumentNames[name]].validate(doc)
    (descriptor,) = (doc for name, doc in received if name == "descriptor")
    assert {tuple(descriptor["data_keys"][key]["shape"]) for key in KEYS} == {(3, 32, 32)}


def test_flown_volumes_are_announced_as_they_are_stored(store: Store, RE: Any, scope: Scope) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(flown(scope.sheet, 4))
    scope.shown_by(store[uid], [0, 1, 2, 3])


def test_the_signal_counts_stored_events(store: Store, RE: Any, scope: Scope) -> None:
    counted: list[int] = []
    named: list[int] = []

    @bpp.stage_decorator([scope.sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        for _ in range(3):
            yield from bps.trigger_and_read([scope.sheet])
            provider = scope.sheet._prepare_ctx.streamable_data_providers[0]  # pyright: ignore[reportOptionalMemberAccess]
            counted.append((yield from bps.rd(provider.collections_written_signal)))
            folder = next(store.root.glob("incoming/*/*/*/*"))
            named.append((folder / "documents.jsonl").read_bytes().count(b'"stream_datum"'))

    RE(plan())
    assert counted == [1, 2, 3]
    assert named == [2, 4, 6]


def test_a_pause_in_the_middle_of_a_volume_repeats_it_in_its_place(
    store: Store, RE: Any, scope: Scope, interrupted: Any, newest: Callable[[], Run]
) -> None:
    scope.before_volume = lambda number: ask_to_pause(RE) if number == 1 else None
    RE.subscribe(store.writer())
    interrupted(bp.count([scope.sheet], num=3))
    RE.resume()
    assert newest().status == "complete"
    scope.shown_by(newest(), [0, 2, 3])


@pytest.mark.parametrize("events_before", [0, 1])
def test_documents_that_a_pause_dropped_are_handed_out_again(
    store: Store, RE: Any, scope: Scope, interrupted: Any, newest: Callable[[], Run], events_before: int
) -> None:
    sheet = scope.sheet

    @bpp.stage_decorator([sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        for _ in range(events_before):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([sheet])
        yield from bps.checkpoint()
        yield from bps.create()
        yield from bps.trigger(sheet, wait=True)
        yield from bps.read(sheet)
        yield from bps.pause()
        yield from bps.save()

    RE.subscribe(store.writer())
    interrupted(plan())
    RE.resume()
    assert newest().status == "complete"
    scope.shown_by(newest(), [*range(events_before), events_before + 1])


def test_a_paused_flight_goes_on(
    store: Store, RE: Any, scope: Scope, interrupted: Any, newest: Callable[[], Run]
) -> None:
    scope.before_volume = lambda number: ask_to_pause(RE) if number == 2 else None
    RE.subscribe(store.writer())
    interrupted(flown(scope.sheet, 4))
    RE.resume()
    assert newest().status == "complete"
    scope.shown_by(newest(), [0, 1, 2, 3])


def test_an_aborted_flight_shows_what_was_taken(
    store: Store, RE: Any, scope: Scope, interrupted: Any, newest: Callable[[], Run]
) -> None:
    scope.before_volume = lambda number: ask_to_pause(RE) if number == 2 else None
    RE.subscribe(store.writer())
    interrupted(flown(scope.sheet, 50))
    RE.abort()
    assert newest().status == "aborted"
    taken = len(newest()["sheet-view_a"])
    assert 2 <= taken < 50
    scope.shown_by(newest(), list(range(min(taken, 15))) if taken <= 15 else list(range(taken)))
    assert not list(store.root.glob("incoming/**/.live"))


def test_an_aborted_count_shows_what_was_announced(
    store: Store, RE: Any, scope: Scope, interrupted: Any, newest: Callable[[], Run]
) -> None:
    scope.before_volume = lambda number: ask_to_pause(RE) if number == 2 else None
    RE.subscribe(store.writer())
    interrupted(bp.count([scope.sheet], num=5))
    RE.abort()
    assert newest().status == "aborted"
    scope.shown_by(newest(), [0, 1])


def test_several_collections_an_event_are_refused(store: Store, RE: Any, scope: Scope) -> None:
    @bpp.stage_decorator([scope.sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(scope.sheet, TriggerInfo(collections_per_event=2), wait=True)
        yield from bps.declare_stream(scope.sheet, name="primary", collect=True)

    with pytest.raises(InputError, match="collections_per_event=2"):
        RE(plan())


def test_arrays_before_preparation_are_refused(store: Store) -> None:
    logic = RecorderDataLogic(store.recorder(), dict)
    with pytest.raises(InputError, match="prepared"):
        logic.deliver({"": np.zeros((4, 4), "u2")})
