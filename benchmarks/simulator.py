"""How fast the simulated camera gives frames to a RunEngine: the floor under whatever stores them.

    python benchmarks/simulator.py

prints frames of 2048 x 2048 uint16 a second, through a RunEngine with no subscriber, beside a device without
pixels, in turn, with every sample.
"""

from __future__ import annotations

import platform
import statistics
import time

import bluesky.plans as bp
import numpy as np
from bluesky import RunEngine
from ophyd.sim import det

from gently_bluesky.sim import SimulatedDiSPIM

FRAMES = 300
ROUNDS = 5


def events_per_s(engine: RunEngine, device: object) -> float:
    began_s = time.perf_counter()
    engine(bp.count([device], num=FRAMES))
    return FRAMES / (time.perf_counter() - began_s)


def main() -> None:
    engine = RunEngine({})
    camera = SimulatedDiSPIM(size=2048).camera_a
    devices = {"frames of 2048 x 2048": camera, "no pixels (ophyd.sim.det)": det}
    samples: dict[str, list[float]] = {name: [] for name in devices}
    for device in devices.values():
        events_per_s(engine, device)
    for _ in range(ROUNDS):
        for name, device in devices.items():
            samples[name].append(events_per_s(engine, device))
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}; events a second"
    )
    for name, rates in samples.items():
        each = " ".join(f"{rate:.0f}" for rate in rates)
        print(f"{name:28s} median {statistics.median(rates):6.0f}   of {each}")
    print("the goal for frames is 300 a second")


if __name__ == "__main__":
    main()
