"""The same detectors as devices that write their arrays by themselves, and a flyer that takes volume after volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from numpy.typing import NDArray

from gently_bluesky.devices.flying import FliesWithDatums, FliesWithStreams
from gently_bluesky.devices.ophyd import WritesDatums, WritesStreams
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.sim.detectors import CameraHead, SheetOptics
from gently_bluesky.sim.settings import Setting, whole

__all__ = [
    "DatumCamera",
    "DatumFlyer",
    "DatumLightSheet",
    "StreamCamera",
    "StreamFlyer",
    "StreamLightSheet",
]


class DatumCamera(WritesDatums, CameraHead):
    """A camera that writes its frames, and names them by datums."""

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger takes."""
        return CameraHead.describe_arrays(self)


class StreamCamera(WritesStreams, CameraHead):
    """A camera that writes its frames, and announces them by stream documents."""

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger takes."""
        return CameraHead.describe_arrays(self)


class DatumLightSheet(WritesDatums, SheetOptics):
    """A light sheet that writes its volumes, and names them by datums."""

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger takes."""
        return SheetOptics.describe_arrays(self)


class StreamLightSheet(WritesStreams, SheetOptics):
    """A light sheet that writes its volumes, and announces them by stream documents."""

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger takes."""
        return SheetOptics.describe_arrays(self)


class TakesVolumes:
    """What both flyers share: the light sheet takes ``num_volumes`` volumes, with nothing in between.

    Put in front of a flyer of `gently_bluesky.devices.flying`.
    """

    def __init__(self, *, name: str, recorder: Recorder, light_sheet: SheetOptics) -> None:
        self._light_sheet = light_sheet
        self.num_volumes = Setting(name=f"{name}_num_volumes", value=1, rule=whole(1, 10**6), kind="config")
        super().__init__(name=name, recorder=recorder)  # pyright: ignore[reportCallIssue] # the flyer behind it

    @property
    def num_events(self) -> int:
        """How many events a flight has."""
        return int(self.num_volumes.get())

    def take(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Yield the volumes of a flight."""
        return self._light_sheet.volumes(self.num_events)

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the volumes."""
        return self._light_sheet.describe_arrays()

    def read_configuration(self) -> dict[str, Any]:
        """Return the settings of the light sheet, and of the flight."""
        return {**cast("dict[str, Any]", self._light_sheet.read_configuration()), **self.num_volumes.read()}

    def describe_configuration(self) -> dict[str, Any]:
        """Describe the settings."""
        said = cast("dict[str, Any]", self._light_sheet.describe_configuration())
        return {**said, **self.num_volumes.describe()}


class DatumFlyer(TakesVolumes, FliesWithDatums):
    """Takes volumes in a flight, for ``bp.fly``."""


class StreamFlyer(TakesVolumes, FliesWithStreams):
    """Takes volumes in a flight, announced by stream documents."""
