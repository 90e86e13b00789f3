"""A night's worth of events leaves a process with what it began with: threads, descriptors, segments, files, memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from memory_left import clear
from zygote import Zygote

NAMES = ("threads", "descriptors", "segments", "files")
HEAP_BYTES_PER_EVENT = 800
RSS_BYTES_PER_EVENT = 1024
BLOCKS_PER_EVENT = 6
"""Small objects; a document is three times as many. What is remembered of an ended run, to know it again, are 20."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A store; what is in memory of it goes after the test."""
    yield tmp_path / "store"
    clear(tmp_path / "store")


def endured(zygote: Zygote, root: Path, **how: Any) -> list[dict[str, int]]:
    child = zygote.start("endure", root=str(root), **how)
    try:
        return child.result()
    finally:
        child.kill()


def growth(samples: list[dict[str, int]], name: str) -> float:
    """How much more there was in the last third than in the one before it, when all was warm."""
    third = len(samples) // 3
    earlier, later = samples[third : 2 * third], samples[-third:]
    return median(sample[name] for sample in later) - median(sample[name] for sample in earlier)


def what_grows(samples: list[dict[str, int]], *, is_long: bool) -> dict[str, float]:
    """Return what a process holds ever more of, by half of one a cycle, or by so much for each event."""
    events = growth(samples, "events")
    found = {name: growth(samples, name) / (len(samples) / 3) for name in NAMES}
    grown = {name: rate for name, rate in found.items() if rate >= 0.5}
    bounds = {"heap": HEAP_BYTES_PER_EVENT, "blocks": BLOCKS_PER_EVENT, "rss": RSS_BYTES_PER_EVENT}
    for name, bound in bounds.items():
        rate = growth(samples, name) / events
        if rate >= bound and (is_long or name != "rss"):  # pages come and go: they tell only in the long run
            grown[name] = rate
    return grown


def test_nothing_grows_from_run_to_run(zygote: Zygote, root: Path) -> None:
    samples = endured(zygote, root, cycles=18, events=10)
    assert what_grows(samples, is_long=False) == {}


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_nothing_grows_in_a_night(zygote: Zygote, root: Path) -> None:
    """Over 10,000 events in 300 runs, and 240 results."""
    samples = endured(zygote, root, cycles=120, events=36)
    assert samples[-1]["events"] > 10_000
    assert what_grows(samples, is_long=True) == {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("leak", "grows"), [("descriptor", "descriptors"), ("kilobyte", "heap"), ("document", "blocks")]
)
def test_a_small_leak_is_noticed(zygote: Zygote, root: Path, leak: str, grows: str) -> None:
    samples = endured(zygote, root, cycles=12, events=10, leak=leak)
    assert set(what_grows(samples, is_long=False)) == {grows}
