"""All that is particular to SQLite: its log, when a transaction takes its lock, its errors, read-only files.

Nothing here knows what is in the database.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from gently_bluesky.errors import GentlyError, StorageError, StorageFull, StorageStalled, StoreReadOnly
from gently_bluesky.index.schema import IndexUnusable, has_tables

__all__ = ["ReadOnlyFile", "explained", "in_memory", "require_plain", "sqlite_engine", "writing"]

PATIENCE_MS: Final = "gently_patience_ms"
"""The execution option of a connection that is going to write: how long it waits for others that do."""

BUSY_TIMEOUT_S: Final = 60.0
"""A write waits as long as this for the writes of other processes."""

LOG_BYTES: Final = 2**20
"""Of room that a database takes to be opened, at the most."""

COPY_ATTEMPTS: Final = 20
"""Copies that are begun of a file that a writer changes meanwhile, before we give up."""

COPY_REST: Final = 10.0
"""A copy is read for at least this many times as long as it took to make, whatever happens to the file."""

DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def writing(patience_s: float) -> dict[str, Any]:
    """Return the execution options of a connection that is going to write, and waits so long for others that do."""
    return {PATIENCE_MS: int(1000 * patience_s)}


def in_memory(url: URL) -> bool:
    """Say whether the database lives in memory, on one connection that all threads share."""
    return url.database in (None, "", ":memory:")


def require_plain(url: URL) -> None:
    """Refuse a database of which a file is no plain one: a device would be read without end, a pipe waited for.

    Raises
    ------
    IndexUnusable
        It is none. What is not there is fine.
    """
    for ending in ("", "-wal", "-shm"):
        path = f"{url.database}{ending}"
        try:
            fault = None if stat.S_ISREG(os.stat(path).st_mode) else "is no plain file"  # noqa: PTH116 # as SQLite
        except FileNotFoundError:
            continue
        except OSError as error:
            fault = f"cannot be looked at: {error.strerror}"
        if fault is not None:
            raise IndexUnusable(f"the index {path} {fault}; delete it and build it again from the journals")


def sqlite_engine(url: URL, *, read_only: bool, connection: sqlite3.Connection | None = None) -> Engine:
    """Open a database; with ``connection``, the one that this connection holds in memory."""
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
    if connection is not None:
        options = {"poolclass": StaticPool, "creator": lambda: connection}
    elif in_memory(url):
        options["poolclass"] = StaticPool
    engine = create_engine(url, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        _set_up(connection, read_only=read_only)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Reads are single statements and need no BEGIN. To a write that begins without the lock and wants it
        # later, SQLite says "database is locked" at once, whatever the timeout.
        patience_ms = connection.get_execution_options().get(PATIENCE_MS)
        if patience_ms is not None:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience_ms:d}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _set_up(connection: sqlite3.Connection, *, read_only: bool) -> None:
    """Set what every connection has, the write-ahead log first of all. SQLite's timeout does not cover this.

    Where others open the database at the same time, we wait ourselves; and of those who want to delete the log
    of a database that is gone, all but one are told that it is not there.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -2048")
            if not read_only and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_passing = (
                error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                or error.sqlite_errorcode == sqlite3.SQLITE_IOERR_DELETE_NOENT
            )
            if not is_passing or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def explained(error: BaseException, place: str) -> GentlyError:
    """Return the error of ours that says what the caller can do about this one of the database."""
    reason = f"the index {place}: {error}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in DAMAGED or "no such" in str(error) or "has no column" in str(error):
        return IndexUnusable(f"{reason}; delete the index and build it again from the journals")
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(place)):
        return StorageFull(
            f"{reason}: its disk is full; nothing of this call was indexed; make room (1 MB) and call again"
        )
    if code == sqlite3.SQLITE_READONLY:
        return StoreReadOnly(f"{reason}; nothing was written; open the store with mode='r'")
    if code == sqlite3.SQLITE_BUSY:
        return StorageStalled(
            f"{reason} for longer than was waited for it; nothing of this call was indexed; end the other process "
            "that writes, or give the store an index of its own"
        )
    return StorageError(f"{reason}; nothing of this call was indexed; the journals hold everything")


def _is_full(place: str) -> bool:
    """Say whether the disk of a database has less left than the log takes with which it is opened."""
    with suppress(OSError, ValueError):
        return shutil.disk_usage(Path(place.partition(":///")[2]).parent).free < LOG_BYTES
    return False


class ReadOnlyFile:
    """An index in a file, read without writing anything: neither the file nor another beside it.

    SQLite makes files of its own beside a database even to read it, unless a writer has made them already,
    and on a read-only mount it cannot. So where nobody writes, and wherever SQLite cannot open the file in
    place, a copy in memory is read, and made anew when the file has changed. The caller lets one thread in at
    a time.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = Path(url.database or "")
        self._engine: Engine | None = None
        self._in_place = False
        self._seen: object = None
        self._rest_until = 0.0

    @property
    def in_place(self) -> bool:
        """Whether the last engine reads the file itself, and not a copy of it."""
        return self._in_place

    def engine(self) -> Engine:
        """Return an engine that reads what the file holds now, or held a moment ago.

        Raises
        ------
        IndexUnusable
            When the file is missing, damaged, or of another version.
        StorageError
            When it cannot be read.
        """
        if self._engine and (time.monotonic() < self._rest_until or self._seen == self._signature()):
            return self._engine
        self.close()
        require_plain(self._url)
        if not self._path.is_file():
            raise IndexUnusable(f"there is no index {self._path}; build one from the journals")
        self._in_place = self._beside("-wal").exists() and self._beside("-shm").exists()
        self._engine = (self._open_in_place() if self._in_place else None) or self._open_copy()
        return self._engine

    def close(self) -> None:
        """Close what is open; the next call of `engine` opens it again."""
        if self._engine:
            self._engine.dispose()
            self._engine = None

    def _open_in_place(self) -> Engine | None:
        """Read beside a writer, whose files are there already; return None where SQLite cannot."""
        quoted = str(self._path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        place = self._url.set(database=f"file:{quoted}", query={"mode": "ro", "uri": "true"})
        self._seen = self._signature()
        engine = sqlite_engine(place, read_only=True)
        try:
            with engine.connect() as connection:
                has_tables(connection)
        except Exception:  # noqa: BLE001  # whatever it is, the copy has it too and says so
            engine.dispose()
            self._in_place = False
            return None
        return engine

    def _open_copy(self) -> Engine:
        begun = time.monotonic()
        self._in_place = False
        connection = self._copy()
        self._rest_until = time.monotonic() + COPY_REST * (time.monotonic() - begun)
        return sqlite_engine(self._url.set(database=None), read_only=True, connection=connection)

    def _copy(self) -> sqlite3.Connection:
        """Copy the file and its log, in this order and with the file unchanged in the end: so they fit."""
        for _ in range(COPY_ATTEMPTS):
            self._seen = self._signature()
            with TemporaryDirectory(prefix="gently-index-") as folder:
                copy = Path(folder, "index.sqlite")
                shutil.copyfile(self._path, copy)
                if self._beside("-wal").exists():
                    shutil.copyfile(self._beside("-wal"), f"{copy}-wal")
                if self._signature()[0] == self._seen[0]:
                    return _in_memory_copy(copy)
        raise StorageError(
            f"the index {self._path} cannot be opened in place, and it changed during each of "
            f"{COPY_ATTEMPTS} attempts to copy it; nothing was read; try again, or open the store where its "
            "folder can be written to"
        )

    def _signature(self) -> tuple[object, ...]:
        """Return what changes when the file is written to or replaced; in place, when it is replaced."""
        found: list[object] = []
        for path in (self._path, self._beside("-wal")):
            try:
                about = path.stat()
            except FileNotFoundError:
                found.append(None)
            else:
                found.append(
                    about.st_ino if self._in_place else (about.st_ino, about.st_size, about.st_mtime_ns)
                )
        return tuple(found[:1] if self._in_place else found)

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)


def _in_memory_copy(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        with closing(sqlite3.connect(path)) as copy:
            copy.backup(memory)
    except BaseException:
        memory.close()
        raise
    return memory
