"""Stores batches of rows, takes them out again, and reads back what was remembered of a journal.

Each function works inside a transaction that the caller opened. What the rows mean is in ``rows.py``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Executable, and_, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gently_bluesky.errors import ConflictingDocument
from gently_bluesky.index.records import decoded
from gently_bluesky.index.rows import Batch
from gently_bluesky.index.schema import (
    descriptors,
    edges,
    extents,
    journals,
    metadata,
    points,
    records,
    stream_keys,
)
from gently_bluesky.index.states import DescriptorState, JournalState, Row

__all__ = [
    "conflict",
    "find_datum",
    "forget_journal",
    "indexed_end",
    "load_state",
    "mark_indexed",
    "store_batch",
]

ASSET_COLUMNS: Final = ("time", "stream", "data_key", "count", "shape", "dtype", "dims", "nbytes")
NAMED_COLUMNS: Final = ("time", "stream", "data_key", "seq_num")
ENDED_COLUMNS: Final = ("status", "received", "stored", "lost")
EXTENT_KEY: Final = ("run_uid", "stream", "data_key", "asset_uid")
EXTENT_COLUMNS: Final = ("last_position", "last_seq_num", "events", "in_place", "in_turn")


def _update_records(names: tuple[str, ...]) -> Executable:
    return (
        update(records)
        .where(records.c.uid == bindparam("key"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )


_END: Final = select(journals.c.end).where(journals.c.journal == bindparam("name"))
_MARK: Final = (
    update(journals)
    .where(journals.c.journal == bindparam("name"), journals.c.end == bindparam("begin"))
    .values(end=bindparam("new_end"), lines=bindparam("new_lines"), time=bindparam("new_time"))
)
_INSERT_RECORD: Final = insert(records)
_END_RUN: Final = _update_records(ENDED_COLUMNS)
_CHANGE_ASSET: Final = _update_records(ASSET_COLUMNS)
_NAME_DATUM: Final = _update_records(NAMED_COLUMNS)
_EXTEND: Final = (
    update(extents)
    .where(and_(*(extents.c[name] == bindparam(f"key_{name}") for name in EXTENT_KEY)))
    .values({name: bindparam(f"new_{name}") for name in EXTENT_COLUMNS})
)
_DATUM: Final = select(records.c.run_uid, records.c.document).where(
    records.c.uid == bindparam("name"), records.c.kind == "datum"
)


def indexed_end(connection: Connection, journal: str) -> int:
    """Return the offset up to which a journal is indexed; 0 for one that is not."""
    return connection.execute(_END, {"name": journal}).scalar() or 0


def mark_indexed(connection: Connection, state: JournalState, begin: int) -> None:
    """Note how far the journal of ``state`` is indexed now."""
    new = {"new_end": state.end, "new_lines": state.lines, "new_time": state.time}
    if connection.execute(_MARK, {"name": state.journal, "begin": begin} | new).rowcount == 0:
        row = {"journal": state.journal, "end": state.end, "lines": state.lines, "time": state.time}
        connection.execute(insert(journals), row)


def store_batch(connection: Connection, batch: Batch) -> None:
    """Store the rows of a batch.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        When a uid is in the index already; `conflict` says which.
    """
    for table, rows in (
        (records, list(batch.runs.values())),
        (records, list(batch.assets.values())),
        (records, list(batch.datums.values())),
        (descriptors, batch.descriptors),
        (stream_keys, [{"run_uid": run, "stream": s, "data_key": key} for run, s, key in batch.stream_keys]),
        (points, batch.points),
        (extents, list(batch.extents.values())),
        (metadata, batch.metadata),
        (edges, batch.edges),
    ):
        if rows:
            connection.execute(insert(table), rows)
    for statement, names, changed in (
        (_CHANGE_ASSET, ASSET_COLUMNS, batch.changed_assets.values()),
        (_NAME_DATUM, NAMED_COLUMNS, batch.named_datums),
        (_END_RUN, ENDED_COLUMNS, batch.stops.values()),
    ):
        if changed:
            new = [{"key": row["uid"]} | {f"new_{name}": row[name] for name in names} for row in changed]
            connection.execute(statement, new)
    if batch.changed_extents:
        connection.execute(_EXTEND, [_extended(row) for row in batch.changed_extents.values()])


def _extended(row: Row) -> Row:
    keys = {f"key_{name}": row[name] for name in EXTENT_KEY}
    return keys | {f"new_{name}": row[name] for name in EXTENT_COLUMNS}


def find_datum(connection: Connection, uid: str) -> Row | None:
    """Return the row of a datum that was announced in an earlier batch."""
    row = connection.execute(_DATUM, {"name": uid}).mappings().first()
    return None if row is None else dict(row)


def load_state(connection: Connection, journal: str) -> JournalState:
    """Return what has to be remembered of a journal, from the rows that it made so far."""
    row = connection.execute(select(journals).where(journals.c.journal == journal)).first()
    if row is None:
        return JournalState(journal)
    state = JournalState(journal, row.end, row.lines, row.time)
    of_journal = records.c.kind == "run", records.c.path == journal, records.c.status == "running"
    for run in connection.execute(
        select(records.c.uid, records.c.time).where(*of_journal).order_by(records.c.time)
    ):
        state.runs[run.uid] = run.time
    for run_uid in state.runs:
        _load_run(connection, state, run_uid)
    return state


def _load_run(connection: Connection, state: JournalState, run_uid: str) -> None:
    for row in connection.execute(
        select(descriptors).where(descriptors.c.run_uid == run_uid).order_by(descriptors.c.position)
    ):
        state.descriptors[row.uid] = DescriptorState(run_uid, row.stream, decoded(row.data_keys))
    of_run = select(records).where(records.c.run_uid == run_uid)
    for row in connection.execute(of_run.where(records.c.kind == "asset")).mappings():
        state.assets[row["uid"]] = dict(row)
    for row in connection.execute(select(extents).where(extents.c.run_uid == run_uid)).mappings():
        state.extents[(run_uid, row["stream"], row["data_key"], row["asset_uid"])] = dict(row)
    waiting = of_run.where(records.c.kind == "datum", records.c.stream.is_(None))
    for row in connection.execute(waiting).mappings():
        if "datum_id" in decoded(row["document"]):
            state.waiting[row["uid"]] = dict(row)


def forget_journal(connection: Connection, journal: str) -> None:
    """Delete every row that came from a journal."""
    runs = connection.scalars(
        select(records.c.uid).where(records.c.kind == "run", records.c.path == journal)
    ).all()
    for column in (
        descriptors.c.run_uid,
        stream_keys.c.run_uid,
        points.c.run_uid,
        extents.c.run_uid,
        metadata.c.run_uid,
        edges.c.child,
        records.c.run_uid,
    ):
        if runs:
            statement = delete(column.table).where(column == bindparam("run"))
            connection.execute(statement, [{"run": uid} for uid in runs])
    connection.execute(delete(journals).where(journals.c.journal == journal))


def conflict(connection: Connection, batch: Batch, error: IntegrityError) -> ConflictingDocument:
    """Return the error that says which uid of a batch is in the index already, and from where."""
    uids = [*batch.runs, *batch.assets, *batch.datums]
    owner = records.alias("owner")
    statement = (
        select(records.c.uid, records.c.kind, owner.c.path)
        .outerjoin(owner, owner.c.uid == records.c.run_uid)
        .where(records.c.uid == bindparam("name"))
    )
    found: Any = next(
        filter(None, (connection.execute(statement, {"name": uid}).first() for uid in uids)), None
    )
    what = (
        f"its {found.kind} {found.uid!r} is in the index already, from {found.path}"
        if found
        else f"it has two documents of one uid ({error.orig})"
    )
    return ConflictingDocument(
        f"{batch.state.journal}: expected uids that no other document has, but {what}; nothing of this call "
        "was indexed; no journal was changed; if the journal is a copy of the other, take one of them away"
    )
