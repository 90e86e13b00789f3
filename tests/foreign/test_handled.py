"""Assets that nothing of ours reads, opened from the store by handlers of installed packages and of users."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from foreign_runs import SHAPE, datum_run, frame, frames, install, send, stream_run, uri_of, write_hdf5

from gently_bluesky import Store, handler_registry
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    GentlyError,
    InvalidSetting,
    LookupFailed,
    PathNotAllowed,
    StorageError,
)

POINTS = [{"point_number": number} for number in range(3)]
DATASET = "/entry/instrument/detector/data"


def opened_files(folder):
    """Return the files of a folder that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [path for path in links if path.startswith(str(folder))]


def let_go(arrays):
    arrays.clear()
    gc.collect()


@pytest.fixture
def stores(tmp_path, data):
    """Makes stores with handlers, and closes them."""
    opened = []

    def make(**handlers):
        opened.append(Store(tmp_path / "handled", allowed_roots=[data], handlers=handlers))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


# -- handlers of installed packages ------------------------------------------------------------------------


def test_a_spec_that_an_installed_package_handles_opens_lazily(store, data):
    """By area_detector_handlers, which gives dask arrays, and has no close of its own when it goes."""
    write_hdf5(data / "scan.h5", 6, DATASET)
    uid = send(store, datum_run("TPX_HDF5", data, "scan.h5", {"frame_per_point": 2}, POINTS, (2, *SHAPE)))
    expected = frames(6).reshape(3, 2, *SHAPE)
    array = store[uid]["primary"]["image"]
    assert (array.shape, array.dtype) == (expected.shape, np.uint16)
    assert np.array_equal(array, expected)
    assert np.array_equal(array[::-1, 0, 1:4, [5, 0, 5]], expected[::-1, 0, 1:4, [5, 0, 5]])
    assert np.array_equal(store.array(array.uid)[2, 1], expected[2, 1])
    assert np.array_equal(store.array(array[1].uid), expected[1])
    assert np.array_equal(array.max(axis=0), expected.max(axis=0))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which files are open")
def test_a_handler_is_closed_when_what_it_opened_is_let_go(store, data):
    write_hdf5(data / "scan.h5", 3, DATASET)
    uid = send(store, datum_run("TPX_HDF5", data, "scan.h5", {}, POINTS))
    array = store[uid]["image"]
    plane = array[1, 0, 2:4]
    del array
    gc.collect()
    assert opened_files(data)
    assert np.array_equal(plane, frame(1)[2:4])
    del plane
    gc.collect()
    assert not opened_files(data)


def test_several_keys_of_one_resource_are_told_apart_by_their_datums(store, data):
    """As Xspress3 detectors write: one file, and a channel for each data key."""
    spectra = np.arange(3 * 2 * 16, dtype="f8").reshape(3, 2, 16)
    with h5py.File(data / "x.h5", "w") as file:
        file[DATASET] = spectra
    datums = [{"frame": number, "channel": 2} for number in range(3)]
    uid = send(store, datum_run("XSP3", data, "x.h5", {}, datums, (16,)))
    array = store[uid]["image"]
    assert np.array_equal(array, spectra[:, 1])
    assert np.array_equal(store.array(array[2].uid)[3:5], spectra[2, 1, 3:5])


def test_times_that_a_package_reads_are_values_along_the_events(store, data):
    with h5py.File(data / "x.h5", "w") as file:
        file["/entry/instrument/NDAttributes/NDArrayEpicsTSSec"] = np.arange(3)
        file["/entry/instrument/NDAttributes/NDArrayEpicsTSnSec"] = np.full(3, 500_000_000)
    array = store[send(store, datum_run("AD_HDF5_TS", data, "x.h5", {}, POINTS, ()))]["image"]
    assert array.shape == (3,)
    assert np.array_equal(array[1:], [1.5, 2.5])


def test_files_that_a_handler_would_read_outside_of_the_allowed_roots_are_not_read(tmp_path, store, data):
    for folder in (tmp_path / "secret", data):
        for number in range(3):
            write_hdf5(folder / f"img_{number:06d}.h5", 1)
    kwargs = {"template": "%s%s_%6.6d.h5", "filename": "img"}

    def run(root, path, **more):
        return datum_run("AD_HDF5_SINGLE", root, path, {**kwargs, **more}, POINTS)

    assert np.array_equal(store[send(store, run(tmp_path, data.name))]["image"], [frames(1)] * 3)
    for documents in (
        run(tmp_path / "secret", ""),
        run(data, "../secret"),
        run(data, "", template="%s../secret/%s_%6.6d.h5"),
        run(data, "", filename=f"{tmp_path / 'secret'}/img", template="%.0s%s_%6.6d.h5"),
    ):
        with pytest.raises(PathNotAllowed, match="nothing was read there"):
            store[send(store, documents)]["image"]
    (data / "img_000002.h5").unlink()
    (data / "img_000002.h5").symlink_to(tmp_path / "secret" / "img_000002.h5")
    array = store[send(store, run(data, ""))]["image"]
    assert np.array_equal(array[1, 0], frame(0))
    with pytest.raises(PathNotAllowed, match="a file that the handler would read"):
        array[2].compute()


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (None, AssetMissing, "found nothing"),
        (b"not HDF5", StorageError, "no pixels were returned|could not read"),
    ],
)
def test_what_a_package_cannot_read_is_an_error_of_the_asset(store, data, content, error, match):
    if content is not None:
        (data / "scan.h5").write_bytes(content)
    uid = send(store, datum_run("TPX_HDF5", data, "scan.h5", {}, POINTS))
    with pytest.raises(error, match=match):
        store[uid]["image"]
    write_hdf5(data / "short.h5", 2, DATASET)
    array_of = send(store, datum_run("TPX_HDF5", data, "short.h5", {}, POINTS))
    with pytest.raises(AssetDamaged, match=r"the handler of 'TPX_HDF5' failed: ValueError\('Invalid slicing"):
        store[array_of]["image"][2].compute()
    unknown = send(store, datum_run("TPX_HDF5", data, "short.h5", {"odd": 1}, POINTS))
    with pytest.raises(AssetDamaged, match="unexpected keyword argument 'odd'"):
        store[unknown]["image"]


def test_a_package_that_is_broken_says_so_and_what_to_do(tmp_path, store, data, monkeypatch):
    install(tmp_path / "packages", "half_wax", {"HALF": "Nothing"}, "raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    uid = send(store, datum_run("HALF", data, "x", {}, POINTS))
    with pytest.raises(LookupFailed, match=r"half_wax:Nothing of half_wax 1.0, could not be imported"):
        store[uid]["image"]


# -- handlers of the user --------------------------------------------------------------------------------------


class Notes:
    """A handler of a kind that nobody knows: arrays as text, one file for each; whole arrays."""

    opened: ClassVar[list[Notes]] = []

    def __init__(self, path, scale=1):
        self.path, self.scale, self.closed, self.asked = Path(path), scale, 0, []
        Notes.opened.append(self)

    def __call__(self, page):
        self.asked.append(page)
        return np.loadtxt(self.path / f"{page}.txt", dtype="i4", ndmin=2) * self.scale

    def close(self):
        self.closed += 1


@pytest.fixture
def notes(data):
    Notes.opened.clear()
    for number, name in enumerate(("first", "second", "third")):
        np.savetxt(data / f"{name}.txt", frame(number, (4, 5)), fmt="%d")
    yield np.stack([frame(number, (4, 5)) for number in range(3)]).astype("i4")
    Notes.opened.clear()


PAGES = [{"page": "first"}, {"page": "second"}, {"page": "third"}]


def test_a_users_handler_opens_what_nobody_knows(stores, data, notes):
    store = stores(NOTES=Notes)
    uid = send(store, datum_run("NOTES", data, "", {"scale": 2}, PAGES, (4, 5)))
    array = store[uid]["primary"]["image"]
    assert (array.shape, array.dtype, array.dims) == ((3, 4, 5), np.int32, ("t", "y", "x"))
    assert np.array_equal(array, notes * 2)
    assert np.array_equal(array[[2, 0], 1, ::-2], notes[[2, 0], 1, ::-2] * 2)
    assert np.array_equal(store.array(array[1].uid), notes[1] * 2)
    assert np.array_equal(array.mean(axis=0), (notes * 2).mean(axis=0))
    del array
    gc.collect()
    assert [handler.closed for handler in Notes.opened] == [1] * len(Notes.opened)
    with Store(store.root, mode="r", allowed_roots=[data]) as other:
        assert other[uid].status == "complete"
        with pytest.raises(LookupFailed, match=r"give one: Store\(root, handlers=\{'NOTES': ...\}\)"):
            other[uid]["image"]


def test_opening_asks_for_one_event_and_reading_for_those_that_are_read(stores, data, notes):
    store = stores(NOTES=Notes)
    array = store[send(store, datum_run("NOTES", data, "", {}, PAGES, (4, 5)))]["image"]
    (handler,) = Notes.opened
    assert handler.asked == ["first"]
    array[2, 1].compute()
    assert handler.asked == ["first", "third"]


def test_a_users_handler_wins_over_ours_and_those_of_packages(stores, data):
    class Mine:
        def __init__(self, path, **kwargs):
            pass

        def __call__(self, **kwargs):
            return np.full((2, 2), 7)

    write_hdf5(data / "scan.h5", 3)
    store = stores(AD_HDF5=Mine, TPX_HDF5=Mine, **{"application/x-hdf5": Mine, "text/notes": Mine})
    for spec in ("AD_HDF5", "TPX_HDF5"):
        array = store[send(store, datum_run(spec, data, "scan.h5", {}, POINTS))]["image"]
        assert np.array_equal(array, np.full((3, 2, 2), 7))
    for mimetype, parameters in (("application/x-hdf5", {}), ("text/notes", {"spec": "NOTES"})):
        uid = send(store, stream_run(mimetype, uri_of(data / "scan.h5"), parameters))
        array = store[uid]["image"]
        assert np.array_equal(array, np.full((3, 2, 2), 7))
        assert np.array_equal(store.array(array.uid)[1:], np.full((2, 2, 2), 7))
        datum = next(doc for name, doc in store[uid].documents() if name == "stream_datum")
        assert np.array_equal(store.array(datum["uid"]), np.full((2, 2), 7))


def test_handlers_mean_to_a_store_what_they_mean_to_the_registry(stores, data, notes):
    from event_model import Filler

    store = stores(NOTES=Notes)
    uid = send(store, datum_run("NOTES", data, "", {}, PAGES, (4, 5)))
    with Filler(handler_registry({"NOTES": Notes}), inplace=False) as filler:
        filled = [filler(name, doc)[1] for name, doc in store[uid].documents()]
    assert np.array_equal([doc["data"]["image"] for doc in filled if "seq_num" in doc], store[uid]["image"])


def test_arrays_of_a_users_handler_grow_with_their_run(stores, data, notes):
    store = stores(NOTES=Notes)
    documents = datum_run("NOTES", data, "", {}, PAGES, (4, 5))
    uid, seen = documents[0][1]["uid"], []
    with store.writer() as writer:
        for name, doc in documents[:5]:
            writer(name, doc)
        array = store[uid].wait("primary", "image", 1)
        thread = threading.Thread(target=lambda: seen.extend(map(np.asarray, array.follow(start=0))))
        thread.start()
        for name, doc in documents[5:]:
            writer(name, doc)
        thread.join()
    assert np.array_equal(seen, notes)
    assert np.array_equal(array.wait(3), notes)


def test_an_event_that_a_rewind_repeats_is_shown_as_it_came_last(stores, data, notes):
    store = stores(NOTES=Notes)
    documents = datum_run("NOTES", data, "", {}, PAGES, (4, 5))
    documents[-2][1]["seq_num"] = 2
    documents[-1][1]["num_events"] = {"primary": 2}
    run = store[send(store, documents)]
    assert np.array_equal(run["image"], notes[[0, 2]])
    assert np.array_equal(store.array(run["image"].uid), notes)
    assert np.array_equal(store.array(run["image"][1].uid), notes[2])


def test_many_threads_call_a_handler_one_at_a_time(stores, data):
    class Alone:
        def __init__(self, path):
            self.busy = threading.Lock()

        def __call__(self, point_number):
            assert self.busy.acquire(blocking=False)
            try:
                return np.full((8, 8), point_number)
            finally:
                self.busy.release()

    store = stores(ALONE=Alone)
    array = store[send(store, datum_run("ALONE", data, "", {}, POINTS, (8, 8)))]["image"]
    wrong = []

    def read():
        wrong.extend(n for n in range(3) if not np.array_equal(array[n], np.full((8, 8), n)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def gives(result):
    """Return a handler that gives, or raises, this for each event but the first."""

    class Gives:
        def __init__(self, path):
            pass

        def __call__(self, point_number):
            given = result if point_number or isinstance(result, type | str) else np.zeros((2, 2))
            if isinstance(given, Exception):
                raise given
            return given

    return Gives


@pytest.mark.parametrize(
    ("result", "error", "match"),
    [
        (
            np.zeros((3, 2)),
            AssetDamaged,
            r"gave \(3, 2\) of float64 for {'point_number': 1}, expected \(2, 2\)",
        ),
        (np.zeros((2, 2), "u1"), AssetDamaged, "expected .* of float64, as for the first datum"),
        (np.array([["a", "b"]]), AssetDamaged, "not numbers"),
        (np.array([[object()]]), AssetDamaged, "not numbers"),
        ("text", AssetDamaged, "not numbers"),
        (KeyError("odd"), AssetDamaged, r"failed: KeyError\('odd'\)"),
        (OSError("not there yet"), AssetMissing, "found nothing: not there yet.* try again"),
        (FileNotFoundError(2, "gone"), AssetMissing, "try again"),
        (PermissionError(13, "not yours"), StorageError, "could not read: not yours"),
        (MemoryError("too much"), MemoryError, "too much"),
    ],
    ids=["shape", "dtype", "text array", "objects", "text", "key", "os", "not found", "permission", "memory"],
)
def test_what_a_handler_gives_or_raises_is_not_believed(stores, data, result, error, match):
    store = stores(ODD=gives(result))
    uid = send(store, datum_run("ODD", data, "", {}, POINTS, (2, 2)))
    with pytest.raises(error, match=match):
        store[uid]["image"][1].compute()


def test_a_handler_that_cannot_be_closed_says_so(stores, data):
    class Stuck(gives(None)):
        def close(self):
            raise RuntimeError("stuck")

    store = stores(STUCK=Stuck)
    arrays = [store[send(store, datum_run("STUCK", data, "", {}, POINTS, (2, 2)))]["image"]]
    with pytest.warns(RuntimeWarning, match=r"could not be closed: RuntimeError\('stuck'\)"):
        let_go(arrays)


def test_a_handler_is_closed_when_what_it_gives_cannot_be_used(stores, data, notes):
    store = stores(NOTES=Notes)
    uid = send(store, datum_run("NOTES", data, "", {}, [{"page": "never"}], (4, 5)))
    with pytest.raises(AssetMissing):
        store[uid]["image"]
    assert [handler.closed for handler in Notes.opened] == [1]


def test_a_users_handler_is_given_no_path_outside_of_the_allowed_roots(tmp_path, stores, data, notes):
    store = stores(NOTES=Notes)
    for root, path in ((tmp_path, ""), (data, ".."), ("/etc", "passwd")):
        with pytest.raises(PathNotAllowed, match="nothing was read there"):
            store[send(store, datum_run("NOTES", root, path, {}, PAGES, (4, 5)))]["image"]
    assert not Notes.opened


@pytest.mark.parametrize("handlers", [{"X": 5}, {5: dict}, [dict], "X"], ids=str)
def test_handlers_of_a_store_are_callables_by_spec(tmp_path, handlers):
    with pytest.raises(InvalidSetting, match=r"expected handlers as a mapping .* nothing was opened"):
        Store(tmp_path / "new", handlers=handlers)
    assert not (tmp_path / "new").exists()


# -- resources that say what stream documents do ---------------------------------------------------------------


def stream_resource_run(data, kwargs, datums, shape=(1, *SHAPE), path="scan.h5"):
    return datum_run("AD_HDF5_SWMR_STREAM", data, path, kwargs, datums, shape)


@pytest.mark.parametrize(
    ("kwargs", "more", "shape", "cut"),
    [
        ({"dataset": "/d", "chunk_shape": [1, *SHAPE]}, {}, (1, *SHAPE), (6, 1, *SHAPE)),
        ({"path": "/d", "swmr": True}, {}, (2, *SHAPE), (3, 2, *SHAPE)),
        ({"path": "/d", "multiplier": 3}, {}, (3, *SHAPE), (2, 3, *SHAPE)),
        ({"dataset": "/d", "frame_per_point": 3}, {}, SHAPE, (2, 3, *SHAPE)),
        ({}, {"dataset": "/d"}, SHAPE, (6, *SHAPE)),
        ({"dataset": "/other"}, {"dataset": "/d"}, SHAPE, (6, *SHAPE)),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", ["frame", "point_number"])
def test_hdf5_of_a_resource_with_parameters_is_cut_as_declared(store, data, kwargs, more, shape, cut, number):
    write_hdf5(data / "scan.h5", 6, "/d")
    datums = [{number: event, **more} for event in range(cut[0])]
    array = store[send(store, stream_resource_run(data, kwargs, datums, shape))]["image"]
    assert np.array_equal(array, frames(6).reshape(cut))
    assert np.array_equal(store.array(array.uid)[-1, ..., 3:], frames(6).reshape(cut)[-1, ..., 3:])
    assert np.array_equal(store.array(array[1].uid), frames(6).reshape(cut)[1])


def test_hdf5_of_a_resource_without_a_dataset_is_that_of_area_detectors(store, data):
    write_hdf5(data / "scan.h5", 3)
    documents = stream_resource_run(data, {}, POINTS)
    assert np.array_equal(store[send(store, documents)]["image"][:, 0], frames(3))
    uid = send(
        store, stream_run("application/x-hdf5", uri_of(data / "scan.h5"), {"spec": "AD_HDF5_SWMR_STREAM"})
    )
    assert np.array_equal(store[uid]["image"][:, 0], frames(3))


def test_hdf5_of_a_resource_whose_datums_name_several_datasets_opens_by_datum(store, data):
    write_hdf5(data / "scan.h5", 2, "/d")
    write_hdf5(data / "scan.h5", 4, "/e")
    datums = [{"frame": 0, "dataset": "/d"}, {"frame": 3, "dataset": "/e"}]
    documents = stream_resource_run(data, {}, datums, SHAPE)
    run = store[send(store, documents)]
    with pytest.raises(GentlyError, match="holds several arrays, as its datums say"):
        run["image"]
    uids = [doc["datum_id"] for name, doc in documents if name == "datum"]
    assert np.array_equal([store.array(uid) for uid in uids], [frame(0), frame(3)])


def test_a_slash_in_front_of_a_path_that_goes_on_from_its_root_leads_nowhere_else(tmp_path, store, data):
    write_hdf5(data / "scan.h5", 3)
    write_hdf5(tmp_path / "secret.h5", 3)
    uid = send(store, stream_resource_run(data, {}, POINTS, path="/scan.h5"))
    assert np.array_equal(store[uid]["image"][:, 0], frames(3))
    for path, error in ((str(tmp_path / "secret.h5"), AssetMissing), ("/../secret.h5", PathNotAllowed)):
        with pytest.raises(error, match=r"nothing was read there|is not there"):
            store[send(store, stream_resource_run(data, {}, POINTS, path=path))]["image"]


def test_the_handler_of_such_a_resource_gives_what_the_store_gives(data):
    write_hdf5(data / "scan.h5", 6, "/d")
    handler = handler_registry()["AD_HDF5_SWMR_STREAM"](str(data / "scan.h5"), multiplier=2)
    assert np.array_equal(handler(frame=1, dataset="/d"), frames(6)[2:4])
    assert np.array_equal(handler(point_number=2, dataset="/d"), frames(6)[4:])
    with pytest.raises(AssetMissing, match="has no dataset '/entry/data/data'"):
        handler(frame=0)
