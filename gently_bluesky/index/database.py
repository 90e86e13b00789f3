"""Lends connections to the database of an index, and says in our words what went wrong.

What is particular to a database is in its own module, of which there is one so far: ``sqlite.py``.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from gently_bluesky.errors import InputError, InvalidSetting, StorageStalled, StoreReadOnly, StoreUnusable
from gently_bluesky.index import sqlite
from gently_bluesky.index.schema import IndexUnusable, create_tables, has_tables

__all__ = ["Database"]

PATIENCE_S = 60.0
"""A write waits as long as this for others that write."""
TURN_S = 0.2
"""After this a thread that waits for another process lets the other threads ask."""
REST_S = 0.005


class Database:
    """The database of one index, with its tables, for any number of threads.

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
        When what is there is damaged or of another version or, for reading only, when nothing is there.
    StorageError
        When the database cannot be opened.
    """

    def __init__(self, url: str | URL, *, read_only: bool) -> None:
        self._url = _parsed(url)
        self._read_only = read_only
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._writers = threading.RLock()
        is_sqlite = self._url.get_backend_name() == "sqlite"
        in_memory = is_sqlite and sqlite.in_memory(self._url)
        self._file: sqlite.ReadOnlyFile | None = None
        self._in_memory = in_memory
        self._engine: Callable[[], Engine]
        self._dispose: Callable[[], None]
        if read_only and is_sqlite and not in_memory:
            self._file = file = sqlite.ReadOnlyFile(self._url)
            self._engine, self._dispose = file.engine, file.close
        else:
            if is_sqlite and not in_memory:
                sqlite.require_plain(self._url)
            engine = self._open(is_sqlite=is_sqlite)
            self._engine, self._dispose = lambda: engine, engine.dispose
        # One connection in memory serves all threads, so that they take turns.
        self._turn = self._lock if in_memory or (read_only and is_sqlite) else nullcontext()
        # whoever does not close a store is not told of an unclosed database when the interpreter exits
        weakref.finalize(self, self._dispose)
        try:
            self._prepare_tables()
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """The URL without its password, for messages."""
        return str(self._url)

    @property
    def is_shared(self) -> bool:
        """Whether what other processes write is read at once: it is no copy and no database of our own."""
        if self._file is None:
            return not self._in_memory
        with self._turn, self._translated():
            self._current()
            return self._file.in_place

    def close(self) -> None:
        """Close the connections, those that are lent when they come back; calling it again does nothing."""
        with self._lock:
            self._closed.set()
            self._dispose()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection to read with.

        Raises
        ------
        IndexUnusable
            When the database is damaged.
        StorageError
            When it cannot be read.
        StoreUnusable
            When it was closed.
        """
        with self._turn, self._translated(), self._current().connect() as connection:
            yield connection

    @contextmanager
    def writing(self, patience_s: float | None = None) -> Generator[Connection]:
        """Lend a connection in a transaction that has the write lock from its beginning.

        Others that write are waited for, for ``patience_s`` at most; None is a minute.

        Raises
        ------
        StoreReadOnly
            When the database was opened for reading only.
        IndexUnusable, StorageError, StoreUnusable
            As `reading`.
        sqlalchemy.exc.IntegrityError
            When a row is there already; who inserts knows what it means.
        """
        if self._read_only:
            raise StoreReadOnly(f"the index {self.place} is open for reading only; nothing was written")
        give_up = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        with ExitStack() as stack:
            yield self._begin(stack, give_up)

    def _begin(self, stack: ExitStack, give_up: float) -> Connection:
        """Begin a transaction that ends with the stack.

        Threads take turns, for a moment each while another process writes: so none waits for longer than it said,
        whatever those before it said.
        """
        while True:
            left_s = max(0.0, give_up - time.monotonic())
            try:
                with ExitStack() as attempt:
                    if not self._writers.acquire(timeout=left_s):
                        raise StorageStalled(
                            f"the index {self.place} was written by another thread for longer than was waited for "
                            "it; nothing of this call was indexed; try again"
                        )
                    attempt.callback(self._writers.release)
                    attempt.enter_context(self._turn)
                    attempt.enter_context(self._translated())
                    options = sqlite.writing(min(left_s, TURN_S))
                    connection = attempt.enter_context(self._current().connect().execution_options(**options))
                    attempt.enter_context(connection.begin())
                    stack.push(attempt.pop_all())
                    return connection
            except StorageStalled:
                if time.monotonic() >= give_up:
                    raise
            time.sleep(REST_S)

    def _open(self, *, is_sqlite: bool) -> Engine:
        engine = (
            sqlite.sqlite_engine(self._url, read_only=self._read_only)
            if is_sqlite
            else create_engine(self._url)
        )

        closed = self._closed  # not self: the engine is held until the database is gone, and would hold it

        @event.listens_for(engine, "checkin")
        def take_back(connection: DBAPIConnection | None, _record: object) -> None:
            if closed.is_set() and connection is not None:
                connection.close()

        return engine

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
        if self._closed.is_set():
            raise StoreUnusable(f"the index {self.place} was closed; open the store again")
        return self._engine()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise sqlite.explained(error.orig or error, self.place) from error
        except sqlite3.Error as error:
            raise sqlite.explained(error, self.place) from error
        except UnicodeDecodeError as error:  # SQLite quotes what it found
            raise IndexUnusable(
                f"the index {self.place} is damaged: {error}; delete it and build it again from the journals"
            ) from error
        except UnicodeEncodeError as error:
            raise InputError(
                f"expected text in Unicode, got half a character in {error.object[:80]!a}; nothing was looked for"
            ) from error


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InvalidSetting(
            f"expected the URL of a database such as 'sqlite:////folder/index.sqlite', got {url!r}: {error}; "
            "nothing was written"
        ) from error
    return parsed
