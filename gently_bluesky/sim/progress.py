"""How far a volume is: a status that tells watchers, such as bluesky's progress bars, of each slice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ophyd import Device
from ophyd.status import DeviceStatus

__all__ = ["VolumeStatus"]


class VolumeStatus(DeviceStatus):
    """Done when a volume is there; watched, it says how many slices of it are. Any thread.

    Parameters
    ----------
    device
        What takes the volume.
    slices
        How many it will have.
    """

    def __init__(self, device: Device, slices: int) -> None:
        super().__init__(device)
        self._slices = slices
        self._taken = 0
        self._began_s = time.monotonic()

    def watch(self, func: Callable[..., Any]) -> None:
        """Call ``func`` at each slice with what bluesky's ProgressBar takes."""
        self._watchers.append(func)
        self._tell(func)

    def advance(self, taken: int) -> None:
        """Say that so many slices have been taken."""
        self._taken = taken
        for func in list(self._watchers):
            self._tell(func)

    def _tell(self, func: Callable[..., Any]) -> None:
        func(
            name=self.device.name,
            current=self._taken,
            initial=0,
            target=self._slices,
            unit="slices",
            precision=0,
            time_elapsed=time.monotonic() - self._began_s,
        )

    def _settled(self) -> None:
        """Leave watchers with what they were told last: ophyd would tell them that a fraction of 0 is left."""
