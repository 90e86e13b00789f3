"""How many events of each stream of a run came, told by their ``seq_num``, and how many a stop says there were."""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from gently_bluesky.errors import EventsMissing
from gently_bluesky.model import JournalLine

__all__ = ["EventCount", "events_missing", "own_stop"]


class EventCount:
    """Counts the events of one run; of those that a rewind took again the ``seq_num`` counts once."""

    def __init__(self) -> None:
        self._streams: dict[str, str] = {}
        self._numbers: dict[str, _Numbers] = {}

    def note(self, lines: Iterable[JournalLine]) -> None:
        """Take announced documents into account; those that count nothing are ignored."""
        for line in lines:
            name, doc = line.name, line.doc
            if name == "descriptor":
                stream = self._streams[doc["uid"]] = doc.get("name", "primary")
                self._numbers.setdefault(stream, _Numbers())
            elif name in {"event", "stream_datum"} and doc["descriptor"] in self._streams:
                numbers = self._numbers[self._streams[doc["descriptor"]]]
                if name == "event":
                    numbers.add(doc["seq_num"], doc["seq_num"] + 1)
                else:
                    numbers.add(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])

    @property
    def num_events(self) -> dict[str, int]:
        """By stream, the last ``seq_num``: what a stop document counts."""
        return {stream: numbers.last for stream, numbers in self._numbers.items()}

    def missing(self, stop: Mapping[str, Any]) -> dict[str, int]:
        """Return by stream how many more events a stop document counts than there were, if there are such."""
        counts = {
            stream: said - (self._numbers[stream].count if stream in self._numbers else 0)
            for stream, said in stop.get("num_events", {}).items()
        }
        return {stream: count for stream, count in counts.items() if count > 0}


def events_missing(run_uid: str, missing: Mapping[str, int]) -> EventsMissing:
    """Return the error for a run of which so many events did not come, by stream."""
    counts = ", ".join(f"{count} of {stream!r}" for stream, count in missing.items())
    return EventsMissing(
        f"run {run_uid[:8]}: its stop document counts more events than came: {counts} did not; those that came are "
        "stored and announced, and the run is on record as incomplete; look at what is between the RunEngine and "
        "this writer"
    )


def own_stop(run_uid: str, num_events: Mapping[str, int]) -> dict[str, Any]:
    """Return the stop document that a run gets for want of one."""
    return {
        "uid": str(uuid.uuid4()),
        "run_start": run_uid,
        "time": time.time(),
        "exit_status": "abort",
        "reason": "the writer was closed before a stop document came",
        "num_events": dict(num_events),
    }


class _Numbers:
    """A set of whole numbers, kept as ranges that do not touch: a few, however many numbers they hold."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.count = 0

    @property
    def last(self) -> int:
        """The greatest of them, or 0."""
        return self._stops[-1] - 1 if self._stops else 0

    def add(self, start: int, stop: int) -> None:
        """Take in a range, of which some or all may be there already."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)  # the ranges from `first` to `end` touch the new one
        end = first
        while end < len(self._starts) and self._starts[end] <= stop:
            self.count -= self._stops[end] - self._starts[end]
            end += 1
        if first < end:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[end - 1])
        self._starts[first:end] = [start]
        self._stops[first:end] = [stop]
        self.count += stop - start
