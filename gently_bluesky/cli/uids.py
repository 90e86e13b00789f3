"""Uids as people type them: beginnings of them, -1 for the latest run, and what TAB offers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gently_bluesky.index.index import Index
    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = ["TAKES_UIDS", "SomeUidsArgument", "UidArgument", "UidsArgument", "complete_uid", "record_of"]

TAKES_UIDS: dict[str, Any] = {"ignore_unknown_options": True}
"""Context settings of a command with a `UidArgument`: -1 is no option."""
UID_HELP = (
    "Uid of a run, a result, an array or an event, or its beginning; -1 is the latest run, -2 the one before."
)
LATEST = re.compile(r"-\d+")
OFFERED = 20
LOOKED_AT = 1000
SHORTEST = 8


def record_of(store: Store, said: str) -> Record:
    """Return the record of a run, array or event by what somebody typed.

    Raises
    ------
    UnknownUid, AmbiguousUid
        There is no such uid, or there are several.
    """
    from gently_bluesky.errors import UnknownUid

    if LATEST.fullmatch(said):
        return store[int(said)].record
    try:
        return store.record(said)
    except UnknownUid:
        asset, slash, number = said.rpartition("/")
        if not slash:
            raise
        return store.record(f"{store.record(asset).uid}/{number}")  # as trees and arrays print an event


def complete_uid(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return beginnings of the newest runs' uids that no other has, with what they are. Writes and raises nothing."""
    try:
        return _offered(ctx.params, incomplete)
    except Exception:  # noqa: BLE001 # somebody is typing: whatever is wrong, the command itself will tell
        return []


def _offered(params: dict[str, Any], incomplete: str) -> list[tuple[str, str]]:
    from itertools import islice

    from gently_bluesky.configured import default_place
    from gently_bluesky.opening import index_as_it_is
    from gently_bluesky.wording import clock, printable

    given = params.get("store")
    place = default_place(None if given is None else Path(given))
    index = index_as_it_is(place.root, params.get("index") or place.index)
    try:
        newest = islice(index.query(derived=None if incomplete else False), LOOKED_AT)
        found = [record for record in newest if record.uid.startswith(incomplete)]
        return [
            (
                _distinct(index, record.uid, len(incomplete)),
                printable(
                    f"{clock(record.time)} {record.metadata.get('plan_name') or record.data_type or ''} {record.status}"
                ),
            )
            for record in found[:OFFERED]
        ]
    finally:
        index.close()


def _distinct(index: Index, uid: str, typed: int) -> str:
    """Return as much of a uid as it takes, and no less than was typed."""
    from gently_bluesky.errors import AmbiguousUid

    if typed >= SHORTEST:
        return uid
    for length in range(SHORTEST, len(uid), 4):
        try:
            index.resolve(uid[:length])
        except AmbiguousUid:
            continue
        return uid[:length]
    return uid


def _uid(value: str | None) -> str | None:
    if value is not None and value.startswith("-") and not LATEST.fullmatch(value):
        raise typer.BadParameter(f"there is no option {value}")
    return value


def _uids(values: list[str] | None) -> list[str] | None:
    for value in values or ():
        _uid(value)
    return values


UidArgument = Annotated[
    str,
    typer.Argument(
        metavar="UID", help=UID_HELP, autocompletion=complete_uid, callback=_uid, show_default=False
    ),
]
SomeUidsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="UID...",
        help="Runs, results or arrays, by their uids or beginnings of them; -1 is the latest run.",
        autocompletion=complete_uid,
        callback=_uids,
        show_default=False,
    ),
]
UidsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[UID]...",
        help="Runs, arrays or events; by default everything.",
        autocompletion=complete_uid,
        callback=_uids,
    ),
]
