"""What a store has in memory that processes share, and how to take it away after a test."""

from __future__ import annotations

from pathlib import Path

from gently_bluesky.files import remove_tree
from gently_bluesky.segments import HOT, names_of, shared_folder, store_uid_at, tag_of


def segments_of(root: Path) -> list[Path]:
    """Return the segment folders and hot pools of a store."""
    uid = store_uid_at(root)
    if uid is None:
        return []
    return [shared_folder() / name for ending in ("", HOT) for name in sorted(names_of(tag_of(uid), ending))]


def clear(root: Path) -> None:
    """Remove them all."""
    for segment in segments_of(root):
        remove_tree(segment)
