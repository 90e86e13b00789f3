"""What a conversion is about to do, on record in the folder of its run: what a crash leaves is undone, or finished.

The run's journal is the switch. Before it is replaced the asset is what it was, and what there is of the new one is
removed; after it, what is left to do is to put away what the asset was. Whoever comes next does that.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.resources import announced_asset
from gently_bluesky.files import inside, read_plain, sync_folder, write_atomic
from gently_bluesky.index.upkept import CONVERT
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.sweeping import DOCUMENTS, PLAN, named_in
from gently_bluesky.upkeep.trash import place, places_in

__all__ = ["ConversionPlan", "entry_of", "forget_plan", "is_planned", "settle"]


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """One asset being converted.

    Attributes
    ----------
    uid
        Of the asset.
    old, old_spec
        Its place, relative to the store's root, and its kind, until then.
    new, spec
        The name in its run's folder, and the kind, that it gets.
    entry
        Of the logbook, by which what it was goes to the trash; None where that is memory, which is given back.
    """

    uid: str
    old: str
    old_spec: str
    new: str
    spec: str
    entry: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> ConversionPlan | None:
        """Return what is on record in the folder of a run; None where that was not written by us.

        Raises
        ------
        FileNotFoundError
            Nothing is.
        OSError
            It cannot be read.
        """
        try:
            said = orjson.loads(read_plain(folder / PLAN))
            texts = {name: said[name] for name in ("uid", "old", "old_spec", "new", "spec")}
            if any(not isinstance(text, str) for text in texts.values()):
                return None
            return cls(**texts, entry=None if said["entry"] is None else dict(said["entry"]))
        except (ValueError, TypeError, KeyError):
            return None

    def write(self, folder: Path) -> None:
        """Put it on record in the folder of its run; *synced*. Raises OSError."""
        write_atomic(folder / PLAN, orjson.dumps(asdict(self)))

    def is_announced(self, lines: Sequence[JournalLine]) -> bool:
        """Say whether the lines of the journal have the asset as it is to become."""
        for line in lines:
            asset = announced_asset(line.name, line.doc) if line.doc.get("uid") == self.uid else None
            if asset is not None:
                return asset.spec == self.spec and asset.path.rpartition("/")[2] == self.new
        return False

    def finish(self, root: Path, *, is_noted: bool) -> None:
        """Put away what the asset was; *synced*. ``is_noted`` says that the logbook has the entry. Raises OSError."""
        if self.entry is None:
            if self.old_spec != MemoryBackend.spec or not self.old.endswith(MemoryBackend.suffix):
                return  # not written by us
            MemoryBackend().remove(inside(root, self.old), {})
            return
        if not is_noted:
            Logbook(root).append(self.entry)
        for one in places_in([self.entry]).values():
            place(root, one)

    def undo(self, folder: Path) -> None:
        """Remove what there is of what the asset was to become; *synced*. Raises OSError."""
        backend = backend_for_spec(self.spec)
        is_name = Path(self.new).name == self.new and not self.new.startswith(".")
        if backend is not None and is_name and self.new.endswith(backend.suffix):
            backend.remove(folder / self.new, {})


def entry_of(
    asset: str, run: str, folder: str, place_now: str, place_in_trash: str, **more: object
) -> dict[str, Any]:
    """Return the logbook's entry of what an asset was before it was converted: with a uid of its own."""
    copy = {"uid": str(uuid.uuid4()), "copy_of": asset, "path": place_now, "trash": place_in_trash}
    known = {name: more.pop(name) for name in ("nbytes", "events", "digest")}
    return {
        "kind": CONVERT,
        "run": run,
        "folder": folder,
        "whole": False,
        "assets": [{**copy, **known}],
        **more,
    }


def settle(root: Path, folder: Path, lines: Sequence[JournalLine]) -> bool:
    """Finish the conversion that was begun in a run's folder if the journal announces it, else undo it.

    Doing it again changes nothing. The caller holds the run's lock.

    Parameters
    ----------
    lines
        Of the run's journal, as it stands.

    Returns
    -------
    bool
        Whether one was finished: the index is to be told.

    Raises
    ------
    OSError
        Something could not be moved, removed or said; the asset can be read as the journal says.
    """
    try:
        plan = ConversionPlan.read(folder)
    except FileNotFoundError:
        return False
    finished = plan is not None and plan.is_announced(lines)
    if plan is not None and finished:
        sync_folder(folder)  # the journal that says so is on the disk before what the asset was goes
        plan.finish(root, is_noted=plan.entry is None or _is_noted(root, plan.entry))
    elif plan is not None and plan.new not in {DOCUMENTS, *named_in(folder, lines)}:
        plan.undo(folder)
    forget_plan(folder)
    return finished


def forget_plan(folder: Path) -> None:
    """Say that nothing is being converted in a run's folder any more; *synced*. Raises OSError."""
    (folder / PLAN).unlink(missing_ok=True)
    sync_folder(folder)


def is_planned(folder: Path) -> bool:
    """Say whether a conversion is on record in a run's folder."""
    return os.path.lexists(folder / PLAN)


def _is_noted(root: Path, wanted: Mapping[str, Any]) -> bool:
    known = (entry for entry in Logbook(root).entries() if entry["kind"] == CONVERT)
    return not places_in([wanted]).keys().isdisjoint(places_in(known))
