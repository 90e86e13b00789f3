"""One plane of a volume, read by a process that has read nothing before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["bytes_read", "drop_from_cache", "row", "volume_of", "volumes"]

PLANE = 70
ZARR, TIFF = "gently-bluesky, Zarr", "gently-bluesky, TIFF"
TENSORSTORE, MEMMAP = "bare TensorStore", "tifffile.memmap"


def row(*, quick: bool) -> Row:
    """Return the row."""
    depth = 100 if quick else 200
    return Row(
        name="plane",
        title=f"One plane of a {depth} x 2048 x 2048 volume, cold process",
        text=(
            "Each sample is a new process with all imported and a store opened to be read; the files are dropped "
            "from the page cache. The time is from asking for the run by its uid until the plane is a numpy array; "
            "for the floors, from opening the array by its path. Bytes read are those that the process asked the "
            "system for meanwhile, its index and metadata included (`rchar`); a memory map asks for none, so bytes "
            "that came from the disk stand beside them (`read_bytes`, read-ahead included)."
        ),
        metrics=(
            Metric("plane_ms", "plane, ms", 1, "less"),
            Metric("read_mb", "MB read", 2, "less"),
            Metric("disk_mb", "MB from disk", 2, "less"),
            Metric("compressed_mb", "MB of the stored plane", 2, "less"),
            Metric("again_ms", "another plane, ms", 1, "less"),
        ),
        contenders=(
            Contender(ZARR, "planes.ours", options={"format": "zarr"}),
            Contender(TENSORSTORE, "planes.tensorstore", "floor"),
            Contender(TIFF, "planes.ours", options={"format": "tiff"}),
            Contender(MEMMAP, "planes.memmap", "floor", note="reads the whole plane out of the map"),
        ),
        goals=(
            Goal(
                "bytes read for one plane of a volume, Zarr",
                "≤ 1.2 x the compressed plane",
                "read_mb",
                ZARR,
                ZARR,
                "ratio",
                at_most=1.2,
                unit="x",
                against_metric="compressed_mb",
            ),
            Goal(
                "time for one plane, over bare TensorStore (Zarr)",
                "≤ 1.3 x",
                "plane_ms",
                ZARR,
                TENSORSTORE,
                "ratio",
                at_most=1.3,
                unit="x",
            ),
            Goal(
                "time for one plane, over np.memmap (TIFF)",
                "≤ 1.3 x",
                "plane_ms",
                TIFF,
                MEMMAP,
                "ratio",
                at_most=1.3,
                unit="x",
            ),
        ),
        rounds=3 if quick else 7,
        fresh=True,
        prepare=Contender("storing a volume as Zarr and as TIFF", "planes.volumes", options={"depth": depth}),
    )


def volume_of(bank: Any, depth: int) -> Any:
    """Return one event of so many planes, as ``(1, z, y, x)``."""
    return np.concatenate([bank] * -(-depth // len(bank)))[None, :depth]


@contextmanager
def volumes(place: Place, depth: int, formats: Sequence[str] = ("zarr", "tiff")) -> Iterator[Sampler]:
    """Store one volume in each format; say where."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    volume = volume_of(open_bank(place.bank), depth)

    def sample(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with Store(folder / "store") as store:
            for name in formats:
                (uid,) = RunEngine({})(acquire([BankCamera(volume)], 1), store.writer(format=name))
                (asset,) = store.query(kind="asset", data_key="camera", **_only(store, uid))
                path = store.root / asset.path
                files = [file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
                nbytes = sum(file.stat().st_size for file in files)
                found[name] = {"uid": uid, "path": str(path), "plane_mb": nbytes / depth / 1e6}
        return {"stored": {"root": str(folder / "store"), **found}}

    yield sample


def _only(store: Any, uid: str) -> dict[str, Any]:
    return {"since": store.record(uid).time}


@contextmanager
def ours(place: Place, stored: dict[str, Any], format: str) -> Iterator[Sampler]:
    """Read a plane by the uid of its run."""
    from gently_bluesky import Store

    _import_all()
    known = stored[format]
    with Store(stored["root"], mode="r") as store:

        def sample(_: Path) -> dict[str, Any]:
            arrays: list[Any] = []

            def first() -> Any:
                arrays.append(store[known["uid"]]["primary"]["camera"])
                return arrays[0][0, PLANE]

            return {
                **_timed(stored, first, lambda: arrays[0][0, PLANE + 1]),
                "compressed_mb": known["plane_mb"],
            }

        yield sample


@contextmanager
def tensorstore(place: Place, stored: dict[str, Any]) -> Iterator[Sampler]:
    """Read it from the array's path."""
    import tensorstore as ts

    _import_all()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{stored['zarr']['path']}/0"}}

    def sample(_: Path) -> dict[str, Any]:
        arrays: list[Any] = []

        def first() -> Any:
            arrays.append(ts.open(spec, open=True, read=True).result())
            return arrays[0][0, PLANE].read().result()

        again = lambda: arrays[0][0, PLANE + 1].read().result()  # noqa: E731
        return {**_timed(stored, first, again), "compressed_mb": stored["zarr"]["plane_mb"]}

    yield sample


@contextmanager
def memmap(place: Place, stored: dict[str, Any]) -> Iterator[Sampler]:
    """Map the file and copy the plane out of it."""
    import tifffile

    path = Path(stored["tiff"]["path"])
    file = path if path.is_file() else min(path.rglob("*.tif"))

    def sample(_: Path) -> dict[str, Any]:
        maps: list[Any] = []

        def first() -> Any:
            maps.append(tifffile.memmap(file, mode="r"))
            return np.array(maps[0][PLANE])

        return {
            **_timed(stored, first, lambda: np.array(maps[0][PLANE + 1])),
            "compressed_mb": stored["tiff"]["plane_mb"],
        }

    yield sample


def _timed(stored: dict[str, Any], first: Any, again: Any) -> dict[str, Any]:
    drop_from_cache(Path(stored["root"]))
    read_before, begun_s = bytes_read(), time.perf_counter()
    plane = np.asarray(first())
    done_s = time.perf_counter()
    read = [(after - before) / 1e6 for before, after in zip(read_before, bytes_read(), strict=True)]
    assert plane.ndim == 2
    assert plane.any()
    again_s = time.perf_counter()
    np.asarray(again())
    figures = {"plane_ms": 1e3 * (done_s - begun_s), "again_ms": 1e3 * (time.perf_counter() - again_s)}
    return {**figures, "read_mb": read[0], "disk_mb": read[1]} if read else figures


def _import_all() -> None:
    """Import what reading imports, so that its time is not that of a plane."""
    import tensorstore  # noqa: F401
    import zarr  # noqa: F401

    import gently_bluesky.backends.tiff
    import gently_bluesky.backends.zarr  # noqa: F401


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the files below a folder, where it can be told to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def bytes_read() -> list[int]:
    """Return the bytes this process has read, by calls and from the disk; nothing where that is not known."""
    try:
        said = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    except OSError:
        return []
    return [int(said["rchar"]), int(said["read_bytes"])]
