"""The plans of the simulated diSPIM, run by a real RunEngine; every document is valid."""

from __future__ import annotations

import time

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from event_model import DocumentNames, schema_validators
from ophyd.utils import LimitError

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim import Rudeness, SimulatedDiSPIM, acquire_volume, focus_sweep, timelapse


@pytest.fixture
def scope():
    return SimulatedDiSPIM(size=32, n_slices=4)


@pytest.fixture
def run_engine():
    engine = RunEngine(call_returns_result=True)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def run(run_engine):
    """Run a plan; return its documents by name and what the RunEngine returned."""

    def run_and_validate(plan):
        documents = {name.value: [] for name in DocumentNames}

        def keep(name, doc):
            schema_validators[DocumentNames[name]].validate(doc)
            documents[name].append(doc)

        return documents, run_engine(plan, keep)

    return run_and_validate


def test_a_volume_is_one_event_of_both_views_and_where_the_microscope_stood(run, scope):
    documents, result = run(acquire_volume(scope, session="2026-11-21", md={"strain": "BV24"}))
    (start,), (event,), (stop,) = documents["start"], documents["event"], documents["stop"]
    assert result.plan_result == start["uid"]
    assert result.run_start_uids == (start["uid"],)
    assert start["plan_name"] == "acquire_volume"
    assert start["data_type"] == "volume"
    assert start["session"] == "2026-11-21"
    assert start["embryo"] == "e1"
    assert start["strain"] == "BV24"
    assert start["hints"]["dimensions"]
    assert stop["num_events"] == {"primary": 1}
    assert stop["exit_status"] == "success"
    assert event["data"]["view_a"].shape == event["data"]["view_b"].shape == (4, 32, 32)
    for axis in ("stage_x", "stage_y", "head", "piezo", "galvo"):
        assert isinstance(event["data"][f"dispim_{axis}"], float)


def test_several_volumes_are_several_events_of_one_run(run, scope):
    documents, _ = run(acquire_volume(scope, num=3, embryo="e2"))
    assert len(documents["start"]) == len(documents["descriptor"]) == 1
    assert len(documents["event"]) == documents["start"][0]["num_points"] == 3
    assert documents["start"][0]["embryo"] == "e2"
    assert (scope.stage.x.position, scope.stage.y.position) == scope.embryos["e2"].position_um


def test_metadata_of_the_caller_win_and_unknown_ones_are_left_out(run, scope):
    scope.stage.y.set(10_000)
    documents, _ = run(acquire_volume(scope, md={"plan_name": "mine", "data_type": "test"}))
    (start,) = documents["start"]
    assert (start["plan_name"], start["data_type"]) == ("mine", "test")
    assert not {"session", "embryo", "timepoint"} & set(start)


def test_a_persistent_session_is_not_overwritten_by_a_plan_without_one(run, run_engine, scope):
    run_engine.md["session"] = "a long night"
    documents, _ = run(acquire_volume(scope))
    assert documents["start"][0]["session"] == "a long night"


def test_a_timelapse_is_a_run_for_each_embryo_and_time_point(run, scope):
    documents, result = run(
        timelapse(scope, embryos=["e3", "e1"], timepoints=3, session="s", md={"by": "me"})
    )
    visits = [(start["timepoint"], start["embryo"]) for start in documents["start"]]
    assert visits == [(t, embryo) for t in range(3) for embryo in ("e3", "e1")]
    assert result.plan_result == tuple(start["uid"] for start in documents["start"])
    for start in documents["start"]:
        assert (start["plan_name"], start["data_type"]) == ("timelapse", "volume")
        assert (start["session"], start["by"]) == ("s", "me")
    for start, event in zip(documents["start"], documents["event"], strict=True):
        place = event["data"]["dispim_stage_x"], event["data"]["dispim_stage_y"]
        assert place == scope.embryos[start["embryo"]].position_um


def test_a_timelapse_visits_all_embryos_by_default(run, scope):
    documents, _ = run(timelapse(scope))
    assert [start["embryo"] for start in documents["start"]] == ["e1", "e2", "e3"]


def test_embryos_get_older_from_time_point_to_time_point(run, scope):
    age = scope.age_min("e1")
    documents, _ = run(timelapse(scope, embryos=["e1"], timepoints=8))
    light = [np.count_nonzero(event["data"]["view_a"] > 300) for event in documents["event"]]
    assert scope.age_min("e1") == age + 40
    assert light[-1] > 1.3 * light[0]


def test_rounds_of_a_timelapse_keep_to_the_interval(scope):
    sleeps, clock = [], time.monotonic()
    plan = timelapse(scope, embryos=["e1"], timepoints=4, interval_s=1000.0)
    rounds = 0
    answer = None
    while True:
        try:
            message = plan.send(answer)
        except StopIteration:
            break
        answer = None
        if message.command == "sleep":
            sleeps.append(message.args[0] + time.monotonic() - clock)
        elif message.command == "open_run":
            rounds += 1
            answer = f"run-{rounds}"
    assert rounds == 4
    np.testing.assert_allclose(sleeps, [1000.0, 2000.0, 3000.0], atol=30)


def test_a_timelapse_without_interval_does_not_sleep(scope):
    assert "sleep" not in [message.command for message in timelapse(scope, timepoints=2)]


def test_a_focus_sweep_finds_the_focus_and_comes_back(run, scope):
    scope.piezo.set(2.0)
    documents, result = run(focus_sweep(scope, span_um=24, steps=25, centre_um=0.0, embryo="e1"))
    (start,) = documents["start"]
    assert result.plan_result == start["uid"]
    assert start["data_type"] == "focus_sweep"
    assert start["motors"] == ["dispim_piezo"]
    assert start["hints"]["dimensions"] == [(["dispim_piezo"], "primary")]
    positions = [event["data"]["dispim_piezo"] for event in documents["event"]]
    np.testing.assert_allclose(positions, np.linspace(-12, 12, 25))
    sharpness = [event["data"]["camera_a"].astype(float).var() for event in documents["event"]]
    assert abs(positions[int(np.argmax(sharpness))] - 1.5) <= 2
    assert scope.piezo.position == 2.0


def test_a_focus_sweep_of_the_other_camera(run, scope):
    documents, _ = run(focus_sweep(scope, camera=scope.camera_b, steps=3))
    assert [sorted(event["data"]) for event in documents["event"]] == [
        ["camera_b", "dispim_piezo", "dispim_piezo_setpoint"]
    ] * 3


def test_a_focus_sweep_that_fails_puts_the_piezo_back(run_engine):
    scope = SimulatedDiSPIM(size=32, rude=Rudeness(fail_at_trigger=2))
    with pytest.raises(Exception, match="camera_a"):
        run_engine(focus_sweep(scope, steps=5))
    assert scope.piezo.position == 0.0


def test_a_focus_sweep_beyond_the_limits_moves_nothing(run_engine, scope):
    with pytest.raises(LimitError, match="dispim_piezo cannot go to -110"):
        run_engine(focus_sweep(scope, span_um=220, embryo="e2"))
    assert scope.piezo.position == 0.0
    assert scope.embryo_in_view == "e1"


def test_plans_are_parts_of_other_plans(run, scope):
    def evening():
        first = yield from acquire_volume(scope)
        yield from bps.mv(scope.piezo, 1.0)
        rest = yield from timelapse(scope, embryos=["e2"])
        return (first, *rest)

    documents, result = run(evening())
    assert result.plan_result == tuple(start["uid"] for start in documents["start"])


@pytest.mark.parametrize(
    "plan",
    [
        lambda scope: acquire_volume(scope, embryo="e9"),
        lambda scope: acquire_volume(scope, num=0),
        lambda scope: timelapse(scope, embryos=["e1", "e9"]),
        lambda scope: timelapse(scope, embryos=[]),
        lambda scope: timelapse(scope, embryos="e1"),
        lambda scope: timelapse(scope, timepoints=0),
        lambda scope: timelapse(scope, interval_s=-1.0),
        lambda scope: timelapse(scope, interval_s=float("nan")),
        lambda scope: focus_sweep(scope, steps=1),
        lambda scope: focus_sweep(scope, embryo="e9"),
    ],
)
def test_senseless_plans_are_refused_before_anything_happens(run_engine, scope, plan):
    documents = []
    with pytest.raises(InvalidSetting, match=r"not|no embryo"):
        run_engine(plan(scope), lambda name, doc: documents.append(name))
    assert documents == []
    assert scope.embryo_in_view == "e1"
