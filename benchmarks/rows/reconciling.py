"""What opening a store for writing costs that has nothing to mend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.journals import write_pattern
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

EVENTS = 3
OURS = "opening a store with nothing to mend"


def row(*, quick: bool) -> Row:
    """Return the row."""
    runs = 200 if quick else 10_000
    return Row(
        name="reconcile",
        title=f"Opening a store of {runs:,} runs for writing",
        text=(
            f"Runs of {EVENTS} events with a frame each, all of them ended and indexed. A new process opens the store "
            "for writing, which compares journals, files and index, and finds nothing to do. The floor asks the system "
            "for the length of each journal."
        ),
        metrics=(Metric("opening_s", "s", 3, "less"), Metric("per_run_us", "µs a run", 1, "less")),
        contenders=(
            Contender(OURS, "reconciling.opened"),
            Contender(
                "the length of each journal", "reconciling.measured", "floor", note="Path.glob and stat"
            ),
        ),
        goals=(
            Goal(
                f"a clean store of {runs:,} runs is opened", "≤ 1 s", "opening_s", OURS, at_most=1.0, unit="s"
            ),
        ),
        rounds=3 if quick else 5,
        fresh=True,
        prepare=Contender(f"storing {runs:,} runs", "reconciling.clean_store", options={"runs": runs}),
    )


@contextmanager
def clean_store(place: Place, runs: int) -> Iterator[Sampler]:
    """Write the journals of many runs, and have them indexed."""
    from gently_bluesky import Store

    pattern = write_pattern(place, EVENTS)

    def sample(folder: Path) -> dict[str, Any]:
        root = folder / "store"
        Store(root).close()
        for _ in range(runs):
            _, journal, text = pattern.copy()
            (root / journal).parent.mkdir(parents=True)
            (root / journal).write_text(text, "utf-8")
        Store(root).close()
        return {"root": str(root), "runs": runs}

    yield sample


@contextmanager
def opened(place: Place, root: str, runs: int) -> Iterator[Sampler]:
    """Open it."""
    from gently_bluesky import Store

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        with Store(root) as store:
            taken_s = time.perf_counter() - begun_s
            found = store.last_reconciliation
            assert found is not None
            assert not found.changes
            assert not found.needs_attention
        return {"opening_s": taken_s, "per_run_us": 1e6 * taken_s / runs}

    yield sample


@contextmanager
def measured(place: Place, root: str, runs: int) -> Iterator[Sampler]:
    """Ask for the length of each journal."""

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        lengths = [path.stat().st_size for path in Path(root).glob("runs/*/*/*/*/documents.jsonl")]
        taken_s = time.perf_counter() - begun_s
        assert len(lengths) == runs
        return {"opening_s": taken_s, "per_run_us": 1e6 * taken_s / runs}

    yield sample
