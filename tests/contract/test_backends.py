"""The conformance suite for the backends of this package, and independent readers of what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from ome_zarr_models.v05 import Image

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import get_backend
from gently_bluesky.errors import AssetDamaged, AssetMissing, StorageFull
from gently_bluesky.model import ArraySpec
from gently_bluesky.testing.assets import (
    START_S,
    array_spec,
    as_documented,
    begin,
    check_events,
    full,
    no_file_larger_than,
    write_asset,
)
from gently_bluesky.testing.backends import BackendConformance
from gently_bluesky.testing.frames import check_frame, encoded_frame


class TestZarr(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return get_backend("zarr")


class TestTiff(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return get_backend("tiff")


class TestMemory(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return get_backend("memory")


def write_zarr(path: Path, spec: ArraySpec, events: int = 3) -> dict[str, Any]:
    return dict(write_asset(get_backend("zarr"), path, spec, range(events)))


# -- Zarr, judged by zarr-python and ome-zarr-models --


@pytest.mark.parametrize(
    ("shape", "axes", "scale"),
    [
        ((33, 47), ["t", "y", "x"], [1.0, 0.1625, 0.1625]),
        ((7, 33, 47), ["t", "z", "y", "x"], [1.0, 1.0, 0.1625, 0.1625]),
        ((2, 5, 20, 31), ["t", "c", "z", "y", "x"], [1.0, 1.0, 1.0, 0.1625, 0.1625]),
    ],
)
def test_images_are_valid_ome_zarr(
    tmp_path: Path, shape: tuple[int, ...], axes: list[str], scale: list[float]
) -> None:
    write_zarr(tmp_path / "a.ome.zarr", array_spec(shape))
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    multiscale = Image.from_zarr(group).ome_attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == axes
    assert [axis.unit for axis in multiscale.axes if axis.type == "space"] == ["micrometer"] * axes.count(
        "z"
    ) + ["micrometer"] * 2
    assert multiscale.datasets[0].coordinateTransformations[0].scale == scale
    array = zarr.open_array(tmp_path / "a.ome.zarr", path="0", mode="r")
    assert list(array.metadata.dimension_names) == axes
    for event, frame in enumerate(array[:]):
        check_frame(frame, event=event)


def test_views_are_ome_channels_with_their_names(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.ome.zarr", array_spec((2, 5, 20, 31)))
    channels = zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["view_a", "view_b"]
    assert channels[0]["color"] != channels[1]["color"]
    assert channels[0]["window"] == {"min": 0.0, "max": 65535.0, "start": 0.0, "end": 65535.0}


@pytest.mark.parametrize("shape", [(1000,), (2, 3, 4, 9, 11)])
def test_what_ome_cannot_hold_is_plain_zarr_with_named_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    spec = array_spec(shape)
    write_zarr(tmp_path / "a.ome.zarr", spec)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert "ome" not in group.attrs
    assert list(group["0"].metadata.dimension_names) == ["t", *spec.dims]
    check_frame(group["0"][1], event=1)


@pytest.mark.parametrize("dtype", ["|b1", "|i1", "<f2", "<c8", "<u8"])
def test_zarr_python_reads_every_dtype(tmp_path: Path, dtype: str) -> None:
    write_zarr(tmp_path / "a.ome.zarr", array_spec((9, 11), dtype))
    array = zarr.open_array(tmp_path / "a.ome.zarr", path="0", mode="r")
    assert array.dtype == np.dtype(dtype)
    check_frame(array[2], event=2)


def test_closing_notes_when_events_were_and_how_far_apart(tmp_path: Path) -> None:
    spec, path = array_spec((9, 11)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec)
    for event, time in enumerate([100.0, 130.0, 161.0, 190.0]):
        sink.write(event, encoded_frame(spec.shape, spec.dtype, event=event), time)
    sink.publish(3)
    sink.close()
    attributes = zarr.open_group(path, mode="r").attrs
    assert attributes["gently_bluesky"]["event_time_s"] == [100.0, 130.0, 161.0]
    assert attributes["gently_bluesky"]["origin"] == dict(spec.origin)
    assert attributes["gently_bluesky"]["dims"] == ["t", "y", "x"]
    dataset = attributes["ome"]["multiscales"][0]["datasets"][0]
    assert dataset["coordinateTransformations"][0]["scale"] == [30.5, 0.1625, 0.1625]


def test_zarr_python_sees_events_come_and_no_zeros(tmp_path: Path) -> None:
    spec, path = array_spec((20, 33, 47)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec)
    for event in range(4):
        begin(sink, spec, [event])
        sink.publish(event + 1)
        seen = zarr.open_array(path, path="0", mode="r")[:]
        assert len(seen) == event + 1
        for number, frame in enumerate(seen):
            check_frame(frame, event=number)
    sink.close()


def test_nothing_but_shards_and_metadata_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    write_zarr(path, array_spec((9, 11)), events=5)
    assert sorted(entry.name for entry in (path / "0" / "c").iterdir()) == ["0", "1", "2", "3", "4"]
    assert {file.name for file in path.rglob("*") if file.is_file()} == {"zarr.json", "0"}


def test_lost_shard_is_missing_and_the_other_events_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    source = get_backend("zarr").open(path, write_zarr(path, array_spec((9, 11))))
    (path / "0/c/1/0/0").unlink()
    with pytest.raises(AssetMissing, match="0/c/1/0/0"):
        source.read((slice(1, 2, 1), slice(0, 9, 1), slice(0, 11, 1)))
    check_frame(source.read((slice(2, 3, 1), slice(0, 9, 1), slice(0, 11, 1)))[0], event=2)


def test_lost_last_shard_does_not_close_the_asset(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    resource_kwargs = write_zarr(path, array_spec((9, 11)))
    (path / "0/c/2/0/0").unlink()
    (path / "0/c/2/0").rmdir()
    (path / "0/c/2").rmdir()
    source = get_backend("zarr").open(path, resource_kwargs)
    check_frame(source.read((slice(0, 1, 1), slice(0, 9, 1), slice(0, 11, 1)))[0], event=0)


def test_damage_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    resource_kwargs = write_zarr(path, array_spec((64, 64)))
    shard = path / "0/c/1/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    source = get_backend("zarr").open(path, resource_kwargs)
    with pytest.raises(AssetDamaged, match="0/c/1/0/0"):
        source.read(full(source.shape))


@pytest.mark.parametrize("key", ["shape", "chunk_grid", "codecs", "data_type"])
def test_metadata_that_declares_the_absurd_is_damaged(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.ome.zarr"
    resource_kwargs = write_zarr(path, array_spec((9, 11)))
    metadata = json.loads((path / "0/zarr.json").read_text())
    huge = {
        "shape": [1 << 40, 9, 11],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1 << 24, 1 << 24]}},
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1 << 24, 1 << 24]}}],
        "data_type": "int16",
    }
    metadata[key] = huge[key]
    if key == "codecs":
        metadata["chunk_grid"] = huge["chunk_grid"]
    (path / "0/zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(AssetDamaged, match=r"a\.ome\.zarr"):
        get_backend("zarr").open(path, resource_kwargs).read((slice(0, 1, 1), slice(0, 1, 1), slice(0, 1, 1)))


def test_recovery_sweeps_what_a_kill_leaves(tmp_path: Path) -> None:
    backend, path = get_backend("zarr"), tmp_path / "a.ome.zarr"
    resource_kwargs = write_zarr(path, array_spec((9, 11)))
    (path / "0/c/2/0/0.__lock").write_bytes(b"half a shard")
    (path / "0/c/3/0").mkdir(parents=True)
    (path / "0/.zarr.json.4711.tmp").write_bytes(b"{")
    backend.recover(path, resource_kwargs, 2)
    left = {str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_file() or entry.name == "3"}
    assert left == {"zarr.json", "0/zarr.json", "0/c/0/0/0", "0/c/1/0/0", "0/c/2/0/0"}
    check_events(backend.open(path, resource_kwargs), 2)


# -- TIFF, judged by tifffile and ome-types --


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((33, 47), (1, 1)), ((7, 33, 47), (1, 7)), ((2, 33, 47), (1, 2)), ((2, 5, 20, 31), (2, 5))],
)
def test_images_are_valid_ome_tiff(tmp_path: Path, shape: tuple[int, ...], sizes: tuple[int, int]) -> None:
    write_asset(get_backend("tiff"), tmp_path / "a", array_spec(shape))
    file = tmp_path / "a" / "000002.ome.tif"
    image = ome_types.from_tiff(file).images[0]
    pixels = image.pixels
    assert (pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == (*sizes, *shape[-2:])
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.1625, "µm")
    assert (pixels.physical_size_y, pixels.physical_size_y_unit.value) == (0.1625, "µm")
    assert image.name == "camera"
    assert image.acquisition_date.timestamp() == pytest.approx(START_S + 2, abs=1e-3)
    assert [plane.delta_t for plane in pixels.planes] == [2.0] * int(np.prod(shape[:-2]))
    if sizes[0] > 1:
        assert [channel.name for channel in pixels.channels] == ["view_a", "view_b"]
    if len(shape) > 2:
        assert (pixels.physical_size_z, pixels.physical_size_z_unit.value) == (1.0, "µm")
    check_frame(tifffile.imread(file), event=2)


@pytest.mark.parametrize("dtype", ["|b1", "|u1", "|i1", "<u2", "<f4", "<u8", "<f2", "<c8"])
@pytest.mark.parametrize("shape", [(33, 47), (7, 33, 47), (2, 3, 4, 9, 11)])
def test_tiff_is_memory_mappable(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    spec = array_spec(shape, dtype)
    write_asset(get_backend("tiff"), tmp_path / "a", spec, [0])
    (file,) = (tmp_path / "a").iterdir()
    mapped = tifffile.memmap(file, mode="r")
    assert mapped.dtype == (np.uint8 if dtype == "|b1" else spec.dtype)
    assert np.array_equal(mapped, encoded_frame(shape, dtype))


@pytest.mark.parametrize(
    ("shape", "dtype", "name"),
    [
        ((33, 47), "<u2", "000000.ome.tif"),
        ((33, 47), "|b1", "000000.ome.tif"),
        ((33, 47), "<i8", "000000.tif"),
        ((33, 47), "<f2", "000000.tif"),
        ((1000,), "<u2", "000000.tif"),
        ((2, 3, 4, 9, 11), "<u2", "000000.tif"),
    ],
)
def test_what_ome_tiff_cannot_hold_is_plain_tiff(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, name: str
) -> None:
    write_asset(get_backend("tiff"), tmp_path / "a", array_spec(shape, dtype), [0])
    assert [file.name for file in (tmp_path / "a").iterdir()] == [name]
    with tifffile.TiffFile(tmp_path / "a" / name) as tiff:
        assert tiff.is_ome == name.endswith(".ome.tif")
        assert np.array_equal(tiff.asarray().reshape(shape), encoded_frame(shape, dtype))


def test_folder_of_tiffs_shows_published_events_only(tmp_path: Path) -> None:
    spec = array_spec((9, 11))
    sink = get_backend("tiff").create(tmp_path / "a", spec)
    begin(sink, spec, [0, 1, 2])
    assert list((tmp_path / "a").glob("*.tif")) == []
    sink.publish(2)
    assert sorted(file.name for file in (tmp_path / "a").glob("*.tif")) == [
        "000000.ome.tif",
        "000001.ome.tif",
    ]
    sink.close()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["000000.ome.tif", "000001.ome.tif"]


def test_lost_tiff_is_missing_and_the_other_events_are_not(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    source = backend.open(path, write_asset(backend, path, array_spec((9, 11))))
    (path / "000001.ome.tif").unlink()
    with pytest.raises(AssetMissing, match=r"000001\.ome\.tif"):
        source.read(full(source.shape))
    check_frame(source.read((slice(2, 3, 1), slice(0, 9, 1), slice(0, 11, 1)))[0], event=2)


@pytest.mark.parametrize("how", ["compressed", "apart", "transposed", "big-endian", "no tiff"])
def test_foreign_tiff_is_damaged(tmp_path: Path, how: str) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((3, 16, 32)))
    file, frame = path / "000001.ome.tif", encoded_frame((3, 16, 32), "<u2", event=1)
    if how == "compressed":
        tifffile.imwrite(file, frame, compression="zlib", photometric="minisblack")
    elif how == "apart":
        with tifffile.TiffWriter(file) as tiff:
            for plane in frame:
                tiff.write(plane, photometric="minisblack", contiguous=False)
    elif how == "transposed":
        tifffile.imwrite(file, frame.transpose(0, 2, 1).copy(), photometric="minisblack")
    elif how == "big-endian":
        tifffile.imwrite(file, frame.astype(">u2"), byteorder=">", photometric="minisblack")
    else:
        file.write_bytes(b"not a tiff at all" * 1000)
    source = backend.open(path, resource_kwargs)
    with pytest.raises(AssetDamaged, match=r"000001\.ome\.tif"):
        source.read(full(source.shape))


def test_file_with_an_absurd_number_is_damaged(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((9, 11)))
    (path / "999999999999.ome.tif").write_bytes(b"")
    with pytest.raises(AssetDamaged, match="holds 4 files"):
        backend.open(path, resource_kwargs)


def test_tiff_replaced_since_it_was_first_read_is_read_anew(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    source = backend.open(path, write_asset(backend, path, array_spec((9, 11)), [0]))
    check_events(source, 1)
    (path / "000000.ome.tif").unlink()
    tifffile.imwrite(
        path / "000000.ome.tif", encoded_frame((9, 11), "<u2"), description="x" * 999, metadata=None
    )
    check_events(source, 1)


def test_bool_that_is_neither_true_nor_false_is_damaged(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    source = backend.open(path, write_asset(backend, path, array_spec((9, 11), "|b1"), [0]))
    tifffile.imwrite(path / "000000.ome.tif", np.full((9, 11), 7, np.uint8), photometric="minisblack")
    with pytest.raises(AssetDamaged, match="true and false"):
        source.read(full(source.shape))


# -- both --


@pytest.mark.parametrize("name", ["zarr", "tiff"])
def test_full_disk_is_told_as_such(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the call that makes folders; a disk that is really full is met in tests/crash."""
    import errno
    import os

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full_disk)
    with pytest.raises(StorageFull, match="nothing was written") as caught:
        get_backend(name).create(tmp_path / "a", array_spec((9, 11)))
    assert caught.value.errno == errno.ENOSPC


def test_waiting_and_closing_survive_a_failed_write(tmp_path: Path) -> None:
    """What was published before is kept, whatever becomes of later frames."""
    for name in ("zarr", "tiff"):
        backend, spec, path = get_backend(name), array_spec((512, 512)), tmp_path / name
        sink = backend.create(path, spec)
        begin(sink, spec, [0])
        sink.publish(1)
        with no_file_larger_than(4096):
            pending = sink.write(1, encoded_frame(spec.shape, spec.dtype, event=1), START_S)
            with pytest.raises(OSError, match="not stored"):
                pending.result()
        with pytest.raises(OSError, match="not stored"):
            sink.publish(2)
        sink.close()
        check_events(backend.open(path, as_documented(sink)), 1)
