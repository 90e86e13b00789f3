"""The quarantine: where files go that no run can vouch for. They are renamed, put on record, and never deleted.

``<root>/quarantine/`` has what was torn, unreadable or announced by nobody when its run was recovered, under the
path it had below the root. The logbook says of each from where it came and why, before it is moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.errors import AssetMissing, AssetQuarantined, StorageError
from gently_bluesky.files import make_folders, sync_folder
from gently_bluesky.upkeep.findings import PutAway
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.wording import TO_THE_SECOND, clock

__all__ = ["KIND", "QUARANTINE", "Unfit", "explained", "plan", "put_away", "records_of"]

QUARANTINE = "quarantine"
KIND = "quarantine"
"""Of the logbook's entries about it."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """What is to be put away.

    Attributes
    ----------
    path
        Relative to the store's root.
    kind, why, asset, events
        As of `PutAway`.
    """

    path: str
    kind: str
    why: str
    asset: str | None = None
    events: tuple[int, int] | None = None


def plan(root: Path, run: str | None, unfit: Sequence[Unfit]) -> list[PutAway]:
    """Return where each would go: the path it has, below the quarantine, with a number behind it if that is taken."""
    taken: set[str] = set()
    planned: list[PutAway] = []
    for one in unfit:
        now = wanted = f"{QUARANTINE}/{one.path}"
        number = 1
        while now in taken or os.path.lexists(root / now):
            number += 1
            now = f"{wanted}-{number}"
        taken.add(now)
        planned.append(PutAway(run, one.asset, one.kind, one.events, one.path, now, one.why))
    return planned


def put_away(root: Path, planned: Sequence[PutAway]) -> None:
    """Put on record and rename; *synced* on return. Doing it again for what is left of it changes nothing more.

    Raises
    ------
    OSError
        Something could not be recorded or renamed: it is where it was, and what was renamed so far is on record.
    """
    known = {(entry["from"], entry["to"]) for entry in records_of(root)}
    new = [one for one in planned if (one.path, one.now) not in known]
    Logbook(root).append(*map(_entry, new))
    left: dict[Path, None] = {}
    reached: dict[Path, None] = {}
    for one in planned:
        source, target = root / one.path, root / one.now
        make_folders(target.parent)
        source.rename(target)
        left[source.parent] = reached[target.parent] = None
    for folder in reached | left:  # in this order: in between a file has two names rather than none
        sync_folder(folder)


def _entry(one: PutAway) -> dict[str, Any]:
    return {
        "kind": KIND,
        "run": one.run,
        "asset": one.asset,
        "events": one.events,
        "from": one.path,
        "to": one.now,
        "fault": one.kind,
        "why": one.why,
    }


def records_of(root: Path, asset: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield what the logbook says of the quarantine, of one asset if that is given; nothing where it is damaged.

    It may speak of what was not renamed after all.
    """
    with suppress(StorageError):  # said where the logbook itself is looked at
        for entry in Logbook(root).entries(KIND):
            said = entry.get("from"), entry.get("to")
            is_ours = all(isinstance(path, str) for path in said) and isinstance(
                entry.get("time"), int | float
            )
            if is_ours and asset in (None, entry.get("asset")):
                yield entry


def explained(root: Path, asset: str, error: AssetMissing) -> AssetMissing:
    """Return the error that says where the quarantine has what is missing of an asset; else the one given."""
    text = str(error)
    for entry in records_of(root, asset):
        if str(root / entry["from"]) in text and os.path.lexists(root / entry["to"]):
            when = clock(entry["time"], TO_THE_SECOND)
            return AssetQuarantined(
                f"{root / entry['from']} was put in quarantine at {when}, when its run was recovered: it was "
                f"{entry.get('fault')} ({entry.get('why')}); it lies at {root / entry['to']}; no pixels were returned; "
                "all else of the run can be read"
            )
    return error
