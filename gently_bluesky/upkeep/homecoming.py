"""Runs that went on in a store's overflow: each is ended if its process died, brought home, and removed there.

Nothing is removed there before its copy was read and compared with the digests that were announced. Doing it again,
or dying inside it, changes nothing of what a reader is told. How one run is copied is the business of `bringing`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gently_bluesky.documents.continued import Continuation, Journals
from gently_bluesky.documents.live import LiveFile, read_last_words
from gently_bluesky.errors import GentlyError, JournalDamaged
from gently_bluesky.files import inside, make_folders, remove_tree, sync_folder
from gently_bluesky.index.index import Index
from gently_bluesky.index.moving import PRIVATE_INDEX
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.bringing import OWN_FILES, Bringing, Told, take_lock
from gently_bluesky.upkeep.dead_runs import end_journal
from gently_bluesky.upkeep.findings import Findings, LeftAlone
from gently_bluesky.upkeep.journals import UNREADABLE, find_journals, has_stop, is_shared
from gently_bluesky.upkeep.left_behind import DeadRun
from gently_bluesky.upkeep.quarantine import Unfit, plan, put_away
from gently_bluesky.upkeep.sweeping import DOCUMENTS

__all__ = ["bring_home"]

TRASH = ".came-home"
"""Folder of the overflow for what is in the root by now, until it is removed."""
WRONG = (OSError, GentlyError, *UNREADABLE)
"""What may be wrong with one run, or with the disks it is on: the others are dealt with."""


def bring_home(journals: Journals, index: Index, found: Findings, *, dry_run: bool) -> set[str]:
    """Bring home the runs of a store's overflow that have ended; those of dead processes are ended first.

    Runs that are being written, and those for which the root has no room, stay where they are, readable. What is wrong
    with one of them is reported, and the others are dealt with. Return what recovery is to leave as it is: the journals
    of runs that are in the overflow, are continued there, or came home just now, and the folders that they are in,
    with a slash at the end.

    Raises
    ------
    GentlyError
        The index could not be read or written; runs that were brought home are home.
    """
    overflow = journals.overflow
    if overflow is None or not overflow.is_dir():
        return set()
    there: list[str] = []
    try:
        there += (one for one in find_journals(overflow) if not is_shared(one.rpartition("/")[2]))
        if not dry_run:
            _sweep(overflow)
    except OSError as error:
        why = f"what is in the overflow {overflow} cannot be listed, or not be removed: {error}"
        found.left.append(LeftAlone(str(overflow), why))
    elsewhere: set[str] = set()
    for journal in there:
        coming = _Coming(journals, journal, index, found)
        if coming.tell() if dry_run else coming.bring():
            elsewhere |= {journal, journal.removesuffix(DOCUMENTS)}
    return elsewhere


def _sweep(overflow: Path) -> None:
    for copy in list(overflow.glob(PRIVATE_INDEX)):
        with suppress(OSError):  # where an open file keeps its name, that of a process that lives
            copy.unlink()
    for gone in (overflow / TRASH).glob("*"):
        remove_tree(gone)


@dataclass(slots=True)
class _Coming:
    """What is done to one journal in the overflow."""

    journals: Journals
    journal: str
    index: Index
    found: Findings
    _local: Findings = field(default_factory=Findings)
    """What was done in the overflow, with paths that are relative to that."""

    @property
    def _overflow(self) -> Path:
        return self.journals.overflow or self.journals.root

    @property
    def _there(self) -> Path:
        return self._overflow / self.journal

    def bring(self) -> bool:
        """Do it; say whether recovery is to leave the run as it is."""
        try:
            self._require_inside()
            is_open = (self._there.parent / ".live").exists()
            live = take_lock(self._there.parent, self._there)
        except WRONG as error:
            return self._leave(error)
        if live is None:
            return True  # its process lives, and keeps the index; or another one is just bringing it home
        try:
            return self._bring(live, is_open=is_open)
        finally:
            self._tell_local()

    def _bring(self, live: LiveFile, *, is_open: bool) -> bool:
        brought: Set[str] | None = None
        try:
            reach = self.index.reach(self.journal)
            try:
                told = self._ended(live)
                is_open = False
                lines, end, brought = self._brought(told, reach) if told else ([], 0, set[str]())
            except WRONG as error:
                return self._leave(error)
            try:
                if lines and (brought is not None or end != reach):
                    self.index.add(self.journal, lines, end, anew=True)
            except UNREADABLE as error:
                return self._leave(error)
        finally:
            self._let_go(live, remove=not is_open)  # what it counted is needed until the run has its end
        if brought is not None:
            self._remove(brought)
        return bool(told)

    def _brought(self, told: Told, reach: int) -> tuple[Sequence[JournalLine], int, Set[str] | None]:
        """Bring a run home that has ended, if it may come; return its lines, their end, and the names that have."""
        joined = self.journals.continuation(self.journal) or Continuation(0, 0)
        bringing = Bringing(self.journals, self.journal, joined, told, self.found)
        if not bringing.is_home:
            bringing.sweep()
            reason = bringing.hindrance()
            if reason is not None:
                self.found.waiting.append(reason)
                return [line for line, _ in told], told[-1][1], None
        lines, end = bringing.run(reach)
        self.found.home.append(bringing.uid)
        self.found.ended += self._local.ended  # whose journal is in the root now
        self._local.ended.clear()
        return lines, end, bringing.names

    def tell(self) -> bool:
        """Tell what would be done; say whether recovery would leave the run as it is."""
        try:
            self._require_inside()
            if self.journals.is_live(self.journal):
                return True
            told = self._ended(None)
            if told:
                joined = self.journals.continuation(self.journal) or Continuation(0, 0)
                bringing = Bringing(self.journals, self.journal, joined, told, self.found)
                reason = None if bringing.is_home else bringing.hindrance()
                if reason is None:
                    self.found.home.append(bringing.uid)
                    self.found.ended += self._local.ended
                    self._local.ended.clear()
                    bringing.would_put_in_order()
                else:
                    self.found.waiting.append(reason)
            return bool(told)
        except WRONG as error:
            return self._leave(error)
        finally:
            self._tell_local()

    def _require_inside(self) -> None:
        """Refuse links that lead out: files there are not ours to cut, or to write."""
        inside(self._overflow, self.journal)
        inside(self.journals.root, self.journal)

    # -- its end --------------------------------------------------------------------------------------------------

    def _ended(self, live: LiveFile | None) -> Told:
        """Give a run its end, if it has none; return its lines, or none if nothing was announced in the overflow.

        Then what lies there is put away. Without a lock it is told only what would be done.
        """
        joined = self._joined()
        told = list(self.journals.scan(self.journal)) if joined is not None else []
        second = [line for line, end in told if joined is not None and end > joined.begin]
        if joined is not None and second and has_stop(second):
            return told
        dead = DeadRun.look(self._overflow, self._there)
        if joined is None or not second or dead.end <= joined.header:
            self._clear(dead, is_told_only=live is None)
            return []
        first = [line for line, end in told if end <= joined.begin]
        words = read_last_words(self._there.parent) if live is None else live.last_words
        stop = replace(dead, lines=[*first, *dead.lines]).stop_line(words)
        dead.tell_end(stop, self._local)
        if live is None:
            return [(line, end) for line, end in told if end <= dead.end + joined.shift]
        live.release_reserve()
        end_journal(self._there, dead.end, stop)
        return list(self.journals.scan(self.journal))

    def _joined(self) -> Continuation | None:
        joined = self.journals.continuation(self.journal)
        if joined is not None and joined.damage:
            raise JournalDamaged(joined.damage)
        if joined is not None and joined.begin and not (self.journals.root / self.journal).exists():
            raise JournalDamaged(
                f"{self.journals.root / self.journal} is gone, which {self._overflow} continues; that part was not "
                "changed; restore the first one from a copy"
            )
        return joined

    def _clear(self, dead: DeadRun, *, is_told_only: bool) -> None:
        """Put away what there is of a run of which nothing was announced here, what is torn of its journal too."""
        torn: list[Unfit] = []
        if dead.torn:
            why = "nothing that it says of a run in the overflow was announced"
            torn = [Unfit(self.journal, "torn", why)]
        away = plan(self._overflow, None, torn)
        if is_told_only:
            dead.tell_order(dead.plan(), self._local)
        else:
            dead.put_in_order(self._local)
            put_away(self._overflow, away)
        self._local.quarantined += away

    # -- afterwards -----------------------------------------------------------------------------------------------

    def _remove(self, brought: Set[str]) -> None:
        """Remove a run's folder from the overflow, where all of it is in the root by now, or was put away."""
        folder = self._there.parent
        try:
            strange = {entry.name for entry in folder.iterdir()} - OWN_FILES - brought
            if strange:
                raise FileExistsError(
                    f"{folder} holds {min(strange)!r}, which was not brought home; move it elsewhere"
                )
            trash = self._overflow / TRASH / uuid.uuid4().hex
            make_folders(trash.parent)
            with suppress(FileNotFoundError):  # another process does the same
                folder.rename(trash)
            sync_folder(folder.parent)
            remove_tree(trash)
        except OSError as error:
            self._leave(error)

    def _let_go(self, live: LiveFile, *, remove: bool) -> None:
        try:
            live.close(remove=remove)
        except OSError as error:  # its file stays, and is taken by whoever comes next
            self.found.left.append(LeftAlone(str(live.path), f"{live.path} could not be removed: {error}"))

    def _leave(self, error: Exception) -> bool:
        """Report a run that stays as it is; say whether it does: another process may have brought it home just now."""
        if self._is_gone():
            return False
        why = f"what the overflow {self._overflow} has of it stays there: {error}"
        self.found.left.append(LeftAlone(self.journal, why))
        return True

    def _is_gone(self) -> bool:
        try:
            self._there.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def _tell_local(self) -> None:
        """Tell what was done in the overflow with where that really lies."""
        at = self._overflow
        self.found.ended += [replace(one, journal=str(at / one.journal)) for one in self._local.ended]
        self.found.torn += [replace(one, journal=str(at / one.journal)) for one in self._local.torn]
        self.found.quarantined += [
            replace(one, path=str(at / one.path), now=str(at / one.now)) for one in self._local.quarantined
        ]
        self.found.missing += [replace(one, path=str(at / one.path)) for one in self._local.missing]
        self.found.left += [replace(one, path=str(at / one.path)) for one in self._local.left]
        self.found.swept += [str(at / one) for one in self._local.swept]
