"""Axes that move: piezo, galvo scanner, XY stage, SPIM head.

An axis arrives at once unless it is given a ``speed_per_s`` or a ``settle_s``; then its status takes time.
"""

from __future__ import annotations

import math
from typing import Any, cast

from ophyd import Component as Cpt
from ophyd import Device, Signal
from ophyd.status import MoveStatus
from ophyd.utils import LimitError

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim.settings import Setting, as_number, finite

__all__ = ["Axis", "Galvo", "XYStage"]


class Axis(Device):
    """One axis, for ``bps.mv``, ``bp.scan`` and the like.

    Parameters
    ----------
    limits
        Lowest and highest position, both included; the setting ``soft_limits`` narrows or widens them.
    egu
        The unit of its positions.
    position
        Where it stands to begin with.
    """

    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    readback = Cpt(Signal, value=0.0, kind="hinted")
    setpoint = Cpt(Signal, value=0.0, kind="normal")
    soft_limits = Cpt(Setting, value=[0.0, 0.0], rule=lambda value: _pair(value), kind="config")
    speed_per_s = Cpt(Setting, value=0.0, rule=finite(0.0, 1e6, "per second (0: at once)"), kind="config")
    settle_s = Cpt(Setting, value=0.0, rule=finite(0.0, 60.0, "s"), kind="config")

    def __init__(
        self, *args: Any, limits: tuple[float, float], egu: str = "um", position: float = 0.0, **device: Any
    ) -> None:
        super().__init__(*args, **device)
        self.egu = egu
        self.readback.name = self.name
        self.soft_limits.put(limits)
        for signal in (self.setpoint, self.readback):
            signal.put(position)

    @property
    def position(self) -> float:
        """Where the axis stands."""
        return float(cast("float", self.readback.get()))

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest position, both included."""
        low, high = self.soft_limits.get()
        return low, high

    def check_value(self, value: Any, **_options: Any) -> None:
        """Refuse a position the axis must not go to.

        Raises
        ------
        ophyd.utils.LimitError
            When it is outside the soft limits, or not a number.
        InvalidSetting
            When it is not even numeric.
        """
        number = as_number(value)
        if number is None:
            raise InvalidSetting(f"{self.name} moves to numbers ({self.egu}), not {value!r}; it did not move")
        low, high = self.limits
        if not low <= number <= high:
            raise LimitError(
                f"{self.name} cannot go to {number:g} {self.egu}: its soft limits are {low:g} to {high:g}; "
                f"it stays at {self.position:g}"
            )

    def set(self, value: float) -> MoveStatus:
        """Move, and return a status that is done on arrival; raises as ``check_value`` does."""
        self.check_value(value)
        target, start = float(value), self.position
        speed = self.speed_per_s.get()
        duration_s = self.settle_s.get() + (abs(target - start) / speed if speed else 0.0)
        status = MoveStatus(self, target, settle_time=duration_s)
        self.setpoint.put(target)
        self.readback.put(target)
        self._run_subs(sub_type=self.SUB_READBACK, old_value=start, value=target, timestamp=None)
        status.set_finished()
        return status

    def stop(self, *, success: bool = False) -> None:
        """Do nothing: the axis is where it was sent."""

    def describe(self) -> Any:
        """Describe readback and setpoint, with their unit."""
        described = cast("dict[str, Any]", super().describe())
        for key in described.values():
            key["units"] = self.egu
        return described


class Galvo(Axis):
    """The mirror that places the light sheet, in degrees; its calibration says where in the specimen."""

    um_per_deg = Cpt(Setting, value=100.0, rule=finite(1.0, 1000.0, "um per degree"), kind="config")
    focus_offset_um = Cpt(Setting, value=1.5, rule=finite(-50.0, 50.0, "um"), kind="config")

    def __init__(self, *args: Any, **device: Any) -> None:
        super().__init__(*args, limits=(-1.0, 1.0), egu="deg", **device)

    @property
    def sheet_um(self) -> float:
        """Depth of the light sheet; the piezo is in focus ``focus_offset_um`` above it."""
        return self.position * float(self.um_per_deg.get())


class XYStage(Device):
    """The stage that carries the embryos."""

    x = Cpt(Axis, limits=(-20_000.0, 20_000.0))
    y = Cpt(Axis, limits=(-20_000.0, 20_000.0))


def _pair(value: Any) -> list[float]:
    low, high = (float(limit) for limit in value)
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError("two numbers, the lower one first")
    return [low, high]
