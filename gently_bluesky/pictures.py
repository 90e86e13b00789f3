"""Pictures for people: contrast stretched, tiles beside each other, a scale bar, and a PNG file of it.

It knows nothing of stores. PNG is written here, in the few lines that it takes, so that a first look needs no
plotting library.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_out", "draw_scale_bar", "grid", "png_bytes", "stretched", "write_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
GAP_GREY = 48
NICE_UM = (500, 200, 100, 50, 20, 10, 5, 2, 1)


def stretched(
    image: NDArray[Any],
    *,
    low_percent: float = 40.0,
    high_percent: float = 99.8,
    gamma: float = 0.8,
    colour: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return an image (y, x) as 8 bit, dark to bright between two percentiles of its values.

    A ``gamma`` below 1 lifts what is dim. With a ``colour`` (red, green, blue of what is brightest) the image
    becomes (y, x, 3).
    """
    low, high = (float(value) for value in np.percentile(image, [low_percent, high_percent]))
    grey = np.clip((image.astype(np.float32) - low) / max(high - low, 1.0), 0.0, 1.0) ** gamma
    if colour:
        grey = grey[..., np.newaxis] * np.asarray(colour, np.float32) / 255
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
    canvas = np.full(shape, GAP_GREY, np.uint8)
    for row, tiles in enumerate(rows):
        for column, one in enumerate(tiles):
            y, x = row * (height + gap), column * (width + gap)
            canvas[y : y + height, x : x + width] = one
    return canvas


def draw_scale_bar(image: NDArray[np.uint8], pixel_size_um: float) -> int:
    """Draw a white bar into the lower right corner; return the micrometres it stands for, 0 if none fits."""
    height, width = image.shape[:2]
    for length_um in NICE_UM:
        pixels = round(length_um / pixel_size_um)
        if 0 < pixels <= width // 4:
            margin = max(2, width // 32)
            thick = max(2, height // 96)
            y, x = height - margin, width - margin
            image[y - thick : y, x - pixels : x] = 255
            return length_um
    return 0


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
