"""A night replayed: into a table on the screen, and into a second store.

`replay` sends what was recorded to callbacks, as if the runs took place again: what was written for the RunEngine
can be tried on last month's data.

Needs: gently-bluesky, and nothing else.

Prints:



    +-----------+------------+--------------+
    |   seq_num |       time | dispim_piezo |
    +-----------+------------+--------------+
    |         1 | 08:57:05.8 |      -10.000 |
    |         2 | 08:57:05.9 |       -5.000 |
    |         3 | 08:57:05.9 |        0.000 |
    |         4 | 08:57:05.9 |        5.000 |
    |         5 | 08:57:05.9 |       10.000 |
    +-----------+------------+--------------+
    generator focus_sweep ['2cfb5b2d'] (scan num: 1)


    2cfb5b2d complete: GENTLY_TIFF, as GENTLY_ZARR before
    3698bd0f complete: GENTLY_TIFF, as GENTLY_ZARR before
    the pixels are equal
    event 1: 937 counts
    event 2: 767 counts
"""

import sys

import numpy as np
from bluesky import RunEngine
from bluesky.callbacks import LiveTable

from gently_bluesky import Store, replay
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume, focus_sweep

root = sys.argv[1] if len(sys.argv) > 1 else "night"

store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer())
scope = SimulatedDiSPIM(size=64, n_slices=8)
(sweep,) = RE(focus_sweep(scope, steps=5))
(volumes,) = RE(acquire_volume(scope, num=2))

# One run, or a whole night: the path of a journal, the folder of a run, or the root of a store.
journal = store.root / store.record(sweep).path
replay(journal, LiveTable(["dispim_piezo"]))

# Into the writer of another store it gives an equal store, in another format if need be.
with Store(f"{root}-as-tiff") as copy:
    replayed = replay(store.root, copy.writer(format="tiff"))
    for uid in replayed:
        print(
            f"{uid[:8]} {copy[uid].status}: {copy.assets(uid)[0].format}, as {store.assets(uid)[0].format} before"
        )
    equal = np.array_equal(copy[volumes]["view_a"], store[volumes]["view_a"])
    print(f"the pixels are {'equal' if equal else 'not equal'}")


def brightest(name, doc):
    """Tell the brightest pixel of each volume: any callback is given the pixels, lazily, where they stood."""
    if name == "event":
        print(f"event {doc['seq_num']}: {np.max(doc['data']['view_a'])} counts")


replay((store.root / store.record(volumes).path).parent, brightest)
