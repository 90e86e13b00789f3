"""Documents without pixels on their way back: replay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["replay_row"]

OURS = "gently-bluesky"


def replay_row(*, quick: bool) -> Row:
    """Return the row of replay."""
    events = 10_000 if quick else 50_000
    return Row(
        name="replay",
        title="Replay of scalar documents",
        text=(
            f"A recorded run of {events:,} events of two numbers each is replayed into a callback that does nothing. "
            "The floor parses the same lines and calls the callback with what they hold."
        ),
        metrics=(Metric("documents_per_s", "documents/s", 0),),
        contenders=(
            Contender(OURS, "documents.replayed", options={"events": events}),
            Contender(
                "lines parsed", "documents.lines_parsed", "floor", {"events": events}, note="orjson.loads"
            ),
        ),
        goals=(
            Goal(
                "replay of scalar documents",
                "≥ 50,000 documents/s",
                "documents_per_s",
                OURS,
                at_least=50_000.0,
                unit="documents/s",
            ),
        ),
        rounds=5,
    )


def _record(place: Place, events: int) -> Path:
    """Record a run of events of two numbers; return its journal."""
    from event_model import compose_run

    from gently_bluesky import Store

    run = compose_run()
    keys = {
        name: {"dtype": "number", "shape": [], "source": "benchmark"} for name in ("position_um", "power_mw")
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    with Store(place.scratch / "recorded") as store:
        writer = store.writer()
        writer("start", run.start_doc)
        writer("descriptor", stream.descriptor_doc)
        for number in range(events):
            data = {"position_um": 0.1625 * number, "power_mw": 20.0}
            writer("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.7e9 + number)))
        writer("stop", run.compose_stop())
        return store.root / store.record(run.start_doc["uid"]).path


def _nothing(name: str, doc: dict[str, Any]) -> None:
    """Take a document and do nothing."""


@contextmanager
def replayed(place: Place, events: int) -> Iterator[Sampler]:
    """Replay with ours."""
    from gently_bluesky import replay

    journal = _record(place, events)

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        replay(journal, _nothing)
        return {"documents_per_s": (events + 3) / (time.perf_counter() - begun_s)}

    yield sample


@contextmanager
def lines_parsed(place: Place, events: int) -> Iterator[Sampler]:
    """Parse the lines and no more."""
    import orjson

    journal = _record(place, events)

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        with journal.open("rb") as file:
            for line in file:
                parsed = orjson.loads(line)
                _nothing(parsed["name"], parsed["doc"])
        return {"documents_per_s": (events + 3) / (time.perf_counter() - begun_s)}

    yield sample
