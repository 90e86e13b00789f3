"""Runs that went on in a store's overflow, brought back into its root.

The run's journal in the root is the switch. Before it is replaced the run is read from both places, and what has been
copied is copied again, or found to be right, by whoever comes next; after it, all of it is read from the root, and what
is left in the overflow is removed. Nothing is removed there before its copy was read and compared with the digests
that were announced. Doing it again, or dying inside it, changes nothing of what a reader is told.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.continued import Continuation, Journals
from gently_bluesky.documents.journal import encode_line, scan_journal
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.resources import AnnouncedAsset, moved
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.errors import AssetDamaged, GentlyError, JournalDamaged, StorageError
from gently_bluesky.files import (
    is_leftover,
    make_folders,
    remove_tree,
    side_by_side,
    sync_folder,
    write_atomic,
)
from gently_bluesky.index.index import Index
from gently_bluesky.index.moving import PRIVATE_INDEX
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.dead_runs import end_journal
from gently_bluesky.upkeep.findings import Findings, LeftAlone
from gently_bluesky.upkeep.journals import UNREADABLE, find_journals, has_stop, whole_lines
from gently_bluesky.upkeep.left_behind import DeadRun
from gently_bluesky.upkeep.sweeping import DOCUMENTS, announced_in, asset_in

__all__ = ["bring_home"]

TRASH = ".came-home"
"""Folder of the overflow for what is in the root by now, until it is removed."""
HALF_COPIED = ".coming-home"
MARGIN_BYTES = 1 << 20
OWN_FILES = {DOCUMENTS, ".live", ".reserve"}


def bring_home(journals: Journals, index: Index, found: Findings, *, dry_run: bool) -> set[str]:
    """Bring home the runs of a store's overflow that have ended; those of dead processes are ended first.

    Runs that are being written, and those for which the root has no room, stay where they are, readable. What is wrong
    with one of them is reported, and the others are dealt with. Return the journals of runs that are in the overflow
    or are continued there, and whose index is in step.

    Raises
    ------
    StorageError
        The index could not be written.
    """
    elsewhere: set[str] = set()
    overflow = journals.overflow
    if overflow is None or not overflow.is_dir():
        return elsewhere
    if not dry_run:
        _sweep(overflow)
    for journal in list(find_journals(overflow)):
        try:
            if dry_run:
                elsewhere |= _would_bring(journals, journal, found)
            else:
                elsewhere |= _bring(journals, journal, index, found)
        except FileNotFoundError:
            continue  # another process has brought it home just now
        except (OSError, *UNREADABLE) as error:
            elsewhere.add(journal)
            found.left.append(LeftAlone(journal, f"it stays in the overflow {overflow}: {error}"))
    return elsewhere


def _sweep(overflow: Path) -> None:
    for entry in list(overflow.iterdir()):
        if entry.match(PRIVATE_INDEX) or is_leftover(entry.name):
            with suppress(OSError):  # where an open file keeps its name, that of a process that lives
                entry.unlink()
    for gone in (overflow / TRASH).glob("*"):
        remove_tree(gone)


def _bring(journals: Journals, journal: str, index: Index, found: Findings) -> set[str]:
    path = (journals.overflow or journals.root) / journal
    live = LiveFile.take(path.parent, make=True)
    if live is None:
        return {journal}  # its process lives, and keeps the index
    is_home = False
    try:
        joined = _require_first_part(journals, journal)
        lines = _ended(journals, journal, joined, live, found)
        if lines:
            end = journals.size(journal)[1]
            if index.reach(journal) != end:
                index.add(journal, lines, end, anew=True)
            bringing = _Bringing(journals, journal, joined or Continuation(0, 0), lines)
            is_home = bringing.run(index, found)
    finally:
        live.close(remove=True)
    if is_home or not lines:
        _put_away(path.parent, lines, found)
    if is_home:
        found.home.append(lines[0].doc["uid"])
    return {journal} if lines and not is_home else set()


def _would_bring(journals: Journals, journal: str, found: Findings) -> set[str]:
    joined = _require_first_part(journals, journal)
    if joined is None:
        return set()
    lines = whole_lines(journals.root / journal, 0, journals.scan(journal))[0]
    if lines and not journals.is_live(journal):
        bringing = _Bringing(journals, journal, joined, lines)
        reason = None if bringing.is_done() else bringing.hindrance()
        (found.home if reason is None else found.waiting).append(reason or lines[0].doc["uid"])
    return {journal}


def _require_first_part(journals: Journals, journal: str) -> Continuation | None:
    joined = journals.continuation(journal)
    if joined is not None and joined.begin and not (journals.root / journal).exists():
        raise JournalDamaged(
            f"{journals.root / journal} is gone, which {journals.overflow} continues; that part was not changed; "
            "restore the first one from a copy"
        )
    return joined


def _ended(
    journals: Journals, journal: str, joined: Continuation | None, live: LiveFile, found: Findings
) -> list[JournalLine]:
    """Give a run its end, if it has none; return all of its lines, or none if nothing was announced in the overflow."""
    overflow = journals.overflow or journals.root
    path = overflow / journal
    dead = DeadRun.look(overflow, path)
    is_anything_announced = joined is not None and dead.lines and dead.end > joined.header
    if joined is not None and is_anything_announced and not has_stop(dead.lines):
        first = [line for line, at in journals.scan(journal) if at <= joined.begin]
        stop = replace(dead, lines=[*first, *dead.lines]).stop_line(live.last_words)
        live.release_reserve()
        end_journal(path, dead.end, stop)
        dead.tell_end(stop, found)
    dead.put_in_order(found)
    if not is_anything_announced:
        return []
    return whole_lines(journals.root / journal, 0, journals.scan(journal))[0]


def _put_away(folder: Path, lines: Sequence[JournalLine], found: Findings) -> None:
    """Remove a run's folder from the overflow, unless it holds what nobody announced and nobody put away."""
    own = OWN_FILES | {path.name for path in announced_in(folder, lines)}
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
    if strange:
        (folder / DOCUMENTS).unlink()
        found.left.append(LeftAlone(str(folder), f"{strange[0]!r} is beside a run, and announced by nobody"))
        return
    trash = folder.parents[4] / TRASH / uuid.uuid4().hex
    make_folders(trash.parent)
    with suppress(FileNotFoundError):  # another process does the same
        folder.rename(trash)
    sync_folder(folder.parent)
    remove_tree(trash)


@dataclass(frozen=True, slots=True)
class _Bringing:
    """One run being brought home, by the process that holds its lock in the overflow."""

    journals: Journals
    journal: str
    joined: Continuation
    lines: Sequence[JournalLine]

    @property
    def _there(self) -> Path:
        return (self.journals.overflow or self.journals.root) / self.journal

    @property
    def _here(self) -> Path:
        return self.journals.root / self.journal

    @property
    def _assets(self) -> dict[Path, tuple[AnnouncedAsset, int]]:
        return announced_in(self._there.parent, [line for line, _ in scan_journal(self._there)])

    def run(self, index: Index, found: Findings) -> bool:
        """Bring it home; say whether it is there now."""
        if not self.is_done():
            reason = self.hindrance()
            if reason is not None:
                found.waiting.append(reason)
                return False
            self._copy(self._assets, index)
        lines, end = whole_lines(self._here)
        index.add(self.journal, lines, end, anew=True)
        return True

    def _whole(self) -> bytes:
        """Return what the journal in the root will be."""
        brought = {asset.uid for asset, _ in self._assets.values()}
        return self._first_part() + b"".join(self._pieces(brought))

    def _first_part(self) -> bytes:
        if not self.joined.begin:
            return b""
        with self._here.open("rb") as file:
            return file.read(self.joined.begin)

    def _pieces(self, brought: set[str]) -> Iterator[bytes]:
        """Yield the lines that the journal in the root gets, resources naming where their files will be."""
        text = self._there.read_bytes()
        position = self.joined.header
        for line, end in scan_journal(self._there, position):
            asset = asset_in(self._there.parent, line)
            if asset is not None and asset.uid in brought:
                doc = moved(line.name, line.doc, asset, self.journals.root)
                yield encode_line(replace(line, doc=doc))
            else:
                yield text[position:end]
            position = end

    def is_done(self) -> bool:
        """Say whether the journal in the root is whole already: its process died before it could remove the other."""
        return self._here.exists() and self._here.read_bytes().rstrip() == self._whole().rstrip()

    def hindrance(self) -> str | None:
        """Return why the run has to wait, if it has."""
        run = f"run {self.lines[0].doc['uid']} stays in the overflow {self.journals.overflow}, where it can be read"
        if not self.joined.begin and self._here.exists():
            return f"{run}: in {self._here.parent} there is another one; move that elsewhere"
        files = [file for path in self._assets for file in _files(path)]
        nbytes = sum(file.stat().st_size for file in files) + self._there.stat().st_size + MARGIN_BYTES
        free = shutil.disk_usage(self.journals.root).free
        if free < nbytes:
            return f"{run}: it needs {nbytes} bytes, {self.journals.root} has {free} free; make room, then reconcile"
        return None

    def _copy(self, assets: Mapping[Path, tuple[AnnouncedAsset, int]], index: Index) -> None:
        whole = self._whole()
        folder = self._here.parent
        make_folders(folder)
        live = LiveFile.take(folder, make=True)
        if live is None:
            raise StorageError(
                f"run {self.lines[0].doc['uid']} is in the overflow, and its folder {folder} is held by a process "
                "that lives; nothing was changed; reconcile again when that has ended"
            )
        try:
            digests = announced_digests(self.lines)
            for path, (asset, count) in assets.items():
                _bring_asset(path, folder / path.relative_to(self._there.parent), asset, count, digests)
            sizes = {index.reach(self.journal), self._here.stat().st_size if self._here.exists() else 0}
            if len(whole) in sizes:  # indexes tell by its length that a journal is another one
                whole = whole.rstrip(b"\n") + b" \n"
            write_atomic(self._here, whole)
        finally:
            live.close(remove=self.is_done())


def _bring_asset(
    source: Path, target: Path, asset: AnnouncedAsset, count: int, digests: Mapping[tuple[str, int], str]
) -> None:
    """Copy an asset, *synced*, and compare the copy with what was announced before it gets its name."""
    if target.exists():  # brought by one who died before the journal was replaced
        _check(target, asset, count, digests)
        return
    copy = target.with_name(f".{target.name}{HALF_COPIED}")
    remove_tree(copy)
    make_folders(target.parent)
    if source.is_dir():
        shutil.copytree(source, copy, symlinks=True)
    else:
        shutil.copyfile(source, copy)
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())] if copy.is_dir() else []
    side_by_side([_synced(path) for path in _files(copy)])
    for folder in folders:
        sync_folder(folder)
    _check(copy, asset, count, digests)
    copy.rename(target)
    sync_folder(target.parent)


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _synced(path: Path) -> Any:
    def sync() -> None:
        with path.open("r+b") as file:
            os.fsync(file.fileno())

    return sync


def _check(path: Path, asset: AnnouncedAsset, count: int, digests: Mapping[tuple[str, int], str]) -> None:
    backend = backend_for_spec(asset.spec)
    if backend is None:
        raise GentlyError(f"{path}: nothing installed opens {asset.spec!r}; it stays in the overflow")
    source = backend.open(path, asset.kwargs, count)
    for event in range(count):
        digest, announced = digest_of_pixels(_event(source, event)), digests.get((asset.uid, event))
        if announced is not None and digest != announced:
            raise AssetDamaged(
                f"{path}: expected pixels of {announced} for event {event}, as announced, found {digest}; the run "
                "stays in the overflow, where nothing was changed; see what is wrong with the disk"
            )


def _event(source: ArraySource, event: int) -> Any:
    rest = (slice(0, length, 1) for length in source.shape[1:])
    return source.read((slice(event, event + 1, 1), *rest))[0]


def announced_digests(lines: Sequence[JournalLine]) -> dict[tuple[str, int], str]:
    """Return the digests that a journal gives, by the asset's uid and the event's place in it."""
    found: dict[tuple[str, int], str] = {}
    datums: dict[str, tuple[str, int]] = {}
    keys: dict[str, str] = {}
    ranges: dict[tuple[str, int, str], tuple[str, int]] = {}
    for line in lines:
        doc: Any = line.doc
        if line.name == "datum":
            datums[doc["datum_id"]] = doc["resource"], doc["datum_kwargs"].get("point_number", -1)
        elif line.name == "stream_resource":
            keys[doc["uid"]] = doc["data_key"]
        elif line.name == "stream_datum":
            uid, seq_nums = doc["stream_resource"], doc["seq_nums"]
            for step in range(seq_nums["stop"] - seq_nums["start"]):
                event = doc["descriptor"], seq_nums["start"] + step, keys[uid]
                ranges[event] = uid, doc["indices"]["start"] + step
        elif line.name == "event":
            for key, digest in (line.digest or {}).items():
                named = datums.get(doc["data"].get(key)) or ranges.get(
                    (doc["descriptor"], doc["seq_num"], key)
                )
                if named is not None:
                    found[named] = digest
    return found
