from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gently_bluesky.backends.ome import (
    channel_names,
    median_interval_s,
    ngff_attributes,
    ome_axes,
    tiff_metadata,
)
from gently_bluesky.backends.zarr_levels import coarse_factors
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


STEPS = {"units": ("micrometer",) * 3, "scale": (1.0, 0.1625, 0.1625)}
ISOTROPIC = {"units": ("micrometer",) * 3, "scale": (0.3, 0.1625, 0.1625)}


@pytest.mark.parametrize(
    ("made", "levels", "factors"),
    [
        (spec(("y", "x"), (64, 64)), 1, []),
        (spec(("y", "x"), (64, 64)), 3, [(2, 2), (4, 4)]),
        (spec(("y", "x"), (5, 3)), 9, [(2, 2), (4, 4), (8, 4)]),
        (spec(("y", "x"), (1, 64)), 3, [(1, 2), (1, 4)]),
        (spec(("y", "x"), (1, 1)), 3, []),
        (spec(("z", "y", "x"), (64, 64, 64)), 3, [(2, 2, 2), (4, 4, 4)]),
        (spec(("z", "y", "x"), (64, 64, 64), **STEPS), 4, [(1, 2, 2), (1, 4, 4), (2, 8, 8)]),
        (spec(("z", "y", "x"), (64, 64, 64), **ISOTROPIC), 3, [(2, 2, 2), (4, 4, 4)]),
        (spec(("z", "y", "x"), (64, 64, 64), units=(None, *("micrometer",) * 2)), 2, [(1, 2, 2)]),
        (spec(("z", "y", "x"), (3, 64, 64)), 4, [(2, 2, 2), (4, 4, 4), (4, 8, 8)]),
        (spec(("v", "y", "x"), (2, 64, 64)), 2, [(1, 2, 2)]),
        (spec(("c", "z", "y", "x"), (2, 8, 8, 8)), 2, [(1, 2, 2, 2)]),
        (spec(("x",), (64,)), 3, []),
        (spec(("p", "c", "z", "y", "x"), (2, 2, 8, 8, 8)), 3, []),
        (spec(("y", "x"), (0, 64)), 3, []),
    ],
)
def test_each_level_has_half_of_y_and_x_and_of_z_once_it_is_no_coarser(
    made: ArraySpec, levels: int, factors: list[tuple[int, ...]]
) -> None:
    assert coarse_factors(made, levels) == factors


def test_levels_are_told_where_they_lie() -> None:
    made = spec(("z", "y", "x"), (8, 8, 8), scale=(2.0, 0.5, 0.5))
    datasets = ngff_attributes(made, 30.0, [(1, 2, 2), (2, 4, 4)])["multiscales"][0]["datasets"]
    assert [dataset["path"] for dataset in datasets] == ["0", "1", "2"]
    transformations = [dataset["coordinateTransformations"] for dataset in datasets]
    assert transformations[0] == [{"type": "scale", "scale": [30.0, 2.0, 0.5, 0.5]}]
    assert transformations[1] == [
        {"type": "scale", "scale": [30.0, 2.0, 1.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.0, 0.25, 0.25]},
    ]
    assert transformations[2] == [
        {"type": "scale", "scale": [30.0, 4.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 1.0, 0.75, 0.75]},
    ]
