"""How much memory storing takes, and whether it stays like that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.rows.writing import zarr_pattern
from benchmarks.worker import Place, Sampler

__all__ = ["frames_row", "row"]

PENDING_BYTES = 128 * 2**20
FEW_PENDING_BYTES = 8 * 2**20
"""For small frames: full from the first events on, so that what rises is what is kept of each event."""
OTHER_MB = 150.0
FLAT_MB = 10.0
OURS = "gently-bluesky"
METRICS = (Metric("peak_mb", "peak, MB", 0, "less"), Metric("growth_mb", "growth, MB", 1, "less"))
AXES = ("events", "memory over what the imports take, MB")
HOW = (
    "`max_pending_bytes` is {} MiB. The process's own memory "
    "(anonymous and shared; mapped files are the page cache's) is read every 50 ms from outside, over what it "
    "took with all imported. Growth is how far a straight line through the last nine tenths of the events rises."
)


def row(*, quick: bool) -> Row:
    """Return the row of many events."""
    events = 1000 if quick else 10_000
    small = {"events": events, "size": 512, "max_pending_bytes": FEW_PENDING_BYTES}
    return Row(
        name="memory",
        title=f"Memory over {events:,} events of 512 x 512",
        text=HOW.format(FEW_PENDING_BYTES >> 20)
        + " The buffer is small, so that it is full from the first events on: what rises then is what is kept of "
        "each event.",
        metrics=METRICS,
        contenders=(Contender(OURS, "memory.ours", options=small),),
        goals=(
            _peak_goal(f"memory over {events:,} events, peak", FEW_PENDING_BYTES),
            Goal(
                f"memory over {events:,} events, growth",
                f"flat: ≤ {FLAT_MB:g} MB",
                "growth_mb",
                OURS,
                at_most=FLAT_MB,
                unit="MB",
            ),
        ),
        rounds=1 if quick else 3,
        fresh=True,
        watch=True,
        curve=AXES,
        compared=False,
    )


def frames_row(*, quick: bool) -> Row:
    """Return the row of large frames, beside those who keep no bound."""
    events = 100 if quick else 300
    large = {"events": events, "size": None}
    return Row(
        name="memory-frames",
        title=f"Memory over {events} events of 2048 x 2048",
        text=HOW.format(PENDING_BYTES >> 20),
        metrics=METRICS,
        contenders=(
            Contender(OURS, "memory.ours", options={**large, "max_pending_bytes": PENDING_BYTES}),
            Contender(
                "minimal callback",
                "memory.minimal",
                "peer",
                large,
                note="16 frames in flight, 134 MB of them",
            ),
            Contender(
                "ome-writers as it comes",
                "memory.ome_writers",
                "peer",
                large,
                ("ome_writers",),
                note="holds on to the device's own frames, which are not counted here: they are a mapped file",
            ),
        ),
        goals=(_peak_goal(f"memory over {events} frames of 2048 x 2048, peak", PENDING_BYTES),),
        rounds=1 if quick else 3,
        fresh=True,
        watch=True,
        curve=AXES,
    )


def _peak_goal(what: str, pending_bytes: int) -> Goal:
    pending_mb = pending_bytes / 1e6
    text = f"≤ {pending_mb:.0f} MB of frames in flight + {OTHER_MB:.0f} MB"
    return Goal(what, text, "peak_mb", OURS, at_most=pending_mb + OTHER_MB, unit="MB")


@contextmanager
def _watched(
    place: Place,
    events: int,
    size: int | None,
    subscriber: Callable[[Path], AbstractContextManager[Any]],
) -> Iterator[Sampler]:
    from bluesky import RunEngine

    bank = open_bank(place.bank)[:, :size, :size]
    engine = RunEngine({})

    def sample(folder: Path) -> dict[str, Any]:
        with subscriber(folder) as callback:
            engine(acquire([BankCamera(bank, progress=folder)], events), callback)
        return {}

    yield sample


@contextmanager
def ours(place: Place, events: int, size: int | None, max_pending_bytes: int) -> Iterator[Sampler]:
    """Store with ours."""
    import tensorstore  # noqa: F401 # imported before memory is first looked at
    import zarr  # noqa: F401

    from gently_bluesky import Store

    @contextmanager
    def subscriber(folder: Path) -> Iterator[Any]:
        with Store(folder / "store") as store:
            yield store.writer(max_pending_bytes=max_pending_bytes)

    with _watched(place, events, size, subscriber) as sample:
        yield sample


@contextmanager
def minimal(place: Place, events: int, size: int | None) -> Iterator[Sampler]:
    """Store with a callback that does nothing but that."""
    from benchmarks.peers.minimal import minimal_callback

    pattern = zarr_pattern(place)
    with _watched(
        place, events, size, lambda folder: minimal_callback(folder, pattern=pattern, frames=events)
    ) as sample:
        yield sample


@contextmanager
def ome_writers(place: Place, events: int, size: int | None) -> Iterator[Sampler]:
    """Store with ome-writers."""
    import ome_writers  # noqa: F401 # imported before memory is first looked at
    import tensorstore  # noqa: F401

    from benchmarks.peers.ome_writers_zarr import ome_writers_zarr

    shape_yx = open_bank(place.bank)[0, :size, :size].shape
    with _watched(
        place, events, size, lambda folder: ome_writers_zarr(folder, frames=events, shape_yx=shape_yx)
    ) as sample:
        yield sample
