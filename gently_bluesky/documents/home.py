"""Where a journal lives: in a folder of its run, beside the assets, or with other small runs in one file."""

from __future__ import annotations

import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gently_bluesky.documents.journal import Journal
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.names import day_folder, folder_of, run_folder
from gently_bluesky.documents.place import Place
from gently_bluesky.errors import StorageError, StorageFull
from gently_bluesky.files import make_folders, storage_error, sync_up

__all__ = ["FolderHome", "RunHome", "SharedHome", "SharedJournal"]

MOST_NAMES = 1000


class RunHome(ABC):
    """Where a run's lines go. All methods are called on the pipeline's thread, but for `count_received`."""

    journal: str
    """Path of the journal, relative to the store's root."""
    folder: str
    """Path of the folder for the run's assets, relative to the store's root."""
    whole_runs: bool
    """Lines are appended only when the run has ended, all at once."""

    @abstractmethod
    def open(self, start: Mapping[str, Any]) -> None:
        """Make what is needed for the run to be written. Raises StorageError and leaves nothing behind."""

    @abstractmethod
    def discard(self) -> None:
        """Undo `open`: the start could not be recorded, so there is no run."""

    @abstractmethod
    def append(self, lines: Sequence[bytes], *, is_edge: bool = False) -> tuple[int, int]:
        """Append to the journal and return where the lines begin and end. Raises StorageError.

        *Synced* on return; with ``sync="run"`` only where the lines begin or end a run (``is_edge``), and all
        before them too; with ``"never"`` not at all.
        """

    @abstractmethod
    def sync(self) -> None:
        """Sync what `append` left for the end of the run. Raises StorageError: a loss of power may take it."""

    @abstractmethod
    def count_received(self, frames: int) -> None:
        """Note how many frames have come: no call to the system."""

    @abstractmethod
    def count_stored(self, frames: int) -> None:
        """Note how many frames are announced."""

    @abstractmethod
    def note(self, reason: str) -> None:
        """Keep why the run cannot go on here, in case its journal will not say so."""

    @abstractmethod
    def make_room(self, reason: str) -> None:
        """Give back reserved space: the run has failed and has to say so. Keep why, in case it cannot."""

    @abstractmethod
    def close(self, *, recorded: bool) -> None:
        """Let go; ``recorded`` says that the journal holds the run's stop. Idempotent."""


class FolderHome(RunHome):
    """A folder for one run, or for what one device writes, with its lock and counters.

    Parameters
    ----------
    place
        The store's root, or its overflow.
    min_free_bytes
        With less free space nothing begins.
    folder_of
        Gives the wanted path of the folder, relative to the root, by what it is opened with.
    sync
        As in `Settings`. Unless that is ``"never"``, the folder's entry is synced when it is opened, and so
        is that of every folder above it: it may have been made by a writer that left that to the system.
    namesakes
        Another name may be taken where there is a folder of the wanted one.
    """

    whole_runs = False

    def __init__(
        self,
        place: Place,
        min_free_bytes: int,
        folder_of: Callable[[Mapping[str, Any]], str] = run_folder,
        sync: str = "event",
        *,
        namesakes: bool = True,
    ) -> None:
        self._place = place
        self._root = place.root
        self._sync = sync
        self._min_free_bytes = min_free_bytes
        self._folder_of = folder_of
        self._most_names = MOST_NAMES if namesakes else 1
        self._live: LiveFile | None = None
        self._journal: Journal | None = None
        self.folder = ""

    def open(self, start: Mapping[str, Any]) -> None:
        """Make the folder, the lock and the journal, after looking whose place it is, and at its free space."""
        wanted = self._folder_of(start)
        try:
            self._place.require()
            self._require_room()
            make_folders((self._root / wanted).parent, sync=False)
            folder = self._make_folder(wanted)
            self._journal = Journal(folder / "documents.jsonl")
            if self._sync != "never":
                sync_up(folder, self._root)
        except OSError as error:
            self.discard()
            if isinstance(error, StorageError):
                raise
            raise storage_error(error, f"{self._root / wanted}: the folder cannot be made") from error
        self.journal = f"{self.folder}/documents.jsonl"

    def _require_room(self) -> None:
        free = shutil.disk_usage(self._root).free
        if free < self._min_free_bytes:
            raise StorageFull(
                f"{self._root} has {free} bytes free, the writer wants min_free_bytes={self._min_free_bytes} "
                "before anything begins; nothing was written; make room"
            )

    def _make_folder(self, wanted: str) -> Path:
        """Make a folder that nobody has, and its lock, which says that it is not a dead process's."""
        for number in range(1, self._most_names + 1):
            name = wanted if number == 1 else f"{wanted}-{number}"
            folder = self._root / name
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            self.folder = name
            try:
                self._live = LiveFile.create(folder)
            except FileNotFoundError:
                continue  # swept away by a process that is opening the store, before the lock was there
            return folder
        others = f" and {self._most_names - 1} others of its name" if self._most_names > 1 else ""
        raise FileExistsError(f"{self._root / wanted}{others} exist already")

    def discard(self) -> None:
        """Remove the folder, in which there is nothing of a run yet. Opens no file: there may be too many."""
        if not self.folder:
            return
        folder, self.folder = self._root / self.folder, ""
        with suppress(OSError):  # what cannot be removed is swept when the store is opened
            self.close(recorded=True)
            for name in (".reserve", "documents.jsonl", ".live"):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()

    def append(self, lines: Sequence[bytes], *, is_edge: bool = False) -> tuple[int, int]:
        """Append to the run's own journal, which is where others look for it."""
        sync = self._sync == "event" or (is_edge and self._sync == "run")
        return _opened(self._journal).append(lines, sync=sync, is_edge=is_edge)

    def sync(self) -> None:
        """Sync the journal, with ``sync="run"``."""
        if self._sync == "run":
            _opened(self._journal).sync()

    def count_received(self, frames: int) -> None:
        """Count in the ``.live`` file."""
        if self._live is not None:
            self._live.count_received(frames)

    def count_stored(self, frames: int) -> None:
        """Count in the ``.live`` file."""
        if self._live is not None:
            self._live.count_stored(frames)

    def note(self, reason: str) -> None:
        """Keep the reason in the ``.live`` file, which has its place on the disk."""
        if self._live is not None:
            self._live.note_failure(reason)

    def make_room(self, reason: str) -> None:
        """Give back the reserve, and note the reason."""
        self.note(reason)
        if self._live is not None:
            with suppress(OSError):  # then there may still be room
                self._live.release_reserve()

    def close(self, *, recorded: bool) -> None:
        """Close the journal and let go of the lock; its file stays if the run's end is not on record."""
        if self._journal is not None:
            self._journal.close()
        live, self._live = self._live, None  # first: whoever counts on another thread must not find it closed
        if live is not None:
            live.close(remove=recorded)


class SharedJournal:
    """A writer's journal for derived results without arrays: one file a day, whole runs only."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._root = place.root
        self._name = _fresh_name()
        self._journal: Journal | None = None
        self._path = ""

    def open(self, time_s: float) -> str:
        """Return the path of the day's file, relative to the root, made and locked if it is new."""
        if self._journal is not None and not self._journal.is_there():
            self.close()
            self._name = _fresh_name()  # the index knows by its path how far it has read a journal
        path = f"{day_folder(time_s)}/derived-{self._name}.jsonl"
        if path != self._path:
            self.close()
            self._place.require()
            make_folders((self._root / path).parent, sync=False)
            existing = (self._root / path).exists()
            self._journal = Journal(self._root / path, lock=True, existing=existing)
            sync_up((self._root / path).parent, self._root)
            self._path = path
        return path

    def append(self, lines: Sequence[bytes]) -> tuple[int, int]:
        """Append a whole run, *synced*."""
        return _opened(self._journal).append(lines)

    def close(self) -> None:
        """Close the file and let go of its lock. Idempotent."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
            self._path = ""


class SharedHome(RunHome):
    """A small run's place in a shared journal. It has no assets, no lock of its own and nothing to count."""

    whole_runs = True

    def __init__(self, shared: SharedJournal) -> None:
        self._shared = shared

    def open(self, start: Mapping[str, Any]) -> None:
        """Open the day's journal."""
        try:
            self.journal = self._shared.open(start["time"])
        except OSError as error:
            raise storage_error(error, "the journal of derived results cannot be opened") from error
        self.folder = folder_of(self.journal)

    def discard(self) -> None:
        """Nothing to do: the run would have been appended whole."""

    def append(
        self,
        lines: Sequence[bytes],
        *,
        is_edge: bool = False,  # noqa: ARG002 # it is both
    ) -> tuple[int, int]:
        """Append to the shared journal."""
        return self._shared.append(lines)

    def sync(self) -> None:
        """Nothing to do: such a run is appended as a whole, and synced."""

    def count_received(self, frames: int) -> None:
        """Nothing to do: such a run has no frames."""

    def count_stored(self, frames: int) -> None:
        """Nothing to do: such a run has no frames."""

    def note(self, reason: str) -> None:
        """Nothing to do: such a run is in the journal as a whole or not at all."""

    def make_room(self, reason: str) -> None:
        """Nothing to do: nothing is reserved."""

    def close(self, *, recorded: bool) -> None:
        """Nothing to do: the shared journal stays open."""


def _fresh_name() -> str:
    return uuid.uuid4().hex[:8]


def _opened(journal: Journal | None) -> Journal:
    if journal is None:
        raise StorageError("there is no journal open to append to; nothing was recorded")
    return journal
