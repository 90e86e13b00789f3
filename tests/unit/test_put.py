"""What `put` keeps `get` gives back, durably, with where it came from."""

from __future__ import annotations

import re
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from event_model import DocumentNames, Filler, schema_validators
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gently_bluesky import LazyArray, Store, handler_registry
from gently_bluesky.errors import (
    GentlyError,
    InputError,
    InvalidDocument,
    InvalidSetting,
    StorageError,
    UnknownUid,
)

VOLUME = np.arange(2 * 6 * 7, dtype="<u2").reshape(2, 6, 7)


@pytest.fixture
def volumes(store, acquire) -> LazyArray:
    start = {
        "session": "night 1",
        "embryo": "e3",
        "sample": {"age_h": 3},
        "scan_id": 7,
        "data_type": "volume",
    }
    return store[acquire(store, [{"view": VOLUME + number} for number in range(3)], start=start)]["view"]


def same(got: object, put: object) -> bool:
    """Whether a value came back as it was, down to its dtype; a tuple may come back as a list."""
    if isinstance(put, np.ndarray | LazyArray):
        got, put = np.asarray(got), np.asarray(put)
        return got.dtype == put.dtype.newbyteorder("<") and got.shape == put.shape and _equal(got, put)
    if isinstance(put, np.generic):
        return type(got) is type(put) and _equal(got, put)
    if isinstance(put, dict):
        return (
            isinstance(got, dict) and list(got) == list(put) and all(same(got[key], put[key]) for key in put)
        )
    if isinstance(put, list | tuple):
        return isinstance(got, list) and len(got) == len(put) and all(map(same, got, put))
    if isinstance(put, float) and put != put:
        return isinstance(got, float) and got != got
    return type(got) is type(put) and got == put


def _equal(got: object, put: object) -> bool:
    try:
        return np.array_equal(got, put, equal_nan=True)
    except TypeError:
        return np.array_equal(got, put)


# -- arrays --------------------------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("backend", ["zarr", "tiff"])
@pytest.mark.parametrize("dtype", ["?", "u1", "<u2", ">u2", "<i4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 4), (2, 2, 3, 4), (5000,)])
def test_an_array_comes_back_lazily_as_it_was(store, backend, dtype, shape):
    array = (np.arange(np.prod(shape)) % 2 if dtype == "?" else np.arange(np.prod(shape)) % 1000).astype(
        dtype
    )
    array = array.reshape(shape)
    record = store.put(array, data_type="result", format=backend)
    got = store.get(record.uid)
    assert isinstance(got, LazyArray)
    assert same(got, array)
    if got.ndim > 1:
        assert same(store.array(record.uid)[0], array)


def test_an_array_has_the_axes_it_is_given_or_those_of_microscopy(store):
    for shape, dims in {
        (4, 5): ("y", "x"),
        (3, 4, 5): ("z", "y", "x"),
        (2, 3, 4, 5): ("v", "z", "y", "x"),
    }.items():
        assert store.get(store.put(np.zeros(shape), data_type="a").uid).dims == dims
    kymograph = store.put(np.zeros((4, 5)), data_type="kymograph", dims=("z", "x"))
    assert store.get(kymograph.uid).dims == ("z", "x")
    over_time = store.put(np.zeros((4, 5)), data_type="kymograph", dims=("t", "x"))
    assert store.get(over_time.uid).dims == ("event", "x")
    assert store.get(store.put(np.zeros(5), data_type="a", dims=("z",)).uid).dims == ("z",)


def test_empty_and_small_arrays_come_back_and_can_be_parents(store):
    for array in (np.zeros(0), np.zeros((0, 3), "<u2"), np.arange(3), np.array(["a", "bc"])):
        record = store.put(array, data_type="small")
        got = store.get(record.uid)
        assert same(got, array)
        assert store.put(1, data_type="n", parents=[got]).parents == (record.uid,)


def test_pixel_sizes_are_those_of_the_first_parent_that_has_any(store, volumes):
    assert volumes[0].scale == (1.5, 0.1625, 0.25)
    numbers = store.put({"n": 1}, data_type="numbers")
    for parents in ([volumes[0]], [volumes.uid], [store[-1]], [numbers, volumes[1].uid], volumes[2]):
        got = store.get(store.put(VOLUME.max(axis=0), data_type="projection", parents=parents).uid)
        assert (got.dims, got.scale) == (("y", "x"), (0.1625, 0.25))
        assert got.units == ("micrometer", "micrometer")
    again = store.put(np.asarray(got), data_type="smooth", parents=[got])
    assert store.get(again.uid).scale == (0.1625, 0.25)
    assert store.get(store.put(VOLUME, data_type="volume").uid).scale == (1.0, 1.0, 1.0)


def test_a_lazy_array_is_kept_with_the_axes_and_steps_it_has_after_slicing(store, volumes):
    part = volumes[1, 0, ::2, ::3]
    got = store.get(store.put(part, data_type="part", parents=[part]).uid)
    assert same(got, part)
    assert (got.dims, got.scale, got.units) == (part.dims, (0.325, 0.75), part.units)
    binned = store.put(np.asarray(part), data_type="binned", parents=[part])
    assert store.get(binned.uid).scale == (0.325, 0.75)
    over_time = store.put(volumes[:, 0], data_type="movie", parents=[volumes])
    assert store.get(over_time.uid).dims == ("event", "y", "x")


def test_a_lazy_array_is_read_once(store, volumes, monkeypatch):
    reads = []
    source = type(volumes._source)
    read = source.read
    monkeypatch.setattr(source, "read", lambda *args: reads.append(1) or read(*args))
    store.put(volumes[0], data_type="copy", parents=[volumes[0]])
    assert len(reads) == 1
    store.put({"a": volumes[1]}, data_type="copy")
    assert len(reads) == 2


def test_a_thing_that_numpy_reads_is_kept_as_an_array(store):
    dask_array = pytest.importorskip("dask.array")
    record = store.put(dask_array.ones((4, 5), chunks=2), data_type="ones")
    assert same(store.get(record.uid), np.ones((4, 5)))
    assert same(store.get(store.put([[1, 2], [3, 4]], data_type="matrix").uid), np.array([[1, 2], [3, 4]]))


# -- mappings and values -------------------------------------------------------------------------------

MAPPINGS = {
    "scalars": {"n": 3, "f": 2.5, "yes": True, "no": False, "text": "näpfe\n", "nothing": None},
    "numbers of numpy": {
        "a": np.float32(0.1),
        "b": np.int8(-3),
        "c": np.bool_(True),
        "d": np.uint64(2**64 - 1),
    },
    "not a number": {
        "nan": float("nan"),
        "inf": float("-inf"),
        "both": [float("nan"), 1.0],
        "np": np.float64("nan"),
    },
    "nested": {"a": {"b": {"c": [1, {"d": None}]}}, "e": {}, "f": []},
    "lists": {
        "flat": [1, 2.5, "x", None],
        "of lists": [[1, 2], [3, 4]],
        "ragged": [[1], [2, 3]],
        "long": [1] * 5000,
    },
    "mixed": {"of lists": [[1, 2.5], [True, 3]], "large": [[2**62 + 1, 0.5]]},
    "small arrays": {
        "line": np.arange(4, dtype="<i2"),
        "points": np.zeros((5, 3), "<f4"),
        "none": np.zeros((0, 3)),
    },
    "inside": {"a": {"m": np.eye(3, dtype="<f4"), "s": [np.int16(2), np.arange(2)]}},
    "big arrays": {
        "mask": np.arange(10000).reshape(100, 100) % 2 == 0,
        "n": 1,
        "in": {"big": np.ones((60, 60))},
    },
    "bytes wide": {"line": np.arange(256, dtype="u1").repeat(40)},
    "complex": {"z": np.array([1 + 2j, 3j])},
    "text": {"names": np.array(["a", "längs"]), "many": np.array(["ab"] * 3000)},
    "strange names": {"a.b": 1, "../x": np.zeros((50, 50)), "": 2, "ä/ö": [1], "list": {"list": [[1]]}},
    "empty": {},
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_mapping_comes_back_as_it_was_with_dtypes(root, name):
    with Store(root) as store:
        record = store.put(MAPPINGS[name], data_type="result")
        assert same(store.get(record.uid), MAPPINGS[name])
    with Store(root, mode="r") as reader:
        assert same(reader.get(record.uid), MAPPINGS[name])


VALUES = [
    3,
    -2.5,
    True,
    False,
    None,
    "text",
    "",
    float("nan"),
    np.float32(0.1),
    np.int64(2**62),
    np.bool_(False),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_single_value_comes_back_as_it_was(store, value):
    assert same(store.get(store.put(value, data_type="value").uid), value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | npst.arrays(
        st.sampled_from(["?", "u1", "<i4", "<u8", "<f2", "<f4", "<f8"]),
        npst.array_shapes(min_dims=0, min_side=0),
    ).map(lambda array: array if array.ndim else array[()]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with Store(tmp_path_factory.mktemp("lasting") / "store") as store:
        yield store


@settings(max_examples=50, deadline=None)
@given(data=st.dictionaries(st.text("abc.", max_size=3), JSON, max_size=4))
def test_whatever_mapping_is_put_comes_back(lasting, data):
    assert same(lasting.get(lasting.put(data, data_type="any").uid), data)


# -- tables --------------------------------------------------------------------------------------------

TABLE = np.array(
    [("a", 1, 0.5, (1, 2, 3), True), ("bcd", -2, np.nan, (4, 5, 6), False)],
    dtype=[("name", "<U5"), ("id", "<i2"), ("size", "<f4"), ("where", "<u2", (3,)), ("kept", "?")],
)


@pytest.mark.parametrize("rows", [0, 1, 2, 5000])
def test_a_structured_array_comes_back_with_its_dtype(store, rows):
    table = np.resize(TABLE, rows)
    got = store.get(store.put(table, data_type="nuclei").uid)
    assert got.dtype == table.dtype
    for name in table.dtype.names:
        np.testing.assert_array_equal(got[name], table[name])


def test_a_structured_array_may_hold_moments_and_objects(store):
    table = np.array(
        [(np.datetime64("2026-11-21T14:30", "ns"), [1, 2]), (np.datetime64("NaT", "ns"), None)],
        dtype=[("when", "<M8[ns]"), ("members", "O")],
    )
    got = store.get(store.put(table, data_type="events").uid)
    assert got.dtype == table.dtype
    np.testing.assert_array_equal(got["when"], table["when"])
    assert got["members"].tolist() == [[1, 2], None]


FRAMES = {
    "plain": pd.DataFrame(
        {"a": [1, 2, 3], "b": [0.5, np.nan, 2], "c": ["x", "y", "z"], "d": [True, False, True]}
    ),
    "dtypes": pd.DataFrame(
        {"i": np.arange(3, dtype="int8"), "f": np.zeros(3, "float32"), "u": np.ones(3, "uint64")}
    ),
    "index": pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([7, 9], name="nucleus")),
    "text index": pd.DataFrame({"index": [1.0, 2.0]}, index=["x", "y"]),
    "moments": pd.DataFrame(
        {"t": pd.to_datetime(["2026-11-21", None]), "d": pd.to_timedelta([1, 2], unit="s")}
    ),
    "missing": pd.DataFrame(
        {"i": pd.array([1, None], dtype="Int64"), "s": pd.array(["a", None], dtype="string")}
    ),
    "objects": pd.DataFrame({"o": [{"a": 1}, [1, 2]]}),
    "no rows": pd.DataFrame({"a": np.zeros(0, "int32"), "b": np.zeros(0)}),
    "nothing": pd.DataFrame(),
    "long": pd.DataFrame({"a": np.arange(5000.0), "c": ["text"] * 5000}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_data_frame_comes_back_as_a_data_frame(store, name):
    got = store.get(store.put(FRAMES[name], data_type="nuclei").uid)
    pd.testing.assert_frame_equal(got, FRAMES[name])


# -- what cannot be kept -------------------------------------------------------------------------------


def class_of_its_own():
    class Thing:
        pass

    return Thing()


REFUSED = {
    "an object": (class_of_its_own(), "expected an array, a mapping, a table or a value, got Thing"),
    "bytes": (b"raw", "expected an array, a mapping, a table or a value, got bytes"),
    "an object inside": (
        {"a": {"b": [1, class_of_its_own()]}},
        r"a\.b\.1: expected numbers, text.* got Thing",
    ),
    "a set": ({"a": {1, 2}}, "a: expected numbers, text.* got set"),
    "a path": ({"a": Path("x")}, "a: expected numbers, text"),
    "a decimal": ({"a": Decimal(1)}, "got Decimal"),
    "names that are no text": ({1: 2}, "expected names that are text, got 1"),
    "names inside that are no text": ({"a": {1: 2}}, "a: expected names that are text, got 1"),
    "objects of numpy": (np.array([object()]), "dtype object"),
    "moments of numpy": (np.array(["2026-11-21"], "M8[D]"), "dtype datetime64"),
    "a moment of numpy": ({"t": np.datetime64("2026-11-21")}, "t: JSON has no datetime64"),
    "long floats": (np.zeros(3, np.longdouble), "dtype float128"),
    "bytes of numpy": ({"a": np.array([b"ab"])}, "dtype .S2"),
    "a complex number": ({"z": np.complex128(1j)}, "z: JSON has no complex128"),
    "a complex number of Python": ({"z": 1j}, "z: expected numbers, text.* got complex"),
    "a mask": (np.ma.masked_array([1, 2], [0, 1]), "without a mask, which would be lost"),
    "a mask inside": ({"a": np.ma.masked_array([1, 2], [0, 1])}, "a: expected an array without a mask"),
    "a ragged list": ([[1], [2, 3]], "expected an array, got .*inhomogeneous"),
    "a table of two axes": (np.resize(TABLE, (2, 2)), r"one axis and no mask, got shape \(2, 2\)"),
    "one row": (TABLE[0], r"one axis and no mask, got shape \(\)"),
    "names of columns that are no text": (pd.DataFrame([[1, 2]]), "expected names that are text, got 0"),
    "columns of one name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "columns of different names"),
    "several indexes": (
        pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])),
        "one index; .* reset_index",
    ),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x"])}), "column 'a': .* got category"),
    "zones": (pd.DataFrame({"a": pd.to_datetime(["2026-11-21"], utc=True)}), "without a zone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused_and_nothing_is_stored(store, name):
    data, match = REFUSED[name]
    with pytest.raises(InputError, match=match) as caught:
        store.put(data, data_type="result")
    assert "was not stored" in str(caught.value) or "nothing was stored" in str(caught.value)
    assert nothing_in(store)


def nothing_in(store: Store) -> bool:
    journals = [path for path in store.root.rglob("*.jsonl") if path.stat().st_size]
    return list(store.query()) == [] and journals == [] and not list(store.root.glob("runs/*/*/*/*_*"))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"parameters": {"path": Path("x")}}, InvalidDocument, "PosixPath|WindowsPath"),
        ({"embryo": object()}, InvalidDocument, "object"),
        ({"uid": "mine"}, InvalidSetting, "metadata other than uid, which put"),
        ({"lineage": {}, "time": 3}, InvalidSetting, "other than lineage, time"),
        ({"scan_id": 3}, InvalidSetting, "other than scan_id, .* runs that were acquired; .*another name"),
        ({"format": "hdf5"}, InvalidSetting, "format among zar"),
    ],
)
def test_what_is_said_of_a_result_is_checked_before_anything_is_stored(store, arguments, error, match):
    with pytest.raises(error, match=match):
        store.put(np.zeros((3, 4)), data_type="result", **arguments)
    assert nothing_in(store)


@pytest.mark.parametrize(
    "hostile",
    [{"parameters": {"big": 2**70}}, {"embryo": "\ud800"}, {"session": "\ud800"}, {"data": {"\ud800": 1}}],
    ids=["big", "metadata", "session", "name"],
)
def test_a_result_that_the_index_cannot_hold_does_not_take_others_of_its_journal_with_it(root, hostile):
    with Store(root) as store:
        good = [store.put({"n": 0}, data_type="n").uid]
        with pytest.raises(InvalidDocument, match="integers up to 64 bits and text in Unicode"):
            store.put(
                hostile.get("data", 1), data_type="n", **{k: v for k, v in hostile.items() if k != "data"}
            )
        good.append(store.put({"n": 1}, data_type="n").uid)
        assert [store.get(uid)["n"] for uid in good] == [0, 1]
    (root / "index.sqlite").unlink()
    with Store(root) as store:
        assert [store.get(uid)["n"] for uid in good] == [0, 1]
        assert len(list(store.query())) == 2


def test_integers_of_any_size_and_any_text_may_be_among_the_values(store):
    data = {"big": 2**70, "deep": [{"bigger": -(3**99)}], "text": "\ud800"}
    assert same(store.get(store.put(data, data_type="n").uid), data)


def test_a_data_type_is_asked_for_and_dims_are_names_that_fit_or_give_way(store):
    with pytest.raises(TypeError, match="data_type"):
        store.put(1)
    with pytest.raises(InvalidSetting, match=r"expected dims as names, got \(0, 1\)"):
        store.put(np.zeros((3, 4)), data_type="a", dims=(0, 1))
    record = store.put(np.zeros((3, 4)), data_type="a", dims=("q",))
    assert store.get(record.uid).dims == ("y", "x")


# -- parents and what is taken over --------------------------------------------------------------------


def test_parents_are_uids_beginnings_of_uids_records_runs_or_lazy_arrays(store, volumes):
    run = store[-1]
    expected = {
        run.uid: run,
        run.uid[:9]: run,
        volumes.uid: volumes,
        volumes[1].uid: volumes[1],
    }
    for parent, given_as in expected.items():
        whole = store.record(parent).uid
        for form in (parent, store.record(parent), given_as):
            for parents in ([form], (form,), form, iter([form])):
                assert store.put(1, data_type="n", parents=parents).parents == (whole,)
    both = store.put(1, data_type="n", parents=[volumes[0], volumes[2], run])
    assert both.parents == (volumes[0].uid, volumes[2].uid, run.uid)
    assert [parent.uid for parent in store.lineage(both.uid).parents] == list(both.parents)


@pytest.mark.parametrize("parent", ["nowhere", None, 3, np.zeros(3), ""], ids=repr)
def test_a_parent_that_is_not_in_the_store_is_refused_and_nothing_is_stored(store, parent):
    with pytest.raises(UnknownUid):
        store.put(np.zeros((3, 4)), data_type="result", parents=[parent])
    assert nothing_in(store)


def test_a_parent_of_another_store_is_refused(store, volumes, tmp_path):
    with Store(tmp_path / "other") as other, pytest.raises(UnknownUid, match=volumes[0].uid):
        other.put(1, data_type="n", parents=[volumes[0]])


def test_metadata_and_session_that_the_parents_agree_on_are_taken_over(store, acquire, volumes):
    other = acquire(store, [{"x": 1}], start={"session": "night 1", "embryo": "e4", "sample": {"age_h": 3}})
    one = store.put(1, data_type="n", parents=[volumes[0]])
    assert (one.session, one.data_type) == ("night 1", "n")
    assert one.metadata["embryo"] == "e3"
    assert not {"scan_id", "plan_name", "uid_of"} & one.metadata.keys()
    both = store.put(1, data_type="n", parents=[volumes, other])
    assert both.session == "night 1"
    assert both.metadata["sample"] == {"age_h": 3}
    assert "embryo" not in both.metadata
    given = store.put(1, data_type="n", parents=[one], session="later", embryo="e9")
    assert (given.session, given.metadata["embryo"]) == ("later", "e9")
    assert given.metadata["lineage"]["parents"] == [one.uid]


def test_how_a_result_was_made_is_on_record(store, volumes):
    parameters = {"sigma": np.float64(2.5), "axes": (0, 1), "how": {"deep": None}}
    record = store.put(1, data_type="n", parents=[volumes], operation="smooth", parameters=parameters)
    lineage = store[record.uid].start["lineage"]
    assert lineage["operation"] == record.operation == "smooth"
    assert lineage["parameters"] == {"sigma": 2.5, "axes": [0, 1], "how": {"deep": None}}
    assert {"python", "numpy", "gently-bluesky"} <= lineage["environment"].keys()
    found = store.query(lineage={"parameters": {"sigma": 2.5}})
    assert [one.uid for one in found] == [record.uid]


def test_a_result_without_parents_or_operation_still_is_a_derived_one(store):
    record = store.put(1, data_type="n")
    assert [one.uid for one in store.query(derived=True)] == [record.uid]
    assert list(store.query(derived=False)) == []


# -- results are Bluesky runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [np.ones((4, 5)), np.arange(3), {"n": 1, "a": np.arange(3), "big": np.ones((50, 50))}, TABLE, 3, {}],
    ids=["image", "line", "mapping", "table", "value", "empty"],
)
@pytest.mark.parametrize("backend", ["zarr", "tiff"])
def test_a_result_is_a_valid_run_that_filler_fills(store, data, backend):
    record = store.put(data, data_type="result", format=backend)
    run = store[record.uid]
    documents = list(run.documents())
    assert documents[0][0] == "start"
    assert documents[-1][0] == "stop"
    assert documents[-1][1]["num_events"] == {"primary": 1}
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    with Filler(handler_registry(), inplace=False) as filler:
        filled = dict(filler(*named) for named in documents)
    (event,) = [doc for name, doc in run.documents(fill=True) if name == "event"]
    for key, value in event["data"].items():
        if isinstance(value, LazyArray):
            assert same(filled["event"]["data"][key], np.asarray(value))
    assert run.status == "complete"
    assert run.streams == ("primary",)
    assert len(run.table()) == 1


def test_hundreds_of_small_results_make_no_hundreds_of_folders(root):
    with Store(root) as store:
        parent = store.put(VOLUME, data_type="volume")
        uids = [
            store.put(
                {"n": number, "centroids": np.full((5, 3), number, "<f4"), "where": [[number, 1]]},
                data_type="nuclei",
                parents=[parent],
            ).uid
            for number in range(300)
        ]
        folders = [path for path in root.rglob("*") if path.is_dir()]
        files = list(root.rglob("derived-*.jsonl"))
        assert len(folders) < 20
        assert len(files) <= 2
        for number in (0, 150, 299):
            assert store.get(uids[number])["n"] == number
            assert same(store.get(uids[number])["centroids"], np.full((5, 3), number, "<f4"))
        assert len(store.children(parent.uid)) == 300


def test_results_are_put_by_several_threads_at_once(store, volumes):
    results: dict[str, object] = {}
    errors = []

    def work(thread: int):
        try:
            for number in range(15):
                data = {"n": number} if number % 2 else np.full((4, 5), thread * 100 + number)
                record = store.put(data, data_type="n", parents=[volumes[thread % 3]])
                results[record.uid] = data
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(results) == 90
    assert all(same(store.get(uid), data) for uid, data in results.items())
    assert len(store.children(volumes.uid)) == 90


def test_results_are_put_by_several_processes_while_others_open_the_store(root, in_process):
    script = """
from concurrent.futures import ThreadPoolExecutor
with Store(sys.argv[1]) as store:
    for number in range(60):
        store.put({"n": number}, data_type="n")
print("done")
"""
    Store(root).close()
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(in_process(script, root))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with Store(root) as store:
            found = list(store.query(data_type="n"))
            assert all(store.get(record.uid) == {"n": record_n(store, record)} for record in found[:3])
    for thread in threads:
        thread.join()
    assert outcomes == ["done", "done"]
    with Store(root, mode="r") as store:
        assert sorted(store.get(record.uid)["n"] for record in store.query(data_type="n")) == sorted(
            [*range(60)] * 2
        )


def record_n(store: Store, record) -> int:
    return next(doc["data"]["n"] for name, doc in store[record.uid].documents() if name == "event")


@pytest.mark.parametrize("data", ["{'n': 3}", "np.ones((4, 5))"])
def test_a_result_survives_the_death_of_the_process_that_put_it(root, in_process, data):
    script = f"print(Store(sys.argv[1]).put({data}, data_type='n').uid, flush=True); os._exit(9)"
    uid = in_process(script, root, expect=9)
    with Store(root, mode="r") as reader:
        assert reader[uid].status == "complete"
    with Store(root) as store:
        assert same(store.get(uid), eval(data))
        assert store.record(uid).status == "complete"


def test_a_result_that_cannot_be_written_is_an_error_and_the_next_one_is_put(store, monkeypatch):
    backend = type(store._writing.of_results("zarr")._desk.backend)
    with monkeypatch.context() as patch:
        patch.setattr(
            backend,
            "create",
            lambda *args, **kwargs: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        with pytest.raises(StorageError, match="No space left"):
            store.put(np.ones((4, 5)), data_type="image")
    assert [record.status for record in store.query()] == ["failed"]
    record = store.put(np.ones((4, 5)), data_type="image")
    assert same(store.get(record.uid), np.ones((4, 5)))
    failed = next(store.query(status="failed"))
    with pytest.raises(GentlyError, match=r"\(failed\) should hold a array and holds no event"):
        store.get(failed.uid)


def test_a_result_whose_event_is_not_what_its_start_says_is_refused(store):
    record = store.put({"a": np.arange(3), "b": 1}, data_type="n")
    journal = store.root / record.path
    text = journal.read_text()
    unsealed = re.sub(r',"crc32c":"\w+"\}$', "}", text, flags=re.MULTILINE)
    for pattern, replacement in ((r'"path":\[\]', '"path":["x"]'), (r'"dtype":"<i8"', '"dtype":"nonsense"')):
        journal.write_text(re.sub(pattern, replacement, unsealed))
        with pytest.raises(InvalidDocument, match="expected a mapping as put"):
            store.get(record.uid)
    journal.write_text(text)
