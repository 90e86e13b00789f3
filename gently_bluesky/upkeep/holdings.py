"""What a store holds: the runs whose pixels are there, what their files take, and what protects each of them.

It reads the index, the logbook once, and folders; no journals and no pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import Child, needed
from gently_bluesky.model import Record, is_derived
from gently_bluesky.upkeep.protection import Where, own_path, protections
from gently_bluesky.upkeep.sizes import nbytes_of_files
from gently_bluesky.upkeep.stamps import Stamps

__all__ = ["Holding", "Holdings", "holdings", "value_of"]


@dataclass(frozen=True, slots=True)
class Holding:
    """A run that has pixels, which nobody deleted.

    Attributes
    ----------
    run
        Its record.
    assets
        Uids of those of its assets that are ours, on disk, and in the store.
    nbytes
        What their files take.
    reach
        Bytes of its journal that the index knows.
    protected
        What protects it, and a sentence for each: "running", "elsewhere" (nothing of it is ours and on disk in the
        store), and what `gently_bluesky.upkeep.protection` knows.
    children
        Results made from it that are there.
    """

    run: Record
    assets: tuple[str, ...]
    nbytes: int
    reach: int = 0
    protected: Mapping[str, str] = field(default_factory=dict[str, str])
    children: tuple[Child, ...] = ()

    @property
    def uid(self) -> str:
        """Of the run."""
        return self.run.uid

    @property
    def is_derived(self) -> bool:
        """Whether it is a derived result."""
        return is_derived(self.run.metadata)

    @property
    def facts(self) -> tuple[Any, ...]:
        """What a plan was made from, and what it must still be; a run that goes on may well go on."""
        if self.run.status == "running":
            return (self.uid, "running")
        return (self.uid, self.run.status, self.reach, *sorted(self.assets), *self.protected, *self.children)


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that a store holds, oldest first.

    Attributes
    ----------
    newest
        When somebody last put something into the logbook, in seconds since the epoch; 0 where nobody did.
    gone
        Runs whose pixels were deleted: time points are counted with them.
    """

    runs: Sequence[Holding]
    newest: float = 0.0
    gone: Sequence[Holding] = ()


def holdings(root: Path, index: Index, where: Where) -> Holdings:
    """Return what a store holds; ``where`` tells where an asset lies.

    Raises
    ------
    JournalDamaged, StorageError
        The logbook, or the index, cannot be read.
    """
    stamps = Stamps(root, writes=False)
    stamps.read()
    shared = cache(index.shared_places)
    reaches, pins, children = index.journals(), index.pins(), needed(index)
    assets: dict[str, list[Record]] = {}
    for asset in index.query(kind="asset", deleted=False):
        assets.setdefault(asset.run_uid, []).append(asset)
    found: list[Holding] = []
    for run in index.query(deleted=False):
        if run.uid not in assets:
            continue
        paths = {asset.uid: own_path(root, run, asset, where, shared) for asset in assets[run.uid]}
        own = {uid: root / path for uid, path in paths.items() if path is not None}
        reach, stamp = reaches.get(run.path, 0), stamps.of(run.uid)
        made = tuple(
            child._replace(suffices=child.status == "complete" and _is_kept(child, assets))
            for child in children.get(run.uid, ())
        )
        protected = protections(
            run,
            pins.get(run.uid),
            is_damaged=bool(stamp.get("findings")),
            is_verified=stamps.is_verified_up_to(run.uid, run.path, reach),
            needing=[(child.uid, child.status) for child in made],
        )
        if run.status == "running":
            protected = {"running": "it is being written", **protected}
        elif not own:
            protected = {"elsewhere": "nothing of it is ours and on disk in this store", **protected}
        found.append(Holding(run, tuple(own), _nbytes(own.values()), reach, protected, made))
    gone = [Holding(run, (), 0) for run in index.query(deleted=True)]
    return Holdings(sorted(found, key=lambda one: (one.run.time, one.uid)), stamps.newest, gone)


def _is_kept(child: Child, assets: Mapping[str, Sequence[Record]]) -> bool:
    """Say whether a result lies on disk; what has no arrays does, in a journal."""
    of_it = assets.get(child.uid, ())
    return not of_it or any(asset.format != MemoryBackend.spec for asset in of_it)


def _nbytes(paths: Iterable[Path]) -> int:
    """Return what files take; those that go meanwhile take nothing."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += nbytes_of_files(path) if os.path.lexists(path) else 0
    return total


def value_of(run: Record, key: str) -> str:
    """Return what a start document says under a key, dotted for what is nested, as text; empty where nothing."""
    said: object = run.metadata
    for name in key.split("."):
        said = said.get(name) if isinstance(said, Mapping) else None  # pyright: ignore[reportUnknownMemberType] # of JSON
    return "" if said is None else str(said)
