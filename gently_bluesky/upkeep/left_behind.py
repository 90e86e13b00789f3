"""What a dead process left in the folder of its run: looked at without changing anything, then put in order.

What is announced is told from what is not by the journal alone. Pixels are not read.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.adopting import ORIGIN
from gently_bluesky.documents.event_count import EventCount
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.live import LastWords
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import AnnouncedAsset
from gently_bluesky.errors import GentlyError, LookupFailed
from gently_bluesky.files import remove_tree
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.findings import Ended, Findings, LeftAlone, Missing, PutAway, TornTail
from gently_bluesky.upkeep.journals import has_stop, whole_lines
from gently_bluesky.upkeep.quarantine import Unfit, plan, put_away, records_of
from gently_bluesky.upkeep.sweeping import (
    DOCUMENTS,
    IN_MEMORY,
    PLAN,
    announced_in,
    asset_in,
    is_half_written,
    leftovers_in,
    named_in,
)
from gently_bluesky.upkeep.trash import deleted_assets

__all__ = ["OWN", "DeadRun", "names_of_run"]

NAMES_ASSET = {
    "resource": "uid",
    "datum": "resource",
    "stream_resource": "uid",
    "stream_datum": "stream_resource",
}
"""Where documents that announce frames name their asset."""

OWN = {DOCUMENTS, ".live", ".reserve", PLAN, INCOMING, ORIGIN}
"""What a run's folder holds beside its assets."""


@dataclass(frozen=True, slots=True)
class _AssetLook:
    """One announced asset, and what is wrong with it; ``lost`` of its ``count`` events cannot be read."""

    path: Path
    asset: AnnouncedAsset
    count: int
    backend: Backend | None
    lost: int
    unfit: tuple[Unfit, ...] = ()
    missing: tuple[Missing, ...] = ()
    left: tuple[LeftAlone, ...] = ()


@dataclass(frozen=True, slots=True)
class DeadRun:
    """What there is of a run, or of a device's recording, whose process is dead.

    Attributes
    ----------
    root
        Of the store.
    path
        Of its journal.
    lines, end, torn
        Those that announce something whole, where they end, and how many bytes are behind them.
    assets
        Those that are announced.
    strangers
        What lies beside them and is announced by nobody.
    leftovers
        Of writes that were half done.
    """

    root: Path
    path: Path
    lines: Sequence[JournalLine]
    end: int
    torn: int
    assets: tuple[_AssetLook, ...]
    strangers: tuple[Unfit, ...]
    leftovers: tuple[Path, ...]

    @classmethod
    def look(cls, root: Path, path: Path) -> DeadRun:
        """Look at the journal, and at the files that it announces, without reading pixels. Raises JournalDamaged."""
        folder = path.parent
        lines, end = whole_lines(path)
        if lines and lines[0].name == "start" and not has_stop(lines):  # a recording has no events of its own
            lines, end = _without_loose_ends(path, lines, end)
        torn = path.stat().st_size - end
        announced = announced_in(folder, lines)
        assets = tuple(
            _look_at_asset(root, at, asset, count, announced.keys())
            for at, (asset, count) in announced.items()
        )
        strangers, leftovers = _unannounced(root, folder, names_of_run(folder, lines))
        away = [root / one.path for one in (*(one for asset in assets for one in asset.unfit), *strangers)]
        leftovers += [
            one for one in leftovers_in(folder) if not any(one.is_relative_to(path) for path in away)
        ]
        return cls(root, path, lines, end, torn, assets, tuple(strangers), tuple(leftovers))

    @property
    def run(self) -> str | None:
        """The uid of the run; None of a recording."""
        start = self.lines[0] if self.lines else None
        return start.doc["uid"] if start is not None and start.name == "start" else None

    def stop_line(self, last_words: LastWords) -> JournalLine:
        """Return the stop that the run gets, with what is known of its frames."""
        events = EventCount()
        events.note(self.lines)
        announced = sum(len(line.digest or {}) for line in self.lines)
        counts, failure = last_words.counts, last_words.failure
        stored = max(0, announced - sum(asset.lost for asset in self.assets))
        received = None if counts is None else max(counts[0], announced)
        stop = {
            "uid": str(uuid.uuid4()),
            "run_start": self.lines[0].doc["uid"],
            "time": time.time(),
            "exit_status": "abort" if failure is None else "fail",
            "reason": failure or "the process that wrote the run died before its stop document came",
            "num_events": events.num_events,
        }
        lost = None if received is None else received - stored
        status = "incomplete" if failure is None else "failed"
        outcome = {"status": status, "received": received, "stored": stored, "lost": lost}
        return JournalLine("stop", stop, outcome=outcome)

    def tell_end(self, stop: JournalLine, found: Findings) -> None:
        """Report the end of the run."""
        self.tell_tail(found)
        said = stop.outcome or {}
        counts = said["received"], said["stored"], said["lost"]
        found.ended.append(Ended(stop.doc["run_start"], self._relative(self.path), said["status"], *counts))

    def tell_tail(self, found: Findings) -> None:
        """Report what is not whole at the end of the journal, as it was when it was looked at."""
        if self.torn:
            found.torn.append(TornTail(self._relative(self.path), self.end, self.torn))

    def plan(self) -> list[PutAway]:
        """Return what is to be put away, and where."""
        return plan(
            self.root, self.run, [*(one for asset in self.assets for one in asset.unfit), *self.strangers]
        )

    def tell_order(self, planned: Sequence[PutAway], found: Findings) -> None:
        """Report what is put away and swept, and what is not."""
        found.quarantined += planned
        gone = {entry["from"] for entry in records_of(self.root) if os.path.lexists(self.root / entry["to"])}
        deleted = deleted_assets(self.root) if any(asset.missing for asset in self.assets) else set[str]()
        for asset in self.assets:
            told = [one for one in asset.missing if one.path not in gone and one.asset not in deleted]
            found.missing += [replace(one, run=self.run) for one in told]
            found.left += asset.left
        found.swept += map(self._relative, self.leftovers)

    def put_in_order(self, found: Findings) -> bool:
        """Put away, have each backend publish what is announced, and sweep; say whether nothing was left alone.

        The caller holds the lock.

        Raises
        ------
        OSError
            Something could not be renamed or removed.
        """
        planned = self.plan()
        put_away(self.root, planned)
        for asset in self.assets:
            if asset.backend is not None and not asset.left and os.path.lexists(asset.path):
                with suppress(GentlyError):  # what is wrong with an asset is said when it is read
                    asset.backend.recover(asset.path, asset.asset.kwargs, asset.count)
        for leftover in self.leftovers:
            if leftover.name.endswith(IN_MEMORY):
                from gently_bluesky.upkeep.in_memory import forget  # as `sweep_memory`

                forget(leftover)
            else:
                remove_tree(leftover)
        self.tell_order(planned, found)
        return not any(asset.left for asset in self.assets)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _look_at_asset(
    root: Path, at: Path, asset: AnnouncedAsset, count: int, announced: Set[Path]
) -> _AssetLook:
    place = at.relative_to(root).as_posix()
    try:
        backend = backend_for_spec(asset.spec)
    except LookupFailed as error:
        return _AssetLook(at, asset, count, None, 0, left=(LeftAlone(place, str(error)),))
    lost, lost_whole = set[int](), False
    unfit: list[Unfit] = []
    missing: list[Missing] = []
    left: list[LeftAlone] = []
    for fault in backend.inspect(at, asset.kwargs, count) if backend is not None else ():
        is_whole = len(fault.events) == count > 0
        lost_whole = lost_whole or is_whole
        lost.update(() if is_whole else fault.events)
        events = (fault.events.start, fault.events.stop) if fault.events else None
        is_here = fault.path.is_relative_to(root)
        path = fault.path.relative_to(root).as_posix() if is_here else str(fault.path)
        if fault.errno is not None:
            left.append(LeftAlone(path, f"the system cannot read it: {fault.why}"))
        elif any(other != at and fault.path in (other, *other.parents) for other in announced):
            left.append(LeftAlone(path, f"{fault.why}, but another asset is announced there"))
        elif is_here and fault.kind != "missing":
            unfit.append(Unfit(path, fault.kind, fault.why, asset.uid, events))
        elif (
            fault.kind != "foreign"
        ):  # in memory: of no use to anybody, and removed with what is half written
            missing.append(Missing(None, asset.uid, events, path, fault.why))
    number = count if lost_whole else len(lost)
    return _AssetLook(at, asset, count, backend, number, tuple(unfit), tuple(missing), tuple(left))


def names_of_run(folder: Path, lines: Sequence[JournalLine]) -> set[str]:
    """Return the names in a run's folder that are its own: every run's, its assets', what backends have beside these.

    ``lines`` are of its journal, at least those that announce assets.
    """
    names = OWN | named_in(folder, lines)
    for path, (asset, _) in announced_in(folder, lines).items():
        with suppress(GentlyError, OSError):
            backend = backend_for_spec(asset.spec)
            if backend is not None and type(backend).files is not Backend.files:
                files = backend.files(path, asset.kwargs)
                names |= {file.relative_to(folder).parts[0] for file in files if file.is_relative_to(folder)}
    return names


def _unannounced(root: Path, folder: Path, known: Set[str]) -> tuple[list[Unfit], list[Path]]:
    """Return what lies in a run's folder and is nobody's, and what of that is worth nothing."""
    strangers: list[Unfit] = []
    leftovers: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name in known or is_half_written(entry.name):
            continue
        if entry.name.endswith(IN_MEMORY) or _holds_nothing(entry):
            leftovers.append(entry)
        else:
            path = entry.relative_to(root).as_posix()
            strangers.append(Unfit(path, "foreign", "no document of its run announces it"))
    return strangers, leftovers


def _holds_nothing(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    return not any(
        names or any(Path(inner, name).is_symlink() for name in folders)
        for inner, folders, names in os.walk(path)
    )


def _without_loose_ends(path: Path, lines: Sequence[JournalLine], end: int) -> tuple[list[JournalLine], int]:
    """Leave out what was written to announce an event whose own line is not there: it was not announced."""
    ours = {asset.uid for line in lines if (asset := asset_in(path.parent, line)) is not None}
    whole = len(lines)
    while whole and lines[whole - 1].doc.get(NAMES_ASSET.get(lines[whole - 1].name, "")) in ours:
        whole -= 1
    if whole == len(lines):
        return list(lines), end
    ends = [position for _, position in scan_journal(path)]
    return list(lines[:whole]), ends[whole - 1] if whole else 0
