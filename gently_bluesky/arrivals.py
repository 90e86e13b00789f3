"""Notices runs as they begin, in whatever process: for displays that are started before the run.

The folder of the day is looked at, so that no index is asked while nothing begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.documents.live import is_live
from gently_bluesky.errors import JournalDamaged, NotYetStored, UnknownUid
from gently_bluesky.index.index import Index
from gently_bluesky.model import Record, is_derived
from gently_bluesky.watching import PATIENCE_S, JournalIndex, deadline, load_backends, pauses

__all__ = ["next_run"]

UNSURE_NS: Final = 2 * 10**9
"""A folder that changed so lately may have changed again at the same time: some file systems tell it coarsely."""

TO_THE_SECOND: Final = len("runs/2026/11/21/143005")
"""A run's folder begins with the time of its start, so that by name they are in order up to here."""


def next_run(
    journals: Journals, index: Index, after: Record | None, timeout_s: float | None
) -> tuple[Index, Record]:
    """Return the acquired run that began next after another one, by the times of their start documents.

    Without ``after``: the newest one that is being written, or else the next one to begin. With the record
    comes the index that knows the run already.

    Raises
    ------
    NotYetStored
        There was none in this time.
    InvalidSetting
        ``timeout_s`` is no time.
    """
    give_up_s = deadline(timeout_s)
    roots = [root for root in (journals.root, journals.overflow) if root is not None]
    arrivals = [_Arrivals(root, after) for root in roots]
    if after is not None:
        records = index.query(since=after.time, derived=False)
        later = [one for one in records if (one.time, one.uid) > (after.time, after.uid)]
        if later:
            return index, later[-1]
    pause_s = pauses()
    is_first = True
    while True:
        if begun := [one for there in arrivals for one in there.look()]:
            _, uid, journal = max(begun) if is_first and after is None else min(begun)
            return _known(journals, index, journal, uid)
        if is_first and timeout_s != 0:
            load_backends()
        is_first = False
        now_s = time.monotonic()
        if now_s >= give_up_s:
            since = "" if after is None else f" since {after.uid[:8]}"
            raise NotYetStored(
                f"no run has begun in {journals.root}{since}; after {timeout_s:g} s: wait again, or longer"
            )
        time.sleep(min(pause_s(), max(give_up_s - now_s, 0)))


def _known(journals: Journals, index: Index, journal: str, uid: str) -> tuple[Index, Record]:
    """Return the record, and the store's index if that has it: it may be behind for a moment, or a copy."""
    give_up_s = time.monotonic() + (PATIENCE_S if index.is_shared else 0)
    pause_s = pauses()
    while True:
        try:
            return index, index.record(uid)
        except UnknownUid:
            if time.monotonic() >= give_up_s:
                own = JournalIndex(journals, journal)
                return own, own.record(uid)
        time.sleep(pause_s())


class _Arrivals:
    """Sees each run once its start is announced: first those that are being written, then the new ones."""

    def __init__(self, root: Path, after: Record | None) -> None:
        self._root = root
        self._after = after
        self._day = ""
        self._changed_ns = 0
        self._sure = False
        self._seen: set[str] = set()
        self._pending: set[str] = set()
        self._is_first = True

    def look(self) -> Iterator[tuple[float, str, str]]:
        """Yield time, uid and journal of acquired runs whose start was not announced at the last look."""
        for folder in self._new_folders():
            if not self._is_first or self._is_open(folder) or self._is_later(folder):
                self._pending.add(folder)
        self._is_first = False
        for folder in list(self._pending):
            start = self._start(folder)
            if start is not None:
                self._pending.discard(folder)
                if self._is_wanted(start):
                    yield start["time"], start["uid"], f"{folder}/documents.jsonl"

    def _new_folders(self) -> list[str]:
        day = _newest_day(self._root)
        if day is None:
            return []
        changed_ns = os.stat(self._root / day).st_mtime_ns  # noqa: PTH116 # many times a second
        if day == self._day and changed_ns == self._changed_ns and self._sure:
            return []
        self._sure = time.time_ns() - changed_ns > UNSURE_NS
        self._day, self._changed_ns = day, changed_ns
        names = os.listdir(self._root / day)  # noqa: PTH208 # as above
        there = {f"{day}/{name}" for name in names if not name.endswith(".jsonl")}
        new, self._seen = there - self._seen, there
        return sorted(new)

    def _is_open(self, folder: str) -> bool:
        """Say whether it is written, or has only just been made."""
        return is_live(self._root / folder) or not (self._root / folder / "documents.jsonl").exists()

    def _is_later(self, folder: str) -> bool:
        """Say whether the run may be one that has begun, and ended, since ``after``."""
        return self._after is not None and folder[:TO_THE_SECOND] >= self._after.path[:TO_THE_SECOND]

    def _start(self, folder: str) -> Mapping[str, Any] | None:
        try:
            line = next(read_journal(self._root / folder / "documents.jsonl"), None)
        except (OSError, JournalDamaged):
            return None  # not made yet, or gone again
        return line.doc if line is not None and line.name == "start" else None

    def _is_wanted(self, start: Mapping[str, Any]) -> bool:
        after = self._after
        is_later = after is None or (start["time"], start["uid"]) > (after.time, after.uid)
        return is_later and not is_derived(start)


def _newest_day(root: Path) -> str | None:
    path = "runs"
    for _ in ("year", "month", "day"):
        try:
            names = os.listdir(root / path)  # noqa: PTH208 # many times a second
        except FileNotFoundError:
            return None
        newest = max((name for name in names if name.isdigit()), default=None)
        if newest is None:
            return None
        path = f"{path}/{newest}"
    return path
