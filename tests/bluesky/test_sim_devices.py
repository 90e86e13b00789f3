"""The simulated diSPIM under a real RunEngine: polite, rude, and refusing what it cannot do."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from event_model import DocumentNames, schema_validators
from ophyd.utils import LimitError, ReadOnlyError

from gently_bluesky.errors import InputError, InvalidSetting
from gently_bluesky.sim import Rudeness, SimulatedDiSPIM, SimulatedFault, acquire_volume
from gently_bluesky.sim.progress import VolumeStatus


@pytest.fixture
def run_engine():
    engine = RunEngine()
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def run(run_engine):
    """Run a plan, and return its documents by name, each one valid."""

    def run_and_validate(plan):
        documents = {name.value: [] for name in DocumentNames}

        def keep(name, doc):
            schema_validators[DocumentNames[name]].validate(doc)
            documents[name].append(doc)

        run_engine(plan, keep)
        return documents

    return run_and_validate


def make_scope(**options) -> SimulatedDiSPIM:
    return SimulatedDiSPIM(**{"size": 64, "n_slices": 6, **options})


def take_volume(scope) -> dict[str, np.ndarray]:
    scope.light_sheet.trigger().wait(30)
    return {key: reading["value"] for key, reading in scope.light_sheet.read().items()}


def take_frame(camera) -> np.ndarray:
    camera.trigger().wait(30)
    (reading,) = camera.read().values()
    return reading["value"]


# -- polite --


def test_a_trigger_takes_a_volume_from_both_views():
    volumes = take_volume(make_scope())
    assert list(volumes) == ["view_a", "view_b"]
    for volume in volumes.values():
        assert volume.shape == (6, 64, 64)
        assert volume.dtype == "<u2"
        assert volume.flags.c_contiguous
        assert volume.max() > 3 * np.median(volume)


def test_descriptors_say_what_the_events_bring(run):
    scope = make_scope()
    documents = run(bp.count([scope.light_sheet, scope.camera_a, scope.camera_b], num=2))
    (descriptor,) = documents["descriptor"]
    arrays = {
        "view_a": ["z", "y", "x"],
        "view_b": ["z", "y", "x"],
        "camera_a": ["y", "x"],
        "camera_b": ["y", "x"],
    }
    assert set(descriptor["data_keys"]) == set(arrays)
    for key, dims in arrays.items():
        said = descriptor["data_keys"][key]
        assert said["dims"] == dims
        assert said["dtype"] == "array"
        assert said["source"].startswith("SIM:")
        for event in documents["event"]:
            assert event["data"][key].shape == tuple(said["shape"])
            assert event["data"][key].dtype == said["dtype_numpy"]


def test_stacked_views_come_as_one_array():
    scope = make_scope(dual="stacked")
    assert scope.light_sheet.describe()["views"]["dims"] == ["v", "z", "y", "x"]
    assert scope.light_sheet.describe()["views"]["shape"] == [2, 6, 64, 64]
    stacked = take_volume(scope)
    separate = take_volume(make_scope())
    assert list(stacked) == ["views"]
    np.testing.assert_array_equal(stacked["views"], np.stack(list(separate.values())))
    assert scope.light_sheet.view_names.get() == ["a", "b"]


def test_settings_stand_in_the_configuration(run):
    scope = make_scope()
    documents = run(bp.count([scope.light_sheet, scope.camera_a, scope.piezo, scope.lasers]))
    configuration = documents["descriptor"][0]["configuration"]
    said = {
        key.removeprefix("dispim_"): value
        for device in configuration.values()
        for key, value in device["data"].items()
    }
    assert said["light_sheet_n_slices"] == 6
    assert said["light_sheet_z_step_um"] == 2.0
    assert said["light_sheet_exposure_s"] == 0.01
    assert said["light_sheet_pixel_size_um"] == pytest.approx(1.3)
    assert said["light_sheet_view_names"] == ["a", "b"]
    assert said["camera_a_roi"] == [0, 0, 64, 64]
    assert said["camera_a_binning"] == 1
    assert said["camera_a_trigger_mode"] == "internal"
    assert said["camera_a_pixel_size_um"] == pytest.approx(1.3)
    assert said["piezo_soft_limits"] == [-100.0, 100.0]
    assert said["lasers_power_488_percent"] == 20.0


def test_the_same_seed_and_the_same_calls_give_the_same_pixels():
    def night(seed):
        scope = make_scope(seed=seed)
        frames = [take_frame(scope.camera_a), *take_volume(scope).values()]
        scope.stage.x.set(scope.embryos["e2"].position_um[0])
        scope.stage.y.set(scope.embryos["e2"].position_um[1])
        return [*frames, *take_volume(scope).values(), take_frame(scope.camera_b)]

    first, again, other = night(7), night(7), night(8)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)


def test_no_two_of_eight_consecutive_frames_are_equal(run):
    scope = make_scope()
    documents = run(bp.count([scope.camera_a, scope.camera_b], num=20))
    for key in ("camera_a", "camera_b"):
        frames = [event["data"][key].tobytes() for event in documents["event"]]
        for first in range(len(frames) - 7):
            assert len(set(frames[first : first + 8])) == 8


def test_no_slice_of_three_volumes_is_like_another():
    scope = make_scope(n_slices=8)
    slices = [plane.tobytes() for _ in range(3) for volume in take_volume(scope).values() for plane in volume]
    assert len(set(slices)) == len(slices) == 48


def test_frames_that_were_read_are_not_touched_again():
    scope = make_scope()
    frames = [take_frame(scope.camera_a) for _ in range(3)]
    volumes = [take_volume(scope)["view_a"] for _ in range(2)]
    kept = [array.copy() for array in (*frames, *volumes)]
    take_frame(scope.camera_a)
    take_volume(scope)
    for array, copy in zip((*frames, *volumes), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_each_volume_shows_an_older_embryo_and_only_the_one_in_view():
    scope = make_scope()
    ages = {name: scope.age_min(name) for name in scope.embryos}
    nuclei = [len(scope.embryos["e1"].nuclei(scope.age_min("e1")))]
    for _ in range(12):
        take_volume(scope)
        nuclei.append(len(scope.embryos["e1"].nuclei(scope.age_min("e1"))))
    assert nuclei == sorted(nuclei)
    assert nuclei[-1] > 2 * nuclei[0]
    assert scope.age_min("e1") == ages["e1"] + 60
    assert scope.age_min("e2") == ages["e2"]


def test_the_stage_chooses_the_embryo():
    scope = make_scope()
    assert scope.embryo_in_view == "e1"
    x_um, y_um = scope.embryos["e3"].position_um
    scope.stage.x.set(x_um + 5)
    scope.stage.y.set(y_um)
    assert scope.embryo_in_view == "e3"
    scope.stage.y.set(y_um + 250)
    assert scope.embryo_in_view is None
    empty = take_frame(scope.camera_a)
    assert empty.max() < 200
    scope.head.set(5_000)
    assert scope.embryo_in_view is None


def test_moving_the_stage_moves_the_picture():
    def centre(frame):
        light = np.clip(frame.astype(float) - 130, 0, None)
        return np.array([(light.sum(axis=1 - axis) * np.arange(64)).sum() / light.sum() for axis in (0, 1)])

    scope = make_scope()
    before = centre(take_frame(scope.camera_a))
    scope.stage.y.set(scope.stage.y.position + 6.5)
    along_y = centre(take_frame(scope.camera_a)) - before
    np.testing.assert_allclose(along_y, [-5.0, 0.0], atol=0.3)


def test_light_follows_exposure_and_laser_power():
    scope = make_scope()
    dim = take_frame(scope.camera_a).astype(float)
    scope.camera_a.exposure_s.put(0.02)
    bright = take_frame(scope.camera_a).astype(float)
    assert (bright - 100).sum() == pytest.approx(2 * (dim - 100).sum(), rel=0.1)
    scope.lasers.power_488_percent.put(0)
    assert take_frame(scope.camera_a).max() < 130


def test_roi_and_binning_change_frames_and_volumes():
    scope = make_scope()
    for camera in (scope.camera_a, scope.camera_b):
        camera.roi.put([16, 8, 32, 48])
        camera.binning.put(2)
    assert take_frame(scope.camera_a).shape == (24, 16)
    assert take_volume(scope)["view_b"].shape == (6, 24, 16)
    assert scope.light_sheet.describe()["view_a"]["shape"] == [6, 24, 16]
    assert scope.light_sheet.read_configuration()["dispim_light_sheet_pixel_size_um"][
        "value"
    ] == pytest.approx(2.6)


def test_the_picture_is_sharpest_where_piezo_and_sheet_meet():
    scope = make_scope(size=128)
    sharpness = {}
    for galvo_deg in (0.0, 0.05):
        scope.galvo.set(galvo_deg)
        for piezo_um in np.arange(-10.5, 20.0, 3.0):
            scope.piezo.set(piezo_um)
            sharpness[piezo_um] = take_frame(scope.camera_a).astype(float).var()
        assert max(sharpness, key=sharpness.__getitem__) == pytest.approx(galvo_deg * 100 + 1.5, abs=1.6)


# -- plans of Bluesky --


def test_scans_of_bluesky_just_work(run):
    scope = make_scope(size=32)
    documents = run(bp.scan([scope.camera_a], scope.piezo, -10, 10, 5))
    assert [event["data"]["dispim_piezo"] for event in documents["event"]] == [-10, -5, 0, 5, 10]
    documents = run(bp.rel_scan([scope.camera_b], scope.galvo, -0.1, 0.1, 3))
    assert len(documents["event"]) == 3
    assert scope.galvo.position == 0.0
    x_um, y_um = (scope.stage.x.position, scope.stage.y.position)
    documents = run(
        bp.grid_scan([scope.light_sheet], scope.stage.x, x_um, x_um + 4, 2, scope.stage.y, y_um, y_um + 4, 3)
    )
    assert len(documents["event"]) == 6
    assert {"dispim_stage_x", "dispim_stage_y", "view_a"} <= set(documents["event"][0]["data"])


def test_configuring_between_events_makes_a_second_descriptor(run):
    scope = make_scope()

    @bpp.stage_decorator([scope.camera_a])
    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([scope.camera_a])
        yield from bps.configure(scope.camera_a, {"binning": 2})
        yield from bps.trigger_and_read([scope.camera_a])

    documents = run(plan())
    shapes = [event["data"]["camera_a"].shape for event in documents["event"]]
    assert shapes == [(64, 64), (32, 32)]
    # The RunEngine reads the configuration again and not describe(): its second descriptor has the old shape.
    assert [
        one["configuration"]["dispim_camera_a"]["data"]["dispim_camera_a_binning"]
        for one in documents["descriptor"]
    ] == [1, 2]


def test_moves_and_settings_from_a_plan(run_engine):
    scope = make_scope()

    def plan():
        yield from bps.mv(scope.head, 100, scope.light_sheet.n_slices, 4, scope.camera_a.exposure_s, 0.05)
        yield from bps.abs_set(scope.piezo, 7, wait=True)

    run_engine(plan())
    assert (scope.head.position, scope.piezo.position) == (100.0, 7.0)
    assert scope.light_sheet.n_slices.get() == 4
    assert scope.camera_a.exposure_s.get() == 0.05


def test_a_slow_axis_takes_its_time():
    axis = make_scope().piezo
    axis.speed_per_s.put(500.0)
    axis.settle_s.put(0.01)
    status = axis.set(10.0)
    assert not status.done
    status.wait(5)
    assert status.elapsed >= 0.03


def test_realtime_exposures_take_their_time():
    scope = make_scope(realtime=True)
    scope.camera_a.exposure_s.set(0.5).wait(60)
    scope.light_sheet.exposure_s.set(5.0).wait(60)
    status = scope.camera_a.trigger()
    assert not status.done
    status.wait(60)
    volume = scope.light_sheet.trigger()
    scope.light_sheet.stop()
    with pytest.raises(SimulatedFault, match="stopped at slice"):
        volume.wait(60)


# -- refused --


@pytest.mark.parametrize("target", [100.5, -101, float("nan"), float("inf")])
def test_moves_beyond_the_soft_limits_are_refused(target, run_engine):
    piezo = make_scope().piezo
    with pytest.raises(LimitError, match="soft limits are -100 to 100"):
        piezo.set(target)
    with pytest.raises(LimitError, match="dispim_piezo"):
        run_engine(bps.mv(piezo, target))
    assert piezo.position == 0.0


def test_soft_limits_can_be_narrowed_but_not_turned_round():
    piezo = make_scope().piezo
    piezo.soft_limits.put([-5, 5])
    with pytest.raises(LimitError, match="-5 to 5"):
        piezo.set(6)
    with pytest.raises(InvalidSetting, match="lower one first"):
        piezo.soft_limits.put([5, -5])
    with pytest.raises(InvalidSetting, match="moves to numbers"):
        piezo.set("left")


@pytest.mark.parametrize(
    ("device", "setting", "value"),
    [
        ("camera_a", "exposure_s", -0.01),
        ("camera_a", "exposure_s", 0),
        ("camera_a", "exposure_s", float("nan")),
        ("camera_a", "exposure_s", "long"),
        ("camera_a", "exposure_s", True),
        ("camera_b", "binning", 3),
        ("camera_b", "trigger_mode", "telepathy"),
        ("camera_a", "roi", [0, 0, 65, 64]),
        ("camera_a", "roi", [-1, 0, 32, 32]),
        ("camera_a", "roi", [0, 0, 8, 8]),
        ("camera_a", "roi", [0.5, 0, 32, 32]),
        ("camera_a", "roi", [0, 0, 64]),
        ("camera_a", "roi", None),
        ("light_sheet", "n_slices", 0),
        ("light_sheet", "n_slices", 2.5),
        ("light_sheet", "z_step_um", 0),
        ("light_sheet", "dual", "triple"),
        ("light_sheet", "minutes_per_volume", -1),
        ("lasers", "power_488_percent", 101),
        ("galvo", "um_per_deg", 0),
    ],
)
def test_settings_the_hardware_cannot_have_are_refused(device, setting, value, run_engine):
    signal = getattr(getattr(make_scope(), device), setting)
    before = signal.get()
    with pytest.raises(InvalidSetting, match=f"dispim_{device}_{setting} must be .* it stays at"):
        signal.put(value)
    with pytest.raises(InvalidSetting, match=setting):
        run_engine(bps.mv(signal, value))
    assert signal.get() == before


@pytest.mark.parametrize(
    "options",
    [{"size": 8}, {"size": "big"}, {"n_slices": 0}, {"embryos": 0}, {"seed": -1}, {"dual": "both"}],
)
def test_impossible_microscopes_are_refused(options):
    with pytest.raises(InvalidSetting, match="not"):
        make_scope(**options)


def test_derived_settings_cannot_be_set():
    with pytest.raises(ReadOnlyError, match="write access"):
        make_scope().camera_a.pixel_size_um.put(1.0)


def test_a_camera_that_waits_for_an_external_trigger_says_so():
    scope = make_scope()
    scope.camera_a.trigger_mode.put("external_edge")
    with pytest.raises(InputError, match="wait for ever"):
        scope.camera_a.trigger()
    take_volume(scope)


def test_cameras_that_differ_cannot_take_a_volume():
    scope = make_scope()
    scope.camera_a.binning.put(2)
    with pytest.raises(InputError, match="cameras differ"):
        scope.light_sheet.trigger()


def test_a_detector_that_was_never_triggered_has_nothing_to_read():
    with pytest.raises(InputError, match="trigger it first"):
        make_scope().camera_a.read()


def test_a_second_trigger_does_not_disturb_a_running_volume():
    scope = make_scope(realtime=True, n_slices=4096)
    status = scope.light_sheet.trigger()
    with pytest.raises(InputError, match="still taking a volume"):
        scope.light_sheet.trigger()
    scope.light_sheet.unstage()
    with pytest.raises(SimulatedFault, match="stopped"):
        status.wait(5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dispim")]


# -- rude --


def test_rude_an_empty_shape_until_the_first_trigger(run):
    documents = run(acquire_volume(make_scope(rude=Rudeness(empty_shape=True))))
    assert documents["descriptor"][0]["data_keys"]["view_a"]["shape"] == []
    assert documents["event"][0]["data"]["view_a"].shape == (6, 64, 64)
    scope = make_scope(rude=Rudeness(empty_shape=True))
    documents = run(bp.count([scope.light_sheet]))
    assert documents["descriptor"][0]["data_keys"]["view_a"]["shape"] == [6, 64, 64]


def test_rude_the_wrong_shape(run):
    scope = make_scope(rude=Rudeness(wrong_shape=True))
    documents = run(bp.count([scope.light_sheet, scope.camera_a]))
    assert documents["descriptor"][0]["data_keys"]["view_a"]["shape"] == [6, 65, 64]
    assert documents["descriptor"][0]["data_keys"]["camera_a"]["shape"] == [65, 64]
    assert documents["event"][0]["data"]["view_a"].shape == (6, 64, 64)


def test_rude_no_dtype_and_no_dims(run):
    scope = make_scope(rude=Rudeness(no_dtype=True, no_dims=True))
    key = run(bp.count([scope.camera_a]))["descriptor"][0]["data_keys"]["camera_a"]
    assert not {"dtype_numpy", "dims"} & set(key)


@pytest.mark.parametrize("dual", ["separate", "stacked"])
def test_rude_the_same_buffer_overwritten_by_the_next_trigger(run, dual):
    scope = make_scope(rude=Rudeness(same_buffer=True), dual=dual)
    documents = run(bp.count([scope.light_sheet, scope.camera_a], num=3))
    for key in documents["event"][0]["data"]:
        assert len({id(event["data"][key]) for event in documents["event"]}) == 1
    before = take_frame(scope.camera_a)
    kept = before.copy()
    assert take_frame(scope.camera_a) is before
    assert not np.array_equal(before, kept)


def test_rude_extra_fields_in_a_reading(run):
    scope = make_scope(rude=Rudeness(extra_fields=True))
    documents = run(bp.count([scope.camera_a]))
    assert set(scope.camera_a.read()["camera_a"]) == {
        "value",
        "timestamp",
        "units",
        "alarm_severity",
        "message",
    }
    assert set(documents["event"][0]["data"]) == {"camera_a"}


@pytest.mark.parametrize("habit", ["big_endian", "fortran_order", "non_contiguous"])
def test_rude_layouts_hold_the_same_pixels(run, habit):
    rude, polite = make_scope(rude=Rudeness(**{habit: True})), make_scope()
    documents = [run(bp.count([scope.light_sheet, scope.camera_a])) for scope in (rude, polite)]
    for key in ("view_a", "view_b", "camera_a"):
        odd, even = (one["event"][0]["data"][key] for one in documents)
        np.testing.assert_array_equal(odd, even)
        assert odd.dtype == documents[0]["descriptor"][0]["data_keys"][key]["dtype_numpy"]
        assert odd.flags.c_contiguous == (habit == "big_endian")
        assert (odd.dtype.byteorder == ">") == (habit == "big_endian")
        assert odd.flags.f_contiguous == (habit == "fortran_order")


def test_rude_a_failure_in_mid_volume_fails_the_run(run_engine):
    scope = make_scope(rude=Rudeness(fail_at_trigger=2, fail_at_slice=4))
    documents = []
    with pytest.raises(FailedStatus) as failure:
        run_engine(bp.count([scope.light_sheet], num=5), lambda name, doc: documents.append((name, doc)))
    assert isinstance(failure.value.__cause__, SimulatedFault)
    assert "slice 4 of 6" in str(failure.value.__cause__)
    assert [name for name, _ in documents] == ["start", "descriptor", "event", "event", "stop"]
    assert documents[-1][1]["exit_status"] == "fail"
    run_engine(bp.count([scope.light_sheet], num=2))


def test_rude_a_camera_that_does_not_answer(run_engine):
    scope = make_scope(rude=Rudeness(fail_at_trigger=0))
    with pytest.raises(FailedStatus):
        run_engine(bp.count([scope.camera_a]))
    run_engine(bp.count([scope.camera_a]))


def test_rude_dropped_frames_contradict_the_descriptor(run):
    scope = make_scope(rude=Rudeness(drop_frames=2, drop_at_trigger=1))
    documents = run(bp.count([scope.light_sheet], num=3))
    assert [len(event["data"]["view_a"]) for event in documents["event"]] == [6, 4, 6]
    assert documents["descriptor"][0]["data_keys"]["view_a"]["shape"] == [6, 64, 64]
    assert take_volume(make_scope(rude=Rudeness(drop_frames=50)))["view_b"].shape == (1, 64, 64)


@pytest.mark.parametrize(
    "habits", [{"drop_frames": -1}, {"fail_at_slice": -2}, {"fortran_order": True, "non_contiguous": True}]
)
def test_impossible_habits_are_refused(habits):
    with pytest.raises(InvalidSetting, match="Rudeness"):
        Rudeness(**habits)


# -- the thermometer --


def updating_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "temperature" in thread.name]


def test_a_monitored_temperature_updates_during_the_run_and_leaves_no_thread(run):
    scope = make_scope()
    scope.temperature.period_s = 0.001
    updates = threading.Semaphore(0)
    scope.temperature.subscribe(lambda **_: updates.release(), run=False)

    def plan():
        for _ in range(3):
            yield from bps.null()
            assert updates.acquire(timeout=10)
        yield from bps.trigger_and_read([scope.camera_a])

    documents = run(bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [scope.temperature]))
    assert len(updating_threads()) == 1
    scope.temperature.unsubscribe_all()
    assert not updating_threads()
    (descriptor,) = (one for one in documents["descriptor"] if "dispim_temperature" in one["data_keys"])
    assert descriptor["data_keys"]["dispim_temperature"]["units"] == "degC"
    monitored = [one for one in documents["event"] if one["descriptor"] == descriptor["uid"]]
    assert len(monitored) >= 2
    assert all(19 < one["data"]["dispim_temperature"] < 21 for one in monitored)


def test_a_monitored_temperature_leaves_no_thread_when_the_run_fails(run_engine):
    scope = make_scope(rude=Rudeness(fail_at_trigger=0))
    plan = bpp.monitor_during_wrapper(bp.count([scope.light_sheet]), [scope.temperature])
    with pytest.raises(FailedStatus):
        run_engine(plan)
    assert not updating_threads()


def test_no_update_comes_after_the_last_subscription_has_gone():
    temperature = make_scope().temperature
    temperature.period_s = 0.0001
    updated, values = threading.Event(), []

    def keep(value, **_):
        values.append(value)
        updated.set()

    number = temperature.subscribe(keep)
    assert updated.wait(10)
    temperature.unsubscribe(number)
    count = len(values)
    assert not updating_threads()
    temperature.trigger()
    assert len(values) == count


def test_a_callback_may_unsubscribe_itself():
    temperature = make_scope().temperature
    temperature.period_s = 0.001
    done = threading.Event()

    def once(**_):
        temperature.clear_sub(once)
        done.set()

    temperature.subscribe(once, run=False)
    (thread,) = updating_threads()
    assert done.wait(10)
    thread.join(10)
    assert not updating_threads()


def test_a_temperature_runs_while_it_is_staged_and_reads_without_a_thread(run):
    temperature = make_scope(seed=3).temperature
    temperature.stage()
    assert len(updating_threads()) == 1
    temperature.unstage()
    assert not updating_threads()
    with pytest.raises(ReadOnlyError, match="write access"):
        temperature.put(37.0)
    series = [
        [
            event["data"]["dispim_temperature"]
            for event in run(bp.count([make_scope(seed=seed).temperature], num=5))["event"]
        ]
        for seed in (3, 3, 4)
    ]
    assert len(series[0]) == 5
    assert series[1] != series[2]


def test_a_volume_tells_who_watches_of_each_slice() -> None:
    scope = SimulatedDiSPIM(size=32, n_slices=5)
    told: list[tuple[int, int]] = []
    status = VolumeStatus(scope.light_sheet, 3)
    status.watch(lambda *, current, target, **_: told.append((current, target)))
    status.advance(2)
    status.set_finished()
    status.wait(60)
    assert told == [(0, 3), (2, 3)]
    scope.light_sheet.stage()
    taken = scope.light_sheet.trigger()
    taken.wait(60)
    taken.watch(lambda *, current, target, **_: told.append((current, target)))
    scope.light_sheet.unstage()
    assert told[-1] == (5, 5)
