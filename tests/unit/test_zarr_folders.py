"""Folders above shards: synced before pixels go there, made ahead, and gone if no event came."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gently_bluesky.backends import zarr_folders
from gently_bluesky.backends.zarr_folders import FEW_EVENTS, EventFolders


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    (tmp_path / "c").mkdir()
    return tmp_path / "c"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Say which folders were synced; the real sync is done too."""
    said: list[Path] = []
    sync: Callable[[Path], None] = zarr_folders.sync_folder

    def watched(folder: Path) -> None:
        sync(folder)
        said.append(folder)

    monkeypatch.setattr(zarr_folders, "sync_folder", watched)
    return said


@pytest.mark.parametrize(("grid", "leaves"), [((), ""), ((2,), "1"), ((3, 2), "2/1"), ((64, 2), "63/1")])
def test_all_folders_of_an_event_are_there_and_what_names_them_is_synced(
    chunks: Path, synced: list[Path], grid: tuple[int, ...], leaves: str
) -> None:
    folders = EventFolders(chunks, grid)
    for event in range(40):
        folders.prepare(event)
        leaf = chunks / str(event) / leaves
        assert leaf.is_dir()
        assert not (leaf / "0").exists()
        above = [folder for folder in leaf.parents if folder.is_relative_to(chunks)] if leaves else [chunks]
        assert set(above) <= set(synced)
    folders.remove_unused(lambda event: event < 40)


def test_events_may_come_in_any_order(chunks: Path, synced: list[Path]) -> None:
    folders = EventFolders(chunks, (1,))
    for event in (7, 3, 100, 8, 0, 5, 6, 4):
        folders.prepare(event)
        assert chunks / str(event) in synced
    folders.remove_unused(lambda event: event == 100)
    assert [folder.name for folder in chunks.iterdir()] == ["100"]


def test_a_single_event_makes_nothing_for_others(chunks: Path) -> None:
    EventFolders(chunks, (1,)).prepare(0)
    assert [folder.name for folder in chunks.iterdir()] == ["0"]


def test_most_events_find_their_folders_made(chunks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by: dict[int, set[str]] = {}
    make = EventFolders._make

    def watched(self: EventFolders, events: list[int]) -> None:
        made_by.setdefault(len(events), set()).add(threading.current_thread().name)
        make(self, events)

    monkeypatch.setattr(EventFolders, "_make", watched)
    folders = EventFolders(chunks, (1,))
    for event in range(300):
        folders.prepare(event)
    folders.remove_unused(lambda _: False)
    assert list(chunks.iterdir()) == []
    for_most = set.union(*(made_by[events] for events in made_by if events > FEW_EVENTS))
    assert for_most == {"gently-bluesky-folders"}
    assert max(made_by) <= 48


def test_what_fails_ahead_is_told_when_it_is_needed_and_leaves_nothing(
    chunks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    sync = zarr_folders.sync_folder

    def failing(folder: Path) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device", str(folder))
        sync(folder)

    monkeypatch.setattr(zarr_folders, "sync_folder", failing)
    folders = EventFolders(chunks, (1,))
    folders.prepare(0)
    folders.prepare(1)
    folders._wait()
    full.set()
    event = 2
    while folders._unused:
        folders.prepare(event)  # these are made, whatever becomes of later ones
        folders._wait()
        event += 1
    with pytest.raises(OSError, match="No space left"):
        folders.prepare(event)
    full.clear()
    folders.prepare(event)
    folders.remove_unused(lambda _: False)
    assert list(chunks.iterdir()) == []
