from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gently_bluesky.backends.chunks import choose_layout
from gently_bluesky.backends.ome import (
    channel_names,
    median_interval_s,
    ngff_attributes,
    ome_axes,
    tiff_metadata,
)
from gently_bluesky.model import ArraySpec


def spec(dims: tuple[str, ...], shape: tuple[int, ...] | None = None, **kwargs: Any) -> ArraySpec:
    declared: dict[str, Any] = {
        "name": "camera",
        "shape": shape or tuple(range(2, 2 + len(dims))),
        "dtype": np.dtype("<u2"),
        "dims": dims,
        "scale": (1.0,) * len(dims),
        "units": (None,) * len(dims),
    }
    return ArraySpec(**declared | kwargs)


@pytest.mark.parametrize(
    ("dims", "axes"),
    [
        ("yx", ("y", "x")),
        ("zyx", ("z", "y", "x")),
        ("vyx", ("c", "y", "x")),
        ("czyx", ("c", "z", "y", "x")),
        ("vzyx", ("c", "z", "y", "x")),
        ("x", None),
        ("xy", None),
        ("yxz", None),
        ("zcyx", None),
        ("vczyx", None),
        ("tyx", None),
        ("", None),
    ],
)
def test_axes_that_ome_allows(dims: str, axes: tuple[str, ...] | None) -> None:
    assert ome_axes(spec(tuple(dims))) == axes


def test_units_that_ome_does_not_know_are_left_out() -> None:
    attributes = ngff_attributes(
        spec(("z", "y", "x"), units=("micrometer", "pixel", None), scale=(2.0, 1.0, 1.0))
    )
    axes = attributes["multiscales"][0]["axes"]
    assert [axis.get("unit") for axis in axes] == ["second", "micrometer", None, None]
    metadata = tiff_metadata(
        spec(("z", "y", "x"), units=("nanometer", "pixel", None), scale=(2.0, 1.0, 1.0)), 0.0
    )
    assert metadata is not None
    assert {key: value for key, value in metadata.items() if "Physical" in key} == {
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "nm",
    }


def test_every_channel_has_a_name() -> None:
    assert channel_names(spec(("v", "y", "x"), channel_names=("a",))) == ("a", "v1")
    assert channel_names(spec(("c", "y", "x"), channel_names=("a", "b", "too many"))) == ("a", "b")
    assert channel_names(spec(("y", "x"), channel_names=("a",))) == ()


@pytest.mark.parametrize(
    ("times", "interval"),
    [([], None), ([5.0], None), ([5.0, 5.0], None), ([9.0, 5.0], None), ([0.0, 10.0, 20.0, 500.0], 10.0)],
)
def test_interval_is_the_median_or_nothing(times: list[float], interval: float | None) -> None:
    assert median_interval_s(times) == interval


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "<f2"])
def test_dtypes_that_ome_tiff_lacks(dtype: str) -> None:
    assert tiff_metadata(spec(("y", "x"), dtype=np.dtype(dtype)), 0.0) is None


def test_time_since_the_start_of_the_run_is_told_per_plane() -> None:
    metadata = tiff_metadata(spec(("z", "y", "x"), origin={"time": 100.0}), 107.5)
    assert metadata is not None
    assert metadata["Plane"] == {"DeltaT": [7.5, 7.5], "DeltaTUnit": ["s", "s"]}
    assert metadata["AcquisitionDate"] == "1970-01-01T00:01:47.500"
    assert "Plane" not in (tiff_metadata(spec(("y", "x"), origin={"time": 100.0}), 99.0) or {})


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks", "inner", "shard"),
    [
        ((2048, 2048), 2, "planes", (512, 512), (2048, 2048)),
        ((200, 2048, 2048), 2, "planes", (1, 512, 512), (8, 2048, 2048)),
        ((2, 200, 2048, 2048), 2, "planes", (1, 1, 512, 512), (1, 8, 2048, 2048)),
        ((200, 2048, 2048), 2, "blocks", (4, 256, 256), (8, 2048, 2048)),
        ((200, 2048, 2048), 2, (16, 128, 128), (16, 128, 128), (16, 2048, 2048)),
        ((2304, 2304), 2, "planes", (461, 461), (2305, 2305)),
        ((17, 2048, 2048), 2, "planes", (1, 512, 512), (6, 2048, 2048)),
        ((64, 4096, 4096), 2, "planes", (1, 512, 512), (2, 4096, 4096)),
        ((50, 64, 64), 2, "planes", (8, 64, 64), (56, 64, 64)),
        ((10_000,), 8, "planes", (10_000,), (10_000,)),
        ((3, 2, 4, 10, 10), 2, "planes", (3, 2, 4, 10, 10), (3, 2, 4, 10, 10)),
        ((), 2, "planes", (), ()),
        ((40_000, 40_000), 1, "planes", (507, 507), (8112, 8112)),
    ],
)
def test_layouts(
    shape: tuple[int, ...], itemsize: int, chunks: Any, inner: tuple[int, ...], shard: tuple[int, ...]
) -> None:
    layout = choose_layout(shape, itemsize, chunks)
    assert layout.inner == inner
    assert layout.shard == shard


@pytest.mark.parametrize("seed", range(50))
def test_shards_are_whole_chunks_and_cover_the_frame_in_even_pieces(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(length) for length in rng.integers(1, 5000, int(rng.integers(1, 6))))
    layout = choose_layout(shape, int(rng.choice([1, 2, 8, 16])), str(rng.choice(["planes", "blocks"])))
    for length, shard, inner in zip(shape, layout.shard, layout.inner, strict=True):
        assert shard % inner == 0
        assert 1 <= inner <= length
        pieces = -(-length // shard)
        assert pieces * shard - length < pieces * inner
