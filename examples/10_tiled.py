"""A Tiled server that shows a run while it goes on: any program asks it for a plane, by HTTP.

Here one script starts the server and is its client. In earnest the server runs on its own, from the `tiled.yml`
that this leaves here: `TILED_SINGLE_USER_API_KEY=secret tiled serve config tiled.yml`.

Needs: the extra `tiled`.

Prints:

    served: (2, 8, 64, 64) uint16, and a plane of it, (64, 64)
    equal to what is stored: True
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.tiled import register

root = Path(sys.argv[1] if len(sys.argv) > 1 else "dispim").resolve()

Path("tiled.yml").write_text(f"""
trees:
  - path: /
    tree: catalog
    args:
      uri: "sqlite:///:memory:"  # to keep it: a file, as in docs/tiled.md, and init_if_not_exists
      writable_storage: ["duckdb:///{Path("tables.duckdb").resolve().as_posix()}"]  # for the numbers of the events
      readable_storage: ["{root.as_posix()}"]
      adapters_by_mimetype:
        application/x-zarr: gently_bluesky.tiled:StoredZarrAdapter
        multipart/related;type=image/tiff: gently_bluesky.tiled:StoredTiffAdapter
expose_raw_assets: false
""")
store = Store(root)
server = subprocess.Popen(
    [sys.executable, "-m", "tiled", "serve", "config", "tiled.yml", "--host", "127.0.0.1", "--port", "0"],
    env={**os.environ, "TILED_SINGLE_USER_API_KEY": "secret", "NO_COLOR": "1"},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
)
try:
    urls = (re.search(r"running on.*(http://127\S+:\d+)", line) for line in server.stderr)
    url = next(found for found in urls if found)[1]

    register()  # once, before the first run: TiledWriter gets to know our arrays
    client = from_uri(url, api_key="secret")
    writer = store.writer()
    writer.subscribe(TiledWriter(client, batch_size=1))  # each event as it is announced
    RE = RunEngine()
    RE.subscribe(writer)
    (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=8), num=2))

    served = client[uid]["primary"]["view_a"]
    plane = np.asarray(served[1, 4])  # one plane comes over the network
    print(f"served: {served.shape} {served.dtype}, and a plane of it, {plane.shape}")
    print(f"equal to what is stored: {np.array_equal(plane, store[uid]['view_a'][1, 4])}")
    client.context.close()
finally:
    server.terminate()
    server.communicate()
