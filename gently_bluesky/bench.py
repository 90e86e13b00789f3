"""What ``gently-bluesky bench`` does: find out whether a disk takes a camera, with a real RunEngine and real stores.

What it writes goes into a folder of its own, which is removed whatever happens but a kill.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from bluesky import plan_stubs as bps
from numpy.typing import NDArray

from gently_bluesky.engine import run_engine
from gently_bluesky.errors import StorageFull
from gently_bluesky.files import create_file, storage_error, sync_file, sync_tree
from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import LazyArray
from gently_bluesky.store import Store

__all__ = ["Bench", "BenchSettings", "Storing", "folder_for", "run_bench"]

FORMATS = ("zarr", "tiff")
BANK_FRAMES = 8
FEWEST_FRAMES = 16
"""That there has to be room for, in each measurement."""
MOST_BYTES = 8 * 10**9
"""Of one measurement."""
SHARE_OF_FREE = 4
MORE_UNSYNCED = 3
"""Times as many frames are stored without syncing as with it: writing them out afterwards takes its time too."""
SYNCS = 20
PLANES = 10

Tell = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is measured.

    Attributes
    ----------
    folder
        Of the store, which need not be there.
    size
        Pixels along each side of a frame.
    rate
        Frames per second that the camera makes.
    seconds
        How long each of the four measurements goes on.
    """

    folder: Path
    size: int = 2048
    rate: float = 100.0
    seconds: float = 6.0

    @property
    def frame_nbytes(self) -> int:
        """Bytes of a frame of uint16."""
        return self.size**2 * 2


@dataclass(frozen=True, slots=True)
class Storing:
    """How fast frames were stored in one way.

    Attributes
    ----------
    format, sync
        As of `Store.writer`.
    frames
        How many were stored.
    took_s
        From the first document to the last one: everything announced, and with ``sync="event"`` synced.
    then_s
        How long it took after that until all of it had reached the disk.
    file_nbytes
        What the files take.
    plane_read_s
        Median time in which one plane was read back, out of what the system was told to forget; None where it cannot be
        told so.
    """

    format: str
    sync: str
    frame_nbytes: int
    frames: int
    took_s: float
    then_s: float
    file_nbytes: int
    plane_read_s: float | None = None

    @property
    def frames_per_s(self) -> float:
        """Frames a second, until all of it was announced."""
        return self.frames / self.took_s

    @property
    def lasting_frames_per_s(self) -> float:
        """Frames a second, until all of it was on the disk."""
        return self.frames / (self.took_s + self.then_s)

    @property
    def compressed(self) -> float:
        """Bytes of the files for each byte of pixels."""
        return self.file_nbytes / (self.frames * self.frame_nbytes)


@dataclass(frozen=True, slots=True)
class Bench:
    """What was measured.

    Attributes
    ----------
    folder
        Where, on the disk of the store.
    fsync_s, longest_fsync_s
        Median and longest time in which 4 KiB were synced.
    load
        How many programs the machine was busy with before it began, for each of its cores; None where it does not tell.
    """

    settings: BenchSettings
    folder: Path
    free_bytes: int
    fsync_s: float
    longest_fsync_s: float
    load: float | None
    storing: tuple[Storing, ...]

    def ratio(self, format: str) -> float:
        """Return how many times the camera's rate is stored in a format, every event synced, as is the default."""
        found = next(one for one in self.storing if (one.format, one.sync) == (format, "event"))
        return found.lasting_frames_per_s / self.settings.rate

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        rows = [
            {
                **asdict(one),
                "frames_per_s": one.frames_per_s,
                "lasting_frames_per_s": one.lasting_frames_per_s,
                "bytes_per_s": one.frames_per_s * one.frame_nbytes,
                "compressed": one.compressed,
            }
            for one in self.storing
        ]
        return {
            **asdict(replace(self, storing=())),
            "settings": {**asdict(self.settings), "folder": str(self.settings.folder)},
            "folder": str(self.folder),
            "storing": rows,
            "takes_camera": {format: self.ratio(format) >= 1 for format in FORMATS},
        }


def run_bench(settings: BenchSettings, tell: Tell) -> Bench:
    """Measure; ``tell`` is called with how many steps are done, of how many, and what comes next.

    Raises
    ------
    StorageFull
        There is too little room; nothing was written.
    StorageError
        The folder cannot be written, or storing failed.
    KeyboardInterrupt
        Ctrl-C; nothing is left of what was written.
    """
    above = folder_for(settings.folder)
    free, load = shutil.disk_usage(above).free, _load()
    most = min(MOST_BYTES, free // SHARE_OF_FREE) // settings.frame_nbytes
    if most < FEWEST_FRAMES:
        raise StorageFull(
            f"expected room for {bytes_text(FEWEST_FRAMES * SHARE_OF_FREE * settings.frame_nbytes)}, {above} has "
            f"{bytes_text(free)} free; nothing was written; make room, or ask for smaller frames: --size"
        )
    steps = 1 + 2 * len(FORMATS)
    with _temporary(above) as folder:
        tell(0, steps, "what a sync costs")
        syncs = _syncs(folder)
        bank = _bank(settings.size)
        found: list[Storing] = []
        for format in FORMATS:
            _store(folder, format, "never", bank, math.inf, 2)  # brings what is imported and made only once
            with_sync = most
            for sync in ("event", "never"):
                tell(1 + len(found), steps, f"{format}, sync={sync!r}")
                one = _store(folder, format, sync, bank, settings.seconds, min(most, with_sync))
                with_sync = max(MORE_UNSYNCED * one.frames, FEWEST_FRAMES)
                found.append(one)
    return Bench(settings, above, free, statistics.median(syncs), max(syncs), load, tuple(found))


def _load() -> float | None:
    ask = getattr(os, "getloadavg", None)
    return None if ask is None else ask()[0] / (os.cpu_count() or 1)


def folder_for(root: Path) -> Path:
    """Return a folder on the disk that a store is, or would be, on: beside it, or in it where it is a disk's top."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if there != root:
        return there
    beside = root.parent
    is_same_disk = beside.stat().st_dev == root.stat().st_dev
    return beside if is_same_disk and os.access(beside, os.W_OK) else root


@contextmanager
def _temporary(above: Path) -> Generator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix=".gently-bench-", dir=above)
    except OSError as error:
        raise storage_error(error, f"{above} cannot be written; nothing was measured") from error
    with made as folder:
        yield Path(folder)


def _syncs(folder: Path) -> list[float]:
    took: list[float] = []
    for number in range(SYNCS):
        path = folder / f"{number}.sync"
        create_file(path, bytes(4096), sync=False)
        begin_s = time.perf_counter()
        sync_file(path)
        took.append(time.perf_counter() - begin_s)
        path.unlink()
    return took


def _bank(size: int) -> NDArray[np.uint16]:
    """Return different frames (n, y, x) as a sCMOS camera makes them of a dim, smooth specimen: they compress alike."""
    noise = np.random.default_rng(20261121)
    y, x = np.mgrid[-1 : 1 : complex(size), -1 : 1 : complex(size)]
    electrons = 4.0 + 60.0 * np.exp(-(x**2 + y**2) / 0.08)
    seen = noise.poisson(electrons) + noise.normal(0.0, 1.0, electrons.shape)
    frame = np.clip(100 + seen / 0.46, 0, 65535).astype(np.uint16)
    return np.stack([np.roll(frame, (3 * n, 5 * n), (0, 1)) for n in range(BANK_FRAMES)])


class _Camera:
    """A readable of bluesky's protocols that gives the next frame each time it is read."""

    name = "camera"
    parent = None

    def __init__(self, bank: NDArray[np.uint16]) -> None:
        self.frames = 0
        self._bank = bank

    def read(self) -> dict[str, Any]:
        frame = self._bank[self.frames % len(self._bank)]
        self.frames += 1
        return {self.name: {"value": frame, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        shape = list(self._bank.shape[1:])
        return {self.name: {"source": "bench", "dtype": "array", "shape": shape, "dtype_numpy": "<u2"}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def _frames(camera: _Camera, seconds: float, most: int) -> Iterator[Any]:
    yield from bps.open_run({"plan_name": "bench"})
    end_s = time.perf_counter() + seconds
    while camera.frames < most and time.perf_counter() < end_s:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([camera])
    yield from bps.close_run()


def _store(
    folder: Path, format: str, sync: str, bank: NDArray[np.uint16], seconds: float, most: int
) -> Storing:
    root = folder / f"{format}-{sync}"
    camera = _Camera(bank)
    try:
        with Store(root) as store, run_engine() as engine:
            engine.subscribe(store.writer(format=format, sync=sync))
            begin_s = time.perf_counter()
            (uid,) = engine(_frames(camera, seconds, most))
            stored_s = time.perf_counter()
            sync_tree(root / "runs")
            end_s = time.perf_counter()
            array = cast("LazyArray", store[uid]["camera"])
            read_s = _read_planes(array, root / "runs")
            nbytes = sum(path.stat().st_size for path in _files(root / "runs"))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    took = stored_s - begin_s
    return Storing(format, sync, bank[0].nbytes, camera.frames, took, end_s - stored_s, nbytes, read_s)


def _files(folder: Path) -> Iterator[Path]:
    return (Path(inner, name) for inner, _, names in os.walk(folder) for name in names)


def _read_planes(array: LazyArray, folder: Path) -> float | None:
    """Return the median time in which a plane is read that is not in memory; None where that cannot be arranged."""
    forget = getattr(os, "posix_fadvise", None)
    if forget is None:
        return None
    for path in _files(folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            forget(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return None
        finally:
            os.close(fd)
    took: list[float] = []
    for event in np.linspace(0, len(array) - 1, min(PLANES, len(array)), dtype=int):
        begin_s = time.perf_counter()
        array[int(event)].compute()
        took.append(time.perf_counter() - begin_s)
    return statistics.median(took)
