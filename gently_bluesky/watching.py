"""Notices what is announced of a run, by whatever process, and how the run ends.

Looking costs the length of the journal, nothing more: the index is asked only when that has changed, and the
lock of the run only now and then. No writer is hindered, and nothing is written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Executable, Row

from gently_bluesky.backends.registry import BUILTIN, get_backend
from gently_bluesky.documents.continued import Journals
from gently_bluesky.errors import AssetMissing, InvalidSetting, NotYetStored, RunEnded
from gently_bluesky.index.index import Index
from gently_bluesky.upkeep.journals import whole_lines

__all__ = ["PATIENCE_S", "JournalIndex", "Look", "RunWatch", "deadline", "load_backends", "pauses"]

SHORTEST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.01
LONGER: Final = 1.25
"""A pause in which nothing happened is followed by one so many times as long."""

LIFE_S: Final = 0.1
"""While nothing happens, it is asked so often whether the run's process lives."""

PATIENCE_S: Final = 0.25
"""An index that lags behind the journal for longer is not kept by who writes the run."""

Found = TypeVar("Found")


@dataclass(slots=True)
class Look:
    """What one who waits has seen of a run: how long its journal was, and how much of it was indexed."""

    size: int = -1
    end: int = -1
    behind_since_s: float | None = None
    status: str | None = None


class JournalIndex(Index):
    """An index in memory of one journal, which it follows: for those who have none that writers keep.

    Raises
    ------
    AssetMissing, JournalDamaged
        The journal is not there, or not what a writer writes. Asking raises these too.
    """

    def __init__(self, journals: Journals, journal: str) -> None:
        super().__init__("sqlite://")
        self._journals = journals
        self._journal = journal
        self._turn = threading.RLock()
        self._seen = (0, 0)
        self._following = False
        self.reach(journal)

    def rows(self, statement: Executable, **parameters: object) -> Sequence[Row[Any]]:
        """Return the rows that a statement reads, of all that is in the journal."""
        with self._turn:
            if not self._following:
                self._following = True
                try:
                    self._follow()
                finally:
                    self._following = False
        return super().rows(statement, **parameters)

    def _follow(self) -> None:
        seen = _size(self._journals, self._journal)
        if seen == self._seen:
            return
        known = self.reach(self._journal)
        # else whoever recovered the run cut off what was not whole, and wrote the end of the run there
        if seen[0] != self._seen[0] or not self._journals.ends_line(self._journal, known):
            known = 0
        scan = self._journals.scan(self._journal, known)
        lines, end = whole_lines(self._journals.root / self._journal, known, scan)
        if lines:
            self.add(self._journal, lines, end, begin=known, anew=known == 0)
        self._seen = seen


class RunWatch:
    """Notices what is announced of one run. Any thread; what one waiter has seen is in its `Look`.

    Parameters
    ----------
    journals
        Of the store.
    index
        Of the store; where writers do not keep it, it is replaced by one of the run's journal.
    run_uid
        Of the run.
    """

    def __init__(self, journals: Journals, index: Index, run_uid: str) -> None:
        self._journals = journals
        self._index = index
        self._run_uid = run_uid
        self._journal: str | None = None
        self._lock = threading.Lock()

    @property
    def index(self) -> Index:
        """What answers for this run."""
        return self._index

    def until(
        self,
        ask: Callable[[Index], Found | None],
        tell: Callable[[Index], str],
        timeout_s: float | None,
        look: Look | None = None,
    ) -> Found:
        """Return what ``ask`` answers, as soon as it is not None; it is asked again whenever there is news.

        Parameters
        ----------
        ask
            Asks an index.
        tell
            Says what was waited for and what there is, for messages.
        timeout_s
            Longest wait; None has no end.
        look
            Of a waiter that comes again.

        Raises
        ------
        NotYetStored
            In this time there was no answer, and the run goes on.
        RunEnded
            There is no answer, and the run has ended.
        InvalidSetting
            ``timeout_s`` is no time.
        """
        look = look or Look()
        give_up_s = deadline(timeout_s)
        pause_s = pauses()
        life_s = 0.0
        while True:
            if self._has_news(look):
                if (found := self._answer(ask, look)) is not None:
                    return found
                pause_s, life_s = pauses(), 0.0
            now_s = time.monotonic()
            if now_s >= life_s:
                life_s = now_s + LIFE_S
                if (status := self._ended(look)) is not None:
                    if (found := self._answer(ask, look)) is not None:
                        return found
                    raise RunEnded(
                        f"{tell(self._index)}; the run has ended ({status}): there will be no more"
                    )
            if now_s >= give_up_s:
                raise NotYetStored(
                    f"{tell(self._index)}; after {timeout_s:g} s the run goes on: wait again, or for longer"
                )
            time.sleep(min(pause_s(), max(give_up_s - now_s, 0)))

    def ended(self) -> str | None:
        """Return how the run has ended, or None while it goes on."""
        return self._ended(Look())

    def status(self) -> str:
        """Return how the run stands, as `Record` has it; without an end on record, and a process, incomplete."""
        look = Look()
        ended = self._ended(look)
        return "running" if ended is None else "incomplete" if look.status == "running" else ended

    def _answer(self, ask: Callable[[Index], Found | None], look: Look) -> Found | None:
        try:
            return ask(self._index)
        except BaseException:
            look.end = -1  # nothing was answered: the news are news the next time too
            raise

    def _has_news(self, look: Look) -> bool:
        """Say whether more is indexed of the run than when last looked."""
        size = self._size()
        if size == look.size and look.end >= size:
            return False
        end = self._indexed(size, look)
        is_new = end != look.end
        look.size, look.end = size, end
        if is_new:
            look.status = None
        return is_new

    def _indexed(self, size: int, look: Look) -> int:
        index = self._index
        end = index.reach(self._journal_name())
        if end >= size or isinstance(index, JournalIndex):
            look.behind_since_s = None
            return end
        if index.is_shared:
            now_s = time.monotonic()
            look.behind_since_s = look.behind_since_s or now_s
            if now_s - look.behind_since_s < PATIENCE_S:
                return end
        self._read_journal()
        return self._index.reach(self._journal_name())

    def _read_journal(self) -> None:
        """Ask the journal itself from now on."""
        with self._lock:
            if not isinstance(self._index, JournalIndex):
                self._index = JournalIndex(self._journals, self._journal_name())

    def _ended(self, look: Look) -> str | None:
        if look.status is None:
            look.status = self._status()
        if look.status == "running" and not self._journals.is_live(self._journal_name()):
            # it ended since we asked, or its process died; what is in the journal was announced
            size = self._size()
            if self._index.reach(self._journal_name()) < size:
                self._read_journal()
            look.status = self._status()
            return "its process died" if look.status == "running" else look.status
        return None if look.status == "running" else look.status

    def _status(self) -> str:
        return self._index.record(self._run_uid).status or "running"

    def _journal_name(self) -> str:
        if self._journal is None:
            self._journal = self._index.record(self._run_uid).path
        return self._journal

    def _size(self) -> int:
        return _size(self._journals, self._journal_name())[1]


def load_backends() -> None:
    """Import what reads arrays while there is time for it: no frame is to be late because it is the first."""
    for name in BUILTIN:
        get_backend(name)


def deadline(timeout_s: float | None) -> float:
    """Return when to give up, as ``time.monotonic`` counts.

    Raises
    ------
    InvalidSetting
        It is no time.
    """
    if timeout_s is None:
        return float("inf")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:  # pyright: ignore[reportUnnecessaryIsInstance] # people type it
        raise InvalidSetting(f"expected timeout_s of 0 or more, or None, got {timeout_s!r}; nothing was read")
    return time.monotonic() + timeout_s


def pauses() -> Callable[[], float]:
    """Return what gives one pause after the other, in seconds: the longer nothing happens, the longer."""
    pause_s = SHORTEST_PAUSE_S / LONGER

    def next_one() -> float:
        nonlocal pause_s
        pause_s = min(pause_s * LONGER, LONGEST_PAUSE_S)
        return pause_s

    return next_one


def _size(journals: Journals, journal: str) -> tuple[int, int]:
    try:
        return journals.size(journal)
    except FileNotFoundError as error:
        raise AssetMissing(
            f"{journals.root / journal}: the journal of the run is gone; nothing was read"
        ) from error
