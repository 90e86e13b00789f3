"""Readers of hot pools, for tests: in the test's own process, or, run as a script, in one to itself."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.hot import HotPool
from gently_bluesky.backends.hot_source import HotSource
from gently_bluesky.lazy import ArraySource, Selection
from gently_bluesky.segments import tag_of
from gently_bluesky.testing.frames import check_frame, encoded_frame

SHAPE = (64, 64)
NBYTES = 64 * 64 * 2
ASSET = "an asset"
HUNTED = (256, 256)
READS, HOT_READS = 3000, 100
"""A hunter reads at least so often, and so often what was hot."""


class Stored(ArraySource):
    """Events in storage, of zeros: what is not of zeros came from the pool."""

    def __init__(self, events: int = 100, shape: tuple[int, ...] = SHAPE, dtype: str = "<u2") -> None:
        self._shape, self._dtype = (events, *shape), np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return (1, *self._shape[1:])

    def read(self, selection: Selection) -> NDArray[Any]:
        lengths = (
            len(np.arange(one.start, one.stop, one.step) if isinstance(one, slice) else one)
            for one in selection
        )
        return np.zeros(tuple(lengths), self._dtype)


def put(pool: HotPool, event: int, shape: tuple[int, ...] = SHAPE, asset: str = ASSET) -> None:
    frame = encoded_frame(shape, "<u2", event=event)
    buffer = pool.take(frame.nbytes)
    assert buffer is not None
    assert buffer.nbytes == frame.nbytes
    buffer.view("<u2").reshape(shape)[...] = frame
    pool.keep(buffer, asset, event)


def whole(event: int, shape: tuple[int, ...] = SHAPE) -> Selection:
    return (slice(event, event + 1, 1), *(slice(0, length, 1) for length in shape))


def is_hot(source: HotSource, event: int, shape: tuple[int, ...] = SHAPE) -> bool:
    frame = source.read(whole(event, shape))[0]
    if frame.any():
        check_frame(frame, event=event)
    return bool(frame.any())


def reader(uid: str, shape: tuple[int, ...] = SHAPE, asset: str = ASSET) -> HotSource:
    return HotSource(Stored(shape=shape), tag_of(uid), asset)


def hunted_frames() -> list[NDArray[Any]]:
    """What the owner writes over and over, and the hunter compares."""
    return [encoded_frame(HUNTED, "<u2", event=event) for event in range(24)]


def hunt(uid: str) -> None:
    """Read events that come and go until enough of them were hot."""
    frames, dice, reads, hot = hunted_frames(), np.random.default_rng(0), 0, 0
    source = reader(uid, HUNTED)
    print("ready", flush=True)
    while reads < READS or hot < HOT_READS:
        event = int(dice.integers(0, len(frames)))
        frame = source.read(whole(event, HUNTED))[0]
        reads += 1
        if frame.any():
            assert np.array_equal(frame, frames[event]), f"wrong pixels for event {event}"
            hot += 1


def visit(uid: str, how: str) -> None:
    """Read an event, and exit, or stay until killed."""
    print(is_hot(reader(uid), 1), flush=True)
    if how == "stays":
        sys.stdin.read()


if __name__ == "__main__":
    {"hunt": hunt, "visit": visit}[sys.argv[1]](*sys.argv[2:])
