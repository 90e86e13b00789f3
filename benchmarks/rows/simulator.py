"""How fast the simulated microscope gives frames: what stores them in a demonstration cannot be faster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

CAMERA, BARE = "simulated camera, 2048 x 2048", "a device without pixels"


def row(*, quick: bool) -> Row:
    """Return the row."""
    frames = 100 if quick else 300
    return Row(
        name="simulator",
        title="The simulated camera",
        text="`bp.count` through a RunEngine with no subscriber.",
        metrics=(Metric("frames_per_s", "frames/s", 0),),
        contenders=(
            Contender(CAMERA, "simulator.counted", options={"frames": frames, "device": "camera"}),
            Contender(
                BARE, "simulator.counted", "floor", {"frames": frames, "device": "det"}, note="ophyd.sim.det"
            ),
        ),
        goals=(
            Goal(
                "the simulated camera",
                "≥ 300 frames/s",
                "frames_per_s",
                CAMERA,
                at_least=300.0,
                unit="frames/s",
                headline=False,
            ),
        ),
        rounds=3 if quick else 5,
    )


@contextmanager
def counted(place: Place, frames: int, device: str) -> Iterator[Sampler]:
    """Count a device."""
    import bluesky.plans as bp
    from bluesky import RunEngine
    from ophyd.sim import det

    from gently_bluesky.sim import SimulatedDiSPIM

    counting = SimulatedDiSPIM(size=2048).camera_a if device == "camera" else det
    engine = RunEngine({})

    def sample(_: Path, number: int = frames) -> dict[str, Any]:
        begun_s = time.perf_counter()
        engine(bp.count([counting], num=number))
        return {"frames_per_s": number / (time.perf_counter() - begun_s)}

    sample(place.scratch, 10)
    yield sample
