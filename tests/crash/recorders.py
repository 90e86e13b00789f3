"""What children of the zygote do with devices that write for themselves: acquire and die, or meet a fault."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import faults
import numpy as np
import shim
from faults import limits_restored
from ophyd import Device
from ophyd.status import DeviceStatus
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.devices.ophyd import WritesDatums, WritesStreams
from gently_bluesky.testing.frames import encoded_frame

__all__ = ["DatumCamera", "StreamCamera", "acquire_by_device", "numbered", "numbers_shown"]


class Camera(Device):
    """Each trigger delivers the frame of its number; readings tell the number."""

    def __init__(self, night: str, shape: tuple[int, ...], **device: Any) -> None:
        self._night = night
        self._shape = shape
        self.triggers = 0
        super().__init__("", name="camera", **device)

    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        said = {"source": "sim", "dtype": "array", "shape": list(self._shape), "dtype_numpy": "<u2"}
        return {"view_a": said}

    def describe(self) -> Any:
        return {**super().describe(), "number": {"source": "sim", "dtype": "integer", "shape": []}}

    def read(self) -> Any:
        return {**super().read(), "number": {"value": self.triggers, "timestamp": time.time()}}

    def trigger(self) -> DeviceStatus:
        self.triggers += 1
        status = DeviceStatus(self)
        frame = encoded_frame(self._shape, np.dtype("u2"), run=self._night, key="view_a", event=self.triggers)
        threading.Thread(target=self.deliver, args=(status, {"view_a": frame})).start()
        return status


class DatumCamera(Camera, WritesDatums):
    pass


class StreamCamera(Camera, WritesStreams):
    pass


def numbered(
    camera: Camera, events: int, before: Callable[[int], Iterator[Any]] = lambda number: iter(())
) -> Iterator[Any]:
    """A plan of so many events; ``before(number)`` is called ahead of each and may yield messages."""
    for number in range(1, events + 1):
        yield from before(number)
        yield from bps.trigger_and_read([camera])


def acquire_by_device(
    channel: Channel,
    root: str,
    format: str,
    night: str,
    events: int,
    assets: str,
    shape: tuple[int, ...],
    fault: str = "",
    at: int = 0,
    die_at_call: int = 0,
    log: str = "",
    torn: bool = False,
) -> dict[str, Any]:
    """Acquire a run and tell each announced document; ``fault`` happens before the event ``at``."""
    from scenes import _raised_by, run_engine, tell_of

    def before(number: int) -> Iterator[Any]:
        if number == at:
            yield from writer.stored()
            getattr(faults, fault)(Path(root))

    shim.watch(root, die_at_call, torn=torn, log=log)
    with limits_restored(), Store(root) as store, run_engine() as RE:
        kind = DatumCamera if assets == "datum" else StreamCamera
        recorder = store.recorder(format=format, min_free_bytes=0, max_pending_bytes=1 << 22)
        camera = kind(night, tuple(shape), recorder=recorder)
        writer = store.writer(min_free_bytes=0)
        RE.subscribe(writer)
        writer.subscribe(lambda name, doc: tell_of(channel, name, doc))
        channel.tell({"ready": os.getpid()})
        plan = bpp.run_wrapper(numbered(camera, events, before), md={"night": night})
        error = _raised_by(lambda: RE(bpp.stage_wrapper(plan, [camera])))
        raised, seen = [], error
        while seen is not None and seen not in raised:
            raised.append(seen)
            seen = seen.__cause__ or seen.__context__
    return {
        "calls": shim.counted(),
        "errors": [type(one).__name__ for one in raised],
        "messages": [str(one) for one in raised],
    }


def numbers_shown(channel: Channel, root: str, night: str) -> dict[str, Any]:
    """Open the store for writing, and tell which events of a run it shows."""
    from test_devices import look

    (Path(root).parent / "filler").unlink(missing_ok=True)
    status, numbers = look(Path(root), "a", night)
    return {"status": status, "numbers": numbers}
