"""Commands that change how pixels are kept, and bring others in: ``convert`` and ``import``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gently_bluesky.cli.places import AllowOption, IndexOption, JsonOption, StoreOption, opened, place_of
from gently_bluesky.cli.telling import NEEDS_A_PERSON, say, say_json, told
from gently_bluesky.cli.uids import SomeUidsArgument, record_of

__all__ = ["CONVERT_EXAMPLES", "IMPORT_EXAMPLES", "convert", "import_"]

OPTIONS: Final = frozenset(
    {"path", "copy", "data_key", "data_type", "session", "dims", "pixel_size_um", "z_step_um"}
    | {"format", "chunks", "compression", "progress"}
)
"""What `Store.import_` takes by name."""

QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing if all went well.")]
ChunksOption = Annotated[
    str | None,
    typer.Option(help="planes, blocks, volume, auto, or lengths along the axes of an event: 16,256,256."),
]
CompressionOption = Annotated[str | None, typer.Option(help="lz4, zstd, none or auto.")]

CONVERT_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky convert -1 --to tiff    (the latest run)

    gently-bluesky convert 1b9d6bcd --levels 4    (resolutions for viewers; all else stays as it is)

    gently-bluesky convert 034012e8 --chunks blocks --compression zstd --discard-original    (one array)

    gently-bluesky find session=2026-11-21 --json | jq -r '.[].uid' | xargs gently-bluesky convert --to zarr

After Ctrl-C, ask again: what was converted is done. It ends with 0 if all is well, 3 if some run could not be, 1 if \
nothing could be done, 130 after Ctrl-C.
"""


def convert(
    uids: SomeUidsArgument,
    *,
    to: Annotated[
        str | None, typer.Option(help="zarr, tiff or memory; by default the format that each array has.")
    ] = None,
    chunks: ChunksOption = None,
    compression: CompressionOption = None,
    levels: Annotated[
        int | None, typer.Option(help="Resolutions, each half as fine as the one before it.")
    ] = None,
    discard_original: Annotated[
        bool,
        typer.Option(
            "--discard-original", help="Keep nothing of what it was, once the new one is read back."
        ),
    ] = False,
    keep_days: Annotated[
        float | None,
        typer.Option(help="Otherwise what it was stays in the trash for so long at least; by default 7."),
    ] = None,
    store: StoreOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep runs, or arrays of them, in another format, or cut and compressed otherwise.

    Each event is compared with what was announced, before and after. Uids, lineage and documents stay as they are, and
    whoever reads an array reads on.
    """
    if discard_original and keep_days is not None:
        raise typer.BadParameter(
            "--discard-original keeps nothing that --keep-days could be for; nothing was changed; give one of them"
        )
    with (
        told("what was converted is done; do it again for the rest"),
        opened(place_of(store, index), writes=True) as writer,
    ):
        found = [record_of(writer, uid) for uid in uids]
        report = writer.convert(
            found[0] if len(found) == 1 else found,
            format=to,
            chunks=_lengths(chunks),
            compression=compression,
            levels=levels,
            keep_original=not discard_original,
            keep_days=7.0 if keep_days is None else keep_days,
            progress=not (as_json or quiet),
        )
        if as_json:
            say_json(report.to_dict())
        elif not (quiet and report.ok):
            say(str(report))
        if not report.ok:
            raise typer.Exit(NEEDS_A_PERSON)


IMPORT_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky import /media/stick/embryo.ome.zarr --session old

    gently-bluesky import embryo_2.ome.tif --set embryo=e2 --to tiff

    gently-bluesky import ~/gently/embryo_1 --pixel-size-um 0.1625 --z-step-um 1    (a folder of t0000.tif, ...)

    gently-bluesky import stack.npy --dims t,z,y,x

    gently-bluesky import /archive/embryo_1 --in-place --allow /archive    (nothing is copied)
"""


def import_(
    path: Annotated[
        Path, typer.Argument(help="An OME-Zarr, a TIFF or npy file, or a folder of t0000.tif, t0001.tif, ...")
    ],
    *,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Copy nothing: the run names the files where they are.")
    ] = False,
    data_key: Annotated[str, typer.Option(help="What the run calls it.")] = "image",
    data_type: Annotated[str, typer.Option(help="What it is.")] = "imported",
    session: Annotated[str | None, typer.Option(help="Session that the run belongs to.")] = None,
    said: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="More for the run's metadata; may be given again."),
    ] = None,
    dims: Annotated[
        str | None, typer.Option(help="Names of all axes, where the file does not say: t,z,y,x.")
    ] = None,
    pixel_size_um: Annotated[float | None, typer.Option(help="Along y and x, in the same way.")] = None,
    z_step_um: Annotated[float | None, typer.Option(help="Along z, in the same way.")] = None,
    to: Annotated[str, typer.Option(help="zarr or tiff.")] = "zarr",
    chunks: ChunksOption = None,
    compression: CompressionOption = None,
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take an image from elsewhere into the store, as a run.

    Its axis t is that of the run's events. Axes, steps and names of channels are read from OME metadata.
    """
    from gently_bluesky.cli.lines import record_json

    with (
        told("what was copied is in a run that is incomplete"),
        opened(place_of(store, index, allow=allow), writes=True) as writer,
    ):
        record = writer.import_(
            path,
            copy=not in_place,
            data_key=data_key,
            data_type=data_type,
            session=session,
            dims=None if dims is None else tuple(dims.split(",")),
            pixel_size_um=pixel_size_um,
            z_step_um=z_step_um,
            format=to,
            chunks=_lengths(chunks),
            compression=compression,
            progress=not (as_json or quiet),
            **_metadata(said or ()),
        )
        if as_json:
            say_json(record_json(record))
        elif not quiet:
            say(f"run {record.uid}\n{writer[record.uid][data_key]!r}")


def _lengths(chunks: str | None) -> str | tuple[int, ...] | None:
    """Return lengths of chunks as people type them; a word is a word."""
    if chunks is None or not chunks[:1].isdigit():
        return chunks
    try:
        return tuple(int(length) for length in chunks.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected a word or lengths like 16,256,256, got {chunks!r}") from None


def _metadata(said: Sequence[str]) -> dict[str, Any]:
    """Return what people add to a start document; values are read as JSON where they are some."""
    found: dict[str, Any] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not name or not equals or name in OPTIONS:
            raise typer.BadParameter(
                f"expected key=value, of a key that is no option, got {one!r}", param_hint="--set"
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
