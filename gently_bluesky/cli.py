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

    gently-bluesky reconcile ~/dispim --overflow /other/disk    (bring home what went on there)

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
    overflow: Annotated[
        Path | None, typer.Option(help="The store's second place: runs that went on there are brought home.")
    ] = None,
) -> None:
    """Recover runs whose process died, and bring files and index of a store in step.

    Opening a store for writing does the same. Torn or unannounced files of such runs are moved to the store's
    folder "quarantine"; no pixels on disk are deleted, and runs that are being written are not touched.
    """
    import json

    from gently_bluesky.opening import reconcile_root

    with _told("what was done is whole; do it again for the rest"):
        report = reconcile_root(store.expanduser().resolve(), index, _second_place(overflow), dry_run=dry_run)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if report.needs_attention:
        raise typer.Exit(NEEDS_A_PERSON)


VERIFY_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky verify --store ~/dispim

    gently-bluesky verify --store ~/dispim --resume    (after Ctrl-C: what was verified is not read again)

    gently-bluesky verify 1b9d6bcd --store ~/dispim    (a run, an array or a single event, by its uid)

    gently-bluesky verify --quiet --unless-verified-since 2026-11-01 || mail -s "look at the store" me < /dev/null

It ends with 0 if all is well, 3 if something was found, 1 if it could not be done, 130 after Ctrl-C.
"""


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    *,
    uids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[UID]...", help="Runs, arrays or events; by default everything."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Folder of the store.")] = Path(),
    allow: Annotated[
        list[Path] | None,
        typer.Option(help="Folder where other writers put their files; may be given again."),
    ] = None,
    index: Annotated[str | None, typer.Option(help="URL of the index, if it is not in the store.")] = None,
    overflow: Annotated[Path | None, typer.Option(help="The store's second place.")] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing if all is well.")] = False,
) -> None:
    """Read every announced event back and compare it with what was announced. Changes nothing.

    What was verified is put on record in upkeep.jsonl, where the store can be written.
    """
    import json
    import os

    with _told("what was verified is on record; go on with --resume"):
        from gently_bluesky.store import Store

        second = _second_place(overflow)
        with Store(store, mode="r", index=index, allowed_roots=allow or (), overflow=second) as opened:
            report = opened.verify(
                uids or None,
                progress=not (as_json or quiet),
                workers=workers,
                resume=resume,
                unless_verified_since=unless_verified_since,
                record=os.access(opened.root, os.W_OK),
            )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    elif not (quiet and report.ok):
        typer.echo(str(report))
    if not report.ok:
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


def _second_place(overflow: Path | None) -> Path | None:
    """Refuse a second place that is none: opening would make one where a path was mistyped."""
    from gently_bluesky.documents.overflow import OVERFLOW_MARKER
    from gently_bluesky.errors import NotAStore

    if overflow is None or (overflow.expanduser() / OVERFLOW_MARKER).is_file():
        return overflow
    raise NotAStore(
        f"there is no second place of a store at {overflow} (expected {OVERFLOW_MARKER} in it); nothing was "
        "changed; is its disk mounted?"
    )
