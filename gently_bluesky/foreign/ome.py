"""What OME metadata say of an image: units of length and time, and what stands in OME-XML."""

from __future__ import annotations

from typing import Any, Final
from xml.etree import ElementTree as ET

__all__ = ["SECONDS", "UM", "said_by_ome"]

UM: Final = {
    "angstrom": 1e-4,
    "Å": 1e-4,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "µm": 1.0,
    "um": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
}
"""Micrometres in the units of length that OME-Zarr and OME-XML name."""
SECONDS: Final = {
    "millisecond": 1e-3,
    "ms": 1e-3,
    "second": 1.0,
    "s": 1.0,
    "minute": 60.0,
    "min": 60.0,
    "hour": 3600.0,
}
MOST_XML: Final = 2**24


def said_by_ome(text: str | None) -> dict[str, Any]:
    """Return steps and channels that OME-XML tells of; entities are not resolved, and nothing else is."""
    if not text or len(text) > MOST_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}
    root = ET.fromstring(text)  # noqa: S314 # without a document type there are no entities to expand
    pixels = next(
        (node for node in root.iter() if node.tag.endswith("}Pixels") or node.tag == "Pixels"), None
    )
    if pixels is None:
        return {}
    steps: dict[str, float] = {}
    for name in "zyx":
        step, unit = (
            pixels.get(f"PhysicalSize{name.upper()}"),
            pixels.get(f"PhysicalSize{name.upper()}Unit", "µm"),
        )
        if step is not None and unit in UM:
            steps[name] = float(step) * UM[unit]
    channels = [node.get("Name") for node in pixels if node.tag.rpartition("}")[2] == "Channel"]
    increment, unit = pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")
    return {
        "steps_um": steps,
        "channels": tuple(channels) if all(channels) else (),
        "time_step_s": float(increment) * SECONDS[unit]
        if increment is not None and unit in SECONDS
        else None,
    }
