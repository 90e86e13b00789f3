"""Commands that keep a store honest: ``reconcile`` and ``verify``."""

from __future__ import annotations

import os
from typing import Annotated, Any, Protocol

import typer

from gently_bluesky.cli.places import (
    AllowOption,
    IndexOption,
    JsonOption,
    OverflowOption,
    StoreOption,
    opened,
    place_of,
)
from gently_bluesky.cli.telling import NEEDS_A_PERSON, say, say_json, told
from gently_bluesky.cli.uids import UidsArgument, record_of

__all__ = ["RECONCILE_EXAMPLES", "VERIFY_EXAMPLES", "reconcile", "verify"]

RECONCILE_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky reconcile --store ~/dispim --dry-run    (what would be done; nothing is changed)

    gently-bluesky reconcile

    gently-bluesky reconcile --overflow /other/disk    (bring home what went on there)

    gently-bluesky reconcile --store ~/dispim --json    (for programs)

[bold]Exit codes[/bold]

    0    all is well, or was mended

    1    the store could not be reconciled

    3    something was left alone, or is missing, and needs a person
"""


def reconcile(
    *,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
    ] = False,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recover runs whose process died, and bring files and index of a store in step.

    Opening a store for writing does the same. Torn or unannounced files of such runs are moved to the store's
    folder "quarantine"; no pixels on disk are deleted, and runs that are being written are not touched.
    """
    from gently_bluesky.opening import reconcile_root

    with told("what was done is whole; do it again for the rest"):
        place = place_of(store, index, overflow)
        report = reconcile_root(place.root, place.index, place.overflow, dry_run=dry_run)
        _say_report(report, as_json=as_json, well=not report.needs_attention)


VERIFY_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky verify --store ~/dispim

    gently-bluesky verify --store ~/dispim --resume    (after Ctrl-C: what was verified is not read again)

    gently-bluesky verify -1    (the latest run)

    gently-bluesky verify 1b9d6bcd --store ~/dispim    (a run, an array or a single event, by its uid)

    gently-bluesky verify --quiet --unless-verified-since 2026-11-01 || mail -s "look at the store" me < /dev/null

It ends with 0 if all is well, 3 if something was found, 1 if it could not be done, 130 after Ctrl-C.
"""


def verify(
    *,
    uids: UidsArgument = None,
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the last pass over everything, if it was interrupted."),
    ] = False,
    unless_verified_since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Leave out runs that were found well since then.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that read; by default one for each core.")
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing if all is well.")] = False,
) -> None:
    """Read every announced event back and compare it with what was announced. Changes nothing.

    What was verified is put on record in upkeep.jsonl, where the store can be written.
    """
    with (
        told("what was verified is on record; go on with --resume"),
        opened(place_of(store, index, overflow, allow)) as reader,
    ):
        report = reader.verify(
            [record_of(reader, uid).uid for uid in uids] if uids else None,
            progress=not (as_json or quiet),
            workers=workers,
            resume=resume,
            unless_verified_since=unless_verified_since,
            record=os.access(reader.root, os.W_OK),
        )
        _say_report(report, as_json=as_json, well=report.ok, quiet=quiet)


class _Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def _say_report(report: _Report, *, as_json: bool, well: bool, quiet: bool = False) -> None:
    """Print a report, and end with the exit code for it, whether anybody reads it or not."""
    try:
        if as_json:
            say_json(report.to_dict())
        elif not (quiet and well):
            say(str(report))
    finally:
        if not well:
            raise typer.Exit(NEEDS_A_PERSON)
