"""What opening a store for writing does first: dead runs get their end on record, the index follows the files.

Only runs whose lock can be taken are touched, so that no living writer is disturbed. Doing it twice, or dying
inside it, changes nothing that a further time does not put right. No pixels on disk are deleted, and nothing is
renumbered.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.live import is_live
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.errors import GentlyError, JournalDamaged, LookupFailed
from gently_bluesky.files import inside, try_lock
from gently_bluesky.index.index import Index, JournalOutOfStep
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.dead_runs import Outcome, drop_tail, end_recording, recover_run, sweep_start
from gently_bluesky.upkeep.findings import Findings, LeftAlone, Reconciliation, TornTail
from gently_bluesky.upkeep.journals import (
    UNREADABLE,
    Found,
    find,
    find_all_journals,
    has_stop,
    is_shared,
    whole_lines,
)
from gently_bluesky.upkeep.logbook import LOGBOOK
from gently_bluesky.upkeep.sweeping import DOCUMENTS, sweep_memory
from gently_bluesky.upkeep.trash import settle

__all__ = ["follow_journals", "index_journals", "reconcile"]


def reconcile(
    root: Path, index: Index, overflow: Path | None = None, *, dry_run: bool = False
) -> Reconciliation:
    """Recover the dead runs of a store and bring its index in step with its journals.

    Runs that went on in the store's ``overflow`` are brought home, if it is given. A run that is damaged, or that
    cannot be written to, is left as it is, and the others are dealt with. Of a run that has ended only the length
    of the journal is looked at. A ``dry_run`` changes nothing, the index neither.

    Raises
    ------
    StorageError
        The index could not be read or written.
    """
    found, elsewhere = Findings(), set[str]()
    if overflow is not None:
        from gently_bluesky.upkeep.homecoming import bring_home  # few stores have one

        elsewhere = bring_home(Journals(root, overflow), index, found, dry_run=dry_run)
    known = index.journals()
    running = {record.path for record in index.query(status="running")}
    return _Work(root, index, known, running, elsewhere, dry_run, found).done()


def index_journals(journals: Journals, index: Index) -> None:
    """Index every journal as it stands, for a reader that may not write. Torn tails are left out."""
    for journal in find_all_journals(journals):
        try:
            inside(journals.root, journal)
            lines, end = whole_lines(journals.root / journal, 0, journals.scan(journal))
            if lines:
                index.add(journal, lines, end)
        except FileNotFoundError:
            continue
        except UNREADABLE as error:
            warnings.warn(f"a run was left alone: {error}", RuntimeWarning, stacklevel=3)


def follow_journals(root: Path, index: Index) -> None:
    """Have the index take in runs and results that have ended and that it was not told of.

    Other processes may use another index, or could not write to this one. Of a journal that grew only the new lines are
    read; one that was rewritten is left alone, and so is a run that is being written.

    Raises
    ------
    StorageError
        The index could not be read or written.
    """
    known = index.journals()
    for found in find(root):
        begin = known.get(found.path, 0)
        if found.size <= begin:
            continue
        try:
            lines, end = _ended_lines(inside(root, found.path), begin)
        except (OSError, *UNREADABLE):  # reconciling says what is wrong
            continue
        if lines:
            with suppress(JournalOutOfStep, LookupFailed, *UNREADABLE):  # as above, or it was just indexed
                index.add(found.path, lines, end, begin=begin)


def _ended_lines(journal: Path, begin: int) -> tuple[Sequence[JournalLine], int]:
    """Return what came in behind ``begin`` of runs that have ended, and where that ends."""
    if not is_shared(journal.name) and is_live(journal.parent):
        return [], begin
    lines, end = whole_lines(journal, begin)
    return (lines, end) if has_stop(lines) else ([], begin)


@dataclass(slots=True)
class _Work:
    """What `reconcile` does to one journal after the other, and what came of it."""

    root: Path
    index: Index
    known: Mapping[str, int]
    running: set[str]
    elsewhere: Set[str]
    """Journals of runs in the overflow, or continued there, whose index is in step."""
    dry_run: bool
    found: Findings

    def done(self) -> Reconciliation:
        """Do all of it."""
        there = set(self.elsewhere)
        closed: list[str] = []
        for found in find(self.root):
            if found.path in there:
                continue
            if found.error is not None:
                closed.append(found.path)
                self._leave_alone(found.path, found.error)
                continue
            if found.path.endswith("/"):
                sweep_start(self.root, self.root / found.path, self.found, dry_run=self.dry_run)
                continue
            with suppress(FileNotFoundError):  # swept, or taken away meanwhile by another process
                self._bring_in_step(found)
                there.add(found.path)
        for lock in self.root.glob(f"{INCOMING}/*/*/*/*/.live"):
            self._end_recording(lock.parent)
        for journal in sorted(self.known.keys() - there):
            if journal.startswith(tuple(closed)):
                continue
            if not self.dry_run:
                self.index.forget(journal)
            self.found.forgotten.append(journal)
        self._follow_logbook()
        self.found.segments += sweep_memory(self.root, dry_run=self.dry_run)
        return self.found.report(str(self.root), dry_run=self.dry_run)

    def _bring_in_step(self, found: Found) -> None:
        journal = found.path
        shared = is_shared(journal.rpartition("/")[2])
        # As a text: paths take longer to make than the system to look.
        is_open = not shared and (
            journal in self.running or os.path.exists(f"{self.root}/{journal[: -len(DOCUMENTS)]}.live")  # noqa: PTH110
        )
        if not is_open and found.size == self.known.get(journal):
            return
        path = self.root / journal
        try:
            inside(
                self.root, journal
            )  # a link that leads out is not followed: files there are not ours to cut
            if shared:
                self._shared(journal, path)
            else:
                self._run(journal, path, is_open=is_open)
        except FileNotFoundError:
            raise
        except (*UNREADABLE, LookupFailed) as error:
            self._leave_alone(journal, error)
        except OSError as error:
            if isinstance(error, GentlyError):  # of the index
                raise
            self._leave_alone(journal, error)  # a link to itself, a folder that nobody may look into

    def _follow_logbook(self) -> None:
        try:
            for path, error in settle(self.root, self.index, dry_run=self.dry_run):
                if error is None:
                    self.found.trashed.append(path)
                else:
                    self._leave_alone(path, error)
        except JournalDamaged as error:
            self._leave_alone(LOGBOOK, error)

    def _end_recording(self, folder: Path) -> None:
        with suppress(FileNotFoundError):  # its process, or another that opens the store, has just ended it
            try:
                inside(self.root, folder.relative_to(self.root).as_posix())
                end_recording(self.root, folder, self.found, dry_run=self.dry_run)
            except FileNotFoundError:
                raise
            except (OSError, *UNREADABLE, LookupFailed) as error:
                self._leave_alone(folder.relative_to(self.root).as_posix(), error)

    def _run(self, journal: str, path: Path, *, is_open: bool) -> None:
        outcome = self._recover(journal, path) if is_open else "untouched"
        if outcome == "removed":
            raise FileNotFoundError(f"{path} held nothing whole")
        would_end = self.dry_run and outcome == "ended"
        if not would_end and (path.stat().st_size == self._end(journal) or is_live(path.parent)):
            return
        lines, end = whole_lines(path)
        if not is_open and not has_stop(lines):
            self._recover(journal, path)
            lines, end = whole_lines(path)
        elif not is_open and path.stat().st_size > end:
            self._drop_tail(journal, path)
        if would_end or end != self._end(journal):
            self._index(journal, lines, end)

    def _drop_tail(self, journal: str, path: Path) -> None:
        try:
            drop_tail(self.root, path, self.found, dry_run=self.dry_run)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._leave_alone(journal, error)

    def _recover(self, journal: str, path: Path) -> Outcome:
        try:
            return recover_run(self.root, path, self.found, dry_run=self.dry_run)
        except FileNotFoundError:
            raise
        except OSError as error:
            if isinstance(error, JournalDamaged):
                raise
            self._leave_alone(journal, error)  # a full disk must not keep people from opening it to make room
            return "untouched"

    def _shared(self, journal: str, path: Path) -> None:
        """Cut a journal of derived results back to its last whole run, unless it is being written; index it."""
        if path.stat().st_size == self._end(journal):
            return
        with path.open("rb") as file:
            if not try_lock(file.fileno(), shared=True):
                return
            lines, end = whole_lines(path)
            torn = os.fstat(file.fileno()).st_size - end
        if torn and not self.dry_run:
            try:
                with path.open("r+b") as file:
                    if not try_lock(file.fileno()):
                        return
                    lines, end = whole_lines(path)
                    file.truncate(end)
                    os.fsync(file.fileno())
            except FileNotFoundError:
                raise
            except OSError as error:  # another user's, perhaps: what is whole is indexed all the same
                self._leave_alone(journal, error)
                torn = 0
        if torn:
            self.found.torn.append(TornTail(journal, end, torn))
        if end != self._end(journal):
            self._index(journal, lines, end)

    def _end(self, journal: str) -> int:
        """Return how far a journal is indexed; ask again where another process may have indexed it meanwhile."""
        known = self.known.get(journal, 0)
        if known and known != (self.root / journal).stat().st_size:
            return self.index.reach(journal)
        return known

    def _index(self, journal: str, lines: Sequence[JournalLine], end: int) -> None:
        if not self.dry_run:
            if lines:
                self.index.add(journal, lines, end, anew=journal in self.known)  # at once: others read on
            elif journal in self.known:
                self.index.forget(journal)
        self.found.indexed.append(journal)

    def _leave_alone(self, journal: str, error: Exception) -> None:
        self.found.left.append(LeftAlone(journal, str(error)))
