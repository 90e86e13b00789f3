"""Frames like those of a camera, and the least device and plan that bring them to a RunEngine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workers import PROGRESS

__all__ = ["BANK_FRAMES", "BankCamera", "acquire", "make_bank", "open_bank"]

BANK_FRAMES = 16
"""Different frames that are brought in turn: together larger than any cache."""
OFFSET = 100
ELECTRONS_PER_COUNT = 0.46
READ_NOISE_E = 1.0


def make_bank(path: Path, size: int, frames: int = BANK_FRAMES) -> Path:
    """Write ``(frames, size, size)`` uint16 to ``path``: an sCMOS camera looks at a dim, smooth specimen.

    Offset 100, shot noise and read noise, 0.46 electrons a count, no two frames alike.
    """
    noise = np.random.default_rng(20261121)
    y, x = np.mgrid[-1 : 1 : complex(size), -1 : 1 : complex(size)]
    bank = np.empty((frames, size, size), np.uint16)
    for frame in bank:
        cx, cy = noise.uniform(-0.3, 0.3, 2)
        electrons = 4.0 + 60.0 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.08)
        seen = noise.poisson(electrons) + noise.normal(0.0, READ_NOISE_E, electrons.shape)
        frame[...] = np.clip(OFFSET + seen / ELECTRONS_PER_COUNT, 0, 65535)
    np.save(path, bank)
    return path


def open_bank(path: Path) -> NDArray[Any]:
    """Return a bank as it lies in the page cache, every page of it touched."""
    bank = np.load(path, mmap_mode="r")
    bank.max()
    return bank


class BankCamera:
    """A readable of bluesky's protocols that gives the next frame of a bank each time it is read.

    Parameters
    ----------
    bank
        ``(frames, y, x)``, or ``(volumes, z, y, x)`` for a device that gives volumes.
    progress
        Folder whose `PROGRESS` says, to other processes, how many were read.
    """

    parent = None

    def __init__(self, bank: NDArray[Any], name: str = "camera", *, progress: Path | None = None) -> None:
        self.name = name
        self.reads = 0
        self._bank = bank
        self._progress = (
            None if progress is None else np.memmap(progress / PROGRESS, np.uint64, mode="w+", shape=(1,))
        )

    def read(self) -> dict[str, Any]:
        """Return the next frame."""
        frame = self._bank[self.reads % len(self._bank)]
        self.reads += 1
        if self._progress is not None:
            self._progress[0] = self.reads
        return {self.name: {"value": np.asarray(frame), "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        """Say what the frames are."""
        shape, dtype = list(self._bank.shape[1:]), self._bank.dtype.str
        return {self.name: {"source": "benchmark", "dtype": "array", "shape": shape, "dtype_numpy": dtype}}

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Describe nothing."""
        return {}


def acquire(devices: Sequence[Any], events: int, *, interval_s: float = 0.0) -> Iterator[Any]:
    """Read devices so many times, as a plan; ``interval_s`` apart, or as fast as documents are taken.

    With a checkpoint before each, as bluesky's own plans have: without one the RunEngine keeps every message,
    to be able to go back.
    """
    from bluesky import plan_stubs as bps

    yield from bps.open_run({"num_points": events, "plan_name": "benchmark"})
    due_s = time.perf_counter()
    for _ in range(events):
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(devices)
        due_s += interval_s
        wait_s = due_s - time.perf_counter()
        if interval_s and wait_s > 0:
            yield from bps.sleep(wait_s)
    yield from bps.close_run()
