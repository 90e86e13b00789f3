"""The command ``bench``: whether a disk takes a camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gently_bluesky.cli.places import JsonOption, StoreOption
from gently_bluesky.cli.tables import Column, say_table
from gently_bluesky.cli.telling import say, say_json, told

if TYPE_CHECKING:
    from gently_bluesky.bench import Bench

__all__ = ["BENCH_EXAMPLES", "bench", "say_bench"]

BENCH_EXAMPLES = """[bold]Examples[/bold]

    gently-bluesky bench    (the disk of the store, a camera of 100 frames/s of 2048 x 2048)

    gently-bluesky bench --rate 200    (two such cameras)

    gently-bluesky bench --store /mnt/usb/new    (the store need not be there)

    gently-bluesky bench --seconds 600    (a disk that is fast only at first)

    gently-bluesky bench --json > bench.json
"""
BUSY = 0.5
EXPLANATION = """
"until on disk" are frames/s with the time it took until the disk had all of them: without syncs they are
announced while they are in memory. Planes are read of files that the system was told to forget; what the disk
itself keeps in memory nobody can tell. A disk that is fast only at first: --seconds 600."""


def bench(
    *,
    store: StoreOption = None,
    size: Annotated[int, typer.Option(min=64, max=8192, help="Pixels along each side of a frame.")] = 2048,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames per second that the camera makes.")] = 100.0,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long each of the four measurements goes on.")
    ] = 6.0,
    as_json: JsonOption = False,
) -> None:
    """Measure whether this machine, and the disk of the store, take a camera. In under a minute.

    Frames like a camera's go through a RunEngine into a store of their own, beside the one that is meant, in a folder
    that is removed afterwards.
    """
    with told("what was written for it is removed"):
        from gently_bluesky.bench import BenchSettings, run_bench
        from gently_bluesky.configured import default_place
        from gently_bluesky.progress import terminal_bar

        settings = BenchSettings(default_place(store).root, size, rate, seconds)
        with terminal_bar("Measuring", wanted=not as_json) as tell:
            measured = run_bench(settings, tell)
        if as_json:
            say_json(measured.to_dict())
        else:
            say_bench(measured)


def say_bench(measured: Bench) -> None:
    """Print what was measured, and whether it is enough."""
    from gently_bluesky.labels import bytes_text

    asked = measured.settings
    camera = f"{asked.rate:g} frames/s of {asked.size} x {asked.size}"
    say(f"{measured.folder}, {bytes_text(measured.free_bytes)} free; frames of uint16, like a camera's\n")
    columns = (
        *(Column("format"), Column("sync"), Column("frames/s", right=True), Column("GB/s", right=True)),
        *(Column("until on disk", right=True), Column("files", right=True), Column("plane read", right=True)),
    )
    rows = [
        [
            one.format,
            one.sync,
            f"{one.frames_per_s:.0f}",
            f"{one.frames_per_s * one.frame_nbytes / 1e9:.2f}",
            f"{one.lasting_frames_per_s:.0f}",
            f"{one.compressed:.0%}",
            "-" if one.plane_read_s is None else f"{one.plane_read_s * 1000:.1f} ms",
        ]
        for one in measured.storing
    ]
    say_table(columns, rows)
    fsync_ms, longest_ms = measured.fsync_s * 1000, measured.longest_fsync_s * 1000
    say(f"\na sync of 4 KiB takes {fsync_ms:.2f} ms, the longest one {longest_ms:.2f} ms")
    say(f"a camera of {camera} makes {asked.rate * asked.frame_nbytes / 1e9:.2f} GB/s:")
    for format in dict.fromkeys(one.format for one in measured.storing):
        ratio = measured.ratio(format)
        verdict = "this disk takes it" if ratio >= 1 else "too much for this disk"
        say(f"  {format}, every event synced: {verdict}, {ratio:.2f} x its rate")
    if measured.load is not None and measured.load > BUSY:
        say(
            f"\nthe machine was busy with other things ({measured.load:.1f} programs for each core): "
            "measure again when it is not"
        )
    say(EXPLANATION)
