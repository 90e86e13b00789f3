"""The light sheet as an ophyd-async detector that writes its volumes by itself."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from ophyd_async.core import (
    AsyncStatus,
    DetectorAcquireLogic,
    DetectorTriggerLogic,
    StandardDetector,
    soft_signal_r_and_setter,
)

from gently_bluesky.devices.ophyd_async import RecorderDataLogic
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.sim.detectors import SheetOptics

__all__ = ["AsyncLightSheet"]


class SheetTriggers(DetectorTriggerLogic):
    """The light sheet times its volumes itself."""

    def __init__(self, light_sheet: SheetOptics) -> None:
        self.num_volumes = 1
        self._light_sheet = light_sheet

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:  # noqa: ARG002 # there is none
        """Note how many volumes to take, and how long each slice is exposed."""
        self.num_volumes = num
        if livetime:
            self._light_sheet.exposure_s.put(livetime)


class SheetAcquires(DetectorAcquireLogic):
    """Takes the volumes on a thread, and delivers each."""

    def __init__(self, light_sheet: SheetOptics, triggers: SheetTriggers, data: RecorderDataLogic) -> None:
        self._light_sheet = light_sheet
        self._triggers = triggers
        self._data = data
        self._halt = threading.Event()
        self._taking: asyncio.Task[None] | None = None

    async def start_acquiring(self) -> None:
        """Take as many volumes as were asked for."""
        self._halt.clear()
        self._taking = asyncio.create_task(asyncio.to_thread(self._take, self._triggers.num_volumes))

    def _take(self, count: int) -> None:
        for volumes in self._light_sheet.volumes(count):
            self._data.deliver(volumes)
            if self._halt.is_set():
                return

    async def wait_for_idle(self) -> None:
        """Wait until all are taken; raise what went wrong."""
        if self._taking is not None:
            await self._taking

    async def ensure_stopped(self) -> None:
        """Take no further volume than the one under way."""
        self._halt.set()
        if self._taking is not None:
            with suppress(Exception):  # whoever waited for the volumes has been told
                await self._taking
            self._taking = None


class AsyncLightSheet(StandardDetector):
    """A `StandardDetector` whose volumes are stored as they come: arrays ``<name>-view_a`` and ``<name>-view_b``.

    A pause waits for the volume under way; a plan that is resumed takes it again. A flight that is paused goes on.

    Parameters
    ----------
    light_sheet
        Of a `SimulatedDiSPIM`: what takes the volumes, with its settings.
    recorder
        From ``store.recorder()``.
    name
        Of the detector.
    """

    def __init__(self, light_sheet: SheetOptics, recorder: Recorder, name: str = "") -> None:
        self._light_sheet = light_sheet
        self._is_flying = False
        self.pixel_size_um, self._set_pixel_size_um = soft_signal_r_and_setter(float, 1.0, units="um")
        self.z_step_um, self._set_z_step_um = soft_signal_r_and_setter(float, 1.0, units="um")
        self._data = RecorderDataLogic(
            recorder, light_sheet.describe_arrays, self._steps_um, hinted=list(light_sheet.arrays())
        )
        triggers = SheetTriggers(light_sheet)
        self._acquire = SheetAcquires(light_sheet, triggers, self._data)
        self.add_detector_logics(triggers, self._acquire, self._data)
        self.add_config_signals(self.pixel_size_um, self.z_step_um)
        super().__init__(name=name)

    def _steps_um(self) -> dict[str, float]:
        sheet = self._light_sheet
        return {"pixel_size_um": sheet.grid.pixel_size_um, "z_step_um": float(sheet.z_step_um.get())}

    def stage(self) -> AsyncStatus[None]:
        """Get ready, and note the settings of the light sheet."""
        steps_um = self._steps_um()
        self._set_pixel_size_um(steps_um["pixel_size_um"])
        self._set_z_step_um(steps_um["z_step_um"])
        self._is_flying = False
        return super().stage()

    def kickoff(self) -> AsyncStatus[None]:
        """Start a flight."""
        self._is_flying = True
        return super().kickoff()

    async def pause(self) -> None:
        """Wait for the volume under way, unless it is one of a flight."""
        if not self._is_flying:
            await self._acquire.ensure_stopped()
            await self._data.forget_unannounced()

    async def stop(self, *, success: bool = True) -> None:  # noqa: ARG002 # bluesky's signature
        """Take no further volume than the one under way; what was taken is stored, and can be collected."""
        await self._acquire.ensure_stopped()
        await self._data.drain()

    async def resume(self) -> None:
        """Nothing to do: the plan triggers again."""
