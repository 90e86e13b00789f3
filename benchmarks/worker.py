"""The child process that takes samples: ``python -m benchmarks.worker``, driven by ``workers.py``.

It reads lines of JSON from its standard input and answers each with one line on what was its standard output;
whatever a library prints goes to standard error. The first line names a task, a context manager that sets
up what is to be measured, and every further one a folder in which to take one sample of it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

__all__ = ["Place", "Sampler", "Task"]


@dataclass(frozen=True)
class Place:
    """What every task is told: where the frames are, and a folder of its own for as long as it runs."""

    bank: Path
    scratch: Path


Sampler = Callable[[Path], dict[str, Any]]
"""Takes one sample in an empty folder; returns figures by name."""
Task = Callable[..., AbstractContextManager[Sampler]]


def find_task(name: str) -> Task:
    """Return ``benchmarks.rows.<module>.<function>``."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(f"benchmarks.rows.{module}"), function)


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Set up one task and take samples until there are no more orders."""

    def answer(**said: Any) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    first = json.loads(orders.readline())
    place = Place(Path(first["bank"]), Path(first["scratch"]))
    try:
        with find_task(first["task"])(place, **first["options"]) as sample:
            answer(ready=True)
            for line in orders:
                answer(sample=sample(Path(json.loads(line)["folder"])))
    except Exception:  # noqa: BLE001 # said in the table, in the place of a figure
        answer(error=traceback.format_exc())


def main() -> None:
    """Keep the answers apart from what libraries print."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
