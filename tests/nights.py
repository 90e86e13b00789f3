"""Nights to verify: a run of two views in each way of keeping it, and where its files are."""

from __future__ import annotations

from pathlib import Path

from gently_bluesky import Store
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (3, 40, 50)
EVENTS = 4


def acquire(store: Store, format: str = "zarr", assets: str = "datum", **settings: object) -> str:
    """Keep a run of two views, of which a rewind repeats the second event; return its uid."""
    run = HandMadeRun(session="night", embryo="e3")
    descriptor = run.descriptor(view_a={}, view_b={}, n={"dtype": "number"})
    with store.writer(format=format, assets=assets, **settings) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(EVENTS):
            frames = {key: encoded_frame(SHAPE, "<u2", key=key, event=event) for key in ("view_a", "view_b")}
            writer("event", run.event(descriptor, max(event, 1), n=event, **frames))
        writer("stop", run.stop())
    return run.uid


def folder_of(store: Store, uid: str) -> Path:
    return (store.root / store.record(uid).path).parent


def event_file(store: Store, uid: str, event: int, key: str = "view_a") -> Path:
    """Return the file that holds an event's pixels."""
    folder = folder_of(store, uid)
    zarr = folder / f"primary-{key}.ome.zarr" / "0" / "c" / str(event) / "0" / "0" / "0"
    return zarr if zarr.exists() else folder / f"primary-{key}" / f"{event:06d}.ome.tif"
