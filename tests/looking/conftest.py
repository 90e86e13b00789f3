"""One store for all tests of looking: a real RunEngine, the simulated diSPIM, and what was made of its volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky import Record, Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume, focus_sweep


@dataclass(frozen=True)
class Night:
    """A store that is only read, and the uids of what is in it."""

    store: Store
    volumes: str
    stacked: str
    sweep: str
    mip: Record
    pair: Record
    nuclei: Record

    @property
    def root(self) -> Path:
        return self.store.root


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    from bluesky import RunEngine

    root = tmp_path_factory.mktemp("looking") / "store"
    engine = RunEngine({}, call_returns_result=False)
    scope = SimulatedDiSPIM(size=64, n_slices=8)
    both = SimulatedDiSPIM(size=64, n_slices=8, dual="stacked", name="both")
    with Store(root) as store:
        engine.subscribe(store.writer())
        (sweep,) = engine(focus_sweep(scope, steps=3, session="first light"))
        (stacked,) = engine(acquire_volume(both))
        (volumes,) = engine(acquire_volume(scope, num=2, session="first light"))
        made = [
            store.put(
                store[volumes][key][0].max(axis=0),
                data_type="projection",
                parents=[store[volumes][key][0].uid],
                operation="max_z",
            )
            for key in ("view_a", "view_b")
        ]
        both_views = np.stack([store.get(one.uid).compute() for one in made])
        pair = store.put(both_views, dims=("v", "y", "x"), data_type="pair", parents=made, operation="stack")
        parents = [pair, store[volumes]["view_a"][0]]
        nuclei = store.put({"n": 3}, data_type="nuclei", parents=parents, operation="count")
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
    with Store(root, mode="r") as reader:
        yield Night(reader, volumes, stacked, sweep, made[0], pair, nuclei)
