"""A store on another disk: it opens wherever its folder is, also read-only, and old documents find their pixels.

Needs: gently-bluesky, and nothing else.

Prints:

    dispim-november-archive: <LazyArray view_a (t: 1, z: 8, y: 64, x: 64) uint16 65.5 kB 9cf5e44d>
    found by what it is, as before: True
    1 run, 2 arrays, 2 events, 131.1 kB read back in 0.0 s (6.7 MB/s)
    all is well
    the old documents: <LazyArray (z: 8, y: 64, x: 64) uint16 65.5 kB>
    equal pixels: True
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from bluesky import RunEngine
from event_model import Filler

from gently_bluesky import Store, handler_registry
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = Path(sys.argv[1] if len(sys.argv) > 1 else "dispim-november").resolve()
archive = root.with_name(f"{root.name}-archive")  # on another disk, or as rsync put it there
if archive.exists():
    sys.exit(f"{archive} is there already; nothing was moved")

with Store(root) as store:  # closed before it is moved: a store that is being written stays where it is
    RE = RunEngine()
    RE.subscribe(writer := store.writer())
    kept_elsewhere = []  # as in a database, with the paths of today
    writer.subscribe(lambda name, doc: kept_elsewhere.append((name, doc)))
    (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=8), session="november"))

shutil.move(root, archive)

moved = Store(archive, mode="r")  # changes nothing: also from a disk that is mounted read-only
volume = moved[uid]["view_a"]
print(f"{moved.root.name}: {volume}")
print(f"found by what it is, as before: {moved.latest(session='november').uid == uid}")
print(moved.verify(progress=False))

# Documents that were kept somewhere else name the old folder; root_map says where it is now.
with Filler(handler_registry(), root_map={str(root): str(archive)}, inplace=False) as filler:
    for name, doc in kept_elsewhere:
        name, doc = filler(name, doc)
        if name == "event":
            print(f"the old documents: {doc['data']['view_a']}")
            print(f"equal pixels: {np.array_equal(doc['data']['view_a'], volume[0])}")
