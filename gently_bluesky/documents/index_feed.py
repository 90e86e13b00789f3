"""Tells the index what the journals of one writer's runs say; where another process holds the index, later.

The index is a cache: no run waits for it for long, and none fails because somebody else has it, or it is damaged.
"""

from __future__ import annotations

from collections.abc import Sequence

from gently_bluesky.documents.continued import Journals
from gently_bluesky.errors import GentlyError, StorageStalled
from gently_bluesky.index.index import Index, IndexUnusable, JournalOutOfStep
from gently_bluesky.model import JournalLine

__all__ = ["IndexFeed"]

PATIENCE_S = 1.0
"""A transaction of another process takes milliseconds; one that lasts longer than this is of one that hangs."""
PATIENCE_WHEN_BEHIND_S = 0.02
"""Each commit asks again, and storing waits meanwhile."""

HELD = (
    "but another process has held the index for too long, so that it does not know all of it yet; end that "
    "process: the index follows with this writer's next run, or when the store is next opened"
)
UNUSABLE = "but the index does not know all of it ({}): it follows when the store is next opened"


class IndexFeed:
    """What the runs of one writer tell the index. For the pipeline's thread.

    Parameters
    ----------
    journals, index
        Of the store.
    stall_timeout_s
        Of the writer: nobody is to take a wait for the index for a disk that hangs.
    """

    def __init__(self, journals: Journals, index: Index, stall_timeout_s: float) -> None:
        self._journals = journals
        self._index = index
        self._patience_s = min(PATIENCE_S, stall_timeout_s / 4)
        self._behind: set[str] = set()
        self._unusable: IndexUnusable | None = None

    def why_behind(self, journal: str) -> str | None:
        """Return why the index has not been told of all that this journal says; None if it has. Any thread."""
        if journal not in self._behind:
            return None
        return HELD if self._unusable is None else UNUSABLE.format(self._unusable)

    def add(
        self, journal: str, lines: Sequence[JournalLine], end: int, begin: int, *, last: bool = False
    ) -> None:
        """Index lines of a journal; where another process holds the index, with what comes next.

        With the ``last`` of a run it is waited for once more. An index that turns out damaged is not told any more:
        it is built anew from the journals.

        Parameters
        ----------
        journal
            Its path, relative to the root.
        lines, end, begin
            As `Index.add`.

        Raises
        ------
        GentlyError
            The index refuses the lines, or cannot be written.
        """
        patience_s = PATIENCE_WHEN_BEHIND_S if self._behind and not last else self._patience_s
        try:
            if self._unusable is not None:
                raise self._unusable
            if journal in self._behind:
                self._add_whole(journal, patience_s)
            else:
                self._add(journal, lines, end, begin, patience_s)
        except (StorageStalled, IndexUnusable) as error:
            self._unusable = error if isinstance(error, IndexUnusable) else None
            self._behind.add(journal)
            return
        self._behind.discard(journal)
        if self._behind:
            self._catch_up()

    def _catch_up(self) -> None:
        """Tell the index of runs that ended, or wait, while it could not be told."""
        for journal in sorted(self._behind):
            try:
                self._add_whole(journal, PATIENCE_WHEN_BEHIND_S)
            except StorageStalled:
                return
            except (GentlyError, OSError):
                pass  # whoever opens the store next is told what is wrong with it
            self._behind.discard(journal)

    def _add(
        self, journal: str, lines: Sequence[JournalLine], end: int, begin: int, patience_s: float
    ) -> None:
        try:
            self._index.add(journal, lines, end, begin=begin, patience_s=patience_s)
        except JournalOutOfStep:  # an earlier call failed, or somebody else has indexed a part
            self._add_whole(journal, patience_s)

    def _add_whole(self, journal: str, patience_s: float) -> None:
        self._index.require_turn(patience_s)  # before much is read for nothing
        try:
            lines, end = self._read(journal, alone=False)
        except OSError:
            if self._journals.continuation(journal) is None:
                raise
            lines, end = self._read(journal, alone=True)  # the root is gone, in which the run began
        self._index.add(journal, lines, end, anew=True, patience_s=patience_s)

    def _read(self, journal: str, *, alone: bool) -> tuple[list[JournalLine], int]:
        lines: list[JournalLine] = []
        end = 0
        for line, position in self._journals.scan(journal, alone=alone):
            lines.append(line)
            end = position
        return lines, end
