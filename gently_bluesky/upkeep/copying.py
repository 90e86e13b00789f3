"""Files and folders copied as they are, *synced*, and compared byte by byte. Nothing here knows what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gently_bluesky.files import (
    create_file,
    inside,
    make_folders,
    open_plain,
    sync_file,
    sync_tree,
    write_all,
)

__all__ = ["are_same", "copy_synced", "plain_files"]

PIECE_BYTES = 1 << 22


def plain_files(path: Path, within: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files that a file or folder consists of, each with its size in bytes.

    A link counts as the file that it leads to, which must lie below ``within``.

    Raises
    ------
    InvalidDocument
        A link leads out of ``within``.
    OSError
        Something there is neither a plain file nor a folder, a link to a folder, or cannot be looked at.
    """
    if path.is_dir() and not path.is_symlink():
        for folder, folders, names in os.walk(path, onerror=_raise):
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for name in (*links, *names):
                yield Path(folder, name), _size(Path(folder, name), within)
    else:
        yield path, _size(path, within)


def copy_synced(source: Path, target: Path, within: Path) -> None:
    """Copy a file, or a folder with the files in it, to where nothing is; *synced*, but for the target's own name.

    Raises
    ------
    InvalidDocument, OSError
        As `plain_files`, or it could not be copied: what there is of the copy is for the caller to remove.
    """
    if not source.is_dir() or source.is_symlink():
        _size(source, within)
        _copy(source, target)
        sync_file(target)
        return
    target.mkdir()
    for file, _ in plain_files(source, within):
        copy = target / file.relative_to(source)
        make_folders(copy.parent, sync=False)
        _copy(file, copy)
    sync_tree(target)


def are_same(source: Path, copy: Path, within: Path) -> bool:
    """Say whether a copy has the files of its source, byte for byte. Raises as `plain_files`."""
    try:
        ours = {file.relative_to(source): size for file, size in plain_files(source, within)}
        theirs = {file.relative_to(copy): size for file, size in plain_files(copy, copy)}
    except FileNotFoundError:
        return False
    return ours == theirs and all(_holds_same(source / name, copy / name) for name in ours)


def _size(path: Path, within: Path) -> int:
    if path.is_symlink():
        inside(within, path.relative_to(within).as_posix())
    with open_plain(path) as file:
        return os.fstat(file.fileno()).st_size


def _copy(source: Path, target: Path) -> None:
    create_file(target, b"", sync=False)
    with open_plain(source) as read, target.open("r+b", buffering=0) as written:
        while piece := read.read(PIECE_BYTES):
            write_all(written.fileno(), piece)


def _holds_same(source: Path, copy: Path) -> bool:
    with open_plain(source) as ours, open_plain(copy) as theirs:
        while True:
            piece, other = ours.read(PIECE_BYTES), theirs.read(PIECE_BYTES)
            if piece != other:
                return False
            if not piece:
                return True


def _raise(error: OSError) -> None:
    raise error
