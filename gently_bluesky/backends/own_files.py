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

from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError, PathNotAllowed
from gently_bluesky.files import open_plain
from gently_bluesky.segments import MARKER

__all__ = ["SMALL_BYTES", "open_own", "require_own", "require_plausible", "require_room"]

MOST_EXPANSION = 2**16
SMALL_BYTES = 2**28
MOST_NUMBERS = 4096


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


def require_own(folder: str, grid: Sequence[Sequence[int]] = ()) -> int:
    """Look at files that somebody else will open by their names: ``<folder>/<n>/<n>/...``, a number for each axis.

    What is not there is passed over. Returns the bytes of those that are.

    Raises
    ------
    PathNotAllowed
        One of them, or a folder on the way, is a link that leads out of the store.
    AssetDamaged
        One of them is neither a plain file nor a folder.
    """
    found = _looked_at(folder)
    level = [] if found is None else [folder]
    for numbers in grid:
        names = [f"{above}/{number}" for above in level for number in _there(above, numbers)]
        looked = [(name, _looked_at(name)) for name in names]
        level = [name for name, nbytes in looked if nbytes is not None]
        found = sum(nbytes for _, nbytes in looked if nbytes is not None)
    return found or 0


def require_plausible(path: Path, claimed: int, found: int, most_expansion: int = MOST_EXPANSION) -> None:
    """Refuse a claim of more pixels than files of ``found`` bytes can hold, before memory is taken for them.

    Raises
    ------
    AssetDamaged
        It is absurd.
    """
    if claimed > max(SMALL_BYTES, found * most_expansion):
        raise AssetDamaged(
            f"{path}: {claimed} bytes of pixels are announced, which files of {found} bytes cannot hold; no pixels "
            "were returned; restore the files from a copy"
        )


def require_room(path: Path, claimed: int) -> None:
    """Look whether a file has room for an event of so many bytes, before memory is taken for it.

    Raises
    ------
    AssetMissing, AssetDamaged, PathNotAllowed
        It is not there, it has not, or it may not be read.
    """
    found = require_own(str(path))
    if not found and not path.exists():
        raise AssetMissing(f"{path} is gone; no pixels were returned")
    require_plausible(path, claimed, found, most_expansion=1)


def _there(folder: str, numbers: Sequence[int]) -> Iterable[int]:
    """Return the numbers to look at: of absurdly many, those that are there."""
    if len(numbers) <= MOST_NUMBERS:
        return numbers
    wanted = numbers if isinstance(numbers, range) else frozenset(numbers)
    return [int(name) for name in os.listdir(folder) if name.isdecimal() and int(name) in wanted]  # noqa: PTH208


def _looked_at(name: str) -> int | None:
    """Return the bytes of a file or folder, None where nothing is."""
    try:
        about = os.lstat(name)
        if stat.S_ISLNK(about.st_mode):
            _require_inside(Path(name))
            about = os.stat(name)  # noqa: PTH116 # many times in a read
    except OSError as error:
        if isinstance(error, GentlyError):
            raise
        return None
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
        raise AssetDamaged(f"{name} is no plain file; no pixels were returned; restore it from a copy")
    return about.st_size


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
