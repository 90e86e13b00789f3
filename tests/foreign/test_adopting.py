"""Files that devices put into the store's ``incoming``, moved into the folder of their run when that ends."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import zarr
from event_model import Filler, compose_run
from foreign_runs import SHAPE, datum_run, frame, frames, send, stream_run, uri_of, write_hdf5, write_tiffs
from ophyd.sim import SynSignalWithRegistry
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, init_devices
from ophyd_async.sim import PatternGenerator, SimBlobDetector

from gently_bluesky import Store, handler_registry, replay
from gently_bluesky.documents.adopting import Adoption
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.errors import AssetMissing, InvalidSetting, PathNotAllowed
from gently_bluesky.settings import Settings
from gently_bluesky.testing.documents import HandMadeRun

POINTS = [{"point_number": number} for number in range(3)]
TEMPLATE = {"template": "%s%s_%6.6d.tiff", "filename": "img"}
HDF5, TIFF, ZARR = "application/x-hdf5", "multipart/related;type=image/tiff", "application/x-zarr"
IMAGE = {"dataset": "/entry/data/data"}


@pytest.fixture
def incoming(store):
    return store.root / "incoming"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as opened:
        yield opened


def adopt(store, documents, **more):
    """Put a run into a store that adopts; return it."""
    with store.writer(adopt="move", **more) as writer:
        for name, doc in documents:
            writer(name, doc)
    return store[documents[0][1]["uid"]]


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def folder_of(store, run):
    return (store.root / run.record.path).parent


# -- what can lie there ----------------------------------------------------------------------------------------


def hdf5_file(incoming):
    write_hdf5(incoming / "scan.h5", 3)
    return datum_run("AD_HDF5", incoming, "scan.h5", {}, POINTS)


def hdf5_named_from_the_root(incoming):
    write_hdf5(incoming / "2026" / "scan.h5", 3)
    return datum_run("AD_HDF5", "", "incoming/2026/scan.h5", {}, POINTS)


def hdf5_by_stream(incoming):
    write_hdf5(incoming / "scans of today" / "x.h5", 3)
    return stream_run(HDF5, uri_of(incoming / "scans%20of%20today" / "x.h5"), IMAGE)


def tiff_folder(incoming):
    write_tiffs(incoming / "cam" / "17", 3)
    return datum_run("AD_TIFF", incoming, "cam/17", TEMPLATE, POINTS)


def tiff_folder_by_stream(incoming):
    write_tiffs(incoming / "cam", 3)
    return stream_run(TIFF, f"{uri_of(incoming / 'cam')}/", {"template": "img_{:06d}.tiff"})


def numpy_sequence(incoming):
    (incoming / "seq").mkdir(parents=True)
    for number in range(3):
        np.save(incoming / "seq" / f"abc_{number}.npy", frame(number)[None])
    return datum_run("NPY_SEQ", incoming / "seq", "abc", {}, [{"index": n} for n in range(3)])


def zarr_array(incoming):
    array = zarr.create_array(incoming / "a.zarr", shape=(3, *SHAPE), chunks=(1, *SHAPE), dtype="u2")
    array[...] = frames(3)
    return stream_run(ZARR, uri_of(incoming / "a.zarr"), {})


KINDS = [
    hdf5_file,
    hdf5_named_from_the_root,
    hdf5_by_stream,
    tiff_folder,
    tiff_folder_by_stream,
    numpy_sequence,
    zarr_array,
]


@pytest.mark.parametrize("made", KINDS)
def test_files_are_moved_into_the_folder_of_their_run_and_open_from_there(tmp_path, store, incoming, made):
    documents = made(incoming)
    lay = files_below(incoming)
    run = adopt(store, documents)
    assert files_below(incoming) == []
    moved = folder_of(store, run) / "incoming"
    assert files_below(moved) == lay
    assert np.array_equal(run["image"][:, 0], frames(3))
    array = run["primary"]["image"]
    assert np.array_equal(store.array(array.uid)[1, 0, 2:4, [1, 0]], frame(1)[2:4, [1, 0]].T)
    datum = next(doc for name, doc in run.documents() if name in {"datum", "stream_datum"})
    assert np.array_equal(np.squeeze(store.array(datum.get("datum_id") or datum["uid"])), frame(0))
    store.close()
    for ending in ("", "-wal", "-shm"):
        (store.root / f"index.sqlite{ending}").unlink(missing_ok=True)
    store.root.rename(tmp_path / "moved")
    for mode in ("r", "a"):
        with Store(tmp_path / "moved", mode=mode) as again:
            assert np.array_equal(again[run.uid]["image"][:, 0], frames(3))


@pytest.mark.parametrize("made", KINDS)
def test_by_default_files_are_read_where_they_lie(store, incoming, made):
    documents = made(incoming)
    lay = files_below(incoming)
    run = store[send(store, documents)]
    assert files_below(incoming) == lay
    assert not (folder_of(store, run) / "incoming").exists()
    assert np.array_equal(run["image"][:, 0], frames(3))


@pytest.mark.parametrize("made", KINDS)
def test_an_array_that_was_open_before_goes_on_from_the_new_place(store, incoming, made):
    documents = made(incoming)
    with store.writer(adopt="move") as writer:
        for name, doc in documents[:-1]:
            writer(name, doc)
        array = store[documents[0][1]["uid"]].wait("primary", "image", 3)
        assert np.array_equal(array[0, 0], frame(0))
        writer(*documents[-1])
    assert files_below(incoming) == []
    assert np.array_equal(array[:, 0], frames(3))
    shutil.rmtree(folder_of(store, store[-1]) / "incoming")
    with pytest.raises(AssetMissing, match="no pixels were returned"):
        array[1].compute()


@pytest.mark.parametrize("made", KINDS[:2] + KINDS[3:4] + KINDS[5:6])
def test_documents_name_the_new_place_and_filler_reads_there(store, incoming, made):
    run = adopt(store, made(incoming))
    for fill in (False, True):
        with Filler(handler_registry(), inplace=False, coerce="force_numpy") as filler:
            filled = [filler(name, doc)[1] for name, doc in run.documents(fill=fill)]
        assert np.array_equal([doc["data"]["image"][0] for doc in filled if "seq_num" in doc], frames(3))
    journal = (store.root / run.record.path).read_text()
    assert "runs/" not in journal


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("fill", [True, False])
def test_a_copy_of_the_run_refers_to_where_the_files_are(tmp_path, store, incoming, made, fill):
    run = adopt(store, made(incoming))
    with Store(tmp_path / "copy", allowed_roots=[store.root]) as copy:
        with copy.writer(adopt="move") as writer:
            replay(store.root / run.record.path, writer, fill=fill)
        assert np.array_equal(copy[run.uid]["image"][:, 0], frames(3))
    assert np.array_equal(run["image"][:, 0], frames(3))


def test_devices_of_the_field_are_adopted(RE, store, incoming):
    """By ophyd.sim, and by an ophyd-async detector, whose file is open until it is unstaged, after the run."""
    (incoming / "numpy").mkdir(parents=True)
    camera = SynSignalWithRegistry(lambda: frame(7), name="camera", save_path=str(incoming / "numpy"))
    with init_devices():
        blob = SimBlobDetector(
            StaticPathProvider(StaticFilenameProvider("blobs"), incoming), PatternGenerator(), name="blob"
        )
    camera.stage()
    shutil.rmtree(incoming / "numpy")
    (incoming / "numpy").mkdir()
    RE.subscribe(store.writer(adopt="move"))
    (uid,) = RE(bp.count([blob, camera], 3))
    run = store[uid]
    assert files_below(incoming) == []
    assert np.array_equal(run["camera"], [frame(7)] * 3)
    (file,) = folder_of(store, run).glob("incoming/*.h5")
    with h5py.File(file) as written:
        assert np.array_equal(run["blob"][:, 0], written["/entry/data/data"])


def test_several_assets_of_one_file_or_folder_move_once(store, incoming):
    write_hdf5(incoming / "day" / "scan.h5", 3)
    write_tiffs(incoming / "cam", 3, "left_{:06d}.tiff")
    write_tiffs(incoming / "cam", 3, "right_{:06d}.tiff")
    run = compose_run()
    keys = {
        name: {"source": "ioc", "dtype": "array", "shape": [1, *SHAPE], "external": "FILESTORE:"}
        for name in ("left", "right", "one", "two")
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    made = {
        "left": ("AD_TIFF", "cam", {**TEMPLATE, "filename": "left"}),
        "right": ("AD_TIFF", "cam", {**TEMPLATE, "filename": "right"}),
        "one": ("AD_HDF5", "day/scan.h5", {}),
        "two": ("AD_HDF5", "day/scan.h5", {"frame_per_point": 1}),
    }
    documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    datums = {}
    for key, (spec, path, kwargs) in made.items():
        resource = run.compose_resource(
            spec=spec, root=str(incoming), resource_path=path, resource_kwargs=kwargs
        )
        datums[key] = resource.compose_datum(datum_kwargs={"point_number": 1})
        documents += [("resource", resource.resource_doc), ("datum", datums[key])]
    data = {key: datum["datum_id"] for key, datum in datums.items()}
    times, filled = dict.fromkeys(data, 1.0), dict.fromkeys(data, False)
    documents.append(("event", stream.compose_event(data=data, timestamps=times, filled=filled)))
    documents.append(("stop", run.compose_stop()))
    adopted = adopt(store, documents)
    assert files_below(incoming) == []
    for key in made:
        assert np.array_equal(np.squeeze(adopted[key]), frame(1))


# -- devices that write for themselves -------------------------------------------------------------------------


def device_folder(store, incoming, files=("view",)):
    """Make what such a device leaves: its own record, and assets of ours beside it."""
    made = HandMadeRun()
    descriptor = made.descriptor(view={})
    lines = [("start", made.start), ("descriptor", descriptor)]
    lines += [("event", made.event(descriptor, view=frame(number))) for number in range(3)]
    folder = incoming / "2026" / "11" / "21" / "143005_cam_0123abcd"
    with Store(store.root.parent / "other") as other:
        run = other[send(other, [*lines, ("stop", made.stop())])]
        (asset,) = other.query(kind="asset")
        folder.mkdir(parents=True)
        for name in files:
            shutil.copytree(other.root / asset.path, folder / f"{name}.ome.zarr")
        (folder / "documents.jsonl").write_text("{}\n")
        kwargs = next(doc for name, doc in run.documents() if name == "resource")["resource_kwargs"]
    return folder, kwargs


def gently_run(root, path, kwargs):
    return datum_run("GENTLY_ZARR", root, path, kwargs, POINTS, SHAPE)


@pytest.mark.parametrize("whole", [True, False], ids=["whole paths", "paths from the root"])
def test_the_folder_of_a_device_that_writes_for_itself_moves_whole(tmp_path, store, incoming, whole):
    folder, kwargs = device_folder(store, incoming)
    path = folder.relative_to(store.root if not whole else incoming) / "view.ome.zarr"
    root = incoming if whole else store.root
    run = adopt(store, gently_run(root, path.as_posix(), kwargs))
    assert not folder.exists()
    assert (folder_of(store, run) / folder.relative_to(store.root) / "documents.jsonl").exists()
    assert np.array_equal(run["image"], frames(3))
    filled = [doc["data"]["image"] for name, doc in run.documents(fill=True) if name == "event"]
    assert np.array_equal(filled, frames(3))
    store.close()
    store.root.rename(tmp_path / "moved")
    with Store(tmp_path / "moved") as again:
        assert np.array_equal(again[run.uid]["image"], frames(3))


@pytest.mark.parametrize("alive", [True, False])
def test_a_folder_whose_device_has_not_let_go_stays(store, incoming, alive):
    folder, kwargs = device_folder(store, incoming)
    documents = gently_run(store.root, f"{folder.relative_to(store.root).as_posix()}/view.ome.zarr", kwargs)
    live = LiveFile.create(folder)
    if not alive:
        live.close(remove=False)
    run = adopt(store, documents)  # and nobody is warned: there it is at home
    assert folder.exists()
    assert np.array_equal(run["image"], frames(3))
    live.close(remove=True)


def test_files_that_somebody_else_has_locked_stay(store, incoming):
    folder, kwargs = device_folder(store, incoming)
    (folder / "documents.jsonl").unlink()
    documents = gently_run(store.root, f"{folder.relative_to(store.root).as_posix()}/view.ome.zarr", kwargs)
    live = LiveFile.create(folder)
    with pytest.warns(
        RuntimeWarning, match="stays where it is, and is read there: its writer has not let go of it"
    ):
        run = adopt(store, documents)
    assert np.array_equal(run["image"], frames(3))
    live.close(remove=True)


def test_a_folder_of_which_a_part_belongs_to_another_run_stays(store, incoming):
    folder, kwargs = device_folder(store, incoming, ("view", "view-2"))
    documents = gently_run(store.root, f"{folder.relative_to(store.root).as_posix()}/view.ome.zarr", kwargs)
    with pytest.warns(RuntimeWarning, match=r"does not announce 'view-2.ome.zarr', which is beside it"):
        run = adopt(store, documents)
    assert np.array_equal(run["image"], frames(3))


# -- what stays where it is ------------------------------------------------------------------------------------


def stays(store, documents, match):
    """Check that a run is whole though its files were not moved, and a warning says why."""
    with pytest.warns(RuntimeWarning, match=match):
        run = adopt(store, documents)
    assert run.status == "complete"
    return run


@pytest.mark.parametrize("made", [tiff_folder, tiff_folder_by_stream, numpy_sequence])
@pytest.mark.parametrize("stray", ["img_other.tiff", "other", "link"])
def test_a_folder_with_something_that_is_not_the_runs_stays(tmp_path, store, incoming, made, stray):
    documents = made(incoming)
    folder = next(path.parent for path in incoming.rglob("*_*"))
    if stray == "link":
        (folder / folder.name).symlink_to(tmp_path)
    else:
        (folder / stray).write_bytes(b"x")
    run = stays(
        store, documents, "this run does not announce .* which is beside it; the run is whole all the same"
    )
    assert np.array_equal(run["image"][:, 0], frames(3))


def test_sequences_in_incoming_itself_stay(store, incoming):
    write_tiffs(incoming, 3)
    run = stays(store, datum_run("AD_TIFF", incoming, "", TEMPLATE, POINTS), "beside those of others")
    assert np.array_equal(run["image"][:, 0], frames(3))


def test_files_that_never_came_are_told_of(store, incoming):
    incoming.mkdir()
    stays(store, datum_run("AD_HDF5", incoming, "day/never.h5", {}, POINTS), "nothing is there")


@pytest.mark.parametrize("how", ["a link", "virtual", "bytes"])
def test_a_file_that_takes_pixels_from_others_stays(store, incoming, how):
    write_hdf5(incoming / "raw.h5", 3)
    with h5py.File(incoming / "scan.h5", "w") as file:
        if how == "a link":
            file["entry/data/data"] = h5py.ExternalLink("raw.h5", "/entry/data/data")
        elif how == "bytes":
            file.create_dataset("d", (4,), "u1", external=[("raw.h5", 0, 4)])
            write = file.create_dataset("entry/data/data", (3, *SHAPE), "u2")
            write[...] = frames(3)
        else:
            layout = h5py.VirtualLayout((3, *SHAPE), "u2")
            layout[:] = h5py.VirtualSource("raw.h5", "/entry/data/data", (3, *SHAPE))
            file.create_virtual_dataset("entry/data/data", layout)
    run = stays(
        store, datum_run("AD_HDF5", incoming, "scan.h5", {}, POINTS), "it takes pixels from other files"
    )
    assert np.array_equal(run["image"][:, 0], frames(3))


@pytest.mark.parametrize("where", ["the file", "its folder", "incoming"])
def test_links_are_not_followed(tmp_path, store, incoming, where):
    outside = tmp_path / "outside"
    write_hdf5(outside / "day" / "scan.h5", 3)
    link, target = {
        "the file": (incoming / "day" / "scan.h5", outside / "day" / "scan.h5"),
        "its folder": (incoming / "day", outside / "day"),
        "incoming": (incoming, outside),
    }[where]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    run = stays(
        store, datum_run("AD_HDF5", incoming, "day/scan.h5", {}, POINTS), "a symbolic link leads there"
    )
    assert (outside / "day" / "scan.h5").exists()
    with pytest.raises(PathNotAllowed):
        run["image"]


@pytest.mark.parametrize("path", ["../scan.h5", "day/../../scan.h5", "../runs/scan.h5", "../../outside.h5"])
def test_what_does_not_lie_below_incoming_is_not_touched(tmp_path, store, incoming, path):
    for place in (store.root / "scan.h5", store.root / "runs" / "scan.h5", tmp_path / "outside.h5"):
        write_hdf5(place, 3)
    (incoming / "day").mkdir(parents=True)
    before = {*files_below(tmp_path)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adopt(store, datum_run("AD_HDF5", incoming, path, {}, POINTS))
    assert before <= {*files_below(tmp_path)}


@pytest.mark.parametrize(
    "kwargs", [{"template": 5}, {"template": "%s%s"}, {"template": "{:d}/{:d}"}], ids=str
)
def test_what_documents_say_of_names_cannot_fail_the_run(store, incoming, kwargs):
    write_tiffs(incoming / "cam", 3)
    stays(store, datum_run("AD_TIFF", incoming, "cam", kwargs, POINTS), "expected a template")
    stays(store, datum_run("NPY_SEQ", incoming, "cam/a\0b", {}, POINTS), "stays where it is")
    assert len(files_below(incoming)) == 3


def test_a_run_that_failed_to_be_stored_moves_nothing(store, incoming):
    documents = hdf5_file(incoming)
    with store.writer(adopt="move") as writer:
        for name, doc in documents[:-1]:
            writer(name, doc)
        bad = {**documents[4][1], "uid": "another", "data": {"image": "never-came"}}
        for _ in range(2):
            with pytest.raises(Exception, match="never-came"):
                writer("event", bad)
        with pytest.raises(Exception, match="never-came"):
            writer(*documents[-1])
    assert files_below(incoming) == ["scan.h5"]
    assert np.array_equal(store[-1]["image"][:, 0], frames(3))


@pytest.mark.parametrize("made", KINDS)
def test_moving_twice_is_as_moving_once(store, incoming, made):
    documents = made(incoming)
    run = adopt(store, documents)
    folder = folder_of(store, run)
    before = files_below(folder)
    again = Adoption(store.root, run.uid, Settings(adopt="move"))
    for name, doc in documents:
        again.note(name, doc)
    again.move(folder.relative_to(store.root).as_posix())
    assert files_below(folder) == before
    assert np.array_equal(run["image"][:, 0], frames(3))


def test_what_has_its_name_in_the_runs_folder_already_is_not_written_over(store, incoming):
    documents = hdf5_file(incoming)
    run = adopt(store, documents)
    write_hdf5(incoming / "scan.h5", 1)
    again = Adoption(store.root, run.uid, Settings(adopt="move"))
    again.note(*documents[2])
    again.move(folder_of(store, run).relative_to(store.root).as_posix())
    assert "there is something of that name" in again.remarks[0]
    assert np.array_equal(run["image"][:, 0], frames(3))


@pytest.mark.parametrize("adopt_", ["copy", "", None, True])
def test_ways_of_adopting_are_checked(store, adopt_):
    with pytest.raises(InvalidSetting, match="adopt must be one of 'reference', 'move'"):
        store.writer(adopt=adopt_)


def test_files_that_others_named_like_leftovers_of_ours_are_not_swept(tmp_path, store, incoming):
    write_tiffs(incoming / "cam", 3, ".img.{:d}.tmp")
    documents = stream_run(TIFF, f"{uri_of(incoming / 'cam')}/", {"template": ".img.{:d}.tmp"})
    run = adopt(store, documents)
    folder = folder_of(store, run)
    store.close()
    journal = folder / "documents.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    LiveFile.create(folder).close(remove=False)
    with Store(store.root) as again:
        assert again[run.uid].status == "incomplete"
        assert np.array_equal(again[run.uid]["image"][:, 0], frames(3))
    assert len(list(Path(folder, "incoming", "cam").iterdir())) == 3
