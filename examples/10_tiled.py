"""A Tiled server that shows a run while it goes on: any program asks it for a plane, by HTTP.

Here one script starts the server and is its client. In earnest the server runs on its own, from the `tiled.yml`
that this leaves here: `TILED_SINGLE_USER_API_KEY=secret tiled serve config tiled.yml`.

Needs: the extra `tiled`.

Prints:

    [8bb8379bf969d69a] 127.0.0.1:60942 (anon) - "[1mGET / HTTP/1.1[0m" [32m200 OK[0m
    [25b4483bf0d47ca9] 127.0.0.1:60944 (anon) - "[1mGET /api/v1/ HTTP/1.1[0m" [32m200 OK[0m
    [05ab833e0bf51a27] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/metadata/ HTTP/1.1[0m" [32m200 OK[0m
    [18b7f5a0e7f79189] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/metadata/?include_data_sources=true HTTP/1.1[0m" [32m200 OK[0m
    [8ea2d21ea1ceb927] 127.0.0.1:60944 (singleuser) - "[1mPOST /api/v1/metadata/ HTTP/1.1[0m" [32m200 OK[0m
    [25d951d040b8ff44] 127.0.0.1:60944 (singleuser) - "[1mPOST /api/v1/metadata//09dc6e26-14d7-4072-a81b-91bac9c375b4 HTTP/1.1[0m" [32m200 OK[0m
    [8eff7baeb78bf0c6] 127.0.0.1:60944 (singleuser) - "[1mPOST /api/v1/metadata//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary HTTP/1.1[0m" [32m200 OK[0m
    [9770dffce42ebc90] 127.0.0.1:60944 (singleuser) - "[1mPATCH /api/v1/table/partition//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/internal?partition=0 HTTP/1.1[0m" [32m200 OK[0m
    [5755e97580e74505] 127.0.0.1:60944 (singleuser) - "[1mPOST /api/v1/register//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary HTTP/1.1[0m" [32m200 OK[0m
    [0e34b234b8392da0] 127.0.0.1:60944 (singleuser) - "[1mPUT /api/v1/data_source//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a?patch_shape=1,8,64,64&patch_offset=0,0,0,0 HTTP/1.1[0m" [32m200 OK[0m
    [26fab73d541cbf0e] 127.0.0.1:60944 (singleuser) - "[1mPOST /api/v1/register//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary HTTP/1.1[0m" [32m200 OK[0m
    [f2b9d5e459494205] 127.0.0.1:60944 (singleuser) - "[1mPUT /api/v1/data_source//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_b?patch_shape=1,8,64,64&patch_offset=0,0,0,0 HTTP/1.1[0m" [32m200 OK[0m
    [872046a0bf37807e] 127.0.0.1:60944 (singleuser) - "[1mPATCH /api/v1/table/partition//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/internal?partition=0 HTTP/1.1[0m" [32m200 OK[0m
    [e7f8cd9c968e7951] 127.0.0.1:60944 (singleuser) - "[1mPUT /api/v1/data_source//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a?patch_shape=1,8,64,64&patch_offset=1,0,0,0 HTTP/1.1[0m" [32m200 OK[0m
    [1e64d50ff86c8c43] 127.0.0.1:60944 (singleuser) - "[1mPUT /api/v1/data_source//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_b?patch_shape=1,8,64,64&patch_offset=1,0,0,0 HTTP/1.1[0m" [32m200 OK[0m
    [bdafdea13335d026] 127.0.0.1:60944 (singleuser) - "[1mPATCH /api/v1/metadata//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_b?drop_revision=true HTTP/1.1[0m" [32m200 OK[0m
    [ebbd12721ea3714d] 127.0.0.1:60944 (singleuser) - "[1mPATCH /api/v1/metadata//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a?drop_revision=true HTTP/1.1[0m" [32m200 OK[0m
    [b2492931d867905c] 127.0.0.1:60944 (singleuser) - "[1mPATCH /api/v1/metadata//09dc6e26-14d7-4072-a81b-91bac9c375b4?drop_revision=true HTTP/1.1[0m" [32m200 OK[0m
    [c5546a81dc3859d3] 127.0.0.1:60944 (singleuser) - "[1mDELETE /api/v1/stream/close//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/internal HTTP/1.1[0m" [32m200 OK[0m
    [2b7a17aae8d31a69] 127.0.0.1:60944 (singleuser) - "[1mDELETE /api/v1/stream/close//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a HTTP/1.1[0m" [32m200 OK[0m
    [93f097b89dcf65bb] 127.0.0.1:60944 (singleuser) - "[1mDELETE /api/v1/stream/close//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_b HTTP/1.1[0m" [32m200 OK[0m
    [ee8731cc7b98ae51] 127.0.0.1:60944 (singleuser) - "[1mDELETE /api/v1/stream/close//09dc6e26-14d7-4072-a81b-91bac9c375b4/primary HTTP/1.1[0m" [32m200 OK[0m
    [41f127701ba09971] 127.0.0.1:60944 (singleuser) - "[1mDELETE /api/v1/stream/close//09dc6e26-14d7-4072-a81b-91bac9c375b4 HTTP/1.1[0m" [32m200 OK[0m
    [836f61cc773e106f] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/metadata/09dc6e26-14d7-4072-a81b-91bac9c375b4 HTTP/1.1[0m" [32m200 OK[0m
    [9f999e6379ffb873] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/metadata/09dc6e26-14d7-4072-a81b-91bac9c375b4/primary HTTP/1.1[0m" [32m200 OK[0m
    [160f0f1ca1560902] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/search/09dc6e26-14d7-4072-a81b-91bac9c375b4/primary?select_metadata=false HTTP/1.1[0m" [32m200 OK[0m
    [608f461feedfe2eb] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/search/09dc6e26-14d7-4072-a81b-91bac9c375b4/primary?select_metadata=false HTTP/1.1[0m" [32m200 OK[0m
    [d8d7d7e72cb64650] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/metadata/09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a HTTP/1.1[0m" [32m200 OK[0m
    [51a8222ae6d540f8] 127.0.0.1:60944 (singleuser) - "[1mGET /api/v1/array/full/09dc6e26-14d7-4072-a81b-91bac9c375b4/primary/view_a?expected_shape=64,64&slice=1,4,0:64:1,0:64:1 HTTP/1.1[0m" [32m200 OK[0m
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
      uri: sqlite:///{Path("catalog.db").resolve().as_posix()}
      init_if_not_exists: true
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
finally:
    server.terminate()
    server.communicate()
