"""A time lapse of many embryos: one run for each volume, found again by embryo and time point.

Needs: gently-bluesky, and nothing else.

Prints:

    18 arrays came, 18 are stored and announced
    e1: volume 0 37c191d8, volume 1 deeebb1a, volume 2 3c4a3cf6
    e2: volume 0 f75b3189, volume 1 e29d1abe, volume 2 a0e56b13
    e3: volume 0 f306302a, volume 1 96af252b, volume 2 eb92a250
    e2 in the last round: <LazyArray view_a (z: 8, y: 64, x: 64) uint16 65.5 kB b4f6b0ad/0>
    its middle plane is (64, 64)
"""

import sys

import numpy as np
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, timelapse

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

store = Store(root)
RE = RunEngine()
RE.subscribe(writer := store.writer())
scope = SimulatedDiSPIM(size=64, n_slices=8, embryos=3)

# Every run gets the session, its embryo and its time point into its start document.
uids = RE(timelapse(scope, timepoints=3, interval_s=0.1, session="development at 20 degC"))

# RE returns when everything is on the disk, so these two cannot differ.
told = writer.stats()
print(f"{told['accepted']} arrays came, {told['announced']} are stored and announced")

# What start documents say is what runs are found by; the newest come first.
for embryo in scope.embryos:
    records = reversed(list(store.query(session="development at 20 degC", embryo=embryo)))
    volumes = [f"volume {record.metadata['timepoint']} {record.uid[:8]}" for record in records]
    print(f"{embryo}: {', '.join(volumes)}")

last = store.latest(embryo="e2", timepoint=2)
volume = store[last.uid]["primary"]["view_a"][0]
print(f"e2 in the last round: {volume}")
print(f"its middle plane is {np.asarray(volume[4]).shape}")
