"""The command ``gently-bluesky``: what people type, and how errors are told. The work is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["app"]

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
    from gently_bluesky.errors import GentlyError

    console = Console(highlight=False)
    try:
        run_demo(DemoSettings(store, size, format, embryos, timepoints), console)
    except GentlyError as error:
        typer.secho(f"error: {' '.join(str(error).split())}", fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(
            "interrupted: a run that was going on is recorded as aborted; what was stored is safe", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
