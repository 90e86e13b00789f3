"""Devices that write encoded frames by themselves: the number of a trigger says what its pixels are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plans as bp
import numpy as np
from ophyd import Component as Cpt
from ophyd import Device, Signal
from ophyd.status import DeviceStatus

from gently_bluesky.devices.flying import FliesWithDatums, FliesWithStreams
from gently_bluesky.devices.ophyd import WritesDatums, WritesStreams
from gently_bluesky.devices.plans import fly_and_collect
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (3, 16, 20)
KEYS = ("view_a", "view_b")
PATIENCE_S = 60.0


def ask_to_pause(engine: Any) -> None:
    """Have a RunEngine pause, from a thread that it may come to wait for: return when it has begun to."""
    # its state would not tell: it may have been resumed before this thread looks
    asyncio.run_coroutine_threadsafe(engine._request_pause_coro(False), engine.loop).result(PATIENCE_S)


def frame(number: int, key: str = "view_a", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return encoded_frame(shape, "u2", run="device", key=key, event=number)


def data_keys(shape: tuple[int, ...] = SHAPE) -> dict[str, dict[str, Any]]:
    said = {
        "source": "test",
        "dtype": "array",
        "shape": list(shape),
        "dtype_numpy": "<u2",
        "dims": ["z", "y", "x"],
    }
    return {key: dict(said) for key in KEYS}


class Encoded(Device):
    """Each trigger delivers its frames from a thread, when ``before_delivery`` has returned."""

    number = Cpt(Signal, value=0, kind="hinted")
    z_step_um = Cpt(Signal, value=2.0, kind="config")
    pixel_size_um = Cpt(Signal, value=0.5, kind="config")

    shape = SHAPE

    def __init__(self, **device: Any) -> None:
        self.before_delivery: Callable[[int], object] = lambda number: None
        self._thread: threading.Thread | None = None
        super().__init__("", **device)

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        return data_keys()

    def trigger(self) -> DeviceStatus:
        self.number.put(self.number.get() + 1)
        status = DeviceStatus(self)
        self._thread = threading.Thread(target=self._take, args=(int(self.number.get()), status))
        self._thread.start()
        return status

    def _take(self, number: int, status: DeviceStatus) -> None:
        self.before_delivery(number)
        self.deliver(status, {key: frame(number, key, self.shape) for key in KEYS})

    def pause(self) -> None:
        super().pause()
        if self._thread is not None:
            self._thread.join()


class DatumCamera(Encoded, WritesDatums):
    pass


class StreamCamera(Encoded, WritesStreams):
    pass


class TakesEncoded:
    """A flight of ``num`` events; ``before_event`` is called ahead of each, on the flight's thread."""

    num = 4
    before_event: Callable[[int], object] = staticmethod(lambda number: None)

    def take(self) -> Iterator[dict[str, np.ndarray]]:
        for number in range(1, self.num + 1):
            self.before_event(number)
            yield {key: frame(number, key) for key in KEYS}

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        return data_keys()


class DatumFlyer(TakesEncoded, FliesWithDatums):
    pass


class StreamFlyer(TakesEncoded, FliesWithStreams):
    pass


CAMERAS: dict[str, Callable[[Recorder], Any]] = {
    "datum": lambda recorder: DatumCamera(name="cam", recorder=recorder),
    "stream": lambda recorder: StreamCamera(name="cam", recorder=recorder),
}
FLYERS: dict[str, Callable[[Recorder], Any]] = {
    "datum": lambda recorder: DatumFlyer(name="flyer", recorder=recorder),
    "stream": lambda recorder: StreamFlyer(name="flyer", recorder=recorder),
}


PLANS: dict[str, Callable[[Any], Any]] = {
    "datum": lambda flyer: bp.fly([flyer]),
    "stream": lambda flyer: fly_and_collect(flyer, period_s=0.01),
}
"""How each family is flown."""
