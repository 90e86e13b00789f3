"""What ``gently-bluesky demo`` does: image embryos, put back projections, and have `tour` show the store.

It uses the public face of the package alone, as people would.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from ophyd import Device
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gently_bluesky.engine import run_engine
from gently_bluesky.errors import StorageFull
from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import Record
from gently_bluesky.store import Store
from gently_bluesky.tour import say, show_tour
from gently_bluesky.wording import many

__all__ = ["DemoSettings", "run_demo"]

N_SLICES = 32
VIEWS = ("view_a", "view_b")
FORMATS = {"zarr": "OME-Zarr", "tiff": "OME-TIFF"}


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


def run_demo(settings: DemoSettings, console: Console) -> dict[str, Any]:
    """Image, project and show; everything is *synced* on return.

    Returns
    -------
    dict
        ``store``, ``runs`` and ``results`` (uids), ``volumes``, ``nbytes`` of their pixels, ``picture`` and
        ``took_s``.

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
        picture = show_tour(store, uids, pairs[-settings.embryos :], console)
        root = store.root
    took_s = time.monotonic() - begin_s
    say(console, f"\n[dim]All of it took {took_s:.0f} s.[/dim]")
    return {
        "store": str(root),
        "runs": list(uids),
        "results": [uid for pair in pairs for uid in (*pair.parents, pair.uid)],
        "volumes": settings.volumes,
        "nbytes": settings.volumes * settings.volume_nbytes,
        "picture": str(picture),
        "took_s": took_s,
    }


def _require_space(settings: DemoSettings) -> None:
    root = settings.store.expanduser().absolute()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    needed, free = settings.volumes * settings.volume_nbytes, shutil.disk_usage(there).free
    if needed > free:
        raise StorageFull(
            f"the demo writes up to {bytes_text(needed)}, {there} has {bytes_text(free)} free; nothing was "
            "written; make room, or ask for less: --size, --embryos, --timepoints"
        )


def _announce(settings: DemoSettings, store: Store, console: Console) -> None:
    shape = f"{N_SLICES} x {settings.size} x {settings.size}"
    total = bytes_text(settings.volumes * settings.volume_nbytes)
    console.print("[bold]A simulated diSPIM, a real RunEngine, a real store[/bold]")
    runs = f"{many(settings.embryos, 'embryo')}, {many(settings.timepoints, 'time point')}"
    say(console, f"{runs}, two views of {shape} uint16: {settings.volumes} volumes, {total}")
    say(console, f"stored as {FORMATS[settings.format]} in {escape(str(store.root))}\n")


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


def _acquire(settings: DemoSettings, store: Store, progress: Progress) -> tuple[str, ...]:
    """Run the time lapse on a RunEngine and return the uids of its runs."""
    from gently_bluesky.sim import SimulatedDiSPIM, timelapse

    scope = SimulatedDiSPIM(size=settings.size, n_slices=N_SLICES, embryos=settings.embryos)
    plan = timelapse(scope, timepoints=settings.timepoints, session=time.strftime("%Y-%m-%d"))
    task = progress.add_task("Imaging", total=settings.volumes, now="")
    writer = store.writer(format=settings.format)
    writer.subscribe(_Watch(progress, task))
    with run_engine(lambda: _let_finish(scope.light_sheet)) as engine:
        engine.subscribe(writer)
        uids = tuple(engine(plan))
    progress.update(task, now="")
    return uids


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
            volume = cast("LazyArray", store[uid][view])[0]
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
