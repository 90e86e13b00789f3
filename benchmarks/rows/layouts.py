"""What each way of cutting and compressing costs to write, and to read in every direction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Metric, Row
from benchmarks.rows.planes import volume_of
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

LOOKS = 3
"""Cuts of each kind, at different places; their median counts."""
PACKINGS: dict[str, dict[str, Any]] = {
    '"planes", lz4 (default)': {},
    '"planes", zstd': {"compression": "zstd"},
    '"planes", none': {"compression": "none"},
    '"blocks"': {"chunks": "blocks"},
    '"volume"': {"chunks": "volume"},
    '"auto"': {"chunks": "auto", "compression": "auto"},
    "(16, 128, 128)": {"chunks": [16, 128, 128]},
    '"planes", 3 levels': {"levels": 3},
    "TIFF": {"format": "tiff"},
}


def row(*, quick: bool) -> Row:
    """Return the row."""
    depth = 16 if quick else 128
    return Row(
        name="layouts",
        title=f"Layouts of a {depth} x 2048 x 2048 volume",
        text=(
            "One event of camera-like planes is stored by a RunEngine with `store.writer(chunks=..., "
            "compression=...)`, and cut with what was just written still in the page cache. Each cut is the median "
            f"of {LOOKS} at different places. Size is over that of the raw pixels."
        ),
        metrics=(
            Metric("write_gb_per_s", "write, GB/s", 2),
            Metric("xy_ms", "xy, ms", 1, "less"),
            Metric("xz_ms", "xz, ms", 1, "less"),
            Metric("yz_ms", "yz, ms", 1, "less"),
            Metric("roi_ms", "8 x 128 x 128, ms", 2, "less"),
            Metric("size", "size", 2, "less"),
            Metric("files", "files", 0, "less"),
        ),
        contenders=tuple(
            Contender(name, "layouts.stored", options={"depth": depth, **packing})
            for name, packing in PACKINGS.items()
        ),
        rounds=1 if quick else 5,
        compared=False,
    )


@contextmanager
def stored(place: Place, depth: int, chunks: Any = None, **settings: Any) -> Iterator[Sampler]:
    """Store a volume and cut it."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = open_bank(place.bank)
    engine = RunEngine({})
    if chunks is not None:
        settings["chunks"] = tuple(chunks) if isinstance(chunks, list) else chunks

    def sample(folder: Path, planes: int = depth) -> dict[str, Any]:
        volume = volume_of(bank, planes)
        with Store(folder / "store") as store:
            writer = store.writer(**settings)
            begun_s = time.perf_counter()
            (uid,) = engine(acquire([BankCamera(volume)], 1), writer)
            written_s = time.perf_counter() - begun_s
            array = store[uid]["primary"]["camera"][0]
            (asset,) = store.query(kind="asset", data_key="camera")
            path = store.root / asset.path
            figures = _cuts_ms(array, volume[0])
        files = [file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()]
        return {
            "write_gb_per_s": volume.nbytes / written_s / 1e9,
            **figures,
            "size": sum(files) / volume.nbytes,
            "files": len(files),
        }

    warm = place.scratch / "warm-up"
    warm.mkdir()
    sample(warm, 2)
    yield sample


def _cuts_ms(array: Any, volume: Any) -> dict[str, float]:
    """Return how long it takes to cut ``(z, y, x)`` in each direction; check what comes."""
    z, y, x = volume.shape
    cuts: dict[str, list[Any]] = {"xy_ms": [], "xz_ms": [], "yz_ms": [], "roi_ms": []}
    for look in range(1, LOOKS + 1):
        at_z, at_y, at_x = (length * look // (LOOKS + 1) for length in (z, y, x))
        cuts["xy_ms"].append(np.s_[at_z])
        cuts["xz_ms"].append(np.s_[:, at_y])
        cuts["yz_ms"].append(np.s_[:, :, at_x])
        corner = max(0, min(at_z - 3, z - 8))
        cuts["roi_ms"].append(np.s_[corner : corner + 8, at_y : at_y + 128, at_x : at_x + 128])
    figures: dict[str, float] = {}
    for name, places in cuts.items():
        taken: list[float] = []
        for cut in places:
            begun_s = time.perf_counter()
            got = np.asarray(array[cut])
            taken.append(1e3 * (time.perf_counter() - begun_s))
            assert np.array_equal(got, volume[cut])
        figures[name] = median(taken)
    return figures
