"""How one event's array is cut into shards and chunks: planes and blocks that fit the frame.

Figures behind the choice are in docs/DESIGN.md, "Formats and chunks". Nothing here knows a format.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from gently_bluesky.errors import InvalidSetting

__all__ = ["Layout", "choose_layout"]

BLOCKS = {"planes": (1, 512, 512), "blocks": (4, 256, 256)}
LINE = 512 * 512
SLAB_PLANES = 8
SMALL_CHUNK_BYTES = 64 * 2**10
SMALL_SHARD_BYTES = 4 * 2**20
MAX_SHARD_BYTES = 64 * 2**20
"""A shard is written as a whole, and takes up to twice its size meanwhile."""
CHUNKS_ALONG_SHARD = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths of a shard (one file) and of a chunk in it along the axes of one event."""

    shard: tuple[int, ...]
    inner: tuple[int, ...]


def choose_layout(shape: tuple[int, ...], itemsize: int, chunks: str | tuple[int, ...]) -> Layout:
    """Return how to cut arrays of this shape.

    Pieces along an axis are even, so that the last one is not mostly padding. Chunks smaller than 64 KiB and
    shards smaller than 4 MiB take in more of the axes in front; otherwise views and the like get files of
    their own, and volumes are cut into slabs of 8 planes, or of 64 MiB.

    Raises
    ------
    InvalidSetting
        ``chunks`` is no name of a layout, or does not fit the array.
    """
    lengths = tuple(max(1, length) for length in shape)
    inner = _named(lengths, itemsize, chunks) if isinstance(chunks, str) else _explicit(lengths, chunks)
    return Layout(_shard(lengths, inner, itemsize), inner)


def _named(lengths: tuple[int, ...], itemsize: int, name: str) -> tuple[int, ...]:
    if name not in BLOCKS:
        raise InvalidSetting(
            f"chunks must be {' or '.join(BLOCKS)} or a tuple, got {name!r}; nothing was written"
        )
    wanted = (LINE,) if len(lengths) == 1 else BLOCKS[name]
    inner: tuple[int, ...] = ()
    for axis in reversed(range(len(lengths))):
        behind = len(lengths) - 1 - axis
        most = wanted[-1 - behind] if behind < len(wanted) else 1
        if behind >= 2:
            most = max(most, SMALL_CHUNK_BYTES // (prod(inner) * itemsize))
        inner = (_even(lengths[axis], most), *inner)
    return inner


def _explicit(lengths: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    if len(chunks) != len(lengths) or any(isinstance(length, bool) or length < 1 for length in chunks):
        raise InvalidSetting(
            f"chunks must have one length of 1 or more for each of the {len(lengths)} axes of an event, "
            f"got {chunks!r}; nothing was written"
        )
    return tuple(map(min, lengths, chunks))


def _shard(lengths: tuple[int, ...], inner: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    shard: tuple[int, ...] = ()
    for axis in reversed(range(len(lengths))):
        behind = len(lengths) - 1 - axis
        most = CHUNKS_ALONG_SHARD
        if behind >= 2:
            unit = inner[axis] * prod(shard) * itemsize
            slab = min(SLAB_PLANES // inner[axis], MAX_SHARD_BYTES // unit) if behind == 2 else 1
            most = max(1, slab, SMALL_SHARD_BYTES // unit)
        pieces = -(-lengths[axis] // inner[axis])
        shard = (inner[axis] * _even(pieces, most), *shard)
    return shard


def _even(length: int, most: int) -> int:
    """Return the length of the fewest even pieces no longer than ``most``."""
    pieces = -(-length // most)
    return -(-length // pieces)
