"""What files take on a disk."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["nbytes_of_files"]


def nbytes_of_files(path: Path) -> int:
    """Return the bytes that a file, or all files in a folder, hold; no link is followed.

    Raises
    ------
    OSError
        It is not there.
    """
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total, folders = 0, [os.fspath(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
