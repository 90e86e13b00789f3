"""How fast a replay goes, and how far it is: waiting by the documents' own times, and a bar for who watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gently_bluesky.documents.merging import time_of
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.model import JournalLine
from gently_bluesky.progress import terminal_bar
from gently_bluesky.wording import many

__all__ = ["Pace", "ReplayProgress", "progress_bar"]

SHOWN_EVERY_S = 0.1
WORTH_SAYING_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is.

    Attributes
    ----------
    documents, runs
        Sent so far; runs by their starts.
    nbytes, total_nbytes
        Of the recorded files; 0 where documents were handed in.
    skipped
        Documents passed over.
    waiting_s
        Until the next document is sent, where the replay waits.
    """

    documents: int
    runs: int
    nbytes: int
    total_nbytes: int
    skipped: int
    waiting_s: float = 0.0


class Pace:
    """Waits before each document, as long as the run itself took, divided by a speed.

    Callbacks that take long delay what comes next no more than they have to: it is caught up with.

    Parameters
    ----------
    speed
        1.0 is the original timing, 10.0 ten times as fast; None does not wait.
    longest_wait_s
        No pause takes longer than this, whatever its length was; None for no such limit.

    Raises
    ------
    InvalidSetting
        One of them is no number above 0.
    """

    def __init__(self, speed: float | None, longest_wait_s: float | None) -> None:
        for name, value in (("speed", speed), ("longest_wait_s", longest_wait_s)):
            if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):  # pyright: ignore[reportUnnecessaryIsInstance] # as anywhere
                raise InvalidSetting(
                    f"{name} must be a number above 0, or None, got {value!r}; nothing was replayed"
                )
        self._speed = speed
        self._longest_s = longest_wait_s
        self._begun: float | None = None
        """What the clock would have said when a document of time 0 was due."""
        self._latest = float("-inf")

    def timed(self, lines: Iterator[JournalLine], waits: Callable[[float], object]) -> Iterator[JournalLine]:
        """Yield each line when it is due; ``waits`` is told, now and then, how many seconds are left."""
        if self._speed is None:
            yield from lines
            return
        for line in lines:
            made = time_of(line)
            if made is not None and made > self._latest:
                self._latest = made
                self._wait(made / self._speed, waits)
            yield line

    def _wait(self, offset_s: float, waits: Callable[[float], object]) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = now - offset_s
        due = self._begun + offset_s
        if self._longest_s is not None and due - now > self._longest_s:
            self._begun -= due - now - self._longest_s
            due = now + self._longest_s
        while (left_s := due - time.monotonic()) > 0:
            if left_s > WORTH_SAYING_S:
                waits(left_s)
            time.sleep(min(left_s, WORTH_SAYING_S))
        waits(0.0)


@contextmanager
def progress_bar(
    progress: bool | Callable[[ReplayProgress], object],
) -> Generator[Callable[[ReplayProgress], object] | None]:
    """Give what is to be called while a replay goes on: a bar's, if a terminal is there to show it, or the caller's."""
    if callable(progress) or not progress:
        yield progress or None
        return
    with terminal_bar("Replaying") as show:
        yield lambda now: show(now.nbytes, now.total_nbytes, _text(now))


def _text(now: ReplayProgress) -> str:
    skipped = f", {now.skipped} skipped" if now.skipped else ""
    waiting = f", next in {now.waiting_s:,.0f} s" if now.waiting_s >= WORTH_SAYING_S else ""
    return f"{now.documents:,} documents, {many(now.runs, 'run')}{skipped}{waiting}"
