"""What opening a store for writing does first: dead runs get their end on record, and the index follows the files.

Only runs whose lock can be taken are touched, so that no living writer is disturbed. Doing it twice, or dying inside
it, changes nothing that a further time does not put right. No pixels are deleted.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.backends.base import backend_for_spec
from gently_bluesky.documents.journal import Journal, encode_line, scan_journal
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.errors import GentlyError, JournalDamaged
from gently_bluesky.files import inside, try_lock
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine

__all__ = ["Reconciled", "find_journals", "index_journals", "reconcile"]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found and done.

    Attributes
    ----------
    ended
        Uids of runs whose process had died; each has a stop now, and the status ``incomplete``.
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

    A damaged run is left as it is, a RuntimeWarning says where, and the others are dealt with.

    Raises
    ------
    StorageError
        Recovery itself could not write.
    """
    ended: list[str] = []
    indexed: list[str] = []
    damaged: list[str] = []
    known = index.journals()
    there: set[str] = set()
    for journal in find_journals(root):
        there.add(journal)
        path = root / journal
        try:
            if path.name == "documents.jsonl" and (path.parent / ".live").exists():
                ended.extend(_recover_run(path))
            if path.name != "documents.jsonl" and path.stat().st_size != known.get(journal, 0):
                _recover_shared(path)
            if path.stat().st_size != known.get(journal, 0) and not _is_live(path):
                index.forget(journal)
                _add_whole(root, journal, index)
                indexed.append(journal)
        except (JournalDamaged, ValueError) as error:
            damaged.append(f"{journal}: {error}")
            warnings.warn(f"a run was left alone: {error}", RuntimeWarning, stacklevel=3)
    gone = sorted(known.keys() - there)
    for journal in gone:
        index.forget(journal)
    return Reconciled(tuple(ended), tuple(indexed), tuple(gone), tuple(damaged))


def index_journals(root: Path, index: Index) -> None:
    """Index every journal as it stands, for a reader that may not write. Torn tails are left out."""
    for journal in find_journals(root):
        try:
            _add_whole(root, journal, index)
        except (JournalDamaged, ValueError) as error:
            warnings.warn(f"a run was left alone: {error}", RuntimeWarning, stacklevel=3)


def find_journals(root: Path) -> Iterator[str]:
    """Yield the paths of all journals, relative to the root, oldest day first."""
    for day in sorted(root.glob("runs/*/*/*")):
        with os.scandir(day) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                relative = f"{day.relative_to(root).as_posix()}/{entry.name}"
                if entry.name.startswith("derived-") and entry.name.endswith(".jsonl"):
                    yield relative
                elif os.path.exists(f"{entry.path}/documents.jsonl"):  # noqa: PTH110 # ten times faster than Path here
                    yield f"{relative}/documents.jsonl"


def _is_live(path: Path) -> bool:
    return path.name == "documents.jsonl" and (path.parent / ".live").exists()


def _add_whole(root: Path, journal: str, index: Index) -> None:
    lines: list[JournalLine] = []
    end = 0
    for line, position in scan_journal(root / journal):
        lines.append(line)
        end = position
    if lines:
        index.add(journal, lines, end)


def _recover_run(path: Path) -> list[str]:
    """Give a run without a stop its end, if its process is dead; return the uids of runs that got one."""
    try:
        live = LiveFile.take(path.parent)
    except FileNotFoundError:
        return []  # its writer has just ended it, or another process has just recovered it
    if live is None:
        return []
    recorded = False
    try:
        lines, end = _whole_lines(path)
        recorded = any(line.name == "stop" for line in lines)
        ended: list[str] = []
        if not recorded:
            _cut(path, end)
            if lines:
                _append(path, _stop_line(lines, live.counts))
                ended = [lines[0].doc["uid"]]
            recorded = True
        _sweep(path.parent, lines)
    finally:
        live.close(remove=recorded)
    return ended


def _whole_lines(path: Path) -> tuple[list[JournalLine], int]:
    lines: list[JournalLine] = []
    end = 0
    for line, position in scan_journal(path):
        lines.append(line)
        end = position
    return lines, end


def _cut(path: Path, end: int) -> None:
    """Drop a torn tail: a line that was not whole was not announced."""
    if path.stat().st_size == end:
        return
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def _append(path: Path, line: JournalLine) -> None:
    journal = Journal(path, existing=True)
    try:
        journal.append([encode_line(line)])
    finally:
        journal.close()


def _stop_line(lines: Sequence[JournalLine], counts: tuple[int, int] | None) -> JournalLine:
    streams = {line.doc["uid"]: line.doc.get("name", "primary") for line in lines if line.name == "descriptor"}
    num_events = dict.fromkeys(streams.values(), 0)
    stored = 0
    for line in lines:
        if line.name == "event":
            stream = streams[line.doc["descriptor"]]
            num_events[stream] = max(num_events[stream], line.doc["seq_num"])
            stored += len(line.digest or {})
    received = None if counts is None else max(counts[0], stored)
    stop = {
        "uid": str(uuid.uuid4()),
        "run_start": lines[0].doc["uid"],
        "time": time.time(),
        "exit_status": "abort",
        "reason": "the process that wrote the run died before its stop document came",
        "num_events": num_events,
    }
    lost = None if received is None else received - stored
    outcome = {"status": "incomplete", "received": received, "stored": stored, "lost": lost}
    return JournalLine("stop", stop, outcome=outcome)


def _sweep(folder: Path, lines: Sequence[JournalLine]) -> None:
    """Let each asset's backend put away what its writer left half done."""
    counts: dict[str, int] = {}
    for line in lines:
        if line.name == "datum":
            resource = line.doc["resource"]
            number = line.doc["datum_kwargs"].get("point_number", -1)
            counts[resource] = max(counts.get(resource, 0), number + 1)
    root = folder.parents[4]
    for line in lines:
        doc: Any = line.doc
        if line.name != "resource" or not doc["resource_path"].startswith(folder.relative_to(root).as_posix() + "/"):
            continue
        backend = backend_for_spec(doc["spec"])
        if backend is not None:
            with suppress(GentlyError):  # what is wrong with an asset is said when it is read; its run is recovered
                backend.recover(inside(root, doc["resource_path"]), doc["resource_kwargs"], counts.get(doc["uid"], 0))


def _recover_shared(path: Path) -> None:
    """Cut a journal of derived results back to its last whole run, if nobody is writing it."""
    with path.open("r+b") as file:
        if not try_lock(file.fileno()):
            return
        end = 0
        for line, position in scan_journal(path):
            if line.name == "stop":
                end = position
        if end != path.stat().st_size:
            file.truncate(end)
            os.fsync(file.fileno())
