"""Zarr arrays of other writers: both versions, written by zarr-python and by TensorStore."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import tensorstore as ts
import zarr
from foreign_runs import SHAPE, frames, send, stream_run, uri_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import Delta

from gently_bluesky import StreamResolver
from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError, LookupFailed, PathNotAllowed
from gently_bluesky.testing.strategies import indices_for

ZARR = "application/x-zarr"
CHUNKS = (1, 3, 8)


def write_zarr(place, count=6, dtype="u2", *, name=None, pixels=None, **how):
    """Write frames as zarr-python does, into an array, or into one of a group."""
    pixels = frames(count).astype(dtype) if pixels is None else pixels
    array = zarr.create_array(
        place, name=name, shape=pixels.shape, dtype=pixels.dtype, **{"chunks": CHUNKS, **how}
    )
    array[...] = pixels
    return array


def run_of(place, shape=(2, *SHAPE), events=3, **parameters):
    return stream_run(ZARR, uri_of(place), parameters, [(0, 1), (1, events)], shape)


HOW = {
    "version 3": {},
    "version 2": {"zarr_format": 2},
    "shards": {"shards": (2, 6, 8)},
    "version 2, in folders": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "version 3, side by side": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "columns first": {"zarr_format": 2, "order": "F"},
    "uncompressed": {"compressors": None},
    "zlib": {"zarr_format": 2, "compressors": {"id": "zlib", "level": 1}},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "chunks that do not divide it": {"chunks": (4, 5, 5)},
}


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "f4"])
@pytest.mark.parametrize("how", HOW)
def test_arrays_of_zarr_open_lazily(store, data, how, dtype):
    expected = frames(6).astype(dtype)
    if dtype == ">u2" and HOW[how].get("zarr_format") != 2:
        write_zarr(
            data / "a.zarr", pixels=expected, serializer=zarr.codecs.BytesCodec(endian="big"), **HOW[how]
        )
    else:
        write_zarr(data / "a.zarr", pixels=expected, **HOW[how])
    documents = run_of(data / "a.zarr")
    array = store[send(store, documents)]["primary"]["image"]
    assert (array.shape, array.dtype) == ((3, 2, *SHAPE), np.dtype(dtype).newbyteorder("="))
    cut = expected.reshape(3, 2, *SHAPE)
    assert np.array_equal(array, cut)
    assert np.array_equal(array[1:, ..., 2, [3, 3, 0]], cut[1:, ..., 2, [3, 3, 0]])
    assert np.array_equal(store.array(array.uid)[2, 1], cut[2, 1])
    resolver = StreamResolver()
    for name, doc in documents:
        resolver(name, doc)
    assert np.array_equal(resolver.array(documents[4][1]), cut[1:])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=indices_for((3, 2, *SHAPE), newaxis=False), how=st.sampled_from(["version 3", "shards"]))
def test_every_index_reads_from_zarr_what_numpy_would(tmp_path, index, how):
    from gently_bluesky.foreign.kinds import ForeignAsset, open_foreign
    from gently_bluesky.foreign.roots import Roots
    from gently_bluesky.lazy import LazyArray

    path = tmp_path / how
    if not path.exists():
        write_zarr(path, **HOW[how])
    asset = ForeignAsset(path, {}, 3, (2, *SHAPE), Roots([tmp_path]))
    array = LazyArray(open_foreign(ZARR, asset), dims=("t", "f", "y", "x"))
    assert np.array_equal(array[index], frames(6).reshape(3, 2, *SHAPE)[index])


@pytest.mark.parametrize(
    ("shape", "join", "cut"),
    [
        (SHAPE, {}, (6, *SHAPE)),
        ((1, *SHAPE), {}, (6, 1, *SHAPE)),
        ((1, *SHAPE), {"join_method": "stack"}, (6, 1, *SHAPE)),
        ((3, *SHAPE), {"join_method": "concat"}, (2, 3, *SHAPE)),
        ((3, *SHAPE), {"multiplier": 3}, (2, 3, *SHAPE)),
    ],
)
def test_zarr_is_cut_into_events_as_declared(store, data, shape, join, cut):
    write_zarr(data / "a.zarr")
    array = store[send(store, run_of(data / "a.zarr", shape, cut[0], **join))]["image"]
    assert array.shape == cut
    assert np.array_equal(array, frames(6).reshape(cut))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("parameter", ["dataset", "path"])
def test_an_array_of_a_group_is_found_by_its_path(store, data, version, parameter):
    group = zarr.create_group(data / "g.zarr", zarr_format=version)
    write_zarr(group.store, name="cam/left", zarr_format=version)
    uid = send(store, run_of(data / "g.zarr", **{parameter: "/cam/left"}))
    assert np.array_equal(store[uid]["image"], frames(6).reshape(3, 2, *SHAPE))
    uid = send(store, run_of(data / "g.zarr"))
    with pytest.raises(
        AssetDamaged, match="is a group, expected an array, or its path within the group as 'dataset'"
    ):
        store[uid]["image"]


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_zarr_that_tensorstore_wrote_opens(store, data, driver):
    place = {"driver": "file", "path": f"{data / 'ts.zarr'}/"}
    written = ts.open(
        {"driver": driver, "kvstore": place}, create=True, dtype="uint16", shape=(6, *SHAPE)
    ).result()
    written.write(frames(6)).result()
    assert np.array_equal(store[send(store, run_of(data / "ts.zarr"))]["image"][:, 1], frames(6)[1::2])


def test_chunks_that_a_writer_left_out_are_the_fill_value(store, data):
    pixels = frames(6)
    pixels[2] = pixels[5] = 7
    write_zarr(data / "a.zarr", pixels=pixels, fill_value=7)
    assert not (data / "a.zarr" / "c" / "2").exists()
    assert np.array_equal(store[send(store, run_of(data / "a.zarr"))]["image"], pixels.reshape(3, 2, *SHAPE))


def test_an_array_that_grows_is_read_as_far_as_it_was_announced(store, data):
    written = write_zarr(data / "a.zarr", 2)
    documents = run_of(data / "a.zarr", SHAPE, 4)
    with store.writer() as writer:
        for name, doc in documents[:4]:
            writer(name, doc)
        written.resize((4, *SHAPE))
        written[2:] = frames(4)[2:]
        for name, doc in documents[4:]:
            writer(name, doc)
    assert np.array_equal(store[documents[0][1]["uid"]]["image"], frames(4))
    uid = send(store, run_of(data / "a.zarr", SHAPE, 9))
    with pytest.raises(AssetMissing, match=r"9 events were announced, a.zarr has 4 rows"):
        store[uid]["image"]


def test_a_plane_of_a_large_array_reads_a_chunk(store, data):
    """Every other chunk is broken: what would read it fails."""
    write_zarr(data / "a.zarr", 60, chunks=(1, *SHAPE))
    for chunk in (data / "a.zarr" / "c").iterdir():
        if chunk.name != "41":
            (chunk / "0" / "0").write_bytes(b"broken")
    array = store[send(store, run_of(data / "a.zarr", SHAPE, 60))]["image"]
    assert np.array_equal(array[41, 2:4], frames(60)[41, 2:4])
    with pytest.raises(AssetDamaged, match="no pixels were returned"):
        array[40].compute()


# -- what is not believed --------------------------------------------------------------------------------------


def refused(store, documents, error, match):
    uid = send(store, documents)
    assert store[uid].status == "complete"
    with pytest.raises(error, match=match):
        np.asarray(store[uid]["image"])


def edit(place, **changes):
    """Change what an array's metadata say."""
    file = next(path for name in ("zarr.json", ".zarray") if (path := place / name).exists())
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch should-never-be-there",)


@pytest.mark.filterwarnings("ignore")  # zarr warns of codecs that no standard has
@pytest.mark.parametrize("what", ["objects", "a filter that unpickles", "a filter", "a codec of numcodecs"])
def test_codecs_that_might_run_code_are_refused(store, data, what, monkeypatch):
    monkeypatch.chdir(data)
    place = data / "a.zarr"
    if what == "a codec of numcodecs":
        write_zarr(place, compressors=[zarr.codecs.numcodecs.LZ4()])
    elif what == "a filter":
        write_zarr(place, zarr_format=2, filters=[Delta("<u2")])
    else:
        write_zarr(place, zarr_format=2, compressors=None)
        edit(place, filters=[{"id": "pickle"}], **({"dtype": "|O"} if what == "objects" else {}))
        for chunk in place.glob("[0-9]*"):
            chunk.write_bytes(pickle.dumps(np.array([Bomb()], object)))
    refused(store, run_of(place), GentlyError, "no pixels were returned")
    if what != "objects":
        refused(store, run_of(place), LookupFailed, "coded in a way that is not undone here")
    assert not (data / "should-never-be-there").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": [6, 2**40, 2**40]}, "6, 1099511627776, 1099511627776"),
        ({"shape": [6, 2**20, 2**20]}, "6, 1048576, 1048576"),
        ({"shape": []}, "no pixels were returned"),
        ({"shape": [-1, 6, 8]}, "no pixels were returned"),
        ({"shape": "all"}, "no pixels were returned"),
        ({"data_type": "string"}, "no pixels were returned"),
        ({"data_type": "bfloat16", "fill_value": 0.0}, "no pixels were returned"),
        ({"codecs": []}, "no pixels were returned"),
        ({"chunk_key_encoding": {"name": "odd"}}, "no pixels were returned"),
        ({"node_type": "odd"}, "is a group"),
    ],
    ids=str,
)
def test_metadata_are_not_believed(store, data, changes, match):
    write_zarr(data / "a.zarr")
    edit(data / "a.zarr", **changes)
    refused(store, run_of(data / "a.zarr"), GentlyError, match)


@pytest.mark.parametrize("side", [2**20, 2**16])
def test_absurd_shapes_that_the_documents_agree_with_take_no_memory(store, data, side):
    write_zarr(data / "a.zarr")
    edit(data / "a.zarr", shape=[6, side, side])
    refused(store, run_of(data / "a.zarr", (side, side), 6), AssetDamaged, "it claims")
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, side, side]}}
    edit(data / "a.zarr", chunk_grid=grid)
    refused(store, run_of(data / "a.zarr", (side, side), 6), AssetDamaged, "it claims chunks")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b"\xff", b'{"node_type": "array"}', b"[" * 10_000], ids=str
)
@pytest.mark.parametrize("name", ["zarr.json", ".zarray"])
def test_what_is_no_metadata_is_damage(store, data, content, name):
    (data / name).write_bytes(content)
    refused(store, run_of(data), AssetDamaged, "no pixels were returned")


def test_metadata_that_never_end_are_not_read(store, data):
    with (data / "zarr.json").open("wb") as file:
        file.truncate(2**40)
    refused(store, run_of(data), AssetDamaged, "is longer than")


@pytest.mark.parametrize(
    "name", ["", "/", "..", "../secret", "a/../../secret", "a\\b", "C:a", "\0", 5, "a/" * 99]
)
def test_paths_within_a_group_lead_nowhere_else(tmp_path, store, data, name):
    zarr.create_group(data / "g.zarr")
    write_zarr(data / "secret")
    refused(store, run_of(data / "g.zarr", dataset=name), AssetDamaged, "nothing was read")


@pytest.mark.parametrize(
    "how", ["outside", "a link", "metadata", "chunk", "folder of chunks", "array of a group"]
)
@pytest.mark.parametrize("version", [2, 3])
def test_links_of_zarr_that_lead_out_are_not_followed(tmp_path, store, data, how, version):
    secret, place, more = tmp_path / "secret", data / "a.zarr", {}
    separated = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == 2 else {}
    write_zarr(secret, zarr_format=version, **separated)
    first = "1" if version == 2 else "c/1"
    if how == "outside":
        place = secret
    elif how == "a link":
        place.symlink_to(secret, target_is_directory=True)
    elif how == "array of a group":
        zarr.create_group(place, zarr_format=version)
        (place / "x").symlink_to(secret, target_is_directory=True)
        more = {"dataset": "x"}
    else:
        shutil.copytree(secret, place)
        metadata = "zarr.json" if version == 3 else ".zarray"
        name = {"metadata": metadata, "chunk": f"{first}/0/0", "folder of chunks": first}[how]
        shutil.move(place / name, tmp_path / "other")
        (place / name).symlink_to(tmp_path / "other")
    refused(store, run_of(place, **more), PathNotAllowed, "nothing was read there")


def test_zarr_that_is_gone_or_half_there_says_so(store, data):
    refused(store, run_of(data / "never.zarr"), AssetMissing, "holds no Zarr array")
    write_zarr(data / "a.zarr")
    (data / "a.zarr" / "c" / "3" / "1" / "0").write_bytes(b"half")
    array = store[send(store, run_of(data / "a.zarr"))]["image"]
    assert np.array_equal(array[0], frames(2))
    with pytest.raises(AssetDamaged, match="no pixels were returned"):
        array[1].compute()
    with pytest.raises(LookupFailed, match="is not applied here"):
        store[send(store, run_of(data / "a.zarr", slice="0:1"))]["image"]
