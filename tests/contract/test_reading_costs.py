"""What reading costs, in bytes: no chunk is read that is not needed, and none twice."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gently_bluesky.backends.registry import get_backend
from gently_bluesky.lazy import LazyArray
from gently_bluesky.testing.assets import array_spec, bytes_read, write_asset
from gently_bluesky.testing.frames import encoded_frame

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="the system does not say what was read"
)

PLANES, ROWS, COLUMNS = SHAPE = (20, 1024, 1024)
ROW_NBYTES = COLUMNS * 2
PLANE_NBYTES = ROWS * ROW_NBYTES


def corner() -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[5:9, 7:300] = True
    return mask


def far_apart() -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[[1, 1023], [1, 1023]] = True
    return mask


EVERY = slice(None)
CASES: dict[str, tuple[Any, int, int]] = {
    # an index, the chunks of 512 x 512 it needs, the rows it needs
    "a plane": ((0, 7), 4, ROWS),
    "a plane of both events": ((EVERY, 7), 8, 2 * ROWS),
    "planes side by side": ((0, slice(3, 6)), 12, 3 * ROWS),
    "planes side by side, listed": ((0, [3, 4, 5]), 12, 3 * ROWS),
    "planes listed in any order": ((0, [17, 2, 9]), 12, 3 * ROWS),
    "planes listed backwards": ((0, [5, 4, 3]), 12, 3 * ROWS),
    "a plane listed again and again": ((0, [5, 1, 1, 5, 5]), 8, 2 * ROWS),
    "every fifth plane": ((0, slice(None, None, 5)), 16, 4 * ROWS),
    "every fifth plane backwards": ((0, slice(None, None, -5)), 16, 4 * ROWS),
    "marked planes": ((0, np.arange(PLANES) % 10 == 3), 8, 2 * ROWS),
    "a block": ((0, slice(8, 12), slice(0, 512), slice(512, 1024)), 4, 4 * 512),
    "a block across chunks": ((0, slice(8, 12), slice(500, 520), slice(0, 100)), 8, 4 * 20),
    "a column": ((0, 7, EVERY, 1000), 2, ROWS),
    "columns far apart": ((0, 7, EVERY, [0, 1023]), 4, ROWS),
    "rows far apart": ((0, 7, [0, 1023]), 4, 2),
    "a row again and again": ((0, 7, [9] * 50), 2, 1),
    "a slanted cut": ((0, slice(0, 3), 100), 6, 3),
    "xz": ((0, EVERY, 100), 2 * PLANES, PLANES),
    "one pixel of every plane": ((0, EVERY, 100, 600), PLANES, PLANES),
    "marked pixels close together": ((0, 7, corner()), 1, 4),
    "marked pixels far apart": ((0, 7, far_apart()), 2, 2),
    "nothing": ((0, slice(3, 3)), 0, 0),
}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LazyArray, float]]:
    """A volume kept in each way, and the bytes its pixels take on disk."""
    spec = array_spec(SHAPE)
    found: dict[str, tuple[LazyArray, float]] = {}
    for name in ("zarr", "tiff"):
        backend = get_backend(name)
        path = tmp_path_factory.mktemp("costs") / f"a{backend.suffix}"
        resource_kwargs = write_asset(backend, path, spec, range(2))
        nbytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        volume = LazyArray(backend.open(path, resource_kwargs), dims=("t", *spec.dims))
        found[name] = volume, nbytes / 2
        assert volume[:, 0, 0, 0].sum() > 0  # whatever is looked at once has been
    return found


def cost_of(volume: LazyArray) -> tuple[int, np.ndarray]:
    before = bytes_read()
    own = bytes_read() - before
    before = bytes_read()
    pixels = volume.compute()
    return bytes_read() - before - own, pixels


@pytest.mark.parametrize("case", CASES)
def test_zarr_reads_the_chunks_that_are_needed_once(volumes: Any, case: str) -> None:
    key, chunks, _ = CASES[case]
    volume, nbytes = volumes["zarr"]
    cost, pixels = cost_of(volume[key])
    # for each of at most as many shards its index, of 33 chunks, is read too
    assert cost <= 1.1 * nbytes * chunks / (4 * PLANES) + 1024 * chunks
    assert np.array_equal(pixels, expected()[key])


@pytest.mark.parametrize("case", CASES)
def test_tiff_reads_the_rows_that_are_needed_once(volumes: Any, case: str) -> None:
    key, _, rows = CASES[case]
    cost, pixels = cost_of(volumes["tiff"][0][key])
    assert cost <= rows * ROW_NBYTES
    assert np.array_equal(pixels, expected()[key])


@cache
def expected() -> np.ndarray:
    return np.stack([encoded_frame(SHAPE, "<u2", event=event) for event in range(2)])


@pytest.mark.parametrize("name", ["zarr", "tiff"])
def test_one_plane_costs_a_plane_and_not_a_fifth_more(volumes: Any, name: str) -> None:
    volume, nbytes = volumes[name]
    cost, _ = cost_of(volume[1, 11])
    assert cost <= 1.2 * nbytes / PLANES


@pytest.mark.parametrize("name", ["zarr", "tiff"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_reducing_reads_every_chunk_once(volumes: Any, name: str, axis: int | None) -> None:
    volume, nbytes = volumes[name]
    before = bytes_read()
    largest = volume[0].max(axis)
    cost = bytes_read() - before
    assert cost <= 1.05 * nbytes
    assert np.array_equal(largest, expected()[0].max(axis))


def test_rows_so_long_that_skipping_pays_are_not_read_whole(tmp_path: Path) -> None:
    spec, backend = array_spec((3, 100_000)), get_backend("tiff")
    source = backend.open(tmp_path / "a", write_asset(backend, tmp_path / "a", spec, range(2)))
    whole = np.stack([encoded_frame(spec.shape, spec.dtype, event=event) for event in range(2)])
    image = LazyArray(source, dims=("t", *spec.dims))
    image[:, 0, 0].compute()
    for key, pixels in (
        ((0, EVERY, slice(50, 90)), 3 * 40),
        ((0, EVERY, slice(90_000, 90_100, 7)), 3 * 99),
        ((1, [2, 0, 2], slice(5, 6)), 2),
        ((0, 1, [70_000, 70_003]), 4),
    ):
        cost, got = cost_of(image[key])
        assert cost <= pixels * spec.dtype.itemsize
        assert np.array_equal(got, whole[key])


def test_a_piece_of_a_waveform_costs_a_piece(tmp_path: Path) -> None:
    spec, backend = array_spec((1_000_000,)), get_backend("tiff")
    source = backend.open(tmp_path / "a", write_asset(backend, tmp_path / "a", spec, [0]))
    assert source.chunks == (1, 2**18)
    waveform = LazyArray(source, dims=("t", "sample"))[0]
    waveform[:1].compute()
    cost, got = cost_of(waveform[700_000:700_100])
    assert cost == 200
    assert np.array_equal(got, encoded_frame(spec.shape, spec.dtype)[700_000:700_100])
