"""The command ``export``: a copy to carry away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from gently_bluesky.cli.telling import say, say_json, told
from gently_bluesky.cli.uids import UidArgument, record_of

if TYPE_CHECKING:
    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = ["EXPORT_EXAMPLES", "export"]

EXPORT_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky export -1 --to tiff    (the latest run, into a new folder here)

    gently-bluesky export 1b9d6bcd --to zarr --output /media/stick

    gently-bluesky export 034012e8/17 --to npy --output frame    (one event, as trees and arrays print it)

    gently-bluesky find embryo=e3 --json | jq -r '.[].uid' | xargs -n1 gently-bluesky export --to tiff
"""


def export(
    uid: UidArgument,
    *,
    to: Annotated[
        Literal["tiff", "zarr", "npy"],
        typer.Option(
            help="OME-TIFF (a file per event), OME-Zarr, or a NumPy file per array.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Name of the new folder, or a folder that is there to put it into; by default the current one.",
        ),
    ] = None,
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing if all went well.")] = False,
) -> None:
    """Copy the arrays of a run, or one array or event, to a new folder to carry away, with the run's documents.

    Every event is compared with what was announced. The folder appears when it is whole, and never over something
    that is there.
    """
    from gently_bluesky.exporting import is_copy  # brings no backend to other commands

    with (
        told("nothing is left of the copy"),
        opened(place_of(store, index, overflow, allow)) as reader,
    ):
        record = record_of(reader, uid)
        path = Path.cwd() if output is None else output.expanduser()
        if path.is_dir() and not is_copy(path):
            path /= f"{_name_of(reader, record)}-{to}"
        copied = reader.export(record.uid, path, format=to, progress=not (as_json or quiet))
        if as_json:
            say_json(copied.to_dict())
        elif not quiet:
            say(str(copied))


def _name_of(store: Store, record: Record) -> str:
    """Return what a copy is called: day, time and plan of its run, the data key of an array, the number of an event."""
    from gently_bluesky.documents.names import escape, run_folder

    *_, year, month, day, name = run_folder(store.run(record.run_uid).start).split("/")
    words = [f"{year}-{month}-{day}", name]
    if record.kind != "run":
        words.append(escape(record.data_key or "array"))
    if record.kind == "datum":
        words.append(escape(record.uid.rpartition("/")[2][:8]))
    return "_".join(words)
