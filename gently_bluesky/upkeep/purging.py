"""Removing for good what lies in the trash: on record, *synced*, before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.documents.names import folder_of
from gently_bluesky.errors import InputError, StorageError, UnknownUid
from gently_bluesky.files import inside, storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import PURGE
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.run_lock import RunLock, in_trash, locked, note, require_unpinned, tell_index
from gently_bluesky.upkeep.trash import TRASH, places_in

__all__ = ["due", "purge", "purge_held"]


def due(index: Index, until: float, uids: Iterable[str] | None = None) -> list[Tombstone]:
    """Return what lies in the trash and may be removed, having been there for long enough; of these, if any are named.

    What a pinned run has there stays, and what is the only copy on disk of an asset that is in memory by now.

    Parameters
    ----------
    until
        Seconds since the epoch, up to which what is due was to be kept.
    uids
        Of runs, assets, or what assets were before they were converted.
    """
    wanted = None if uids is None else {*uids}
    return [
        one
        for one in index.tombstones()
        if one.purged is None
        and one.keep_until <= until
        and (wanted is None or not wanted.isdisjoint((one.uid, one.copy_of, one.run_uid)))
        and not _is_kept(index, one)
    ]


def purge(root: Path, index: Index, found: Sequence[Tombstone]) -> dict[str, str]:
    """Remove from the trash what these tombstones stand for, unless that has changed; its files are gone on return.

    Returns
    -------
    dict
        The runs of which nothing was removed, and why: somebody else has them, or they are pinned by now.

    Raises
    ------
    StorageError
        There is no trash; or something could not be put on record or removed, which the next opening tries again.
    """
    if found and not (root / TRASH).is_dir():
        raise StorageError(
            f"expected a folder at {root / TRASH}, and there is none; nothing was purged; put it back where it was, "
            "or, if it is gone for good, make an empty one"
        )
    left: dict[str, str] = {}
    for run_uid in dict.fromkeys(one.run_uid for one in found):
        try:
            _purge_run(root, index, run_uid, [one for one in found if one.run_uid == run_uid])
        except InputError as error:
            left[run_uid] = str(error)
    return left


def _purge_run(root: Path, index: Index, run_uid: str, wanted: Sequence[Tombstone]) -> None:
    try:
        run = index.record(run_uid)
    except UnknownUid:
        places = places_in(entry for entry in Logbook(root).entries() if entry.get("run") == run_uid)
        folder = next((one.folder for one in places.values()), folder_of(wanted[0].path))
        if inside(root, folder).exists():
            raise InputError(
                f"run {run_uid} is not in this index, and its folder is there ({folder}); nothing of it was purged; "
                "reconcile the store first"
            ) from None
        RunLock().place(  # its folder is gone; what of it is in the trash may go too
            root, note(PURGE, run_uid, folder, wanted), lambda: require_unpinned(root, index, run_uid)
        )
        tell_index(root, index, "purged")
        return
    with locked(root, index, run) as lock:
        still = [one for one in in_trash(index, run) if one in wanted and not _is_kept(index, one)]
        if still:
            is_deleted = any(one.copy_of is None for one in still)
            purge_held(root, index, run, lock, still, is_deleted=is_deleted)


def _is_kept(index: Index, one: Tombstone) -> bool:
    """Say whether what is in the trash stays there: of a pinned run, or the only copy on disk of what is in memory."""
    if one.copy_of is None:
        return one.run_uid in index.pins()
    try:
        return index.record(one.copy_of).format == MemoryBackend.spec
    except UnknownUid:
        return False


def purge_held(
    root: Path,
    index: Index,
    run: Record,
    lock: RunLock,
    found: Sequence[Tombstone],
    *,
    is_deleted: bool = False,
) -> None:
    """Do so for one run, whose lock the caller holds.

    Parameters
    ----------
    is_deleted
        It is what was deleted, and not only what something was before it was converted: pins are asked once more.

    Raises
    ------
    Protected
        It was pinned meanwhile.
    StorageError
        As `purge`.
    """
    try:
        lock.place(
            root,
            note(PURGE, run.uid, folder_of(run.path), found),
            (lambda: require_unpinned(root, index, run.uid)) if is_deleted else None,
        )
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(
            error,
            f"run {run.uid} is on record as purged, but could not be removed; the next opening tries again",
        ) from error
    tell_index(root, index, "purged")
