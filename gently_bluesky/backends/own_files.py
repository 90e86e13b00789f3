"""The files of an asset of ours, taken for what they are: plain files of the store, and nothing that a link leads to.

A link is followed where it stays in the store, as programs that keep versions of files make them. A pipe in the
place of a file is not waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path

from gently_bluesky.errors import AssetDamaged, PathNotAllowed
from gently_bluesky.files import open_plain
from gently_bluesky.segments import MARKER

__all__ = ["open_own", "require_own"]


def open_own(path: Path) -> FileIO:
    """Open a file of an asset for reading, unbuffered.

    Raises
    ------
    PathNotAllowed
        It is a link that leads out of the store.
    OSError
        It is not there, no plain file, or cannot be opened.
    """
    try:
        return open_plain(path, follow=False)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    _require_inside(path)
    return open_plain(path)


def require_own(folder: str, grid: Sequence[Iterable[int]]) -> None:
    """Look at files that somebody else will open by their names: ``<folder>/<n>/<n>/...``, a number for each axis.

    What is not there is passed over.

    Raises
    ------
    PathNotAllowed
        One of them, or a folder on the way, is a link that leads out of the store.
    AssetDamaged
        One of them is neither a plain file nor a folder.
    """
    level = [folder]
    _look_at(folder)
    for numbers in grid:
        level = [f"{above}/{number}" for above in level for number in numbers]
        for name in level:
            _look_at(name)


def _look_at(name: str) -> None:
    try:
        kind = stat.S_IFMT(os.lstat(name).st_mode)
    except OSError:
        return
    if kind == stat.S_IFLNK:
        _require_inside(Path(name))
        kind = stat.S_IFMT(os.stat(name).st_mode) if Path(name).exists() else stat.S_IFREG  # noqa: PTH116
    if kind not in {stat.S_IFREG, stat.S_IFDIR}:
        raise AssetDamaged(f"{name} is no plain file; no pixels were returned; restore it from a copy")


def _require_inside(path: Path) -> None:
    root = next((folder for folder in path.parents if (folder / MARKER).exists()), path.parent)
    try:
        place = path.resolve()
        is_inside = place.is_relative_to(root.resolve())
    except RuntimeError:  # in a circle
        return
    if not is_inside:
        raise PathNotAllowed(
            f"{path} is a link to {place}, expected a file of the store {root}; nothing was read there; put the file "
            "itself in its place"
        )
