"""What importing costs before anything is done."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

OURS, BARE = "import gently_bluesky", "bare Python"


def row(*, quick: bool) -> Row:
    """Return the row."""

    def contender(name: str, code: str, kind: Any) -> Contender:
        return Contender(name, "startup.python", kind, {"code": code})

    return Row(
        name="import",
        title="Import",
        text="A new Python process that imports and ends, from its start to its end.",
        metrics=(Metric("process_ms", "ms", 0, "less"),),
        contenders=(
            contender(OURS, "import gently_bluesky", "ours"),
            contender("from gently_bluesky import Store", "from gently_bluesky import Store", "ours"),
            contender("import bluesky", "import bluesky.run_engine", "peer"),
            contender(BARE, "pass", "floor"),
        ),
        goals=(
            Goal(
                "`import gently_bluesky`, over bare Python",
                "≤ 60 ms",
                "process_ms",
                OURS,
                BARE,
                "difference",
                at_most=60.0,
                unit="ms",
            ),
        ),
        rounds=5 if quick else 15,
    )


@contextmanager
def python(place: Place, code: str) -> Iterator[Sampler]:
    """Run a process."""

    def sample(folder: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
        return {"process_ms": 1e3 * (time.perf_counter() - begun_s)}

    sample(place.scratch)
    yield sample
