"""What the tests of damage, hostility and chance have beside the others' fixtures: a process that forks children."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash")]

from zygote import Zygote  # noqa: E402 # found by the line above

HELPERS = ["stores.py", "damage.py", "jobs.py", "meeting.py", "living.py"]
collect_ignore = HELPERS if sys.platform != "win32" else ["."]


@pytest.fixture(scope="session")
def children() -> Iterator[Zygote]:
    """The process that forks children for this folder's jobs."""
    process = Zygote(HERE / "jobs.py")
    yield process
    process.close()
