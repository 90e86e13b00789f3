"""A writer with a hot pool: what is found in it was announced, and everything goes on without it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from memory_left import clear, segments_of

from gently_bluesky import Store
from gently_bluesky.backends.hot import DATA_OFFSET, MAGIC, PAGE, ROW, SLOTS
from gently_bluesky.errors import AssetDamaged, InvalidSetting, StorageError
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import FailingBackend, GatedBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame

SHAPE = (256, 256)
NBYTES = 256 * 256 * 2
ROOM_FOR_FOUR = DATA_OFFSET + 4 * NBYTES


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Of a store that leaves nothing in shared memory."""
    place = tmp_path / "store"
    yield place
    left = segments_of(place)
    clear(place)
    assert left == []


class Night:
    """A run whose frames come one by one."""

    def __init__(self, store: Store, hot_bytes: int = ROOM_FOR_FOUR, **settings: object) -> None:
        self.writer = store.writer(hot_bytes=hot_bytes, **settings)  # type: ignore[arg-type]
        self.run = HandMadeRun()
        self.descriptor = self.run.descriptor(camera={})
        self.announced = threading.Semaphore(0)
        self.writer.subscribe(lambda name, _: self.announced.release() if name == "event" else None)

    def begin(self) -> None:
        self.writer("start", self.run.start)
        self.writer("descriptor", self.descriptor)

    def acquire(self, *events: int, shape: tuple[int, ...] = SHAPE) -> None:
        for event in events:
            self.writer(
                "event", self.run.event(self.descriptor, camera=encoded_frame(shape, "<u2", event=event))
            )

    def acquire_slowly(self, *events: int) -> None:
        """Let each be announced before the next one comes."""
        for event in events:
            self.acquire(event)
            assert self.announced.acquire(timeout=30)

    def end(self) -> None:
        self.writer("stop", self.run.stop())


def found(root: Path) -> int:
    """Return how many arrays a reader could find in the store's one pool."""
    [pool] = segments_of(root)
    head = pool.read_bytes()[:DATA_OFFSET]
    assert head.startswith(MAGIC)
    return int(np.count_nonzero(np.frombuffer(head, ROW, SLOTS, PAGE)["generation"] % 2 == 0))


def spoil(root: Path) -> None:
    """Take the pixels that are on disk."""
    for path in root.rglob("*.ome.tif"):
        path.write_bytes(b"")


def test_newest_frames_come_from_memory_and_the_others_from_disk(root: Path) -> None:
    with Store(root) as store:
        night = Night(store, format="tiff")
        night.begin()
        night.acquire_slowly(*range(6))
        night.end()
        with Store(root, mode="r") as other:
            view = other[night.run.uid]["camera"]
            assert np.asarray(view).shape == (6, *SHAPE)
            spoil(root)
            for event in range(2, 6):
                check_frame(np.asarray(view[event]), event=event)
            with pytest.raises(AssetDamaged):
                np.asarray(view[1])
        assert found(root) == 4


def test_frame_is_in_no_readers_way_before_it_is_announced(root: Path) -> None:
    gated = GatedBackend()
    with Store(root) as store:
        night = Night(store)
        night.writer._desk.backend = gated
        night.begin()
        night.acquire(0, 1)
        assert gated.waiting.wait(30)
        assert found(root) == 0
        gated.gate.set()
        night.end()
        assert found(root) == 2


def test_frames_go_on_beside_a_pool_that_is_full_of_frames_in_flight(root: Path) -> None:
    gated = GatedBackend()
    with Store(root) as store:
        night = Night(store)
        night.writer._desk.backend = gated
        night.begin()
        night.acquire(*range(7))
        gated.gate.set()
        night.end()
        assert found(root) == 4
        view = store[night.run.uid]["camera"]
        for event in range(7):
            check_frame(np.asarray(view[event]), event=event)


@pytest.mark.parametrize("shape", [(64, 64), (1024, 1024)], ids=["small", "larger than the pool"])
def test_arrays_that_do_not_belong_in_a_pool_are_stored_as_ever(root: Path, shape: tuple[int, int]) -> None:
    with Store(root) as store:
        night = Night(store)
        night.begin()
        night.acquire(0, 1, shape=shape)
        night.end()
        assert found(root) == 0
        for event in range(2):
            check_frame(np.asarray(store[night.run.uid]["camera"][event]), event=event)


def test_events_that_are_not_stored_leave_their_room(root: Path) -> None:
    with Store(root) as store:
        failing = Night(store)
        failing.writer._desk.backend = FailingBackend(OSError("camera"), at=1)
        failing.begin()
        failing.acquire_slowly(0)
        with suppress(StorageError):  # as soon as it is known
            failing.acquire(1, 2)
        with pytest.raises(StorageError, match="camera"):
            failing.end()
        assert found(root) == 1
        assert all(failing.writer._desk.pool.take(NBYTES) is not None for _ in range(4))


def test_event_that_comes_twice_leaves_its_room(root: Path) -> None:
    with Store(root) as store:
        night = Night(store)
        night.begin()
        event = night.run.event(night.descriptor, camera=encoded_frame(SHAPE, "<u2", event=0))
        for _ in range(6):
            night.writer("event", event)
        night.end()
        assert found(root) == 1


def test_a_pool_that_cannot_be_is_refused_before_anything_is_written(root: Path) -> None:
    with Store(root) as store:
        before = sorted(root.rglob("*"))
        for settings in ({"hot_bytes": 1 << 50}, {"hot_bytes": 1}, {"hot_bytes": 1 << 24, "copy": False}):
            with pytest.raises(InvalidSetting, match="nothing was written"):
                store.writer(**settings)
        assert segments_of(root) == []
        assert sorted(root.rglob("*")) == before


def test_pool_is_gone_when_its_writer_is_closed(root: Path) -> None:
    with Store(root) as store:
        with store.writer(hot_bytes=ROOM_FOR_FOUR):
            assert len(segments_of(root)) == 1
        assert segments_of(root) == []
        store.writer(hot_bytes=ROOM_FOR_FOUR)
        assert len(segments_of(root)) == 1
    assert segments_of(root) == []


OWNER = """
import os, sys
from gently_bluesky import Store

store = Store(sys.argv[1])
writer = store.writer(hot_bytes=1 << 20)
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        store.close()  # and the interpreter ends as it does for the parent
        sys.exit()
    os.waitpid(child, 0)
from gently_bluesky.segments import HOT, names_of, tag_of
print(len(names_of(tag_of(store.uid), HOT)))
"""


def test_pool_goes_with_its_owner_and_not_with_a_child_of_it(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OWNER, os.fspath(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1"], done.stderr
    assert segments_of(root) == []
