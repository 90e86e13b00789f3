"""What is carried away is what the store holds, whole or not at all; others read it without us."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
import tifffile
import zarr
from foreign_runs import datum_run, frames, write_tiffs
from nights import EVENTS, SHAPE, acquire, event_file, folder_of
from second_place import FRAMES, overflowing

from gently_bluesky import Store, exported, replay
from gently_bluesky.errors import AssetDamaged, InputError, InvalidSetting, LookupFailed, StorageFull
from gently_bluesky.jsontext import encode
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

SHOWN = (1, 2, 3)
"""Events of a night, without the one that a rewind repeated."""


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A store with a run, a projection and a number, and the uids."""
    root = tmp_path_factory.mktemp("export") / "store"
    with Store(root) as store:
        uid = acquire(store, "tiff")
        view = np.asarray(store[uid]["view_a"][0])
        mip = store.put(view.max(axis=0), data_type="projection", parents=[store[uid]["view_a"][0].uid])
        number = store.put({"nuclei": 12}, data_type="count", parents=[uid])
    with Store(root, mode="r") as reader:
        yield reader, uid, mip.uid, number.uid


def read_back(folder, key, format):
    """Read an exported array by what others use."""
    if format == "npy":
        return np.load(folder / f"primary-{key}.npy")
    if format == "zarr":
        return zarr.open(folder / f"primary-{key}.ome.zarr", mode="r")["0"][:]
    files = sorted((folder / f"primary-{key}").iterdir())
    assert [file.name for file in files] == [f"{event:06d}.ome.tif" for event in range(len(files))]
    return np.stack([tifffile.imread(file) for file in files])


@pytest.mark.parametrize("format", ["zarr", "tiff", "npy"])
def test_the_arrays_of_a_run_are_carried_away_as_the_run_shows_them(night, tmp_path, format):
    store, uid, *_ = night
    made = store.export(uid, tmp_path / "copy", format=format)
    for key in ("view_a", "view_b"):
        pixels = read_back(tmp_path / "copy", key, format)
        assert pixels.shape == (len(SHOWN), *SHAPE)
        for frame, event in zip(pixels, SHOWN, strict=True):
            check_frame(frame, key=key, event=event)
    assert (made.path, made.run, made.status, made.unchecked) == (tmp_path / "copy", uid, "complete", 0)
    assert made.nbytes == 2 * len(SHOWN) * int(np.prod(SHAPE)) * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    said = json.loads((tmp_path / "copy" / "arrays.json").read_text())
    assert [(one["data_key"], one["shape"], one["dims"]) for one in said] == [
        (key, [3, *SHAPE], ["t", "z", "y", "x"]) for key in ("view_a", "view_b")
    ]
    assert (tmp_path / "copy" / said[0]["file"]).exists()
    assert said == json.loads(encode(made.to_dict()["arrays"]))
    assert len(set(said[0]["event_time_s"])) == len(SHOWN)


def test_the_documents_of_the_run_lie_beside_its_arrays(night, tmp_path):
    store, uid, *_ = night
    store.export(store[uid]["view_b"].uid, tmp_path / "copy", format="npy")
    lines = (tmp_path / "copy" / "documents.jsonl").read_bytes().splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == list(store[uid].documents())
    seen = []
    assert replay(tmp_path / "copy", lambda name, doc: seen.append(name), fill=False) == (uid,)
    assert seen.count("event") == EVENTS
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "arrays.json",
        "documents.jsonl",
        "primary-view_b.npy",
    }


def test_an_array_by_its_uid_has_the_superseded_events_too(night, tmp_path):
    store, uid, *_ = night
    store.export(store[uid]["view_b"].uid, tmp_path / "copy", format="npy")
    pixels = read_back(tmp_path / "copy", "view_b", "npy")
    assert len(pixels) == EVENTS
    for event, frame in enumerate(pixels):
        check_frame(frame, key="view_b", event=event)


@pytest.mark.parametrize("format", ["tiff", "npy"])
def test_one_event_is_one_frame(night, tmp_path, format):
    store, uid, *_ = night
    (array,) = store.export(store[uid]["view_a"][1].uid, tmp_path / "copy", format=format).arrays
    pixels = read_back(tmp_path / "copy", "view_a", format)
    assert array.dims == ("z", "y", "x")
    check_frame(pixels if format == "npy" else pixels[0], key="view_a", event=SHOWN[1])


def test_a_result_is_carried_away_like_a_run(night, tmp_path):
    store, _, mip, number = night
    (array,) = store.export(mip, tmp_path / "copy", format="zarr").arrays
    pixels = read_back(tmp_path / "copy", "projection", "zarr")
    np.testing.assert_array_equal(pixels[0], np.asarray(store.get(mip)))
    assert array.data_key == "projection"
    with pytest.raises(LookupFailed, match="holds no stored arrays; nothing was copied"):
        store.export(number, tmp_path / "none")


def test_pixel_sizes_and_resolutions_go_along(tmp_path):
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    frame = encoded_frame((64, 64), "<u2")
    with Store(tmp_path / "store") as store:
        with store.writer(levels=2) as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            writer("event", run.event(descriptor, 1, camera=frame))
            writer("stop", run.stop())
        store.export(run.uid, tmp_path / "copy")
    ours, theirs = (
        json.loads((folder / "primary-camera.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
        for folder in (folder_of(Store(tmp_path / "store", mode="r"), run.uid), tmp_path / "copy")
    )
    assert ours == theirs
    assert len(theirs["multiscales"][0]["datasets"]) == 2


def test_a_data_key_that_changed_its_shape_is_carried_away_in_parts(tmp_path):
    run = HandMadeRun()
    with Store(tmp_path / "store") as store:
        with store.writer() as writer:
            writer("start", run.start)
            for number, shape in enumerate([(8, 9), (10, 11)], 1):
                descriptor = run.descriptor(camera={})
                writer("descriptor", descriptor)
                writer(
                    "event", run.event(descriptor, number, camera=encoded_frame(shape, "<u2", event=number))
                )
            writer("stop", run.stop())
        made = store.export(run.uid, tmp_path / "copy", format="npy")
    assert [array.file for array in made.arrays] == ["primary-camera.npy", "primary-camera-2.npy"]
    check_frame(np.load(tmp_path / "copy" / "primary-camera-2.npy")[0], event=2)


# -- whole or not at all -------------------------------------------------------------------------------


def test_nothing_that_is_there_is_touched(night, tmp_path):
    store, uid, *_ = night
    (tmp_path / "file").write_text("mine")
    (tmp_path / "copy.partial").mkdir()
    for place, message in (
        (tmp_path / "file", "something is there; it was not touched"),
        (tmp_path / "copy", "a copy is just being made, or the process that made one was killed"),
        (tmp_path / "none" / "copy", "there is none; nothing was copied"),
        (store.root / "copy", "lies in the store"),
    ):
        with pytest.raises(InputError, match=message):
            store.export(uid, place)
    with pytest.raises(InvalidSetting, match="zarr, tiff"):
        store.export(uid, tmp_path / "new", format="hdf5")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.partial", "file"]


@pytest.mark.parametrize("format", ["zarr", "npy"])
def test_pixels_that_are_not_those_announced_are_not_carried_away(tmp_path, format):
    with Store(tmp_path / "store") as store:
        uid = acquire(store, "tiff")
        path = event_file(store, uid, 2)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(AssetDamaged, match="nothing is left of the copy"):
            store.export(uid, tmp_path / "copy", format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("format", ["zarr", "tiff", "npy"])
def test_a_copy_that_is_broken_off_leaves_nothing(night, tmp_path, format):
    store, uid, *_ = night
    seen = []

    def interrupt(done, total, what):
        seen.append((done, total, what))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.export(uid, tmp_path / "copy", format=format, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    one = int(np.prod(SHAPE)) * 2
    assert seen[0] == (one, 6 * one, "view_a")


def test_there_has_to_be_room_for_a_copy_before_it_is_begun(night, tmp_path, monkeypatch):
    store, uid, *_ = night
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    for format in ("npy", "tiff"):
        with pytest.raises(StorageFull, match=r"takes 72.0 kB, .* has 1.0 kB free; nothing was copied"):
            store.export(uid, tmp_path / "copy", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system sets no room aside")
@pytest.mark.parametrize("format", ["zarr", "npy"])
def test_a_disk_that_fills_up_under_a_copy_is_an_error_and_leaves_nothing(
    night, tmp_path, format, monkeypatch
):
    """Pixels are put together in files that are mapped: without room the system would kill the process."""
    store, uid, *_ = night
    monkeypatch.setattr(exported, "IN_MEMORY_BYTES", 0)
    taken = []

    def full(fd, offset, length):
        taken.append(length)
        if len(taken) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageFull, match="nothing is left of the copy"):
        store.export(uid, tmp_path / "copy", format=format)
    assert taken[1] >= int(np.prod(SHAPE)) * 2
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_another_writer_is_carried_away_and_what_is_unchecked_is_told(tmp_path):
    write_tiffs(tmp_path / "ioc", 3)
    documents = datum_run(
        "AD_TIFF",
        tmp_path / "ioc",
        "",
        {"template": "%s%s_%6.6d.tiff", "filename": "img", "frame_per_point": 1},
        [{"point_number": number} for number in range(3)],
    )
    with Store(tmp_path / "store", allowed_roots=[tmp_path / "ioc"]) as store:
        with store.writer() as writer:
            for document in documents:
                writer(*document)
        made = store.export(documents[0][1]["uid"], tmp_path / "copy", format="npy")
    pixels = np.load(tmp_path / "copy" / "primary-image.npy")
    np.testing.assert_array_equal(pixels.reshape(3, *frames(3).shape[1:]), frames(3))
    assert made.unchecked == 3
    assert "3 events of other writers" in str(made)


def test_a_run_that_went_on_in_the_second_place_is_carried_away_whole(tmp_path):
    with Store(tmp_path / "store", overflow=tmp_path / "second") as store:
        uid = overflowing(store)
        made = store.export(uid, tmp_path / "copy", format="npy")
        with pytest.raises(InputError, match="lies in the store"):
            store.export(uid, tmp_path / "second" / "copy")
    np.testing.assert_array_equal(np.load(tmp_path / "copy" / "primary-camera.npy"), FRAMES)
    assert made.unchecked == 0
    lines = (tmp_path / "copy" / "documents.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["name"] for line in lines].count("event") == len(FRAMES)


@pytest.mark.long
@pytest.mark.parametrize("format", ["zarr", "tiff", "npy"])
def test_an_event_that_is_large_takes_little_memory(tmp_path, format):
    """320 MiB in one event, written and read; what is allocated on the way is counted."""
    shape, run = (40, 2048, 2048), HandMadeRun()
    descriptor = run.descriptor(camera={})
    with Store(tmp_path / "store") as store:
        with store.writer(format="tiff") as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            writer("event", run.event(descriptor, 1, camera=encoded_frame(shape, "<u2")))
            writer("stop", run.stop())
        del writer
        tracemalloc.start()
        store.export(run.uid, tmp_path / "copy", format=format)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 150e6
    assert {path.name for path in (tmp_path / "copy").iterdir()} >= {"arrays.json", "documents.jsonl"}
    assert not list((tmp_path / "copy").glob("*scratch*"))
    pixels = read_back(tmp_path / "copy", "camera", format)
    check_frame(pixels[0])
