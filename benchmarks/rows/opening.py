"""Whether a long run costs more to open than a short one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.rows.planes import bytes_read
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

SHORT = 10
FRAME_YX = (16, 16)
OURS, SHORT_RUN = "a long run", "a run of 10 events"


def row(*, quick: bool) -> Row:
    """Return the row."""
    events = 500 if quick else 10_000
    return Row(
        name="opening",
        title=f"Opening a run of {events:,} events",
        text=(
            f"A store holds a run of {events:,} events and one of {SHORT}, with a small frame each. A new process "
            'opens it to read, asks for `store[uid]["primary"]["camera"]`, and then reads the last frame. The time is '
            "that of asking; bytes are those that the process asked the system for meanwhile."
        ),
        metrics=(
            Metric("opening_ms", "opening, ms", 2, "less"),
            Metric("read_kb", "kB read", 0, "less"),
            Metric("last_ms", "last frame, ms", 2, "less"),
            Metric("store_ms", "opening the store, ms", 1, "less"),
        ),
        contenders=(
            Contender(OURS, "opening.opened", options={"which": "long"}),
            Contender(SHORT_RUN, "opening.opened", options={"which": "short"}),
        ),
        goals=(
            Goal(
                f"opening a run of {events:,} events, over one of {SHORT}",
                "≤ 1.2 x",
                "opening_ms",
                OURS,
                SHORT_RUN,
                "ratio",
                at_most=1.2,
                unit="x",
                headline=False,
            ),
        ),
        rounds=3 if quick else 9,
        fresh=True,
        prepare=Contender(f"storing {events:,} events", "opening.two_runs", options={"events": events}),
    )


@contextmanager
def two_runs(place: Place, events: int) -> Iterator[Sampler]:
    """Store both runs, without a RunEngine, which would take longer than all else."""
    from event_model import compose_run

    from gently_bluesky import Store

    def store_run(writer: Any, count: int) -> str:
        run = compose_run()
        keys = {"camera": {"dtype": "array", "shape": list(FRAME_YX), "source": "benchmark"}}
        stream = run.compose_descriptor(name="primary", data_keys=keys)
        writer("start", run.start_doc)
        writer("descriptor", stream.descriptor_doc)
        for number in range(count):
            frame = np.full(FRAME_YX, number % 60_000 + 1, np.uint16)
            writer("event", stream.compose_event(data={"camera": frame}, timestamps={"camera": 1.7e9}))
        writer("stop", run.compose_stop())
        return run.start_doc["uid"]

    def sample(folder: Path) -> dict[str, Any]:
        with Store(folder / "store") as store:
            writer = store.writer()
            return {
                "root": str(store.root),
                "runs": {"short": store_run(writer, SHORT), "long": store_run(writer, events)},
            }

    yield sample


@contextmanager
def opened(place: Place, root: str, runs: dict[str, str], which: str) -> Iterator[Sampler]:
    """Open one of them."""
    import tensorstore  # noqa: F401 # reading imports it

    import gently_bluesky.backends.zarr  # noqa: F401 # and this
    from gently_bluesky import Store

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        with Store(root, mode="r") as store:
            store_s = time.perf_counter() - begun_s
            read_before, begun_s = bytes_read(), time.perf_counter()
            array = store[runs[which]]["primary"]["camera"]
            shape = array.shape
            opening_s = time.perf_counter() - begun_s
            read = [after - before for before, after in zip(read_before, bytes_read(), strict=True)]
            begun_s = time.perf_counter()
            last = np.asarray(array[-1])
            last_s = time.perf_counter() - begun_s
        assert last[0, 0] == (shape[0] - 1) % 60_000 + 1
        figures = {"opening_ms": 1e3 * opening_s, "last_ms": 1e3 * last_s, "store_ms": 1e3 * store_s}
        return {**figures, "read_kb": read[0] / 1e3} if read else figures

    yield sample
