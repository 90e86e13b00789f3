"""What opening a store for writing does first: dead runs get their end on record, the index follows the files.

Only runs whose lock can be taken are touched, so that no living writer is disturbed. Doing it twice, or dying
inside it, changes nothing that a further time does not put right. No announced pixels are deleted.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gently_bluesky.documents.event_count import EventCount
from gently_bluesky.documents.journal import Journal, encode_line, scan_journal
from gently_bluesky.documents.live import LiveFile, is_live
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.errors import InputError, JournalDamaged
from gently_bluesky.files import try_lock
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.sweeping import DOCUMENTS, asset_in, sweep_memory, sweep_run

__all__ = ["Reconciled", "find_journals", "index_journals", "reconcile", "whole_lines"]

UNREADABLE = (JournalDamaged, InputError, ValueError, KeyError, TypeError, AttributeError)
"""What is raised over a journal that does not hold what a writer of ours writes."""


NAMES_ASSET = {
    "resource": "uid",
    "datum": "resource",
    "stream_resource": "uid",
    "stream_datum": "stream_resource",
}
"""Where documents that announce frames name their asset."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found and done.

    Attributes
    ----------
    ended
        Uids of runs whose process had died; each has a stop now, and the status ``incomplete``, or ``failed``
        where it had failed before and the disk did not let it say so.
    indexed
        Journals of which the index knew less, or other, than the file holds.
    forgotten
        Journals that the index knew and that are gone.
    damaged
        What was left alone, with the reason.
    """

    ended: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def reconcile(root: Path, index: Index) -> Reconciled:
    """Recover the dead runs of a store and bring its index in step with its journals.

    A run that is damaged, or that cannot be written to, is left as it is; a RuntimeWarning says why, and the
    others are dealt with.

    Raises
    ------
    StorageError
        The index could not be read or written.
    """
    known = index.journals()
    work = _Work(root, index, known, {record.path for record in index.query(status="running")})
    there: set[str] = set()
    for name in _find(root):
        if name.endswith("/"):
            _sweep_start(root / name)
            continue
        with suppress(FileNotFoundError):  # swept, or taken away meanwhile by another process
            work.bring_in_step(name)
            there.add(name)
    for lock in root.glob(f"{INCOMING}/*/*/*/*/.live"):
        work.end_recording(lock.parent)
    gone = sorted(known.keys() - there)
    for journal in gone:
        index.forget(journal)
    sweep_memory(root)
    return Reconciled(tuple(work.ended), tuple(work.indexed), tuple(gone), tuple(work.damaged))


def index_journals(root: Path, index: Index) -> None:
    """Index every journal as it stands, for a reader that may not write. Torn tails are left out."""
    for journal in find_journals(root):
        try:
            lines, end = whole_lines(root / journal)
            if lines:
                index.add(journal, lines, end)
        except FileNotFoundError:
            continue
        except UNREADABLE as error:
            warnings.warn(f"a run was left alone: {error}", RuntimeWarning, stacklevel=3)


def find_journals(root: Path) -> Iterator[str]:
    """Yield the paths of all journals, relative to the root, oldest day first."""
    return (name for name in _find(root) if not name.endswith("/"))


def _find(root: Path) -> Iterator[str]:
    """Yield the paths of journals and, with a slash at the end, of the folders that have none."""
    for day in sorted(root.glob("runs/*/*/*")):
        with os.scandir(day) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                relative = f"{day.relative_to(root).as_posix()}/{entry.name}"
                if _is_shared(entry.name):
                    yield relative
                elif os.path.exists(f"{entry.path}/{DOCUMENTS}"):  # noqa: PTH110 # ten times faster than Path here
                    yield f"{relative}/{DOCUMENTS}"
                elif entry.is_dir():
                    yield f"{relative}/"


def _is_shared(name: str) -> bool:
    return name.startswith("derived-") and name.endswith(".jsonl")


@dataclass(slots=True)
class _Work:
    """What `reconcile` does to one journal after the other, and what came of it."""

    root: Path
    index: Index
    known: Mapping[str, int]
    running: set[str]
    ended: list[str] = field(default_factory=list[str])
    indexed: list[str] = field(default_factory=list[str])
    damaged: list[str] = field(default_factory=list[str])

    def bring_in_step(self, journal: str) -> None:
        path = self.root / journal
        step = self._shared if _is_shared(path.name) else self._run
        try:
            step(journal, path)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            self._leave_alone(journal, error)

    def end_recording(self, folder: Path) -> None:
        """Put away what a device left half done whose process died; all that it was told is stored stays."""
        with suppress(
            FileNotFoundError
        ):  # its process, or another one that opens the store, has just ended it
            try:
                _end_recording(folder)
            except FileNotFoundError:
                raise
            except (OSError, *UNREADABLE) as error:
                self._leave_alone(folder.relative_to(self.root).as_posix(), error)

    def _run(self, journal: str, path: Path) -> None:
        is_open = journal in self.running or (path.parent / ".live").exists()
        if is_open:
            self._recover(journal, path)
        if path.stat().st_size == self._end(journal) or is_live(path.parent):
            return
        lines, end = whole_lines(path)
        if not is_open and not _has_stop(lines):
            self._recover(journal, path)
            lines, end = whole_lines(path)
        self._index(journal, lines, end)

    def _recover(self, journal: str, path: Path) -> None:
        try:
            self.ended.extend(_recover_run(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            if isinstance(error, JournalDamaged):
                raise
            self._leave_alone(journal, error)  # a full disk must not keep people from opening it to make room

    def _shared(self, journal: str, path: Path) -> None:
        """Cut a journal of derived results back to its last whole run, unless it is being written; index it."""
        if path.stat().st_size == self._end(journal):
            return
        try:
            with path.open("r+b") as file:
                if not try_lock(file.fileno()):
                    return
                lines, end = whole_lines(path)
                if end != os.fstat(file.fileno()).st_size:
                    file.truncate(end)
                    os.fsync(file.fileno())
        except FileNotFoundError:
            raise
        except OSError as error:
            self._leave_alone(journal, error)
            return
        self._index(journal, lines, end)

    def _end(self, journal: str) -> int:
        """Return how far a journal is indexed; ask again where another process may have indexed it meanwhile."""
        known = self.known.get(journal, 0)
        if known and known != (self.root / journal).stat().st_size:
            return self.index.journals().get(journal, 0)
        return known

    def _index(self, journal: str, lines: Sequence[JournalLine], end: int) -> None:
        if lines:
            self.index.add(journal, lines, end, anew=journal in self.known)  # at once: others read on
        elif journal in self.known:
            self.index.forget(journal)
        self.indexed.append(journal)

    def _leave_alone(self, journal: str, error: Exception) -> None:
        self.damaged.append(f"{journal}: {error}")
        warnings.warn(f"a run was left alone: {error}", RuntimeWarning, stacklevel=5)


def _recover_run(path: Path) -> list[str]:
    """Give a run without a stop its end, if its process is dead; return the uids of runs that got one."""
    has_lock = (path.parent / ".live").exists()
    if not has_lock and _has_stop(whole_lines(path)[0]):
        return []
    try:
        live = LiveFile.take(path.parent, make=not has_lock)
    except FileNotFoundError:
        return []  # its writer has just ended it, or another process has just recovered it
    if live is None:
        return []
    done = False
    try:
        lines, end = whole_lines(path)
        ended: list[str] = []
        if not lines:
            _remove_start(path)
        elif not _has_stop(lines):
            lines, end = _without_loose_ends(path, lines, end)
            stop = encode_line(_stop_line(lines, live))
            live.release_reserve()
            _cut(path, end)
            _append(path, stop)
            ended = [lines[0].doc["uid"]]
        sweep_run(path.parent, lines)
        done = True
    finally:
        live.close(remove=done)
    if not lines:
        _remove_if_empty(path.parent)
    return ended


def _end_recording(folder: Path) -> None:
    live = LiveFile.take(folder)
    if live is None:
        return
    path, done = folder / DOCUMENTS, False
    lines: list[JournalLine] = []
    try:
        if path.exists():  # else its process died before it was made
            lines, end = whole_lines(path)
            _cut(path, end)
            sweep_run(folder, lines)
        done = True
    finally:
        live.close(remove=done)
    if not lines and {entry.name for entry in folder.iterdir()} <= {path.name}:
        path.unlink(missing_ok=True)
        _remove_if_empty(folder)


def _has_stop(lines: Sequence[JournalLine]) -> bool:
    return any(line.name == "stop" for line in lines)


def whole_lines(path: Path, start: int = 0) -> tuple[list[JournalLine], int]:
    """Return a journal's whole lines from a byte on, of a shared one those of its whole runs, and where they end.

    Raises
    ------
    JournalDamaged
        It cannot be read, or a line in the middle cannot.
    FileNotFoundError
        It is gone.
    """
    lines: list[JournalLine] = []
    end = start
    whole = 0
    try:
        for line, position in scan_journal(path, start):
            lines.append(line)
            if line.name == "stop" or not _is_shared(path.name):
                whole, end = len(lines), position
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, JournalDamaged):
            raise
        raise JournalDamaged(f"{path} cannot be read: {error}; it is not changed") from error
    return lines[:whole], end


def _without_loose_ends(path: Path, lines: Sequence[JournalLine], end: int) -> tuple[list[JournalLine], int]:
    """Leave out what was written to announce an event whose own line is not there: it was not announced."""
    ours = {asset.uid for line in lines if (asset := asset_in(path.parent, line)) is not None}
    whole = len(lines)
    while whole and lines[whole - 1].doc.get(NAMES_ASSET.get(lines[whole - 1].name, "")) in ours:
        whole -= 1
    if whole == len(lines):
        return list(lines), end
    ends = [position for _, position in scan_journal(path)]
    return list(lines[:whole]), ends[whole - 1]


def _remove_start(path: Path) -> None:
    """Remove a journal that holds nothing whole: its run was never announced and has no assets."""
    strange = {entry.name for entry in path.parent.iterdir()} - {".live", ".reserve", path.name}
    if strange:
        raise JournalDamaged(
            f"{path} holds no start document, but beside it there is {min(strange)!r}: the file was damaged after it "
            "was written; nothing is changed; restore it from a copy"
        )
    path.unlink()


def _cut(path: Path, end: int) -> None:
    """Drop a torn tail: a line that was not whole was not announced."""
    if path.stat().st_size == end:
        return
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def _append(path: Path, line: bytes) -> None:
    journal = Journal(path, existing=True)
    try:
        journal.append([line])
    finally:
        journal.close()


def _stop_line(lines: Sequence[JournalLine], live: LiveFile) -> JournalLine:
    events = EventCount()
    events.note(lines)
    stored = sum(len(line.digest or {}) for line in lines)
    received = None if live.counts is None else max(live.counts[0], stored)
    stop = {
        "uid": str(uuid.uuid4()),
        "run_start": lines[0].doc["uid"],
        "time": time.time(),
        "exit_status": "abort" if live.failure is None else "fail",
        "reason": live.failure or "the process that wrote the run died before its stop document came",
        "num_events": events.num_events,
    }
    lost = None if received is None else received - stored
    status = "incomplete" if live.failure is None else "failed"
    outcome = {"status": status, "received": received, "stored": stored, "lost": lost}
    return JournalLine("stop", stop, outcome=outcome)


def _sweep_start(folder: Path) -> None:
    """Remove a run's folder whose process died before there was a journal."""
    with suppress(OSError):
        if (folder / ".live").exists():
            live = LiveFile.take(folder)
            if live is None:
                return
            live.close(remove=True)
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds what is not ours
        folder.rmdir()
