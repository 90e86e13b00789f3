"""The index over the records of a store: takes journals in, answers by uid and by query.

Everything here is a function of the journals' lines. This module does not read journals, knows no files but its
own, and decides nothing about runs; what the lines mean as rows is in ``rows.py``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Executable, Row, Select, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from gently_bluesky.errors import (
    AmbiguousUid,
    GentlyError,
    InputError,
    InvalidDocument,
    StoreReadOnly,
    UnknownUid,
)
from gently_bluesky.index import keeping, queries
from gently_bluesky.index.records import record_of, select_records
from gently_bluesky.index.rows import Batch, JournalState
from gently_bluesky.index.schema import (
    IndexUnusable,
    create_tables,
    descriptors,
    in_memory,
    journals,
    open_engine,
    points,
    records,
    translated,
    writing,
)
from gently_bluesky.model import JournalLine, Record

__all__ = ["Index", "JournalOutOfStep", "Point"]

PAGE: Final = 256
"""Records that a query reads at a time."""

CANDIDATES: Final = 5
"""Uids that the message about an ambiguous prefix lists."""

MOST_POINTS: Final = 50_000_000
"""Points of one data key; a stream_datum that claims more is not believed."""


class JournalOutOfStep(GentlyError):
    """The index does not hold a journal up to where the lines begin; forget the journal and add all of it."""

    code = "journal-out-of-step"


class Point(NamedTuple):
    """One event's array of one data key: where it is kept, and which event it belongs to.

    ``point_number`` counts along the asset and is None where the datum does not say; an array that came by
    stream_datum has an empty ``event_uid``.
    """

    asset_uid: str
    datum_uid: str
    point_number: int | None
    event_uid: str
    seq_num: int
    time: float
    descriptor_uid: str


_BY_UID: Final = select_records().where(records.c.uid == bindparam("uid"))
_DOCUMENT: Final = select(records.c.document).where(
    records.c.uid == bindparam("uid"), records.c.kind == bindparam("kind")
)
_POINTS: Final = select(
    points.c.asset_uid,
    points.c.datum_uid,
    points.c.number,
    points.c.event_uid,
    points.c.seq_num,
    points.c.time,
    points.c.descriptor_uid,
    points.c.span,
).order_by(points.c.position, points.c.data_key)
_POINTS_OF_KEY: Final = _POINTS.where(
    points.c.run_uid == bindparam("run_uid"),
    points.c.stream == bindparam("stream"),
    points.c.data_key == bindparam("data_key"),
)
_POINTS_OF_ASSET: Final = _POINTS.where(points.c.asset_uid == bindparam("asset_uid"))
_UID: Final = select(records.c.uid).where(records.c.uid == bindparam("uid"))
_TOTALS: Final = select(
    records.c.kind, func.count().label("number"), func.sum(records.c.nbytes).label("nbytes")
).group_by(records.c.kind)
_RUNS: Final = records.c.kind == "run"
_STATUSES: Final = (
    select(records.c.status, func.count().label("number")).where(_RUNS).group_by(records.c.status)
)
_DERIVED: Final = select(func.count().label("number")).where(_RUNS, records.c.derived)
_SESSIONS: Final = (
    select(records.c.session)
    .where(_RUNS, records.c.session.is_not(None))
    .distinct()
    .order_by(records.c.session)
)
_KEYS: Final = (
    select(descriptors.c.stream, descriptors.c.data_keys)
    .where(descriptors.c.run_uid == bindparam("run_uid"))
    .order_by(descriptors.c.position)
)
_holder = records.alias("holder")
_IN_RANGE: Final = (
    select(records.c.uid)
    .outerjoin(_holder, _holder.c.uid == records.c.asset_uid)
    .where(
        records.c.uid >= bindparam("low"),
        records.c.uid < bindparam("high"),
        # an asset stands for its datums: the prefix of both means the asset
        ~(
            (records.c.kind == "datum")
            & _holder.c.uid.is_not(None)
            & (_holder.c.uid >= bindparam("low"))
            & (_holder.c.uid < bindparam("high"))
        ),
    )
    .order_by(records.c.uid)
    .limit(CANDIDATES + 1)
)


class Index:
    """A database of records, in one file or in memory.

    Every method may be called on any thread; several indexes in several processes may write to one file.

    Parameters
    ----------
    url
        Of SQLAlchemy: ``"sqlite:////folder/index.sqlite"``, or ``"sqlite://"`` for one in memory.
    read_only
        Open an index that exists, and write nothing.

    Raises
    ------
    IndexUnusable
        When the file is damaged or of another version: delete it and add every journal again.
    StorageError
        When the file cannot be opened.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._engine = open_engine(url, read_only=read_only)
        self._url = self._engine.url
        self._read_only = read_only
        self._states: dict[str, JournalState] = {}
        self._write_lock = threading.RLock()
        # One connection in memory serves all threads, so that they have to take turns.
        self._read_lock = self._write_lock if in_memory(self._url) else nullcontext()
        try:
            with translated(self._url):
                create_tables(self._engine, read_only=read_only)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close the database; calling it again does nothing."""
        with self._write_lock:
            self._states.clear()
            self._engine.dispose()

    # -- taking journals in ----------------------------------------------------------------------------------------

    def add(self, journal: str, lines: Sequence[JournalLine], end: int, *, begin: int | None = None) -> None:
        """Index lines that stand in a journal up to byte ``end``, all of them or none.

        Lines that were indexed meanwhile, by whomever, are not indexed again.

        Parameters
        ----------
        journal
            Its path, relative to the store's root.
        lines
            In the journal's order.
        end
            Offset behind the last of the lines.
        begin
            Offset of the first of them, where it is known: then it is checked that no line is left out.

        Raises
        ------
        JournalOutOfStep
            When what is indexed of the journal does not end where the lines begin, because another process indexed
            it or a call failed: ``forget`` the journal and add the whole of it.
        ConflictingDocument
            When a uid is in the index already.
        InvalidDocument, UnknownReference
            When a document lacks what the index needs, or names one that did not come before it.
        StorageError
            When the database cannot be written.
        """
        batch: Batch | None = None
        with self._write_lock:
            # Taken out, and put back when all is done: after a failure the rows themselves say what was indexed.
            state = self._states.pop(journal, None)
            try:
                with self._changing() as connection:
                    indexed = keeping.indexed_end(connection, journal)
                    if indexed >= end:
                        return
                    _check_step(
                        journal, begin if begin is not None else state.end if state else indexed, indexed
                    )
                    if state is None or state.end != indexed:
                        state = keeping.load_state(connection, journal)
                    batch = Batch(state, lambda uid: keeping.find_datum(connection, uid))
                    batch.take(lines)
                    state.end = end
                    keeping.store_batch(connection, batch)
                    keeping.mark_indexed(connection, state, indexed)
            except IntegrityError as error:
                raise self._conflict(batch, error) from error
            if state.runs:
                self._states[journal] = state

    def forget(self, journal: str) -> None:
        """Delete every row that came from a journal, so that it can be added again from its beginning.

        Raises
        ------
        StorageError
            When the database cannot be written.
        """
        with self._changing() as connection:
            self._states.pop(journal, None)
            keeping.forget_journal(connection, journal)

    def journals(self) -> dict[str, int]:
        """Return the journals that are indexed, and up to which byte."""
        rows = self.rows(select(journals.c.journal, journals.c.end).order_by(journals.c.journal))
        return {row.journal: row.end for row in rows}

    # -- one record ------------------------------------------------------------------------------------------------

    def resolve(self, uid: str) -> str:
        """Return the whole uid of the one record whose uid is this or begins with it.

        Raises
        ------
        UnknownUid
            When there is none.
        AmbiguousUid
            When there are several. An asset is preferred to its own datums.
        """
        if self.rows(_UID, uid=_checked(uid)):
            return uid
        found = [row.uid for row in self.rows(_IN_RANGE, low=uid, high=_behind(uid))]
        if not found:
            raise UnknownUid(f"no run, asset or datum has the uid {uid!r} or one that begins with it")
        if len(found) > 1:
            more = ", ..." if len(found) > CANDIDATES else ""
            raise AmbiguousUid(
                f"expected the beginning of one uid, got {uid!r}, with which several begin: "
                f"{', '.join(found[:CANDIDATES])}{more}; give more characters"
            )
        return found[0]

    def record(self, uid: str) -> Record:
        """Return the record of a run, asset or datum by its uid or a beginning of it that no other uid has.

        Raises
        ------
        UnknownUid, AmbiguousUid
            As `resolve`.
        """
        rows = self.rows(_BY_UID, uid=_checked(uid)) or self.rows(_BY_UID, uid=self.resolve(uid))
        if not rows:
            raise UnknownUid(f"the record of {uid!r} was taken out of the index just now; ask again")
        return record_of(rows[0])

    def asset_document(self, uid: str) -> Mapping[str, Any]:
        """Return the resource or stream_resource document of an asset, by its full uid.

        Raises
        ------
        UnknownUid
            When no asset has this uid.
        """
        return self._document(uid, "asset")

    def datum_document(self, uid: str) -> Mapping[str, Any]:
        """Return the datum or stream_datum document, by its full uid.

        Raises
        ------
        UnknownUid
            When no datum has this uid.
        """
        return self._document(uid, "datum")

    # -- many records ----------------------------------------------------------------------------------------------

    def query(
        self,
        *,
        kind: str = "run",
        data_type: str | None = None,
        session: str | None = None,
        status: str | None = None,
        stream: str | None = None,
        data_key: str | None = None,
        since: float | str | date | None = None,
        until: float | str | date | None = None,
        derived: bool | None = None,
        operation: str | None = None,
        **metadata: object,
    ) -> Iterator[Record]:
        """Yield the records that answer all conditions, newest first; they are read a page at a time.

        Parameters
        ----------
        kind
            ``"run"``, ``"asset"`` or ``"datum"``. Conditions on a run hold for what belongs to it.
        data_type, session, status, operation
            Of the run.
        stream, data_key
            Where an asset or datum belongs; of a run, that it has such a stream, data key, or the one in the other.
        since, until
            Seconds since the epoch, a datetime, or text such as ``"2026-11-21T14:30"``; both included. Without a
            zone they are local; as ``until``, a date alone stands for the whole day.
        derived
            Whether the run is a derived result.
        **metadata
            What the start document holds under these keys. A mapping asks for each of its keys
            (``sample={"age_h": 3}``), as does a dotted key (``**{"sample.age_h": 3}``); a list in the start document
            answers to each of its first 1,000 members. Numbers compare by value, True is not 1.

        Raises
        ------
        InvalidSetting
            When a condition cannot hold for any record. Raised here, not at the first record.
        """
        statement = queries.newest_first(
            kind=kind,
            texts={
                "data_type": data_type,
                "session": session,
                "status": status,
                "stream": stream,
                "data_key": data_key,
                "operation": operation,
            },
            since=since,
            until=until,
            derived=derived,
            wanted=metadata,
        )
        return self._pages(statement.limit(PAGE))

    def streams(self, run_uid: str) -> dict[str, list[str]]:
        """Return the streams of a run and their data keys, in the order of the descriptors."""
        found: dict[str, dict[str, None]] = {}
        for row in self.rows(_KEYS, run_uid=run_uid):
            found.setdefault(row.stream, {}).update(dict.fromkeys(orjson.loads(row.data_keys)))
        return {stream: list(keys) for stream, keys in found.items()}

    def points(self, run_uid: str, stream: str, data_key: str) -> list[Point]:
        """Return every event's array of a data key in the order of announcement, superseded ones too."""
        return _expanded(self.rows(_POINTS_OF_KEY, run_uid=run_uid, stream=stream, data_key=data_key))

    def points_of_asset(self, asset_uid: str) -> list[Point]:
        """Return every event's array that an asset keeps, in the order of announcement."""
        return _expanded(self.rows(_POINTS_OF_ASSET, asset_uid=asset_uid))

    def stats(self) -> dict[str, Any]:
        """Return how much is in the index.

        Returns
        -------
        dict
            ``runs`` (by status), ``assets``, ``datums``, ``derived``, ``nbytes`` (of pixels) and ``sessions``.
        """
        kinds = {row.kind: row for row in self.rows(_TOTALS)}
        return {
            "runs": {row.status: row.number for row in self.rows(_STATUSES)},
            "assets": kinds["asset"].number if "asset" in kinds else 0,
            "datums": kinds["datum"].number if "datum" in kinds else 0,
            "derived": self.rows(_DERIVED)[0].number,
            "nbytes": int(kinds["asset"].nbytes or 0) if "asset" in kinds else 0,
            "sessions": [row.session for row in self.rows(_SESSIONS)],
        }

    # -- for this room ---------------------------------------------------------------------------------------------

    def rows(self, statement: Executable, **parameters: object) -> Sequence[Row[Any]]:
        """Return the rows that a statement reads. For the modules of this room; others ask by the methods above."""
        with self._read_lock, translated(self._url), self._engine.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextmanager
    def _changing(self) -> Generator[Connection]:
        if self._read_only:
            raise StoreReadOnly(f"the index {self._url!s} is open for reading only; nothing was written")
        with self._write_lock, translated(self._url), writing(self._engine) as connection:
            yield connection

    def _conflict(self, batch: Batch | None, error: IntegrityError) -> GentlyError:
        if batch is None:
            return IndexUnusable(
                f"the index {self._url!s} contradicts itself: {error}; delete it and build it again"
            )
        with self._read_lock, translated(self._url), self._engine.connect() as connection:
            return keeping.conflict(connection, batch, error)

    def _document(self, uid: str, kind: str) -> Mapping[str, Any]:
        rows = self.rows(_DOCUMENT, uid=_checked(uid), kind=kind)
        if not rows:
            raise UnknownUid(f"no {kind} has the uid {uid!r}")
        return orjson.loads(rows[0].document)

    def _pages(self, statement: Select[*tuple[Any, ...]]) -> Iterator[Record]:
        page = self.rows(statement)
        while page:
            yield from map(record_of, page)
            if len(page) < PAGE:
                return
            page = self.rows(queries.after(statement, page[-1].time, page[-1].uid))


def _check_step(journal: str, begin: int, indexed: int) -> None:
    if begin != indexed:
        raise JournalOutOfStep(
            f"{journal}: expected it to be indexed up to byte {begin}, found it indexed up to {indexed}; nothing of "
            "this call was indexed; forget the journal and add the whole of it"
        )


def _checked(uid: object) -> str:
    """Return a uid that the database can be asked for."""
    if not isinstance(uid, str):
        raise InputError(f"expected a uid as text, got {uid!r}; nothing was looked for")
    if not uid or any("\ud800" <= character <= "\udfff" for character in uid):
        raise UnknownUid(f"expected a uid or the beginning of one, got {uid!r}")
    return uid


def _behind(prefix: str) -> str:
    """Return the first text that is behind all those that begin with ``prefix``."""
    last = ord(prefix[-1]) + 1
    if last > sys.maxunicode:
        return prefix + chr(sys.maxunicode)
    return prefix[:-1] + ("\ue000" if chr(last) == "\ud800" else chr(last))


def _expanded(rows: Sequence[Row[Any]]) -> list[Point]:
    """Return one point per event; a row that came from a stream_datum stands for a range of them."""
    if sum(row.span for row in rows) > MOST_POINTS:
        raise InvalidDocument(
            f"expected at most {MOST_POINTS:,} events of one data key, but the stream_datum documents of asset "
            f"{rows[0].asset_uid!r} claim more; nothing was read"
        )
    found: list[Point] = []
    for row in rows:
        first = Point(*row[:7])
        if row.span == 1:
            found.append(first)
            continue
        number = first.point_number or 0
        found += (first._replace(point_number=number + i, seq_num=first.seq_num + i) for i in range(row.span))
    return found
