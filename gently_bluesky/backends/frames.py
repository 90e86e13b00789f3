"""What backends say of one event's array, and what they believe of it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import AssetDamaged, FrameMismatch
from gently_bluesky.model import ArraySpec, storable_dtype

__all__ = ["check_frame", "declared_frame", "frame_kwargs"]

MAX_AXES = 31
"""numpy has room for 64, TensorStore for 32, ``t`` included."""
MAX_NBYTES = 2**62


def frame_kwargs(spec: ArraySpec, sync: str = "event") -> dict[str, Any]:
    """Return the part of ``resource_kwargs`` that every backend gives: what one event is, its axes, and when
    it is synced.
    """
    return {
        "frame_shape": list(spec.shape),
        "dtype": spec.dtype.str,
        "dims": list(spec.dims),
        "scale": list(spec.scale),
        "units": list(spec.units),
        "channel_names": list(spec.channel_names),
        "sync": sync,
    }


def declared_frame(path: Path, resource_kwargs: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of one event as ``frame_kwargs`` spelt them, taking nothing on trust.

    Raises
    ------
    AssetDamaged
        They are missing, or spell no array that could have been stored.
    """
    shape, dtype = resource_kwargs.get("frame_shape"), resource_kwargs.get("dtype")
    try:
        if not isinstance(shape, list | tuple) or not isinstance(dtype, str):
            raise TypeError
        lengths = tuple(operator.index(length) for length in shape)
        stored = storable_dtype(np.dtype(dtype))
        if (
            len(lengths) > MAX_AXES
            or min(lengths, default=0) < 0
            or prod(lengths) * stored.itemsize > MAX_NBYTES
        ):
            raise ValueError
    except (TypeError, ValueError, SyntaxError) as error:
        raise AssetDamaged(
            f"{path}: expected resource_kwargs with a frame_shape and a dtype that can be stored, "
            f"got {shape!r:.80} and {dtype!r:.80}; nothing was read"
        ) from error
    return lengths, stored


def check_frame(path: Path, spec: ArraySpec, index: int, frame: NDArray[Any]) -> None:
    """Check what ``Sink.write`` was handed.

    Raises
    ------
    FrameMismatch
        The frame is not of the spec's shape and dtype, or not C-contiguous; or the index is negative.
    """
    if index < 0 or frame.shape != spec.shape or frame.dtype != spec.dtype or not frame.flags.c_contiguous:
        raise FrameMismatch(
            f"{path.name}: expected a C-contiguous frame of shape {spec.shape} and dtype {spec.dtype.str}, "
            f"got shape {frame.shape} and dtype {frame.dtype.str} for event {index}; the frame was not stored"
        )
