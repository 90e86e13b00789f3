"""Deleting the pixels of a run or an asset, and getting them back while they are in the trash.

Each step is put on record, *synced*, before it is done, by whoever has the run's lock; what was put on record and not
done is done by the next opening (`gently_bluesky.upkeep.trash`). Documents stay.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gently_bluesky.documents.names import folder_of
from gently_bluesky.errors import InputError, InvalidSetting, StorageError
from gently_bluesky.files import storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import DELETE, PIN, RESTORE, UNPIN
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.accounts import Account, accounts
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.pixels import digest_of_digests
from gently_bluesky.upkeep.protection import ALTHOUGH, Where, own_path, require_unprotected
from gently_bluesky.upkeep.run_lock import (
    free_in_trash,
    in_trash,
    locked,
    note,
    require_same_disk,
    require_unpinned,
    tell_index,
)
from gently_bluesky.upkeep.sizes import nbytes_of_files
from gently_bluesky.upkeep.stamps import Stamps
from gently_bluesky.wording import clock

__all__ = [
    "Deletion",
    "delete",
    "pin",
    "restore",
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
        words = isinstance(self.although, list | tuple | set | frozenset)
        if not words or not {*ALTHOUGH}.issuperset(self.although):
            raise InvalidSetting(
                f"expected although to be a list of some of {', '.join(ALTHOUGH)}, got {self.although!r:.200}; nothing "
                "was deleted"
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
        if not wanted and record.deleted is not None:
            raise InputError(f"{record.kind} {record.uid} is deleted already, since {clock(record.deleted)}")
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
        require_same_disk(root, wanted.values())
        entry = _entry(root, run, account, wanted, deletion, whole=whole)
        try:
            lock.place(root, entry, lambda: require_unpinned(root, index, run.uid))
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
            stone = index.tombstone(record.uid)
            if stone is not None and stone.purged is not None:
                raise InputError(
                    f"{record.kind} {record.uid} was purged {clock(stone.purged)}: its pixels are gone; nothing was "
                    "changed"
                )
            raise InputError(
                f"nothing of {record.kind} {record.uid} is in the trash; nothing was changed; store.tombstone(uid) "
                "says whether it was deleted, and purged"
            )
        missing = [one for one in found if not os.path.lexists(root / one.trash)]
        if missing:
            raise StorageError(
                f"expected {record.kind} {record.uid} at {root / missing[0].trash}, and nothing is there; nothing was "
                "changed; put the trash back where it was, or mount its disk"
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
    if not isinstance(reason, str) or not reason.strip() or not _is_unicode(reason):
        raise InvalidSetting(f"expected a reason in words, which stays on record, got {reason!r:.200}; {so}")


def _is_unicode(text: str) -> bool:
    """Say whether a text can be written: half a character cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    shared = cache(index.shared_places)
    paths = {uid: own_path(root, run, index.record(uid), where, shared) for uid in account.assets}
    return {uid: path for uid, path in paths.items() if path is not None}


# -- what is put on record ---------------------------------------------------------------------------------


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
                "nbytes": _nbytes(root / path),
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


def _nbytes(path: Path) -> int:
    try:
        return nbytes_of_files(path)
    except OSError as error:
        raise storage_error(error, f"{path} cannot be looked at; nothing was deleted") from error
