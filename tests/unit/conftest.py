"""For the tests of the front door: runs made of documents, as a RunEngine makes them, without one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from gently_bluesky import Store

STEPS = {"camera_pixel_size_um": [0.1625, 0.25], "camera_z_step_um": 1.5}


def as_data_key(value: object) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    shape = list(np.shape(value)) if isinstance(value, np.ndarray | list) else []
    return {"source": "test", "dtype": kinds.get(type(value), "array"), "shape": shape}


@pytest.fixture(scope="session")
def acquire() -> Callable[..., str]:
    """Send a whole run to a store's writer; return its uid."""

    def send(
        store: Store,
        events: Mapping[str, Sequence[Mapping[str, Any]]] | Sequence[Mapping[str, Any]],
        *,
        backend: str = "zarr",
        start: Mapping[str, Any] | None = None,
        seq_nums: Sequence[int] | None = None,
        stop: bool = True,
        **settings: Any,
    ) -> str:
        streams = events if isinstance(events, Mapping) else {"primary": events}
        md = {"plan_name": "count", **(start or {})}
        run = compose_run(time=md.pop("time", time.time()), uid=md.pop("uid", None), metadata=md)
        with store.writer(format=backend, **settings) as writer:
            writer("start", run.start_doc)
            for stream, of_stream in streams.items():
                bundle = run.compose_descriptor(
                    name=stream,
                    data_keys={key: as_data_key(value) for key, value in of_stream[0].items()},
                    object_keys={"camera": list(of_stream[0])},
                    configuration={
                        "camera": {
                            "data": STEPS,
                            "timestamps": dict.fromkeys(STEPS, 0.0),
                            "data_keys": {name: as_data_key(value) for name, value in STEPS.items()},
                        }
                    },
                )
                writer("descriptor", bundle.descriptor_doc)
                for place, data in enumerate(of_stream):
                    event = bundle.compose_event(
                        data=dict(data),
                        timestamps=dict.fromkeys(data, 0.0),
                        seq_num=seq_nums[place] if seq_nums else None,
                        filled={},
                        validate=False,
                    )
                    writer("event", event)
            if stop:
                writer("stop", run.compose_stop(exit_status="success"))
        return run.start_doc["uid"]

    return send


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A folder for a store that every user may look into, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="gently-test-"))
    folder.chmod(0o755)
    yield folder / "store"
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    rmtree(folder)


PRELUDE = """
import os, sys
import numpy as np, dask.array
import gently_bluesky.backends.zarr, gently_bluesky.backends.tiff
from gently_bluesky import Store
from gently_bluesky.errors import *
if {unprivileged} and os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


@pytest.fixture
def in_process() -> Callable[..., str]:
    """Run a script in a fresh process, as a user without rights if need be; return what it printed."""

    def run(script: str, *arguments: object, unprivileged: bool = False, expect: int = 0) -> str:
        text = PRELUDE.format(unprivileged=unprivileged) + script
        done = subprocess.run(
            [sys.executable, "-c", text, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == expect, done.stderr
        return done.stdout.strip()

    return run
