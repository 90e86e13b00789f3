"""What plans say to storage, and storage to plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.errors import (
    InvalidDocument,
    InvalidSetting,
    RunExists,
    RunGoesOn,
    UnknownUid,
)
from gently_bluesky.plans import (
    PauseOnFailure,
    session,
    session_decorator,
    with_parents,
    with_parents_decorator,
)
from gently_bluesky.sheets import subject_of
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume, focus_sweep
from gently_bluesky.testing.devices import EncodedCamera


@pytest.fixture
def camera() -> EncodedCamera:
    return EncodedCamera()


def counted(RE: RunEngine, plan: Any) -> str:
    (uid,) = RE(plan)
    return uid


# -- what stands in start documents ------------------------------------------------------------------------------


def test_parents_of_an_acquired_run_are_its_lineage_and_it_stays_an_acquired_run(
    store: Store, RE: RunEngine, camera: EncodedCamera
) -> None:
    RE.subscribe(store.writer())
    first = counted(RE, bp.count([camera]))
    asset = store[first][camera.name]
    second = counted(
        RE,
        with_parents(bp.count([camera]), [asset[0]], operation="refocus", parameters={"step": np.int64(3)}),
    )
    assert store[second].start["lineage"] == {
        "parents": [asset[0].uid],
        "operation": "refocus",
        "parameters": {"step": 3},
    }
    assert [record.uid for record in store.children(first)] == [second]
    assert first[:8] in str(store.lineage(second))
    assert store[-1].uid == second
    assert [record.uid for record in store.query(derived=False)] == [second, first]
    assert store.stats()["derived"] == 0
    assert subject_of(store, store.record(second)).heading.startswith(f"count {second[:8]}, complete")
    mip = store.put(asset[0], data_type="projection", parents=[second])
    assert [record.uid for record in store.query(derived=True)] == [mip.uid]


def test_an_index_that_is_built_again_tells_acquired_runs_with_parents_from_results(
    root: Path, RE: RunEngine, camera: EncodedCamera
) -> None:
    with Store(root) as store:
        RE.subscribe(store.writer())
        first = counted(RE, bp.count([camera]))
        second = counted(RE, with_parents(bp.count([camera]), first))
    (root / "index.sqlite").unlink()
    with Store(root) as store:
        assert [record.uid for record in store.query(derived=False)] == [second, first]
        assert store.wait_for_run(after=first, timeout_s=0).uid == second


def test_a_session_is_put_into_every_run_that_names_none(
    store: Store, RE: RunEngine, camera: EncodedCamera
) -> None:
    RE.subscribe(store.writer())

    @session_decorator("screen 3")
    def two_runs() -> Any:
        yield from bp.count([camera])
        yield from bp.count([camera], md={"session": "its own"})

    RE(two_runs())
    assert [run.start["session"] for run in (store[-2], store[-1])] == ["screen 3", "its own"]
    inner = session(bp.count([camera]), "inner")
    assert store[counted(RE, session(inner, "outer"))].start["session"] == "inner"
    assert len(list(store.query(session="screen 3"))) == 1


def test_parents_are_given_by_a_decorator_too(store: Store, RE: RunEngine, camera: EncodedCamera) -> None:
    RE.subscribe(store.writer())
    first = counted(RE, bp.count([camera]))

    @with_parents_decorator([first], operation="again")
    def again() -> Any:
        return (yield from bp.count([camera]))

    assert store[counted(RE, again())].start["lineage"]["parents"] == [first]


@pytest.mark.parametrize(
    ("wrapped", "error"),
    [
        (lambda plan: with_parents(plan, [np.zeros(3)]), UnknownUid),
        (lambda plan: with_parents(plan, ["x"], parameters={"scope": object()}), InvalidDocument),
        (lambda plan: session(plan, ""), InvalidSetting),
        (lambda plan: session(plan, 3), InvalidSetting),
    ],
)
def test_what_no_start_document_can_hold_is_refused_before_anything_moves(
    wrapped: Any, error: type[Exception]
) -> None:
    moved: list[str] = []

    def plan() -> Any:
        moved.append("moved")
        yield from bps.null()

    with pytest.raises(error, match=r"got|cannot"):
        wrapped(plan())
    assert moved == []


# -- writers of plans ----------------------------------------------------------------------------------------------


def test_a_plan_may_bring_a_writer_of_its_own(store: Store, RE: RunEngine, camera: EncodedCamera) -> None:
    writer = store.writer(format="tiff")

    @bpp.subs_decorator(writer)
    def kept(num: int) -> Any:
        return (yield from bp.count([camera], num=num))

    uids = [counted(RE, kept(2)), counted(RE, kept(3))]
    RE(bp.count([camera]))  # no writer is subscribed to this one
    assert [record.uid for record in store.query()] == uids[::-1]
    assert [store[uid][camera.name].shape[0] for uid in uids] == [2, 3]
    assert [store.record(store[uid][camera.name].uid).format for uid in uids] == ["GENTLY_TIFF"] * 2


def test_two_writers_of_one_store_for_one_run_are_told_of_before_anything_is_taken(
    store: Store, RE: RunEngine, camera: EncodedCamera
) -> None:
    RE.subscribe(store.writer())
    second = store.writer(format="tiff")
    with pytest.raises(RunExists, match=r"another writer"):
        RE(bpp.subs_wrapper(bp.count([camera]), second))
    assert store[-1].status == "failed"
    assert list(store[-1].streams) == []
    with pytest.raises(RunExists):
        second.close()  # bluesky takes a plan's callbacks away before the stop


# -- plans that look at what they took ---------------------------------------------------------------------------------


def test_a_plan_reads_its_newest_volume_while_it_runs(store: Store, RE: RunEngine) -> None:
    scope = SimulatedDiSPIM(size=64, n_slices=4)
    writer = store.writer()
    RE.subscribe(writer)
    means: list[float] = []

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator()
    def adaptive() -> Any:
        uid = None
        for number in range(3):
            yield from bps.trigger_and_read([scope.light_sheet])
            yield from writer.stored()
            uid = store[-1].uid
            newest = store[uid]["primary"]["view_a"]
            assert newest.shape[0] == number + 1
            means.append(float(newest[-1].mean()))

    uid = counted(RE, adaptive())
    assert means == [float(volume.mean()) for volume in store[uid]["view_a"]]


def test_the_focus_that_a_sweep_found_through_the_store_is_where_the_volume_is_taken(
    store: Store, RE: RunEngine
) -> None:
    scope = SimulatedDiSPIM(size=64, n_slices=4)
    writer = store.writer()
    RE.subscribe(writer)

    def autofocus() -> Any:
        sweep = yield from focus_sweep(scope, steps=5, span_um=8.0)
        yield from writer.stored()
        frames = store[sweep]["camera_a"]
        sharpest = int(np.argmax([np.asarray(frame, float).var() for frame in frames]))
        found_um = float(store[sweep].table("primary")[scope.piezo.name].iloc[sharpest])
        yield from bps.mv(scope.piezo, found_um)
        taken = yield from with_parents(acquire_volume(scope), frames[sharpest], operation="autofocus")
        return sweep, taken, found_um

    sweep, taken = RE(autofocus())
    (parent,) = store[taken].start["lineage"]["parents"]
    assert store.record(parent).run_uid == sweep
    assert store.record(parent).kind == "datum"


# -- a failure ------------------------------------------------------------------------------


def test_nothing_is_paused_where_nothing_runs_or_the_run_goes_on(RE: RunEngine) -> None:
    pause = PauseOnFailure(RE)
    pause(OSError("full"))
    assert RE.state == "idle"

    def plan() -> Any:
        yield from bps.null()
        pause(RunGoesOn("in the overflow"))
        yield from bps.null()

    RE(plan())
    assert RE.state == "idle"
