"""Events are counted as a stop document counts them, and those that it counts and that never came are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky import Store, replay
from gently_bluesky.documents.event_count import EventCount
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.errors import EventsMissing
from gently_bluesky.model import JournalLine
from gently_bluesky.testing.documents import HandMadeRun

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=20)


def counted(ranges: list[tuple[int, int]]) -> EventCount:
    count = EventCount()
    count.note([JournalLine("descriptor", {"uid": "d", "name": "primary"})])
    for start, length in ranges:
        seq_nums = {"start": start, "stop": start + length}
        count.note([JournalLine("stream_datum", {"descriptor": "d", "seq_nums": seq_nums})])
    return count


@given(RANGES)
def test_ranges_count_as_the_numbers_that_they_hold(ranges: list[tuple[int, int]]) -> None:
    numbers = {number for start, length in ranges for number in range(start, start + length)}
    count = counted(ranges)
    assert count.num_events == {"primary": max(numbers, default=0)}
    said = {"num_events": {"primary": len(numbers) + 3, "other": 2, "none": 0}}
    assert count.missing(said) == {"primary": 3, "other": 2}
    assert count.missing({"num_events": {"primary": len(numbers)}}) == {}


def test_endless_range_takes_no_memory() -> None:
    assert counted([(1, 10**15)]).missing({"num_events": {"primary": 10**15 + 1}}) == {"primary": 1}


def send(writer: Any, run: HandMadeRun, *, lost: int, exit_status: str = "success") -> None:
    """Send a run of three events, of which one is lost on the way."""
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for number in (1, 2, 3):
        event = run.event(descriptor, camera=np.full((4, 4), number, np.uint8))
        if number != lost:
            writer("event", event)
    writer("stop", run.stop(exit_status))


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("assets", ["datum", "stream"])
def test_run_of_which_an_event_was_lost_on_the_way_is_incomplete_and_says_so(
    store: Store, lost: int, assets: str
) -> None:
    run, told = HandMadeRun(), []
    writer = store.writer(assets=assets, on_failure=told.append)
    with pytest.raises(EventsMissing, match="1 of 'primary' did not; those that came are stored") as raised:
        send(writer, run, lost=lost)
    assert told == [raised.value]
    kept = store[run.uid]
    assert (kept.status, kept.stop["exit_status"], kept.stop["num_events"]) == (
        *("incomplete", "success"),
        {"primary": 3},
    )
    assert len(kept["camera"]) == 2
    last = list(read_journal(store.root / store.record(run.uid).path))[-1]
    assert last.outcome == {
        "status": "incomplete",
        "received": 2,
        "stored": 2,
        "lost": 0,
        "missing": {"primary": 1},
    }
    send(writer, HandMadeRun(), lost=0)
    assert store[-1].status == "complete"


@pytest.mark.parametrize(("exit_status", "status"), [("abort", "aborted"), ("fail", "failed")])
def test_run_that_ended_badly_keeps_its_end_and_says_what_is_missing(
    store: Store, exit_status: str, status: str
) -> None:
    run = HandMadeRun()
    send(store.writer(), run, lost=2, exit_status=exit_status)
    assert store[run.uid].status == status
    last = list(read_journal(store.root / store.record(run.uid).path))[-1]
    assert last.outcome is not None
    assert last.outcome["missing"] == {"primary": 1}


def test_copy_of_an_incomplete_run_is_one_without_a_further_error(store: Store, tmp_path: Any) -> None:
    run = HandMadeRun()
    with pytest.raises(EventsMissing):
        send(store.writer(), run, lost=2)
    with Store(tmp_path / "copy") as copy:
        replay(store.root, copy.writer())
        assert copy[run.uid].status == "incomplete"


def test_events_that_a_rewind_took_again_count_once(store: Store) -> None:
    run, writer = HandMadeRun(), store.writer()
    descriptor = run.descriptor(number={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for seq_num in (1, 2, 3, 2, 3, 4):
        writer("event", run.event(descriptor, seq_num, number=seq_num))
    writer("stop", run.stop())
    assert store[run.uid].status == "complete"


def test_results_that_are_put_are_counted_too(store: Store) -> None:
    record = store.put(np.ones((3, 3)), data_type="mask")
    assert store.record(record.uid).status == "complete"
    assert store.record(store.put({"n": 1}, data_type="count").uid).status == "complete"
