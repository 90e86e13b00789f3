"""A run that was opened by hand and has one event stored, which what comes next must leave alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from gently_bluesky import Store
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

Spoil = Callable[[dict[str, Any]], Any]


def frame(n: int = 0) -> np.ndarray:
    """Return a small frame."""
    return encoded_frame((8, 8), "u2", event=n)


def opened(store: Store) -> tuple[StoreWriter, HandMadeRun, dict[str, Any]]:
    """Open a run with one stream and one event in it."""
    writer, run = store.writer(), HandMadeRun()
    descriptor = run.descriptor(camera={}, n={"dtype": "number"})
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=frame(), n=1))
    return writer, run, descriptor


def require_untouched(store: Store, run: HandMadeRun, status: str = "failed") -> None:
    """Check that the event which was stored before is whole and the run has an end on record."""
    assert store[run.uid].status == status
    assert store[run.uid].record.stored == 1
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][0]))
    lines = [json.loads(line) for line in (store.root / store.record(run.uid).path).read_text().splitlines()]
    assert [line["name"] for line in lines].count("event") == 1
    assert lines[-1]["name"] == "stop"


def resource(run: HandMadeRun, uid: str = "theirs", **extra: Any) -> dict[str, Any]:
    """Return a resource document of somebody else's."""
    said = {
        "spec": "AD_HDF5",
        "root": "/data",
        "resource_path": "x.h5",
        "resource_kwargs": {},
        "path_semantics": "posix",
    }
    return {"uid": uid, **said, "run_start": run.uid, **extra}
