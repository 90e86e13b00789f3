"""How one event's array is cut into shards and chunks: planes, blocks, whole volumes, or as somebody says.

What each way costs is measured in docs/benchmarks.md. Nothing here knows a format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from gently_bluesky.errors import InvalidSetting

__all__ = ["LAYOUT_NAMES", "MAX_CHUNK_BYTES", "SMALL_SHARD_BYTES", "Layout", "choose_layout"]

BLOCKS = {"planes": (1, 512, 512), "blocks": (4, 256, 256)}
LAYOUT_NAMES = (*BLOCKS, "volume")
LINE = 512 * 512
SLAB_PLANES = 8
SMALL_CHUNK_BYTES = 64 * 2**10
SMALL_SHARD_BYTES = 4 * 2**20
MAX_SHARD_BYTES = 64 * 2**20
"""A shard is written as a whole, and takes up to twice its size meanwhile."""
MAX_CHUNK_BYTES = 2**31 - 1 - 16
"""What blosc can hold (``BLOSC_MAX_BUFFERSIZE``)."""
CHUNKS_ALONG_SHARD = 16
MAX_FILES = 10_000
"""Of one event, where lengths are asked for; a word makes a few dozen for each GiB."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths of a shard (one file) and of a chunk in it along the axes of one event."""

    shard: tuple[int, ...]
    inner: tuple[int, ...]

    def boxes(self, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """Yield the part of an event's array that each shard holds, in C order."""
        starts = (range(0, length, piece) for length, piece in zip(shape, self.shard, strict=True))
        for corner in product(*starts):
            ends = map(min, shape, map(sum, zip(corner, self.shard, strict=True)))
            yield tuple(map(slice, corner, ends))


def choose_layout(shape: tuple[int, ...], itemsize: int, chunks: str | tuple[int, ...]) -> Layout:
    """Return how to cut arrays of this shape.

    Pieces along an axis are even, so that the last one is not mostly padding. ``"planes"`` and ``"blocks"``:
    chunks smaller than 64 KiB and shards smaller than 4 MiB take in more of the axes in front; otherwise
    views and the like get files of their own, and volumes are cut into slabs of 8 planes. ``"volume"``: one
    chunk, of as much of an event as 64 MiB hold. No shard is larger than 64 MiB, unless a single chunk is.

    Raises
    ------
    InvalidSetting
        ``chunks`` does not fit the array.
    """
    lengths = tuple(max(1, length) for length in shape)
    if chunks == "volume":
        inner = _whole(lengths, itemsize)
    elif isinstance(chunks, str):
        inner = _named(lengths, itemsize, chunks)
    else:
        inner = _explicit(lengths, itemsize, chunks)
    shard = _shard(lengths, inner, itemsize)
    files = prod(map(_pieces, lengths, shard))
    if files > MAX_FILES and not isinstance(chunks, str):
        raise InvalidSetting(
            f"expected chunks that make at most {MAX_FILES} files of one event's array, which is {lengths}, got "
            f"{chunks!r}, which would make {files}; no pixels were written; make the writer with larger chunks"
        )
    return Layout(shard, inner)


def _whole(lengths: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    inner: tuple[int, ...] = ()
    for length in reversed(lengths):
        # Once an axis is cut, what is behind it fills more than half of the bound, and those in front get 1.
        inner = (_even(length, max(1, MAX_SHARD_BYTES // (prod(inner) * itemsize))), *inner)
    return inner


def _named(lengths: tuple[int, ...], itemsize: int, name: str) -> tuple[int, ...]:
    wanted = (LINE,) if len(lengths) == 1 else BLOCKS[name]
    inner: tuple[int, ...] = ()
    for axis in reversed(range(len(lengths))):
        behind = len(lengths) - 1 - axis
        most = wanted[-1 - behind] if behind < len(wanted) else 1
        if behind >= 2:
            most = max(most, SMALL_CHUNK_BYTES // (prod(inner) * itemsize))
        inner = (_even(lengths[axis], most), *inner)
    return inner


def _explicit(lengths: tuple[int, ...], itemsize: int, chunks: tuple[int, ...]) -> tuple[int, ...]:
    if len(chunks) != len(lengths):
        raise InvalidSetting(
            f"expected chunks with one length for each of the {len(lengths)} axes of an event's array, which "
            f"is {lengths}, got {chunks!r}; no pixels were written; make the writer with chunks that fit, by "
            "data key where arrays differ"
        )
    inner = tuple(map(min, lengths, chunks))
    if (nbytes := prod(inner) * itemsize) > MAX_CHUNK_BYTES:
        raise InvalidSetting(
            f"chunks={chunks!r} make chunks of {nbytes} bytes, a chunk holds at most {MAX_CHUNK_BYTES}; "
            "no pixels were written; make the writer with smaller chunks"
        )
    return inner


def _shard(lengths: tuple[int, ...], inner: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    shard: tuple[int, ...] = ()
    # Every axis of the shard is a chunk long at least, so that the bound is one for the rest of them.
    for axis in reversed(range(len(lengths))):
        behind = len(lengths) - 1 - axis
        unit = prod(inner[: axis + 1]) * prod(shard) * itemsize
        room = MAX_SHARD_BYTES // unit
        most = CHUNKS_ALONG_SHARD
        if behind >= 2:
            slab = SLAB_PLANES // inner[axis] if behind == 2 else 1
            most = max(slab, SMALL_SHARD_BYTES // unit)
        pieces = _pieces(lengths[axis], inner[axis])
        shard = (inner[axis] * _even(pieces, max(1, min(most, room))), *shard)
    return shard


def _even(length: int, most: int) -> int:
    """Return the length of the fewest even pieces no longer than ``most``."""
    return _pieces(length, _pieces(length, most))


def _pieces(length: int, piece: int) -> int:
    return -(-length // piece)
