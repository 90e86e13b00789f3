"""What ``gently-bluesky demo`` does: image embryos, project the volumes, and show what a store knows of it.

A tour for newcomers, on the public face of the package alone.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, cast

import numpy as np
from bluesky import RunEngine
from bluesky.run_engine import (
    TransitionError,  # pyright: ignore[reportPrivateImportUsage] # a part of request_pause, exported nowhere
)
from bluesky.utils import DuringTask, RunEngineInterrupted
from ophyd import Device
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from gently_bluesky.errors import StorageFull
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record
from gently_bluesky.pictures import cut_out, draw_scale_bar, grid, stretched, write_png
from gently_bluesky.store import Store

__all__ = ["DemoSettings", "run_demo"]

N_SLICES = 32
VIEWS = ("view_a", "view_b")
COLOURS = ((120, 255, 130), (255, 130, 255))
FORMATS = {"zarr": "OME-Zarr", "tiff": "OME-TIFF"}
TILE = 512
RUNS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """How large a demo.

    Attributes
    ----------
    store
        Root of the store, made if it is missing.
    size
        Pixels along each side of a frame.
    format
        ``"zarr"`` or ``"tiff"``.
    embryos, timepoints
        How many runs: one for each embryo and time point, with a volume from both views.
    """

    store: Path
    size: int = 512
    format: str = "zarr"
    embryos: int = 3
    timepoints: int = 4

    @property
    def volumes(self) -> int:
        """How many volumes will be stored."""
        return self.embryos * self.timepoints * len(VIEWS)

    @property
    def volume_nbytes(self) -> int:
        """Bytes of one volume of uint16."""
        return N_SLICES * self.size**2 * 2


def run_demo(settings: DemoSettings, console: Console) -> None:
    """Image, project and show; everything is *synced* on return.

    Raises
    ------
    GentlyError
        The store cannot be used, or storing failed.
    KeyboardInterrupt
        Ctrl-C; the run that was going on is recorded as aborted.
    """
    begin_s = time.monotonic()
    _require_space(settings)
    with Store(settings.store) as store:
        _announce(settings, store, console)
        with _progress(console) as progress:
            uids = _acquire(settings, store, progress)
            pairs = _project(settings, store, uids, progress)
        _show_runs(store, uids, console)
        _show_records(store, console)
        _show_lineage(store, pairs[-1], console)
        _show_cost(store, uids[-1], console)
        _show_picture(store, pairs[-settings.embryos :], console)
        _show_python(store, console)
    _say(console, f"\n[dim]All of it took {time.monotonic() - begin_s:.0f} s.[/dim]")


def _require_space(settings: DemoSettings) -> None:
    root = settings.store.expanduser().absolute()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    needed, free = settings.volumes * settings.volume_nbytes, shutil.disk_usage(there).free
    if needed > free:
        raise StorageFull(
            f"the demo writes up to {_size(needed)}, {there} has {_size(free)} free; nothing was written; "
            "make room, or ask for less: --size, --embryos, --timepoints"
        )


def _announce(settings: DemoSettings, store: Store, console: Console) -> None:
    shape = f"{N_SLICES} x {settings.size} x {settings.size}"
    total = _size(settings.volumes * settings.volume_nbytes)
    console.print("[bold]A simulated diSPIM, a real RunEngine, a real store[/bold]")
    runs = f"{_many(settings.embryos, 'embryo')}, {_many(settings.timepoints, 'time point')}"
    _say(console, f"{runs}, two views of {shape} uint16: {settings.volumes} volumes, {total}")
    _say(console, f"stored as {FORMATS[settings.format]} in {escape(str(store.root))}\n")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("volumes"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[now]}[/dim]"),
        console=console,
    )


# -- imaging -----------------------------------------------------------------------------------------------


class _Watch:
    """Follows what the writer announces: a volume counts when it is stored, not when it was taken."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self._progress.update(self._task, now=f"{doc['embryo']}, time point {doc['timepoint'] + 1}")
        elif name == "event":
            stored = sum(not is_filled for is_filled in doc["filled"].values())
            self._progress.advance(self._task, stored)


class _CtrlC(DuringTask):
    """Lets Ctrl-C pause a RunEngine at once, so that its run can be aborted and the detectors left in peace.

    Python runs a signal's handler when the main thread gets to it, which may miss the signal that comes just
    before it begins to wait for ever: so it waits in short turns.
    """

    def __init__(self) -> None:
        self.asked = False
        self.run_engine: Any = None
        self._before: Any = None
        self._told = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 # a signal handler's arguments
        self.asked = True

    def block(self, blocking_event: threading.Event) -> None:
        """Wait for the RunEngine on the main thread, as its ``during_task``."""
        while not blocking_event.wait(0.1):
            if self.asked and not self._told:
                self._told = True
                with suppress(TransitionError), redirect_stdout(StringIO()):  # it may just have ended
                    self.run_engine.request_pause()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _acquire(settings: DemoSettings, store: Store, progress: Progress) -> tuple[str, ...]:
    """Run the time lapse on a RunEngine and return the uids of its runs."""
    from gently_bluesky.sim import SimulatedDiSPIM, timelapse

    scope = SimulatedDiSPIM(size=settings.size, n_slices=N_SLICES, embryos=settings.embryos)
    plan = timelapse(scope, timepoints=settings.timepoints, session=time.strftime("%Y-%m-%d"))
    task = progress.add_task("Imaging", total=settings.volumes, now="")
    writer = store.writer(format=settings.format)
    writer.subscribe(_Watch(progress, task))
    with _run_engine(scope.light_sheet) as run_engine:
        run_engine.subscribe(writer)
        uids = tuple(run_engine(plan))
    progress.update(task, now="")
    return uids


@contextmanager
def _run_engine(detector: Device) -> Generator[Any]:
    """Make a RunEngine whose run is aborted at Ctrl-C, and end its thread."""
    with _CtrlC() as ctrl_c:
        run_engine: Any = RunEngine({}, context_managers=[], during_task=ctrl_c, call_returns_result=False)
        ctrl_c.run_engine = run_engine
        run_engine.verbose = False  # what it logs, it also raises
        try:
            yield run_engine
        except RunEngineInterrupted:
            _let_finish(detector)
            with redirect_stdout(StringIO()):
                run_engine.abort("interrupted from the keyboard")
        finally:
            run_engine.loop.call_soon_threadsafe(run_engine.loop.stop)
    if ctrl_c.asked:
        raise KeyboardInterrupt


def _let_finish(detector: Device) -> None:
    """Wait for the volume under way: a detector that is broken off makes a failed run, not an aborted one."""
    for thread in threading.enumerate():
        if thread.name.startswith(f"{detector.name}-"):
            thread.join()


def _project(settings: DemoSettings, store: Store, uids: Sequence[str], progress: Progress) -> list[Record]:
    """Put the maximum along z of every volume, and those of a run as one array; return the latter."""
    task = progress.add_task("Projecting", total=settings.volumes, now="")
    pairs: list[Record] = []
    for uid in uids:
        views: list[Record] = []
        for view in VIEWS:
            volume = _array(store, uid, view)[0]
            mip = store.put(
                volume.max(axis=0),
                data_type="projection",
                parents=[volume.uid],
                operation="max_z",
                format=settings.format,
            )
            views.append(mip)
            progress.advance(task)
        both = np.stack([np.asarray(store.get(mip.uid)) for mip in views])
        pairs.append(
            store.put(
                both,
                data_type="projections",
                parents=views,
                operation="stack",
                dims=("v", "y", "x"),
                format=settings.format,
            )
        )
    return pairs


def _array(store: Store, uid: str, data_key: str) -> LazyArray:
    return cast("LazyArray", store[uid][data_key])


# -- showing -----------------------------------------------------------------------------------------------


def _show_runs(store: Store, uids: Sequence[str], console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("run", "started", "embryo", "time point", "status", "volumes stored"):
        table.add_column(heading, justify="right" if heading in {"time point", "volumes stored"} else "left")
    for uid in uids[:RUNS_SHOWN]:
        record = store.record(uid)
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
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
        _say(console, f"  and {len(uids) - RUNS_SHOWN} more")


def _show_records(store: Store, console: Console) -> None:
    stats = store.stats()
    runs, derived = sum(stats["runs"].values()), stats["derived"]
    _heading("What the store holds", "store.stats()", console)
    _say(
        console,
        f"  {_many(runs - derived, 'run')} of the microscope, {_many(derived, 'result')} derived from them",
    )
    _say(
        console,
        f"  {_many(stats['assets'], 'array')} with {_size(stats['nbytes'])} of pixels, the arrays of "
        f"{_many(stats['datums'], 'event')}; {_size(stats['free_bytes'])} are free",
    )
    _say(console, "  each of these has a record, found by its uid: store.record(uid)")


def _show_lineage(store: Store, record: Record, console: Console) -> None:
    _heading("Where a result comes from", f'store.lineage("{record.uid[:8]}")', console)
    for line in str(store.lineage(record.uid)).splitlines():
        _say(console, f"  {escape(line)}")


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
        _say(
            console,
            f"  a plane of {_size(plane.nbytes)} out of a volume of {_size(volume.nbytes)} came {took}",
        )
        _say(console, "  (this system does not tell a process how many bytes it read)")
        return
    share = measured["read"] / volume.nbytes
    _say(
        console,
        f"  [bold]{_size(measured['read'])}[/bold] read {took}: {share:.1%} of a volume of "
        f"{_size(volume.nbytes)}, for a plane of {_size(plane.nbytes)}",
    )


def _show_picture(store: Store, pairs: Sequence[Record], console: Console) -> None:
    """Draw the last time point's projections: a column for each embryo, a row for each view."""
    columns: list[list[Any]] = []
    bar_um = 0
    for record in pairs:
        array = store.get(record.uid)
        images = [cut_out(image, TILE) for image in np.asarray(array)]
        tiles = [stretched(image, colour=colour) for image, colour in zip(images, COLOURS, strict=True)]
        bar_um = draw_scale_bar(tiles[-1], array.scale[-1])
        columns.append(tiles)
    path = store.root.with_name(f"{store.root.name}.png")
    write_png(path, grid(list(zip(*columns, strict=True))))
    names = ", ".join(str(store.record(record.uid).metadata.get("embryo")) for record in pairs)
    _heading("A picture", "maximum projections, view A above, view B below", console)
    _say(console, f"  {escape(str(path))}")
    _say(console, f"  {names} at the last time point; a bar is {bar_um} um")


def _show_python(store: Store, console: Console) -> None:
    _heading("Now you", "three lines open this store again", console)
    for line in (
        "from gently_bluesky import Store",
        f"store = Store({str(store.root)!r})",
        f'plane = store[-1]["view_a"][0, {N_SLICES // 2}].compute()',
    ):
        _say(console, f"  [cyan]{escape(line)}[/cyan]")


def _heading(title: str, how: str, console: Console) -> None:
    _say(console, f"\n[bold]{title}[/bold]  [dim]{escape(how)}[/dim]")


def _say(console: Console, text: str) -> None:
    """Print a line as it is: a terminal may wrap it, a pipe gets it whole."""
    console.print(text, soft_wrap=True)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _size(nbytes: float) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
