"""A maximum projection of a volume that is larger than anybody wants in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Contender, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

OURS = "gently-bluesky, array[0].max(0)"


def row(*, quick: bool) -> Row:
    """Return the row."""
    depth = 50 if quick else 200
    return Row(
        name="reductions",
        title=f"Maximum over z of a {depth} x 2048 x 2048 volume",
        text=(
            "The same Zarr array, in the page cache; each sample in a new process. Memory is over what it took with "
            "all imported."
        ),
        metrics=(
            Metric("seconds", "s", 2, "less"),
            Metric("gb_per_s", "GB/s", 2),
            Metric("peak_mb", "peak memory, MB", 0, "less"),
        ),
        contenders=(
            Contender(OURS, "reductions.ours"),
            Contender(
                "dask over the same Zarr",
                "reductions.with_dask",
                "peer",
                needs=("dask.array",),
                note="da.from_zarr",
            ),
            Contender("numpy, all of it read", "reductions.with_numpy", "floor", note="by bare TensorStore"),
        ),
        rounds=1 if quick else 5,
        fresh=True,
        watch=True,
        prepare=Contender(
            "storing a volume", "planes.volumes", options={"depth": depth, "formats": ["zarr"]}
        ),
    )


def _sampler(depth_of: Callable[[], tuple[Any, int]]) -> Sampler:
    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        projection, nbytes = depth_of()
        seconds = time.perf_counter() - begun_s
        assert projection.ndim == 2
        assert projection.all()
        return {"seconds": seconds, "gb_per_s": nbytes / seconds / 1e9}

    return sample


@contextmanager
def ours(place: Place, stored: dict[str, Any]) -> Iterator[Sampler]:
    """Reduce block by block."""
    import tensorstore  # noqa: F401 # imported before memory is first looked at

    from gently_bluesky import Store

    with Store(stored["root"], mode="r") as store:

        def project() -> tuple[Any, int]:
            volume = store[stored["zarr"]["uid"]]["primary"]["camera"][0]
            return np.asarray(volume.max(0)), volume.nbytes

        yield _sampler(project)


@contextmanager
def with_dask(place: Place, stored: dict[str, Any]) -> Iterator[Sampler]:
    """Reduce chunk by chunk."""
    import dask.array as da
    import zarr  # noqa: F401 # imported before memory is first looked at

    def project() -> tuple[Any, int]:
        volume = da.from_zarr(f"{stored['zarr']['path']}/0")[0]
        return volume.max(0).compute(), volume.nbytes

    yield _sampler(project)


@contextmanager
def with_numpy(place: Place, stored: dict[str, Any]) -> Iterator[Sampler]:
    """Read everything, then reduce."""
    import tensorstore as ts

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{stored['zarr']['path']}/0"}}

    def project() -> tuple[Any, int]:
        volume = ts.open(spec, open=True, read=True).result()[0].read().result()
        return volume.max(0), volume.nbytes

    yield _sampler(project)
