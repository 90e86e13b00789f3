"""The command ``gently-bluesky``: what people type, and how errors are told. The work is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from gently_bluesky.cli.benching import BENCH_EXAMPLES, bench
from gently_bluesky.cli.demonstrating import DEMO_EXAMPLES, demo
from gently_bluesky.cli.exporting import EXPORT_EXAMPLES, export
from gently_bluesky.cli.keeping import RECONCILE_EXAMPLES, VERIFY_EXAMPLES, reconcile, verify
from gently_bluesky.cli.listing import FIND_EXAMPLES, RUNS_EXAMPLES, STATS_EXAMPLES, find, runs, stats
from gently_bluesky.cli.previewing import PREVIEW_EXAMPLES, preview
from gently_bluesky.cli.replaying import REPLAY_EXAMPLES, replay
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
LOOKING, KEEPING, TRYING = "Looking at a store", "Keeping a store", "Trying it out"
app.command(epilog=RUNS_EXAMPLES, rich_help_panel=LOOKING)(runs)
app.command(epilog=SHOW_EXAMPLES, rich_help_panel=LOOKING, context_settings=TAKES_UIDS)(show)
app.command(epilog=LINEAGE_EXAMPLES, rich_help_panel=LOOKING, context_settings=TAKES_UIDS)(lineage)
app.command(epilog=FIND_EXAMPLES, rich_help_panel=LOOKING)(find)
app.command(epilog=STATS_EXAMPLES, rich_help_panel=LOOKING)(stats)
app.command(epilog=PREVIEW_EXAMPLES, rich_help_panel=LOOKING, context_settings=TAKES_UIDS)(preview)
app.command(epilog=REPLAY_EXAMPLES, rich_help_panel=LOOKING)(replay)
app.command(epilog=EXPORT_EXAMPLES, rich_help_panel=KEEPING, context_settings=TAKES_UIDS)(export)
app.command(epilog=VERIFY_EXAMPLES, rich_help_panel=KEEPING, context_settings=TAKES_UIDS)(verify)
app.command(epilog=RECONCILE_EXAMPLES, rich_help_panel=KEEPING)(reconcile)
app.command(epilog=DEMO_EXAMPLES, rich_help_panel=TRYING)(demo)
app.command(epilog=BENCH_EXAMPLES, rich_help_panel=TRYING)(bench)


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
