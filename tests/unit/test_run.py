"""The read view of a run: its documents, and its arrays from real files, lazily and with numpy's meaning."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import DocumentNames, Filler, schema_validators
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gently_bluesky import LazyArray, Store, Stream, handler_registry, replay
from gently_bluesky.errors import (
    AmbiguousArray,
    AssetDamaged,
    AssetMissing,
    InvalidDocument,
    LookupFailed,
    StorageError,
)
from gently_bluesky.testing.strategies import indices_for

FORMATS = ["zarr", "tiff"]
SHAPE = (3, 2, 5, 6, 7)
"""Events, views, z, y, x."""


def encoded(shape: tuple[int, ...]) -> np.ndarray:
    """Pixels that say where they belong, so that a misplaced one cannot pass."""
    return np.arange(np.prod(shape), dtype="<u4").reshape(shape)


# -- what a run is -------------------------------------------------------------------------------------


@pytest.fixture
def run(store, acquire):
    views = encoded((3, 4, 6, 7))
    events = {
        "primary": [{"view": view, "laser": 0.5 * n, "comment": f"n{n}"} for n, view in enumerate(views)],
        "monitor": [{"temperature": 20.5}, {"temperature": 21.0}],
        "more": [{"laser": 7, "line": np.arange(4.0), "image": views[0, 0].astype("u1")}],
    }
    return store[acquire(store, events, start={"embryo": "e3"})]


def test_a_run_tells_its_documents_streams_and_status(run):
    assert run.start["uid"] == run.uid == run.record.uid
    assert run.start["embryo"] == "e3"
    assert run.stop["exit_status"] == "success"
    assert run.stop["num_events"] == {"primary": 3, "monitor": 2, "more": 1}
    assert run.status == "complete"
    assert run.streams == tuple(run) == ("primary", "monitor", "more")
    assert isinstance(run["primary"], Stream)
    assert tuple(run["primary"]) == run["primary"].data_keys == ("view", "laser", "comment")
    assert [len(run[stream]) for stream in run] == [3, 2, 1]
    assert [event["seq_num"] for event in run["primary"].events] == [1, 2, 3]


def test_a_data_key_that_one_stream_has_is_asked_for_by_its_name(run):
    np.testing.assert_array_equal(run["view"], encoded((3, 4, 6, 7)))
    assert run["view"].uid == run["primary"]["view"].uid
    np.testing.assert_array_equal(run["temperature"], [20.5, 21.0])
    with pytest.raises(
        AmbiguousArray, match=r"'laser' is in the streams primary, more; ask for run\[stream\]\['laser'\]"
    ):
        run["laser"]
    np.testing.assert_array_equal(run["more"]["laser"], [7])


def test_a_name_that_is_not_there_is_answered_with_those_that_are(run):
    with pytest.raises(
        LookupFailed, match=r"no stream or data key 'veiw'; it has primary: view, laser, comment; monitor"
    ):
        run["veiw"]
    with pytest.raises(LookupFailed, match="no data key 'view'; it has temperature"):
        run["monitor"]["view"]
    with pytest.raises(LookupFailed, match="no stream 'x'; it has primary, monitor, more"):
        run.table("x")


def test_an_array_knows_its_axes_steps_and_uids(run):
    view = run["view"]
    assert view.dims == ("t", "z", "y", "x")
    assert view.scale == (1.0, 1.5, 0.1625, 0.25)
    assert view.units == (None, "micrometer", "micrometer", "micrometer")
    assert view.dtype == np.dtype("<u4")
    assert view.nbytes == 3 * 4 * 6 * 7 * 4
    assert view[1].uid == f"{view.uid}/1"
    assert run["more"]["image"].dims == ("t", "y", "x")


def test_values_that_stand_in_events_are_arrays_too(run, store, acquire):
    assert run["comment"].compute().tolist() == ["n0", "n1", "n2"]
    assert run["more"]["line"].dims == ("t", "dim_0")
    np.testing.assert_array_equal(run["more"]["line"], [np.arange(4.0)])
    other = store[
        acquire(
            store,
            [
                {"a": 1, "b": None, "c": {"x": 1}, "d": [1, 2], "e": True},
                {"a": 2.5, "b": "x", "c": {}, "d": [3], "e": False},
            ],
        )
    ]
    assert other["a"].compute().tolist() == [1, 2.5]
    for key, values in {"b": [None, "x"], "c": [{"x": 1}, {}], "d": [[1, 2], [3]]}.items():
        assert other[key].dtype == object
        assert other[key].compute().tolist() == values
    assert other["e"].dtype == bool
    assert other["a"][1:].compute().tolist() == [2.5]


def test_a_run_without_events_has_nothing_to_show(store, acquire):
    run = store[acquire(store, {})]
    assert run.streams == ()
    assert [name for name, _ in run.documents()] == ["start", "stop"]
    with pytest.raises(LookupFailed, match="it has no streams"):
        run["primary"]
    assert repr(run) == f"<Run {run.uid[:8]} count complete: no streams>"


def test_documents_are_valid_and_copies(run):
    documents = list(run.documents())
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    assert [name for name, _ in documents].count("event") == 6
    documents[0][1]["embryo"] = "changed"
    assert next(iter(run.documents()))[1]["embryo"] == "e3"


def test_filled_documents_hold_lazy_arrays_and_no_references(run):
    documents = list(run.documents(fill=True))
    assert {name for name, _ in documents} == {"start", "descriptor", "event", "stop"}
    views = [doc["data"]["view"] for name, doc in documents if name == "event" and "view" in doc["data"]]
    assert all(isinstance(view, LazyArray) for view in views)
    np.testing.assert_array_equal(np.stack(views), encoded((3, 4, 6, 7)))
    keys = next(doc["data_keys"] for name, doc in documents if name == "descriptor")
    assert "external" not in keys["view"]


def test_a_table_has_a_row_for_each_event(run):
    table = run.table()
    assert list(table.columns) == ["time", "view", "laser", "comment"]
    assert table.index.tolist() == [1, 2, 3]
    assert table.index.name == "seq_num"
    assert table["laser"].tolist() == [0.0, 0.5, 1.0]
    assert table["view"].tolist() == [f"{run['view'].uid}/{n}" for n in range(3)]
    assert run.table("monitor")["temperature"].tolist() == [20.5, 21.0]


def test_a_dataset_is_lazy_and_has_coordinates(run):
    dataset = run.to_xarray()
    assert dataset["view"].dims == ("t", "z", "y", "x")
    assert hasattr(dataset["view"].data, "dask")
    np.testing.assert_array_equal(dataset["view"], encoded((3, 4, 6, 7)))
    np.testing.assert_allclose(dataset["z"], [0, 1.5, 3, 4.5])
    np.testing.assert_allclose(dataset["x"], np.arange(7) * 0.25)
    assert dataset["x"].attrs["units"] == "micrometer"
    assert dataset["seq_num"].values.tolist() == [1, 2, 3]
    assert dataset["laser"].values.tolist() == [0.0, 0.5, 1.0]
    times_s = [event["time"] for event in run["primary"].events]
    np.testing.assert_allclose(dataset["t"], np.array(times_s) - run.start["time"], atol=1e-6)
    assert dataset["t"].attrs["units"] == "s"
    assert dataset["time"].dtype == np.dtype("datetime64[ns]")
    np.testing.assert_allclose(dataset["time"].values.astype("i8") / 1e9, times_s, atol=2e-6)
    assert dataset["view"].attrs["uid"] == run["view"].uid
    assert dataset.attrs == {"run": run.uid, "stream": "primary"}
    nearest = dataset["view"].sel(t=times_s[1] - run.start["time"], z=3.1, method="nearest")
    np.testing.assert_array_equal(nearest, encoded((3, 4, 6, 7))[1, 2])
    more = run.to_xarray("more")
    assert more["image"].dims == ("t", "y", "x")
    assert dict(more.sizes) == {"t": 1, "dim_0": 4, "y": 6, "x": 7}


def test_a_dataset_keeps_axes_of_one_name_and_different_lengths_apart(store, acquire):
    events = [{"a": np.zeros((4, 5), "u1"), "b": np.zeros((6, 5), "u1")}]
    dataset = store[acquire(store, events)].to_xarray()
    assert dataset["a"].dims == ("t", "y", "x")
    assert dataset["b"].dims == ("t", "b_y", "x")


def test_a_dataset_names_views_and_keeps_data_keys_that_are_called_like_axes(store, acquire):
    from gently_bluesky.testing.documents import HandMadeRun

    run = HandMadeRun()
    descriptor = run.descriptor(views={"dims": ["v", "y", "x"]}, x={}, time={}, t={})
    descriptor["configuration"] = {
        "device": {"data": {"view_names": ["left", "right"]}, "timestamps": {}, "data_keys": {}}
    }
    with store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, views=encoded((2, 4, 5)), x=1.5, time=7, t=8))
        writer("stop", run.stop())
    dataset = store[run.uid].to_xarray()
    np.testing.assert_array_equal(dataset["views"].sel(v="right")[0], encoded((2, 4, 5))[1])
    assert store[run.uid]["views"].channels == ("left", "right")
    assert dataset["primary_x"].values.tolist() == [1.5]
    assert dataset["primary_time"].values.tolist() == [7]
    assert dataset["primary_t"].values.tolist() == [8]


@pytest.mark.parametrize("backend", FORMATS)
def test_a_rewind_shows_the_last_event_of_each_seq_num_and_keeps_the_others(store, acquire, backend):
    images = encoded((5, 4, 6))
    events = [{"image": image, "n": n} for n, image in enumerate(images)]
    run = store[acquire(store, events, backend=backend, seq_nums=[1, 2, 3, 2, 3])]
    np.testing.assert_array_equal(run["image"], images[[0, 3, 4]])
    assert run["n"].compute().tolist() == [0, 3, 4]
    assert run["image"][1].uid == f"{run['image'].uid}/3"
    assert run.table()["n"].tolist() == [0, 3, 4]
    np.testing.assert_array_equal(store.array(run["image"].uid), images)
    assert run["image"][:, 1:].compute().tolist() == images[[0, 3, 4], 1:].tolist()


@pytest.mark.parametrize("backend", FORMATS)
def test_a_device_that_was_configured_anew_has_an_array_for_each_configuration(store, backend):
    from event_model import compose_run

    run = compose_run()
    with store.writer(format=backend) as writer:
        writer("start", run.start_doc)
        for side in (4, 6):
            key = {"image": {"source": "x", "dtype": "array", "shape": [side, 5]}}
            bundle = run.compose_descriptor(name="primary", data_keys=key)
            writer("descriptor", bundle.descriptor_doc)
            data = {"image": np.full((side, 5), side, "u1")}
            writer("event", bundle.compose_event(data=data, timestamps={"image": 0.0}, validate=False))
        writer("stop", run.compose_stop())
    with pytest.raises(
        AmbiguousArray, match=r"primary/image changed shape.* 2 arrays; ask for store.array"
    ) as caught:
        store[-1]["image"]
    uids = str(caught.value).rpartition(": ")[2].split(", ")
    assert [store.array(uid).shape for uid in uids] == [(1, 4, 5), (1, 6, 5)]


# -- a run that goes on --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", FORMATS)
def test_a_run_is_read_while_it_goes_on_and_the_handle_goes_on_working_after_it(root, backend):
    from threading import Event

    from event_model import compose_run

    run = compose_run()
    images = encoded((4, 3, 5))
    with Store(root) as store, Store(root, mode="r") as reader:
        writer = store.writer(format=backend)
        announced = Event()
        writer.subscribe(lambda name, doc: announced.set() if name == "event" else None)
        writer("start", run.start_doc)
        keys = {"image": {"source": "x", "dtype": "array", "shape": [3, 5]}}
        bundle = run.compose_descriptor(name="primary", data_keys=keys)
        writer("descriptor", bundle.descriptor_doc)
        handles = []
        for n, image in enumerate(images):
            announced.clear()
            event = bundle.compose_event(data={"image": image}, timestamps={"image": 0.0}, validate=False)
            writer("event", event)
            assert announced.wait(10)
            for opened in (store, reader):
                live = _eventually(
                    lambda opened=opened, n=n: (
                        len(opened[run.start_doc["uid"]]["image"]) == n + 1 and opened[run.start_doc["uid"]]
                    )
                )
                assert live.status == "running"
                assert live.stop is None
                handles.append((n + 1, live["image"]))
                np.testing.assert_array_equal(live["image"], images[: n + 1])
        writer("stop", run.compose_stop())
        for opened in (store, reader):
            ended = opened[run.start_doc["uid"]]
            assert _eventually(lambda ended=ended: ended.status == "complete")
            assert ended.stop["num_events"] == {"primary": 4}
        for count, handle in handles:
            np.testing.assert_array_equal(handle, images[:count])
        assert live.status == "complete"


def _eventually(ask) -> Any:
    """Ask again until the answer is true: a reader without an index looks for news only so often."""
    import time

    deadline_s = time.monotonic() + 10
    while True:
        try:
            found = ask()
        except LookupFailed:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline_s


# -- arrays from real files have numpy's meaning -------------------------------------------------------


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with Store(tmp_path_factory.mktemp("lasting") / "store") as store:
        yield store


@pytest.fixture(scope="module", params=FORMATS)
def stored(request, lasting) -> LazyArray:
    from event_model import compose_run

    run = compose_run()
    with lasting.writer(format=request.param) as writer:
        writer("start", run.start_doc)
        keys = {"image": {"source": "x", "dtype": "array", "shape": [], "dims": ["v", "z", "y", "x"]}}
        bundle = run.compose_descriptor(name="primary", data_keys=keys)
        writer("descriptor", bundle.descriptor_doc)
        for image in encoded(SHAPE):
            event = bundle.compose_event(data={"image": image}, timestamps={"image": 0.0}, validate=False)
            writer("event", event)
        writer("stop", run.compose_stop())
    return lasting[run.start_doc["uid"]]["image"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(index=indices_for(SHAPE))
def test_every_index_means_what_it_means_to_numpy(stored, index):
    expected = encoded(SHAPE)[index]
    got = stored[index]
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.compute(), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_an_index_of_an_index_means_what_it_means_to_numpy(stored, data):
    first = data.draw(indices_for(SHAPE, newaxis=False))
    expected = encoded(SHAPE)[first]
    second = data.draw(indices_for(expected.shape, newaxis=False))
    np.testing.assert_array_equal(stored[first][second].compute(), expected[second])


@pytest.mark.parametrize("reduce", [np.max, np.min, np.mean, np.std, np.sum])
@pytest.mark.parametrize("axis", [None, 0, 2, (3, 4)])
def test_reductions_are_those_of_numpy(stored, reduce, axis):
    np.testing.assert_allclose(reduce(stored, axis=axis), reduce(encoded(SHAPE), axis=axis))


def test_numpy_functions_arithmetic_and_iteration_work_as_on_an_array(stored):
    array = encoded(SHAPE)
    np.testing.assert_array_equal(stored - 1, array - 1)
    np.testing.assert_array_equal(np.sqrt(stored[0]), np.sqrt(array[0]))
    np.testing.assert_array_equal(np.percentile(stored[0], 50), np.percentile(array[0], 50))
    np.testing.assert_array_equal(
        np.concatenate([stored[0], stored[1]]), np.concatenate([array[0], array[1]])
    )
    np.testing.assert_array_equal(np.stack(list(stored)), array)
    assert (stored[0] == array[0]).all()
    assert len(stored) == 3
    assert np.asarray(stored, dtype="f4").dtype == np.float32


def test_dask_computes_from_the_files(stored):
    lazy = stored.to_dask()
    assert lazy.shape == SHAPE
    np.testing.assert_array_equal(
        lazy[:, 0].max(axis=1).compute(scheduler="threads"), encoded(SHAPE)[:, 0].max(axis=1)
    )
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), encoded(SHAPE))


def test_matplotlib_shows_a_plane(stored):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    image = axes.imshow(stored[1, 0, 2])
    figure.canvas.draw()
    np.testing.assert_array_equal(image.get_array(), encoded(SHAPE)[1, 0, 2])
    plt.close(figure)


# -- slicing costs nothing, a plane costs a plane ------------------------------------------------------

PLANES, SIDE = 96, 1024

WRITE_A_VOLUME = """
PLANES, SIDE = map(int, sys.argv[3:])
from event_model import compose_run
rng = np.random.default_rng(0)
noise = rng.poisson(110, (SIDE, SIDE)).astype("<u2")
volume = np.empty((PLANES, SIDE, SIDE), "<u2")
for z in range(PLANES):
    volume[z] = np.roll(noise, z * 7919)  # a camera: the offset and shot noise of every plane differ
    volume[z, 450:550, 450:550] += z * 20
run = compose_run()
bundle = run.compose_descriptor(
    name="primary", data_keys={"view": {"source": "x", "dtype": "array", "shape": [PLANES, SIDE, SIDE]}})
with Store(sys.argv[1]) as store, store.writer(format=sys.argv[2], max_pending_bytes=2**30) as writer:
    writer("start", run.start_doc)
    writer("descriptor", bundle.descriptor_doc)
    writer("event", bundle.compose_event(data={"view": volume}, timestamps={"view": 0.0}, validate=False))
    writer("stop", run.compose_stop())
print(int(volume[70].sum(dtype="u8")))
"""

READ_A_PLANE = """
def read_bytes():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
own = read_bytes()
own = read_bytes() - own  # what looking itself reads
with Store(sys.argv[1], mode="r") as store:
    before = read_bytes()
    volume = store[-1]["primary"]["view"]
    opened = read_bytes() - before
    before = read_bytes()
    plane = volume[0, 70]
    crop = volume[:, 3:90, ::2][0].max
    repr(volume), plane.shape, volume[0].uid
    sliced = read_bytes() - before - own
    before = read_bytes()
    pixels = np.asarray(plane)
    read = read_bytes() - before - own
    before = read_bytes()
    np.asarray(volume[0, 40, 300:400, 300:400])
    cut = read_bytes() - before - own
print(opened, sliced, read, cut, int(pixels.sum(dtype="u8")), pixels.flags.owndata or pixels.base is not None)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what Linux counts")
@pytest.mark.parametrize("backend", FORMATS)
def test_a_plane_of_a_volume_costs_one_plane_in_a_fresh_process(root, in_process, backend):
    checksum = in_process(WRITE_A_VOLUME, root, backend, PLANES, SIDE)
    (asset,) = root.glob("runs/*/*/*/*/primary-view*")
    on_disk = sum(path.stat().st_size for path in asset.rglob("*") if path.is_file())
    plane = on_disk / PLANES
    opened, sliced, read, cut, total, _ = in_process(READ_A_PLANE, root).split()
    assert total == checksum
    assert int(sliced) < 100  # the numbers that are looked at grow by a digit
    assert int(opened) < 200_000
    assert plane / 2 < int(read) <= 1.2 * plane
    assert int(cut) <= plane / 2
    if backend == "zarr":
        assert on_disk < 0.7 * PLANES * SIDE * SIDE * 2
    shutil.rmtree(root)


# -- a store that was moved, and one that lies ---------------------------------------------------------


@pytest.fixture
def moved(tmp_path, acquire):
    root = tmp_path / "before"
    views = encoded((3, 2, 6, 7))
    with Store(root) as store:
        uids = [acquire(store, [{"view": view} for view in views], backend=backend) for backend in FORMATS]
        uids.append(store.put(views, data_type="copy", parents=[uids[0]]).uid)
        store.put({"n": 1}, data_type="n", parents=[uids[2]])
    there = tmp_path / "elsewhere" / "after"
    there.parent.mkdir()
    root.rename(there)
    return there, uids, views


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_moved_store_opens_and_fills(moved, mode):
    root, uids, views = moved
    with Store(root, mode=mode) as store:
        for uid in uids[:2]:
            run = store[uid]
            np.testing.assert_array_equal(run["view"], views)
            events = [doc for name, doc in run.documents(fill=True) if name == "event"]
            np.testing.assert_array_equal(np.stack([event["data"]["view"] for event in events]), views)
            assert all(doc["root"] == str(root) for name, doc in run.documents() if name == "resource")
            with Filler(handler_registry(), inplace=False) as filler:
                filled = [
                    doc for name, doc in (filler(*named) for named in run.documents()) if name == "event"
                ]
            np.testing.assert_array_equal(np.stack([event["data"]["view"] for event in filled]), views)
        np.testing.assert_array_equal(store.get(uids[2]), views)
        assert store.get(store.latest(data_type="n").uid) == {"n": 1}
        assert len(store.lineage(store.latest(data_type="n").uid)) == 3


def test_the_documents_of_a_moved_store_as_they_stand_on_disk_fill_with_a_root_map(moved, tmp_path):
    root, uids, views = moved
    root_map = {str(tmp_path / "before"): str(root)}
    with Store(root, mode="r") as store:
        journals = [root / store.record(uid).path for uid in uids[:2]]
    for journal in journals:
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        with Filler(handler_registry(), root_map=root_map, inplace=False) as filler:
            filled = [filler(line["name"], line["doc"])[1] for line in lines]
        events = [doc for doc, line in zip(filled, lines, strict=True) if line["name"] == "event"]
        np.testing.assert_array_equal(np.stack([event["data"]["view"] for event in events]), views)
    seen = []
    replay(
        journals[0].parent, lambda name, doc: seen.append(doc["data"]["view"]) if name == "event" else None
    )
    np.testing.assert_array_equal(np.stack(seen), views)


def rewrite(store_root: Path, journal: str, change) -> None:
    """Change every resource document of a journal, and let the index be built from what stands there then."""
    path = store_root / journal
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["name"] == "resource":
            change(line["doc"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for file in store_root.glob("index.sqlite*"):
        file.unlink()


@pytest.mark.parametrize("backend", FORMATS)
@pytest.mark.parametrize("how", ["up", "absolute", "link", "up inside", "file link"])
def test_a_resource_path_that_leads_out_of_the_store_is_refused_on_reading(tmp_path, acquire, backend, how):
    outside = tmp_path / "other"
    root = tmp_path / "store"
    with Store(outside) as other, Store(root) as store:
        secret = other[acquire(other, [{"view": encoded((4, 5))}], backend=backend)]
        uid = acquire(store, [{"view": np.zeros((4, 5), "<u4")}], backend=backend)
        target = outside / other.record(secret["view"].uid).path
        mine = store.record(store[uid]["view"].uid)
        journal = store[uid].record.path
    folder = Path(mine.path).parent.as_posix()
    if how in {"link", "file link"}:
        shutil.rmtree(root / mine.path)
        if how == "link":
            (root / mine.path).symlink_to(target, target_is_directory=True)
        else:
            (root / folder / "link").symlink_to(target.parent, target_is_directory=True)
    paths = {
        "up": os.path.relpath(target, root),
        "absolute": str(target),
        "link": mine.path,
        "up inside": f"{folder}/../../../../../../other/{target.relative_to(outside).as_posix()}",
        "file link": f"{folder}/link/{target.name}",
    }
    rewrite(root, journal, lambda doc: doc.update(resource_path=paths[how]))
    with Store(root, mode="r") as store:
        run = store[uid]
        for read in (
            lambda: run["view"],
            lambda: store.array(mine.uid),
            lambda: store.array(f"{mine.uid}/0"),
            lambda: store.get(uid)["view"],
        ):
            with pytest.raises(
                (InvalidDocument, AssetMissing), match=r"nothing was read|gone|cannot be opened"
            ):
                read()
        with pytest.raises((InvalidDocument, AssetMissing), match=r"nothing was read|gone|cannot be opened"):
            list(run.documents(fill=True))
        assert run.status == "complete"
        assert run.table().shape == (1, 2)


@pytest.mark.parametrize("backend", FORMATS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"dims": ["y"]},
        {"dims": [["y"], "x"]},
        {"dims": ["x", "x"]},
        {"scale": [1.0]},
        {"units": 3},
        {"frame_shape": [40, 5]},
        {"frame_shape": "big"},
        {"dtype": "<u8"},
        {"dtype": "O"},
        {"dims": "yx", "scale": {}},
    ],
    ids=repr,
)
def test_a_resource_that_does_not_fit_its_files_is_one_error_of_ours(root, acquire, backend, kwargs):
    with Store(root) as store:
        uid = acquire(store, [{"view": encoded((4, 5))}], backend=backend)
        journal = store[uid].record.path
    rewrite(root, journal, lambda doc: doc["resource_kwargs"].update(kwargs))
    with Store(root, mode="r") as store:
        if kwargs == {"dims": "yx", "scale": {}}:
            assert store[uid]["view"].shape == (1, 4, 5)
            return
        with pytest.raises(AssetDamaged, match=r"nothing was read|no pixels were returned"):
            store[uid]["view"].compute()
        with pytest.raises(AssetDamaged, match=r"nothing was read|no pixels were returned"):
            [
                np.asarray(doc["data"]["view"])
                for name, doc in store[uid].documents(fill=True)
                if name == "event"
            ]


@pytest.mark.parametrize("backend", FORMATS)
def test_files_that_are_gone_are_said_to_be_gone_and_the_rest_is_read(store, acquire, backend):
    run = store[acquire(store, [{"view": image, "x": 1} for image in encoded((3, 4, 5))], backend=backend)]
    asset = store.root / store.record(run["view"].uid).path
    first = next(
        path for path in sorted(asset.rglob("*")) if path.is_file() and path.name in {"000000.ome.tif", "0"}
    )
    lazy = run["view"]
    first.unlink()
    with pytest.raises(StorageError):
        lazy[0].compute()
    np.testing.assert_array_equal(lazy[1:], encoded((3, 4, 5))[1:])
    shutil.rmtree(asset)
    with pytest.raises(AssetMissing, match="primary-view"):
        run["view"]
    assert run["x"].compute().tolist() == [1, 1, 1]
    assert len(run.table()) == 3


def test_an_asset_of_a_kind_that_nothing_opens_is_indexed_and_says_so(store):
    from event_model import compose_run

    run = compose_run()
    keys = {"image": {"source": "x", "dtype": "array", "shape": [4, 5], "external": "FILESTORE:"}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    resource = run.compose_resource(
        spec="AD_WAX", root="/data", resource_path="x.wax", resource_kwargs={}, path_semantics="posix"
    )
    datum = resource.compose_datum(datum_kwargs={"point_number": 0})
    with store.writer() as writer:
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        writer("resource", resource.resource_doc)
        writer("datum", datum)
        event = bundle.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 0.0}, filled={"image": False}
        )
        writer("event", event)
        writer("stop", run.compose_stop())
    opened = store[-1]
    for read in (lambda: opened["image"], lambda: store.array(datum["datum_id"])):
        with pytest.raises(LookupFailed, match="'AD_WAX', which nothing installed here opens; it is indexed"):
            read()
    assert opened.table()["image"].tolist() == [datum["datum_id"]]
    assert [doc for name, doc in opened.documents() if name == "resource"] == [resource.resource_doc]


def test_a_journal_that_is_gone_is_one_error(root, acquire):
    with Store(root) as store:
        run = store[acquire(store, [{"x": 1}])]
        (root / run.record.path).unlink()
        for ask in (lambda: run.stop, lambda: list(run.documents()), run.table, lambda: run["x"]):
            with pytest.raises(AssetMissing, match=r"the journal of run .* is not there; nothing was read"):
                ask()
