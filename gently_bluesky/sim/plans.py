"""Plans for the diSPIM: one volume, a time lapse of many embryos, a focus sweep.

They are ordinary Bluesky plans: generators of messages, for a RunEngine or for use in other plans.
Each declares its stream before anything is triggered, so that a store can refuse it in time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator
from ophyd import Device

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim.detectors import CameraHead
from gently_bluesky.sim.devices import SimulatedDiSPIM
from gently_bluesky.sim.motion import Axis

__all__ = ["acquire_volume", "focus_sweep", "timelapse"]


def acquire_volume(
    scope: SimulatedDiSPIM,
    *,
    num: int = 1,
    embryo: str | None = None,
    session: str | None = None,
    timepoint: int | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take volumes from both views: one run, one event for each volume.

    Parameters
    ----------
    scope
        The microscope.
    num
        How many volumes, one event each.
    embryo
        Move to this embryo first; otherwise take what is in view.
    session, timepoint
        What to call the session and the time point in the start document.
    md
        More metadata for the start document; they win over those of the plan.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    InvalidSetting
        When there is no such embryo or ``num`` is less than one.
    """
    if num < 1:
        raise InvalidSetting(f"acquire_volume: num is one or more, not {num!r}")
    if embryo is not None:
        yield from _move_to(scope, embryo)
    detectors = _readable(scope.light_sheet, *scope.axes)
    metadata = _metadata(
        "acquire_volume",
        md,
        data_type="volume",
        detectors=[device.name for device in detectors],
        num_points=num,
        embryo=embryo or scope.embryo_in_view,
        session=session,
        timepoint=timepoint,
        hints={"dimensions": [(("time",), "primary")]},
    )

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator(md=metadata)
    def volumes() -> MsgGenerator[None]:
        yield from bps.declare_stream(*detectors, name="primary")
        for _ in range(num):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read(detectors)

    return cast("str", (yield from volumes()))


def timelapse(
    scope: SimulatedDiSPIM,
    *,
    embryos: Sequence[str] | None = None,
    timepoints: int = 1,
    interval_s: float = 0.0,
    session: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[tuple[str, ...]]:
    """Visit embryos in turn, again and again: one run for each embryo and time point.

    Parameters
    ----------
    scope
        The microscope.
    embryos
        Their names, in the order of the visits; all of them by default.
    timepoints
        How many rounds; ``timepoint`` counts them from 0 in the start documents.
    interval_s
        Time from the start of one round to the start of the next; a round that takes longer delays the next.
    session
        What to call the session in the start documents.
    md
        More metadata for every start document; they win over those of the plan.

    Returns
    -------
    tuple of str
        The uids of the runs in order.

    Raises
    ------
    InvalidSetting
        When there is no such embryo, no time point, or the interval is negative.
    """
    names = list(scope.embryos if embryos is None else embryos)
    if isinstance(embryos, str) or not names:
        raise InvalidSetting(f"timelapse: embryos is a list of names, not {embryos!r}")
    for name in names:
        _position_of(scope, name)
    if timepoints < 1 or not interval_s >= 0:
        raise InvalidSetting(
            "timelapse: timepoints is one or more and interval_s zero or more, "
            f"not {timepoints!r} and {interval_s!r}"
        )
    uids: list[str] = []
    more = {"plan_name": "timelapse", "num_timepoints": timepoints, "interval_s": interval_s, **(md or {})}
    begin_s = time.monotonic()
    for timepoint in range(timepoints):
        # Rounds keep to a timetable: what one of them takes longer does not add up over a night.
        late_s = time.monotonic() - (begin_s + timepoint * interval_s)
        if late_s < 0:
            yield from bps.checkpoint()
            yield from bps.sleep(-late_s)
        for name in names:
            uid = yield from acquire_volume(scope, embryo=name, session=session, timepoint=timepoint, md=more)
            uids.append(uid)
    return tuple(uids)


def focus_sweep(
    scope: SimulatedDiSPIM,
    *,
    camera: CameraHead | None = None,
    span_um: float = 20.0,
    steps: int = 21,
    centre_um: float | None = None,
    embryo: str | None = None,
    session: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step the piezo through focus under a resting light sheet; a 2-D frame and an event at each step.

    The piezo goes back to where it was, whatever happens.

    Parameters
    ----------
    scope
        The microscope.
    camera
        ``scope.camera_a`` by default.
    span_um
        From the first position of the piezo to the last.
    steps
        How many positions, two or more.
    centre_um
        The middle of the sweep; where the piezo stands by default.
    embryo
        Move to this embryo first; otherwise take what is in view.
    session
        What to call the session in the start document.
    md
        More metadata for the start document; they win over those of the plan.

    Returns
    -------
    str
        The uid of the run.

    Raises
    ------
    InvalidSetting
        When there is no such embryo, or fewer than two steps.
    ophyd.utils.LimitError
        When the sweep would leave the limits of the piezo; nothing has moved then.
    """
    camera = camera or scope.camera_a
    detectors = _readable(camera, scope.piezo)
    piezo, start_um = scope.piezo, scope.piezo.position
    positions_um = _positions_of_sweep(piezo, start_um if centre_um is None else centre_um, span_um, steps)
    if embryo is not None:
        yield from _move_to(scope, embryo)
    metadata = _metadata(
        "focus_sweep",
        md,
        data_type="focus_sweep",
        detectors=[camera.name],
        motors=[piezo.name],
        num_points=steps,
        embryo=embryo or scope.embryo_in_view,
        session=session,
        hints={"dimensions": [([piezo.name], "primary")]},
    )

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md=metadata)
    def sweep() -> MsgGenerator[None]:
        yield from bps.declare_stream(*detectors, name="primary")
        for position_um in positions_um:
            yield from bps.checkpoint()
            yield from bps.mv(piezo, position_um)
            yield from bps.trigger_and_read(detectors)

    uid = yield from bpp.finalize_wrapper(sweep(), lambda: bps.mv(piezo, start_um))
    return cast("str", uid)


def _metadata(plan_name: str, md: Mapping[str, Any] | None, **known: Any) -> dict[str, Any]:
    """Return the metadata of a start document: what is known, and what the caller says on top."""
    said = {key: value for key, value in known.items() if value is not None}
    return {"plan_name": plan_name, **said, **(md or {})}


def _positions_of_sweep(piezo: Axis, centre_um: float, span_um: float, steps: int) -> list[float]:
    if steps < 2:
        raise InvalidSetting(f"focus_sweep: two steps or more, not {steps!r}")
    positions_um = [float(p) for p in np.linspace(centre_um - span_um / 2, centre_um + span_um / 2, steps)]
    for position_um in (positions_um[0], positions_um[-1]):
        piezo.check_value(position_um)
    return positions_um


def _readable(*devices: Device) -> list[Readable[Any]]:
    """Say what bluesky's protocols cannot see: ophyd annotates read() in a way of its own."""
    return cast("list[Readable[Any]]", list(devices))


def _move_to(scope: SimulatedDiSPIM, embryo: str) -> MsgGenerator[None]:
    x_um, y_um = _position_of(scope, embryo)
    yield from bps.mv(scope.stage.x, x_um, scope.stage.y, y_um)


def _position_of(scope: SimulatedDiSPIM, embryo: str) -> tuple[float, float]:
    if embryo not in scope.embryos:
        raise InvalidSetting(f"there is no embryo {embryo!r} on the stage, only {', '.join(scope.embryos)}")
    return scope.embryos[embryo].position_um
