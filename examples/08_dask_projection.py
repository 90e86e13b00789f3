"""A projection of a whole time series by dask, a few blocks at a time, however large it is.

Needs: the extra `dask`.

Prints:

    0.5 MB of uint16 along ('t', 'z', 'y', 'x')
    <LazyArray projection (event: 4, z: 16, x: 64) uint16 8.2 kB fa268d72/0>
    mean counts of each volume: [118, 119, 120, 120]
    equal to that without dask: True
"""

import sys

from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer(chunks="blocks"))  # cut in every direction: for reading across the planes
(uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=16), num=4, embryo="e1"))

volumes = store[uid]["view_a"]  # (t, z, y, x)
blocks = volumes.to_dask()  # cut as the array is stored, in blocks of at most 64 MiB
print(f"{blocks.nbytes / 1e6:.1f} MB of {blocks.dtype} along {volumes.dims}")

side_view = blocks.max(axis=2)  # along y, which no frame shows; nothing is read yet
background = blocks.mean(axis=(1, 2, 3))
record = store.put(
    side_view.compute(), data_type="projection", parents=volumes, operation="max_y", dims=("t", "z", "x")
)

print(
    store.get(record.uid)
)  # t is what the store keeps events along; of this result it is an axis, called event
print(f"mean counts of each volume: {background.compute().round().astype(int).tolist()}")

# The same without dask, for the usual reductions: also block by block, in as little memory.
print(f"equal to that without dask: {(volumes.max(axis=2) == store.get(record.uid)).all()}")
