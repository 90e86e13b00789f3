"""What opening a store does: its marker is made or believed, and its index brought in step with the files.

Nothing here is asked again once a store is open, but for `FollowingIndex`.
"""

from __future__ import annotations

import errno
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from sqlalchemy import Executable, Row
from sqlalchemy.engine import URL, make_url

from gently_bluesky.documents.continued import Journals
from gently_bluesky.errors import (
    GentlyError,
    InvalidSetting,
    NotAStore,
    StorageError,
    StoreReadOnly,
    StoreTooNew,
    StoreUnusable,
)
from gently_bluesky.files import create_file, inside, make_folders, read_plain, sync_folder
from gently_bluesky.index.index import Index
from gently_bluesky.index.moving import MovingIndex
from gently_bluesky.index.schema import IndexUnusable
from gently_bluesky.segments import MARKER
from gently_bluesky.upkeep.findings import Reconciliation
from gently_bluesky.upkeep.journals import find_all_journals, whole_lines
from gently_bluesky.upkeep.recovery import index_journals, reconcile
from gently_bluesky.upkeep.trash import News, follow

__all__ = [
    "FollowingIndex",
    "index_as_it_is",
    "index_to_read",
    "index_to_write",
    "open_root",
    "reconcile_root",
]

INDEX = "index.sqlite"
FORMAT_VERSION = 1
WRITE_PROTECTED = 19
"""What Windows says of a medium that is mounted read-only."""
REST = 10.0
"""Looking for news of other processes takes at most one part in so many of a reader's time."""


def open_root(root: Path, mode: Literal["a", "r"]) -> tuple[str, Literal["a", "r"]]:
    """Return the store's uid, from its marker, which is made where there may be a new store, and how it is open.

    That is ``"r"`` where the file system is mounted read-only: who may not write elsewhere may have made a mistake,
    here there is nothing to choose.

    Raises
    ------
    NotAStore, StoreTooNew, StoreReadOnly
        As `Store`; nothing was written.
    """
    marker = root / MARKER
    try:
        if root.exists() and not root.is_dir():
            raise NotAStore(f"expected a folder, {root} is a file; nothing was written; give another root")
        if not marker.exists():
            if mode == "r":
                raise NotAStore(
                    f"there is no store at {root}; nothing was written; name the folder of one (a command takes "
                    f"--store, or $GENTLY_STORE), or make one here: Store({str(root)!r})"
                )
            _make_root(root, marker)
        content = read_plain(marker)
    except GentlyError:
        raise
    except OSError as error:
        raise StoreUnusable(f"the store at {root} cannot be opened: {error}; nothing was written") from error
    uid = _checked_marker(root, content)
    return uid, "a" if mode == "a" and _is_writable(root) else "r"


def _make_root(root: Path, marker: Path) -> None:
    try:
        make_folders(root)
        names = {entry.name for entry in root.iterdir() if not entry.name.startswith(".")}
        if names and MARKER not in names:
            raise NotAStore(
                f"{root} is no store and not empty ({', '.join(sorted(names)[:3])}, ...); nothing was "
                f"written; give an empty or new folder, or, if it was a store, put its {MARKER} back"
            )
        created = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"format_version": FORMAT_VERSION, "store_uid": str(uuid.uuid4()), "created": created}
        _create_marker(marker, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise StoreReadOnly(f"a store cannot be made at {root}: {error}; nothing was written") from error


def _create_marker(marker: Path, data: bytes) -> None:
    """Make the marker whole or not at all; where several processes make it at once the first one stands."""
    temporary = marker.with_name(f".{marker.name}.{uuid.uuid4().hex}.tmp")
    try:
        create_file(temporary, data)
        with suppress(FileExistsError, FileNotFoundError):  # gone: somebody's marker is there, and swept this
            try:
                marker.hardlink_to(temporary)
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                    raise
                temporary.rename(marker)  # a file system without hard links
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(marker.parent)


def _checked_marker(root: Path, content: bytes) -> str:
    try:
        found = orjson.loads(content)
        version, uid = found["format_version"], found["store_uid"]
        if isinstance(version, bool) or not isinstance(version, int) or not isinstance(uid, str) or not uid:
            raise TypeError(f"format_version {version!r}, store_uid {uid!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise NotAStore(
            f"{root / MARKER} is not the marker of a store ({error}); nothing was written; restore it from "
            "a copy"
        ) from error
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{root} is a store of format {version}, this version of gently-bluesky knows formats up to "
            f"{FORMAT_VERSION}; nothing was written; upgrade gently-bluesky"
        )
    return uid


def _is_writable(root: Path) -> bool:
    """Say whether the root can be written: False on a read-only mount, and StoreReadOnly where it is not allowed."""
    probe = root / f".probe-{uuid.uuid4().hex}"
    try:
        probe.touch()
        for left in (*root.glob(".probe-*"), *root.glob(f".{MARKER}.*.tmp")):
            left.unlink(missing_ok=True)  # ours, and those of processes that died just here
    except OSError as error:
        if error.errno == errno.EROFS or getattr(error, "winerror", None) == WRITE_PROTECTED:
            return False
        raise StoreReadOnly(
            f"{root} cannot be written: {error}; nothing was written; open it with mode='r' to read it"
        ) from error
    return True


def index_url(root: Path, url: str | None) -> URL:
    """Return where the index is, by default in the root.

    Raises
    ------
    InvalidSetting
        It is no URL.
    """
    if url is None:
        return URL.create("sqlite", database=str(root / INDEX))
    try:
        return make_url(url)
    except Exception as error:
        raise InvalidSetting(
            f"expected the URL of an index such as 'sqlite:////local/disk/x.sqlite', got {url!r}: {error}; "
            "nothing was opened"
        ) from error


def index_to_write(root: Path, url: str | None, overflow: Path | None = None) -> tuple[Index, Reconciliation]:
    """Return the index in step with the journals, dead runs recovered, others brought home; and what that came to.

    An index in the root that cannot be used is built anew. One elsewhere is not ours to delete. With an overflow it
    goes on there in a copy where its own place fails.

    Raises
    ------
    StoreUnusable
        What is at ``url`` is not an index, or a damaged one.
    """
    place = index_url(root, url)
    opened = Index if overflow is None else partial(MovingIndex, spare=overflow)
    try:
        return _in_step_with(root, opened(place), overflow)
    except IndexUnusable as error:
        if place.get_backend_name() != "sqlite" or Path(place.database or "") != root / INDEX:
            raise StoreUnusable(
                f"{error}; the store was not changed; if that file is an index of a store, delete it: it "
                "is built anew"
            ) from error
        _remove_index(root)
    return _in_step_with(root, opened(place), overflow)


def _in_step_with(root: Path, index: Index, overflow: Path | None) -> tuple[Index, Reconciliation]:
    try:
        return index, reconcile(root, index, overflow)
    except BaseException:
        index.close()
        raise


def index_as_it_is(root: Path, url: str | None) -> Index:
    """Return the index on disk, which may be behind the journals; an empty one in memory where none is of use."""
    try:
        return Index(index_url(root, url), read_only=True)
    except InvalidSetting:
        raise
    except GentlyError:
        return Index("sqlite://")


def reconcile_root(
    root: Path, url: str | None = None, overflow: Path | None = None, *, dry_run: bool = False
) -> Reconciliation:
    """Reconcile a store that is not opened for anything else: see `MaintainedStore.reconcile`.

    Raises
    ------
    NotAStore, StoreTooNew, StoreUnusable, InvalidSetting
        As `Store`; nothing was made or changed.
    StoreReadOnly
        It cannot be written, and this is no ``dry_run``.
    """
    uid, _ = open_root(root, "r")
    if overflow is not None:
        from gently_bluesky.documents.overflow import open_overflow  # few stores have one

        overflow = open_overflow(overflow, root, uid, "r")
    if dry_run:
        index = index_as_it_is(root, url)
        try:
            return reconcile(root, index, overflow, dry_run=True)
        finally:
            index.close()
    if open_root(root, "a")[1] == "r":
        raise StoreReadOnly(
            f"{root} is mounted read-only; nothing was changed; ask for a dry run to see what would be"
        )
    index, found = index_to_write(root, url, overflow)
    index.close()
    return found


def _remove_index(root: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        try:
            (root / f"{INDEX}{ending}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnusable(
                f"{root / INDEX}{ending} is no index and cannot be removed: {error}; the store was not changed; move "
                "it elsewhere: the index is built anew"
            ) from error


def index_to_read(root: Path, url: str | None, overflow: Path | None = None) -> Index:
    """Return the index as it is, or one in memory where there is none that tells all the journals do."""
    place, journals = index_url(root, url), Journals(root, overflow)
    try:
        index = Index(place, read_only=True)
    except InvalidSetting:
        raise
    except GentlyError:
        return FollowingIndex(journals)  # missing, damaged, of another version: the journals say all it would
    try:
        in_step = _in_step(journals, index.journals()) and not News.of(root, index).entries
    except GentlyError:
        in_step = False
    if in_step:
        return index
    index.close()
    return FollowingIndex(journals)


def _in_step(journals: Journals, known: dict[str, int]) -> bool:
    there = set(find_all_journals(journals))
    return known.keys() <= there and all(_is_indexed(journals, name, known.get(name, 0)) for name in there)


def _is_indexed(journals: Journals, journal: str, end: int) -> bool:
    """Say whether an index that knows a journal up to ``end`` knows it all, or will: its writer lives."""
    try:
        return journals.size(journal)[1] == end or journals.is_live(journal)
    except OSError:
        return False


class FollowingIndex(Index):
    """An index in memory for a reader that has no other: built from the journals, and follows them."""

    def __init__(self, journals: Journals) -> None:
        super().__init__("sqlite://")
        self._journals = journals
        self._turn = threading.RLock()
        self._following = False
        self._rest_until = 0.0
        self._following = True
        self._files: dict[str, int] = {}
        try:
            for journal in find_all_journals(journals):
                with suppress(OSError):  # gone meanwhile, or nothing that can be looked at: warned of below
                    self._files[journal] = journals.size(journal)[0]
            index_journals(journals, self)
            self._follow_logbook()
        finally:
            self._following = False

    def rows(self, statement: Executable, **parameters: object) -> Sequence[Row[Any]]:
        """Return the rows that a statement reads, of all that was in the journals a moment ago."""
        with self._turn:
            if not self._following and time.monotonic() >= self._rest_until:
                self._follow()
        return super().rows(statement, **parameters)

    def _follow(self) -> None:
        begun_s = time.monotonic()
        self._following = True
        try:
            known = self.journals()
            there = set(find_all_journals(self._journals))
            for gone in known.keys() - there:
                self.forget(gone)
            for journal in sorted(there):
                self._catch_up(journal, known.get(journal, 0))
            self._follow_logbook()
        finally:
            self._following = False
            now_s = time.monotonic()
            self._rest_until = now_s + REST * (now_s - begun_s)

    def _follow_logbook(self) -> None:
        with suppress(StorageError):  # damaged: said by who writes to the store
            follow(self._journals.root, self)

    def _catch_up(self, journal: str, known: int) -> None:
        with suppress(OSError, ValueError):  # gone meanwhile, or damaged: warned of at opening
            file, size = self._journals.size(journal)
            is_another = self._files.setdefault(journal, file) != file
            self._files[journal] = file
            if size == known and not is_another:
                return
            inside(self._journals.root, journal)
            begin = 0 if is_another or size < known else known  # it was replaced, cut, or continued
            lines, end = whole_lines(
                self._journals.root / journal, begin, self._journals.scan(journal, begin)
            )
            if lines:
                self.add(journal, lines, end, begin=begin, anew=begin == 0)
            elif begin == 0:
                self.forget(journal)
