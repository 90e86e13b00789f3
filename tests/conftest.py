"""What every test has: a RunEngine, a store in a temporary folder, and the duty to leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.register_assert_rewrite("gently_bluesky.testing")

from gently_bluesky import Store  # noqa: E402 # after the line above, which has to come first

LASTING = ("bluesky-run-engine", "ophyd", "asyncio", "ThreadPoolExecutor", "Dummy", "pytest", "zarr_io")
"""Threads that libraries start once and keep: they are not ours to end."""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a process of ours running."""
    threads = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    yield
    deadline_s = time.monotonic() + 5
    while True:
        left: list[object] = [
            thread.name
            for thread in threading.enumerate()
            if thread not in threads and not thread.name.startswith(LASTING)
        ]
        left += [child for child in psutil.Process().children(recursive=True) if child not in children]
        if not left:
            return
        if time.monotonic() > deadline_s:
            pytest.fail(f"left behind: {left}")
        threading.Event().wait(0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for a store, not made yet."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """An empty store, closed at the end."""
    with Store(root) as opened:
        yield opened


@pytest.fixture
def RE() -> Iterator[object]:
    """A real RunEngine, its loop ended afterwards."""
    from bluesky import RunEngine

    engine = RunEngine({}, call_returns_result=False)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
