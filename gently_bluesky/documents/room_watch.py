"""Looks at the free space while a run is written: whether the rest of it will fit, and whether the disk fills up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.relief import Relief
from gently_bluesky.documents.room import Forecast, too_little_room
from gently_bluesky.documents.tasks import DocumentTask

__all__ = ["RoomWatch"]

BETWEEN_LOOKS_S = 0.25
LOOKS_UNTIL_FULL = 8
"""So often it is looked while as much is written as is to be left free."""

WARN_AT, RELIEVE_AT = 4, 2
"""Times what is to be left free: when less is free it is warned of, and room is made by the store's policy."""

IN_MEMORY = "memory"
"""The backend whose pixels take no room on any disk."""


class RoomWatch:
    """Watches the room of one run. On the pipeline's thread.

    When there is little room it warns, then has room made by the store's policy, if there is one, and in the end fails
    the run while there still is enough to put that on record.

    Parameters
    ----------
    start
        The start document.
    desk
        With ``min_free_bytes`` of 0 nothing is looked at.
    remark
        Takes what people have to be told.
    """

    def __init__(self, start: Mapping[str, Any], desk: Desk, remark: Callable[[str], object]) -> None:
        self._desk = desk
        self._remark = remark
        self._run = str(start["uid"])[:8]
        self._warned = False
        self._told = 0 if desk.relief is None else len(desk.relief.told)
        self._min_free_bytes = desk.settings.min_free_bytes
        self._forecast = Forecast(start, self._min_free_bytes)
        if desk.settings.format == IN_MEMORY:
            self._forecast.settle()
        self._primary: set[str] = set()
        self._events = 0
        self._foresee_at = 1
        self._look_s = 0.0
        self._unseen_bytes = 0

    def look(self, root: Path, nbytes: int) -> None:
        """Look whether a disk is about to be full, before so many bytes are written.

        That is one call to the system, made a few times a second, or more often where that is needed to notice it.

        Raises
        ------
        StorageFull
            It is.
        OSError
            It cannot be looked at.
        """
        now_s = time.monotonic()
        self._unseen_bytes += nbytes
        is_time = now_s >= self._look_s or self._unseen_bytes * LOOKS_UNTIL_FULL > self._min_free_bytes
        if self._min_free_bytes == 0 or not is_time:
            return
        self._look_s, self._unseen_bytes = now_s + BETWEEN_LOOKS_S, 0
        free = self._relieved(root)
        if free < self._min_free_bytes:
            self._look_s = 0.0  # whatever comes next is told the same
            raise too_little_room(root, free, self._min_free_bytes)

    def prepare(self, root: Path) -> None:
        """Look before the run begins: it is warned, and room is made, as while the run goes on."""
        with suppress(OSError):  # whoever makes the run's folder says it
            if self._min_free_bytes:
                self._relieved(root)

    def _relieved(self, root: Path) -> int:
        """Return how much is free; warn, and have room made, where that is little. Raises OSError."""
        free = shutil.disk_usage(root).free
        if free < WARN_AT * self._min_free_bytes and not self._warned:
            self._warned = True
            self._remark(
                f"run {self._run}: {root} has {free} bytes free, and with fewer than "
                f"min_free_bytes={self._min_free_bytes} the run ends; make room"
            )
        relief = self._relief(root)
        if relief is None:
            return free
        if free < RELIEVE_AT * self._min_free_bytes:
            relief.ask()
        if free < self._min_free_bytes:
            relief.wait(self._desk.settings.stall_timeout_s / 2)
            free = shutil.disk_usage(root).free
        self._tell(relief)
        return free

    def _relief(self, root: Path) -> Relief | None:
        return self._desk.relief if root == self._desk.root else None

    def _tell(self, relief: Relief) -> None:
        for done in relief.told[self._told :]:
            self._remark(f"run {self._run}: there was little room in {self._desk.root}: {done}")
            self._told += 1

    def foresee(self, announced: Sequence[DocumentTask], root: Path) -> None:
        """Look, when the first events of the stream ``primary`` are stored, whether the others will fit.

        Where their pixels as they are would not, it is measured what they take as they are stored, and again when
        there are twice as many. Where these would not either, room is made by the store's policy, if there is one.

        Parameters
        ----------
        root
            Where the run is now: once it is in the overflow there is no other room for it.

        Raises
        ------
        StorageFull
            They will not.
        OSError
            Nobody can say how much room there is.
        """
        if not self._forecast.is_wanted:
            return
        self._primary |= {
            task.doc["uid"]
            for task in announced
            if task.name == "descriptor" and task.doc.get("name", "primary") == "primary"
        }
        events = [
            task
            for task in announced
            if task.name == "event" and task.frames and task.doc["descriptor"] in self._primary
        ]
        self._events += len(events)
        if self._events < self._foresee_at:
            return
        free, where = self._free(root)
        nbytes = sum(task.nbytes for task in events) / len(events)
        if self._forecast.fits(self._events, nbytes, free):
            self._forecast.settle()
            return
        with suppress(OSError):  # then they are counted as they are
            nbytes = sum(asset.frame_bytes() for asset in {f.asset for task in events for f in task.frames})
        relief = self._relief(root)
        if relief is not None and not self._forecast.fits(self._events, nbytes, free):
            relief.ask()
            relief.wait(self._desk.settings.stall_timeout_s / 2)
            self._tell(relief)
            free, where = self._free(root)
        if not self._forecast.fits(self._events, nbytes, free):
            raise self._forecast.refusal(self._events, nbytes, free, where)
        self._foresee_at = 2 * self._events  # of the first ones some were only half written

    def _free(self, root: Path) -> tuple[int, str]:
        """Return how much room there is for the run, where it is and where it may go on, and their names."""
        overflow = self._desk.overflow
        roots = [root] if overflow is None or root == overflow else [root, overflow]
        free: dict[int, int] = {}
        for place in roots:
            try:
                free[place.stat().st_dev] = shutil.disk_usage(place).free
            except OSError:  # a disk that cannot be asked has no room
                if len(roots) == 1:
                    raise
        return sum(free.values()), " with its overflow ".join(map(str, roots))
