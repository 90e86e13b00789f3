"""The lock of a run that has ended, under which what is done to its files is put on record, *synced*, and then done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.documents.live import LiveFile
from gently_bluesky.errors import InputError, Protected, StorageError
from gently_bluesky.files import inside, make_folders, storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import PIN, UNPIN
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.sweeping import DOCUMENTS
from gently_bluesky.upkeep.trash import TRASH, News, follow, place, places_in

__all__ = [
    "RunLock",
    "free_in_trash",
    "in_trash",
    "locked",
    "note",
    "require_same_disk",
    "require_unpinned",
    "tell_index",
]

TRIES = 3


@contextmanager
def locked(root: Path, index: Index, run: Record) -> Generator[RunLock]:
    """Hold the lock of a run that has ended. Raises InputError where somebody else has it, and StorageError."""
    folder = inside(root, run.path).parent
    live: LiveFile | None = None
    lock = RunLock(is_marked=os.path.lexists(folder / ".live"))
    try:
        if Path(run.path).name == DOCUMENTS and folder.is_dir():
            live = _taken(folder)
    except OSError as error:
        raise storage_error(error, f"run {run.uid} cannot be locked; nothing was changed") from error
    if live is None:
        raise InputError(f"run {run.uid} {_why_not(folder, run)}; nothing was changed")
    try:
        follow(root, index)  # what other processes pinned, deleted and restored
        yield lock
    finally:
        live.close(remove=lock.is_settled and not lock.is_marked)  # otherwise the next opening settles it


def _taken(folder: Path) -> LiveFile | None:
    for _ in range(TRIES):
        with suppress(FileNotFoundError):  # whoever had it is just done
            return LiveFile.take(folder, make=True)
    return None


def _why_not(folder: Path, run: Record) -> str:
    if Path(run.path).name != DOCUMENTS:
        return "keeps no pixels of its own"
    if not folder.is_dir():
        return f"has no folder at {folder}: it is in the overflow, from where reconcile() brings it home, or is gone"
    return "is being written, converted or deleted"


@dataclass(slots=True)
class RunLock:
    """The lock of a run.

    Attributes
    ----------
    is_marked
        Somebody died who had it; whoever puts in order what that one left removes the mark.
    is_settled
        Its files are where the logbook says.
    """

    is_marked: bool = False
    is_settled: bool = True

    def place(
        self, root: Path, entry: Mapping[str, Any], require: Callable[[], object] | None = None
    ) -> None:
        """Put an entry on record, and files where it says.

        Parameters
        ----------
        require
            Raises where that must not be, by what stands in the logbook by now; nothing was done then.

        Raises
        ------
        StorageError
            It could not be put on record.
        OSError
            As `place` of ``trash.py``.
        """
        Logbook(root).append(entry, require=require)
        self.is_settled = False
        for one in places_in([entry]).values():
            place(root, one)
        self.is_settled = True


def require_unpinned(root: Path, index: Index, run_uid: str) -> None:
    """Return if a run is not pinned by what the logbook says now. Raises Protected, and as `News.of`."""
    pinned = run_uid in index.pins()
    for entry in News.of(root, index).entries:
        if entry.get("run") == run_uid and entry["kind"] in {PIN, UNPIN}:
            pinned = entry["kind"] == PIN
    if pinned:
        raise Protected(f"run {run_uid} is pinned; nothing was deleted; unpin it first, if that is over")


def require_same_disk(root: Path, paths: Iterable[str]) -> None:
    """Return if files at these paths in a store can be renamed into its trash. Raises StorageError."""
    trash = root / TRASH
    if trash.is_symlink():
        raise StorageError(
            f"expected a folder at {trash}, found a link, and nothing is moved through it; nothing was changed; take "
            "it away: the trash has to lie on the disk of the runs"
        )
    try:
        make_folders(trash)
        disks = {path: (root / path).lstat().st_dev for path in paths}
        others = [path for path, disk in disks.items() if disk != trash.stat().st_dev]
    except OSError as error:
        raise storage_error(
            error, f"{trash} cannot be made; nothing was changed; it has to be a folder"
        ) from error
    if others:
        raise StorageError(
            f"{trash} is on another disk than {root / others[0]}, so that nothing can be moved there at once; nothing "
            "was changed; put them on one disk"
        )


def note(kind: str, run_uid: str, folder: str, found: Sequence[Tombstone]) -> dict[str, Any]:
    """Return an entry of the logbook about what is in the trash."""
    assets = [{"uid": one.uid, "path": one.path, "trash": one.trash} for one in found]
    return {"kind": kind, "time": time.time(), "run": run_uid, "folder": folder, "assets": assets}


def free_in_trash(root: Path, place: str, taken: set[str]) -> str:
    """Return where in the trash files go that lay at a place in the store: a number is put behind what is taken."""
    wanted, number = f"{TRASH}/{place}", 1
    path = wanted
    while path in taken or os.path.lexists(root / path):
        number += 1
        path = f"{wanted}-{number}"
    taken.add(path)
    return path


def in_trash(index: Index, record: Record) -> list[Tombstone]:
    """Return what of a run, or of an asset, is in the trash."""
    of_run = index.tombstones(record.run_uid)
    return [one for one in of_run if one.purged is None and record.uid in (one.uid, one.copy_of, one.run_uid)]


def tell_index(root: Path, index: Index, done: str) -> None:
    """Have the index know; it is done whether that can be or not."""
    try:
        follow(root, index)
    except StorageError as error:
        raise type(error)(
            error.errno,
            f"it was {done}, but the index could not be written ({error}): it follows at the next opening",
        ) from error
