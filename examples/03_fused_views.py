"""A dual view fused into one volume, which has two parents: the volumes of the two views.

View b sees what view a sees turned by 90 degrees about y, so that each is sharp where the other is not.

Needs: gently-bluesky, and nothing else.

Prints:

    the views agree: a correlation of 0.9
    <LazyArray fused (z: 32, y: 64, x: 32) uint16 131.1 kB 0265b29c/0> steps in um: (1.3, 1.3, 1.3)
    fused 7dba928f geometric_mean (complete, 2026-11-22 08:23)
    ├─ primary/view_a b3d7091b/0 of 8ee58287 (complete, 2026-11-22 08:23)
    └─ primary/view_b 557a3ea3/0 of 8ee58287 (complete, 2026-11-22 08:23)
    made from view b: ['fused']
"""

import sys

import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer())
scope = SimulatedDiSPIM(size=64, n_slices=32)
scope.light_sheet.z_step_um.put(scope.light_sheet.pixel_size_um.get())  # cubes for voxels
RE(bps.mv(scope.piezo, scope.galvo.focus_offset_um.get()))  # the light sheet is in focus

(uid,) = RE(acquire_volume(scope, embryo="e1"))
a, b = store[uid]["view_a"][0], store[uid]["view_b"][0]  # the first volume of each, (z, y, x)

# What both views saw: 32 voxels along z and x around the middle. x of view b is z of view a, and z of view b
# is x of view a the other way round. (Real views are not so well aligned: register them here.)
from_a = np.asarray(a[:, :, 16:48], np.float32)
from_b = np.asarray(b[:, :, 16:48], np.float32).transpose(2, 1, 0)[:, :, ::-1]
agreement = np.corrcoef(from_a.ravel(), from_b.ravel())[0, 1]
fused = np.sqrt(from_a * from_b).astype(np.uint16)

record = store.put(
    fused,
    data_type="fused",
    parents=[a, b],  # lazy arrays, records or uids
    operation="geometric_mean",
    parameters={"turned_about": "y", "by_degrees": 90},
    dims=("z", "y", "x"),
)

print(f"the views agree: a correlation of {agreement:.1f}")
print(store.get(record.uid), "steps in um:", store.get(record.uid).scale)
print(store.lineage(record.uid))
print(f"made from view b: {[child.data_type for child in store.children(b.uid)]}")
