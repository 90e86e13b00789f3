"""The command ``gently-bluesky``: what people type, and how errors are told. The work is done elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["app"]

NEEDS_A_PERSON = 3
INTERRUPTED = 130
"""What shells say of a program that was ended from the keyboard."""

app = typer.Typer(
    help="The storage suite for Bluesky microscopes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky demo

    gently-bluesky demo --timepoints 2    (again, into the same store: its runs are added)

    gently-bluesky demo --size 2048 --store ~/big-demo    (frames of a real camera, about 2.5 GB)

    gently-bluesky demo --format tiff --store ~/tiff-demo
"""


RECONCILE_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky reconcile ~/dispim --dry-run    (what would be done; nothing is changed)

    gently-bluesky reconcile ~/dispim

    gently-bluesky reconcile ~/dispim --json    (for programs)

[bold]Exit codes[/bold]

    0    all is well, or was mended

    1    the store could not be reconciled

    3    something was left alone, or is missing, and needs a person
"""


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


@app.command(epilog=EXAMPLES)
def demo(
    *,
    store: Annotated[
        Path, typer.Option(help="Folder of the store; made if it is missing, added to if it is there.")
    ] = Path("gently-demo"),
    size: Annotated[int, typer.Option(min=16, max=4096, help="Pixels along each side of a frame.")] = 512,
    format: Annotated[
        Literal["zarr", "tiff"], typer.Option(help="OME-Zarr, or OME-TIFF with one file per volume.")
    ] = "zarr",
    embryos: Annotated[int, typer.Option(min=1, max=64, help="How many embryos lie on the stage.")] = 3,
    timepoints: Annotated[int, typer.Option(min=1, help="How often each of them is imaged.")] = 4,
) -> None:
    """Image simulated embryos on a simulated diSPIM, store the volumes, and show what is in the store.

    Devices are ophyd's, the RunEngine is Bluesky's; nothing but the microscope is simulated.
    """
    from rich.console import Console

    from gently_bluesky.demo import DemoSettings, run_demo

    console = Console(highlight=False)
    with _told("a run that was going on is recorded as aborted; what was stored is safe"):
        run_demo(DemoSettings(store, size, format, embryos, timepoints), console)


@app.command(epilog=RECONCILE_EXAMPLES)
def reconcile(
    store: Annotated[Path, typer.Argument(help="Folder of the store.")] = Path(),
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    index: Annotated[str | None, typer.Option(help="URL of the index, if it is not in the store.")] = None,
) -> None:
    """Recover runs whose process died, and bring files and index of a store in step.

    Opening a store for writing does the same. Torn or unannounced files of such runs are moved to the store's
    folder "quarantine"; no pixels on disk are deleted, and runs that are being written are not touched.
    """
    import json

    from gently_bluesky.opening import reconcile_root

    with _told("what was done is whole; do it again for the rest"):
        report = reconcile_root(store.expanduser().resolve(), index, dry_run=dry_run)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if report.needs_attention:
        raise typer.Exit(NEEDS_A_PERSON)


@contextmanager
def _told(if_interrupted: str) -> Generator[None]:
    """Tell errors of ours in a line, and end with the exit code for them."""
    from gently_bluesky.errors import GentlyError

    try:
        yield
    except GentlyError as error:
        typer.secho(f"error: {' '.join(str(error).split())}", fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {if_interrupted}", err=True)
        raise typer.Exit(INTERRUPTED) from None
