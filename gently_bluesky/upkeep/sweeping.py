"""What a dead process left beside the journals: files half written, copies half made, memory nobody names.

Nothing that a journal announces is removed, and nothing of a process that lives: the caller holds the lock of
the run, or the kernel says that nobody holds that of the segment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import AnnouncedAsset, announced_asset
from gently_bluesky.errors import GentlyError
from gently_bluesky.files import is_leftover
from gently_bluesky.index.fields import path_of_uri
from gently_bluesky.model import JournalLine
from gently_bluesky.segments import (
    HOT,
    abandoned_segments,
    names_of,
    shared_folder,
    store_uid_at,
    sweep_file,
    tag_of,
)

__all__ = [
    "DOCUMENTS",
    "IN_MEMORY",
    "PLAN",
    "announced_in",
    "asset_in",
    "frames_by_asset",
    "is_half_written",
    "leftovers_in",
    "named_in",
    "sweep_memory",
]

DOCUMENTS = "documents.jsonl"
PLAN = ".converting.json"
"""In a run's folder: which asset is being converted, and to what."""
IN_MEMORY = ".memory"
"""Ending of the files that say where an asset in memory is."""
HALF_WRITTEN = (".__lock", ".tif.partial")
"""Ends of what TensorStore and our TIFF files are written as, before they are renamed."""


def asset_in(folder: Path, line: JournalLine) -> AnnouncedAsset | None:
    """Return the asset that a line announces, if it lies in its run's folder, where writers of ours put it."""
    asset = announced_asset(line.name, line.doc)
    relative = folder.relative_to(folder.parents[4]).parts
    parts = () if asset is None else Path(asset.path).parts
    is_in = parts[: len(relative)] == relative and len(parts) > len(relative) and ".." not in parts
    return asset if is_in else None


def frames_by_asset(lines: Sequence[JournalLine]) -> dict[str, int]:
    """Return how many events of each asset a journal announces, by the resource's uid."""
    counts: dict[str, int] = {}
    for line in lines:
        if line.name == "datum":
            resource, number = line.doc["resource"], line.doc["datum_kwargs"].get("point_number")
            if isinstance(number, int):
                counts[resource] = max(counts.get(resource, 0), number + 1)
        elif line.name == "stream_datum":
            resource, stop = line.doc["stream_resource"], line.doc["indices"]["stop"]
            counts[resource] = max(counts.get(resource, 0), stop)
    return counts


def is_half_written(name: str) -> bool:
    """Say whether a file of this name is what a writer of ours that died leaves of a write."""
    return is_leftover(name) or name.endswith(HALF_WRITTEN)


def leftovers_in(folder: Path) -> list[Path]:
    """Return the files in a run's folder that were half written when its process died."""
    found: list[Path] = []
    for inner, folders, names in os.walk(folder):
        if INCOMING in folders and inner == str(folder):
            folders.remove(INCOMING)  # what others wrote, and called as they liked
        found += [Path(inner, name) for name in names if is_half_written(name)]
    return found


def named_in(folder: Path, lines: Sequence[JournalLine]) -> set[str]:
    """Return the names in a run's folder that any resource of its journal mentions, whoever wrote it."""
    relative = folder.relative_to(folder.parents[4]).as_posix()
    names: set[str] = set()
    for line in lines:
        if line.name in {"resource", "stream_resource"}:
            said = f"/{line.doc.get('resource_path') or path_of_uri(line.doc.get('uri')) or ''}/"
            _, _, below = said.partition(f"/{relative}/")
            names.add(below.partition("/")[0])
    return names


def announced_in(folder: Path, lines: Sequence[JournalLine]) -> dict[Path, tuple[AnnouncedAsset, int]]:
    """Return the assets in a run's folder by where they lie, each with how many events of it are announced.

    Whoever names one of them again takes nothing away from it.
    """
    counts = frames_by_asset(lines)
    found: dict[Path, tuple[AnnouncedAsset, int]] = {}
    for line in lines:
        asset = asset_in(folder, line)
        if asset is not None:
            path, count = folder.parents[4] / asset.path, counts.get(asset.uid, 0)
            known, most = found.get(path, (asset, 0))
            found[path] = known, max(most, count)
    return found


def sweep_memory(root: Path, *, dry_run: bool) -> list[str]:
    """Remove what dead processes left in shared memory of this store, but for assets that a run announces.

    Returns the names of what was, or would be, removed.
    """
    uid = store_uid_at(root)
    if uid is None:
        return []
    tag = tag_of(uid)
    swept = [name for name in names_of(tag, HOT) if sweep_file(shared_folder() / name, dry_run=dry_run)]
    for name, owner in abandoned_segments(tag, dry_run=dry_run):
        from gently_bluesky.upkeep.in_memory import sweep_segment  # opening a store brings no backend

        with suppress(GentlyError, OSError):  # left alone, for the next opening: nothing is lost but room
            if sweep_segment(root, name, owner, dry_run=dry_run):
                swept.append(name)
    return swept
