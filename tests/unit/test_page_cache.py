"""The page cache behind a writer: the newest files stay, older ones are let go of, and nobody minds a refusal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky import Store
from gently_bluesky.backends import page_cache
from gently_bluesky.backends.page_cache import NewestFiles
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system takes no such advice")

NBYTES = 100_000


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Say which files the system was told to forget; it is told."""
    said: list[str] = []
    advise = os.posix_fadvise

    def watched(fd: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        said.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        advise(fd, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    monkeypatch.setattr(page_cache, "KEPT_BYTES", 3 * NBYTES)
    return said


def files(folder: Path, number: int, nbytes: int = NBYTES) -> list[str]:
    made = [folder / f"{index}" for index in range(number)]
    for path in made:
        path.write_bytes(bytes(nbytes))
    return list(map(str, made))


def test_the_newest_stay_and_those_before_them_are_forgotten_once(
    tmp_path: Path, forgotten: list[str]
) -> None:
    made, newest = files(tmp_path, 8), NewestFiles()
    newest.add(made[:3])
    assert forgotten == []
    newest.add(made[3:5])
    assert forgotten == made[:2]
    newest.add(made[5:])
    assert forgotten == made[:5]


def test_small_files_are_not_worth_a_call(tmp_path: Path, forgotten: list[str]) -> None:
    NewestFiles().add(files(tmp_path, 100, nbytes=10_000))
    assert forgotten == []


def test_files_that_are_gone_are_no_error(tmp_path: Path, forgotten: list[str]) -> None:
    made, newest = files(tmp_path, 5), NewestFiles()
    newest.add(made[:2])
    for gone in (made[0], made[2]):
        Path(gone).unlink()
    newest.add(made[2:])
    newest.add(files(tmp_path, 2))
    assert forgotten == [made[1], made[3]]


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [({}, "*/0/c/*/0/0"), ({"format": "tiff"}, "*.ome.tif"), ({"levels": 2}, "*/0/c/*/0/0")],
    ids=["zarr", "tiff", "zarr with levels"],
)
def test_a_writer_leaves_its_newest_files_and_all_frames_are_read(
    store: Store, forgotten: list[str], settings: dict[str, object], pattern: str
) -> None:
    writer = store.writer(compression="none", **settings)  # type: ignore[arg-type]
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for event in range(9):
        writer("event", run.event(descriptor, camera=encoded_frame((256, 256), "<u2", event=event)))
    writer("stop", run.stop())
    shards = [path for path in forgotten if Path(path).match(pattern)]
    assert len(shards) == len(set(shards)) == 9 - 2  # of 131 kB: two are no more than is kept
    for event in range(9):
        check_frame(np.asarray(store[run.uid]["camera"][event]), event=event)
