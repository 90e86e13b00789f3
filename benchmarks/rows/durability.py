"""What it costs to have events survive a loss of power: the same frames at each level of durability, side by side."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Metric, Row
from benchmarks.rows.writing import timed
from benchmarks.worker import Place, Sampler

__all__ = ["tiff_row", "zarr_row"]

WARM_UP = 8
LEVELS = {
    "event": "every event is synced before it is announced",
    "run": "all of the run is synced before its stop is announced",
    "never": "left to the system; synced by the benchmark, after the call, for the second column",
}


def zarr_row(*, quick: bool) -> Row:
    """Return the row of OME-Zarr."""
    return _row("zarr", "OME-Zarr", quick=quick)


def tiff_row(*, quick: bool) -> Row:
    """Return the row of OME-TIFF."""
    return _row("tiff", "OME-TIFF", quick=quick)


def _row(format: str, title: str, *, quick: bool) -> Row:
    frames = 24 if quick else 60
    return Row(
        name=f"sync-{format}",
        title=f"The price of durability, {title}",
        text=(
            f"A RunEngine reads a device that returns camera-like frames of 2048 x 2048 uint16, {frames} of them, as "
            f"fast as they are taken, and a writer stores them as {title} at each level of `sync`. The time is that of "
            "the RunEngine's call."
        ),
        metrics=(
            Metric("frames_per_s", "frames/s"),
            Metric("synced_frames_per_s", "frames/s, synced"),
            Metric("cpu_ms", "CPU ms/frame", better="less"),
        ),
        contenders=tuple(
            Contender(
                f'sync="{level}"',
                "durability.stored",
                options={"frames": frames, "format": format, "sync": level},
                note=note,
            )
            for level, note in LEVELS.items()
        ),
        rounds=2 if quick else 5,
    )


@contextmanager
def stored(place: Place, frames: int, format: str, sync: str) -> Iterator[Sampler]:
    """Store frames at a level of durability."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = open_bank(place.bank)
    with Store(place.scratch / "store") as store, store.writer(format=format, sync=sync) as writer:
        runs = store.root / "runs"

        def sample(_: Path, number: int = frames) -> dict[str, Any]:
            run = partial(RunEngine({}), acquire([BankCamera(bank)], number), writer)
            taken = timed(number, bank[0].nbytes, run, runs if sync == "never" else None)
            shutil.rmtree(runs)
            return taken

        sample(place.scratch, WARM_UP)
        yield sample
