"""What the detectors are made of: two cameras, and the light sheet that takes a volume from both views per trigger.

They keep the habits of real ones: settings in the configuration, and every bad habit of ``Rudeness``. Whether their
arrays are read or written by themselves is for `reading` and `writing` to say. What they show is drawn by ``optics``;
where the devices stand is told by the ``Stand``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import Device
from ophyd.status import DeviceStatus, StatusBase

from gently_bluesky.errors import InputError
from gently_bluesky.sim.optics import Exposure, PixelGrid, Scene, Sensor, SheetView, View
from gently_bluesky.sim.progress import VolumeStatus
from gently_bluesky.sim.rudeness import Rudeness, SimulatedFault
from gently_bluesky.sim.settings import Derived, Setting, finite, one_of, whole

__all__ = ["CameraHead", "Imager", "SheetOptics", "Stand"]

SMALLEST_ROI = 16
LONGEST_EXPOSURE_S = 10.0
VIEWS: tuple[View, View] = ("a", "b")


class Stand(Protocol):
    """The microscope that holds a detector: what the detectors need of it."""

    sensor_size: int
    sensor_pixel_um: float
    rude: Rudeness
    realtime: bool

    def scene(self) -> Scene:
        """Return what lies under the objectives now."""
        ...

    def sensor(self, view: View) -> Sensor:
        """Return the sensor of a view."""
        ...

    def depths_um(self) -> tuple[float, float]:
        """Return the depths of the light sheet and of the focal plane now."""
        ...

    def camera(self, view: View) -> CameraHead:
        """Return the camera of a view."""
        ...

    def grow(self, scene: Scene, minutes: float) -> None:
        """Let the embryo of a scene get older."""
        ...


class Imager(Device, ABC):
    """What camera and light sheet have in common: arrays that each trigger takes and delivers."""

    def __init__(self, *, name: str, stand: Stand, **writing: Any) -> None:
        self._stand = stand
        self._triggers = 0
        self._triggered = False
        self._buffers: dict[str, NDArray[np.uint16]] = {}
        super().__init__(name=name, **writing)

    @abstractmethod
    def arrays(self) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Return shape and axis names of each array that the next trigger takes, by data key."""

    @abstractmethod
    def deliver(
        self, status: StatusBase, arrays: Mapping[str, NDArray[Any]], time_s: float | None = None
    ) -> None:
        """Take the arrays of a trigger, and finish its status when they can be read."""

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger takes."""
        return {
            key: {
                "source": f"SIM:{self.name}",
                "dtype": "array",
                "shape": list(shape),
                "dtype_numpy": self._stand.rude.dtype.str,
                "dims": list(dims),
                "units": "counts",
            }
            for key, (shape, dims) in self.arrays().items()
        }

    def stage(self) -> list[object]:
        """Get ready; the detector knows nothing of earlier triggers."""
        self._triggered = False
        return super().stage()

    def _count_trigger(self) -> int:
        """Return the number of this trigger, from 0."""
        number = self._triggers
        self._triggers, self._triggered = number + 1, True
        return number

    def _buffer(self, key: str, shape: tuple[int, ...]) -> NDArray[np.uint16]:
        """Return an array to fill: a new one each time, unless the detector is rude."""
        rude = self._stand.rude
        kept = self._buffers.get(key)
        if kept is not None and kept.shape == shape:
            return kept
        buffer = rude.buffer(shape)
        if rude.same_buffer:
            self._buffers[key] = buffer
        return buffer


class CameraHead(Imager):
    """A 2-D camera that looks at one view; one frame (y, x) of uint16 counts per trigger.

    Parameters
    ----------
    view
        ``a`` or ``b``; the data key is ``camera_a`` or ``camera_b``.
    """

    exposure_s = Cpt(Setting, value=0.01, rule=finite(1e-5, LONGEST_EXPOSURE_S, "s"), kind="config")
    binning = Cpt(Setting, value=1, rule=one_of(1, 2, 4), kind="config")
    trigger_mode = Cpt(
        Setting, value="internal", rule=one_of("internal", "external_edge", "external_level"), kind="config"
    )
    roi = Cpt(Setting, value=[0, 0, 0, 0], rule=list, kind="config", doc="x, y, width, height, sensor pixels")
    pixel_size_um = Cpt(Derived, attribute="_pixel_size_um", kind="config")

    def __init__(self, *, name: str, view: View, stand: Stand, **writing: Any) -> None:
        self.view: View = view
        super().__init__(name=name, stand=stand, **writing)
        size = self._stand.sensor_size
        self.roi.rule = self._valid_roi
        self.roi.put([0, 0, size, size])
        self._drawn: tuple[Any, SheetView, Any] | None = None

    @property
    def grid(self) -> PixelGrid:
        """The pixels of a frame."""
        x, y, width, height = self.roi.get()
        stand = self._stand
        return PixelGrid(
            stand.sensor_size, stand.sensor_pixel_um, (x, y, width, height), int(self.binning.get())
        )

    @property
    def _pixel_size_um(self) -> float:
        return self.grid.pixel_size_um

    def arrays(self) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Return shape and axis names of a frame."""
        return {f"camera_{self.view}": (self.grid.shape_yx, ("y", "x"))}

    def trigger(self) -> DeviceStatus:
        """Take a frame; it is there when the status is done.

        Raises
        ------
        InputError
            When the camera waits for an external trigger that will not come.
        """
        if (mode := self.trigger_mode.get()) != "internal":
            raise InputError(
                f"{self.name} is in trigger mode {mode!r} and would wait for ever; "
                "set it to 'internal', or trigger the light sheet"
            )
        number = self._count_trigger()
        exposure_s = float(self.exposure_s.get())
        status = DeviceStatus(self, settle_time=exposure_s if self._stand.realtime else 0.0)
        if self._stand.rude.failing_slice(number, 1) is not None:
            status.set_exception(SimulatedFault(f"{self.name}: trigger {number}: the camera did not answer"))
            return status
        self.deliver(status, self._expose(number, exposure_s))
        return status

    def _expose(self, number: int, exposure_s: float) -> dict[str, NDArray[np.uint16]]:
        scene, grid = self._stand.scene(), self.grid
        sheet_um, focus_um = self._stand.depths_um()
        exposure = Exposure.of(grid, dose=scene.dose, exposure_s=exposure_s)
        seen = (scene, grid, exposure, sheet_um, focus_um)
        if self._drawn is None or self._drawn[0] != seen:
            drawn = SheetView(
                scene.blobs(self.view), grid, photons=exposure.signal_photons, defocus_um=focus_um - sheet_um
            )
            self._drawn = (seen, drawn, exposure.counts(drawn.plane(sheet_um)))
        (key,) = self.arrays()
        frame = self._buffer(key, grid.shape_yx)
        _, drawn, counts = self._drawn
        sensor = self._stand.sensor(self.view)
        sensor.expose(frame, exposure, frame_number=number, box=drawn.box, counts=counts)
        return {key: frame}

    def _valid_roi(self, value: Any) -> list[int]:
        size = self._stand.sensor_size
        smallest = min(SMALLEST_ROI, size)
        roi = [int(edge) for edge in value]
        if len(roi) == 4 and roi == list(value):
            x, y, width, height = roi
            if min(x, y) >= 0 and min(width, height) >= smallest and max(x + width, y + height) <= size:
                return roi
        raise ValueError(
            f"[x, y, width, height] inside the sensor of {size} x {size}, at least {smallest} pixels a side"
        )


@dataclass(frozen=True)
class _Volume:
    """Everything about one volume that is settled when it is triggered."""

    number: int
    scene: Scene
    grid: PixelGrid
    exposure_s: float
    depths_um: NDArray[np.float64]
    stacked: bool
    first_frame: int


class SheetOptics(Imager):
    """One trigger takes a hardware-timed volume from both views, (z, y, x) uint16 counts each.

    Data keys are ``view_a`` and ``view_b``, or, with ``dual`` set to ``stacked``, ``views`` of (v, z, y, x).
    ROI and binning are those of the cameras. With each volume the embryo in view gets ``minutes_per_volume``
    older.
    """

    n_slices = Cpt(Setting, value=32, rule=whole(1, 4096), kind="config")
    z_step_um = Cpt(Setting, value=1.0, rule=finite(0.001, 50.0, "um"), kind="config")
    exposure_s = Cpt(Setting, value=0.01, rule=finite(1e-5, LONGEST_EXPOSURE_S, "s"), kind="config")
    dual = Cpt(Setting, value="separate", rule=one_of("separate", "stacked"), kind="config")
    minutes_per_volume = Cpt(Setting, value=5.0, rule=finite(0.0, 600.0, "min"), kind="config")
    pixel_size_um = Cpt(Derived, attribute="_pixel_size_um", kind="config")
    view_names = Cpt(Derived, attribute="_view_names", kind="config")

    def __init__(self, *, name: str, stand: Stand, **writing: Any) -> None:
        super().__init__(name=name, stand=stand, **writing)
        self._frames_taken = 0
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._status: DeviceStatus | None = None

    @property
    def grid(self) -> PixelGrid:
        """The pixels of a slice.

        Raises
        ------
        InputError
            When the two cameras have different regions or binnings.
        """
        grids = [self._stand.camera(view).grid for view in VIEWS]
        if grids[0] != grids[1]:
            raise InputError(
                f"{self.name} takes both views alike, but ROI and binning of the cameras differ: "
                f"{grids[0].roi}, {grids[0].binning} and {grids[1].roi}, {grids[1].binning}"
            )
        return grids[0]

    @property
    def _pixel_size_um(self) -> float:
        return self.grid.pixel_size_um

    @property
    def _view_names(self) -> list[str]:
        return list(VIEWS)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Return shape and axis names of each array of the next volume."""
        shape = (int(self.n_slices.get()), *self.grid.shape_yx)
        if self.dual.get() == "stacked":
            return {"views": ((len(VIEWS), *shape), ("v", "z", "y", "x"))}
        return {f"view_{view}": (shape, ("z", "y", "x")) for view in VIEWS}

    def trigger(self) -> DeviceStatus:
        """Start a volume; the status is done when it is there, and failed if it broke off.

        Raises
        ------
        InputError
            When the last volume is still running, or the cameras do not match.
        """
        if self._status is not None and not self._status.done and self._is_taking():
            raise InputError(f"{self.name} is still taking a volume; wait for its status, or stop it")
        self._wait_for_thread()
        volume = self._settle_volume()
        status, halt = VolumeStatus(self, len(volume.depths_um)), threading.Event()
        self._thread = threading.Thread(
            target=self._take, args=(volume, status, halt), name=f"{self.name}-volume"
        )
        self._status, self._halt = status, halt
        self._thread.start()
        return status

    def stop(self, *, success: bool = False) -> None:  # noqa: ARG002 - ophyd's signature
        """Break off the volume that is running, if any; its status fails."""
        self._halt.set()

    def pause(self) -> None:
        """Wait until the volume that is running, if any, is there: a plan that is resumed triggers another one."""
        self._wait_for_thread()
        super().pause()

    def unstage(self) -> list[object]:
        """Break off the volume that is running, if any, and wait until its thread has ended."""
        self._halt.set()
        self._wait_for_thread()
        return super().unstage()

    def _is_taking(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait_for_thread(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _settle_volume(self) -> _Volume:
        """Note where everything stands, and let the embryo get older for the next volume."""
        n_slices = int(self.n_slices.get())
        scene, grid = self._stand.scene(), self.grid
        _, focus_um = self._stand.depths_um()
        steps = np.arange(n_slices, dtype=np.float64) - (n_slices - 1) / 2
        volume = _Volume(
            number=self._count_trigger(),
            scene=scene,
            grid=grid,
            exposure_s=float(self.exposure_s.get()),
            depths_um=np.asarray(focus_um + steps * float(self.z_step_um.get()), np.float64),
            stacked=self.dual.get() == "stacked",
            first_frame=self._frames_taken,
        )
        self._frames_taken += n_slices
        self._stand.grow(scene, float(self.minutes_per_volume.get()))
        return volume

    def _take(self, volume: _Volume, status: VolumeStatus, halt: threading.Event) -> None:
        """Take a volume on a thread of its own, as a camera driver would."""
        try:
            frames = self._draw(volume, halt, status.advance)
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to whoever waits for the status
            status.set_exception(error)
        else:
            self.deliver(status, frames)

    def volumes(self, count: int) -> Iterator[dict[str, NDArray[np.uint16]]]:
        """Yield so many volumes, one behind the other, as a hardware-timed sequence delivers them."""
        for _ in range(count):
            yield self._draw(self._settle_volume(), threading.Event(), lambda _: None)

    def _draw(
        self, volume: _Volume, halt: threading.Event, advance: Callable[[int], object]
    ) -> dict[str, NDArray[np.uint16]]:
        stand, planned = self._stand, len(volume.depths_um)
        failing = stand.rude.failing_slice(volume.number, planned)
        delivered = stand.rude.slices_delivered(volume.number, planned)
        shape = (delivered, *volume.grid.shape_yx)
        if volume.stacked:
            frames = {"views": self._buffer("views", (len(VIEWS), *shape))}
            targets = dict(zip(VIEWS, frames["views"], strict=True))
        else:
            frames = {f"view_{view}": self._buffer(f"view_{view}", shape) for view in VIEWS}
            targets = {view: frames[f"view_{view}"] for view in VIEWS}
        exposure = Exposure.of(volume.grid, dose=volume.scene.dose, exposure_s=volume.exposure_s)
        seen = {
            view: SheetView(
                volume.scene.blobs(view), volume.grid, photons=exposure.signal_photons, defocus_um=0.0
            )
            for view in VIEWS
        }
        for number, depth_um in enumerate(volume.depths_um[:delivered]):
            if number == failing:
                raise SimulatedFault(
                    f"{self.name}: trigger {volume.number}: the camera stopped answering at slice {number} "
                    f"of {planned}; there is no volume"
                )
            if halt.wait(volume.exposure_s) if stand.realtime else halt.is_set():
                raise SimulatedFault(f"{self.name}: stopped at slice {number} of {planned}")
            for view in VIEWS:
                stand.sensor(view).expose(
                    targets[view][number],
                    exposure,
                    frame_number=volume.first_frame + number,
                    box=seen[view].box,
                    counts=exposure.counts(seen[view].plane(float(depth_um))),
                )
            advance(number + 1)
        return frames
