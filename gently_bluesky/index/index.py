"""The index over the records of a store: takes journals in, answers by uid and by query.

Everything here is a function of the journals' lines. This module does not read journals and decides nothing
about runs; what the lines mean as rows is in ``rows.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import URL, Executable
from sqlalchemy.exc import IntegrityError

from gently_bluesky.errors import AmbiguousUid, GentlyError, UnknownUid
from gently_bluesky.index import keeping, queries, statements
from gently_bluesky.index.database import Database
from gently_bluesky.index.points import (
    EXTENTS_OF_ASSET,
    EXTENTS_OF_KEY,
    EXTENTS_OF_RUN,
    POINTS_OF_ASSET,
    POINTS_OF_KEY,
    Extent,
    Point,
    expanded,
)
from gently_bluesky.index.records import decoded, document_of, record_of
from gently_bluesky.index.rows import Batch, JournalState
from gently_bluesky.index.schema import AnyRow, AnySelect, IndexUnusable, JournalOutOfStep
from gently_bluesky.index.uids import behind, checked
from gently_bluesky.index.upkept import UpkeptIndex
from gently_bluesky.model import JournalLine, Record

__all__ = ["Extent", "Index", "IndexUnusable", "JournalOutOfStep", "Point"]

PAGE: Final = 256
"""Records that a query reads at a time."""


class Index(UpkeptIndex):
    """A database of records, in one file or in memory.

    Every method may be called on any thread; several indexes in several processes may write to one file.

    Parameters
    ----------
    url
        Of SQLAlchemy: ``"sqlite:////folder/index.sqlite"``, or ``"sqlite://"`` for one in memory.
    read_only
        Open an index that exists, and write nothing, not even a file beside it.

    Raises
    ------
    IndexUnusable
        When the file is damaged or of another version: delete it and add every journal again. For reading
        only also when there is none.
    InvalidSetting
        When the URL names no kind of database that is installed.
    StorageError
        When the file cannot be opened.
    """

    def __init__(self, url: str | URL, *, read_only: bool = False) -> None:
        self._database = Database(url, read_only=read_only)
        self._states: dict[str, JournalState] = {}
        self._states_lock = threading.RLock()

    def close(self) -> None:
        """Close the database; calling it again does nothing."""
        with self._states_lock:
            self._states.clear()
            self._database.close()

    # -- taking journals in ----------------------------------------------------------------------------------

    def add(
        self,
        journal: str,
        lines: Sequence[JournalLine],
        end: int,
        *,
        begin: int | None = None,
        anew: bool = False,
        patience_s: float | None = None,
    ) -> None:
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
        anew
            They are all of the journal, which was rewritten: what was indexed of it is replaced, at once.
        patience_s
            Longest wait for other processes that write; by default a minute.

        Raises
        ------
        JournalOutOfStep
            When what is indexed of the journal does not end where the lines begin, because another process
            indexed it or a call failed: ``forget`` the journal and add the whole of it.
        ConflictingDocument
            When a uid is in the index already.
        InvalidDocument, UnknownReference
            When a document lacks what the index needs, or names one that did not come before it.
        StorageError
            When the database cannot be written; as StorageStalled, when others write for too long.
        """
        batch: Batch | None = None
        try:
            with self._database.writing(patience_s) as connection, self._states_lock:
                # Taken out, and put back when all is done: after a failure the rows say what was indexed.
                state = self._states.pop(journal, None)
                if anew:
                    state = None
                    keeping.forget_journal(connection, journal)
                indexed = keeping.indexed_end(connection, journal)
                if indexed >= end:
                    return
                known = state.end if begin is None and state is not None else begin
                if known not in (None, indexed):
                    raise JournalOutOfStep.at(journal, known, indexed)
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
            with self._states_lock:
                self._states[journal] = state

    def require_turn(self, patience_s: float) -> None:
        """Return if the index could be written to now. Raises StorageStalled if others write for too long."""
        with self._database.writing(patience_s):
            pass

    def forget(self, journal: str) -> None:
        """Delete every row of a journal, so that it can be added from its beginning. Raises StorageError."""
        with self._database.writing() as connection, self._states_lock:
            self._states.pop(journal, None)
            keeping.forget_journal(connection, journal)

    def journals(self) -> dict[str, int]:
        """Return the journals that are indexed, and up to which byte."""
        return {row.journal: row.end for row in self.rows(statements.JOURNALS)}

    def reach(self, journal: str) -> int:
        """Return up to which byte a journal is indexed; 0 where it is not."""
        rows = self.rows(statements.END, journal=journal)
        return rows[0].end if rows else 0

    @property
    def is_shared(self) -> bool:
        """Whether what another process indexes is here at once, and not only in an index of its own."""
        return self._database.is_shared

    # -- one record ------------------------------------------------------------------------------------------

    def resolve(self, uid: str) -> str:
        """Return the whole uid of the one record whose uid is this or begins with it.

        Raises
        ------
        UnknownUid
            When there is none.
        AmbiguousUid
            When there are several. An asset is preferred to its own datums.
        """
        if self.rows(statements.UID, uid=checked(uid)):
            return uid
        found = [row.uid for row in self.rows(statements.IN_RANGE, low=uid, high=behind(uid))]
        if not found:
            raise UnknownUid(f"no run, asset or datum has the uid {uid!r} or one that begins with it")
        if len(found) > 1 and found[0] != uid:  # it may have come in between the two questions
            more = ", ..." if len(found) > statements.CANDIDATES else ""
            raise AmbiguousUid(
                f"expected the beginning of one uid, got {uid!r}, with which several begin: "
                f"{', '.join(found[: statements.CANDIDATES])}{more}; give more characters"
            )
        return found[0]

    def record(self, uid: str) -> Record:
        """Return the record of a run, asset or datum by its uid or a beginning of it that no other uid has.

        Raises
        ------
        UnknownUid, AmbiguousUid
            As `resolve`.
        """
        rows = self.rows(statements.BY_UID, uid=checked(uid)) or self.rows(
            statements.BY_UID, uid=self.resolve(uid)
        )
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

    def datum_documents(self, uids: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the documents of many datums, in this order. Raises UnknownUid."""
        known: dict[str, str] = {}
        for first in range(0, len(uids), PAGE):
            page = self.rows(statements.DATUMS, uids=uids[first : first + PAGE])
            known.update((row.uid, row.document) for row in page)
        return [document_of(known[uid]) if uid in known else self.datum_document(uid) for uid in uids]

    def has_descriptor(self, uid: str) -> bool:
        """Say whether a descriptor of this full uid is in the index; it is no record."""
        return bool(self.rows(statements.DESCRIPTOR, uid=checked(uid)))

    # -- many records ----------------------------------------------------------------------------------------

    def query(
        self,
        /,  # start documents may hold a "self"
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
        deleted: bool | None = None,
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
            Where an asset or datum belongs; of a run, that it has such a stream, and such a data key in it.
        since, until
            Seconds since the epoch, a datetime, or text such as ``"2026-11-21T14:30"``; both included.
            Without a zone they are local; as ``until``, a date alone stands for the whole day.
        derived
            Whether the run is a derived result.
        deleted
            Whether the pixels were deleted; of a run, all of them.
        **metadata
            What the start document holds under these keys. A mapping asks for each of its keys
            (``sample={"age_h": 3}``), as does a dotted key (``**{"sample.age_h": 3}``); a list in the start
            document answers to each of its first 1,000 members. Numbers compare by value, True is not 1.

        Raises
        ------
        InvalidSetting
            When a condition cannot hold for any record. Raised here, not at the first record.
        """
        texts = {
            "data_type": data_type,
            "session": session,
            "status": status,
            "stream": stream,
            "data_key": data_key,
            "operation": operation,
        }
        statement = queries.newest_first(
            kind=kind,
            texts=texts,
            since=since,
            until=until,
            derived=derived,
            deleted=deleted,
            wanted=metadata,
        )
        return self._pages(statement.limit(PAGE))

    def streams(self, run_uid: str) -> dict[str, list[str]]:
        """Return the streams of a run and their data keys, in the order of the descriptors."""
        return {stream: list(keys) for stream, keys in self.data_keys(run_uid).items()}

    def data_keys(self, run_uid: str) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Return what the descriptors of a run say of each data key of each stream, the last one of each.

        That is ``shape``, ``dtype_numpy``, ``external`` and ``dims``, as far as they are given.
        """
        found: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in self.rows(statements.KEYS, run_uid=run_uid):
            found.setdefault(row.stream, {}).update(decoded(row.data_keys))
        return found

    def points(self, run_uid: str, stream: str, data_key: str, *, after: int = -1) -> list[Point]:
        """Return every event's array of a data key in the order of announcement, superseded ones too.

        With ``after`` only those whose ``position`` is behind it.
        """
        place = {"run_uid": run_uid, "stream": stream, "data_key": data_key}
        return expanded(self.rows(POINTS_OF_KEY, after=after, **place))

    def points_of_asset(self, asset_uid: str, *, after: int = -1) -> list[Point]:
        """Return every event's array that an asset keeps, as `points` does."""
        return expanded(self.rows(POINTS_OF_ASSET, after=after, asset_uid=asset_uid))

    def extents(self, run_uid: str, stream: str, data_key: str) -> list[Extent]:
        """Return the points of a data key summed up by asset, in the order in which the assets came."""
        rows = self.rows(EXTENTS_OF_KEY, run_uid=run_uid, stream=stream, data_key=data_key)
        return [Extent._make(row) for row in rows]

    def extents_of_run(self, run_uid: str) -> list[Extent]:
        """Return the points of a run summed up by data key and asset."""
        return [Extent._make(row) for row in self.rows(EXTENTS_OF_RUN, run_uid=run_uid)]

    def extents_of_asset(self, asset_uid: str) -> list[Extent]:
        """Return the points that an asset keeps summed up by data key; an asset of ours has one."""
        return [Extent._make(row) for row in self.rows(EXTENTS_OF_ASSET, asset_uid=asset_uid)]

    def stats(self) -> dict[str, Any]:
        """Return how much is in the index.

        Returns
        -------
        dict
            ``runs`` (by status), ``assets``, ``datums``, ``derived`` (runs), ``nbytes`` (of pixels) and
            ``sessions``.
        """
        totals = self.rows(statements.TOTALS)[0]
        return {
            "runs": {row.status: row.number for row in self.rows(statements.STATUSES)},
            "assets": totals.assets,
            "datums": totals.datums,
            "derived": totals.derived,
            "nbytes": int(totals.nbytes or 0),
            "sessions": [row.session for row in self.rows(statements.SESSIONS)],
        }

    # -- for this room ---------------------------------------------------------------------------------------

    def rows(self, statement: Executable, **parameters: object) -> Sequence[AnyRow]:
        """Return the rows that a statement reads. For this room; others ask by the methods above."""
        with self._database.reading() as connection:
            return connection.execute(statement, parameters).fetchall()

    def _conflict(self, batch: Batch | None, error: IntegrityError) -> GentlyError:
        if batch is None:
            place = self._database.place
            return IndexUnusable(
                f"the index {place} contradicts itself: {error}; delete it and build it again"
            )
        with self._database.reading() as connection:
            return keeping.conflict(connection, batch, error)

    def _document(self, uid: str, kind: str) -> Mapping[str, Any]:
        rows = self.rows(statements.DOCUMENT, uid=checked(uid), kind=kind)
        if not rows:
            raise UnknownUid(f"no {kind} has the uid {uid!r}")
        return document_of(rows[0].document)

    def _pages(self, statement: AnySelect) -> Iterator[Record]:
        page = self.rows(statement)
        while page:
            yield from map(record_of, page)
            if len(page) < PAGE:
                return
            page = self.rows(queries.after(statement, page[-1].time, page[-1].uid))
