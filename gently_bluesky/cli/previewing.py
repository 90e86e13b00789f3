"""The command ``preview``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from gently_bluesky.cli.telling import remark, say, say_json, told
from gently_bluesky.cli.uids import UidArgument, record_of
from gently_bluesky.wording import printable

if TYPE_CHECKING:
    from gently_bluesky.previews import Sheet
    from gently_bluesky.sheets import Subject

__all__ = ["PREVIEW_EXAMPLES", "preview"]

PREVIEW_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky preview    (the latest run, its last event, both views)

    gently-bluesky preview -2 --open    (the run before it, and show it at once)

    gently-bluesky preview 1b9d6bcd --event 0 --output first.png

    gently-bluesky preview 9157fbdc/0 --store ~/dispim    (one event of one array)

It ends with 0 if the picture was written, 1 if not.
"""


def preview(
    *,
    uid: UidArgument = "-1",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The PNG file, or its folder. By default preview-UID.png in the current folder.",
        ),
    ] = None,
    event: Annotated[
        int, typer.Option(help="Which event, from 0, or from -1, the last, downwards.", show_default=True)
    ] = -1,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    show: Annotated[
        bool, typer.Option("--open", help="Open the picture with the program that the system has for it.")
    ] = False,
    store: StoreOption = None,
    allow: AllowOption = None,
    index: IndexOption = None,
    overflow: OverflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw volumes from three sides, in true proportions, with a scale bar, into a PNG file.

    Views are side by side. Contrast is stretched for each; which values are black and white is written above it.
    The words need matplotlib, which comes with the extra "profile"; without it they are only printed.
    """
    from rich.console import Console

    from gently_bluesky.sheets import new_file, subject_of, write_sheet

    with told("no picture was written"), opened(place_of(store, index, overflow, allow)) as reader:
        subject = subject_of(reader, record_of(reader, uid), event)
        path = new_file(output, subject, event, replace=force)
        with Console(stderr=True).status("reading ..."):  # which only a terminal shows
            sheet = subject.sheet()
        has_words = write_sheet(sheet, path, replace=force)
    with told(f"{path} is written"):
        if show:
            typer.launch(str(path))
        if as_json:
            say_json(_in_json(subject, sheet, path))
        else:
            _tell(subject, sheet, path)
            if not has_words:
                remark(
                    "matplotlib is not installed: the picture has no words in it; pip install "
                    "'gently-bluesky[profile]'"
                )


def _tell(subject: Subject, sheet: Sheet, path: Path) -> None:
    height, width = sheet.pixels.shape[:2]
    say(f"{path} ({width} x {height})")
    say(f"  {printable(subject.heading)}")
    for caption in sheet.captions:
        say(f"  {printable(caption)}")
    if sheet.bar_um:
        say(f"  a bar is {sheet.bar_um} um, a pixel {sheet.pixel_um:.4g} um")
    for reason in subject.left_out:
        remark(f"left out: {reason}")


def _in_json(subject: Subject, sheet: Sheet, path: Path) -> dict[str, object]:
    images = [
        {
            "title": panel.title,
            "uid": panel.array.uid,
            "dims": panel.array.dims,
            "shape": panel.array.shape,
            "shown": limits,
        }
        for panel, limits in zip(subject.panels, sheet.limits, strict=True)
    ]
    return {
        "path": str(path.absolute()),
        "uid": subject.uid,
        "heading": subject.heading,
        "images": images,
        "bar_um": sheet.bar_um,
        "pixel_um": sheet.pixel_um,
        "left_out": subject.left_out,
    }
