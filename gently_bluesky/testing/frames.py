"""Frames that say where they belong: every plane's pixels follow from run, stream, data key, event and plane.

A plane that was stored in the wrong place, twice, or half, cannot pass for another. Values stay below 4096
where the dtype has room, like a camera's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_frame", "encoded_frame", "encoded_plane"]

OFFSETS = 1 << 18
NEIGHBOURS = 4


def encoded_frame(
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    *,
    run: str = "run",
    stream: str = "primary",
    key: str = "camera",
    event: int = 0,
) -> NDArray[Any]:
    """Return the frame that belongs to this event: C-contiguous, of this shape and dtype, new memory.

    Planes are the last two axes, counted in C order along the others; an array of one axis is one plane.
    Costs about a copy of the frame.

    Examples
    --------
    >>> frame = encoded_frame((3, 4, 5), "uint16", event=7)
    >>> bool((frame[2] == encoded_plane((4, 5), "uint16", event=7, plane=2)).all())
    True
    """
    frame = np.empty(shape, dtype)
    for plane, pixels in enumerate(_planes(frame)):
        pixels[...] = encoded_plane(
            pixels.shape, frame.dtype, run=run, stream=stream, key=key, event=event, plane=plane
        )
    return frame


def encoded_plane(
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    *,
    run: str = "run",
    stream: str = "primary",
    key: str = "camera",
    event: int = 0,
    plane: int = 0,
) -> NDArray[Any]:
    """Return one plane of an encoded frame; not to be written to."""
    name = "\0".join((run, stream, key, str(event), str(plane)))
    offset = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") % OFFSETS
    size = prod(shape)
    return _noise(size, np.dtype(dtype).str)[offset : offset + size].reshape(shape)


def check_frame(
    frame: NDArray[Any],
    *,
    run: str = "run",
    stream: str = "primary",
    key: str = "camera",
    event: int = 0,
) -> None:
    """Check that this is the whole frame of this event.

    Raises
    ------
    AssertionError
        It is not. The message names the first wrong plane, and what it is if it belongs close by.
    """
    for plane, pixels in enumerate(_planes(frame)):
        where = {"run": run, "stream": stream, "key": key}
        expected = encoded_plane(pixels.shape, frame.dtype, event=event, plane=plane, **where)
        if np.array_equal(pixels, expected):
            continue
        found = _recognise(pixels, event, plane, where)
        wrong = np.argwhere(pixels != expected)
        raise AssertionError(
            f"{run}/{stream}/{key}: plane {plane} of event {event} {found}: {len(wrong)} of {pixels.size} "
            f"pixels differ, the first at {tuple(map(int, wrong[0]))}"
        )


def _planes(frame: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for place in np.ndindex(frame.shape[:-2]):
        yield frame[place]


def _recognise(pixels: NDArray[Any], event: int, plane: int, where: dict[str, str]) -> str:
    for other in range(max(0, event - NEIGHBOURS), event + NEIGHBOURS + 1):
        for place in range(max(0, plane - NEIGHBOURS), plane + NEIGHBOURS + 1):
            candidate = encoded_plane(pixels.shape, pixels.dtype, event=other, plane=place, **where)
            if np.array_equal(pixels, candidate):
                return f"holds plane {place} of event {other}"
    return "holds zeros" if not pixels.any() else "is damaged"


@lru_cache(maxsize=4)
def _noise(size: int, dtype_text: str) -> NDArray[Any]:
    """Return the noise that planes of this size are cut from, each at its own offset."""
    dtype, rng = np.dtype(dtype_text), np.random.default_rng(size)
    length = size + OFFSETS
    if dtype.kind == "b":
        noise = rng.integers(0, 2, length, np.uint8).astype(dtype)
    elif dtype.kind == "c":
        noise = np.empty(length, dtype)
        noise.real = rng.integers(0, 4096, length, np.uint16)
        noise.imag = rng.integers(0, 4096, length, np.uint16)
    elif dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        noise = rng.integers(limits.min, limits.max, length, dtype, endpoint=True)
    else:
        # float16 counts exactly up to 2048
        noise = rng.integers(
            0, 2048 if dtype.itemsize == 2 and dtype.kind == "f" else 4096, length, np.uint16
        )
        noise = noise.astype(dtype)
    noise.flags.writeable = False
    return noise
