"""The command ``gently-bluesky``: what people type, and how errors are told. The work is done elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, Any

import typer

from gently_bluesky.cli.benching import BENCH_EXAMPLES, bench
from gently_bluesky.cli.converting import CONVERT_EXAMPLES, IMPORT_EXAMPLES, convert, import_
from gently_bluesky.cli.deleting import (
    DELETE_EXAMPLES,
    PIN_EXAMPLES,
    RESTORE_EXAMPLES,
    TRASH_EXAMPLES,
    delete,
    pin,
    restore,
    trash,
)
from gently_bluesky.cli.demonstrating import DEMO_EXAMPLES, demo
from gently_bluesky.cli.exporting import EXPORT_EXAMPLES, export
from gently_bluesky.cli.keeping import RECONCILE_EXAMPLES, VERIFY_EXAMPLES, reconcile, verify
from gently_bluesky.cli.listing import FIND_EXAMPLES, RUNS_EXAMPLES, STATS_EXAMPLES, find, runs, stats
from gently_bluesky.cli.previewing import PREVIEW_EXAMPLES, preview
from gently_bluesky.cli.replaying import REPLAY_EXAMPLES, replay
from gently_bluesky.cli.retaining import DU_EXAMPLES, RETAIN_EXAMPLES, du, retain
from gently_bluesky.cli.showing import SHOW_EXAMPLES, show
from gently_bluesky.cli.tracing import LINEAGE_EXAMPLES, lineage
from gently_bluesky.cli.uids import TAKES_UIDS

__all__ = ["app"]

EXIT_CODES = """[bold]Exit codes[/bold]

0 all is well, 1 it could not be done (or find found nothing), 2 it was not asked for like that, 3 something needs a \
person, 130 after Ctrl-C.
"""

app = typer.Typer(
    help="The storage suite for Bluesky microscopes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(
    command: Callable[..., None], examples: str, panel: str, settings: dict[str, Any] | None = None
) -> None:
    """Make a function a command; its help is the docstring, each paragraph in a line, which the terminal breaks."""
    told = "\n\n".join(" ".join(part.split()) for part in cleandoc(command.__doc__ or "").split("\n\n"))
    name = command.__name__.rstrip("_")
    app.command(name, help=told, epilog=examples, rich_help_panel=panel, context_settings=settings)(command)


LOOKING, KEEPING, ROOM, TRYING = "Looking at a store", "Keeping a store", "Making room", "Trying it out"
_add(runs, RUNS_EXAMPLES, LOOKING)
_add(show, SHOW_EXAMPLES, LOOKING, TAKES_UIDS)
_add(lineage, LINEAGE_EXAMPLES, LOOKING, TAKES_UIDS)
_add(find, FIND_EXAMPLES, LOOKING)
_add(stats, STATS_EXAMPLES, LOOKING)
_add(preview, PREVIEW_EXAMPLES, LOOKING, TAKES_UIDS)
_add(replay, REPLAY_EXAMPLES, LOOKING)
_add(export, EXPORT_EXAMPLES, KEEPING, TAKES_UIDS)
_add(import_, IMPORT_EXAMPLES, KEEPING)
_add(convert, CONVERT_EXAMPLES, KEEPING, TAKES_UIDS)
_add(verify, VERIFY_EXAMPLES, KEEPING, TAKES_UIDS)
_add(reconcile, RECONCILE_EXAMPLES, KEEPING)
_add(pin, PIN_EXAMPLES, ROOM, TAKES_UIDS)
_add(delete, DELETE_EXAMPLES, ROOM, TAKES_UIDS)
_add(restore, RESTORE_EXAMPLES, ROOM, TAKES_UIDS)
_add(trash, TRASH_EXAMPLES, ROOM)
_add(du, DU_EXAMPLES, ROOM)
_add(retain, RETAIN_EXAMPLES, ROOM)
_add(demo, DEMO_EXAMPLES, TRYING)
_add(bench, BENCH_EXAMPLES, TRYING)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gently-bluesky {version('gently-bluesky')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which version this is."),
    ] = False,
) -> None:
    """The storage suite for Bluesky microscopes."""
