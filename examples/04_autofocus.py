"""A focus sweep that a plan reads while it runs, to take the next volume in focus.

The volume names the sweep as its parent: next month it is clear why the piezo stood where it did.

Needs: gently-bluesky, and nothing else.

Prints:

    in focus at 1.4 um; this microscope was set up with 1.5 um
    volume 10f55986 autofocus (complete, 2026-11-22 08:23)
    └─ focus_sweep 82b1d08b (complete, 2026-11-22 08:23)
    the sweep led to: ['volume']
"""

import sys

import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps

from gently_bluesky import Store
from gently_bluesky.plans import with_parents
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume, focus_sweep

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(writer := store.writer())
scope = SimulatedDiSPIM(size=128, n_slices=8)


def best_focus(sweep):
    """Return where the piezo stood in focus, in um: the middle of what is sharper than the ends of the sweep."""
    positions_um = np.asarray(sweep["dispim_piezo"])
    sharpness = np.array([np.var(frame) / np.mean(frame) for frame in sweep["camera_a"]])
    weights = sharpness - sharpness.min()
    return float(np.sum(positions_um * weights) / np.sum(weights))


def volume_in_focus(embryo):
    uid = yield from focus_sweep(scope, embryo=embryo, span_um=24, steps=17)
    yield from writer.stored()  # the plan waits until the sweep can be read; the RunEngine does not stand still
    focus_um = best_focus(store[uid])
    yield from bps.mv(scope.piezo, focus_um)
    volume = acquire_volume(scope, embryo=embryo)
    return (yield from with_parents(volume, uid, operation="autofocus", parameters={"focus_um": focus_um}))


sweep_uid, volume_uid = RE(volume_in_focus("e1"))

focus_um = store[volume_uid].start["lineage"]["parameters"]["focus_um"]
print(
    f"in focus at {focus_um:.1f} um; this microscope was set up with {scope.galvo.focus_offset_um.get()} um"
)
print(store.lineage(volume_uid))
print(f"the sweep led to: {[child.data_type for child in store.children(sweep_uid)]}")
