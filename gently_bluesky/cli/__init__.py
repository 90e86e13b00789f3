"""The command ``gently-bluesky``: what people type, and how errors are told. The work is done elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from gently_bluesky.cli.demonstrating import DEMO_EXAMPLES, demo
from gently_bluesky.cli.keeping import RECONCILE_EXAMPLES, VERIFY_EXAMPLES, reconcile, verify
from gently_bluesky.cli.previewing import PREVIEW_EXAMPLES, preview

__all__ = ["app"]

app = typer.Typer(
    help="The storage suite for Bluesky microscopes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=DEMO_EXAMPLES)(demo)
app.command(epilog=PREVIEW_EXAMPLES, context_settings={"ignore_unknown_options": True})(
    preview
)  # -1 is no option
app.command(epilog=RECONCILE_EXAMPLES, rich_help_panel="Keeping a store")(reconcile)
app.command(epilog=VERIFY_EXAMPLES, rich_help_panel="Keeping a store")(verify)


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
