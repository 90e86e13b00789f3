"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gently_bluesky.cli.places import JsonOption
from gently_bluesky.cli.telling import say_json, told

__all__ = ["DEMO_EXAMPLES", "demo"]

DEMO_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky demo

    gently-bluesky demo --timepoints 2    (again, into the same store: its runs are added)

    gently-bluesky demo --size 2048 --store ~/big-demo    (frames of a real camera, about 2.5 GB)

    gently-bluesky demo --format tiff --store ~/tiff-demo

    gently-bluesky demo --json | jq -r .picture
"""


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
    as_json: JsonOption = False,
) -> None:
    """Image simulated embryos on a simulated diSPIM, store the volumes, and show what is in the store.

    Devices are ophyd's, the RunEngine is Bluesky's; nothing but the microscope is simulated.
    """
    from rich.console import Console

    from gently_bluesky.demo import DemoSettings, run_demo

    console = Console(highlight=False, quiet=as_json)
    with told("a run that was going on is recorded as aborted; what was stored is safe"):
        made = run_demo(DemoSettings(store, size, format, embryos, timepoints), console)
        if as_json:
            say_json(made)
