"""The trash: where the pixels of what was deleted lie until they are purged, and how files get there and back.

The logbook is the switch: what its last entry about an asset says is where the files are to be, and whoever comes next
after a crash puts them there. Documents are not moved, so that a run, its values and its lineage stay what they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.errors import (
    AssetDeleted,
    AssetMissing,
    AssetPurged,
    InvalidDocument,
    JournalDamaged,
    StorageError,
)
from gently_bluesky.files import inside, make_folders, remove_tree, sync_folder
from gently_bluesky.index.index import Index
from gently_bluesky.index.upkept import CONVERT, DELETE, INDEXED, PURGE, RESTORE
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.quarantine import explained as explained_by_quarantine
from gently_bluesky.wording import TO_THE_SECOND, clock

__all__ = [
    "TRASH",
    "News",
    "Whereabouts",
    "deleted_assets",
    "explained",
    "follow",
    "place",
    "places_in",
    "settle",
    "settle_run",
]

TRASH = "trash"
RUNS = ("runs", INCOMING)
"""Where assets of ours lie."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the files of an asset are to be, by the last entry of the logbook that speaks of them.

    Attributes
    ----------
    state
        ``"here"``: restored. ``"trash"``. ``"purged"``: nowhere.
    folder
        Of the run.
    path, trash
        Its places among the runs and in the trash, relative to the store's root.
    entry
        The one that says so.
    """

    uid: str
    run_uid: str
    state: Literal["here", "trash", "purged"]
    folder: str
    path: str
    trash: str
    entry: Mapping[str, Any]


_STATES: Mapping[str, Literal["here", "trash", "purged"]] = {
    DELETE: "trash",
    CONVERT: "trash",
    RESTORE: "here",
    PURGE: "purged",
}


def places_in(entries: Iterable[Mapping[str, Any]]) -> dict[str, Whereabouts]:
    """Return where the assets that entries of the logbook speak of are to be, by their uids."""
    found: dict[str, Whereabouts] = {}
    for entry in entries:
        state = _STATES.get(entry["kind"])
        with suppress(KeyError, TypeError, ValueError):  # not written by us: it says nothing
            for asset in entry["assets"] if state is not None else ():
                float(entry["time"])
                uid, path, trash = str(asset["uid"]), str(asset["path"]), str(asset["trash"])
                run_uid, folder = str(entry["run"]), str(entry["folder"])
                places = _is_among(trash, TRASH), _is_among(path, *RUNS), _is_among(folder, *RUNS)
                if state is not None and all(places):
                    for other in [
                        known for known, one in found.items() if one.trash == trash and known != uid
                    ]:
                        del found[other]  # it was purged, and its place in the trash is another's
                    found[uid] = Whereabouts(uid, run_uid, state, folder, path, trash, entry)
    return found


def _is_among(place: str, *tops: str) -> bool:
    """Say whether a path leads plainly into one of these folders of a store."""
    first, *rest = place.split("/")
    return first in tops and bool(rest) and not {"", ".", ".."}.intersection(rest) and "\\" not in place


def _at(root: Path, relative: str) -> Path:
    """Return a place in a store: what lies there may be a link, and is not followed. Raises InvalidDocument."""
    folder, _, name = relative.rpartition("/")
    return inside(root, folder) / name


def place(root: Path, one: Whereabouts) -> bool:
    """Put the files of an asset where they are to be; *synced*. Say whether they were elsewhere.

    Raises
    ------
    OSError
        They cannot be moved or removed, or something else is where they are to be.
    """
    home, trash = _at(root, one.path), _at(root, one.trash)
    if one.state == "purged":
        was_there = os.path.lexists(trash)
        remove_tree(trash)
        _prune(trash.parent, root / TRASH)
        return was_there
    source, target = (home, trash) if one.state == "trash" else (trash, home)
    if not os.path.lexists(source):
        return False
    if os.path.lexists(target):
        raise FileExistsError(
            f"{source} was to be moved to {target}, where something is; neither was touched; move one of them elsewhere"
        )
    make_folders(target.parent)
    source.rename(target)
    sync_folder(target.parent)  # in this order: in between a file has two names rather than none
    sync_folder(source.parent)
    if one.state == "here":
        _prune(trash.parent, root / TRASH)
    return True


def _prune(folder: Path, top: Path) -> None:
    """Remove folders in the trash that hold nothing any more."""
    with suppress(OSError):  # it holds something
        while folder != top and folder.is_relative_to(top):
            folder.rmdir()
            folder = folder.parent


def deleted_assets(root: Path) -> set[str]:
    """Return the uids of the assets whose pixels were deleted; none where the logbook cannot be read."""
    with suppress(StorageError):  # said where the logbook itself is looked at
        return {uid for uid, one in places_in(Logbook(root).entries()).items() if one.state != "here"}
    return set()


def settle_run(root: Path, run_uid: str) -> list[str]:
    """Put the files of a run where they are to be; return the paths of those that were not. The caller has its lock.

    Raises
    ------
    StorageError
        The logbook cannot be read.
    OSError
        As `place`.
    """
    entries = (entry for entry in Logbook(root).entries() if entry.get("run") == run_uid)
    return [one.path for one in places_in(entries).values() if place(root, one)]


@dataclass(frozen=True, slots=True)
class News:
    """What the logbook says since the index last looked, from byte ``begin`` to ``end``."""

    entries: Sequence[Mapping[str, Any]]
    begin: int
    end: int

    @classmethod
    def of(cls, root: Path, index: Index) -> News:
        """Read it. Raises JournalDamaged, StorageError."""
        logbook = Logbook(root)
        begin, size = index.upkeep_reach(), logbook.size
        begin = begin if begin <= size else 0  # it is another one: restored from a copy
        try:
            return cls._behind(logbook, begin, size)
        except JournalDamaged:
            if begin == 0:
                raise
            return cls._behind(
                logbook, 0, size
            )  # somebody took back what could not be synced, and was indexed

    @classmethod
    def _behind(cls, logbook: Logbook, begin: int, size: int) -> News:
        entries: list[Mapping[str, Any]] = []
        end = begin
        for entry, behind in logbook.behind(begin) if begin < size else ():
            end = behind
            if entry["kind"] in INDEXED:
                entries.append(entry)
        return cls(entries, begin, end)


def follow(root: Path, index: Index) -> None:
    """Have the index take in what the logbook says since it last looked.

    Raises
    ------
    JournalDamaged, StorageError
        The logbook cannot be read, or the index not written; it is as it was.
    """
    news = News.of(root, index)
    if news.entries or news.end != index.upkeep_reach():
        index.take_upkeep(news.entries, news.begin, news.end)


def settle(root: Path, index: Index, *, dry_run: bool) -> Iterator[tuple[str, Exception | None]]:
    """Put files where the logbook says since the index last looked, then have the index take that in.

    Yields the paths of those that were elsewhere, each with the reason where it could not be moved. Raises as `follow`.
    """
    for one in places_in(News.of(root, index).entries).values():
        try:
            if _is_elsewhere(root, one) and (dry_run or _placed(root, one)):
                yield one.path, None
        except (OSError, InvalidDocument) as error:
            yield one.path, error
    if not dry_run:
        follow(root, index)


def _is_elsewhere(root: Path, one: Whereabouts) -> bool:
    wrong = one.path if one.state == "trash" else one.trash
    return os.path.lexists(_at(root, wrong))


def _placed(root: Path, one: Whereabouts) -> bool:
    """Put one asset where it is to be, unless a living process has its run."""
    folder = inside(root, one.folder)
    is_marked = os.path.lexists(folder / ".live")
    if one.state == "purged" and not folder.exists():
        return place(root, one)
    live = LiveFile.take(folder, make=True) if folder.is_dir() else None
    if live is None:
        return False
    try:
        return place(root, one)
    finally:
        live.close(remove=not is_marked)


def explained(root: Path, asset: str, error: AssetMissing) -> AssetMissing:
    """Return the error that says where what is missing is: deleted, in quarantine in part, or kept from before it was
    converted; else the one given.
    """
    with suppress(StorageError):  # said where the logbook itself is looked at
        entries = (entry for entry in Logbook(root).entries() if _speaks_of(entry, asset))
        places = places_in(entries)
        one = places.pop(asset, None)
        if one is not None and one.state != "here":
            return _deleted(root, one)
        copy = next((copy for copy in reversed(places.values()) if copy.state == "trash"), None)
        if copy is not None:
            return AssetMissing(
                f"{error}; what it was before it was converted lies in the trash, {root / copy.trash}: where it was "
                f"put into memory, store.materialize({asset!r}) brings it back"
            )
    return explained_by_quarantine(root, asset, error)


def _speaks_of(entry: Mapping[str, Any], asset: str) -> bool:
    assets = entry.get("assets")
    return isinstance(assets, Sequence) and any(
        isinstance(one, Mapping) and asset in (one.get("uid"), one.get("copy_of")) for one in assets
    )


def _deleted(root: Path, one: Whereabouts) -> AssetDeleted:
    when = clock(float(one.entry["time"]), TO_THE_SECOND)
    if one.state == "purged":
        return AssetPurged(
            f"the pixels of {one.uid} ({one.path}) were deleted, and purged on {when}; none were returned; the "
            f"documents of their run and its lineage are there: store.tombstone({one.uid!r}) says why"
        )
    return AssetDeleted(
        f"the pixels of {one.uid} ({one.path}) were deleted on {when}: {one.entry.get('reason')}; none were returned; "
        f"they lie in the trash, {root / one.trash}: store.restore({one.run_uid!r}) brings them back"
    )
