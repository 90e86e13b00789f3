"""What OME's formats can hold, and how it is said in their terms: shared by the Zarr and TIFF backends.

It composes metadata; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gently_bluesky.model import ArraySpec

__all__ = [
    "NGFF_VERSION",
    "channel_names",
    "median_interval_s",
    "ngff_attributes",
    "ome_axes",
    "tiff_metadata",
]

NGFF_VERSION = "0.5"
IMAGE_AXES = {("y", "x"), ("z", "y", "x"), ("c", "y", "x"), ("c", "z", "y", "x")}
OME_PIXEL_TYPES = (
    *("int8", "int16", "int32", "uint8", "uint16", "uint32"),
    *("float32", "float64", "complex64", "complex128"),
)
CHANNEL_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
UNIT_SYMBOLS = {
    "angstrom": "\u212b",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "\u00b5m",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "kilometer": "km",
    "inch": "in",
    "foot": "ft",
}
"""Units of length that OME-NGFF 0.5 (section 2.2) and OME-XML 2016-06 both know; the latter's symbols."""


def ome_axes(spec: ArraySpec) -> tuple[str, ...] | None:
    """Return OME's names for the axes of one event, or None where OME cannot hold it as an image.

    OME-NGFF 0.5 (section 2.3) allows 2 to 5 axes: time, then channel, then 2 or 3 of space. With the event
    axis as time that leaves ``y x``, ``z y x``, ``c y x`` and ``c z y x`` for one event; a view ``v`` is
    OME's channel.
    """
    axes = tuple("c" if dim == "v" else dim for dim in spec.dims)
    return axes if axes in IMAGE_AXES and len(spec.shape) == len(axes) else None


def channel_names(spec: ArraySpec) -> tuple[str, ...]:
    """Return one name per channel, made up where the spec names none; empty without a channel axis."""
    for dim, length in zip(spec.dims, spec.shape, strict=False):
        if dim in {"v", "c"}:
            named = spec.channel_names[:length]
            return (*named, *(f"{dim}{number}" for number in range(len(named), length)))
    return ()


def median_interval_s(times: Sequence[float]) -> float | None:
    """Return the median interval between events in seconds, or None where it says nothing."""
    if len(times) < 2:
        return None
    interval = float(np.median(np.diff(np.asarray(times, dtype=np.float64))))
    return interval if np.isfinite(interval) and interval > 0 else None


def ngff_attributes(
    spec: ArraySpec, interval_s: float | None = None, coarser: Sequence[tuple[int, ...]] = ()
) -> dict[str, Any]:
    """Return the ``ome`` attributes of an OME-NGFF 0.5 image group with its resolutions at ``0``, ``1``, ...

    The middle of the first pixel of the full resolution is the origin; a pixel of a coarser one that covers
    n of them has its middle (n - 1) / 2 steps further on.

    Parameters
    ----------
    spec
        Of an array that ``ome_axes`` accepts.
    interval_s
        Seconds between events, where known; the step along ``t`` is 1.0 otherwise.
    coarser
        How many pixels of the full resolution a pixel covers along each axis of one event, for each of the
        other resolutions; they are means.
    """
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    for name, unit in zip(ome_axes(spec) or (), spec.units, strict=True):
        axis = {"name": name, "type": "channel" if name == "c" else "space"}
        axes.append(axis | ({"unit": unit} if name != "c" and unit in UNIT_SYMBOLS else {}))
    steps = [interval_s or 1.0, *map(float, spec.scale)]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": steps}]}]
    for level, covered in enumerate(coarser, start=1):
        scale = [step * count for step, count in zip(steps, (1, *covered), strict=True)]
        translation = [step * (count - 1) / 2 for step, count in zip(steps, (1, *covered), strict=True)]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": translation},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    multiscale = {"name": spec.name, "axes": axes, "datasets": datasets} | (
        {"type": "mean"} if coarser else {}
    )
    attributes: dict[str, Any] = {"version": NGFF_VERSION, "multiscales": [multiscale]}
    if names := channel_names(spec):
        attributes["omero"] = {"channels": [_channel(spec, *numbered) for numbered in enumerate(names)]}
    return attributes


def _channel(spec: ArraySpec, number: int, label: str) -> dict[str, Any]:
    low, high = 0.0, 1.0
    if spec.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype)
        low, high = float(limits.min), float(limits.max)
    return {
        "label": label,
        "color": CHANNEL_COLORS[number % len(CHANNEL_COLORS)],
        "window": {"min": low, "max": high, "start": low, "end": high},
        "active": True,
    }


def tiff_metadata(spec: ArraySpec, time: float) -> dict[str, Any] | None:
    """Return what tifffile's OME writer is told about one event, or None where OME-TIFF cannot hold it.

    Parameters
    ----------
    spec
        Of the array. Beyond the axes, OME-XML 2016-06 has no pixel type for 64-bit integers and float16.
    time
        Of the event, seconds since the epoch.
    """
    axes = ome_axes(spec)
    if axes is None or 0 in spec.shape or spec.dtype.name not in {*OME_PIXEL_TYPES, "bool"}:
        return None
    acquired = datetime.fromtimestamp(time, UTC).replace(tzinfo=None)
    metadata: dict[str, Any] = {
        "axes": "".join(axes).upper(),
        "Name": spec.name,
        "AcquisitionDate": acquired.isoformat(timespec="milliseconds"),
    }
    for axis, step, unit in zip(axes, spec.scale, spec.units, strict=True):
        if axis != "c" and unit in UNIT_SYMBOLS:
            metadata[f"PhysicalSize{axis.upper()}"] = float(step)
            metadata[f"PhysicalSize{axis.upper()}Unit"] = UNIT_SYMBOLS[unit]
    if names := channel_names(spec):
        metadata["Channel"] = {"Name": list(names)}
    started = spec.origin.get("time")
    if isinstance(started, int | float) and time >= started:
        planes = int(np.prod(spec.shape[:-2], dtype=np.int64))
        metadata["Plane"] = {"DeltaT": [time - started] * planes, "DeltaTUnit": ["s"] * planes}
    return metadata
