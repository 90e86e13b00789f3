"""Deleting the pixels of a run or an asset, and getting them back while they are in the trash.

Each step is put on record, *synced*, before it is done, by whoever has the run's lock; what was put on record and not
done is done by the next opening (`gently_bluesky.upkeep.trash`). Documents stay.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.names import folder_of
from gently_bluesky.errors import InputError, InvalidSetting, StorageError
from gently_bluesky.files import inside, make_folders, storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import DELETE, PIN, RESTORE, UNPIN
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.accounts import Account, accounts
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.pixels import digest_of_digests
from gently_bluesky.upkeep.protection import ALTHOUGH, Where, own_path, require_unprotected
from gently_bluesky.upkeep.sizes import nbytes_of_files
from gently_bluesky.upkeep.stamps import Stamps
from gently_bluesky.upkeep.sweeping import DOCUMENTS
from gently_bluesky.upkeep.trash import TRASH, follow, place, places_in

__all__ = [
    "Deletion",
    "RunLock",
    "delete",
    "free_in_trash",
    "in_trash",
    "locked",
    "note",
    "pin",
    "require_same_disk",
    "restore",
    "tell_index",
    "unpin",
]


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is to be deleted, and why.

    Attributes
    ----------
    reason, policy
        As of `Tombstone`.
    keep_s
        Seconds that it stays in the trash at least.
    although
        Of `ALTHOUGH`, what does not hinder it.
    """

    reason: str
    keep_s: float
    although: Collection[str] = ()
    policy: str | None = None

    def __post_init__(self) -> None:
        _require_reason(self.reason, "nothing was deleted")
        unknown = [word for word in self.although if word not in ALTHOUGH]
        if unknown or isinstance(self.although, str):
            raise InvalidSetting(
                f"expected although to be some of {', '.join(ALTHOUGH)}, got {self.although!r:.200}; nothing was "
                "deleted"
            )


def delete(
    root: Path, index: Index, stamps: Stamps, record: Record, where: Where, deletion: Deletion
) -> list[Tombstone]:
    """Put the pixels of a run, or one asset, into the trash; *synced* on return.

    Parameters
    ----------
    stamps
        Of the store; what is new in the logbook is read.
    record
        Of the run, or the asset.
    where
        Tells where an asset lies.

    Returns
    -------
    list of Tombstone
        Of the assets.

    Raises
    ------
    Protected
        It is pinned, incomplete, unverified or damaged, or results made from it are there.
    InputError
        The run is being written; or there is nothing to delete that is ours and on disk.
    StorageError
        It could not be put on record or moved; nothing was deleted.
    """
    run = index.record(record.run_uid)
    with locked(root, index, run) as lock:
        account = _account(root, run, index.reach(run.path))
        there = _own_assets(root, index, run, account, where)
        wanted = (
            there if record.kind == "run" else {uid: path for uid, path in there.items() if uid == record.uid}
        )
        if not wanted:
            raise InputError(
                f"{record.kind} {record.uid} has no pixels on disk in this store that could be deleted: there are "
                "none, they are deleted, others wrote them, or they are in memory (materialize them first); nothing "
                "was deleted"
            )
        require_unprotected(index, stamps, run, account, deletion.although)
        if set(wanted.values()) & {path for uid, path in there.items() if uid not in wanted}:
            raise InputError(
                f"{record.kind} {record.uid} shares its files with another asset of its run; nothing was deleted; "
                "delete the run"
            )
        gone = {one.uid for one in index.tombstones(run.uid)}
        whole = not account.assets.keys() - wanted.keys() - gone
        entry = _entry(root, run, account, wanted, deletion, whole=whole)
        require_same_disk(root, wanted.values())
        try:
            lock.place(root, entry)
        except StorageError:
            raise
        except OSError as error:
            try:
                lock.place(root, {**entry, "kind": RESTORE, "time": time.time(), "reason": f"{error}"})
            except OSError as second:
                raise storage_error(
                    second,
                    f"{record.kind} {record.uid} could not be moved to the trash, nor all of it back; the next opening "
                    "brings it back",
                ) from error
            tell_index(root, index, "left as it was")
            raise storage_error(
                error, f"{record.kind} {record.uid} could not be moved to the trash; nothing was deleted"
            ) from error
        tell_index(root, index, "deleted")
        return [one for one in index.tombstones(run.uid) if one.uid in wanted]


def restore(root: Path, index: Index, record: Record) -> list[str]:
    """Bring back from the trash what was deleted of a run, or of an asset; *synced* on return. Returns the assets.

    Raises
    ------
    InputError
        Nothing of it is in the trash.
    StorageError
        It could not be put on record or moved; it is in the trash.
    """
    run = index.record(record.run_uid)
    with locked(root, index, run) as lock:
        found = [one for one in in_trash(index, record) if one.copy_of is None]
        if not found:
            raise InputError(
                f"nothing of {record.kind} {record.uid} is in the trash; nothing was changed; store.tombstone(uid) "
                "says whether it was deleted, and purged"
            )
        try:
            lock.place(root, note(RESTORE, run.uid, folder_of(run.path), found))
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(
                error,
                f"{record.kind} {record.uid} is on record as restored, but could not be moved out of the trash; the "
                "next opening tries again",
            ) from error
        tell_index(root, index, "restored")
        return [one.uid for one in found]


def pin(root: Path, index: Index, run_uid: str, reason: str) -> None:
    """Protect a run from being deleted; *synced* on return. Raises InvalidSetting, StorageError."""
    _require_reason(reason, "nothing was pinned")
    Logbook(root).append({"kind": PIN, "run": run_uid, "reason": reason})
    tell_index(root, index, "pinned")


def unpin(root: Path, index: Index, run_uid: str, reason: str) -> None:
    """Take a pin away; *synced* on return. Raises InputError where there is none, and StorageError."""
    if run_uid not in index.pins():
        raise InputError(f"expected a run that is pinned, run {run_uid} is not; nothing was changed")
    Logbook(root).append({"kind": UNPIN, "run": run_uid, "reason": reason})
    tell_index(root, index, "unpinned")


# -- what may be deleted -----------------------------------------------------------------------------------


def _require_reason(reason: object, so: str) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidSetting(f"expected a reason in words, which stays on record, got {reason!r:.200}; {so}")


def _account(root: Path, run: Record, reach: int) -> Account:
    try:
        found = next((one for one in accounts(root, run.path, reach) if one.uid == run.uid), None)
    except OSError as error:
        raise storage_error(error, f"{run.path} cannot be read; nothing was deleted") from error
    if found is None or not found.has_stop:
        raise InputError(
            f"run {run.uid} has no end on record; nothing was deleted; open the store again if its process died"
        )
    return found


def _own_assets(root: Path, index: Index, run: Record, account: Account, where: Where) -> dict[str, str]:
    """Return the paths of the assets of a run that are ours to delete, by uid."""
    paths = {
        uid: own_path(root, run, index.record(uid), where, index.shared_places) for uid in account.assets
    }
    return {uid: path for uid, path in paths.items() if path is not None}


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


# -- what is put on record ---------------------------------------------------------------------------------


@contextmanager
def locked(root: Path, index: Index, run: Record) -> Generator[RunLock]:
    """Hold the lock of a run that has ended. Raises InputError where somebody else has it, and StorageError."""
    folder = inside(root, run.path).parent
    live: LiveFile | None = None
    lock = RunLock(is_marked=os.path.lexists(folder / ".live"))
    try:
        if Path(run.path).name == DOCUMENTS and folder.is_dir():
            live = LiveFile.take(folder, make=True)
    except OSError as error:
        raise storage_error(error, f"run {run.uid} cannot be locked; nothing was changed") from error
    if live is None:
        why = (
            "keeps no pixels of its own"
            if Path(run.path).name != DOCUMENTS
            else "is being written, converted or deleted"
        )
        raise InputError(f"run {run.uid} {why}; nothing was changed")
    try:
        follow(root, index)  # what other processes pinned, deleted and restored
        yield lock
    finally:
        live.close(remove=lock.is_settled and not lock.is_marked)  # otherwise the next opening settles it


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

    def place(self, root: Path, entry: Mapping[str, Any]) -> None:
        """Put an entry on record, and files where it says. Raises StorageError, and OSError as `place`."""
        Logbook(root).append(entry)
        self.is_settled = False
        for one in places_in([entry]).values():
            place(root, one)
        self.is_settled = True


def _entry(
    root: Path, run: Record, account: Account, wanted: Mapping[str, str], deletion: Deletion, *, whole: bool
) -> dict[str, Any]:
    now = time.time()
    taken: set[str] = set()
    assets: list[dict[str, Any]] = []
    for uid, path in wanted.items():
        asset = account.assets[uid]
        assets.append(
            {
                "uid": uid,
                "path": path,
                "trash": free_in_trash(root, path, taken),
                "nbytes": nbytes_of_files(root / path),
                "events": len(asset.digests),
                "digest": digest_of_digests(asset.digests),
            }
        )
    return {
        "kind": DELETE,
        "time": now,
        "run": run.uid,
        "folder": folder_of(run.path),
        "whole": whole,
        "assets": assets,
        "reason": deletion.reason,
        "policy": deletion.policy,
        "keep_until": now + deletion.keep_s,
        "start": run.metadata,
    }


def free_in_trash(root: Path, place: str, taken: set[str]) -> str:
    """Return where in the trash files go that lay at a place in the store: a number is put behind what is taken."""
    wanted, number = f"{TRASH}/{place}", 1
    path = wanted
    while path in taken or os.path.lexists(root / path):
        number += 1
        path = f"{wanted}-{number}"
    taken.add(path)
    return path


def note(kind: str, run_uid: str, folder: str, found: Sequence[Tombstone]) -> dict[str, Any]:
    """Return an entry of the logbook about what is in the trash."""
    assets = [{"uid": one.uid, "path": one.path, "trash": one.trash} for one in found]
    return {"kind": kind, "time": time.time(), "run": run_uid, "folder": folder, "assets": assets}


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
