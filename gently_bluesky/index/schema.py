"""The tables of the index, and everything in which one database differs from another.

Opening, creating, locking and the translation of the database's errors are here and nowhere else. This module does
not know what the rows mean.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    insert,
    select,
)
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
)

__all__ = [
    "VERSION",
    "IndexUnusable",
    "create_tables",
    "descriptors",
    "edges",
    "in_memory",
    "journals",
    "metadata",
    "open_engine",
    "points",
    "records",
    "translated",
    "writing",
]

VERSION = 1
BUSY_TIMEOUT_S = 60.0

tables = MetaData()
Uid = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that compares by code point, so that a prefix is a range."""

version = Table("gently_index", tables, Column("version", BigInteger, nullable=False))

journals = Table(
    "journals",
    tables,
    Column("journal", Uid, primary_key=True),
    Column("end", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("time", Float, nullable=False),
)

records = Table(
    "records",
    tables,
    Column("uid", Uid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("run_uid", Uid, nullable=False),
    Column("asset_uid", Uid),
    Column("time", Float, nullable=False),
    Column("stream", Text),
    Column("data_key", Text),
    Column("seq_num", BigInteger),
    Column("document", Text, nullable=False),
    # of runs
    Column("data_type", Text),
    Column("session", Text),
    Column("status", Text),
    Column("derived", Boolean),
    Column("operation", Text),
    Column("parents", Text),
    Column("received", BigInteger),
    Column("stored", BigInteger),
    Column("lost", BigInteger),
    # of runs and assets
    Column("path", Uid),
    # of assets
    Column("format", Text),
    Column("count", BigInteger),
    Column("shape", Text),
    Column("dtype", Text),
    Column("dims", Text),
    Column("nbytes", BigInteger),
)
Index("records_by_time", records.c.kind, records.c.time, records.c.uid)
Index("records_of_run", records.c.run_uid, records.c.kind)

descriptors = Table(
    "descriptors",
    tables,
    Column("uid", Uid, primary_key=True),
    Column("run_uid", Uid, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("stream", Text, nullable=False),
    Column("data_keys", Text, nullable=False),
)
Index("descriptors_of_run", descriptors.c.run_uid, descriptors.c.position)

stream_keys = Table(
    "stream_keys",
    tables,
    Column("run_uid", Uid, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("data_key", Text, primary_key=True),
    sqlite_with_rowid=False,
)

points = Table(
    "points",
    tables,
    Column("run_uid", Uid, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("data_key", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("asset_uid", Uid, nullable=False),
    Column("datum_uid", Uid, nullable=False),
    Column("number", BigInteger),
    Column("span", BigInteger, nullable=False),
    Column("event_uid", Text, nullable=False),
    Column("seq_num", BigInteger, nullable=False),
    Column("time", Float, nullable=False),
    Column("descriptor_uid", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index("points_of_asset", points.c.asset_uid, points.c.position)

metadata = Table(
    "metadata",
    tables,
    Column("run_uid", Uid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    sqlite_with_rowid=False,
)
Index("metadata_by_value", metadata.c.key, metadata.c.value, metadata.c.run_uid)

edges = Table(
    "edges",
    tables,
    Column("child", Uid, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("parent", Uid, nullable=False),
    sqlite_with_rowid=False,
)
Index("edges_by_parent", edges.c.parent, edges.c.child)


class IndexUnusable(GentlyError):
    """The index is damaged or of another version; delete it and build it again from the journals."""

    code = "index-unusable"


# -- opening ---------------------------------------------------------------------------------------------------


def open_engine(url: str | URL, *, read_only: bool) -> Engine:
    """Open the database at ``url``; one that is opened for reading only is not written to and must exist.

    Raises
    ------
    InvalidSetting
        When the URL names no database that is installed here.
    """
    try:
        place = make_url(url)
        if place.get_backend_name() != "sqlite":
            return create_engine(place)
        if read_only and place.database:
            place = place.set(database=f"file:{_quoted(place.database)}", query={"mode": "ro", "uri": "true"})
        return _sqlite_engine(place, read_only=read_only)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InvalidSetting(
            f"expected the URL of a database such as 'sqlite:////folder/index.sqlite', got {url!s}: {error}; "
            "nothing was written"
        ) from error


def _sqlite_engine(place: URL, *, read_only: bool) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
    if in_memory(place):
        options["poolclass"] = StaticPool
    engine = create_engine(place, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        if not read_only:
            _switch_to_wal(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Reads are single statements and need no BEGIN; a deferred BEGIN of a write fails "database is locked".
        if connection.get_execution_options().get("gently_writing"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def in_memory(place: URL) -> bool:
    """Say whether the database lives in memory, on one connection that all threads share."""
    return place.get_backend_name() == "sqlite" and place.database in (None, "", ":memory:")


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log. SQLite's busy timeout does not cover this one statement, so we wait here."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """Give a connection in a transaction that holds the write lock from its first statement to its commit."""
    with engine.connect().execution_options(gently_writing=True) as connection, connection.begin():
        yield connection


def create_tables(engine: Engine, *, read_only: bool) -> None:
    """Create the tables where there are none, and check the version where there are some.

    Raises
    ------
    IndexUnusable
        When the index is of another version.
    """
    with engine.connect() if read_only else writing(engine) as connection:
        names = set(inspect(connection).get_table_names())
        if not names and not read_only:
            tables.create_all(connection)
            connection.execute(insert(version).values(version=VERSION))
            return
        found = connection.execute(select(version.c.version)).scalars().all() if version.name in names else []
    if found != [VERSION] or not names.issuperset(tables.tables):
        raise IndexUnusable(
            f"expected an index of version {VERSION}, found {found or 'none'} in {engine.url!s}; nothing was changed; "
            "delete the index and build it again from the journals"
        )


# -- the database's errors -------------------------------------------------------------------------------------


@contextmanager
def translated(engine_url: URL | str) -> Generator[None]:
    """Raise the errors of the database as ours; IntegrityError goes through for who inserts to explain."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise explained(error.orig or error, engine_url) from error
    except sqlite3.Error as error:
        raise explained(error, engine_url) from error


def explained(error: BaseException, url: URL | str) -> GentlyError:
    """Return the error of ours that says what the caller can do about this one of the database."""
    reason = f"the index {url!s}: {error}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT) or "no such" in str(
        error
    ):
        return IndexUnusable(f"{reason}; delete the index and build it again from the journals")
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"{reason}; nothing of this call was indexed; make room and index the journal again"
        )
    if code == sqlite3.SQLITE_READONLY:
        return StoreReadOnly(f"{reason}; nothing was written; open the store with mode='r'")
    if code == sqlite3.SQLITE_BUSY:
        return StorageStalled(
            f"{reason} for {BUSY_TIMEOUT_S:g} s by another process; nothing of this call was indexed; end the other "
            "process or give the store an index of its own"
        )
    return StorageError(f"{reason}; nothing of this call was indexed; the journals hold everything")
