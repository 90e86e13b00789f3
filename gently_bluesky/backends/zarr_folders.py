"""The folders above the shards of a Zarr array: made and synced before pixels go there, and ahead of them.

TensorStore syncs a shard and the folder it is in; whether the folders above survive a loss of power is ours to
see to. One by one between the writes they cost much of the speed, so that they are made for more and more
events ahead, on a thread beside.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path

from gently_bluesky.files import side_by_side, sync_folder

__all__ = ["EventFolders", "remove_if_empty"]

MOST_FOLDERS = 64
"""That are made at once, about."""
FEW_EVENTS = 8
"""That are made at once while an event waits for its folders: a sync costs the same for one as for these."""


class EventFolders:
    """The folders of one array's events.

    ``prepare`` and ``remove_unused`` are called by one thread.

    Parameters
    ----------
    chunks
        The folder that all are in, which exists.
    grid
        How many shards an event has along each of its axes but the last: so many folders, level by level.
    """

    def __init__(self, chunks: Path, grid: tuple[int, ...]) -> None:
        self._chunks: Path = chunks
        self._grid: tuple[int, ...] = grid
        self._most_events: int = max(1, MOST_FOLDERS // (1 + prod(grid[:-1])))
        self._end: int = 0
        """Behind the last event whose folders were begun."""
        self._made: int = 0
        self._unused: set[int] = set()
        """Events whose folders are made and that have not come."""
        self._ahead: threading.Thread | None = None

    def prepare(self, index: int) -> None:
        """Have the folders of an event made and synced on return, and those of later ones soon. Raises OSError."""
        if index not in self._unused:
            self._wait()
        if index not in self._unused:
            few = min(self._most_events, FEW_EVENTS) if self._made else 1  # most results are one event
            self._make(range(index, index + few))
        self._unused.discard(index)
        ahead = min(self._made, self._most_events)
        if self._ahead is None and index + max(1, ahead // 2) not in self._unused and self._made > 1:
            further = range(index + 1, index + 1 + ahead + ahead // 2)
            self._make_ahead([event for event in further if event not in self._unused])

    def remove_unused(self, was_written: Callable[[int], bool]) -> None:
        """Remove the folders that were made for events that never came. Nothing is made after it."""
        self._wait()
        for event in range(self._end):
            if not was_written(event):
                _remove_folders(self._chunks / str(event))

    def _make_ahead(self, events: Sequence[int]) -> None:
        def make() -> None:
            with suppress(OSError):  # raised, if it is still so, when an event needs them
                self._make(events)
            self._ahead = None

        # a thread of our own: an executor takes nothing while the interpreter exits
        thread = self._ahead = threading.Thread(target=make, name="gently-bluesky-folders", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._ahead = None

    def _wait(self) -> None:
        thread = self._ahead
        if thread is not None:
            thread.join()

    def _make(self, events: Sequence[int]) -> None:
        self._end = max(self._end, *(event + 1 for event in events))
        made = [self._chunks]
        for event in events:
            made += _make_folders(self._chunks / str(event), self._grid)
        try:
            self._sync(made)
        except OSError:
            for event in events:  # to be made anew: what is only synced again may seem to be
                _remove_folders(self._chunks / str(event))
            raise
        self._made += len(events)
        self._unused.update(events)

    def _sync(self, folders: Sequence[Path]) -> None:
        syncs = [partial(sync_folder, folder) for folder in folders]
        if threading.current_thread() is self._ahead:
            for sync in syncs:  # nobody waits, and every thread that was ever there keeps memory of its own
                sync()
        else:
            side_by_side(syncs)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder; one that is not empty, or gone, is left as it is."""
    with suppress(OSError):
        folder.rmdir()


def _remove_folders(folder: Path) -> None:
    """Remove a folder and those in it, as far as nothing is in them."""
    for inner, _, _ in os.walk(folder, topdown=False):
        remove_if_empty(Path(inner))


def _make_folders(folder: Path, grid: tuple[int, ...]) -> list[Path]:
    """Make a folder and those in it, a level for each axis; return those that hold others."""
    folder.mkdir(exist_ok=True)
    if not grid:
        return []
    holders = [folder]
    for place in range(grid[0]):
        holders += _make_folders(folder / str(place), grid[1:])
    return holders
