"""How soon another process has what was announced: with the pool of hot frames, and from the store alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["hot_row", "live_row"]

PACE_S = 1 / 50
SETTLE_EVENTS = 10
HOT_BYTES = 512 * 2**20
FOLLOWED, PIPE = "gently-bluesky, follow()", "a line through a pipe"
FROM_STORE, FROM_POOL = "from the store", "with hot_bytes"
HOW = (
    "A RunEngine brings 50 frames of 2048 x 2048 a second to a writer with default settings; another process "
    "follows the array with `follow()`"
)


def live_row(*, quick: bool) -> Row:
    """Return the row of how soon an event is seen."""
    events = 60 if quick else 500
    return Row(
        name="live",
        title="Live reading from another process, 50 frames/s",
        text=(
            f"{HOW}, and is given each event. Latency is from the call of a subscriber of the writer, where the "
            "event is announced, to the event in the other process."
        ),
        metrics=(
            Metric("seen_ms", "seen after, p50 ms", 1, "less"),
            Metric("seen_p99_ms", "p99 ms", 1, "less"),
            Metric("seen_max_ms", "max ms", 1, "less"),
        ),
        contenders=(
            Contender(FOLLOWED, "live.following", options={"events": events, "role": "see"}),
            Contender(PIPE, "live.piped", "floor", {"events": events}, note="no store, no frames"),
        ),
        goals=(
            Goal(
                "an event is seen by another process, p99",
                "≤ 50 ms",
                "seen_p99_ms",
                FOLLOWED,
                at_most=50.0,
                unit="ms",
            ),
        ),
        rounds=2 if quick else 5,
    )


def hot_row(*, quick: bool) -> Row:
    """Return the row of how long the newest frame takes to be read."""
    events = 60 if quick else 500
    reading = {"events": events, "role": "read"}
    return Row(
        name="hot-pool",
        title="The newest frame in another process: pool of hot frames, or store",
        text=(
            f"{HOW}, each time skips to the newest event, and reads its frame: how long that takes, and how long "
            "after its announcement the frame is there."
        ),
        metrics=(
            Metric("read_ms", "read in, p50 ms", 2, "less"),
            Metric("read_p99_ms", "p99 ms", 2, "less"),
            Metric("there_ms", "there after, p50 ms", 1, "less"),
            Metric("there_p99_ms", "p99 ms", 1, "less"),
        ),
        contenders=(
            Contender(FROM_POOL, "live.following", options={**reading, "hot_bytes": HOT_BYTES}),
            Contender(FROM_STORE, "live.following", options=reading),
        ),
        rounds=2 if quick else 5,
    )


def _figures(name: str, taken_ms: list[float]) -> dict[str, float]:
    return {
        f"{name}_ms": median(taken_ms),
        f"{name}_p99_ms": quantiles(taken_ms, n=100, method="inclusive")[-1],
        f"{name}_max_ms": max(taken_ms),
    }


@contextmanager
def _child(what: str, argument: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the functions at the end of this module in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.rows.live", what, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def following(place: Place, events: int, role: str, hot_bytes: int = 0) -> Iterator[Sampler]:
    """Store at a pace, and let another process follow."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = open_bank(place.bank)
    engine = RunEngine({})

    def sample(folder: Path) -> dict[str, Any]:
        told_ns: list[int] = []

        def announced(name: str, doc: Mapping[str, Any]) -> None:
            if name == "event":
                told_ns.append(time.monotonic_ns())

        with Store(folder / "store") as store, _child(role, str(store.root)) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            writer = store.writer(hot_bytes=hot_bytes)
            writer.subscribe(announced)
            engine(acquire([BankCamera(bank)], events, interval_s=PACE_S), writer)
            seen = json.loads(reader.stdout.readline())
        late = [
            ((at - told_ns[number]) / 1e6, (there - at) / 1e6, (there - told_ns[number]) / 1e6)
            for number, at, there in seen
            if number >= SETTLE_EVENTS
        ]
        found, read, there = (list(column) for column in zip(*late, strict=True))
        return {**_figures("seen", found), **_figures("read", read), **_figures("there", there)}

    yield sample


@contextmanager
def piped(place: Place, events: int) -> Iterator[Sampler]:
    """Write lines to a process that says when it read them."""

    def sample(_: Path) -> dict[str, Any]:
        told_ns: list[int] = []
        with _child("listen", str(events)) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            for _ in range(events):
                threading.Event().wait(PACE_S)
                told_ns.append(time.monotonic_ns())
                reader.stdin.write("\n")
                reader.stdin.flush()
            seen = json.loads(reader.stdout.readline())
        return _figures("seen", [(at - told) / 1e6 for told, at in zip(told_ns, seen, strict=True)])

    yield sample


# -- in the other process ------------------------------------------------------------------------------------


def see(root: str) -> None:
    """Follow, and only look at what there is."""
    _follow(root, latest_only=False, reads=False)


def read(root: str) -> None:
    """Follow the newest, and read it."""
    _follow(root, latest_only=True, reads=True)


def _follow(root: str, *, latest_only: bool, reads: bool) -> None:
    """Follow the only run of a store; say which event was seen when, and when its pixels were there."""
    import tensorstore  # noqa: F401 # imported before it matters

    from gently_bluesky import Store

    seen: list[tuple[int, int, int]] = []
    with Store(root, mode="r") as store:
        print("ready", flush=True)
        array = store.wait_for_run().wait("primary", "camera")
        for event in array.follow(0, latest_only=latest_only):
            at_ns = time.monotonic_ns()
            if reads:
                assert np.asarray(event)[-1, -1] > 0
            seen.append((int(event.uid.rpartition("/")[2]), at_ns, time.monotonic_ns()))
    print(json.dumps(seen), flush=True)


def listen(events: str) -> None:
    """Say when each line came."""
    print("ready", flush=True)
    seen: list[int] = []
    for _ in range(int(events)):
        sys.stdin.readline()
        seen.append(time.monotonic_ns())
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    ROLES: dict[str, Callable[[str], None]] = {"see": see, "read": read, "listen": listen}
    ROLES[sys.argv[1]](sys.argv[2])
