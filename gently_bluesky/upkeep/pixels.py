"""Pixels read back in bounded memory: an event in blocks that follow each other in C order, and its checksum.

It also says what kind of finding an error is. Nothing here knows of documents or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final

from crc32c import crc32c
from numpy.typing import NDArray

from gently_bluesky.documents.tasks import digest_of_blocks
from gently_bluesky.errors import AssetDamaged, AssetDiffers, AssetMissing
from gently_bluesky.lazy import ArraySource

__all__ = ["BLOCK_BYTES", "block_nbytes", "digest_of_digests", "digest_of_event", "kind_of", "read_events"]

BLOCK_BYTES: Final = 16 * 2**20
"""What is read at a time, unless what storage keeps in one piece is more."""

Box = tuple[slice, ...]


def digest_of_event(source: ArraySource, place: int) -> str:
    """Return the checksum of an event's pixels, as the journal has it.

    Takes memory for `BLOCK_BYTES`, or for one layer of chunks where that is more. Raises as ``source.read``.
    """
    return digest_of_blocks(_read(source, range(place, place + 1)))


def digest_of_digests(digests: Mapping[int, str | None]) -> str:
    """Return one checksum for those of all events of an asset, by their places; of what has none it is empty."""
    text = " ".join(digests[place] or "" for place in sorted(digests))
    return f"crc32c:{crc32c(text.encode()):08x}"


def read_events(source: ArraySource, places: range) -> None:
    """Read events and keep nothing of them; memory and errors as of `digest_of_event`."""
    for _ in _read(source, places):
        pass


def block_nbytes(source: ArraySource) -> int:
    """Return how many bytes of pixels are read of an event at a time."""
    shape = (1, *source.shape[1:])
    boxes = c_order_blocks(shape, source.chunks, BLOCK_BYTES // source.dtype.itemsize)
    first = next(boxes, None) if 0 not in shape else None
    return 0 if first is None else prod(side.stop - side.start for side in first) * source.dtype.itemsize


def _read(source: ArraySource, places: range) -> Iterator[NDArray[Any]]:
    shape = (len(places), *source.shape[1:])
    if 0 in shape:
        return
    for first, *rest in c_order_blocks(shape, source.chunks, BLOCK_BYTES // source.dtype.itemsize):
        along_t = slice(places.start + first.start, places.start + first.stop, 1)
        yield source.read((along_t, *rest))


def c_order_blocks(shape: Sequence[int], chunks: Sequence[int], most: int) -> Iterator[Box]:
    """Cut an array into blocks along its chunks, so that their elements follow each other in C order.

    Parameters
    ----------
    most
        Elements of a block; one layer of chunks is never cut, and may have more.

    Examples
    --------
    >>> [box[0] for box in c_order_blocks((5, 4), (2, 4), most=16)]
    [slice(0, 4, 1), slice(4, 5, 1)]
    >>> list(c_order_blocks((1, 4), (1, 1), most=2))
    [(slice(0, 1, 1), slice(0, 2, 1)), (slice(0, 1, 1), slice(2, 4, 1))]
    """
    if not shape:
        yield ()
        return
    layer = prod(shape[1:])
    if chunks[0] == 1 and layer > most:
        for place in range(shape[0]):
            for rest in c_order_blocks(shape[1:], chunks[1:], most):
                yield (slice(place, place + 1, 1), *rest)
        return
    step = max(1, most // max(1, layer * chunks[0])) * chunks[0]
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0]), 1), *(slice(0, length, 1) for length in shape[1:]))


def kind_of(error: BaseException) -> str:
    """Return which kind of finding it is that something cannot be read."""
    if isinstance(error, FileNotFoundError | AssetMissing):
        return "missing"
    if isinstance(error, AssetDiffers):
        return "foreign"
    if isinstance(error, AssetDamaged):
        return "torn" if isinstance(error.__cause__, EOFError) else "corrupted"
    return "unreadable"
