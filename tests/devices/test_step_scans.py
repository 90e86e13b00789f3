"""ophyd devices that write for themselves, triggered by plans: counted, paused at every point, aborted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.protocols import WritesExternalAssets, WritesStreamAssets
from bluesky.utils import FailedStatus
from cameras import CAMERAS, SHAPE, ask_to_pause
from event_model import DocumentNames, Filler, schema_validators

from gently_bluesky import Store, StreamResolver, handler_registry
from gently_bluesky.errors import FrameMismatch, InputError
from gently_bluesky.files import is_leftover
from gently_bluesky.run import Run

Shows = Callable[[Run, list[int]], None]


@pytest.fixture
def camera(store: Store, format: str, family: str) -> Any:
    return CAMERAS[family](store.recorder(format=format))


def test_counted_events_are_stored_by_the_device_and_shown_by_the_run(
    store: Store, RE: Any, camera: Any, family: str, shows: Shows
) -> None:
    assert isinstance(camera, WritesStreamAssets if family == "stream" else WritesExternalAssets)
    received: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(store.writer())
    RE.subscribe(lambda name, doc: received.append((name, doc)))

    (uid,) = RE(bp.count([camera], num=3))

    run = store[uid]
    shows(run, [1, 2, 3])
    assert run.status == "complete"
    assert [event["data"]["cam_number"] for event in run["primary"].events] == [1, 2, 3]
    for name, doc in received:
        schema_validators[DocumentNames[name]].validate(doc)
    assert not any(
        isinstance(value, np.ndarray) for _, doc in received for value in doc.get("data", {}).values()
    )


def test_the_arrays_carry_the_steps_of_the_device(store: Store, RE: Any, camera: Any) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera]))
    array = store[uid]["view_a"]
    assert (array.scale, array.units) == ((1.0, 2.0, 0.5, 0.5), (None, *["micrometer"] * 3))


def test_its_documents_are_filled_by_bluesky_itself(store: Store, RE: Any, camera: Any, family: str) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], num=2))
    run = store[uid]
    if family == "stream":
        resolver, found = StreamResolver(), []
        for name, doc in run.documents():
            resolver(name, doc)
            found += [resolver.array(doc)] if name == "stream_datum" else []
        np.testing.assert_array_equal(np.concatenate(found[::2]), run["view_a"])
        return
    with Filler(handler_registry(), inplace=False) as filler:
        events = [
            filled for name, doc in run.documents() for _, filled in [filler(name, doc)] if name == "event"
        ]
    np.testing.assert_array_equal(events[1]["data"]["view_b"], run["view_b"][1])


def test_no_document_names_a_frame_before_it_is_stored(
    store: Store, RE: Any, camera: Any, family: str
) -> None:
    found: list[int] = []

    def look(name: str, doc: dict[str, Any]) -> None:
        if name in ("datum", "stream_datum"):
            folder = next(store.root.glob("incoming/*/*/*/*_cam_*"))
            lines = (folder / "documents.jsonl").read_bytes().splitlines()
            uid = doc["datum_id" if name == "datum" else "uid"]
            found.append(sum(uid.encode() in line for line in lines))

    RE.subscribe(look)
    RE(bp.count([camera], num=3))
    assert found == [1] * 6


def test_another_staging_writes_to_another_folder(store: Store, RE: Any, camera: Any, shows: Shows) -> None:
    RE.subscribe(store.writer())
    first, second = RE(bp.count([camera], num=2)), RE(bp.count([camera], num=1))
    shows(store[first[0]], [1, 2])
    shows(store[second[0]], [3])
    folders = list(store.root.glob("incoming/*/*/*/*"))
    assert len(folders) == 2
    assert not [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.name == ".live" or is_leftover(path.name)
    ]


def test_a_pause_in_the_middle_of_a_trigger_repeats_the_event_in_its_place(
    store: Store, RE: Any, camera: Any, interrupted: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    def pause_at_second(number: int) -> None:
        if number == 2:
            ask_to_pause(RE)

    camera.before_delivery = pause_at_second
    RE.subscribe(store.writer())
    interrupted(bp.count([camera], num=3))
    RE.resume()

    run = newest()
    assert run.status == "complete"
    shows(run, [1, 3, 4])
    assert {store.array(asset.uid).shape[0] for asset in store.query(kind="asset")} == {3}


@pytest.mark.parametrize("events_before", [0, 1])
def test_documents_that_a_pause_dropped_are_handed_out_again(
    store: Store,
    RE: Any,
    camera: Any,
    interrupted: Any,
    shows: Shows,
    newest: Callable[[], Run],
    events_before: int,
) -> None:
    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan() -> Any:
        for _ in range(events_before):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([camera])
        yield from bps.checkpoint()
        yield from bps.create()
        yield from bps.trigger(camera, wait=True)
        yield from bps.read(camera)
        yield from bps.pause()
        yield from bps.save()
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([camera])

    RE.subscribe(store.writer())
    interrupted(plan())
    RE.resume()

    run = newest()
    assert run.status == "complete"
    shows(run, [*range(1, events_before + 1), events_before + 2, events_before + 3])


def test_a_pause_after_an_event_was_saved_repeats_it_and_loses_neither(
    store: Store, RE: Any, camera: Any, interrupted: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([camera])
        yield from bps.pause()
        yield from bps.trigger_and_read([camera])

    RE.subscribe(store.writer())
    interrupted(plan())
    RE.resume()

    run = newest()
    shows(run, [2, 3])
    (asset,) = (record for record in store.query(kind="asset") if record.data_key == "view_a")
    assert store.array(asset.uid).shape[0] == 3


def test_an_aborted_run_shows_what_was_announced(
    store: Store, RE: Any, camera: Any, interrupted: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    def pause_at_third(number: int) -> None:
        if number == 3:
            ask_to_pause(RE)

    camera.before_delivery = pause_at_third
    RE.subscribe(store.writer())
    interrupted(bp.count([camera], num=5))
    RE.abort()

    assert newest().status == "aborted"
    shows(newest(), [1, 2])
    assert not list(store.root.glob("incoming/**/.live"))


def test_an_array_that_is_not_as_described_fails_the_plan_and_keeps_what_came_before(
    store: Store, RE: Any, camera: Any, shows: Shows, newest: Callable[[], Run]
) -> None:
    def other_shape(number: int) -> None:
        camera.shape = (2, 16, 20) if number == 2 else SHAPE

    camera.before_delivery = other_shape
    RE.subscribe(store.writer())
    with pytest.raises(FailedStatus) as raised:
        RE(bp.count([camera], num=3))
    assert isinstance(raised.value.__cause__, FrameMismatch)
    assert "(2, 16, 20)" in str(raised.value.__cause__)
    shows(newest(), [1])
    assert newest().status == "failed"


def test_a_device_that_is_not_staged_says_so(store: Store, camera: Any) -> None:
    status = camera.trigger()
    with pytest.raises(InputError, match="not staged"):
        status.wait(10)
    assert not (store.root / "incoming").exists()


def test_reading_before_the_frame_is_stored_is_refused(store: Store) -> None:
    camera = CAMERAS["datum"](store.recorder())
    camera.stage()
    hold = threading.Event()
    camera.before_delivery = lambda number: hold.wait(10)
    status = camera.trigger()
    with pytest.raises(InputError, match="wait for its status"):
        camera.read()
    hold.set()
    status.wait(10)
    assert isinstance(camera.read()["view_a"]["value"], str)
    camera.unstage()


def test_two_devices_share_a_recorder(store: Store, RE: Any, shows: Shows) -> None:
    recorder = store.recorder()
    one, two = CAMERAS["datum"](recorder), CAMERAS["datum"](recorder)
    two.name = "other"

    def both() -> Any:
        for camera in (one, two):
            yield from bp.count([camera], num=2)

    RE.subscribe(store.writer())
    first, second = RE(both())
    shows(store[first], [1, 2])
    shows(store[second], [1, 2])


def test_a_moved_store_still_opens_what_devices_wrote(
    store: Store, RE: Any, camera: Any, shows: Shows, tmp_path: Any
) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], num=2))
    store.close()
    moved = store.root.rename(tmp_path / "elsewhere")
    with Store(moved) as opened:
        shows(opened[uid], [1, 2])


def test_the_index_can_be_lost(store: Store, RE: Any, camera: Any, shows: Shows) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], num=2))
    store.close()
    for path in store.root.glob("index.sqlite*"):
        path.unlink()
    with Store(store.root) as opened:
        shows(opened[uid], [1, 2])


def test_what_a_staged_device_writes_stays_where_it_is_when_its_run_adopts_files(
    store: Store, RE: Any, camera: Any, shows: Shows
) -> None:
    RE.subscribe(store.writer(adopt="move"))
    (uid,) = RE(bp.count([camera], num=2))
    assert len(list(store.root.glob("incoming/*/*/*/*"))) == 1
    shows(store[uid], [1, 2])
