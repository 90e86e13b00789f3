"""What a newcomer is shown of a store: runs, a lineage, what one plane costs, a picture, and how to go on.

It only reads, on the public face of the package alone, and prints.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record
from gently_bluesky.pictures import cut_out, draw_scale_bar, grid, stretched, write_png
from gently_bluesky.store import Store
from gently_bluesky.wording import TO_THE_SECOND, clock, many

__all__ = ["many", "say", "show_tour"]

COLOURS = ((120, 255, 130), (255, 130, 255))
TILE = 512
RUNS_SHOWN = 12


def show_tour(store: Store, uids: Sequence[str], pairs: Sequence[Record], console: Console) -> Path:
    """Show runs with a volume from each view, and what was made of them; return where the picture is.

    Parameters
    ----------
    uids
        Of the runs, in order.
    pairs
        Results with both views' projections (v, y, x), one for each column of the picture; the last one's
        lineage is shown.
    """
    _show_runs(store, uids, console)
    _show_records(store, console)
    _show_lineage(store, pairs[-1], console)
    _show_cost(store, uids[-1], console)
    picture = _show_picture(store, pairs, console)
    _show_python(store, uids[-1], console)
    return picture


def _show_runs(store: Store, uids: Sequence[str], console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("run", "started", "embryo", "time point", "status", "volumes stored"):
        table.add_column(heading, justify="right" if heading in {"time point", "volumes stored"} else "left")
    for uid in uids[:RUNS_SHOWN]:
        record = store.record(uid)
        started = clock(record.time, TO_THE_SECOND)
        start = record.metadata
        table.add_row(
            uid[:8],
            started,
            start["embryo"],
            str(start["timepoint"] + 1),
            f"[green]{record.status}[/green]",
            f"{record.stored} of {record.received}",
        )
    _heading("The runs", "store.query() finds them, store[uid] opens one", console)
    console.print(Padding(table, (0, 0, 0, 2)))
    if len(uids) > RUNS_SHOWN:
        say(console, f"  and {len(uids) - RUNS_SHOWN} more")


def _show_records(store: Store, console: Console) -> None:
    stats = store.stats()
    runs, derived = sum(stats["runs"].values()), stats["derived"]
    _heading("What the store holds", "store.stats()", console)
    say(
        console,
        f"  {many(runs - derived, 'run')} of the microscope, {many(derived, 'result')} derived from them",
    )
    say(
        console,
        f"  {many(stats['assets'], 'array')} with {bytes_text(stats['nbytes'])} of pixels, the arrays of "
        f"{many(stats['datums'], 'event')}; {bytes_text(stats['free_bytes'])} are free",
    )
    say(console, "  each of these has a record, found by its uid: store.record(uid)")


def _show_lineage(store: Store, record: Record, console: Console) -> None:
    _heading("Where a result comes from", f'store.lineage("{record.uid[:8]}")', console)
    for line in str(store.lineage(record.uid)).splitlines():
        say(console, f"  {escape(line)}")


READ_ONE_PLANE = """
import json, sys, time
import numpy as np
from gently_bluesky import Store

def bytes_read():
    try:
        with open("/proc/self/io") as file:
            return int(next(line for line in file if line.startswith("rchar")).split()[1])
    except (OSError, StopIteration):
        return None

root, uid, z = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store(root, mode="r") as store:
    volume = store[uid]["view_a"]
    before, begin_s = bytes_read(), time.perf_counter()
    np.asarray(volume[0, z])
    took_s, after = time.perf_counter() - begin_s, bytes_read()
print(json.dumps({"read": None if after is None else after - before, "took_s": took_s}))
"""


def _show_cost(store: Store, uid: str, console: Console) -> None:
    """Read one plane in a fresh process, which has nothing in memory, and say what that took."""
    volume = _array(store, uid, "view_a")[0]
    z = len(volume) // 2
    command = [sys.executable, "-c", READ_ONE_PLANE, str(store.root), uid, str(z)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 # our own program
    _heading(
        "What one plane costs", f'np.asarray(store["{uid[:8]}"]["view_a"][0, {z}]), in a new process', console
    )
    plane = volume[z]
    took = f"in {measured['took_s'] * 1000:.0f} ms"
    if measured["read"] is None:
        out_of = f"out of a volume of {bytes_text(volume.nbytes)}"
        say(console, f"  a plane of {bytes_text(plane.nbytes)} {out_of} came {took}")
        say(console, "  (this system does not tell a process how many bytes it read)")
        return
    share = measured["read"] / volume.nbytes
    say(
        console,
        f"  [bold]{bytes_text(measured['read'])}[/bold] read {took}: {share:.1%} of a volume of "
        f"{bytes_text(volume.nbytes)}, for a plane of {bytes_text(plane.nbytes)}",
    )


def _show_picture(store: Store, pairs: Sequence[Record], console: Console) -> Path:
    """Draw the last time point's projections: a column for each embryo, a row for each view."""
    columns: list[list[Any]] = []
    bar = None
    for record in pairs:
        array = store.get(record.uid)
        images = [cut_out(image, TILE) for image in np.asarray(array)]
        tiles = [stretched(image, colour=colour) for image, colour in zip(images, COLOURS, strict=True)]
        bar = draw_scale_bar(tiles[-1], array.scale[-1])
        columns.append(tiles)
    path = store.root.with_name(f"{store.root.name}.png")
    write_png(path, grid(list(zip(*columns, strict=True))))
    names = ", ".join(str(store.record(record.uid).metadata.get("embryo")) for record in pairs)
    _heading("A picture", "maximum projections, view A above, view B below", console)
    say(console, f"  {escape(str(path))}")
    length = "" if bar is None else f"; a bar is {bar.um} um"
    say(console, f"  {names} at the last time point{length}")
    return path


def _show_python(store: Store, uid: str, console: Console) -> None:
    _heading("Now you", "three lines open this store again", console)
    for line in (
        "from gently_bluesky import Store",
        f"store = Store({str(store.root)!r})",
        f'plane = store[-1]["view_a"][0, {_array(store, uid, "view_a").shape[1] // 2}].compute()',
    ):
        say(console, f"  [cyan]{escape(line)}[/cyan]")


def _heading(title: str, how: str, console: Console) -> None:
    say(console, f"\n[bold]{title}[/bold]  [dim]{escape(how)}[/dim]")


def say(console: Console, text: str) -> None:
    """Print a line as it is: a terminal may wrap it, a pipe gets it whole."""
    console.print(text, soft_wrap=True)


def _array(store: Store, uid: str, data_key: str) -> LazyArray:
    return cast("LazyArray", store[uid][data_key])
