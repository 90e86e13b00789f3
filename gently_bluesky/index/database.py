"""Opens the database of an index, lends connections, and says in our words what went wrong.

All that is particular to SQLite is here and nowhere else: the write-ahead log, the lock that a transaction takes at
its beginning, the codes of errors, and files that must not be written to. SQLite makes files of its own beside a
database even to read it, unless a writer has made them already, and on a read-only mount it cannot. So where nobody
writes, and wherever SQLite cannot open the file in place, a copy in memory is read, and made anew when the file has
changed.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from gently_bluesky.errors import (
    GentlyError,
    InvalidSetting,
    StorageError,
    StorageFull,
    StorageStalled,
    StoreReadOnly,
    StoreUnusable,
)
from gently_bluesky.index.schema import IndexUnusable, create_tables, has_tables

__all__ = ["Database"]

BUSY_TIMEOUT_S: Final = 60.0
"""A write waits as long as this for the writes of other processes."""

COPY_ATTEMPTS: Final = 20
"""Copies that are begun of a file that a writer changes meanwhile, before we give up."""

COPY_REST: Final = 10.0
"""A copy is read for at least this many times as long as it took to make, whatever happens to the file."""


class Database:
    """The database of one index, with its tables.

    Parameters
    ----------
    url
        As SQLAlchemy has it.
    read_only
        Write nothing, not even a file beside the database.

    Raises
    ------
    InvalidSetting
        When the URL names no kind of database that is installed.
    IndexUnusable
        When what is there is damaged or of another version, or, for reading only, when nothing is there.
    StorageError
        When the database cannot be opened.
    """

    def __init__(self, url: str, *, read_only: bool) -> None:
        self._url = _checked_url(url)
        self._read_only = read_only
        self._closed = False
        self._lock = threading.RLock()
        sqlite = self._url.get_backend_name() == "sqlite"
        in_memory = sqlite and self._url.database in (None, "", ":memory:")
        self._file = (
            Path(self._url.database) if read_only and sqlite and not in_memory and self._url.database else None
        )
        # One connection serves all threads in memory, so that they take turns.
        self._turn = self._lock if in_memory or self._file else nullcontext()
        self._seen: object = None
        self._rest_until = 0.0
        self._engine = self._open_file(self._file) if self._file else self._open(self._url, in_memory=in_memory)
        try:
            if not self._file:
                self._prepare_tables()
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """The URL, for messages."""
        return str(self._url)

    def close(self) -> None:
        """Close every connection, those that are lent when they come back; calling it again does nothing."""
        with self._lock:
            self._closed = True
            self._engine.dispose()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection to read with, on any thread."""
        with self._turn, self._translated():
            with self._current().connect() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Lend a connection in a transaction that has the write lock from its beginning, on any thread.

        Raises
        ------
        StoreReadOnly
            When the database was opened for reading only.
        """
        if self._read_only:
            raise StoreReadOnly(f"the index {self.place} is open for reading only; nothing was written")
        with self._lock, self._translated(), self._writing() as connection:
            yield connection

    # -- opening ---------------------------------------------------------------------------------------------------

    def _prepare_tables(self) -> None:
        with self.reading() as connection:
            if has_tables(connection):
                return
            if self._read_only:
                raise IndexUnusable(f"there is no index in {self.place}; build one from the journals")
        with self.writing() as connection:
            if not has_tables(connection):
                create_tables(connection)

    def _current(self) -> Engine:
        """Return the engine, of a new copy where the file behind the last one has changed."""
        if self._closed:
            raise StoreUnusable(f"the index {self.place} was closed; open the store again")
        if self._file and time.monotonic() > self._rest_until and self._seen != _signature(self._file, self._seen):
            self._engine.dispose()
            self._engine = self._open_file(self._file)
        return self._engine

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        options = {"gently_writing": True}
        with self._current().connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def _open(self, url: URL, *, in_memory: bool, connection: Callable[[], Any] | None = None) -> Engine:
        if url.get_backend_name() != "sqlite":
            return create_engine(url)
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
        if in_memory:
            options["poolclass"] = StaticPool
        if connection:
            options["creator"] = connection
        engine = create_engine(url, **options)
        event.listen(engine, "connect", self._prepare_connection)
        event.listen(engine, "checkin", self._take_back)
        event.listen(engine, "begin", _begin)
        return engine

    def _prepare_connection(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        if not self._read_only:
            _switch_to_wal(connection)

    def _take_back(self, connection: sqlite3.Connection | None, _record: object) -> None:
        if self._closed and connection is not None:
            connection.close()

    # -- files that must not be written to -------------------------------------------------------------------------

    def _open_file(self, file: Path) -> Engine:
        if not file.is_file():
            raise IndexUnusable(f"there is no index {file}; build one from the journals")
        with self._translated():
            if all(_beside(file, end).exists() for end in ("-wal", "-shm")):
                quoted = str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
                url = self._url.set(database=f"file:{quoted}", query={"mode": "ro", "uri": "true"})
                engine = self._open(url, in_memory=False)
                if self._usable(engine):
                    self._seen = _signature(file)[:1]
                    return engine
            engine = self._open_copy(file)
            if self._usable(engine, or_raise=True):
                return engine
        raise IndexUnusable(f"there is no index in {file}; build one from the journals")
