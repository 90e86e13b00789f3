"""Pictures for people: contrast stretched, tiles beside each other, a scale bar, and a PNG file of it.

It knows nothing of stores. PNG is written here, in the few lines that it takes, so that a first look needs no
plotting library.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DARK",
    "ScaleBar",
    "contrast",
    "cut_out",
    "draw_scale_bar",
    "grid",
    "png_bytes",
    "stretched",
    "write_png",
]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
DARK = 28
"""Grey of what is between images."""
NICE_UM = (5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)


def contrast(
    images: Sequence[NDArray[Any]], *, low_percent: float = 5.0, high_percent: float = 99.9
) -> tuple[float, float]:
    """Return the values to show black and white: two percentiles of what is finite in these images together.

    (0, 1) where nothing is; two values that differ in any case.
    """
    values = np.concatenate([image.astype(np.float64).ravel() for image in images])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, [low_percent, high_percent]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + 1.0)


def stretched(
    image: NDArray[Any],
    *,
    limits: tuple[float, float] | None = None,
    gamma: float = 0.8,
    colour: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return an image (y, x) as 8 bit, dark to bright between two values; black where it is not a number.

    By default between those that show what is bright in the dark, see `contrast`. A ``gamma`` below 1 lifts what
    is dim. With a ``colour`` (red, green, blue of what is brightest) the image becomes (y, x, 3).
    """
    low, high = limits or contrast([image], low_percent=40.0, high_percent=99.8)
    with np.errstate(over="ignore", invalid="ignore"):
        grey = (image.astype(np.float64) - low) / (high - low)
    grey = np.clip(np.nan_to_num(grey, nan=0.0), 0.0, 1.0) ** gamma
    if colour:
        grey = grey[..., np.newaxis] * np.asarray(colour, np.float64) / 255
    return np.round(grey * 255).astype(np.uint8)


def cut_out(image: NDArray[Any], longest: int) -> NDArray[Any]:
    """Return the part of an image (y, x) around what is brightest in it, no side over ``longest``."""
    bright = np.nonzero(image >= np.percentile(image, 99.8))
    parts: list[slice] = []
    for places, length in zip(bright, image.shape, strict=True):
        start = min(max(int(np.median(places)) - longest // 2, 0), max(length - longest, 0))
        parts.append(slice(start, start + longest))
    return image[tuple(parts)]


def grid(rows: Sequence[Sequence[NDArray[np.uint8]]], *, gap: int = 4) -> NDArray[np.uint8]:
    """Return tiles (y, x) or (y, x, 3) of one shape side by side and below each other, on dark grey."""
    tile = rows[0][0]
    height, width = tile.shape[:2]
    across = max(len(row) for row in rows)
    shape = len(rows) * (height + gap) - gap, across * (width + gap) - gap, *tile.shape[2:]
    canvas = np.full(shape, DARK, np.uint8)
    for row, tiles in enumerate(rows):
        for column, one in enumerate(tiles):
            y, x = row * (height + gap), column * (width + gap)
            canvas[y : y + height, x : x + width] = one
    return canvas


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar that was drawn: the micrometres it stands for, and the pixel above its middle."""

    um: int
    row: int
    column: int


def draw_scale_bar(image: NDArray[np.uint8], pixel_size_um: float) -> ScaleBar | None:
    """Draw a white bar with a black rim into the lower right corner; return it, None if none fits."""
    height, width = image.shape[:2]
    for length_um in NICE_UM:
        pixels = round(length_um / pixel_size_um)
        if 0 < pixels <= width // 4:
            margin = max(2, width // 32)
            thick = max(2, height // 96)
            y, x = height - margin, width - margin
            if thick >= y:
                return None
            image[y - thick - 1 : y + 1, x - pixels - 1 : x + 1] = 0
            image[y - thick : y, x - pixels : x] = 255
            return ScaleBar(length_um, y - thick, x - pixels // 2)
    return None


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """Return a grey (y, x) or RGB (y, x, 3) 8-bit image as a PNG file, see https://www.w3.org/TR/png-3/."""
    height, width = image.shape[:2]
    kind = RGB if image.ndim == 3 else GREY
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    rows = np.zeros((height, 1 + image[0].size), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = image.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an 8-bit image, as `png_bytes` takes it, over whatever is at ``path``. Raises OSError."""
    path.write_bytes(png_bytes(image))
