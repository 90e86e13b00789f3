"""Memory that processes share, as ordinary files: where it is, how segments are named, and whose they are.

Segments are files in the system's memory file system, not ``multiprocessing.shared_memory``, whose resource
tracker unlinks a segment when any process that looked at it exits (cpython#104291). A segment belongs to the
process that holds the kernel's lock on its lock file: the lock goes when the process does, and whoever gets it
may sweep the segment. Readers take no locks and remove nothing.

What is in a segment survives the death of every process (*stored*) and no restart of the machine.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson

from gently_bluesky.errors import StorageError
from gently_bluesky.files import read_plain, remove_tree, try_lock, wait_for_lock, write_all

__all__ = [
    "BINARY",
    "HOT",
    "LOCK",
    "MARKER",
    "NO_LINKS",
    "Owner",
    "Segment",
    "abandoned_segments",
    "create_segment",
    "is_segment_name",
    "make_locked",
    "names_of",
    "owner_of",
    "random_name",
    "remove_segment",
    "shared_folder",
    "store_uid_at",
    "sweep_file",
    "tag_of",
    "tag_with_pools",
]

MARKER = "gently-store.json"
"""The file in a store's root that says which store it is."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 # what a segment is named and who may read it is checked below
LOCK = ".lock"
HOT = ".hot"
"""Ending of the names of hot pools, which are files."""
NAME = re.compile(r"gently-[0-9a-f]{8}-[0-9a-f]{16}")
NO_STORE = "00000000"
ATTEMPTS = 20
BINARY = getattr(os, "O_BINARY", 0)
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def shared_folder() -> Path:
    """Return the folder that segments are in.

    It is ``/dev/shm`` on Linux, where it can be written; elsewhere a folder of the user's own in the system's
    folder for temporary files, made if it is missing.

    Raises
    ------
    StorageError
        There is a folder of that name which somebody else made.
    """
    if sys.platform == "linux" and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return SHARED_MEMORY
    user = _user()
    folder = Path(tempfile.gettempdir()) / ("gently" if user is None else f"gently-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != (user or 0):
        raise StorageError(
            f"expected {folder} to be a folder of this user's, for memory that processes share; it belongs to "
            "somebody else; nothing was written; remove it, or set TMPDIR"
        )
    return folder


def _user() -> int | None:
    return None if sys.platform == "win32" else os.geteuid()


def tag_of(store_uid: str) -> str:
    """Return the eight hexadecimal digits that the names of a store's segments have in common."""
    return blake2b(store_uid.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def store_uid_at(root: Path) -> str | None:
    """Return the uid of the store whose root this is; None where there is none."""
    try:
        uid = orjson.loads(read_plain(root / MARKER))["store_uid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return uid if isinstance(uid, str) else None


def random_name(tag: str) -> str:
    """Return a name that nobody can guess."""
    return f"gently-{tag}-{secrets.token_hex(8)}"


def is_segment_name(name: object) -> bool:
    """Say whether this is the name of a segment folder, and nothing that leads elsewhere.

    Examples
    --------
    >>> is_segment_name("gently-1b9d6bcd-0011223344556677"), is_segment_name("../x"), is_segment_name(None)
    (True, False, False)
    """
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def names_of(tag: str, suffix: str = "") -> list[str]:
    """Return the names of a store's segments that end like this: folders without, hot pools with a suffix."""
    pattern = re.compile(rf"gently-{re.escape(tag)}-[0-9a-f]{{16}}{re.escape(suffix)}")
    with suppress(OSError):
        return list(filter(pattern.fullmatch, os.listdir(shared_folder())))  # noqa: PTH208 # a good deal faster
    return []


def tag_with_pools(root: Path) -> str | None:
    """Return the tag of a store that has hot pools; None where it has none, which is quickly said."""
    with suppress(OSError):
        if any(name.endswith(HOT) for name in os.listdir(shared_folder())):  # noqa: PTH208 # as above
            uid = store_uid_at(root)
            tag = "" if uid is None else tag_of(uid)
            return tag if tag and names_of(tag, HOT) else None
    return None


def make_locked(path: Path) -> int:
    """Make a file that only this user may open, lock it, and return its descriptor, open for both ways.

    Raises
    ------
    FileNotFoundError
        Somebody who sweeps took it for a dead process's, in the moment before it was locked. Make another.
    """
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | BINARY, 0o600)
    try:
        wait_for_lock(fd)
        if not os.path.samestat(os.fstat(fd), path.stat()):
            raise FileNotFoundError(f"{path} was swept while it was made")
    except BaseException:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True, slots=True)
class Owner:
    """Which asset a segment was made for.

    Attributes
    ----------
    root
        Of the store, as it was then; without a store, the folder the asset lies in.
    asset
        The asset's path, relative to the root, with slashes.
    """

    root: str
    asset: str


@dataclass(slots=True)
class Segment:
    """A segment folder of this process, until it is let go."""

    name: str
    folder: Path
    _fd: int

    def let_go(self) -> None:
        """Give up the lock: the segment stands for itself now. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def create_segment(asset: Path) -> Segment:
    """Make a segment folder for an asset; it has the tag of the store that the asset lies in.

    Raises
    ------
    OSError
        It cannot be made.
    """
    root, tag = _home_of(asset)
    owner = {"root": str(root), "asset": asset.relative_to(root).as_posix()}
    for _ in range(ATTEMPTS):
        name = random_name(tag)
        folder = shared_folder() / name
        folder.mkdir(mode=0o700)
        try:
            fd = make_locked(folder / LOCK)
            try:
                write_all(fd, orjson.dumps(owner))
            except BaseException:
                os.close(fd)
                raise
        except FileNotFoundError:
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Segment(name, folder, fd)
    raise StorageError(f"a segment in {shared_folder()} was swept {ATTEMPTS} times while it was made")


def _home_of(asset: Path) -> tuple[Path, str]:
    for root in asset.parents:
        uid = store_uid_at(root)
        if uid is not None:
            return root, tag_of(uid)
    return asset.parent, NO_STORE


def owner_of(name: str) -> Owner | None:
    """Return what a segment was made for; None where it is gone or does not say."""
    try:
        if not _is_own_folder(folder := shared_folder() / name):
            return None
        fd = os.open(folder / LOCK, os.O_RDONLY | BINARY)
    except OSError:
        return None
    try:
        return _read_owner(fd)
    finally:
        os.close(fd)


def remove_segment(name: str) -> None:
    """Remove a segment folder and all that is in it; readers that have a file of it open read on. Idempotent.

    What is not a folder of this user's is left alone.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    if _is_own_folder(folder := shared_folder() / name):
        remove_tree(folder)


def abandoned_segments(tag: str, *, dry_run: bool = False) -> Iterator[tuple[str, Owner]]:
    """Yield the segment folders of a store whose makers have let go of them, or died, and what they were for.

    Where the maker died before it could say that, the folder holds nothing and is removed here, unless this is
    a ``dry_run``. Folders of other users are left alone: anybody may make one in `shared_folder`.
    """
    for name in names_of(tag):
        folder = shared_folder() / name
        if _is_own_folder(folder) and (owner := _left_by(folder, dry_run=dry_run)) is not None:
            yield name, owner


def _left_by(folder: Path, *, dry_run: bool) -> Owner | None:
    lock = folder / LOCK
    fd = _take(lock)
    if fd is not None:
        try:
            owner = _read_owner(fd)
            if owner is not None or dry_run:
                return owner
            if sys.platform != "win32":
                lock.unlink(missing_ok=True)  # with the lock held: a maker that waits for it finds it gone
        finally:
            os.close(fd)
    with suppress(OSError):  # not empty: its maker lives
        if fd is None and dry_run:
            return None
        if fd is not None:
            lock.unlink(missing_ok=True)
        folder.rmdir()
    return None


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == (_user() or 0)


def sweep_file(path: Path, *, dry_run: bool = False) -> bool:
    """Remove a file that `make_locked` made, if the process that locked it is dead; say whether it is.

    A ``dry_run`` removes nothing.
    """
    fd = _take(path)
    if fd is None:
        return False
    if dry_run:
        os.close(fd)
        return True
    with suppress(OSError):
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
    os.close(fd)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    return True


def _take(path: Path) -> int | None:
    """Open a lock file and lock it; None while its owner lives, or where it is gone or another user's."""
    try:
        fd = os.open(path, os.O_RDWR | BINARY | NO_LINKS)
    except OSError:
        return None
    try:
        taken = try_lock(fd)
    except OSError:
        taken = False
    if not taken:
        os.close(fd)
        return None
    return fd


def _read_owner(fd: int) -> Owner | None:
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        said = orjson.loads(os.read(fd, 1 << 16))
        return Owner(str(said["root"]), str(said["asset"]))
    except (ValueError, KeyError, TypeError):
        return None
