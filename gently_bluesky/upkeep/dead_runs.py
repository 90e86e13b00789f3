"""Runs whose process died get their end on record, and what they left behind is put in order.

Whoever has the run's lock looks at what there is, ends the run in its journal, then puts away what nobody can
vouch for. Dying in between leaves the run's lock file, and the next one goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from gently_bluesky.documents.journal import Journal, encode_line
from gently_bluesky.documents.live import LiveFile, is_live, read_last_words
from gently_bluesky.errors import InvalidDocument, JournalDamaged
from gently_bluesky.files import inside
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.findings import Findings, TornTail
from gently_bluesky.upkeep.journals import has_stop, whole_lines
from gently_bluesky.upkeep.left_behind import DeadRun
from gently_bluesky.upkeep.sweeping import DOCUMENTS, PLAN
from gently_bluesky.upkeep.trash import settle_run

__all__ = ["Outcome", "drop_tail", "end_journal", "end_recording", "recover_run", "sweep_start"]

Outcome = Literal["untouched", "ended", "removed"]


def recover_run(root: Path, path: Path, found: Findings, *, dry_run: bool) -> Outcome:
    """Give a run without a stop its end, and put its folder in order, if its process is dead.

    Raises
    ------
    JournalDamaged
        It cannot be told what was announced; nothing was changed.
    OSError
        Something could not be written; the next time it is tried again.
    """
    folder = path.parent
    has_lock = (folder / ".live").exists()
    if not has_lock and has_stop(whole_lines(path)[0]):
        return "untouched"
    if dry_run:
        return "untouched" if is_live(folder) else _would_recover(root, path, found)
    try:
        live = LiveFile.take(folder, make=not has_lock)
    except FileNotFoundError:
        return "untouched"  # its writer has just ended it, or another process has just recovered it
    if live is None:
        return "untouched"
    done = False
    try:
        if not whole_lines(path)[0]:
            _remove_start(path)
            found.swept.append(folder.relative_to(root).as_posix())
            outcome: Outcome = "removed"
            done = True
        else:
            outcome, done = _recover(root, path, live, found)
    finally:
        live.close(remove=done)  # what was left alone is looked at again the next time
    if outcome == "removed":
        _remove_if_empty(folder)
    return outcome


def _recover(root: Path, path: Path, live: LiveFile, found: Findings) -> tuple[Outcome, bool]:
    """Do it, with the lock held; say also whether nothing was left alone."""
    _settle(root, path, found)
    dead = DeadRun.look(root, path)
    outcome: Outcome = "untouched"
    if not has_stop(dead.lines):
        stop = dead.stop_line(live.last_words)
        live.release_reserve()
        end_journal(path, dead.end, stop)
        dead.tell_end(stop, found)
        outcome = "ended"
    return outcome, dead.put_in_order(found)


def _would_recover(root: Path, path: Path, found: Findings) -> Outcome:
    lines, _ = whole_lines(path)
    if not lines:
        _require_no_assets(path)
        found.swept.append(path.parent.relative_to(root).as_posix())
        return "removed"
    if (path.parent / PLAN).exists():  # what it would leave is not there to be looked at
        found.swept.append((path.parent / PLAN).relative_to(root).as_posix())
        return "untouched"
    dead = DeadRun.look(root, path)
    outcome: Outcome = "untouched"
    if not has_stop(dead.lines):
        dead.tell_end(dead.stop_line(read_last_words(path.parent)), found)
        outcome = "ended"
    dead.tell_order(dead.plan(), found)
    return outcome


def end_recording(root: Path, folder: Path, found: Findings, *, dry_run: bool) -> None:
    """Put away what a device left half done whose process died; all that it was told is stored stays.

    Raises as `recover_run`.
    """
    path = folder / DOCUMENTS
    if dry_run:
        if not is_live(folder) and path.exists():
            dead = DeadRun.look(root, path)
            dead.tell_tail(found)
            dead.tell_order(dead.plan(), found)
        return
    live = LiveFile.take(folder)
    if live is None:
        return
    done = False
    lines: Sequence[JournalLine] = ()
    try:
        if path.exists():  # else its process died before it was made
            dead = DeadRun.look(root, path)
            lines = dead.lines
            _cut(path, dead.end)
            dead.tell_tail(found)
            done = dead.put_in_order(found)
        else:
            done = True
    finally:
        live.close(remove=done)
    if not lines and {entry.name for entry in folder.iterdir()} <= {path.name}:
        path.unlink(missing_ok=True)
        _remove_if_empty(folder)


def _settle(root: Path, path: Path, found: Findings) -> None:
    """Finish or undo what converting or deleting began, so that there is one state to look at."""
    if (path.parent / PLAN).exists():
        from gently_bluesky.upkeep.conversion_plan import settle  # as `sweep_memory`

        settle(root, path.parent, whole_lines(path)[0])
        found.swept.append((path.parent / PLAN).relative_to(root).as_posix())
    found.trashed += settle_run(root, whole_lines(path)[0][0].doc["uid"])


def _require_no_assets(path: Path) -> None:
    strange = {entry.name for entry in path.parent.iterdir()} - {".live", ".reserve", path.name}
    if strange:
        raise JournalDamaged(
            f"{path} holds no start document, but beside it there is {min(strange)!r}: the file was damaged after it "
            "was written; nothing is changed; restore it from a copy"
        )


def _remove_start(path: Path) -> None:
    """Remove a journal that holds nothing whole: its run was never announced and has no assets."""
    _require_no_assets(path)
    path.unlink()


def _cut(path: Path, end: int) -> None:
    """Drop a torn tail: a line that was not whole was not announced."""
    if path.stat().st_size == end:
        return
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def drop_tail(root: Path, path: Path, found: Findings, *, dry_run: bool) -> None:
    """Drop what stands behind the end of a run that has ended and is no whole line, unless somebody has the run.

    Raises
    ------
    JournalDamaged
        Something whole stands behind it; nothing was changed.
    OSError
        It could not be dropped.
    """
    live = None if dry_run else LiveFile.take(path.parent, make=True)
    if live is None and not dry_run:
        return
    try:
        _, end = whole_lines(path)
        torn = path.stat().st_size - end
        if torn:
            if not dry_run:
                _cut(path, end)
            found.torn.append(TornTail(path.relative_to(root).as_posix(), end, torn))
    finally:
        if live is not None:
            live.close(remove=True)


def end_journal(path: Path, end: int, stop: JournalLine) -> None:
    """Put a stop behind what is whole of a journal; *synced*. The caller holds the lock."""
    _cut(path, end)
    _append(path, encode_line(stop))


def _append(path: Path, line: bytes) -> None:
    journal = Journal(path, existing=True)
    try:
        journal.append([line])
    finally:
        journal.close()


def sweep_start(root: Path, folder: Path, found: Findings, *, dry_run: bool) -> None:
    """Remove a run's folder whose process died before there was a journal; one that holds other things stays."""
    with suppress(OSError, InvalidDocument):  # a link that leads out of the store
        inside(root, folder.relative_to(root).as_posix())
        names = {entry.name for entry in folder.iterdir()}
        if DOCUMENTS in names or is_live(folder):
            return
        path = folder.relative_to(root).as_posix()
        (found.swept if names <= {".live", ".reserve"} else found.strays).append(path)
        if dry_run:
            return
        if ".live" in names:
            live = LiveFile.take(folder)
            if live is None:
                return
            live.close(remove=True)
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds what is not ours
        folder.rmdir()
