"""One run copied home: what the overflow has of it, its assets and all else that lies beside them, and its journal.

The journal in the root is the switch. Before it is replaced the run is read from both places, and what has been
copied is found to be right, or put away and copied again, by whoever comes next; after it, all of it is read from the
root. What was damaged in the overflow comes home as it is there, and is told; what the copying damaged never gets its
name. Nothing in the overflow is changed here. The caller holds the run's lock there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import NamedTuple

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.continued import Continuation, Journals
from gently_bluesky.documents.journal import rewritten, scan_journal
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.resources import AnnouncedAsset, moved
from gently_bluesky.errors import AssetDamaged, JournalDamaged, LookupFailed, StorageError
from gently_bluesky.files import make_folders, read_plain, remove_tree, sync_folder, write_atomic
from gently_bluesky.model import JournalLine
from gently_bluesky.settings import Settings
from gently_bluesky.upkeep.announced import Announced, announced_assets
from gently_bluesky.upkeep.copying import are_same, copy_synced, plain_files
from gently_bluesky.upkeep.findings import Findings, LeftAlone
from gently_bluesky.upkeep.left_behind import DeadRun
from gently_bluesky.upkeep.pixels import digest_of_event, kind_of
from gently_bluesky.upkeep.quarantine import Unfit, plan, put_away
from gently_bluesky.upkeep.sweeping import DOCUMENTS, announced_in, asset_in

__all__ = ["HALF_COPIED", "OWN_FILES", "Bringing", "Told", "take_lock"]

Told = Sequence[tuple[JournalLine, int]]
"""A journal's lines, each with the offset behind it."""

HALF_COPIED = ".coming-home"
OWN_FILES = {DOCUMENTS, ".live", ".reserve"}
"""What a run's folder in the overflow holds that is not copied."""
BLOCK_BYTES = 4096
"""Of what a file takes on a disk, about."""
PART_OF_DISK = 16
"""Of a small disk, no more than one part in so many has to stay free."""
TAKE_ATTEMPTS = 20
MOST_NAMED = 5


class _Entry(NamedTuple):
    """What lies in a run's folder in the overflow, and which assets that is: none, one, or several in a folder."""

    source: Path
    assets: Mapping[Path, AnnouncedAsset]
    """By their paths below ``source``."""


class _Wrong(NamedTuple):
    """An event that is not as it was announced, in the overflow as in its copy; of those that are gone the first."""

    asset: str
    event: int
    kind: str
    why: str


def take_lock(folder: Path, journal: Path) -> LiveFile | None:
    """Lock a run's folder; None while a living process has it.

    Raises
    ------
    OSError
        It cannot be locked. Whoever let go of the lock just now has not taken the ``journal`` with it, or else as
        FileNotFoundError.
    """
    for _ in range(TAKE_ATTEMPTS):
        try:
            return LiveFile.take(folder, make=True)
        except FileNotFoundError:  # its holder let go of it, and removed it, while we opened it
            if not journal.exists():
                raise
    return LiveFile.take(folder, make=True)


class Bringing:
    """One run on its way home. Reads its part in the overflow once.

    Parameters
    ----------
    told
        The lines of both parts.
    found
        Takes what there is to tell.

    Raises
    ------
    LookupFailed
        Nothing installed opens one of its assets, so that its copy could not be checked.
    OSError, InvalidDocument
        The folder cannot be read, or leads out of the overflow.
    """

    def __init__(
        self, journals: Journals, journal: str, joined: Continuation, told: Told, found: Findings
    ) -> None:
        self.uid: str = told[0][0].doc["uid"]
        self._root = journals.root
        self._overflow = journals.overflow or journals.root
        self._here, self._there = self._root / journal, self._overflow / journal
        self._begin, self._header = joined.begin, joined.header
        self._found = found
        self._first = [line for line, end in told if end <= joined.begin]
        self._second = [(line, end - joined.shift) for line, end in told if end > joined.begin]
        self._announced: Mapping[str, Announced] = announced_assets(line for line, _ in told)
        self._backends: dict[str, Backend] = {}
        self._entries = self._listed()
        self._wrong: list[_Wrong] = []

    def _listed(self) -> list[_Entry]:
        folder = self._there.parent
        announced = announced_in(folder, [line for line, _ in self._second])
        for asset, _ in announced.values():
            self._backends[asset.spec] = _backend(asset)
        return [
            _Entry(
                entry,
                {
                    at.relative_to(entry): asset
                    for at, (asset, _) in announced.items()
                    if at.is_relative_to(entry)
                },
            )
            for entry in sorted(folder.iterdir())
            if entry.name not in OWN_FILES
        ]

    @property
    def names(self) -> set[str]:
        """What is brought home of what lies in the run's folder in the overflow."""
        return {entry.source.name for entry in self._entries}

    # -- whether it is home, and may come -------------------------------------------------------------------------

    @cached_property
    def is_home(self) -> bool:
        """Whether it is all in the root already: its process died before it was done here."""
        return self._is_told and all(
            os.path.lexists(self._target(entry)) for entry in self._entries if entry.assets
        )

    @cached_property
    def _is_told(self) -> bool:
        """Whether the journal in the root tells all of it already."""
        try:
            behind = [_identity(line) for line, _ in scan_journal(self._here, self._begin)]
        except (FileNotFoundError, JournalDamaged):
            return False
        return behind == [_identity(line) for line, _ in self._second]

    def hindrance(self) -> str | None:
        """Return why the run has to wait, if it has."""
        run = f"run {self.uid} stays in the overflow {self._overflow}, where it can be read"
        if not self._begin and not self._is_told and os.path.lexists(self._here):
            return f"{run}: in {self._here.parent} there is another one; move that elsewhere"
        missing = [entry.source for entry in self._entries if not os.path.lexists(self._target(entry))]
        files = [file for path in missing for file in plain_files(path, self._overflow)]
        nbytes = sum(size + BLOCK_BYTES for _, size in files) + self._begin + self._there.stat().st_size
        disk = shutil.disk_usage(self._root)
        halves = [file for half in self._half_copies() for file in plain_files(half, self._root)]
        free = disk.free + sum(size for _, size in halves)
        spare = min(Settings().min_free_bytes, disk.total // PART_OF_DISK)
        if free < nbytes + spare:
            return (
                f"{run}: it needs {nbytes} bytes, and {spare} are to stay free, {self._root} has {free} free; make "
                "room, then reconcile"
            )
        return None

    def _half_copies(self) -> list[Path]:
        return list(self._here.parent.glob(f".*{HALF_COPIED}"))

    def sweep(self) -> None:
        """Remove copies that were half made by who died. Raises OSError."""
        for half in self._half_copies():
            remove_tree(half)

    # -- bringing it ----------------------------------------------------------------------------------------------

    def run(self, reach: int) -> tuple[list[JournalLine], int]:
        """Bring it home, and put in order what lies there; return the journal's lines and their end.

        Parameters
        ----------
        reach
            Up to which byte the index knows the journal.

        Raises
        ------
        AssetDamaged
            A copy is not what it is a copy of; it was removed.
        OSError
            Something could not be copied, or not be put in order; the next time it is tried again.
        """
        folder = self._here.parent
        make_folders(folder)
        is_open = (folder / ".live").exists()
        live = take_lock(folder, self._there)
        if live is None:
            raise StorageError(
                f"run {self.uid} is in the overflow, and its folder {folder} is held by a process that lives; nothing "
                "was changed; reconcile again when that has ended"
            )
        try:
            pieces = self._pieces()
            if not self.is_home:
                live.release_reserve()
                for entry in self._entries:
                    self._bring(entry)
                self._replace_journal(pieces[1], reach)
            is_open = True  # what is left alone is looked at again the next time
            is_open = not self._put_in_order()
        finally:
            live.close(remove=not is_open)
        return [*self._first, *pieces[0]], self._here.stat().st_size

    def _pieces(self) -> tuple[list[JournalLine], list[bytes]]:
        """Return the lines that the journal in the root gets, resources naming where their files will be."""
        folder = self._there.parent

        def at_home(line: JournalLine) -> JournalLine:
            asset = asset_in(folder, line)
            return line if asset is None else replace(line, doc=moved(line.name, line.doc, asset, self._root))

        return rewritten(read_plain(self._there), self._header, self._second, at_home)

    def _replace_journal(self, pieces: Sequence[bytes], reach: int) -> None:
        before = read_plain(self._here) if self._begin else b""
        whole = before[: self._begin] + b"".join(pieces)
        if len(whole) in {reach, len(before)}:  # indexes tell by its length that a journal is another one
            whole = whole.rstrip(b"\n") + b" \n"
        write_atomic(self._here, whole)

    def _target(self, entry: _Entry) -> Path:
        """Return where it is to lie: what nobody announced gives way to what has its name."""
        target = self._here.parent / entry.source.name
        if entry.assets:
            return target
        for number in count(2):
            if not os.path.lexists(target) or are_same(entry.source, target, self._overflow):
                break
            target = target.with_name(f"{entry.source.name}-{number}")
        return target

    def _bring(self, entry: _Entry) -> None:
        """Copy it, *synced*, and compare the copy with what was announced before it gets its name."""
        target = self._target(entry)
        if os.path.lexists(target):
            if not entry.assets or self._is_right(entry, target):
                return  # brought by one who died before the journal was replaced
            self._make_way(entry, target)
        copy = target.with_name(f".{target.name}{HALF_COPIED}")
        try:
            copy_synced(entry.source, copy, self._overflow)
            if not self._is_right(entry, copy):
                raise AssetDamaged(
                    f"{copy}: expected what {entry.source} holds, found something else; the copy was removed, and the "
                    "run stays in the overflow, where nothing was changed; see what is wrong with the disk"
                )
            copy.rename(target)
        except BaseException:
            remove_tree(copy)
            raise
        sync_folder(target.parent)

    def _make_way(self, entry: _Entry, target: Path) -> None:
        """Put away what lies where an asset is to be, and is not it."""
        if target in announced_in(self._here.parent, self._first):
            raise JournalDamaged(
                f"{self._there} announces an asset in the place of {target}, which is another one; nothing was "
                "changed; restore the journal from a copy"
            )
        why = "it lay where an asset was to come home to from the overflow, and held something else"
        asset = next(iter(entry.assets.values())).uid
        away = plan(
            self._root,
            self.uid,
            [Unfit(target.relative_to(self._root).as_posix(), "foreign", why, asset)],
        )
        put_away(self._root, away)
        self._found.quarantined += away

    def _is_right(self, entry: _Entry, copy: Path) -> bool:
        """Say whether a copy holds what was announced, or is damaged exactly as its source is: keep that, to tell."""
        wrong = [one for at, asset in entry.assets.items() for one in self._wrong_events(copy / at, asset)]
        if (wrong or not entry.assets) and not are_same(entry.source, copy, self._overflow):
            return False
        self._wrong += wrong
        return True

    def _wrong_events(self, path: Path, asset: AnnouncedAsset) -> list[_Wrong]:
        """Read an asset back, and return which events are not as they were announced."""
        announced = self._announced[asset.uid]
        wrong: list[_Wrong] = []
        try:
            source = self._backends[asset.spec].open(path, asset.kwargs, announced.count)
        except Exception as error:  # noqa: BLE001 # anything may be wrong with an asset: that is what is asked
            return [_Wrong(asset.uid, 0, kind_of(error), f"it cannot be opened: {error}")]
        there = source.shape[0]
        for event, digest in announced.digests.items():
            if not 0 <= event < there:
                continue
            try:
                read = digest_of_event(source, event)
            except Exception as error:  # noqa: BLE001 # as above
                wrong.append(_Wrong(asset.uid, event, kind_of(error), str(error)))
                continue
            if digest is not None and read != digest:
                why = f"expected pixels of {digest}, as announced, found {read}"
                wrong.append(_Wrong(asset.uid, event, "corrupted", why))
        if announced.count > there:  # however many are claimed
            wrong.append(_Wrong(asset.uid, there, "missing", f"the asset holds {there} events"))
        return wrong

    # -- what is told ---------------------------------------------------------------------------------------------

    def _put_in_order(self) -> bool:
        """Put away what nobody can vouch for, as of a dead run; say whether nothing was left alone."""
        home = DeadRun.look(self._root, self._here)
        done = home.put_in_order(self._found)
        for asset in home.assets:
            spans = [range(*one.events) for one in (*asset.unfit, *asset.missing) if one.events]
            alone, wide = (
                {span[0] for span in spans if len(span) == 1},
                [span for span in spans if len(span) > 1],
            )
            wrong = [
                one
                for one in self._wrong
                if one.asset == asset.asset.uid
                and one.kind != "missing"  # which a look at the files has found too, and told
                and one.event not in alone
                and not any(one.event in span for span in wide)
            ]
            if wrong:
                place = asset.path.relative_to(self._root).as_posix()
                self._found.left.append(LeftAlone(place, self._damage(place, wrong)))
        return done

    def _damage(self, place: str, wrong: Sequence[_Wrong]) -> str:
        named = ", ".join(str(one.event) for one in wrong[:MOST_NAMED])
        return (
            f"run {self.uid}: of {place} {len(wrong)} of its events came home damaged, as they were in the overflow "
            f"{self._overflow} (place {named}{', ...' if len(wrong) > MOST_NAMED else ''}: {wrong[0].kind}: "
            f"{wrong[0].why}); the others are whole; restore them from a copy"
        )

    def would_put_in_order(self) -> None:
        """Tell what would be put away once the run is home. Reads no pixels, so that flipped bits are not told."""
        if self._here.exists():
            home = DeadRun.look(self._root, self._here)
            coming = set[Path]() if self.is_home else {self._target(entry) for entry in self._entries}
            coming |= {*self._half_copies()}
            away = [one for one in home.plan() if self._root / one.path not in coming]
            home.tell_order(away, self._found)
        if not self.is_home:
            there = DeadRun.look(self._overflow, self._there)
            there.tell_order(replace(there, root=self._root).plan(), self._found)


def _backend(asset: AnnouncedAsset) -> Backend:
    backend = backend_for_spec(asset.spec)
    if backend is None:
        raise LookupFailed(
            f"asset {asset.uid} is of the kind {asset.spec!r}, which nothing installed here opens, so that its copy "
            "could not be checked; it stays in the overflow, where nothing was changed; install the package that has "
            "a backend for it, then reconcile"
        )
    return backend


def _identity(line: JournalLine) -> tuple[str, object]:
    return line.name, line.doc.get("uid") or line.doc.get("datum_id")
