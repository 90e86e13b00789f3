"""What was made from what: results are stored with their parents, and traced back to the frames, or onward.

Needs: gently-bluesky, and nothing else.

Prints:

    area c9b6ea9e (complete, 2026-11-22 08:25)
    └─ segmentation 5650e054 threshold (complete, 2026-11-22 08:25)
       └─ projection 0d2a1e9d max_z (complete, 2026-11-22 08:25)
          └─ primary/view_a cdf4c084/0 of 26d4a66f (complete, 2026-11-22 08:25)

    made from the run: ['projection']
    made from the projection: ['segmentation']
    the area of e1: {'pixels': 477}, by threshold at 150 counts
"""

import sys

import numpy as np
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer())
(uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=16), session="first light", embryo="e1"))
volume = store[uid]["view_a"][0]

# Each result is on the disk when `put` returns. Session and embryo are taken over from the parents.
projection = store.put(volume.max(axis=0), data_type="projection", parents=volume, operation="max_z")

image = np.asarray(store.get(projection.uid))
threshold = 150
mask = store.put(
    image > threshold,
    data_type="segmentation",
    parents=projection,
    operation="threshold",
    parameters={"counts": threshold},
)
area = store.put({"pixels": int((image > threshold).sum())}, data_type="area", parents=[mask])

print(store.lineage(area.uid), end="\n\n")  # back, to the frames that it follows from

print("made from the run:", [child.data_type for child in store.children(uid)])
print("made from the projection:", [child.data_type for child in store.children(projection.uid)])

found = store.latest(data_type="area", session="first light", embryo="e1")
how = store.record(mask.uid).metadata["lineage"]
print(
    f"the area of e1: {store.get(found.uid)}, by {how['operation']} at {how['parameters']['counts']} counts"
)
