"""Detectors that are read as most are: the arrays are in the readings, and somebody else stores them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

from numpy.typing import NDArray
from ophyd.status import StatusBase

from gently_bluesky.errors import InputError
from gently_bluesky.sim.detectors import CameraHead, Imager, SheetOptics

__all__ = ["Camera", "LightSheet"]


class ReadsArrays(Imager):
    """A detector whose readings hold its arrays themselves, politely or not: somebody else stores them."""

    def __init__(self, **device: Any) -> None:
        self._frames: Mapping[str, NDArray[Any]] = {}
        self._taken_s = 0.0
        super().__init__(**device)

    def trigger(self) -> Any:
        """Take arrays, and let go of the last ones."""
        self._frames = {}
        return super().trigger()

    def deliver(
        self, status: StatusBase, arrays: Mapping[str, NDArray[Any]], time_s: float | None = None
    ) -> None:
        """Keep the arrays, to be read."""
        self._frames, self._taken_s = arrays, time.time() if time_s is None else time_s
        status.set_finished()

    def read(self) -> Any:
        """Return the arrays of the last trigger.

        Raises
        ------
        InputError
            When there was none.
        """
        if not self._frames:
            raise InputError(f"{self.name} has no frame to read: trigger it first")
        readings = cast("dict[str, Any]", super().read())
        for key, frame in self._frames.items():
            readings[key] = self._stand.rude.reading(frame, self._taken_s)
        return readings

    def describe(self) -> Any:
        """Describe the arrays that the next trigger takes."""
        described = cast("dict[str, Any]", super().describe())
        for key, (shape, dims) in self.arrays().items():
            described[key] = self._stand.rude.data_key(
                source=f"SIM:{self.name}", shape=shape, dims=dims, triggered=self._triggered
            )
        return described


class Camera(ReadsArrays, CameraHead):
    """A 2-D camera whose readings hold its frames."""


class LightSheet(ReadsArrays, SheetOptics):
    """The light sheet; its readings hold its volumes."""
