"""From a RunEngine to the disk: frames that stand in event documents, until all of them are stored."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["row", "store_frames", "timed"]

WARM_UP = 8
OURS, GIVEN_AWAY, MINIMAL = "gently-bluesky", "gently-bluesky, copy=False", "minimal callback"
SUITCASE, OME, OME_SAME = "suitcase-tiff", "ome-writers as it comes", "ome-writers, same codec"
OURS_SAME, GIVEN_AWAY_SAME = "gently-bluesky, that codec", "gently-bluesky, that codec, copy=False"
OME_CODEC = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
"""What ome-writers makes of ``compression="blosc-lz4"`` for uint16."""
TILED, TENSORSTORE, FILE, ENGINE = "TiledWriter", "bare TensorStore", "bytes to a file", "RunEngine alone"


def row(*, quick: bool) -> Row:
    """Return the row; a quick one has fewer and shorter samples."""
    frames = 60 if quick else 300
    few = 6 if quick else 20
    same = [{"name": "blosc", "configuration": OME_CODEC}]
    contenders = (
        Contender(OURS, "writing.store_frames", options={"frames": frames}),
        Contender(
            GIVEN_AWAY,
            "writing.store_frames",
            options={"frames": frames, "copy": False},
            note="for devices that give their buffer away",
        ),
        Contender(
            MINIMAL,
            "writing.minimal",
            "peer",
            {"frames": frames},
            note="copies each frame and hands it to TensorStore with our codec, shards and sync; nothing else",
        ),
        Contender(
            SUITCASE,
            "writing.suitcase",
            "peer",
            {"frames": frames},
            ("suitcase.tiff_stack",),
            note="one raw BigTIFF, not synced; on the plan's thread",
        ),
        Contender(
            OME,
            "writing.ome_writers",
            "peer",
            {"frames": frames},
            ("ome_writers",),
            note="OME-Zarr by TensorStore, a raw chunk per frame, synced; neither copies nor bounds its memory",
        ),
        Contender(
            OME_SAME,
            "writing.ome_writers",
            "peer",
            {"frames": frames, "same_codec": True},
            ("ome_writers",),
            note="our chunks and shards; blosc-lz4 as its settings spell it: another level and shuffle than ours",
        ),
        Contender(
            OURS_SAME,
            "writing.store_frames",
            options={"frames": frames, "compression": same},
            note="the codec that ome-writers uses, and our checksums",
        ),
        Contender(
            GIVEN_AWAY_SAME,
            "writing.store_frames",
            options={"frames": frames, "compression": same, "copy": False},
            note="as ome-writers, which neither copies",
        ),
        Contender(
            TILED,
            "writing.tiled",
            "peer",
            {"frames": few},
            ("tiled", "bluesky_tiled_plugins"),
            note=f"{few} frames a run, to a server on the loopback, whose CPU time is not counted; not synced",
        ),
        Contender(
            TENSORSTORE,
            "writing.tensorstore_alone",
            "floor",
            {"frames": frames},
            note="our codec, shards and sync; no RunEngine, no copy",
        ),
        Contender(
            FILE,
            "writing.bytes_to_file",
            "floor",
            {"frames": frames},
            note="raw, one file, one fsync at the end; no RunEngine",
        ),
        Contender(
            ENGINE,
            "writing.engine_alone",
            "floor",
            {"frames": frames},
            note="no subscriber: nothing is stored",
        ),
    )
    return Row(
        name="write-zarr",
        title="RunEngine to stored Zarr, inline 2048 x 2048 uint16 frames",
        text=(
            "A RunEngine reads a device that returns the next of 16 camera-like frames, as fast as its "
            "documents are taken. Every sample is a run of its own; ours go to one store by one writer, as in a night. "
            "The time is that of the RunEngine's call: from the start document until "
            "everything is stored and announced, or until the peer has closed its file. Ours is synced, event "
            "by event. What a peer leaves to the system is synced after it has returned, and the third column "
            "counts that too; the goals are over the first. CPU time is that of the process, all threads."
        ),
        metrics=(
            Metric("frames_per_s", "frames/s"),
            Metric("gb_per_s", "GB/s", 2),
            Metric("synced_frames_per_s", "frames/s, synced"),
            Metric("cpu_ms", "CPU ms/frame", better="less"),
        ),
        contenders=contenders,
        goals=_goals(),
        rounds=2 if quick else 5,
    )


def _goals() -> tuple[Goal, ...]:
    def over(ours: str, against: str, at_least: float) -> Goal:
        what = f"storing frames: {ours} over {against}" if ours != OURS else f"storing frames, over {against}"
        text = f"≥ {at_least:g} x"
        return Goal(what, text, "frames_per_s", ours, against, "ratio", at_least=at_least, unit="x")

    return (
        over(OURS, MINIMAL, 0.9),
        over(OURS, SUITCASE, 1.5),
        over(OURS, OME, 1.5),
        over(OURS_SAME, OME_SAME, 0.8),
        over(GIVEN_AWAY_SAME, OME_SAME, 1.0),
        over(OURS, TILED, 15.0),
        Goal(
            "storing frames, a camera at full rate",
            "≥ 100 frames/s",
            "frames_per_s",
            OURS,
            at_least=100.0,
            unit="frames/s",
        ),
    )


def timed(frames: int, nbytes: int, act: Callable[[], object], unsynced: Path | None) -> dict[str, Any]:
    """Return what an act that stores so many frames gives; what it left to the system is synced after it."""
    spent_s, begun_s = time.process_time(), time.perf_counter()
    act()
    done_s = time.perf_counter()
    spent_s = time.process_time() - spent_s
    if unsynced is not None:
        _sync_files(unsynced)
    synced_s = time.perf_counter() if unsynced else done_s
    return {
        "frames_per_s": frames / (done_s - begun_s),
        "gb_per_s": frames * nbytes / (done_s - begun_s) / 1e9,
        "synced_frames_per_s": frames / (synced_s - begun_s),
        "cpu_ms": 1e3 * spent_s / frames,
    }


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
            os.fsync(fd)
            os.close(fd)


def _engine_sampler(
    place: Place,
    frames: int,
    subscriber: Callable[[Path, int], AbstractContextManager[Any]],
    *,
    syncs: bool = True,
) -> Sampler:
    """Return a sampler of RunEngine calls with the callback that ``subscriber(folder, frames)`` gives.

    What does not sync by itself what it writes is told.
    """
    from bluesky import RunEngine

    bank = open_bank(place.bank)

    def sample(folder: Path, number: int = frames) -> dict[str, Any]:
        engine = RunEngine({})
        with subscriber(folder, number) as callback:
            camera = BankCamera(bank)
            run = partial(engine, acquire([camera], number), callback or [])
            taken = timed(number, bank[0].nbytes, run, None if syncs else folder)
            assert camera.reads == number
            return taken

    warm = place.scratch / "warm-up"
    warm.mkdir()
    sample(warm, min(frames, WARM_UP))
    return sample


@contextmanager
def store_frames(place: Place, frames: int, **settings: Any) -> Iterator[Sampler]:
    """Store with ours."""
    from gently_bluesky import Store

    with Store(place.scratch / "store") as store, store.writer(**settings) as writer:

        @contextmanager
        def subscriber(_: Path, __: int) -> Iterator[Any]:
            yield writer
            shutil.rmtree(store.root / "runs")

        yield _engine_sampler(place, frames, subscriber)


def zarr_pattern(place: Place) -> str:
    """Return the ``zarr.json`` of an array of frames as ours writes it."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    root = place.scratch / "pattern"
    with Store(root) as store:
        RunEngine({})(acquire([BankCamera(open_bank(place.bank))], 1), store.writer())
    (found,) = root.glob("runs/**/0/zarr.json")
    return str(found)


@contextmanager
def minimal(place: Place, frames: int) -> Iterator[Sampler]:
    """Store with a callback that does nothing but that."""
    from benchmarks.peers.minimal import minimal_callback

    pattern = zarr_pattern(place)

    def subscriber(folder: Path, number: int) -> AbstractContextManager[Any]:
        return minimal_callback(folder, pattern=pattern, frames=number)

    yield _engine_sampler(place, frames, subscriber)


@contextmanager
def suitcase(place: Place, frames: int) -> Iterator[Sampler]:
    """Store with suitcase-tiff."""
    from benchmarks.peers.suitcase_tiff import suitcase_tiff

    yield _engine_sampler(place, frames, lambda folder, _: suitcase_tiff(folder), syncs=False)


@contextmanager
def ome_writers(place: Place, frames: int, *, same_codec: bool = False) -> Iterator[Sampler]:
    """Store with ome-writers."""
    from benchmarks.peers.ome_writers_zarr import ome_writers_zarr

    pattern = zarr_pattern(place) if same_codec else None
    shape_yx = open_bank(place.bank).shape[1:]

    def subscriber(folder: Path, number: int) -> AbstractContextManager[Any]:
        return ome_writers_zarr(folder, frames=number, shape_yx=shape_yx, pattern=pattern)

    yield _engine_sampler(place, frames, subscriber)


@contextmanager
def tiled(place: Place, frames: int) -> Iterator[Sampler]:
    """Store with TiledWriter; what its server writes stays until the worker ends."""
    from benchmarks.peers.tiled_server import tiled_client, tiled_writer

    with tiled_client(place.scratch / "tiled") as client:
        yield _engine_sampler(place, frames, lambda _, __: tiled_writer(client))


@contextmanager
def engine_alone(place: Place, frames: int) -> Iterator[Sampler]:
    """Store nothing."""

    @contextmanager
    def nobody(_: Path, __: int) -> Iterator[None]:
        yield None

    yield _engine_sampler(place, frames, nobody)


@contextmanager
def tensorstore_alone(place: Place, frames: int) -> Iterator[Sampler]:
    """Hand the frames to TensorStore one after another."""
    from benchmarks.peers.minimal import FrameSink

    bank, pattern = open_bank(place.bank), Path(zarr_pattern(place))

    def sample(folder: Path) -> dict[str, Any]:
        sink = FrameSink(folder / "bare.zarr", pattern, frames)

        def act() -> None:
            for index in range(frames):
                sink.write(index, bank[index % len(bank)])
            sink.close()

        return timed(frames, bank[0].nbytes, act, None)

    yield sample


@contextmanager
def bytes_to_file(place: Place, frames: int) -> Iterator[Sampler]:
    """Write the frames to one file."""
    bank = open_bank(place.bank)

    def sample(folder: Path) -> dict[str, Any]:
        def act() -> None:
            with (folder / "frames.raw").open("wb", buffering=0) as file:
                for index in range(frames):
                    file.write(bank[index % len(bank)].data)
                os.fsync(file.fileno())

        return timed(frames, bank[0].nbytes, act, None)

    yield sample
