"""Detectors for tests whose frames say where they belong, and which are as rude as they are asked to be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.testing.frames import encoded_frame

__all__ = ["EncodedCamera"]


class EncodedCamera:
    """A camera of bluesky's protocols: the frame of its n-th trigger is ``encoded_frame(..., event=n)``.

    Parameters
    ----------
    name
        Of the device and of its data key.
    shape, dtype
        Of its frames; ``configure`` changes both.
    says
        What ``describe`` says beside ``source``, whatever the frames are; by default the truth.
    same_buffer
        ``read`` returns the same array each time, and the next trigger overwrites it.
    layout
        Made of each frame before it is returned: ``np.asfortranarray``, for instance.
    extra_fields
        ``read`` gives ``units`` and ``alarm_severity`` too.
    """

    parent = None

    def __init__(
        self,
        name: str = "camera",
        shape: tuple[int, ...] = (32, 48),
        dtype: str = "uint16",
        *,
        says: Mapping[str, Any] | None = None,
        same_buffer: bool = False,
        layout: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
        extra_fields: bool = False,
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.triggers = 0
        self.exposure_s = 0.01
        self._says = says
        self._buffer = np.zeros(shape, dtype) if same_buffer else None
        self._layout = layout
        self._extra = {"units": "counts", "alarm_severity": 0} if extra_fields else {}
        self._frame: NDArray[Any] = np.zeros(shape, dtype)

    def trigger(self) -> Any:
        """Take the next frame."""
        from ophyd.sim import NullStatus

        frame = encoded_frame(self.shape, self.dtype, key=self.name, event=self.triggers)
        if self._buffer is not None:
            self._buffer[...] = frame
            frame = self._buffer
        self._frame = self._layout(frame)
        self.triggers += 1
        return NullStatus()

    def read(self) -> dict[str, Any]:
        """Return the last frame."""
        return {self.name: {"value": self._frame, "timestamp": time.time(), **self._extra}}

    def describe(self) -> dict[str, Any]:
        """Say what the frames are, or what they are not."""
        truth = {"dtype": "array", "shape": list(self.shape), "dtype_numpy": np.dtype(self.dtype).str}
        return {self.name: {"source": "test", **(truth if self._says is None else self._says)}}

    def configure(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Change ``shape``, ``dtype`` or ``exposure_s``."""
        before = self.read_configuration()
        for name, value in settings.items():
            setattr(self, name, value)
        return before, self.read_configuration()

    def read_configuration(self) -> dict[str, Any]:
        """Return the exposure and the size of a pixel."""
        now_s = time.time()
        return {
            f"{self.name}_exposure_s": {"value": self.exposure_s, "timestamp": now_s},
            f"{self.name}_pixel_size_um": {"value": 0.1625, "timestamp": now_s},
        }

    def describe_configuration(self) -> dict[str, Any]:
        """Say what the configuration is."""
        number = {"source": "test", "dtype": "number", "shape": list[int]()}
        return {name: dict(number) for name in (f"{self.name}_exposure_s", f"{self.name}_pixel_size_um")}
