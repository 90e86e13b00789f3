"""File operations that survive a crash: synced writes, atomic replacement, locks that die with their process.

Nothing here knows what the bytes mean. Every function returns only when what it did is *synced*, unless it
says otherwise, or is told ``sync=False``: then it leaves that to whoever calls. Any thread.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path

from gently_bluesky.errors import InvalidDocument, StorageError, StorageFull

__all__ = [
    "NO_LOCKS",
    "PATH_SEMANTICS",
    "create_file",
    "inside",
    "is_leftover",
    "is_there",
    "make_folders",
    "may_pass",
    "open_plain",
    "read_plain",
    "remove_tree",
    "replace_file",
    "side_by_side",
    "storage_error",
    "sync_file",
    "sync_folder",
    "sync_tree",
    "sync_up",
    "try_lock",
    "unlock",
    "wait_for_lock",
    "write_all",
    "write_atomic",
]

PATH_SEMANTICS = "windows" if sys.platform == "win32" else "posix"
"""What resource documents say of the paths of this machine."""

REPLACE_ATTEMPTS = 50
REPLACE_PAUSE_S = 0.02
LOCK_OFFSET = 1 << 40
SYNCING_THREADS = 4
SYNCS_AT_ONCE = 256
"""That are noted before they are made, however many files there are."""
LEFTOVER = re.compile(r"\..+\.\d+(-\d+)?\.tmp")
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system says that keeps no locks."""
PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
PASSING = {errno.EIO, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}


def inside(root: Path, relative: str) -> Path:
    """Return ``root`` and ``relative`` joined, links resolved, if that is below ``root``.

    Raises
    ------
    InvalidDocument
        It is not: a document must not make us read elsewhere.
    """
    try:
        path = (root / relative).resolve()
        is_below = path.is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError) as error:  # a NUL in it, a name too long, links in a circle
        raise InvalidDocument(
            f"expected a path below {root}, a document says {relative!r:.200}, which is none: {error}; "
            "nothing was read or written there"
        ) from error
    if not is_below:
        raise InvalidDocument(
            f"expected a path below {root}, a document says {relative!r:.200}; "
            "nothing was read or written there"
        )
    return path


def is_there(path: Path) -> bool:
    """Say whether something is at a path: not where none can be, or where nobody may look."""
    try:
        return path.exists()
    except (ValueError, OSError):  # a NUL in it, a name too long, a folder that is closed to us
        return False


def open_plain(path: str | Path, *, follow: bool = True) -> FileIO:
    """Open a file for reading, unbuffered, if it is a plain one: no pipe is waited for, no device read without end.

    Parameters
    ----------
    follow
        Whether it may be a link to one. Windows follows in any case.

    Raises
    ------
    OSError
        It is none, as IsADirectoryError or with EINVAL; or, with ELOOP, it is a link.
    """
    more = PLAIN if follow else PLAIN | getattr(os, "O_NOFOLLOW", 0)

    def opener(name: str, flags: int) -> int:
        fd = os.open(name, flags | more)
        try:
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            if kind == stat.S_IFDIR:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
            if kind != stat.S_IFREG:
                raise OSError(errno.EINVAL, "it is no plain file", name)
        except BaseException:
            os.close(fd)
            raise
        return fd

    return FileIO(os.fspath(path), "rb", opener=opener)


def read_plain(path: Path) -> bytes:
    """Return what is in a plain file. Raises as `open_plain`."""
    with open_plain(path) as file:
        return file.readall()


def storage_error(error: OSError, what: str) -> StorageError:
    """Translate a system's error into one of ours that says ``what`` was not done; ``errno`` is kept."""
    if isinstance(error, StorageError):
        return error
    kind = StorageFull if error.errno in FULL else StorageError
    reason = error.strerror or str(error)
    if error.errno is None:
        return kind(f"{what}: {reason}")
    return kind(error.errno, f"{what}: {reason}")


def may_pass(error: BaseException) -> bool:
    """Say whether an error is one after which the same bytes, written anew, may well reach the disk.

    Written, and never only synced again: after a sync that failed the system may take for clean what never
    left memory.
    """
    return isinstance(error, OSError) and error.errno in PASSING


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; not synced."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def create_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Make a new file of these bytes and sync it, not its folder. Refuses (FileExistsError) what exists."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o644)
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put these bytes at ``path``: a reader, or a crash, finds either the old file or the new one, whole.

    After an error that may pass they are written once more, to another new file. Without ``sync`` a loss of
    power may leave neither file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    for is_last in (False, True):
        try:
            temporary.unlink(missing_ok=True)
            create_file(temporary, data, sync=sync)
            replace_file(temporary, path)
            break
        except BaseException as error:
            with suppress(OSError):  # what is raised is why it could not be written
                temporary.unlink(missing_ok=True)
            if is_last or not may_pass(error):
                raise
    if sync:
        sync_folder(path.parent)


def is_leftover(name: str) -> bool:
    """Say whether a file is what a `write_atomic` that died leaves behind.

    Examples
    --------
    >>> is_leftover(".zarr.json.4711-4712.tmp"), is_leftover("zarr.json"), is_leftover("notes.tmp")
    (True, False, False)
    """
    return LEFTOVER.fullmatch(name) is not None


def replace_file(source: Path, target: Path) -> None:
    """Rename over ``target``; not synced. On Windows, where a reader may hold it, it is tried for a second."""
    for attempt in range(REPLACE_ATTEMPTS):
        try:
            source.replace(target)
        except PermissionError:
            if sys.platform != "win32" or attempt == REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(REPLACE_PAUSE_S)
        else:
            return


def sync_folder(path: Path) -> None:
    """Sync a folder's entries. Windows has no such call and needs none: NTFS journals its entries."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Sync a file that others have written. One that is gone needs none."""
    with suppress(FileNotFoundError):
        # Windows syncs only what is open for writing
        fd = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR | os.O_BINARY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_tree(path: Path) -> None:
    """Sync a folder with all that is in it, and its entry in the folder that it is in.

    Follows no links, and takes the same little memory for any number of files.

    Raises
    ------
    OSError
        Something of it could not be synced.
    """
    syncs = [partial(sync_folder, path.parent)]
    for folder, _, names in os.walk(path, onerror=_raise):
        syncs.append(partial(sync_folder, Path(folder)))
        for name in names:
            syncs.append(partial(sync_file, Path(folder, name)))
            if len(syncs) >= SYNCS_AT_ONCE:
                side_by_side(syncs)
                syncs = []
    side_by_side(syncs)


def sync_up(folder: Path, root: Path) -> None:
    """Sync a folder below ``root`` and every one above it up to that, whoever made them. Raises OSError.

    Those that are synced already cost next to nothing.
    """
    above = folder.relative_to(root).parents
    side_by_side([partial(sync_folder, place) for place in (folder, *(root / known for known in above))])


def _raise(error: OSError) -> None:
    raise error


def side_by_side(calls: Sequence[Callable[[], None]]) -> None:
    """Make calls that wait for the disk, a few at a time: syncs that meet share the file system's commit.

    Raises
    ------
    Exception
        What one of them raised, when all others have ended; those behind it on its thread were not made. What more
        was raised is in its notes.
    """
    errors: list[BaseException] = []

    def make(some: Sequence[Callable[[], None]]) -> None:
        try:
            for call in some:
                call()
        except BaseException as error:  # noqa: BLE001 # raised below
            errors.append(error)

    # threads of our own: an executor takes nothing while the interpreter exits
    threads = [
        threading.Thread(target=make, args=(calls[number::SYNCING_THREADS],), daemon=True)
        for number in range(1, min(SYNCING_THREADS, len(calls)))
    ]
    started = [thread for thread in threads if _has_started(thread)]
    make(calls[::SYNCING_THREADS])
    for thread in threads:
        if thread in started:
            thread.join()
        else:
            thread.run()
    for more in errors[1:]:
        errors[0].add_note(f"And beside it: {more!r}")
    if errors:
        raise errors[0]


def _has_started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # there are too many, or the interpreter is exiting
        return False
    return True


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it. No link is followed; nothing there is fine."""
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # somebody else removes it too: look again
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            break
    with suppress(FileNotFoundError):
        sync_folder(path.parent)


def make_folders(path: Path, *, sync: bool = True) -> None:
    """Make a folder and its missing parents, each entry synced. An existing folder is fine."""
    missing: list[Path] = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        if sync:
            sync_folder(folder.parent)


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, *, wait: bool, shared: bool) -> None:  # noqa: ARG001 # there are no shared ones here
        os.lseek(fd, LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int, *, wait: bool, shared: bool) -> None:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise OSError(
                error.errno,
                f"{error.strerror}: this file system keeps no locks (flock), by which a living run is told from "
                "a dead one; keep the store on one that does, such as a local disk",
            ) from error

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the kernel's lock on an open file, without waiting; it goes when the process or the fd does.

    A lock is exclusive, or ``shared``: that is refused only by an exclusive one. Readers of the file are not
    hindered: on Windows, where locks are mandatory and always exclusive, a byte far beyond the end is locked.
    """
    try:
        _lock(fd, wait=False, shared=shared)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
            return False
        raise
    return True


def wait_for_lock(fd: int) -> None:
    """Take the exclusive lock as soon as whoever has it lets go. For new files, which others only look at."""
    _lock(fd, wait=True, shared=False)


def unlock(fd: int) -> None:
    """Let go of a lock and keep the file open."""
    _unlock(fd)
