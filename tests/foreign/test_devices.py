"""Real devices that write for themselves, through a real RunEngine, and opened from the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
import tifffile
from bluesky.utils import RunEngineInterrupted
from event_model import Filler
from foreign_runs import datum_run
from ophyd.sim import SynSignalWithRegistry
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, init_devices
from ophyd_async.sim import PatternGenerator, SimBlobDetector

from gently_bluesky import Store, StreamResolver, handler_registry
from gently_bluesky.errors import PathNotAllowed, RunClosed
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame


class Frames:
    """Frames one after the other, and all that were given out."""

    def __init__(self, shape):
        self.shape = shape
        self.given = []

    def __call__(self):
        self.given.append(encoded_frame(self.shape, "u2", run="device", event=len(self.given)))
        return self.given[-1]


def test_numpy_files_of_ophyd_sim_open_as_one_lazy_array(RE, store, data):
    given = Frames((4, 6, 5))
    camera = SynSignalWithRegistry(given, name="camera", save_path=str(data))
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], 3))
    array = store[uid]["primary"]["camera"]
    assert (array.shape, array.dtype, array.dims) == ((3, 4, 6, 5), np.uint16, ("t", "dim_0", "y", "x"))
    written = [np.load(file) for file in sorted(data.glob("*.npy"))]
    assert np.array_equal(array, written[-3:])
    assert np.array_equal(array[1, 2, ::2, [3, 1]], written[-2][2, ::2, [3, 1]].T.T)
    assert np.array_equal(store.array(array.uid)[2], written[-1])
    assert np.array_equal(store.array(array[1].uid), written[-2])
    record = store.record(array.uid)
    assert (record.kind, record.format, record.path) == ("asset", "NPY_SEQ", "")


def test_a_plane_of_a_numpy_file_costs_a_plane(RE, store, data):
    camera = SynSignalWithRegistry(Frames((64, 128, 128)), name="camera", save_path=str(data))
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], 1))
    array = store[uid]["camera"]
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("no counters of bytes read on this system")

    def read_bytes() -> int:
        return int(counters.read_text().split("rchar: ")[1].split()[0])

    array[0, 5].compute()
    before = read_bytes()
    array[0, 40].compute()
    assert read_bytes() - before < 128 * 128 * 2 + 4096


def test_tiff_files_of_ophyd_sim_open_though_they_have_no_template(RE, store, data):
    given = Frames((6, 5))
    camera = SynSignalWithRegistry(
        given,
        name="camera",
        save_path=str(data),
        save_func=tifffile.imwrite,
        save_spec="AD_TIFF",
        save_ext="tif",
    )
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], 2))
    assert np.array_equal(store[uid]["camera"], given.given[-2:])


def test_filler_gives_the_same_arrays(RE, store, data):
    given = Frames((6, 5))
    camera = SynSignalWithRegistry(given, name="camera", save_path=str(data))
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], 2))
    filled = []
    with Filler(handler_registry(), inplace=False, coerce="force_numpy") as filler:
        for name, doc in store[uid].documents():
            _, doc = filler(name, doc)
            if name == "event":
                filled.append(doc["data"]["camera"])
    assert np.array_equal(filled, given.given[-2:])


def runs_of_one_staging(device, count=3):
    """Take two events in each of some runs, and stage the device once for all of them."""
    yield from bps.stage(device)
    for _ in range(count):
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([device])
        yield from bps.close_run()
    yield from bps.unstage(device)


def test_runs_of_one_staging_share_a_resource_and_each_says_all_that_it_needs(RE, tmp_path, data):
    given, came = Frames((6, 5)), []
    camera = SynSignalWithRegistry(given, name="camera", save_path=str(data))
    RE.subscribe(lambda name, doc: came.append((name, doc)))
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        RE.subscribe(store.writer())
        uids = RE(runs_of_one_staging(camera))
    assert [name for name, _ in came].count("resource") == 1
    (tmp_path / "store" / "index.sqlite").unlink()  # what is known of each run is in its own journal
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        frames = np.reshape(given.given[-6:], (3, 2, 6, 5))
        resources = []
        for uid, expected in zip(uids, frames, strict=True):
            assert store[uid].status == "complete"
            assert np.array_equal(store[uid]["camera"], expected)
            documents = list(store[uid].documents())
            (resource,) = (doc for name, doc in documents if name == "resource")
            assert resource["run_start"] == uid
            resources.append(resource)
            with Filler(handler_registry(), inplace=False, coerce="force_numpy") as filler:
                filled = [filler(name, doc)[1] for name, doc in documents]
            assert np.array_equal([doc["data"]["camera"] for doc in filled if "seq_num" in doc], expected)
            events = [doc for name, doc in documents if name == "event"]
            assert events == [doc for name, doc in came if name == "event" and doc in events]
        assert len({resource["uid"] for resource in resources}) == 3
        assert {(resource["root"], resource["resource_path"]) for resource in resources} == {
            (str(data), resources[0]["resource_path"])
        }


def test_a_resource_of_an_ended_run_is_nobodys_while_two_are_open(store, data):
    documents = datum_run("NPY_SEQ", data, "x", {}, [{"index": 0}], (6, 5))
    datum = {"datum_id": "late", "resource": documents[2][1]["uid"], "datum_kwargs": {"index": 1}}
    runs = [HandMadeRun(), HandMadeRun()]
    with store.writer() as writer:
        for name, doc in [*documents, *(("start", run.start) for run in runs)]:
            writer(name, doc)
        with pytest.raises(RunClosed, match=r"a datum document came for run .* which has ended"):
            writer("datum", datum)
        writer("stop", runs[0].stop())
        for _ in range(2):
            writer("datum", datum)
            writer(*documents[3])  # a datum of the run that has ended, once more
        writer("stop", runs[1].stop())
    assert [store[run.uid].status for run in runs] == ["complete", "complete"]
    assert [name for name, _ in store[runs[0].uid].documents()] == ["start", "stop"]
    assert [name for name, _ in store[runs[1].uid].documents()] == ["start", "resource", "datum", "stop"]


@pytest.fixture
def blob(RE, data):
    """The detector of ophyd-async that writes HDF5 by SWMR, its file open until it is unstaged."""
    path_provider = StaticPathProvider(StaticFilenameProvider("blobs"), data)
    with init_devices():
        detector = SimBlobDetector(path_provider, PatternGenerator(), name="blob")
    return detector  # noqa: RET504 # connected where the block ends


def test_frames_that_a_rewind_took_again_are_superseded_and_stay_reachable(RE, store, data, blob):
    @bpp.stage_decorator([blob])
    @bpp.run_decorator()
    def plan():
        for pause in (False, True):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([blob])
            if pause:
                yield from bps.pause()
        yield from bps.trigger_and_read([blob])

    RE.subscribe(store.writer())
    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    RE.resume()
    (file,) = data.glob("*.h5")
    with h5py.File(file) as written:
        images = written["/entry/data/data"][:]
    run = store[-1]
    assert (run.status, len(images)) == ("complete", 4)
    assert np.array_equal(run["blob"][:, 0], images[[0, 2, 3]])
    assert np.array_equal(store.array(run["blob"].uid)[:, 0], images)
    assert np.array_equal(store.array(run.table()["blob"][2])[0], images[2])
    assert np.array_equal(run.to_xarray()["blob"][1, 0], images[2])


def test_hdf5_of_an_ophyd_async_detector_opens_lazily(RE, store, data, blob):
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([blob], 3))
    (file,) = data.glob("*.h5")
    with h5py.File(file) as written:
        images, sums = written["/entry/data/data"][:], written["/entry/sum"][:]
    run = store[uid]
    image, total = run["primary"]["blob"], run["primary"]["blob-sum"]
    assert image.shape == (3, 1, *images.shape[1:])
    assert np.array_equal(image[:, 0], images)
    assert np.array_equal(image[1, 0, 5:9, [7, 3]], images[1, 5:9, [7, 3]])
    assert np.array_equal(np.asarray(total).ravel(), sums)
    assert np.array_equal(store.array(image.uid)[2, 0], images[2])
    assert run.status == "complete"
    resolver = StreamResolver()
    resolved = []
    for name, doc in run.documents():
        resolver(name, doc)
        if name == "stream_datum" and doc["stream_resource"] == image.uid:
            resolved.append(np.asarray(resolver.array(doc)))
    assert np.array_equal(np.concatenate(resolved)[:, 0], images)


READER = """
import sys
from gently_bluesky import Store
array = Store(sys.argv[1], mode="r", allowed_roots=[sys.argv[2]])[-1]["primary"]["blob"]
print(array.shape[0], int(array[-1].sum()))
"""


def test_hdf5_is_read_while_its_detector_still_writes_it(RE, store, data, blob):
    """In the process that writes it, and in another one."""
    writer = store.writer()
    RE.subscribe(writer)
    seen, elsewhere = [], []

    def look():
        array = store[-1]["primary"]["blob"]
        seen.append((array.shape[0], int(np.asarray(array[-1]).sum())))
        done = subprocess.run(
            [sys.executable, "-c", READER, str(store.root), str(data)],
            capture_output=True,
            text=True,
            check=True,
        )
        elsewhere.append(tuple(map(int, done.stdout.split())))

    def plan():
        yield from bps.stage(blob)
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([blob])
            yield from writer.stored()
            look()
        yield from bps.close_run()
        yield from bps.unstage(blob)

    RE(plan())
    with h5py.File(next(data.glob("*.h5"))) as written:
        sums = [int(total) for total in written["/entry/data/data"][:].astype("u8").sum(axis=(1, 2))]
    assert seen == elsewhere == [(1, sums[0]), (2, sums[1])]


def test_a_store_that_was_not_told_so_does_not_read_where_devices_write(tmp_path, RE, store, data):
    camera = SynSignalWithRegistry(Frames((4, 4)), name="camera", save_path=str(data))
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([camera], 1))
    asset = next(store.query(kind="asset")).uid
    with Store(store.root, mode="r") as stranger:
        for read in (lambda: stranger[uid]["camera"], lambda: stranger.array(asset)):
            with pytest.raises(PathNotAllowed, match=r"open the store with Store\(root, allowed_roots="):
                read()
        assert stranger[uid].status == "complete"
