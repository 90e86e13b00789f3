"""A backend of one's own: frames kept as `.npy` files, by the package that docs/backends.md shows in full.

A backend is found by the entry point of its package: nothing has to be told of it but its name.

Needs: that package, installed: its two files, `gently_npy.py` and `pyproject.toml`, stand in docs/backends.md.

Prints:

    <LazyArray view_a (t: 2, z: 8, y: 64, x: 64) uint16 131.1 kB efb568ee>, kept as EXAMPLE_NPY
    ['000000.npy', '000001.npy']
    numpy reads the same: True
    1 run, 2 arrays, 4 events, 262.1 kB read back in 0.0 s (20.5 MB/s)
    all is well
"""

import sys

import numpy as np
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer(format="npy"))
(uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=8), num=2))

volumes = store[uid]["primary"]["view_a"]
record = store.record(volumes.uid)
print(f"{volumes}, kept as {record.format}")

# The store promises, finds, verifies and exports as ever; what is on the disk is the backend's.
files = sorted((store.root / record.path).iterdir())
print([file.name for file in files])
print(f"numpy reads the same: {np.array_equal(np.load(files[1]), volumes[1])}")
print(store.verify(uid, progress=False))
