"""What every test has: a RunEngine, a store in a temporary folder, and the duty to leave nothing behind."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.register_assert_rewrite("gently_bluesky.testing")

from memory_left import clear  # noqa: E402 # after the line above, which has to come first

from gently_bluesky import Store  # noqa: E402
from gently_bluesky.segments import is_segment_name, owner_of, shared_folder  # noqa: E402

LASTING = ("bluesky-run-engine", "ophyd", "asyncio", "ThreadPoolExecutor", "Dummy", "pytest", "zarr_io")
"""Threads that libraries start once and keep: they are not ours to end."""


KNOWS_CHILDREN = Path("/proc/thread-self/children").exists()
"""Which takes a hundredth of the time that it takes to look at all processes."""


def children(of: int | str = "self") -> set[int]:
    """The ids of the processes that a process has started, and of those that these have."""
    if not KNOWS_CHILDREN:
        import psutil

        return {child.pid for child in psutil.Process().children(recursive=True)}
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{of}/task"):  # noqa: PTH208 # twice in each test
            with suppress(FileNotFoundError, ProcessLookupError):
                found.update(map(int, Path(f"/proc/{of}/task/{thread}/children").read_text().split()))
    return found.union(*map(children, found))


def segments() -> set[str]:
    """The names of what is in memory that processes share, whosever it is."""
    return set(filter(is_segment_name, os.listdir(shared_folder())))  # noqa: PTH208 # as above


def is_below(folder: Path, segment: str) -> bool:
    """Say whether a segment was made for a store below a folder."""
    owner = owner_of(segment)
    return owner is not None and Path(owner.root).is_relative_to(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave every n-th case of a test that asks for a sample in the normal run, and the others to the long one."""
    seen: Counter[str] = Counter()
    for item in items:
        sample = item.get_closest_marker("sampled")
        if sample is not None:
            name = item.nodeid.partition("[")[0]
            if seen[name] % sample.kwargs["every"]:
                item.add_marker("long")
            seen[name] += 1


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test that leaves a thread or a process of ours running, or pixels in memory that processes share."""
    threads, started, shared = set(threading.enumerate()), children(), segments()
    folder = tmp_path_factory.getbasetemp()  # not that of tests that run beside these
    yield
    deadline_s = time.monotonic() + 5
    while True:
        left: list[object] = [
            thread.name
            for thread in threading.enumerate()
            if thread not in threads and not thread.name.startswith(LASTING)
        ]
        left += [f"process {child}" for child in children() - started]
        left += [segment for segment in segments() - shared if is_below(folder, segment)]
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
    """An empty store, closed at the end; what is in memory of it goes."""
    with Store(root) as opened:
        yield opened
    clear(root)


@pytest.fixture
def RE() -> Iterator[object]:
    """A real RunEngine, its loop ended afterwards."""
    from bluesky import RunEngine

    engine = RunEngine({}, call_returns_result=False)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
