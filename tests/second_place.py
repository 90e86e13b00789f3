"""Runs of which the fourth frame meets a broken disk, so that they go on in their store's second place."""

from __future__ import annotations

import errno
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gently_bluesky import Store
from gently_bluesky.backends.base import Sink
from gently_bluesky.backends.tiff import TiffBackend
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (2, 4, 6)
FAILS_AT = 3
EVENTS = 5


class OneBrokenDisk(FailingBackend):
    """Fails in the place where the first asset is made, and nowhere else."""

    def __init__(self, by: str) -> None:
        super().__init__(OSError(errno.EIO, "Input/output error"), FAILS_AT, by)
        self._made = 0

    def wrapped(self, sink: Sink) -> Sink:
        self._made += 1
        return super().wrapped(sink) if self._made == 1 else sink


class OneBrokenDiskOfTiffs(TiffBackend):
    """The same, in the other format."""

    def __init__(self, by: str) -> None:
        self._broken = OneBrokenDisk(by)

    def create(self, path: Path, *arguments: Any, **more: Any) -> Sink:
        return self._broken.wrapped(super().create(path, *arguments, **more))


def overflowing(store: Store, by: str = "result", format: str = "zarr", **settings: Any) -> str:
    """Take a run of which the fourth frame meets a broken disk; return its uid."""
    told: list[Exception] = []
    is_told = threading.Event()
    writer = store.writer(
        format=format, on_failure=lambda error: (told.append(error), is_told.set()), **settings
    )
    writer._desk.backend = OneBrokenDisk(by) if format == "zarr" else OneBrokenDiskOfTiffs(by)
    run = HandMadeRun()
    writer("start", run.start)
    descriptor = run.descriptor("primary", camera={"dtype": "array", "shape": list(SHAPE), "source": "test"})
    writer("descriptor", descriptor)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for event in range(EVENTS):
            writer("event", run.event(descriptor, camera=frame(event)))
        writer("stop", run.stop())
    (said,) = [str(one.message) for one in warned]
    assert f"goes on in {store.overflow}" in said
    assert "store.reconcile()" in said
    assert is_told.wait(30)
    assert [(type(error).__name__, getattr(error, "errno", 0)) for error in told] == [
        ("RunGoesOn", errno.EIO)
    ]
    return str(run.uid)


def frame(event: int) -> np.ndarray:
    return encoded_frame(SHAPE, "uint16", run="r", key="camera", event=event)


FRAMES = np.stack([frame(event) for event in range(EVENTS)])
