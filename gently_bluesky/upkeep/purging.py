"""Removing for good what lies in the trash: on record, *synced*, before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.documents.names import folder_of
from gently_bluesky.errors import StorageError, UnknownUid
from gently_bluesky.files import storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import PURGE
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.deletion import RunLock, in_trash, locked, note, tell_index

__all__ = ["purge", "purge_held"]


def purge(root: Path, index: Index, found: Sequence[Tombstone]) -> None:
    """Remove from the trash what these tombstones stand for; their files are gone on return.

    What a pinned run has there stays, and what is the only copy on disk of an asset that is in memory by now.

    Raises
    ------
    InputError
        Somebody else has one of their runs.
    StorageError
        Something could not be put on record or removed; the next opening tries again.
    """
    for run_uid in dict.fromkeys(one.run_uid for one in found):
        wanted = [one for one in found if one.run_uid == run_uid]
        try:
            run = index.record(run_uid)
        except UnknownUid:  # its folder is gone; what of it is in the trash may go too
            RunLock().place(root, note(PURGE, run_uid, folder_of(wanted[0].path), wanted))
            tell_index(root, index, "purged")
            continue
        with locked(root, index, run) as lock:
            uids = {one.uid for one in wanted}
            still = [one for one in in_trash(index, run) if one.uid in uids and not _is_kept(index, one)]
            if still:
                purge_held(root, index, run, lock, still)


def _is_kept(index: Index, one: Tombstone) -> bool:
    """Say whether what is in the trash stays there: of a pinned run, or the only copy on disk of what is in memory."""
    if one.copy_of is None:
        return one.run_uid in index.pins()
    return index.record(one.copy_of).format == MemoryBackend.spec


def purge_held(root: Path, index: Index, run: Record, lock: RunLock, found: Sequence[Tombstone]) -> None:
    """Do so for one run, whose lock the caller holds, whatever is asked otherwise. Raises StorageError."""
    try:
        lock.place(root, note(PURGE, run.uid, folder_of(run.path), found))
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(
            error,
            f"run {run.uid} is on record as purged, but could not be removed; the next opening tries again",
        ) from error
    tell_index(root, index, "purged")
