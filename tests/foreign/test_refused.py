"""Documents and files that try to make us read elsewhere, take absurd memory, or run code: one clear error each."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zlib
from urllib.parse import quote

import h5py
import numpy as np
import orjson
import pytest
import tifffile
import zarr
from foreign_runs import SHAPE, datum_run, frames, send, stream_run, uri_of, write_hdf5, write_tiffs

from gently_bluesky import Store, replay
from gently_bluesky.errors import (
    AssetDamaged,
    GentlyError,
    InvalidDocument,
    InvalidSetting,
    LookupFailed,
    PathNotAllowed,
)
from gently_bluesky.testing.documents import HandMadeRun

POINTS = [{"point_number": number} for number in range(3)]
HDF5, TIFF = "application/x-hdf5", "multipart/related;type=image/tiff"
IMAGE = {"dataset": "/entry/data/data"}


@pytest.fixture
def secret(tmp_path):
    """What must not be read: files of the right kind, outside."""
    folder = tmp_path / "secret"
    folder.mkdir()
    write_hdf5(folder / "x.h5", 3)
    write_tiffs(folder, 3)
    np.save(folder / "x_0.npy", frames(1)[0])
    return folder


def refused(store, documents, error, match):
    """Check that a run is on record, whole, and its array is refused; and that others are still read."""
    uid = send(store, documents)
    assert store[uid].status == "complete"
    for _ in range(2):
        with pytest.raises(error, match=match):
            np.asarray(store[uid]["image"])
    assert len(list(store[uid].documents())) == len(documents)


@pytest.mark.parametrize("how", ["up", "absolute", "another root", "link", "folder link"])
@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_TIFF", "NPY_SEQ"])
def test_paths_that_lead_out_of_the_allowed_roots_are_refused(store, data, secret, how, spec):
    name, kwargs, datum = {
        "AD_HDF5": ("x.h5", {}, "point_number"),
        "AD_TIFF": ("", {"template": "%s%s_%6.6d.tiff", "filename": "img"}, "point_number"),
        "NPY_SEQ": ("x", {}, "index"),
    }[spec]
    if how == "link":
        for file in secret.iterdir():
            (data / file.name).symlink_to(file)
    elif how == "folder link":
        (data / "link").symlink_to(secret, target_is_directory=True)
    root, path = {
        "up": (data, f"../secret/{name}"),
        "absolute": (data, str(secret / name)),
        "another root": (secret, name),
        "link": (data, name),
        "folder link": (data, f"link/{name}"),
    }[how]
    refused(
        store, datum_run(spec, root, path, kwargs, [{datum: 0}]), PathNotAllowed, "nothing was read there"
    )


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("file://localhost/etc/../etc/passwd", "nothing was read there"),
        ("s3://bucket/scan.h5", "expected the uri of a file here"),
        ("http://localhost/scan.h5", "expected the uri of a file here"),
        ("gopher://x/y", "expected the uri of a file here"),
        ("file://elsewhere/scan.h5", "expected the uri of a file here"),
        ("file://[/scan.h5", "expected the uri of a file here"),
        ("file:scan.h5", "expected the uri of a file here"),
        ("file://localhost/%00", "none|nothing was read"),
        ("", "expected the uri of a file here"),
    ],
)
def test_uris_that_name_no_file_to_be_read_are_refused(store, uri, match):
    refused(store, stream_run(HDF5, uri, IMAGE), InvalidDocument, match)


@pytest.mark.parametrize(
    "template",
    [
        "%s../secret/%s_%6.6d.tiff",
        "%s%s/../../secret/img_%6.6d.tiff",
        "/etc/%s%s%d",
        "%s%s_%6.6d_%s.tiff",
        "%s%s.tiff",
        "%s%s_%(x)s_%d.tiff",
        "%s%s_%999999999d.tiff",
        "%s%s_%d%d.tiff",
        "%s%s_%n%d.tiff",
        "%s%s_%*d.tiff",
        "%r%r%d",
        "{0.__class__}_{:d}.tif",
        "{:d}{0.__init__.__globals__}",
        "{:>999999999d}.tif",
        "{:d}/{:d}",
        "..\\{:d}.tif",
        "C:{:d}.tif",
        "x" * 300 + "{:d}",
        "{:d}\0.tif",
        "",
        5,
        None,
    ],
)
@pytest.mark.parametrize("family", ["AD_TIFF", TIFF])
def test_templates_give_nothing_but_names_of_files_in_the_folder(store, data, secret, template, family):
    write_tiffs(data / "scan", 1)
    if family == "AD_TIFF":
        run = datum_run("AD_TIFF", data, "scan", {"template": template, "filename": "img"}, POINTS[:1])
    else:
        run = stream_run(TIFF, f"{uri_of(data / 'scan')}/", {"template": template}, [(0, 1)])
    refused(store, run, AssetDamaged, "expected a te")


@pytest.mark.parametrize("filename", ["../secret/img", "/etc/passwd", "%d", "{0}", "a\0b", 5])
def test_the_file_name_for_a_template_is_no_path_either(store, data, secret, filename):
    write_tiffs(data / "scan", 1)
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": filename}
    refused(store, datum_run("AD_TIFF", data, "scan", kwargs, POINTS[:1]), AssetDamaged, "expected a te")


@pytest.mark.parametrize("per_point", [0, -1, 2**40, 1.5, "3", True, None, [1]])
def test_absurd_numbers_of_frames_are_refused(store, data, per_point):
    write_hdf5(data / "x.h5", 3)
    run = datum_run("AD_HDF5", data, "x.h5", {"frame_per_point": per_point}, POINTS[:1])
    refused(store, run, AssetDamaged, "expected a number of frames")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch should-never-be-there",)


def npy_header(shape: str, descr: str = "'<u2'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def tiff_claiming(side: int) -> bytes:
    """Return a small TIFF that says it is a compressed square of this side."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), "u2"), compression="zlib")
    raw = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as tiff:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            found = tiff.pages.first.tags[tag]
            raw[found.valueoffset : found.valueoffset + 4] = struct.pack("<I", side)
            raw[found.offset + 2 : found.offset + 4] = struct.pack("<H", 4)
    return bytes(raw)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], object), allow_pickle=True)
    return file.getvalue()


HOSTILE = {
    "a pickle": pickled,
    "a pickle alone": lambda: pickle.dumps(Bomb()),
    "an absurd shape": lambda: npy_header(f"({2**40}, {2**40})"),
    "more than it holds": lambda: npy_header("(1000, 1000)") + b"\0" * 100,
    "a negative shape": lambda: npy_header("(-1, 5)"),
    "an object dtype": lambda: npy_header("(1,)", "'|O'"),
    "a structured dtype": lambda: npy_header("(1,)", "[('a', '<u2')]") + b"\0\0",
    "code as a header": lambda: npy_header("__import__('os').system('true')"),
    "nothing": lambda: b"",
    "noise": lambda: b"\x93NUMPY" + bytes(range(200)),
    "text": lambda: b"hello",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_numpy_files_are_never_unpickled_and_not_believed(store, data, what, monkeypatch):
    monkeypatch.chdir(data)
    (data / "x_0.npy").write_bytes(HOSTILE[what]())
    run = datum_run("NPY_SEQ", data, "x", {}, [{"index": 0}], ())
    refused(store, run, AssetDamaged, "no pixels were returned")
    assert [file.name for file in data.iterdir()] == ["x_0.npy"]


@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0", tiff_claiming(2**30), zlib.compress(b"x"), b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 50],
    ids=["nothing", "a header alone", "an absurd shape", "something else", "no end of tags"],
)
def test_tiff_files_are_not_believed(store, data, content):
    (data / "img_000000.tiff").write_bytes(content)
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "img"}
    run = datum_run("AD_TIFF", data.parent, data.name, kwargs, POINTS[:1])
    refused(store, run, AssetDamaged, "no pixels were returned")


def test_an_ome_header_that_names_other_files_is_not_followed(store, data, secret):
    with tifffile.TiffWriter(data / "img_000000.tiff", ome=True) as tiff:
        tiff.write(np.ones((2, 5, 5), "u2"))
    raw = (data / "img_000000.tiff").read_bytes()
    (data / "img_000000.tiff").write_bytes(raw.replace(b'IFD="0"', b'IFD="9"'))
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "img"}
    uid = send(store, datum_run("AD_TIFF", data.parent, data.name, kwargs, POINTS[:1]))
    assert np.array_equal(store[uid]["image"], np.ones((1, 1, 2, 5, 5)))


def make_hdf5(path, secret, what):
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        if what == "a link to another file":
            group["data"] = h5py.ExternalLink(str(secret / "x.h5"), "/entry/data/data")
        elif what == "a virtual dataset of another file":
            layout = h5py.VirtualLayout((3, *SHAPE), "u2")
            layout[:] = h5py.VirtualSource(str(secret / "x.h5"), "/entry/data/data", (3, *SHAPE))
            group.create_virtual_dataset("data", layout)
        elif what == "bytes of another file":
            group.create_dataset("data", (3, *SHAPE), "u1", external=[(str(secret / "x.h5"), 0, 144)])
        elif what == "never written":
            group.create_dataset("data", (3, 2**30, 2**30), "u2", chunks=(1, 64, 64))
        elif what == "an absurd shape":
            group.create_dataset("data", (3, 2**30, 2**30), "u2", chunks=(1, 64, 64))[0, 0, 0] = 1
        elif what == "a group":
            group.create_group("data")
        elif what == "text":
            group["data"] = ["a", "b", "c"]
        elif what == "one value":
            group["data"] = 5
        elif what == "a circle of links":
            group["data"] = h5py.SoftLink("/entry/data/more")
            group["more"] = h5py.SoftLink("/entry/data/data")


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("a link to another file", "nothing was read there"),
        ("a virtual dataset of another file", "nothing was read there"),
        ("bytes of another file", "takes its bytes from other files"),
        ("never written", "was ever written"),
        ("an absurd shape", "it claims"),
        ("a group", "is no dataset"),
        ("text", "not numbers"),
        ("one value", "is no dataset"),
        ("a circle of links", "expected the path of a dataset"),
    ],
)
def test_hdf5_files_are_not_believed_and_lead_nowhere_else(store, data, secret, what, match):
    make_hdf5(data / "x.h5", secret, what)
    refused(store, datum_run("AD_HDF5", data, "x.h5", {}, POINTS), GentlyError, match)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500])
def test_what_is_no_hdf5_is_damage(store, data, content):
    (data / "x.h5").write_bytes(content)
    refused(store, datum_run("AD_HDF5", data, "x.h5", {}, POINTS), AssetDamaged, "no pixels were returned")


@pytest.mark.parametrize("dataset", ["", "/", "//", "a" * 10_000, "/" + "a/" * 1000, "\0", None, 5])
def test_names_of_datasets_are_checked(store, data, dataset):
    write_hdf5(data / "x.h5", 3)
    run = stream_run(HDF5, uri_of(data / "x.h5"), {"dataset": dataset})
    refused(store, run, GentlyError, "nothing was read|no pixels were returned")


REFUSED = "nothing was read|no pixels were returned|cannot be|is not there|is gone|expected"
OURS = {"frame_shape": [*SHAPE], "dtype": "<u2", "template": "{:06d}.ome.tif"}
NO_ASSET = pytest.mark.parametrize(
    "path",
    [
        "../other/x",
        "/etc",
        "..",
        "",
        ".",
        "runs",
        "a\0b",
        "x" * 5000,
        "a/" * 3000,
        "..\\..\\x",
        "gently-store.json",
    ],
)


@NO_ASSET
@pytest.mark.parametrize("spec", ["GENTLY_ZARR", "GENTLY_TIFF", "GENTLY_MEMORY"])
def test_what_is_said_to_be_an_asset_of_ours_is_not_believed(store, spec, path):
    documents = datum_run(spec, store.root, path, OURS, POINTS[:1], SHAPE)
    refused(store, documents, GentlyError, REFUSED)
    said = documents[2][1]
    assert [doc for name, doc in store[documents[0][1]["uid"]].documents() if name == "resource"] == [said]


@pytest.mark.sampled(every=3)
@NO_ASSET
@pytest.mark.parametrize("part", ["0", "", "..", "x" * 5000])
@pytest.mark.parametrize("spec", ["GENTLY_ZARR", "GENTLY_TIFF"])
def test_nor_is_a_uri_of_one(store, spec, path, part):
    uri = f"{uri_of(store.root / 'runs')}/{quote(path)}/{part}"
    documents = stream_run(TIFF, uri, {**OURS, "spec": spec, "part": part}, shape=SHAPE)
    refused(store, documents, GentlyError, REFUSED)


@pytest.mark.parametrize("uri", ["file:///", "file://localhost", "s3://x/y", "file://localhost/C:"])
def test_uris_that_name_nothing_leave_the_documents_readable_and_the_run_recoverable(
    store, data, tmp_path, uri
):
    documents = stream_run("application/x-zarr", uri, {**OURS, "spec": "GENTLY_ZARR", "part": "0"})
    refused(store, documents, GentlyError, REFUSED)
    dying = left_open(store, stream_run("application/x-zarr", uri, documents[2][1]["parameters"]), tmp_path)
    with Store(dying) as found:
        assert [found[uid].status for uid in (documents[0][1]["uid"], found[-1].uid)] == [
            "complete",
            "incomplete",
        ]


def left_open(store, documents, folder):
    """Return a copy of a store in which the last run has no end: its writer is not there any more."""
    writer = store.writer()
    for name, doc in documents[:-1]:
        writer(name, doc)
    writer(*documents[0])  # again: what was put before it is announced
    shutil.copytree(store.root, folder / "copy")
    writer.close()
    return folder / "copy"


def stored(store, count=3):
    """Store a run; return its uid, and the resource document of its asset."""
    run = HandMadeRun()
    descriptor = run.descriptor(image={})
    events = [("event", run.event(descriptor, image=frame)) for frame in frames(count)]
    send(store, [("start", run.start), ("descriptor", descriptor), *events, ("stop", run.stop())])
    return run.uid, next(doc for name, doc in store[run.uid].documents() if name == "resource")


@pytest.mark.parametrize("family", ["datum", "stream"])
@pytest.mark.parametrize("whose", ["another run's", "its own"])
def test_recovery_takes_nothing_from_an_asset_that_is_named_again(store, tmp_path, family, whose):
    (first, theirs), (last, own) = stored(store), stored(store)
    path = own["resource_path"]
    if whose == "another run's":
        path = "/".join([*path.split("/")[:-1], "..", *theirs["resource_path"].split("/")[-2:]])
    again = {**own, "uid": "again", "resource_path": path}
    if family == "stream":
        parameters = {**own["resource_kwargs"], "spec": own["spec"], "part": "0"}
        uri = f"{uri_of(store.root / path)}/0"
        again = {"uid": "again", "run_start": last, "data_key": "image", "mimetype": "x", "uri": uri}
        again["parameters"] = parameters
    shutil.copytree(store.root, tmp_path / "copy")
    journal = tmp_path / "copy" / store.record(last).path
    lines = journal.read_bytes().splitlines(keepends=True)
    name = "resource" if family == "datum" else "stream_resource"
    lines[3:3] = [orjson.dumps({"name": name, "doc": again}) + b"\n"]
    del lines[-1]  # the stop
    journal.write_bytes(b"".join(lines))
    with Store(tmp_path / "copy") as found:
        assert (found[first].status, found[last].status) == ("complete", "incomplete")
        for uid in (first, last):
            assert np.array_equal(found[uid]["image"], frames(3))
            stranger = zarr.open_array(
                found.root / found.record(found[uid]["image"].uid).path / "0", mode="r"
            )
            assert stranger.shape[0] == 3


@pytest.mark.parametrize("mimetype", ["application/x-wax", "image/tiff", ""])
def test_mimetypes_that_nothing_opens_are_indexed_and_say_so(store, mimetype):
    refused(
        store,
        stream_run(mimetype, "s3://bucket/key", {"spec": "WAX"} if not mimetype else {}),
        LookupFailed,
        "which nothing installed here opens; it is indexed",
    )


@pytest.mark.parametrize("roots", ["/data", ["relative"], [5], [None]])
def test_allowed_roots_are_whole_paths_of_folders(tmp_path, roots):
    with pytest.raises(InvalidSetting, match="nothing was opened"):
        Store(tmp_path / "new", allowed_roots=roots)
    assert not (tmp_path / "new").exists()


def test_assets_of_another_store_are_read_where_that_is_allowed(tmp_path, store):
    run = HandMadeRun()
    descriptor = run.descriptor(image={})
    event = run.event(descriptor, image=frames(2))
    with Store(tmp_path / "other") as other:
        send(
            other, [("start", run.start), ("descriptor", descriptor), ("event", event), ("stop", run.stop())]
        )
        journal = other.root / other.record(run.uid).path
    with store.writer() as writer:
        replay(journal, writer, fill=False)
    with pytest.raises(PathNotAllowed, match="allowed_roots"):
        store[run.uid]["image"]
    with Store(store.root, mode="r", allowed_roots=[tmp_path / "other"]) as allowed:
        assert np.array_equal(allowed[run.uid]["image"][0], frames(2))
