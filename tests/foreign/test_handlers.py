"""The registry of handlers: ours, those of installed packages, and the user's."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import psutil
import pytest
from event_model import Filler
from foreign_runs import (
    SHAPE,
    datum_run,
    frames,
    install,
    send,
    stream_run,
    uri_of,
    write_hdf5,
    write_tiffs,
)
from memory_left import clear

from gently_bluesky import Store, StreamResolver, handler_registry
from gently_bluesky.documents.handling import ForeignHandler
from gently_bluesky.errors import InvalidDocument, InvalidSetting, LookupFailed
from gently_bluesky.lazy import LazyArray
from gently_bluesky.testing.documents import HandMadeRun

OURS = {"GENTLY_ZARR", "GENTLY_TIFF", "GENTLY_MEMORY"}


def fill(registry, documents, **how):
    """Return the documents with arrays in the place of references, as event-model's Filler puts them there."""
    with Filler(registry, inplace=False, **how) as filler:
        return [filler(name, doc)[1] for name, doc in documents]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    folder = tmp_path / "packages"
    install(folder, "wax", {"WAX": "WaxHandler", "GENTLY_ZARR": "WaxHandler", "NPY_SEQ": "WaxHandler"}, WAX)
    install(
        folder,
        "broken_wax",
        {"BROKEN": "Nothing", "TWICE": "Nothing"},
        "raise RuntimeError('half installed')",
    )
    install(folder, "other_wax", {"TWICE": "Nothing", "ODD": "Missing"}, "imported = True")
    monkeypatch.syspath_prepend(folder)
    yield
    for name in ("wax", "broken_wax", "other_wax"):
        sys.modules.pop(name, None)


WAX = """
import numpy
class WaxHandler:
    closed = False
    def __init__(self, path, size=1):
        self.path, self.size = path, size
    def __call__(self, groove):
        return numpy.full((self.size, self.size), groove)
    def get_file_list(self, datum_kwargs):
        return [self.path for _ in datum_kwargs]
"""


def test_registry_has_ours_those_of_packages_and_the_users(packages):
    class Mine:
        pass

    registry = handler_registry({"GENTLY_TIFF": Mine, "MINE": Mine})
    assert {*OURS, "NPY_SEQ", "AD_TIFF", "AD_HDF5", "AD_EIGER", "WAX", "BROKEN", "MINE"} <= registry.keys()
    assert registry["MINE"] is registry["GENTLY_TIFF"] is Mine
    assert registry["GENTLY_ZARR"].__module__ == "gently_bluesky.documents.handlers"
    assert issubclass(registry["NPY_SEQ"], ForeignHandler)
    assert not {"wax", "broken_wax", "other_wax"} & sys.modules.keys()


def test_no_package_is_imported_for_the_registry():
    script = "import gently_bluesky, sys; gently_bluesky.handler_registry(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"area_detector_handlers", "h5py", "dask", "zarr", "tensorstore", "tifffile", "bluesky", "ophyd"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("coerce", ["as_is", "force_numpy"])
def test_handler_of_a_package_is_loaded_when_it_is_first_used(packages, coerce):
    documents = datum_run("WAX", "/data", "x.wax", {"size": 3}, [{"groove": 7}], (3, 3))
    filled = fill(handler_registry(), documents, coerce=coerce)
    assert np.array_equal(filled[4]["data"]["image"], np.full((3, 3), 7))
    handler = handler_registry()["WAX"]("/data/x.wax")
    assert handler.get_file_list([1, 2]) == ["/data/x.wax"] * 2
    assert not handler.closed
    assert not hasattr(handler, "nothing")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (
            "BROKEN",
            r"broken_wax:Nothing of broken_wax 1.0, could not be imported: RuntimeError\('half installed'\)",
        ),
        ("ODD", r"other_wax:Missing of other_wax 1.0, could not be imported: AttributeError"),
        ("TWICE", r"'TWICE' is claimed by several packages: .*handler_registry\({'TWICE': ...}\)"),
    ],
)
def test_a_broken_package_says_what_failed_when_it_is_used_and_hinders_nobody(
    packages, tmp_path, spec, match
):
    registry = handler_registry()
    documents = datum_run(spec, "/data", "x", {}, [{"groove": 7}])
    with pytest.raises(LookupFailed, match=match):
        fill(registry, documents, retry_intervals=[])
    np.save(tmp_path / "x_0.npy", frames(1)[0])
    assert np.array_equal(registry["NPY_SEQ"](str(tmp_path / "x"))(index=0), frames(1)[0])
    assert handler_registry({spec: dict})[spec] is dict


def test_a_store_asks_a_broken_package_for_nothing_that_others_open(packages, tmp_path):
    with Store(tmp_path / "store", allowed_roots=[tmp_path]) as store:
        np.save(tmp_path / "x_0.npy", frames(1)[0])
        uid = send(store, datum_run("NPY_SEQ", tmp_path, "x", {}, [{"index": 0}], SHAPE))
        assert np.array_equal(store[uid]["image"][0], frames(1)[0])
        uid = send(store, datum_run("BROKEN", tmp_path, "x", {}, [{"index": 0}], SHAPE))
        with pytest.raises(LookupFailed, match="could not be imported"):
            store[uid]["image"]


@pytest.mark.parametrize("handlers", [{"X": 5}, {5: dict}])
def test_handlers_that_are_none_are_refused(handlers):
    with pytest.raises(InvalidSetting, match="no registry was made"):
        handler_registry(handlers)


def test_every_handler_says_what_it_returns():
    for spec, handler in handler_registry().items():
        if handler.__module__.startswith("gently_bluesky") and not hasattr(handler, "entries"):
            assert "Returns a `LazyArray`" in handler.__doc__, spec
            assert "dtype" in handler.__doc__


@pytest.mark.parametrize("datum_kwargs", [{}, {"point_number": -1}, {"index": "0"}, {"index": True}])
def test_a_handler_needs_the_number_of_an_event(tmp_path, datum_kwargs):
    with pytest.raises(InvalidDocument, match="expected datum_kwargs with the number of an event"):
        handler_registry()["NPY_SEQ"](str(tmp_path / "x"))(**datum_kwargs)


def test_a_handler_reads_nothing_until_asked(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"x_{number}.npy", frames(3)[number])
    handler = handler_registry()["NPY_SEQ"](str(tmp_path / "x"))
    arrays = [handler(index=number) for number in range(3)]
    assert all(isinstance(array, LazyArray) for array in arrays)
    assert np.array_equal(arrays, frames(3))
    handler.close()


def npy_run(folder):
    for number in range(3):
        np.save(folder / f"x_{number}.npy", frames(3)[number])
    return datum_run("NPY_SEQ", folder, "x", {}, [{"index": number} for number in range(3)], SHAPE)


def tiff_run(folder):
    write_tiffs(folder, 3)
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "img"}
    return datum_run("AD_TIFF", folder.parent, folder.name, kwargs, POINTS)


def hdf5_run(folder):
    write_hdf5(folder / "x.h5", 3)
    return datum_run("AD_HDF5", folder, "x.h5", {}, POINTS)


def hdf5_stream(folder):
    write_hdf5(folder / "x.h5", 3)
    return stream_run("application/x-hdf5", uri_of(folder / "x.h5"), {"dataset": "/entry/data/data"})


def tiff_stream(folder):
    write_tiffs(folder, 3)
    return stream_run(
        "multipart/related;type=image/tiff", f"{uri_of(folder)}/", {"template": "img_{:06d}.tiff"}
    )


def ours(folder, **settings):
    run = HandMadeRun()
    descriptor = run.descriptor(image={})
    events = [("event", run.event(descriptor, image=frame)) for frame in frames(3)]
    with Store(folder / "store") as store:
        with store.writer(**settings) as writer:
            for named in [("start", run.start), ("descriptor", descriptor), *events, ("stop", run.stop())]:
                writer(*named)
        return list(store[run.uid].documents())


POINTS = [{"point_number": number} for number in range(3)]
KINDS = {
    "NPY_SEQ": npy_run,
    "AD_TIFF": tiff_run,
    "AD_HDF5": hdf5_run,
    "HDF5 by stream": hdf5_stream,
    "TIFF by stream": tiff_stream,
    "GENTLY_ZARR": partial(ours, format="zarr"),
    "GENTLY_TIFF": partial(ours, format="tiff"),
    "GENTLY_ZARR by stream": partial(ours, format="zarr", assets="stream"),
    "GENTLY_TIFF by stream": partial(ours, format="tiff", assets="stream"),
    "GENTLY_MEMORY": partial(ours, format="memory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_open_between_reads_however_many_assets_are_in_use(tmp_path, kind):
    (tmp_path / "data").mkdir()
    documents = KINDS[kind](tmp_path / "data")
    kept = []
    for _ in range(20):
        kept.append(StreamResolver() if "by stream" in kind else Filler(handler_registry(), inplace=False))
        for name, doc in documents:
            if name == "stream_datum":
                array = kept[-1].array(doc)
                assert np.array_equal(np.reshape(array, (-1, *SHAPE)), expected_of(doc))
            filled = kept[-1](name, doc)
            if name == "event" and filled:
                array = filled[1]["data"]["image"]
                assert np.array_equal(np.reshape(array, SHAPE), frames(3)[doc["seq_num"] - 1])
    deadline_s = time.monotonic() + 5
    while left := open_below(tmp_path):  # TensorStore closes a file just after it has been read
        assert time.monotonic() < deadline_s, left
        threading.Event().wait(0.01)
    clear(tmp_path / "data" / "store")


def open_below(folder):
    return [file.path for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)]


def expected_of(stream_datum):
    return frames(3)[stream_datum["indices"]["start"] : stream_datum["indices"]["stop"]]


def test_handler_that_asks_too_early_is_asked_again_by_filler(tmp_path):
    """As an OSError, what is not there yet makes Filler try again."""
    documents = datum_run("NPY_SEQ", tmp_path, "x", {}, [{"index": 0}], SHAPE)
    asked = []

    class Late(handler_registry()["NPY_SEQ"]):
        def __call__(self, **kwargs):
            asked.append(kwargs)
            if len(asked) == 3:
                np.save(tmp_path / "x_0.npy", frames(1)[0])
            return super().__call__(**kwargs)

    filled = fill(handler_registry({"NPY_SEQ": Late}), documents, retry_intervals=[0, 0, 0])
    assert len(asked) == 3
    assert np.array_equal(filled[4]["data"]["image"], frames(1)[0])


@pytest.mark.filterwarnings("ignore")  # databroker and its friends warn of their own
def test_databroker_discovers_our_handlers_and_reads_by_them(store, caplog):
    from databroker.mongo_normalized import discover_handlers

    with caplog.at_level(logging.WARNING):
        found = discover_handlers()
    assert found.keys() >= OURS
    assert not [record for record in caplog.records if "GENTLY" in record.getMessage()]
    run = HandMadeRun()
    descriptor = run.descriptor(image={})
    event = run.event(descriptor, image=frames(2))
    send(store, [("start", run.start), ("descriptor", descriptor), ("event", event), ("stop", run.stop())])
    filled = fill(found, store[run.uid].documents(), coerce="force_numpy")
    assert np.array_equal(filled[-2]["data"]["image"], frames(2))


def test_every_entry_point_of_ours_is_the_handler_of_the_registry():
    mine = {
        entry.name: entry for entry in entry_points(group="databroker.handlers") if "gently" in entry.value
    }
    assert mine.keys() == OURS
    assert {spec: entry.load() for spec, entry in mine.items()} == {
        spec: handler_registry()[spec] for spec in OURS
    }


def test_installed_packages_are_looked_through_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = store.put({"n": 1}, data_type="n").uid
    assert store.get(uid) == {"n": 1}
    monkeypatch.setattr("gently_bluesky.packages.entry_points", None)
    assert store.get(uid) == {"n": 1}
