"""Sequences of JPEG files, as area detectors write them, by Pillow."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from foreign_runs import frame, send, stream_run, uri_of
from PIL import Image

from gently_bluesky import StreamResolver
from gently_bluesky.errors import AssetDamaged, AssetMissing, MissingExtra, PathNotAllowed

JPEG = "multipart/related;type=image/jpeg"
SIDES = (40, 24)
PARAMETERS = {"template": "img_{:06d}.jpg"}


def write_jpegs(folder, count, colours=(), **how):
    """Write files, and return what they decode to."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = (frame(number, (*SIDES, *colours)) % 251).astype("u1")
        Image.fromarray(pixels).save(folder / f"img_{number:06d}.jpg", **how)
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.jpg"))])


def run_of(folder, events=3, shape=(1, *SIDES), **more):
    return stream_run(JPEG, f"{uri_of(folder)}/", {**PARAMETERS, **more}, [(0, 1), (1, events)], shape)


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_open_lazily(store, data, colours, progressive):
    pixels = write_jpegs(data / "jpegs", 3, colours, progressive=progressive)
    documents = run_of(data / "jpegs", shape=(1, *SIDES, *colours))
    array = store[send(store, documents)]["primary"]["image"]
    assert (array.shape, array.dtype) == ((3, 1, *SIDES, *colours), np.uint8)
    assert np.array_equal(array[:, 0], pixels)
    assert np.array_equal(array[1, 0, 5:9, [7, 3]], pixels[:, None][1, 0, 5:9, [7, 3]])
    assert array.dims == ("t", "dim_0", "y", "x", *("c" for _ in colours))
    assert np.array_equal(array[::-2, 0, 39], pixels[::-2, 39])
    assert np.array_equal(store.array(array.uid)[2, 0], pixels[2])
    resolver = StreamResolver()
    for name, doc in documents:
        resolver(name, doc)
    assert np.array_equal(resolver.array(documents[4][1])[:, 0], pixels[1:])


@pytest.mark.parametrize("join", [{}, {"chunk_shape": [1, *SIDES]}, {"join_method": "stack"}], ids=str)
def test_several_files_make_an_event_where_they_were_declared_so(store, data, join):
    pixels = write_jpegs(data / "jpegs", 6)
    stacked = "join_method" in join
    shape, cut = (SIDES, (6, *SIDES)) if stacked else ((2, *SIDES), (3, 2, *SIDES))
    array = store[send(store, run_of(data / "jpegs", cut[0], shape, **join))]["image"]
    assert np.array_equal(array, pixels.reshape(cut))
    assert np.array_equal(array[-1, ..., 3], pixels.reshape(cut)[-1, ..., 3])


def claiming(width, height):
    """Return a small JPEG that says it is larger."""
    file = io.BytesIO()
    Image.fromarray(np.zeros(SIDES, "u1")).save(file, "JPEG")
    raw = bytearray(file.getvalue())
    at = raw.index(b"\xff\xc0") + 5
    raw[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(raw)


def other(kind, mode="L"):
    file = io.BytesIO()
    Image.new(mode, SIDES[::-1]).save(file, kind)
    return file.getvalue()


HOSTILE = {
    "nothing": b"",
    "half of it": other("JPEG")[:300],
    "an absurd shape": claiming(65535, 65535),
    "noise": b"\xff\xd8\xff" + bytes(range(200)),
    "a PNG": other("PNG"),
    "colours for print": other("JPEG", "CMYK"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_jpeg_files_are_not_believed(store, data, what):
    (data / "img_000000.jpg").write_bytes(HOSTILE[what])
    uid = send(store, stream_run(JPEG, f"{uri_of(data)}/", PARAMETERS, [(0, 1)]))
    assert store[uid].status == "complete"
    with pytest.raises(AssetDamaged, match="no pixels were returned"):
        store[uid]["image"].compute()


def test_jpeg_files_that_are_gone_or_differ_say_so(store, data):
    write_jpegs(data / "jpegs", 3)
    array = store[send(store, run_of(data / "jpegs"))]["image"]
    Image.new("L", (5, 5)).save(data / "jpegs" / "img_000001.jpg")
    with pytest.raises(AssetDamaged, match=r"expected \(40, 24\) of uint8, as in the first file"):
        array[1].compute()
    (data / "jpegs" / "img_000002.jpg").unlink()
    with pytest.raises(AssetMissing, match=r"img_000002.jpg is not there"):
        array[2].compute()


def test_jpeg_files_outside_of_the_allowed_roots_are_not_read(tmp_path, store, data):
    write_jpegs(tmp_path / "secret", 3)
    with pytest.raises(PathNotAllowed, match="nothing was read there"):
        store[send(store, run_of(tmp_path / "secret"))]["image"]
    (data / "jpegs").mkdir()
    for file in (tmp_path / "secret").iterdir():
        (data / "jpegs" / file.name).symlink_to(file)
    with pytest.raises(PathNotAllowed, match="nothing was read there"):
        store[send(store, run_of(data / "jpegs"))]["image"]


def test_without_pillow_the_extra_is_named(store, data, monkeypatch):
    write_jpegs(data / "jpegs", 3)
    uid = send(store, run_of(data / "jpegs"))
    monkeypatch.setitem(sys.modules, "PIL.JpegImagePlugin", None)
    monkeypatch.delitem(sys.modules, "gently_bluesky.foreign.jpeg", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'gently-bluesky\[jpeg\]'"):
        store[uid]["image"]
