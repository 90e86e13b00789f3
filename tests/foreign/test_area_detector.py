"""Files and documents as area-detector IOCs and other writers make them, opened from the store."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from event_model import Filler
from foreign_runs import SHAPE, datum_run, frame, frames, send, stream_run, uri_of, write_hdf5, write_tiffs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gently_bluesky import Store, StreamResolver, handler_registry
from gently_bluesky.errors import AssetDamaged, AssetMissing, LookupFailed
from gently_bluesky.testing.strategies import indices_for

TEMPLATE = "%s%s_%6.6d.tiff"
POINTS = [{"point_number": number} for number in range(3)]
HDF5, TIFF = "application/x-hdf5", "multipart/related;type=image/tiff"


def tiff_run(data, per_point=1, count=3):
    write_tiffs(data / "scan", count * per_point)
    kwargs = {"template": TEMPLATE, "filename": "img", "frame_per_point": per_point}
    return datum_run("AD_TIFF", data, "scan", kwargs, POINTS[:count])


def hdf5_run(data, per_point=1, count=3, spec="AD_HDF5"):
    write_hdf5(data / "scan.h5", count * per_point)
    return datum_run(spec, data, "scan.h5", {"frame_per_point": per_point}, POINTS[:count])


KINDS = pytest.mark.parametrize("made", [tiff_run, hdf5_run], ids=["AD_TIFF", "AD_HDF5"])


@KINDS
@pytest.mark.parametrize("per_point", [1, 4])
def test_arrays_of_area_detectors_open_lazily(store, data, made, per_point):
    uid = send(store, made(data, per_point))
    expected = frames(3 * per_point).reshape(3, per_point, *SHAPE)
    array = store[uid]["primary"]["image"]
    assert (array.shape, array.dtype) == (expected.shape, np.uint16)
    assert np.array_equal(array, expected)
    assert np.array_equal(array[1, -1], expected[1, -1])
    assert np.array_equal(array[::-1, 0, 1:4, [5, 0]], expected[::-1, 0, 1:4, [5, 0]])
    assert np.array_equal(store.array(array.uid)[2], expected[2])
    assert np.array_equal(store.array(array[1].uid), expected[1])


@KINDS
def test_handlers_give_what_the_handlers_of_the_field_give(store, data, made):
    from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorTiffHandler

    theirs = {"AD_TIFF": AreaDetectorTiffHandler, "AD_HDF5": AreaDetectorHDF5Handler}
    uid = send(store, made(data, 2))
    arrays = []
    for registry in (handler_registry(), theirs):
        with Filler(registry, inplace=False, coerce="force_numpy") as filler:
            filled = [filler(name, doc)[1] for name, doc in store[uid].documents() if name != "stop"]
        arrays.append([doc["data"]["image"] for doc in filled if "seq_num" in doc])
    assert np.array_equal(*arrays)


@KINDS
def test_filler_finds_moved_files_by_root_map(tmp_path, store, data, made):
    documents = made(data)
    send(store, documents)
    now = tmp_path / "archive"
    data.rename(now)
    with Filler(handler_registry(), root_map={str(data): str(now)}, inplace=False) as filler:
        filled = [filler(name, doc)[1] for name, doc in documents if name != "stop"]
    assert np.array_equal([doc["data"]["image"][0] for doc in filled if "seq_num" in doc], frames(3))


def test_hdf5_of_stream_documents_is_cut_into_events_as_declared(store, data):
    write_hdf5(data / "scan.h5", 6, "/entry/data/cam")
    parameters = {"dataset": "/entry/data/cam", "chunk_shape": [1, *SHAPE], "swmr": True}
    uri = uri_of(data / "scan.h5")
    for shape, cut in (((2, *SHAPE), (3, 2, *SHAPE)), ((1, *SHAPE), (6, 1, *SHAPE)), (SHAPE, (6, *SHAPE))):
        uid = send(store, stream_run(HDF5, uri, parameters, [(0, 1), (1, cut[0])], shape))
        array = store[uid]["image"]
        assert array.shape == cut
        assert np.array_equal(array, frames(6).reshape(cut))
        assert np.array_equal(array[1:, ..., 2, [3, 3, 0]], frames(6).reshape(cut)[1:, ..., 2, [3, 3, 0]])
    uid = send(store, stream_run(HDF5, uri, {**parameters, "join_method": "stack"}, [(0, 6)], (1, *SHAPE)))
    assert np.array_equal(store[uid]["image"][:, 0], frames(6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=indices_for((3, 2, *SHAPE), newaxis=False), chunks=st.sampled_from([None, (1, 3, 4), (4, 6, 8)]))
def test_every_index_reads_from_hdf5_what_numpy_would(tmp_path, index, chunks):
    from gently_bluesky.foreign.kinds import ForeignAsset, open_foreign
    from gently_bluesky.foreign.roots import Roots
    from gently_bluesky.lazy import LazyArray

    path = tmp_path / "x.h5"
    path.unlink(missing_ok=True)
    write_hdf5(path, 6, chunks=chunks)
    asset = ForeignAsset(path, {"frame_per_point": 2}, 3, roots=Roots([tmp_path]))
    array = LazyArray(open_foreign("AD_HDF5", asset), dims=("t", "f", "y", "x"))
    assert np.array_equal(array[index], frames(6).reshape(3, 2, *SHAPE)[index])


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("img_{:05d}.tif", "img_{:05d}.tif"),
        ("{}.tif", "{}.tif"),
        ("cam_%d.tif", "cam_{}.tif"),
        ("{:d}.tif", "{}.tif"),
    ],
)
@pytest.mark.parametrize("join", ["stack", "concat"])
def test_tiff_of_stream_documents_opens(store, data, template, name, join):
    write_tiffs(data / "tiffs", 4, name)
    parameters = {"template": template, "chunk_shape": [1, *SHAPE], "join_method": join}
    shape, cut = ((1, *SHAPE), (4, 1, *SHAPE)) if join == "stack" else ((2, *SHAPE), (2, 2, *SHAPE))
    documents = stream_run(TIFF, f"{uri_of(data / 'tiffs')}/", parameters, [(0, 1), (1, cut[0])], shape)
    uid = send(store, documents)
    array = store[uid]["image"]
    assert np.array_equal(array, frames(4).reshape(cut))
    resolver = StreamResolver()
    for name_, doc in documents:
        resolver(name_, doc)
    assert np.array_equal(resolver.array(documents[4][1]), array[1:])


@pytest.mark.parametrize(
    "how",
    [
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"tile": (16, 16)},
        {"rowsperstrip": 2},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_tiff_files_of_every_make_give_the_same_pixels(store, data, how):
    volume = np.stack([frame(n, (40, 30)) for n in range(6)]).reshape(2, 3, 40, 30)
    for event in range(2):
        tifffile.imwrite(data / f"v_{event}.tif", volume[event], photometric="minisblack", **how)
    uid = send(
        store,
        datum_run(
            "AD_TIFF", data.parent, data.name, {"template": "%s%s_%d.tif", "filename": "v"}, POINTS[:2]
        ),
    )
    array = store[uid]["image"]
    assert array.dtype == np.dtype("u2")
    assert np.array_equal(array[:, 0], volume)
    assert np.array_equal(array[1, 0, [2, 0], 7:9], volume[1][[2, 0], 7:9])


@pytest.mark.parametrize(
    "make", [np.asfortranarray, lambda array: array.astype(">f4")], ids=["fortran", "big-endian"]
)
def test_numpy_files_of_either_order_give_the_same_pixels(store, data, make):
    volumes = [make(np.arange(60, dtype="f4").reshape(3, 4, 5) + event) for event in range(2)]
    for event, volume in enumerate(volumes):
        np.save(data / f"v_{event}.npy", volume)
    uid = send(store, datum_run("NPY_SEQ", data, "v", {}, [{"index": 0}, {"index": 1}], ()))
    array = store[uid]["image"]
    assert np.array_equal(array, volumes)
    assert np.array_equal(array[1, 2, :, [4, 0]], np.asarray(volumes[1])[2, :, [4, 0]])


def test_compressed_hdf5_opens_and_a_dataset_in_another_allowed_file_too(store, data):
    write_hdf5(data / "raw" / "part.h5", 3, "d", compression="gzip")
    with h5py.File(data / "scan.h5", "w") as file:
        layout = h5py.VirtualLayout((3, *SHAPE), "u2")
        layout[:] = h5py.VirtualSource("raw/part.h5", "d", (3, *SHAPE))
        file.create_virtual_dataset("virtual", layout)
        file["linked"] = h5py.ExternalLink("raw/part.h5", "/d")
        file["soft"] = h5py.SoftLink("/linked")
    for dataset in ("virtual", "linked", "soft"):
        uid = send(store, stream_run(HDF5, uri_of(data / "scan.h5"), {"dataset": dataset}))
        assert np.array_equal(store[uid]["image"][:, 0], frames(3))


def test_files_that_come_late_or_go_away_say_so(store, data):
    uid = send(store, tiff_run(data))
    array = store[uid]["image"]
    (data / "scan" / "img_000001.tiff").unlink()
    assert np.array_equal(array[2, 0], frame(2))
    with pytest.raises(AssetMissing, match=r"img_000001.tiff is not there"):
        array[1].compute()
    write_hdf5(data / "short.h5", 2)
    uid = send(store, datum_run("AD_HDF5", data, "short.h5", {}, POINTS))
    with pytest.raises(AssetMissing, match="3 events were announced, /entry/data/data has 2 rows"):
        store[uid]["image"]
    uid = send(store, stream_run(HDF5, uri_of(data / "short.h5"), {"dataset": "/entry/other"}))
    with pytest.raises(AssetMissing, match="has no dataset '/entry/other'"):
        store[uid]["image"]


def test_what_the_documents_say_and_the_files_do_not_hold_is_damage(store, data):
    write_hdf5(data / "scan.h5", 3)
    uri, parameters = uri_of(data / "scan.h5"), {"dataset": "/entry/data/data"}
    uid = send(store, stream_run(HDF5, uri, parameters, shape=(1, 10**9, 10**9)))
    with pytest.raises(AssetDamaged, match=r"expected events of \(1, 1000000000, 1000000000\)"):
        store[uid]["image"]
    for said in ({**parameters, "slice": "0:1"}, {**parameters, "squeeze": True}):
        with pytest.raises(LookupFailed, match="is not applied here"):
            store[send(store, stream_run(HDF5, uri, said))]["image"]
    write_tiffs(data / "mixed", 1)
    tifffile.imwrite(data / "mixed" / "img_000001.tiff", np.zeros((9, 9), "u1"))
    kwargs = {"template": TEMPLATE, "filename": "img"}
    uid = send(store, datum_run("AD_TIFF", data, "mixed", kwargs, POINTS[:2]))
    with pytest.raises(
        AssetDamaged, match=r"expected \(6, 8\) of uint16, as in the first file, found \(9, 9\)"
    ):
        store[uid]["image"][1].compute()


def test_files_below_the_store_are_adopted_where_they_lie_and_move_with_it(tmp_path):
    root = tmp_path / "store"
    with Store(root) as store:
        write_hdf5(root / "incoming" / "scan.h5", 3)
        uid = send(store, datum_run("AD_HDF5", "", "incoming/scan.h5", {}, POINTS))
        assert np.array_equal(store[uid]["image"][:, 0], frames(3))
    root.rename(tmp_path / "moved")
    with Store(tmp_path / "moved", mode="r") as store:
        assert np.array_equal(store[uid]["image"][:, 0], frames(3))


def test_nothing_is_left_open(store, data):
    arrays = [
        store[send(store, made(data / name))]["image"] for name, made in (("a", tiff_run), ("b", hdf5_run))
    ]
    for array in arrays:
        array.compute()
    if sys.platform == "linux":
        opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        assert not [path for path in opened if path.startswith(str(data))]
    with h5py.File(data / "b" / "scan.h5", "a") as file:
        file["more"] = 1  # nobody holds a lock


def test_many_threads_read_one_array(store, data):
    array = store[send(store, hdf5_run(data, 4))]["image"]
    expected, wrong = frames(12).reshape(3, 4, *SHAPE), []

    def read(event):
        wrong.extend(event for _ in range(20) if not np.array_equal(array[event], expected[event]))

    threads = [threading.Thread(target=read, args=(event,)) for event in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
