"""Documents filled with pixels as databroker does it: by event_model's Filler, and the handlers of this package.

What databroker keeps are the documents that the writer announces. They refer to the pixels; Filler puts them back.

Needs: gently-bluesky, and nothing else. An installed databroker finds the handlers by itself.

Prints:

    ['start', 'descriptor', 'resource', 'datum', 'resource', 'datum', 'event', 'datum', 'datum', 'event', 'stop']
    event 1 names e39aa4ba/0, which is <LazyArray (z: 8, y: 64, x: 64) uint16 65.5 kB>
    event 2 names e39aa4ba/1, which is <LazyArray (z: 8, y: 64, x: 64) uint16 65.5 kB>
    a plane of the last one: (64, 64) uint16, the brightest 643 counts
"""

import sys

import numpy as np
from bluesky import RunEngine
from event_model import Filler

from gently_bluesky import Store, handler_registry
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

documents = []  # stands for databroker's database
store = Store(root)
writer = store.writer()
writer.subscribe(lambda name, doc: documents.append((name, doc)))  # what is announced, without pixels
RE = RunEngine()
RE.subscribe(writer)
RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=8), num=2))
print([name for name, doc in documents])

# handler_registry() is also what databroker.mongo_normalized.discover_handlers() finds.
with Filler(handler_registry(), inplace=False) as filler:
    for name, doc in documents:
        name, filled = filler(name, doc)  # from the others it learns where the pixels are
        if name == "event":
            datum_id, volume = doc["data"]["view_a"], filled["data"]["view_a"]
            print(f"event {doc['seq_num']} names {datum_id[:8]}{datum_id[36:]}, which is {volume}")

plane = np.asarray(volume[4])  # reads this plane, and no other
print(f"a plane of the last one: {plane.shape} {plane.dtype}, the brightest {plane.max()} counts")
