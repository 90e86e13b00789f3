"""Commands that let pixels go, and keep them from going: ``pin``, ``delete``, ``restore`` and ``trash``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gently_bluesky.cli.places import IndexOption, JsonOption, StoreOption, opened, place_of
from gently_bluesky.cli.tables import Column, say_table
from gently_bluesky.cli.telling import say, say_json, say_json_list, told
from gently_bluesky.cli.uids import UidArgument, record_of

if TYPE_CHECKING:
    from gently_bluesky.model import Pin, Tombstone

__all__ = [
    "DELETE_EXAMPLES",
    "PIN_EXAMPLES",
    "RESTORE_EXAMPLES",
    "TRASH_EXAMPLES",
    "delete",
    "pin",
    "restore",
    "trash",
]

ReasonOption = Annotated[
    str, typer.Option("--reason", "-m", help="Why, in words, which stay on record.", show_default=False)
]

PIN_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky pin 1b9d6bcd --reason "figure 2"

    gently-bluesky pin    (what is pinned)

    gently-bluesky pin 1b9d6bcd --remove
"""


def pin(
    uid: UidArgument = "",
    *,
    reason: ReasonOption = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin away.")] = False,
    store: StoreOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a run from being deleted, by whatever rule, until its pin is removed; without UID, show what is pinned."""
    with told("nothing was changed"), opened(place_of(store, index), writes=bool(uid)) as writer:
        if not uid:
            _say_pins(writer.pins(), as_json=as_json)
            return
        run_uid = record_of(writer, uid).run_uid
        if remove:
            writer.unpin(run_uid, reason=reason)
        else:
            writer.pin(run_uid, reason=reason)
        if as_json:
            say_json({"run": run_uid, "pinned": not remove, "reason": reason})
        else:
            say(f"run {run_uid} is {'not pinned any more' if remove else 'pinned'}")


def _say_pins(found: Sequence[Pin], *, as_json: bool) -> None:
    from gently_bluesky.wording import clock, many, short_uid

    if as_json:
        say_json_list(map(asdict, found))
        return
    if found:
        columns = [Column("run"), Column("pinned"), Column("reason", folds=True)]
        say_table(columns, [[short_uid(one.run_uid), clock(one.time), one.reason] for one in found])
    say(f"{many(len(found), 'run')} pinned")


class Although(StrEnum):
    """What protects a run, and can be waived."""

    children = "children"
    damaged = "damaged"
    incomplete = "incomplete"
    unverified = "unverified"


DELETE_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky verify 1b9d6bcd && gently-bluesky delete 1b9d6bcd --reason "out of focus"

    gently-bluesky delete 1b9d6bcd --reason "only projections are needed" --although children

    gently-bluesky delete 034012e8 --reason "view B was dark" --keep-days 30    (one array of a run)
"""


def delete(
    uid: UidArgument,
    *,
    reason: ReasonOption,
    keep_days: Annotated[float, typer.Option(help="It stays in the trash for so long at least.")] = 7.0,
    although: Annotated[
        list[Although] | None,
        typer.Option(help="What protects the run, and shall not now; may be given again."),
    ] = None,
    store: StoreOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the pixels of a run, or of one array, into the store's trash.

    Its documents, its values and its lineage stay. "restore" brings the pixels back, until "trash --purge" removes
    them. Pinned runs are never deleted; those that nobody verified, that are incomplete or damaged, or from which
    results were made, only with --although.
    """
    with told("nothing was deleted"), opened(place_of(store, index), writes=True) as writer:
        found = writer.delete(
            record_of(writer, uid).uid, reason=reason, keep_days=keep_days, although=[*(although or ())]
        )
        _say(found, "in the trash", as_json=as_json)


RESTORE_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky restore 1b9d6bcd

    gently-bluesky trash --json | jq -r '.[].run_uid' | sort -u | xargs -n1 gently-bluesky restore
"""


def restore(
    uid: UidArgument, *, store: StoreOption = None, index: IndexOption = None, as_json: JsonOption = False
) -> None:
    """Bring back from the trash what was deleted of a run, or one array."""
    with (
        told("what is on record as restored is brought back"),
        opened(place_of(store, index), writes=True) as writer,
    ):
        back = writer.restore(record_of(writer, uid).uid)
        if as_json:
            say_json_list({"uid": one.uid, "run_uid": one.run_uid, "path": one.path} for one in back)
        else:
            for one in back:
                say(f"back: {one.path}")


TRASH_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky trash    (what is in it, and until when)

    gently-bluesky trash --purge    (remove what was there for as long as it was to be kept)

    gently-bluesky trash --purge --now    (remove all of it)
"""


def trash(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove for good what was kept for long enough.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="With --purge: all of it, however long it was kept.")
    ] = False,
    store: StoreOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in the trash of a store, or remove it for good."""
    if now and not purge:
        raise typer.BadParameter("--now says when --purge removes: give that too")
    with (
        told("what is on record as purged is removed; do it again for the rest"),
        opened(place_of(store, index), writes=purge) as opened_store,
    ):
        if purge:
            _say(opened_store.purge(now=now), "removed", as_json=as_json)
            if now and opened_store.trash() and not as_json:
                say("left: what is pinned, or the only copy on disk of what is in memory")
        elif as_json:
            say_json_list(map(asdict, opened_store.trash()))
        else:
            _say_trash(opened_store.trash())


def _say(found: Sequence[Tombstone], what: str, *, as_json: bool) -> None:
    from gently_bluesky.labels import bytes_text
    from gently_bluesky.wording import many

    if as_json:
        say_json_list(map(asdict, found))
        return
    for one in found:
        say(f"{what}: {one.path} ({bytes_text(one.nbytes)})")
    total = sum(one.nbytes for one in found)
    say(f"{many(len(found), 'array')}, {bytes_text(total)} {what}")


def _say_trash(found: Sequence[Tombstone]) -> None:
    from gently_bluesky.labels import bytes_text
    from gently_bluesky.wording import clock, many, short_uid

    columns = [
        Column("run"),
        Column("array"),
        Column("deleted", spare=1),
        Column("kept until"),
        Column("size", right=True),
        Column("reason", folds=True),
    ]
    if found:
        say_table(
            columns,
            [
                [
                    short_uid(one.run_uid),
                    one.path.rpartition("/")[2],
                    clock(one.time),
                    clock(one.keep_until),
                    bytes_text(one.nbytes),
                    one.reason,
                ]
                for one in found
            ],
        )
    say(f"{many(len(found), 'array')} in the trash, {bytes_text(sum(one.nbytes for one in found))}")
