"""A real RunEngine with rude devices, monitors, rewinds and devices that change in the middle of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators
from ophyd import Signal
from ophyd.sim import motor

from gently_bluesky import Store
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import AmbiguousArray, FrameMismatch
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.frames import check_frame

Named = tuple[str, dict[str, Any]]


@pytest.fixture
def writer(store: Store, RE: RunEngine) -> StoreWriter:
    """A writer that the RunEngine sends its documents to."""
    made = store.writer()
    RE.subscribe(made)
    return made


@pytest.fixture
def seen(writer: StoreWriter) -> list[Named]:
    """What the writer announces, each of it valid."""
    found: list[Named] = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        schema_validators[DocumentNames[name]].validate(doc)
        found.append((name, doc))

    writer.subscribe(keep)
    return found


RUDE: dict[str, dict[str, Any]] = {
    "says nothing before the first trigger": {"says": {"dtype": "array", "shape": []}},
    "says another shape": {"says": {"dtype": "array", "shape": [99, 3], "dtype_numpy": "<u2"}},
    "says another dtype": {"says": {"dtype": "array", "shape": [32, 48], "dtype_numpy": "<f8"}},
    "says a number": {"says": {"dtype": "number", "shape": []}},
    "returns the same buffer": {"same_buffer": True},
    "returns Fortran order": {"layout": np.asfortranarray},
    "returns every other pixel": {"layout": lambda frame: np.repeat(frame, 2, axis=-1)[..., ::2]},
    "returns big-endian": {"layout": lambda frame: frame.astype(">u2")},
    "returns extra fields": {"extra_fields": True},
    "is a volume": {"shape": (4, 32, 48), "says": {"dtype": "array", "shape": []}},
    "is a dual view": {"shape": (2, 4, 32, 48), "says": {"dtype": "array", "shape": []}, "same_buffer": True},
}


@pytest.mark.parametrize("rudeness", RUDE)
def test_the_frame_is_believed_not_the_device(
    store: Store, RE: RunEngine, seen: list[Named], rudeness: str
) -> None:
    camera = EncodedCamera(**RUDE[rudeness])
    (uid,) = RE(bp.count([camera, motor], num=3))

    (descriptor,) = [doc for name, doc in seen if name == "descriptor"]
    declared = descriptor["data_keys"]["camera"]
    assert declared["shape"] == list(camera.shape)
    assert (declared["dtype"], declared["dtype_numpy"], declared["external"]) == (
        "array",
        "<u2",
        "FILESTORE:",
    )
    assert declared["dims"] == ["v", "z", "y", "x"][-len(camera.shape) :]
    assert descriptor["data_keys"]["motor"]["source"] == motor.describe()["motor"]["source"]
    array = store[uid]["primary"]["camera"]
    assert array.dtype == np.uint16
    assert array.scale[-2:] == (0.1625, 0.1625)
    for n in range(3):
        check_frame(np.asarray(array[n]), event=n)


def test_a_device_that_was_reconfigured_to_another_shape_gets_a_second_asset(
    store: Store, RE: RunEngine, seen: list[Named]
) -> None:
    camera = EncodedCamera(says={"dtype": "array", "shape": []})

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([camera])
        yield from bps.configure(camera, {"shape": (16, 20), "dtype": "uint8"})
        yield from bps.trigger_and_read([camera])
        yield from bps.trigger_and_read([camera])

    (uid,) = RE(plan())
    resources = [doc for name, doc in seen if name == "resource"]
    assert [doc["resource_path"].rpartition("/")[2] for doc in resources] == [
        "primary-camera.ome.zarr",
        "primary-camera-2.ome.zarr",
    ]
    assert [doc["data_keys"]["camera"]["shape"] for name, doc in seen if name == "descriptor"] == [
        [32, 48],
        [16, 20],
    ]
    first, second = (store.array(doc["uid"]) for doc in resources)
    check_frame(np.asarray(first[0]), event=0)
    check_frame(np.asarray(second[0]), event=1)
    check_frame(np.asarray(second[1]), event=2)
    with pytest.raises(AmbiguousArray, match="kept in 2 arrays; ask for"):
        store[uid]["primary"]["camera"]


def test_a_device_that_was_reconfigured_without_changing_its_frames_goes_on_in_its_asset(
    store: Store, RE: RunEngine, seen: list[Named]
) -> None:
    camera = EncodedCamera()

    @bpp.run_decorator()
    def plan() -> Any:
        for exposure_s in (0.01, 0.02, 0.03):
            yield from bps.configure(camera, {"exposure_s": exposure_s})
            yield from bps.trigger_and_read([camera])

    (uid,) = RE(plan())
    assert [name for name, _ in seen].count("descriptor") == 3
    assert [name for name, _ in seen].count("resource") == 1
    for n in range(3):
        check_frame(np.asarray(store[uid]["primary"]["camera"][n]), event=n)


def test_a_device_that_changes_its_frames_without_saying_so_fails_the_run(
    store: Store, RE: RunEngine, writer: StoreWriter
) -> None:
    camera = EncodedCamera()

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([camera])
        camera.shape = (16, 20)
        yield from bps.trigger_and_read([camera])

    with pytest.raises(FrameMismatch, match=r"came as an array \(16, 20\) of uint16, .* \(32, 48\)"):
        RE(plan())
    assert store[-1].status == "failed"
    check_frame(np.asarray(store[-1]["primary"]["camera"][0]), event=0)


def paused_once(camera: EncodedCamera, after: int) -> Any:
    """Take five frames, and pause behind the ``after``-th, where the second of each two has no checkpoint."""

    @bpp.run_decorator()
    def plan() -> Any:
        paused = False
        for n in range(5):
            if n % 2 == 0:
                yield from bps.checkpoint()
            yield from bps.create()
            yield from bps.trigger(camera, wait=True)
            yield from bps.read(camera)
            yield from bps.save()
            if n == after and not paused:
                paused = True
                yield from bps.pause()

    return plan()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_after_a_rewind_a_run_shows_the_last_event_of_each_seq_num_and_keeps_the_others(
    store: Store, RE: RunEngine, seen: list[Named], after: int
) -> None:
    camera = EncodedCamera()
    with pytest.raises(RunEngineInterrupted):
        RE(paused_once(camera, after))
    (uid,) = RE.resume()

    events = [doc for name, doc in seen if name == "event"]
    repeated = after % 2 + 1  # frames since the checkpoint are taken again
    assert len(events) == 5 + repeated == camera.triggers
    last = {event["seq_num"]: number for number, event in enumerate(events)}
    assert len(last) == 5
    shown = store[uid]["primary"]["camera"]
    assert len(shown) == 5 == store[uid].stop["num_events"]["primary"] == len(store[uid]["primary"])
    for row, seq_num in enumerate(sorted(last)):
        check_frame(np.asarray(shown[row]), event=last[seq_num])
    everything = store.array(shown.uid)
    assert len(everything) == 5 + repeated
    for number, event in enumerate(events):
        check_frame(np.asarray(everything[number]), event=number)
        check_frame(np.asarray(store.array(event["data"]["camera"])), event=number)


def monitored(name: str, value: Any) -> Signal:
    """Return a signal that tells its value at once to who subscribes."""
    signal = Signal(name=name, value=None)
    signal.put(value)
    return signal


def on_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, name="device")
    thread.start()
    thread.join()


def test_monitors_report_from_their_own_threads(store: Store, RE: RunEngine, seen: list[Named]) -> None:
    pressure = monitored("pressure", 0)
    camera = EncodedCamera()

    def change(value: int) -> Any:
        on_a_thread(lambda: pressure.put(value))
        yield from bps.null()

    def plan() -> Any:
        yield from bps.open_run()
        for n in range(1, 6):
            yield from change(n)
            yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    (uid,) = RE(bpp.monitor_during_wrapper(plan(), [pressure]))
    assert set(store[uid].streams) == {"primary", "pressure_monitor"}
    assert store[uid]["pressure_monitor"]["pressure"].compute().tolist() == [0, 1, 2, 3, 4, 5]
    for n in range(5):
        check_frame(np.asarray(store[uid]["primary"]["camera"][n]), event=n)
    assert seen[-1][1]["num_events"] == {"primary": 5, "pressure_monitor": 6}


def test_frames_that_come_by_monitor_from_many_threads_at_once_are_all_kept(
    store: Store, RE: RunEngine, seen: list[Named]
) -> None:
    images = [monitored(f"image{n}", np.zeros((8, 8), "u2")) for n in range(3)]

    def put(signal: Signal, number: int) -> None:
        for value in range(1, 21):
            signal.put(np.full((8, 8), 100 * number + value, "u2"))

    def plan() -> Any:
        yield from bps.open_run()
        threads = [threading.Thread(target=put, args=(s, n)) for n, s in enumerate(images)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield from bps.close_run()

    (uid,) = RE(bpp.monitor_during_wrapper(plan(), images))
    for n in range(3):
        array = np.asarray(store[uid][f"image{n}"])
        assert array[:, 0, 0].tolist() == [0, *(100 * n + value for value in range(1, 21))]
        assert (array == array[:, :1, :1]).all()


def test_a_failure_on_a_monitors_thread_is_raised_on_the_run_engines(
    store: Store, RE: RunEngine, writer: StoreWriter, caplog: pytest.LogCaptureFixture
) -> None:
    image = monitored("image", np.zeros((8, 8), "u2"))
    camera = EncodedCamera()

    def plan() -> Any:
        yield from bps.open_run()
        on_a_thread(lambda: image.put(np.zeros((9, 9), "u2")))  # ophyd logs what this raises, and goes on
        yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    with pytest.raises(FrameMismatch, match=r"image_monitor/image: event 2 came as an array \(9, 9\)"):
        RE(bpp.monitor_during_wrapper(plan(), [image]))
    assert store[-1].status == "failed"
    assert store[-1].record.lost == 1
    assert len(store[-1]["image_monitor"]["image"]) == 1


def test_a_failure_on_a_monitors_thread_is_raised_at_stop_if_nothing_comes_before(
    store: Store, RE: RunEngine, writer: StoreWriter, caplog: pytest.LogCaptureFixture
) -> None:
    image = monitored("image", np.zeros((8, 8), "u2"))

    def plan() -> Any:
        yield from bps.open_run()
        on_a_thread(lambda: image.put(np.zeros((9, 9), "u2")))
        yield from bps.close_run()

    with pytest.raises(FrameMismatch, match="image_monitor/image"):
        RE(bpp.monitor_during_wrapper(plan(), [image]))
    assert store[-1].status == "failed"


def test_a_thread_of_ours_ends_with_each_run(store: Store, RE: RunEngine, writer: StoreWriter) -> None:
    for _ in range(3):
        RE(bp.count([EncodedCamera()], num=2))
        assert not [
            thread.name for thread in threading.enumerate() if thread.name.startswith("gently-bluesky")
        ]
