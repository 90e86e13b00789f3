"""What the server's process reads from disk for a slice: a plane for a plane, whatever the volume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter

from gently_bluesky import Store
from gently_bluesky.testing.documents import HandMadeRun

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="needs Linux, which counts bytes read"
)

PLANES, SIDE = 96, 512
PLANE_BYTES = SIDE * SIDE * 2
OTHER_BYTES = 400_000
"""The catalog's own database, and what else the server looks into for one request."""


def bytes_read(pid: int) -> int:
    """Return what a process has asked of the system so far: from files, whether cached or not."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"])


@pytest.mark.parametrize("assets", ["datum", "stream"])
@pytest.mark.parametrize("format", ["zarr", "tiff"])
def test_one_plane_of_a_volume_costs_one_plane(
    store: Store, server: Any, client: Any, format: str, assets: str
) -> None:
    assert sys.platform == "linux"
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    volume = np.random.default_rng(1).integers(0, 65536, (PLANES, SIDE, SIDE), "u2")  # nothing compresses it
    with store.writer(format=format, assets=assets) as writer:
        writer.subscribe(TiledWriter(client))
        writer("start", run.start)
        writer("descriptor", descriptor)
        for _ in range(2):
            writer("event", run.event(descriptor, camera=volume))
        writer("stop", run.stop())
    path = f"{run.uid}/primary/camera"
    server.part(path, "0,0", volume[0])  # what is imported on first use is no part of it
    cuts = {
        "plane": ("1,70", volume[70]),
        "rows": ("1,70,100:108", volume[70, 100:108]),
        "volume": ("1", volume),
    }
    cost = {}
    for name, (cut, expected) in cuts.items():
        before = bytes_read(server.process.pid)
        assert np.array_equal(server.part(path, cut, expected), expected)
        cost[name] = bytes_read(server.process.pid) - before
    block = client[run.uid]["primary"]["camera"]
    before = bytes_read(server.process.pid)
    assert np.array_equal(block.read_block((1, *(0 for _ in block.chunks[1:])), np.s_[0, 0]), volume[0])
    cost["plane of a block"] = bytes_read(server.process.pid) - before
    assert PLANE_BYTES <= cost["plane"] <= PLANE_BYTES + OTHER_BYTES, cost
    assert cost["plane of a block"] <= PLANE_BYTES + OTHER_BYTES, cost
    assert cost["rows"] <= PLANE_BYTES + OTHER_BYTES, cost
    assert cost["volume"] >= PLANES * PLANE_BYTES, cost
    print(cost)
