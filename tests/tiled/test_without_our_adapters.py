"""A server that has nothing of ours: Tiled's own adapters read what `register` has put into its catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter

from gently_bluesky import Store
from gently_bluesky.errors import SubscriberError
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame


@pytest.mark.parametrize("format", ["zarr", "tiff"])
@pytest.mark.parametrize("assets", ["datum", "stream"])
def test_files_are_what_the_catalog_says_to_readers_that_know_only_tiled(
    plain_server: Any, connect: Any, format: str, assets: str
) -> None:
    frames = [encoded_frame((3, 24, 40), "u2", run="plain", key="camera", event=n) for n in range(3)]
    run, client = HandMadeRun(), connect(plain_server.url)
    descriptor = run.descriptor(camera={})
    with Store(plain_server.stores / f"{format}-{assets}") as store:
        writer = store.writer(format=format, assets=assets)
        writer.subscribe(TiledWriter(client))
        writer("start", run.start)
        writer("descriptor", descriptor)
        for pixels in frames:
            writer("event", run.event(descriptor, camera=pixels))
        writer("stop", run.stop())
    node = client[run.uid]["primary"]["camera"]
    assert np.array_equal(node.read(), frames)
    assert np.array_equal(node[1, 2], frames[1][2])


def test_server_that_goes_in_the_middle_of_a_run_costs_no_frame(
    serve: Any, connect: Any, plain_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    server = serve(plain_config)
    run, client = HandMadeRun(), connect(server.url)
    descriptor = run.descriptor(camera={})
    frames = [encoded_frame((24, 40), "u2", run="gone", key="camera", event=n) for n in range(2)]
    with Store(plain_config.parent / "store") as store:
        writer = store.writer()
        writer.subscribe(TiledWriter(client, batch_size=1))
        writer("start", run.start)
        writer("descriptor", descriptor)
        server.process.terminate()
        server.process.wait()
        for pixels in frames:
            writer("event", run.event(descriptor, camera=pixels))
        with pytest.raises(SubscriberError, match="every frame was stored"):
            writer("stop", run.stop())
        assert store[run.uid].status == "complete"
        assert np.array_equal(store[run.uid]["camera"], frames)
