"""The tables of the index, and their version.

A newer version does not read or mend an older one: the index is built again. How a database is opened is in
``database.py``, what the rows mean in ``rows.py``.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
)

from gently_bluesky.errors import GentlyError

__all__ = [
    "AnyRow",
    "AnySelect",
    "IndexUnusable",
    "JournalOutOfStep",
    "Uid",
    "create_tables",
    "descriptors",
    "edges",
    "extents",
    "has_tables",
    "journals",
    "metadata",
    "pins",
    "points",
    "records",
    "stream_keys",
    "tombstones",
    "upkeep",
]

VERSION: Final = 4
AnyRow: TypeAlias = Any
AnySelect: TypeAlias = Any
"""SQLAlchemy 2.0 and 2.1 spell the types of several columns so that no annotation is right for both; Tiled's server
needs 2.0.
"""

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

extents = Table(
    "extents",
    tables,
    Column("run_uid", Uid, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("data_key", Text, primary_key=True),
    Column("asset_uid", Uid, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("last_seq_num", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("in_place", Boolean, nullable=False),
    Column("in_turn", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
"""The points of a data key in an asset, summed up: opening an array must not cost more for more events."""
Index("extents_of_asset", extents.c.asset_uid, extents.c.position)

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

upkeep = Table("upkeep", tables, Column("end", BigInteger, nullable=False))
"""Up to which byte the logbook is indexed; no row where nothing of it is."""

tombstones = Table(
    "tombstones",
    tables,
    Column("uid", Uid, primary_key=True),
    Column("run_uid", Uid, nullable=False),
    Column("time", Float, nullable=False),
    Column("purged", Float),
    Column("entry", Text, nullable=False),
)
"""Of assets, and of runs all of whose assets were deleted."""
Index("tombstones_of_run", tombstones.c.run_uid)

pins = Table(
    "pins",
    tables,
    Column("run_uid", Uid, primary_key=True),
    Column("time", Float, nullable=False),
    Column("reason", Text, nullable=False),
)


class IndexUnusable(GentlyError):
    """The index is damaged or of another version; delete it and build it again from the journals."""

    code = "index-unusable"


class JournalOutOfStep(GentlyError):
    """The index does not hold a journal up to where the lines begin; forget the journal and add all of it."""

    code = "journal-out-of-step"

    @classmethod
    def at(cls, journal: str, begin: int | None, indexed: int) -> JournalOutOfStep:
        """Return the error of lines that begin elsewhere than what is indexed ends."""
        return cls(
            f"{journal}: expected it to be indexed up to byte {begin}, found it indexed up to {indexed}; nothing of "
            "this call was indexed; forget the journal and add the whole of it"
        )


def create_tables(connection: Connection) -> None:
    """Create the tables in a database that is empty."""
    tables.create_all(connection)
    connection.execute(insert(version).values(version=VERSION))


def has_tables(connection: Connection) -> bool:
    """Say whether the tables are there; False for a database that is empty.

    Raises
    ------
    IndexUnusable
        When other tables are there, or those of another version.
    """
    names = set(inspect(connection).get_table_names())
    if not names:
        return False
    found = connection.scalars(select(version.c.version)).all() if version.name in names else []
    if found != [VERSION] or not names.issuperset(tables.tables):
        raise IndexUnusable(
            f"expected an index of version {VERSION}, found {found or 'none'} in {connection.engine.url!s}; "
            "nothing was changed; delete the index and build it again from the journals"
        )
    return True
