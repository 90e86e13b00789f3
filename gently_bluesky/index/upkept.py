"""What the logbook of upkeep says of runs and assets, as rows: tombstones and pins.

A function of the logbook's entries, as the rest of the index is of the journals' lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import Connection, Executable, bindparam, delete, distinct, func, insert, select, update

from gently_bluesky.index.database import Database
from gently_bluesky.index.fields import json_text
from gently_bluesky.index.records import decoded
from gently_bluesky.index.schema import AnyRow, pins, records, tombstones, upkeep
from gently_bluesky.model import Pin, Tombstone

__all__ = ["CONVERT", "DELETE", "INDEXED", "PIN", "PURGE", "RESTORE", "UNPIN", "UpkeptIndex", "tombstones_of"]

PIN: Final = "pin"
UNPIN: Final = "unpin"
DELETE: Final = "delete"
RESTORE: Final = "restore"
PURGE: Final = "purge"
CONVERT: Final = "convert"
INDEXED: Final = frozenset({PIN, UNPIN, DELETE, RESTORE, PURGE, CONVERT})
"""Kinds of entries that the index takes in."""

_REACH: Final = select(upkeep.c.end)
_ONE: Final = select(tombstones.c.entry).where(tombstones.c.uid == bindparam("uid"))
_ALL: Final = select(tombstones.c.entry).order_by(tombstones.c.time, tombstones.c.uid)
_OF_RUN: Final = select(tombstones.c.entry).where(tombstones.c.run_uid == bindparam("run_uid"))
_SHARED: Final = (
    select(records.c.path)
    .where(records.c.kind == "asset")
    .group_by(records.c.path)
    .having(func.count(distinct(records.c.run_uid)) > 1)
)
_PINS: Final = select(pins.c.run_uid, pins.c.time, pins.c.reason).order_by(pins.c.time, pins.c.run_uid)


class UpkeptIndex(ABC):
    """The half of an index that knows what was deleted and what is pinned. Any thread."""

    _database: Database

    @abstractmethod
    def rows(self, statement: Executable, **parameters: object) -> Sequence[AnyRow]:
        """Return the rows that a statement reads."""

    def upkeep_reach(self) -> int:
        """Return up to which byte the logbook is indexed."""
        rows = self.rows(_REACH)
        return rows[0].end if rows else 0

    def take_upkeep(self, entries: Iterable[Mapping[str, Any]], begin: int, end: int) -> None:
        """Index the entries of the logbook that stand from byte ``begin`` to ``end``, all of them or none.

        From its beginning on they replace what was indexed. Where others indexed them meanwhile, nothing is done.

        Raises
        ------
        StorageError
            The database cannot be written.
        """
        with self._database.writing() as connection:
            reach = connection.execute(_REACH).scalar() or 0
            if begin == 0:
                for table in (tombstones, pins):
                    connection.execute(delete(table))
            elif begin != reach:
                return
            for entry in entries:
                with suppress(
                    KeyError, TypeError, ValueError
                ):  # made by hand, or by a later version: says nothing here
                    _TAKERS[entry["kind"]](connection, entry)
            connection.execute(delete(upkeep))
            connection.execute(insert(upkeep).values(end=end))

    def tombstone(self, uid: str) -> Tombstone | None:
        """Return the tombstone of an asset, or of a run all of whose assets were deleted, by its full uid."""
        rows = self.rows(_ONE, uid=uid)
        return _tombstone(rows[0].entry) if rows else None

    def tombstones(self, run_uid: str | None = None) -> list[Tombstone]:
        """Return those of all assets, oldest first; or of a run, by its full uid."""
        rows = self.rows(_ALL) if run_uid is None else self.rows(_OF_RUN, run_uid=run_uid)
        found = [_tombstone(row.entry) for row in rows]
        return [one for one in found if one.uid != one.run_uid]

    def pins(self) -> dict[str, Pin]:
        """Return the runs that are pinned, by their uids, oldest pin first."""
        return {row.run_uid: Pin(row.run_uid, row.time, row.reason) for row in self.rows(_PINS)}

    def shared_places(self) -> frozenset[str]:
        """Return where assets lie that several runs announce."""
        return frozenset(row.path for row in self.rows(_SHARED))


def tombstones_of(entry: Mapping[str, Any]) -> list[Tombstone]:
    """Return what a logbook's entry of a deletion says: one for each asset, and one for a run that was deleted whole.

    One of a conversion says what is left of the asset as it was.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is no such entry.
    """
    common: dict[str, Any] = {name: entry[name] for name in ("time", "reason", "keep_until", "start")}
    common |= {"run_uid": str(entry["run"]), "policy": entry.get("policy")}
    found = [Tombstone(**common, **asset) for asset in entry["assets"]]
    if entry["whole"]:
        found.append(
            Tombstone(
                uid=str(entry["run"]),
                nbytes=sum(one.nbytes for one in found),
                events=sum(one.events for one in found),
                digest="",
                path=found[0].path.rpartition("/")[0],
                trash=found[0].trash.rpartition("/")[0],
                **common,
            )
        )
    return found


def _tombstone(text: object) -> Tombstone:
    return Tombstone(**decoded(text))


def _row(one: Tombstone) -> dict[str, Any]:
    text = json_text(asdict(one))
    return {"uid": one.uid, "run_uid": one.run_uid, "time": one.time, "purged": one.purged, "entry": text}


def _take_delete(connection: Connection, entry: Mapping[str, Any]) -> None:
    found = tombstones_of(entry)
    _remove(connection, [one.uid for one in found])
    connection.execute(insert(tombstones), [*{one.uid: _row(one) for one in found}.values()])


def _take_restore(connection: Connection, entry: Mapping[str, Any]) -> None:
    _remove(connection, [str(entry["run"]), *(str(asset["uid"]) for asset in entry["assets"])])


def _take_purge(connection: Connection, entry: Mapping[str, Any]) -> None:
    run_uid, purged = str(entry["run"]), float(entry["time"])
    for uid in [asset["uid"] for asset in entry["assets"]]:
        _mark_purged(connection, uid, purged)
    left = select(tombstones.c.uid).where(
        tombstones.c.run_uid == run_uid, tombstones.c.uid != run_uid, tombstones.c.purged.is_(None)
    )
    if connection.execute(left).first() is None:
        _mark_purged(connection, run_uid, purged)


def _mark_purged(connection: Connection, uid: str, purged: float) -> None:
    text = connection.execute(_ONE, {"uid": uid}).scalar()
    if text is not None:
        row = _row(replace(_tombstone(text), purged=purged))
        connection.execute(update(tombstones).where(tombstones.c.uid == uid).values(row))


def _remove(connection: Connection, uids: Sequence[str]) -> None:
    connection.execute(delete(tombstones).where(tombstones.c.uid.in_(uids)))


def _take_pin(connection: Connection, entry: Mapping[str, Any]) -> None:
    _take_unpin(connection, entry)
    row = {"run_uid": str(entry["run"]), "time": float(entry["time"]), "reason": str(entry["reason"])}
    connection.execute(insert(pins), row)


def _take_unpin(connection: Connection, entry: Mapping[str, Any]) -> None:
    connection.execute(delete(pins).where(pins.c.run_uid == str(entry["run"])))


_TAKERS: Final = {
    PIN: _take_pin,
    UNPIN: _take_unpin,
    DELETE: _take_delete,
    CONVERT: _take_delete,
    RESTORE: _take_restore,
    PURGE: _take_purge,
}
