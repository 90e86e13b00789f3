"""How far a run survives a loss of power is set where a writer is made, and stands with its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gently_bluesky import Store
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

SAID = {"source": "test", "dtype": "array", "shape": [8, 9]}


def write(store: Store, **settings: Any) -> Any:
    """Store a run of two events; return it."""
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    with store.writer(**settings) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for number in range(2):
            writer("event", run.event(descriptor, camera=encoded_frame((8, 9), "u2", event=number)))
        writer("stop", run.stop())
    return store[run.uid]


@pytest.mark.parametrize("assets", ["datum", "stream"])
@pytest.mark.parametrize("format", ["zarr", "tiff", "memory"])
@pytest.mark.parametrize("sync", ["event", "run", "never"])
def test_documents_say_how_an_array_was_synced(store: Store, format: str, assets: str, sync: str) -> None:
    if (format, assets) == ("memory", "stream"):
        with pytest.raises(InvalidSetting, match="mimetype"):
            store.writer(format=format, assets=assets, sync=sync)
        return
    run = write(store, format=format, assets=assets, sync=sync)
    name, said = ("resource", "resource_kwargs") if assets == "datum" else ("stream_resource", "parameters")
    (doc,) = (doc for kind, doc in run.documents() if kind == name)
    assert doc[said]["sync"] == ("never" if format == "memory" else sync)
    assert store.record(run["camera"].uid).metadata["sync"] == doc[said]["sync"]
    np.testing.assert_array_equal(
        run["camera"], np.stack([encoded_frame((8, 9), "u2", event=n) for n in range(2)])
    )


@pytest.mark.parametrize("sync", ["event", "run", "never"])
def test_arrays_of_a_device_say_it_too(store: Store, sync: str) -> None:
    with store.recorder(sync=sync) as recorder:
        recording = recorder.record("camera")
        frame = encoded_frame((8, 9), "u2")
        written = recording.write({"camera": frame}, {"data_keys": {"camera": SAID}})
        written.stored.result(30)
        asset, _ = written.places["camera"]
        recording.close()
    assert asset.introduction()[1]["resource_kwargs"]["sync"] == sync


@pytest.mark.parametrize("make", ["writer", "recorder"])
@pytest.mark.parametrize("sync", ["always", None, True, ["run"]])
def test_unknown_ways_of_syncing_are_refused(store: Store, make: str, sync: Any) -> None:
    with pytest.raises(
        InvalidSetting, match=r"sync must be one of 'event', 'run', 'never', got .*nothing was written"
    ):
        getattr(store, make)(sync=sync)
