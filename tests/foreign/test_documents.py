"""Documents of others through the writer: unchanged where they are valid, one clear error where they are not."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import bluesky.tests
import h5py
import jinja2
import numpy as np
import pytest
import tifffile
from event_model import DocumentNames, compose_run, schema_validators
from foreign_runs import SHAPE, datum_run, frames, send, stream_run, uri_of, write_hdf5
from opened_run import opened, require_untouched, resource

from gently_bluesky import Store
from gently_bluesky.errors import (
    ConflictingDocument,
    GentlyError,
    InvalidDocument,
    PathNotAllowed,
    UnknownReference,
)
from gently_bluesky.testing.documents import HandMadeRun

EXAMPLES = Path(bluesky.tests.__file__).parent / "examples"
HDF5 = "application/x-hdf5"


@pytest.fixture
def data(tmp_path):
    """The files that bluesky's recorded streams tell of, as bluesky's own tests make them."""
    folder = tmp_path / "files"
    (folder / "tiff_files").mkdir(parents=True)
    rng = np.random.default_rng(12345)
    with h5py.File(folder / "dataset.h5", "w") as file:
        group = file.create_group("entry/data")
        group.create_dataset("data_1", data=rng.random(size=(3,)))
        group.create_dataset("data_2", data=rng.integers(-10, 10, size=(3, 13, 17)), dtype="<i8")
    with h5py.File(folder / "dataset_part2.h5", "w") as file:
        file.create_dataset("entry/data/data_2", data=rng.integers(-10, 10, size=(5, 13, 17)), dtype="<i8")
    for number in range(3):
        pixels = rng.integers(0, 255, size=(1, 10, 15), dtype="uint8")
        tifffile.imwrite(folder / "tiff_files" / f"img_{number:05}.tif", pixels)
    return folder


def example(name, folder):
    """Return one of the streams, rendered as bluesky's own tests render them."""
    loader = jinja2.Environment(loader=jinja2.FileSystemLoader(EXAMPLES), autoescape=False)
    text = loader.get_template(name).render(root_path=str(folder), uuid=str(uuid.uuid4())[:-12])
    return [(item["name"], item["doc"]) for item in json.loads(text)]


NAMES = sorted(path.name for path in EXAMPLES.glob("*.json"))


def test_bluesky_has_the_streams_that_are_known():
    assert [
        *("external_assets.json", "external_assets_legacy.json", "external_assets_single_key.json"),
        "internal_events.json",
    ] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recorded_streams_of_bluesky_go_through_unchanged_and_validate(tmp_path, data, name):
    documents = example(name, data)
    run_uid = documents[0][1]["uid"]
    announced = []
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        with store.writer() as writer:
            writer.subscribe(lambda name, doc: announced.append((name, doc)))
            for name_, doc in documents:
                writer(name_, doc)
        assert list(store[run_uid].documents()) == announced
        assert store[run_uid].status == "complete"
    for name_, doc in announced:
        schema_validators[DocumentNames[name_]].validate(doc)

    def said(pairs, kinds):
        return [(name_, {**doc, "run_start": run_uid}) for name_, doc in pairs if name_ in kinds]

    others = {"start", "stop", "event", "resource", "datum", "stream_resource", "stream_datum"}
    assert said(announced, others) == said(documents, others)
    for (_, now), (_, then) in zip(
        said(announced, {"descriptor"}), said(documents, {"descriptor"}), strict=True
    ):
        assert {**now, "data_keys": 0} == {**then, "data_keys": 0}
        for key, known in then["data_keys"].items():
            shape = [0] if key == "empty" else known["shape"]  # said to be [], and an array came
            assert {**now["data_keys"][key], **known, "shape": shape} == now["data_keys"][key]


def test_arrays_of_a_recorded_stream_open(tmp_path, data):
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        run = store[send(store, example("external_assets.json", data))]
        with h5py.File(data / "dataset.h5") as file:
            for key, name in (("det-key1", "data_1"), ("det-key2", "data_2")):
                assert np.array_equal(run["primary"][key][:, 0], file["entry/data"][name])
        images = [tifffile.imread(file) for file in sorted((data / "tiff_files").iterdir())]
        assert np.array_equal(run["secondary"]["det-key3"], np.reshape(images, (3, 1, 10, 15)))


def test_arrays_of_a_recorded_stream_of_the_older_family_open(tmp_path, data):
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        legacy = store[send(store, example("external_assets_legacy.json", data))]
        assert store.record(next(store.query(kind="asset")).uid).format == "AD_HDF5_SWMR_STREAM"
        with h5py.File(data / "dataset.h5") as file:
            assert np.array_equal(legacy["det-key2"][:, 0], file["entry/data/data_2"])
            assert np.array_equal(store.array("det-key2-uid/1")[0], file["entry/data/data_2"][1])


def test_a_recorded_stream_of_a_kind_that_nothing_opens_is_indexed(tmp_path, data):
    documents = example("external_assets_legacy.json", data)
    next(doc for name, doc in documents if name == "resource")["spec"] = "ODD"
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        legacy = store[send(store, documents)]
        assert store.record(next(store.query(kind="asset")).uid).format == "ODD"
        with pytest.raises(LookupError, match="'ODD', which nothing installed here opens"):
            legacy["det-key2"]


def test_a_key_in_two_files_shows_what_came_last_and_keeps_the_rest(tmp_path, data):
    """The second file of this stream repeats the ``seq_nums`` of the first, as a rewind does."""
    with Store(tmp_path / "store", allowed_roots=[data]) as store:
        run = store[send(store, example("external_assets_single_key.json", data))]
        for array, file in (
            (run["det-key2"], "dataset_part2.h5"),
            (store.array("det-key2-uid-part2"), "dataset_part2.h5"),
            (store.array("det-key2-uid"), "dataset.h5"),
        ):
            with h5py.File(data / file) as opened_file:
                assert np.array_equal(array[:, 0], opened_file["entry/data/data_2"])


def test_a_stream_without_events_has_a_row_for_each_that_was_announced(store, data):
    write_hdf5(data / "x.h5", 3)
    uid = send(store, stream_run(HDF5, uri_of(data / "x.h5"), {"dataset": "/entry/data/data"}))
    table, dataset = store[uid].table(), store[uid].to_xarray()
    assert [uid.rpartition("/")[2] for uid in table["image"]] == ["0", "1", "1"]
    assert table.index.tolist() == dataset["seq_num"].values.tolist() == [1, 2, 3]
    assert table["time"].isna().all()
    assert np.array_equal(dataset["image"][:, 0], frames(3))


def test_a_dataset_ends_with_the_last_event_where_arrays_are_ahead(store, data):
    run = compose_run()
    keys = {
        "image": {"source": "ioc", "dtype": "array", "shape": [1, *SHAPE], "external": "STREAM:"},
        "n": {"source": "ioc", "dtype": "number", "shape": []},
    }
    write_hdf5(data / "x.h5", 3)
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    resource, compose_datum = run.compose_stream_resource(
        mimetype=HDF5, uri=uri_of(data / "x.h5"), data_key="image", parameters={"dataset": "/entry/data/data"}
    )
    datum = compose_datum(
        indices={"start": 0, "stop": 3}, seq_nums={"start": 1, "stop": 4}, descriptor=stream.descriptor_doc
    )
    documents = [
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", resource),
        ("stream_datum", datum),
    ]
    event = stream.compose_event(data={"n": 7}, timestamps={"n": 1.0})
    with store.writer() as writer:
        for name, doc in [("start", run.start_doc), *documents, ("event", event)]:
            writer(name, doc)
    dataset = store[run.start_doc["uid"]].to_xarray()
    assert dataset["n"].values.tolist() == [7]
    assert np.array_equal(dataset["image"][0, 0], frames(1)[0])


# -- bad input -------------------------------------------------------------------------------------------------

PARAMETERS = {"dataset": "/entry/data/data", "chunk_shape": [1, *SHAPE]}


@pytest.mark.parametrize(
    ("ranges", "match"),
    [
        ([(0, 2), (3, 4)], "leaves a gap"),
        ([(1, 2)], "leaves a gap"),
        ([(0, 2), (1, 3)], "overlaps what came before"),
        ([(0, 2), (0, 2)], "overlaps what came before"),
        ([(0, 2), (2, 1)], "ends before it begins"),
        ([(-1, 2)], "overlaps what came before"),
    ],
)
def test_ranges_with_gaps_or_overlaps_are_refused_and_what_came_before_stands(store, ranges, match):
    documents = stream_run(HDF5, "file://localhost/data/x.h5", PARAMETERS, ranges)
    uid, writer = documents[0][1]["uid"], store.writer()
    for name, doc in documents[:-2]:
        writer(name, doc)
    for name, doc in documents[-2:]:
        with pytest.raises(InvalidDocument, match=match):
            writer(name, doc)
    run = store[uid]
    assert run.status == "failed"
    assert match in run.stop["reason"]
    assert [name for name, _ in run.documents()].count("stream_datum") == len(ranges) - 1


def test_a_range_for_another_number_of_events_is_refused(store):
    documents = stream_run(HDF5, "file://localhost/data/x.h5", PARAMETERS, [(0, 2)])
    documents[3][1]["seq_nums"] = {"start": 1, "stop": 6}
    with pytest.raises(InvalidDocument, match="expected as many of these"):
        send(store, documents)


def without(documents, kind):
    return [(name, doc) for name, doc in documents if name != kind]


def swapped(documents, first, second):
    places = [place for place, (name, _) in enumerate(documents) if name in {first, second}][:2]
    documents[places[0]], documents[places[1]] = documents[places[1]], documents[places[0]]
    return documents


@pytest.mark.parametrize("family", ["datum", "stream"])
@pytest.mark.parametrize("how", ["never", "late"])
def test_a_resource_that_does_not_come_before_its_datum_fails_the_run(store, family, how):
    if family == "datum":
        documents = datum_run("AD_HDF5", "/data", "x.h5", {}, [{"point_number": 0}])
        names = "resource", "datum"
    else:
        documents = stream_run(HDF5, "file://localhost/data/x.h5", PARAMETERS)
        names = "stream_resource", "stream_datum"
    documents = without(documents, names[0]) if how == "never" else swapped(documents, *names)
    with pytest.raises(UnknownReference, match="which has not come"):
        send(store, documents)
    assert store[documents[0][1]["uid"]].status == "failed"


def test_an_event_that_names_a_datum_which_never_came_is_refused(store):
    documents = without(datum_run("AD_HDF5", "/data", "x.h5", {}, [{"point_number": 0}]), "datum")
    writer = store.writer()
    for name, doc in documents[:3]:
        writer(name, doc)
    with pytest.raises(UnknownReference, match="as its datum, which has not come; the event was not stored"):
        writer(*documents[3])
    with pytest.raises(UnknownReference):
        writer(*documents[4])
    assert store[documents[0][1]["uid"]].stop["num_events"] == {}


def test_a_run_whose_resources_never_came_to_an_end_is_incomplete(store):
    documents = datum_run("AD_HDF5", "/data", "x.h5", {}, [{"point_number": 0}])
    with store.writer() as writer:
        for name, doc in documents[:3]:
            writer(name, doc)
    assert store[documents[0][1]["uid"]].status == "incomplete"


def test_two_resources_with_one_uid_are_refused_and_the_first_stands(store):
    writer, run, _ = opened(store)
    writer("resource", resource(run))
    writer("resource", resource(run))
    with pytest.raises(ConflictingDocument, match="came twice with different contents; the first one stands"):
        writer("resource", resource(run, resource_path="../../etc/passwd"))
    with pytest.raises(ConflictingDocument):
        writer("stop", run.stop())
    require_untouched(store, run)


def after(documents, place, name, **change):
    """Return the documents with another one, which is one of them but for a change, behind it."""
    return [*documents[: place + 1], (name, {**documents[place][1], **change}), *documents[place + 1 :]]


def changed(documents, place, **change):
    documents[place] = (documents[place][0], {**documents[place][1], **change})
    return documents


def by_datum():
    return datum_run("AD_HDF5", "/data", "x.h5", {}, [{"point_number": 0}])


def by_stream(*ranges):
    return stream_run(HDF5, "file://localhost/data/x.h5", PARAMETERS, ranges or [(0, 1), (1, 3)])


BAD = {
    "a gap": lambda: by_stream((0, 1), (2, 3)),
    "an overlap": lambda: by_stream((0, 2), (1, 3)),
    "a datum before its resource": lambda: swapped(by_datum(), "resource", "datum"),
    "a stream_datum before its stream_resource": lambda: swapped(
        by_stream(), "stream_resource", "stream_datum"
    ),
    "a resource that never comes": lambda: without(by_datum(), "resource"),
    "a stream_resource that never comes": lambda: without(by_stream(), "stream_resource"),
    "a datum that never comes": lambda: without(by_datum(), "datum"),
    "two resources with one uid": lambda: after(by_datum(), 2, "resource", resource_path="another"),
    "two stream_resources with one uid": lambda: after(
        by_stream(), 2, "stream_resource", uri="file://localhost/another"
    ),
    "a resource and a stream_resource with one uid": lambda: after(
        by_stream(), 2, "resource", spec="X", root="/", resource_path="x", resource_kwargs={}
    ),
    "a descriptor that never comes": lambda: changed(by_stream(), 3, descriptor="nowhere"),
    "a uri that is a number": lambda: changed(by_stream(), 2, uri=5),
    "parameters that are a list": lambda: changed(by_stream(), 2, parameters=[]),
    "resource_kwargs that are a number": lambda: changed(by_datum(), 2, resource_kwargs=5),
    "a resource_path that is nothing": lambda: changed(by_datum(), 2, resource_path=None),
    "ranges that are no numbers": lambda: changed(by_stream(), 3, indices={"start": "0", "stop": "1"}),
    "a stream_resource that is a descriptor": lambda: changed(
        documents := by_stream(), 3, stream_resource=documents[1][1]["uid"]
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_one_run_is_its_own_failure_and_no_others(store, what):
    documents, before, beside = BAD[what](), by_stream(), HandMadeRun()
    send(store, before)
    descriptor, raised = beside.descriptor(image={}), []
    with store.writer() as writer:
        for named in [("start", beside.start), ("descriptor", descriptor)]:
            writer(*named)
        writer("event", beside.event(descriptor, image=frames(2)))
        for name, doc in documents:
            try:
                writer(name, doc)
            except GentlyError as error:
                raised.append(error)
        writer("event", beside.event(descriptor, image=frames(2)))
        writer("stop", beside.stop())
    assert raised
    assert isinstance(raised[-1], (ConflictingDocument, InvalidDocument, UnknownReference))
    run, uid = store[documents[0][1]["uid"]], before[0][1]["uid"]
    assert (run.status, store[beside.uid].status, store[uid].status) == ("failed", "complete", "complete")
    assert str(raised[-1]) in run.stop["reason"]
    assert np.array_equal(store[beside.uid]["image"], [frames(2), frames(2)])
    assert [doc for _, doc in store[uid].documents()] == [doc for _, doc in before]


def test_resources_that_lead_elsewhere_are_recorded_and_hinder_nobody(store):
    writer, run, _ = opened(store)
    for uid, path in (
        ("up", "../../../etc/passwd"),
        ("nul", "a\0b"),
        ("abs", "/etc/passwd"),
        ("long", "x" * 5000),
    ):
        writer("resource", resource(run, uid, resource_path=path))
        writer("datum", {"datum_id": f"{uid}/0", "resource": uid, "datum_kwargs": {"point_number": 0}})
    writer("stop", run.stop())
    require_untouched(store, run, "complete")
    for uid in ("up", "nul", "abs", "long"):
        with pytest.raises(PathNotAllowed, match="nothing was read there"):
            store.array(f"{uid}/0")
    assert len(list(store[run.uid].documents())) > 8
