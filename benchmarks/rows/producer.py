"""What the RunEngine's own thread pays: for a frame, and for events without any."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["held_row", "scalar_row"]

PACE_S = 1 / 25
"""Between frames: slower than any disk that is fit for a camera."""
SETTLE_FRAMES = 10
OURS, GIVEN_AWAY, NOBODY, NO_OP = (
    "gently-bluesky",
    "gently-bluesky, copy=False",
    "no subscriber",
    "a callback that does nothing",
)


# -- the time that a frame holds the thread ------------------------------------------------------------------


def held_row(*, quick: bool) -> Row:
    """Return the row of the time that the callback takes for an event with a frame."""
    frames = 30 if quick else 150
    return Row(
        name="held",
        title="Time the RunEngine's thread is held per 8 MiB frame",
        text=(
            "A RunEngine reads the camera 25 times a second, which the disk keeps up with; the callback's own time "
            "is taken for each event document. Just before it, on the same thread, another frame of the bank is "
            "copied with `np.copyto`: into memory that was used before (one memcpy, what the goal is over), and "
            "into memory that is new and has to be mapped first. The figures are medians over the frames of a run."
        ),
        metrics=(
            Metric("held_ms", "held, ms", 2, "less"),
            Metric("held_p95_ms", "held, p95 ms", 2, "less"),
            Metric("memcpy_ms", "memcpy, ms", 2, "less"),
            Metric("fresh_copy_ms", "into new memory, ms", 2, "less"),
        ),
        contenders=(
            Contender(OURS, "producer.held", options={"frames": frames}),
            Contender(GIVEN_AWAY, "producer.held", options={"frames": frames, "copy": False}),
        ),
        goals=(
            Goal(
                "the RunEngine's thread is held per frame",
                "≤ 1.3 memcpy",
                "held_ms",
                OURS,
                OURS,
                "ratio",
                at_most=1.3,
                unit="memcpy",
                against_metric="memcpy_ms",
            ),
        ),
        rounds=2 if quick else 5,
    )


class _Stopwatch:
    """A callback around another one; takes its time for events, and that of copies just before."""

    def __init__(self, callback: Any, bank: NDArray[Any]) -> None:
        self.held_ms: list[float] = []
        self.memcpy_ms: list[float] = []
        self.fresh_ms: list[float] = []
        self._callback = callback
        self._bank = bank
        self._warm = np.ones_like(bank[:4])

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if name != "event":
            self._callback(name, doc)
            return
        number = len(self.held_ms)
        other = self._bank[(number + len(self._bank) // 2) % len(self._bank)]
        begun_s = time.perf_counter()
        np.copyto(self._warm[number % len(self._warm)], other)
        copied_s = time.perf_counter()
        with mmap.mmap(-1, other.nbytes) as new:
            np.copyto(np.frombuffer(new, other.dtype).reshape(other.shape), other)
            again_s = time.perf_counter()
        called_s = time.perf_counter()
        self._callback(name, doc)
        self.held_ms.append(1e3 * (time.perf_counter() - called_s))
        self.memcpy_ms.append(1e3 * (copied_s - begun_s))
        self.fresh_ms.append(1e3 * (again_s - copied_s))

    def figures(self) -> dict[str, float]:
        held = self.held_ms[SETTLE_FRAMES:]
        return {
            "held_ms": median(held),
            "held_p95_ms": quantiles(held, n=20, method="inclusive")[-1],
            "memcpy_ms": median(self.memcpy_ms[SETTLE_FRAMES:]),
            "fresh_copy_ms": median(self.fresh_ms[SETTLE_FRAMES:]),
        }


@contextmanager
def held(place: Place, frames: int, **settings: Any) -> Iterator[Sampler]:
    """Take the callback's time, frame by frame."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = open_bank(place.bank)

    def sample(folder: Path) -> dict[str, Any]:
        with Store(folder / "store") as store:
            watch = _Stopwatch(store.writer(**settings), bank)
            events = frames + SETTLE_FRAMES
            RunEngine({})(acquire([BankCamera(bank)], events, interval_s=PACE_S), watch)
        return watch.figures()

    yield sample


# -- events without arrays -----------------------------------------------------------------------------------


def scalar_row(*, quick: bool) -> Row:
    """Return the row of what events without arrays cost."""
    events = 500 if quick else 2000
    return Row(
        name="scalar-events",
        title="Events with no arrays",
        text=(
            f"A RunEngine reads two `ophyd.Signal`s {events} times, as fast as it can. The time is that of the "
            "RunEngine's call, in which ours stores, syncs and announces everything."
        ),
        metrics=(Metric("call_s", "s", 3, "less"), Metric("events_per_s", "events/s", 0)),
        contenders=(
            Contender(OURS, "producer.scalar_events", options={"events": events, "subscriber": "store"}),
            Contender(NO_OP, "producer.scalar_events", "floor", {"events": events, "subscriber": "no-op"}),
            Contender(NOBODY, "producer.scalar_events", "floor", {"events": events, "subscriber": None}),
        ),
        goals=(
            Goal(
                "events with no arrays, over no subscriber",
                "≤ 1.05 x the time",
                "call_s",
                OURS,
                NOBODY,
                "ratio",
                at_most=1.05,
                unit="x",
            ),
        ),
        rounds=3 if quick else 9,
    )


@contextmanager
def scalar_events(place: Place, events: int, subscriber: str | None) -> Iterator[Sampler]:
    """Time a run of events that hold two numbers."""
    from bluesky import RunEngine
    from ophyd import Signal

    from gently_bluesky import Store

    signals = [Signal(name="position_um", value=1.5), Signal(name="power_mw", value=20.0)]

    engine = RunEngine({})

    def timed(callback: Any) -> dict[str, Any]:
        begun_s = time.perf_counter()
        engine(acquire(signals, events), callback)
        call_s = time.perf_counter() - begun_s
        return {"call_s": call_s, "events_per_s": events / call_s}

    def sample(folder: Path) -> dict[str, Any]:
        if subscriber != "store":
            return timed([] if subscriber is None else _nothing)
        with Store(folder / "store") as store:
            return timed(store.writer())

    timed([])
    yield sample


def _nothing(name: str, doc: Mapping[str, Any]) -> None:
    """Take a document and do nothing."""
