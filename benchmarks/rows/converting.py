"""How fast stored volumes are converted, read back and compared, and how much memory that takes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.rows.planes import volume_of
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

DEPTH = 16
OTHER_MB = 300.0
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "Zarr to TIFF": ("zarr", {"format": "tiff"}),
    "TIFF to Zarr": ("tiff", {"format": "zarr"}),
    'Zarr to "blocks", zstd': ("zarr", {"chunks": "blocks", "compression": "zstd"}),
}


def row(*, quick: bool) -> Row:
    """Return the row."""
    events = 2 if quick else 16
    event_mb = DEPTH * 2048 * 2048 * 2 / 1e6
    goals = tuple(
        Goal(
            f"memory of a conversion, {name}",
            f"≤ 2 events + {OTHER_MB:.0f} MB",
            "peak_mb",
            name,
            at_most=2 * event_mb + OTHER_MB,
            unit="MB",
        )
        for name in WAYS
    )
    return Row(
        name="convert",
        title=f"Converting {events} volumes of {DEPTH} x 2048 x 2048",
        text=(
            "`store.convert` of a run of camera-like volumes, whose pixels are all compared with their digests, before "
            "and after, and everything synced; what was just written is still in the page cache. Memory is what the "
            "process takes over its imports. The floor copies the TIFF files, syncs them, and reads them back."
        ),
        metrics=(Metric("gb_per_s", "GB/s", 2), Metric("peak_mb", "peak, MB", 0, "less")),
        contenders=(
            *(
                Contender(name, "converting.converted", options={"source": source, "how": how})
                for name, (source, how) in WAYS.items()
            ),
            Contender("copying the files", "converting.copied", "floor"),
        ),
        goals=goals,
        rounds=1 if quick else 3,
        fresh=True,
        watch=True,
        compared=False,
        prepare=Contender("storing the volumes", "converting.stored", options={"events": events}),
    )


@contextmanager
def stored(place: Place, events: int) -> Iterator[Sampler]:
    """Store the volumes in each format; say where."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    volume = volume_of(open_bank(place.bank), DEPTH)

    def sample(folder: Path) -> dict[str, Any]:
        for format in ("zarr", "tiff"):
            engine = RunEngine({})
            with Store(folder / format) as store:
                engine(acquire([BankCamera(volume)], events), store.writer(format=format))
        return {"root": str(folder), "nbytes": events * volume.nbytes}

    yield sample


@contextmanager
def converted(
    place: Place, root: str, nbytes: int, source: str, how: dict[str, Any], events: int = 0
) -> Iterator[Sampler]:
    """Convert a copy of the store, whose files are links to the stored ones."""
    import tensorstore  # noqa: F401 # imported before memory is first looked at
    import zarr  # noqa: F401

    from gently_bluesky import Store

    def sample(folder: Path) -> dict[str, Any]:
        shutil.copytree(Path(root, source), folder / "store", copy_function=os.link)
        (folder / "store" / "index.sqlite").unlink()
        with Store(folder / "store") as store:
            (run,) = store.query()
            begun_s = time.perf_counter()
            report = store.convert(run.uid, **how, progress=False)
            took_s = time.perf_counter() - begun_s
            assert sum(one.nbytes for one in report.converted) == nbytes
        return {"gb_per_s": nbytes / took_s / 1e9}

    yield sample


@contextmanager
def copied(place: Place, root: str, nbytes: int, events: int = 0) -> Iterator[Sampler]:
    """Copy the files of the TIFF store, and read the copies."""

    def sample(folder: Path) -> dict[str, Any]:
        files = sorted(Path(root, "tiff").rglob("*.tif"))
        begun_s = time.perf_counter()
        for number, file in enumerate(files):
            copy = folder / f"{number}.tif"
            shutil.copyfile(file, copy)
            with copy.open("r+b", buffering=0) as written:
                os.fsync(written.fileno())
                while written.read(1 << 24):
                    pass
        return {"gb_per_s": nbytes / (time.perf_counter() - begun_s) / 1e9}

    yield sample
