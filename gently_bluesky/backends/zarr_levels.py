"""Coarser resolutions of an OME-Zarr image: which there are, and the thread that makes their pixels.

A pixel of a coarser level is the mean of the pixels of the full resolution that it covers, rounded once, to
the nearest and from halfway to even; for bool that is the majority. What is left over at the end of an axis
is the mean of fewer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.ome import ome_axes
from gently_bluesky.backends.zarr_source import os_error
from gently_bluesky.backends.zarr_writing import ArrayWriter, when_all_ended
from gently_bluesky.files import storage_error
from gently_bluesky.model import ArraySpec

__all__ = ["Coarse", "LevelMaker", "coarse_factors", "coarse_shape"]

MAX_MADE_BYTES = 16 * 2**20
"""Of coarser pixels that are made and not yet synced; one shard may be more."""


def coarse_factors(spec: ArraySpec, levels: int) -> list[tuple[int, ...]]:
    """Return by how much each level but the full one is coarser along the axes of one event.

    Each level has half of y and x, and half of z as soon as y and x have become more than half as coarse as
    it is: a stack with steps of 1 um and pixels of 0.1625 um keeps all its planes for two levels. Where the
    steps cannot be compared, for want of a unit that both have, z stays. So do ``c`` and ``v``, and an axis
    of one pixel. When neither y nor x can be halved there are no more levels; and there are none of what is
    no OME image, because nothing would say what they are.
    """
    if ome_axes(spec) is None or 0 in spec.shape:
        return []
    factors: list[tuple[int, ...]] = []
    now = (1,) * len(spec.shape)
    for _ in range(levels - 1):
        halved = _halved(spec, now)
        if not halved & {"y", "x"}:
            break
        now = tuple(factor * (2 if dim in halved else 1) for dim, factor in zip(spec.dims, now, strict=True))
        factors.append(now)
    return factors


def coarse_shape(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one event at a level."""
    return tuple(-(-length // factor) for length, factor in zip(shape, factors, strict=True))


def _halved(spec: ArraySpec, factors: tuple[int, ...]) -> set[str]:
    """Return the axes that the next level has half of."""
    lengths = dict(zip(spec.dims, coarse_shape(spec.shape, factors), strict=True))
    steps = {dim: step * factor for dim, step, factor in zip(spec.dims, spec.scale, factors, strict=True)}
    units = dict(zip(spec.dims, spec.units, strict=True))
    axes = {"y", "x"}
    if units.get("z") == units["y"] == units["x"] and steps.get("z", 0.0) < 2 * max(steps["y"], steps["x"]):
        axes.add("z")
    return {dim for dim in axes if lengths.get(dim, 0) > 1}


@dataclass(frozen=True, slots=True)
class Coarse:
    """A level that is made of the full resolution."""

    factors: tuple[int, ...]
    array: ArrayWriter


@dataclass(frozen=True, slots=True)
class _Order:
    index: int
    frame: NDArray[Any]
    what: str
    made: Future[None]


class LevelMaker:
    """Makes the coarser levels of events, one event after the other, on a thread of its own.

    Of a volume it holds the shards being written, never a coarser volume as a whole.
    """

    def __init__(self, levels: Sequence[Coarse]) -> None:
        self._levels: Sequence[Coarse] = levels
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._held: deque[tuple[Future[None], int]] = deque()
        self._held_bytes: int = 0
        # A daemon, and no executor, so that an interpreter that exits can still be asked to store what came.
        self._thread: threading.Thread = threading.Thread(
            target=self._work, name="gently-bluesky-levels", daemon=True
        )
        self._thread.start()

    def make(self, index: int, frame: NDArray[Any], what: str) -> Future[None]:
        """Have all levels of an event made; the future ends when all are synced, or have failed to be.

        The frame must stay as it is until then. The future's error is a StorageError.
        """
        order = _Order(index, frame, what, Future())
        self._orders.put(order)
        return order.made

    def close(self) -> None:
        """End the thread, after what was ordered."""
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            self._carry_out(order)

    def _carry_out(self, order: _Order) -> None:
        begun: list[Future[None]] = []
        try:
            for level in self._levels:
                level.array.prepare(order.index, order.what)
                whole = ts.downsample(ts.array(order.frame), list(level.factors), "mean")
                for box in level.array.layout.boxes(level.array.shape):
                    # One by one: what has begun is waited for when the next fails.
                    begun.append(self._write(level, box, whole, order))  # noqa: PERF401
        except Exception as error:  # noqa: BLE001 # of TensorStore or the system: told to whoever asks
            failed: Future[None] = Future()
            cause = error if isinstance(error, OSError) else os_error(error)
            told = storage_error(cause, f"{order.what} was not stored")
            if told is not error:
                told.__cause__ = error
            failed.set_exception(told)
            begun.append(failed)
        when_all_ended(begun).add_done_callback(lambda ended: _pass_on(ended, order.made))

    def _write(
        self, level: Coarse, box: tuple[slice, ...], whole: ts.TensorStore, order: _Order
    ) -> Future[None]:
        pixels = whole[box].read().result()
        while self._held and self._held_bytes + pixels.nbytes > MAX_MADE_BYTES:
            oldest, nbytes = self._held.popleft()
            oldest.exception()  # which the event's future tells
            self._held_bytes -= nbytes
        future = level.array.write_box(order.index, box, pixels, order.what)
        self._held.append((future, pixels.nbytes))
        self._held_bytes += pixels.nbytes
        return future


def _pass_on(ended: Future[None], to: Future[None]) -> None:
    error = ended.exception()
    if error is None:
        to.set_result(None)
    else:
        to.set_exception(error)
