"""The simulated diSPIM: cameras, light sheet, axes, lasers and a thermometer on one stand.

Everything it shows follows from the seed and from what was done to it, never from the clock.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ophyd import Component as Cpt
from ophyd import Device, Signal
from ophyd.status import Status

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim.detectors import CameraHead, SheetOptics
from gently_bluesky.sim.motion import Axis, Galvo, XYStage
from gently_bluesky.sim.optics import Scene, Sensor, View, to_view
from gently_bluesky.sim.reading import Camera, LightSheet
from gently_bluesky.sim.rudeness import Rudeness
from gently_bluesky.sim.settings import Setting, finite, whole
from gently_bluesky.sim.specimen import lay_embryos
from gently_bluesky.sim.writing import (
    DatumCamera,
    DatumFlyer,
    DatumLightSheet,
    StreamCamera,
    StreamFlyer,
    StreamLightSheet,
)

if TYPE_CHECKING:
    from gently_bluesky.devices.recorder import Recorder

__all__ = ["Lasers", "SimulatedDiSPIM", "Thermometer"]

SENSOR_PIXEL_UM = 0.1625
"""A 6.5 um pixel behind 40x."""

FIELD_AT_LEAST_UM = 83.2
"""Sensors under 512 pixels get larger pixels, so that an embryo still fits into the field."""

VOLUME_DEPTH_UM = 40.0
EMBRYO_REACH_UM = 30.0
WIDEST_STEP_UM = 2.0
USUAL_POWER_PERCENT = 20.0


DETECTORS: dict[str | None, Any] = {
    None: (Camera, LightSheet, None),
    "datum": (DatumCamera, DatumLightSheet, DatumFlyer),
    "stream": (StreamCamera, StreamLightSheet, StreamFlyer),
}
"""Cameras, light sheet and flyer, by the family of documents that they write; None writes nothing."""


class Lasers(Device):
    """The two laser lines, gated by the hardware: they shine while a frame is taken; nuclei need 488 nm."""

    power_488_percent = Cpt(
        Setting, value=USUAL_POWER_PERCENT, rule=finite(0.0, 100.0, "percent"), kind="config"
    )
    power_561_percent = Cpt(Setting, value=0.0, rule=finite(0.0, 100.0, "percent"), kind="config")


class Thermometer(Signal):
    """The temperature of the sample chamber in degrees Celsius; it can be monitored.

    It updates on a thread of its own while somebody is subscribed to it or it has been started, and has no
    thread otherwise. Each reading that is triggered is a new one as well. The series follows from the seed.

    Parameters
    ----------
    seed
        Which series.
    period_s
        Time between updates.
    """

    def __init__(self, *, seed: int = 0, period_s: float = 0.1, **signal: Any) -> None:
        self.period_s = period_s
        self._rng = np.random.default_rng([seed, 0, 3])
        self._samples = 0
        self._started = False
        self._changing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._halt = threading.Event()
        super().__init__(value=20.0, **signal)
        self._metadata.update(write_access=False)

    def trigger(self) -> Status:
        """Take a new reading and return a status that is done."""
        self._update()
        status = Status(self)
        status.set_finished()
        return status

    def start(self) -> None:
        """Update until ``stop``, whether or not anybody is subscribed."""
        self._started = True
        self._run_while_wanted()

    def stop(self, *, success: bool = False) -> None:  # noqa: ARG002 - ophyd's signature
        """Stop updating, unless somebody is subscribed."""
        self._started = False
        self._run_while_wanted()

    def stage(self) -> list[object]:
        """Start updating."""
        self.start()
        return [self]

    def unstage(self) -> list[object]:
        """Stop updating, unless somebody is subscribed."""
        self.stop()
        return [self]

    def subscribe(self, callback: Any, event_type: str | None = None, run: bool = True) -> int:
        """Call back on every update, from the thermometer's thread."""
        number = super().subscribe(callback, event_type=event_type, run=run)
        self._run_while_wanted()
        return number

    def unsubscribe(self, cid: int) -> None:
        """Stop calling back; once the last subscription has gone, no call is running any more."""
        super().unsubscribe(cid)
        self._run_while_wanted()

    def unsubscribe_all(self) -> None:
        """Stop all calls back."""
        super().unsubscribe_all()
        self._run_while_wanted()

    def describe(self) -> Any:
        """Describe the temperature, with its unit."""
        described = cast("dict[str, Any]", super().describe())
        described[self.name] |= {"units": "degC", "precision": 3}
        return described

    def _run_while_wanted(self) -> None:
        """Have a thread exactly while there is a reason to."""
        with self._changing:
            wanted = self._started or bool(self._callbacks[self.SUB_VALUE])
            if wanted and self._thread is None:
                self._halt = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._halt,), name=f"{self.name}-updates", daemon=True
                )
                self._thread.start()
                return
            if wanted or self._thread is None:
                return
            leaving, self._thread = self._thread, None
            self._halt.set()
        # A callback may unsubscribe itself; it cannot wait for the thread it is on.
        if leaving is not threading.current_thread():
            leaving.join()

    def _run(self, halt: threading.Event) -> None:
        while not halt.wait(self.period_s):
            self._update()

    def _update(self) -> None:
        self._samples += 1
        drift = 0.2 * math.sin(self._samples / 50)
        self.put(round(20.0 + drift + float(self._rng.normal(0.0, 0.01)), 3), force=True)


class SimulatedDiSPIM:
    """A dual-view light-sheet microscope with living embryos and, on request, bad manners.

    It is a stand that holds ophyd devices, not a device itself: use its parts in plans.

    Parameters
    ----------
    name
        What the names of its devices begin with. The arrays are always called ``view_a`` and ``view_b`` (or
        ``views``), ``camera_a`` and ``camera_b``.
    size
        Pixels along each side of the sensors, 16 to 4096.
    n_slices
        Slices of a volume; the steps are chosen so that it spans an embryo.
    embryos
        How many lie on the stage, 1 to 64: ``e1``, ``e2`` ...
    seed
        The same seed and the same calls give the same pixels.
    rude
        The bad habits of its detectors; none by default.
    dual
        ``separate`` for two arrays per volume, ``stacked`` for one of (v, z, y, x).
    realtime
        Let exposures take the time they would; they take none by default.
    recorder
        From ``store.recorder()``: the detectors write their arrays by themselves. By default their readings hold
        the arrays.
    assets
        ``datum`` or ``stream``: the family of documents by which such detectors announce them.

    Raises
    ------
    InvalidSetting
        When an argument is out of range.

    Attributes
    ----------
    light_sheet, camera_a, camera_b
        The detectors.
    flyer
        With a recorder: takes ``flyer.num_volumes`` volumes in a flight, with nothing in between.
    piezo, galvo, stage, head
        The axes; ``stage`` has ``x`` and ``y``.
    lasers, temperature
        Laser powers; a temperature that can be monitored.
    embryos
        The embryos by name, with the stage position of each.

    Examples
    --------
    >>> scope = SimulatedDiSPIM(size=64, n_slices=4)
    >>> scope.light_sheet.trigger().wait(10)
    >>> scope.light_sheet.read()["view_a"]["value"].shape
    (4, 64, 64)
    """

    def __init__(
        self,
        *,
        name: str = "dispim",
        size: int = 512,
        n_slices: int = 32,
        embryos: int = 3,
        seed: int = 1,
        rude: Rudeness | None = None,
        dual: str = "separate",
        realtime: bool = False,
        recorder: Recorder | None = None,
        assets: str = "datum",
    ) -> None:
        try:
            self.sensor_size = whole(16, 4096)(size)
        except ValueError as error:
            raise InvalidSetting(f"size must be {error}, not {size!r}") from error
        self.name = name
        self.sensor_pixel_um = max(SENSOR_PIXEL_UM, FIELD_AT_LEAST_UM / self.sensor_size)
        self.rude = rude or Rudeness()
        self.realtime = realtime
        self.embryos = lay_embryos(embryos, seed=seed)
        self._age_min = {label: embryo.start_age_min for label, embryo in self.embryos.items()}
        self._sensors: dict[View, Sensor] = {
            "a": Sensor(self.sensor_size, seed=(seed, 0, 1)),
            "b": Sensor(self.sensor_size, seed=(seed, 0, 2)),
        }
        self.piezo = Axis(name=f"{name}_piezo", limits=(-100.0, 100.0))
        self.galvo = Galvo(name=f"{name}_galvo")
        self.stage = XYStage(name=f"{name}_stage")
        self.head = Axis(name=f"{name}_head", limits=(-50.0, 20_000.0))
        self.lasers = Lasers(name=f"{name}_lasers")
        self.temperature = Thermometer(name=f"{name}_temperature", seed=seed)
        self.flyer: DatumFlyer | StreamFlyer | None = None
        self._make_detectors(recorder, assets)
        self.light_sheet.n_slices.put(n_slices)
        self.light_sheet.z_step_um.put(round(min(VOLUME_DEPTH_UM / n_slices, WIDEST_STEP_UM), 4))
        self.light_sheet.dual.put(dual)
        for axis, place_um in zip((self.stage.x, self.stage.y), self.embryos["e1"].position_um, strict=True):
            axis.set(place_um)

    def _make_detectors(self, recorder: Recorder | None, assets: str) -> None:
        kinds = DETECTORS.get(None if recorder is None else assets)
        if kinds is None:
            raise InvalidSetting(f"assets must be 'datum' or 'stream', not {assets!r}")
        camera, light_sheet, flyer = kinds
        writing = {} if recorder is None else {"recorder": recorder}
        self.camera_a: CameraHead = camera(name=f"{self.name}_camera_a", view="a", stand=self, **writing)
        self.camera_b: CameraHead = camera(name=f"{self.name}_camera_b", view="b", stand=self, **writing)
        self.light_sheet: SheetOptics = light_sheet(name=f"{self.name}_light_sheet", stand=self, **writing)
        if flyer is not None:
            self.flyer = flyer(name=f"{self.name}_flyer", light_sheet=self.light_sheet, **writing)

    @property
    def axes(self) -> tuple[Device, ...]:
        """Everything that moves: what a plan reads to say where the microscope stood."""
        return (self.stage, self.head, self.piezo, self.galvo)

    @property
    def embryo_in_view(self) -> str | None:
        """The name of the embryo under the objectives, or None."""
        embryo = self.scene().embryo
        return None if embryo is None else embryo.name

    def age_min(self, embryo: str) -> float:
        """Return the age of an embryo in minutes since fertilisation, as its next volume will show it."""
        return self._age_min[embryo]

    def scene(self) -> Scene:
        """Return what lies under the objectives now: the nearest embryo, if it is in the field at all."""
        x_um, y_um = self.stage.x.position, self.stage.y.position
        embryo = min(self.embryos.values(), key=lambda one: math.dist(one.position_um, (x_um, y_um)))
        centre_um = (embryo.position_um[0] - x_um, embryo.position_um[1] - y_um, -self.head.position)
        dose = float(self.lasers.power_488_percent.get()) / USUAL_POWER_PERCENT
        reach_um = self.sensor_size * self.sensor_pixel_um / 2 + EMBRYO_REACH_UM
        across, along_y, depth = np.abs(to_view(np.array([centre_um]), "a"))[0]
        if max(across, along_y, depth) > reach_um:
            return Scene(None, 0.0, (0.0, 0.0, 0.0), dose)
        return Scene(embryo, self._age_min[embryo.name], centre_um, dose)

    def grow(self, scene: Scene, minutes: float) -> None:
        """Let the embryo of a scene get older; the light sheet does so after each volume."""
        if scene.embryo is not None:
            self._age_min[scene.embryo.name] += minutes

    def sensor(self, view: View) -> Sensor:
        """Return the sensor of a view."""
        return self._sensors[view]

    def camera(self, view: View) -> CameraHead:
        """Return the camera of a view."""
        return self.camera_a if view == "a" else self.camera_b

    def depths_um(self) -> tuple[float, float]:
        """Return the depths of the light sheet and of the focal plane now."""
        return self.galvo.sheet_um, self.piezo.position - float(self.galvo.focus_offset_um.get())
