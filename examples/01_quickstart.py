"""One volume through the RunEngine into a store, and one plane of it out again.

Start here. The microscope is a simulated one; any ophyd device that returns arrays does as well.

Needs: gently-bluesky, and nothing else.

Prints:

    complete: 1 volume of 2 views in 0.3 MB
    <LazyArray view_a (t: 1, z: 16, y: 64, x: 64) uint16 131.1 kB b28f5059>
    a plane of (64, 64) pixels of 1.3 um, the brightest 767 counts
"""

import sys

import numpy as np
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)  # made if it is missing
RE = RunEngine()
RE.subscribe(store.writer())  # OME-Zarr; format="tiff" for OME-TIFF
scope = SimulatedDiSPIM(size=64, n_slices=16)

(uid,) = RE(acquire_volume(scope, session="first light", embryo="e1"))

run = store[uid]  # store[-1] is the latest run, whatever it was
volume = run["primary"]["view_a"]  # knows its shape; nothing is read yet
plane = np.asarray(volume[0, 8])  # reads this plane, and no other

stored = run.storing
print(f"{run.status}: {len(volume)} volume of {stored['frames']} views in {stored['bytes'] / 1e6:.1f} MB")
print(volume)
print(f"a plane of {plane.shape} pixels of {volume.scale[-1]} um, the brightest {plane.max()} counts")
