"""Leaving the store's root in the middle of a run, or at its start, for the store's second place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.home import FolderHome, RunHome
from gently_bluesky.documents.names import run_folder
from gently_bluesky.errors import RunGoesOn, StorageError

__all__ = ["LeftHome", "leave_home"]


@dataclass(frozen=True, slots=True)
class LeftHome:
    """What a run has left behind.

    Attributes
    ----------
    home
        Where it was; its lock is held until the run ends.
    next
        Where it goes on.
    error
        Why it left.
    stored
        Frames that were announced before.
    """

    home: RunHome
    next: FolderHome
    overflow: Path
    run_uid: str
    error: StorageError
    stored: int

    def told(self) -> RunGoesOn:
        """Return what ``on_failure`` is told, which is no failure of the run."""
        told = RunGoesOn(*([] if self.error.errno is None else [self.error.errno]), self.remark())
        told.__cause__ = self.error
        return told

    def remark(self) -> str:
        """Return what people have to be told."""
        room = "an unknown amount of room"
        with suppress(OSError):
            room = f"{shutil.disk_usage(self.overflow).free} bytes free"
        return (
            f"{self.error}. Run {self.run_uid[:8]} goes on in {self.overflow}, with {room}; everything announced is "
            "safe and can be read. Make room, or repair the disk, then call store.reconcile(): it brings the run home"
        )

    def on_record(self, stored: int) -> dict[str, Any]:
        """Return what the run's stop says of it; ``stored`` are all frames that were announced."""
        return {
            "root": str(self.overflow),
            "reason": f"{type(self.error).__name__}: {self.error}",
            "stored": stored - self.stored,
        }

    def close(self) -> None:
        """Let go of what was left; what tells where the run went on stays there, for whoever recovers it."""
        with suppress(OSError):  # why it was left is on record
            self.home.close(recorded=False)


def leave_home(
    desk: Desk, home: RunHome, start: Mapping[str, Any], error: StorageError, stored: int | None
) -> LeftHome:
    """Open a home in the overflow for a run that cannot go on in another one.

    Parameters
    ----------
    stored
        Frames that were announced; None if not even the start was: then nothing stays behind.

    Raises
    ------
    StorageError
        ``error``, if the overflow takes the run neither.
    """
    assert desk.second is not None  # noqa: S101 # there is none to go to, and so nobody asks
    folder = home.folder
    next_home = FolderHome(
        desk.second,
        desk.settings.min_free_bytes,
        run_folder if stored is None else lambda _: folder,
        desk.settings.sync,
        namesakes=stored is None,
    )
    try:
        next_home.open(start)
    except StorageError as second:
        error.add_note(f"The overflow {desk.second.root} took it neither: {second}")
        raise error from second
    left = LeftHome(home, next_home, desk.second.root, start["uid"], error, stored or 0)
    if stored is None:
        home.discard()
    else:
        home.note(f"{type(error).__name__}: {error}; the run goes on in the overflow {desk.second.root}")
    return left
