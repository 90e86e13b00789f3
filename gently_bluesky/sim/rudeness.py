"""Bad habits: what real detectors do that a kind simulation would not.

A detector asks its ``Rudeness`` what to say of a frame, where to put the pixels and when to fail. Nothing
here knows what the pixels show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidSetting

__all__ = ["Rudeness", "SimulatedFault"]

DTYPE = np.dtype("<u2")


class SimulatedFault(RuntimeError):
    """A simulated device failed because it was asked to."""


@dataclass(frozen=True, kw_only=True)
class Rudeness:
    """The bad habits of the simulated detectors; none unless asked for.

    Attributes
    ----------
    empty_shape
        ``describe()`` says ``shape: []`` until the first trigger after staging.
    wrong_shape
        ``describe()`` says one row too many, always.
    no_dtype
        ``describe()`` leaves out ``dtype_numpy``.
    no_dims
        ``describe()`` leaves out ``dims``.
    same_buffer
        ``read()`` returns the same array each time, and the next trigger overwrites it.
    extra_fields
        ``read()`` adds ``units``, ``alarm_severity`` and ``message`` to ``value`` and ``timestamp``.
    big_endian
        Pixels are ``>u2``.
    fortran_order
        Arrays are in Fortran order.
    non_contiguous
        Arrays are every other element of a wider one.
    fail_at_trigger
        Fails at this trigger, counted from 0 over the life of the device. None with a ``fail_at_slice`` is 0.
    fail_at_slice
        The slice of the volume, from 0, before which it fails; None is half way.
    drop_frames
        A volume comes with this many slices fewer than its descriptor says.
    drop_at_trigger
        Frames are dropped at this trigger only, counted from 0; None is at every one.
    """

    empty_shape: bool = False
    wrong_shape: bool = False
    no_dtype: bool = False
    no_dims: bool = False
    same_buffer: bool = False
    extra_fields: bool = False
    big_endian: bool = False
    fortran_order: bool = False
    non_contiguous: bool = False
    fail_at_trigger: int | None = None
    fail_at_slice: int | None = None
    drop_frames: int = 0
    drop_at_trigger: int | None = None

    def __post_init__(self) -> None:
        for name in ("fail_at_trigger", "fail_at_slice", "drop_frames", "drop_at_trigger"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidSetting(f"Rudeness: {name} is zero or more, not {value!r}")
        if self.fortran_order and self.non_contiguous:
            raise InvalidSetting("Rudeness: an array is in Fortran order or not contiguous, not both")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the pixels."""
        return DTYPE.newbyteorder(">") if self.big_endian else DTYPE

    def buffer(self, shape: tuple[int, ...]) -> NDArray[np.uint16]:
        """Return an array to be filled, laid out in memory as this detector would."""
        if self.fortran_order:
            return np.empty(shape, self.dtype, order="F")
        if self.non_contiguous:
            return np.empty((*shape[:-1], 2 * shape[-1]), self.dtype)[..., ::2]
        return np.empty(shape, self.dtype)

    def data_key(
        self, *, source: str, shape: tuple[int, ...], dims: tuple[str, ...], triggered: bool
    ) -> dict[str, Any]:
        """Return what ``describe()`` says of an array.

        Parameters
        ----------
        source
            The name of what made it.
        shape
            What its shape will really be.
        dims
            One name for each axis.
        triggered
            Whether the detector has been triggered since it was staged.
        """
        said = list(shape)
        if self.wrong_shape:
            said[-2] += 1
        if self.empty_shape and not triggered:
            said = []
        key: dict[str, Any] = {"source": source, "dtype": "array", "shape": said, "units": "counts"}
        if not self.no_dtype:
            key["dtype_numpy"] = self.dtype.str
        if not self.no_dims:
            key["dims"] = list(dims)
        return key

    def reading(self, value: NDArray[np.uint16], timestamp: float) -> dict[str, Any]:
        """Return what ``read()`` says of an array."""
        reading: dict[str, Any] = {"value": value, "timestamp": timestamp}
        if self.extra_fields:
            reading |= {"units": "counts", "alarm_severity": 0, "message": ""}
        return reading

    def failing_slice(self, trigger_number: int, n_slices: int) -> int | None:
        """Return the slice before which this trigger fails, or None if it does not."""
        if self.fail_at_trigger is None and self.fail_at_slice is None:
            return None
        if trigger_number != (self.fail_at_trigger or 0):
            return None
        return n_slices // 2 if self.fail_at_slice is None else min(self.fail_at_slice, n_slices - 1)

    def slices_delivered(self, trigger_number: int, n_slices: int) -> int:
        """Return how many slices of a volume arrive: at least one."""
        if self.drop_at_trigger not in (None, trigger_number):
            return n_slices
        return max(1, n_slices - self.drop_frames)
