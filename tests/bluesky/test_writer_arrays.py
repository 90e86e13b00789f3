"""Every kind of array that an event can hold is stored exactly, and read back by an independent reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gently_bluesky import Store
from gently_bluesky.errors import FrameMismatch, GentlyError, InvalidDocument, UnstorableDtype
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
SHAPES = [(9000,), (17, 23), (3, 17, 23), (2, 3, 17, 23), (2, 2, 3, 7, 9)]


def record(store: Store, *events: dict[str, Any], **data_keys: dict[str, Any]) -> HandMadeRun:
    """Send a run with the data of these events through a writer, and its stop whatever happens."""
    run = HandMadeRun()
    writer = store.writer()
    writer("start", run.start)
    descriptor = run.descriptor(**(data_keys or {key: {} for key in events[0]}))
    writer("descriptor", descriptor)
    try:
        for data in events:
            writer("event", run.event(descriptor, **data))
    finally:
        writer("stop", run.stop())  # after a failure it raises that again, as other tests show
    return run


def documents(store: Store, run: HandMadeRun) -> dict[str, list[dict[str, Any]]]:
    """Read a run's documents with nothing but json."""
    journal = store.root / store.record(run.uid).path
    found: dict[str, list[dict[str, Any]]] = {}
    for line in journal.read_text().splitlines():
        named = json.loads(line)
        found.setdefault(named["name"], []).append(named["doc"])
    return found


def pixels(store: Store, run: HandMadeRun) -> dict[str, np.ndarray]:
    """Read the assets of a run with nothing but zarr, by data key."""
    found = documents(store, run)
    resources = {doc["uid"]: Path(doc["root"]) / doc["resource_path"] for doc in found["resource"]}
    keys = {
        value.split("/")[0]: key
        for event in found["event"]
        for key, value in event["data"].items()
        if event["filled"].get(key) is False
    }
    return {keys[uid]: zarr.open_group(path, mode="r")["0"][...] for uid, path in resources.items()}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_in_either_byte_order_comes_back(store: Store, dtype: str, order: str) -> None:
    frames = [
        encoded_frame((6, 9), np.dtype(dtype), event=n).astype(np.dtype(dtype).newbyteorder(order))
        for n in range(3)
    ]
    run = record(store, *({"camera": frame, "n": n} for n, frame in enumerate(frames)))

    stored = pixels(store, run)["camera"]
    assert stored.dtype == np.dtype(dtype)
    for n in range(3):
        check_frame(stored[n], event=n)
    declared = documents(store, run)["descriptor"][0]["data_keys"]["camera"]
    assert declared["dtype_numpy"] == np.dtype(dtype).newbyteorder("<").str
    assert declared["shape"] == [6, 9]
    assert [event["data"]["n"] for event in documents(store, run)["event"]] == [0, 1, 2]


@pytest.mark.parametrize("shape", SHAPES, ids=len)
@pytest.mark.parametrize("layout", ["C", "Fortran", "every other", "reversed"])
def test_every_layout_of_one_to_five_axes_comes_back(
    store: Store, shape: tuple[int, ...], layout: str
) -> None:
    def laid_out(frame: np.ndarray) -> np.ndarray:
        if layout == "Fortran":
            return np.asfortranarray(frame)
        if layout == "every other":
            wide = np.zeros((*shape[:-1], 2 * shape[-1]), frame.dtype)
            wide[..., ::2] = frame
            return wide[..., ::2]
        return frame[..., ::-1].copy()[..., ::-1] if layout == "reversed" else frame

    run = record(store, *({"camera": laid_out(encoded_frame(shape, "<u2", event=n))} for n in range(2)))

    stored = pixels(store, run)["camera"]
    assert stored.shape == (2, *shape)
    for n in range(2):
        check_frame(stored[n], event=n)
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][n]), event=n)


def test_several_arrays_and_scalars_stand_in_one_event_and_in_several_streams(store: Store) -> None:
    run = HandMadeRun()
    writer = store.writer()
    writer("start", run.start)
    streams = {
        name: run.descriptor(name, left={}, right={}, temperature={"dtype": "number"}) for name in ("a", "b")
    }
    for descriptor in streams.values():
        writer("descriptor", descriptor)
    for n in range(4):
        for stream, descriptor in streams.items():
            left = encoded_frame((8, 5), "u2", stream=stream, key="left", event=n)
            right = encoded_frame((2, 4, 3), "f4", stream=stream, key="right", event=n)
            writer("event", run.event(descriptor, left=left, right=right, temperature=36.6 + n))
    writer("stop", run.stop())

    found = store[run.uid]
    for stream in streams:
        for n in range(4):
            for key in ("left", "right"):
                check_frame(np.asarray(found[stream][key][n]), stream=stream, key=key, event=n)
        assert list(found[stream]["temperature"].compute()) == [36.6, 37.6, 38.6, 39.6]


def test_the_same_buffer_overwritten_after_each_event_is_kept_as_it_was(store: Store) -> None:
    buffer = np.zeros((6, 9), "u2")
    run, writer = HandMadeRun(), store.writer()
    writer("start", run.start)
    descriptor = run.descriptor(camera={})
    writer("descriptor", descriptor)
    for n in range(10):
        buffer[...] = encoded_frame((6, 9), "u2", event=n)
        writer("event", run.event(descriptor, camera=buffer))
        buffer[...] = 0
    writer("stop", run.stop())

    for n, frame in enumerate(pixels(store, run)["camera"]):
        check_frame(frame, event=n)


def test_nested_lists_are_stored_as_the_array_they_spell(store: Store) -> None:
    run = record(store, {"camera": [[1, 2], [3, 4]]}, {"camera": ((5, 6), (7, 8))})

    assert pixels(store, run)["camera"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_lists_take_the_dtype_that_was_declared_if_it_says_the_same(store: Store) -> None:
    run = record(
        store, {"camera": [[1, 2]]}, {"camera": np.array([[3, 4]], "u2")}, camera={"dtype_numpy": "<u2"}
    )
    assert pixels(store, run)["camera"].dtype == np.uint16

    run = record(store, {"camera": [[0.5, 2.0]]}, {"camera": [[3, 4]]}, camera={"dtype_numpy": "<u2"})
    assert pixels(store, run)["camera"].tolist() == [[[0.5, 2.0]], [[3.0, 4.0]]]


def test_a_list_that_the_stored_dtype_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(
        FrameMismatch, match=r"event 2 came as an array \(1, 2\) of float64, .* declared .* int64"
    ):
        record(store, {"camera": [[1, 2]]}, {"camera": [[1.5, 2]]})


def test_small_one_dimensional_arrays_stay_in_the_event_with_their_dtype_declared(store: Store) -> None:
    run = record(
        store, {"trace": np.arange(5, dtype=">u2"), "names": np.array(["a", "bc"]), "list": [1, 2.5]}
    )

    found = documents(store, run)
    assert found["event"][0]["data"] == {"trace": [0, 1, 2, 3, 4], "names": ["a", "bc"], "list": [1, 2.5]}
    declared = found["descriptor"][0]["data_keys"]
    assert declared["trace"]["shape"] == [5]
    assert declared["trace"]["dtype_numpy"] == "<u2"
    assert "external" not in declared["trace"]
    assert declared["list"]["shape"] == [2]
    assert "resource" not in found


def test_a_list_of_numbers_that_began_small_may_grow(store: Store) -> None:
    traces = [np.arange(length, dtype="f8") for length in (3, 5000, 0)]
    run = record(store, *({"trace": trace} for trace in traces))

    assert [event["data"]["trace"] for event in documents(store, run)["event"]] == [list(t) for t in traces]


def test_an_array_that_began_large_may_not_become_a_small_one(store: Store) -> None:
    with pytest.raises(
        FrameMismatch, match=r"came as a value without an array, .* declared as an array"
    ) as caught:
        record(store, {"trace": np.zeros(5000)}, {"trace": np.zeros(3)})
    assert caught.value.code == "frame-mismatch"


@pytest.mark.parametrize("value", [None, "missing", 3.0, []])
def test_an_event_without_its_array_is_refused(store: Store, value: object) -> None:
    with pytest.raises(FrameMismatch, match=r"came as a value without an array"):
        record(store, {"camera": np.zeros((2, 2))}, {"camera": value})


def test_an_array_where_the_first_event_had_none_is_refused(store: Store) -> None:
    with pytest.raises(FrameMismatch, match=r"declared as a value without an array"):
        record(store, {"camera": None}, {"camera": np.zeros((2, 2))})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((4, 4), "u2"), np.zeros((4, 5), "u2")),
        (np.zeros((4, 4), "u2"), np.zeros((4, 4), "u4")),
        (np.zeros((4, 4), "u2"), np.zeros((1, 4, 4), "u2")),
    ],
    ids=["shape", "dtype", "axes"],
)
def test_a_frame_that_contradicts_its_descriptor_is_refused_and_what_came_before_it_is_safe(
    store: Store, first: np.ndarray, second: np.ndarray
) -> None:
    with pytest.raises(FrameMismatch, match="the event was not stored, those before it are safe") as caught:
        record(store, {"camera": first}, {"camera": second})

    assert store[-1].status == "failed"
    assert str(caught.value) in store[-1].stop["reason"]
    assert store[-1].record.lost == 1
    assert np.asarray(store[-1]["primary"]["camera"]).shape == (1, 4, 4)


def test_zero_dimensional_arrays_are_numbers(store: Store) -> None:
    run = record(store, {"n": np.array(3, "u2"), "x": np.array(0.1, ">f4")})

    found = documents(store, run)
    assert found["event"][0]["data"]["n"] == 3
    assert np.float32(found["event"][0]["data"]["x"]) == np.float32(0.1)
    assert found["descriptor"][0]["data_keys"]["n"]["shape"] == []
    assert found["descriptor"][0]["data_keys"]["n"]["dtype"] == "integer"


def test_complex_arrays_of_any_size_are_stored(store: Store) -> None:
    run = record(store, {"wave": np.array([1 + 2j, 3 - 4j]), "one": np.array(5j)})

    assert pixels(store, run)["wave"].tolist() == [[1 + 2j, 3 - 4j]]
    assert pixels(store, run)["one"].tolist() == [5j]


def test_empty_arrays_stay_in_the_event_with_their_shape_declared(store: Store) -> None:
    run = record(store, {"spots": np.zeros((0, 3), "f4"), "wave": np.zeros(0, "c8"), "list": []})

    found = documents(store, run)
    assert found["event"][0]["data"] == {"spots": [], "wave": [], "list": []}
    assert found["descriptor"][0]["data_keys"]["spots"]["shape"] == [0, 3]


def test_arrays_of_strings_and_lists_that_are_no_arrays_stay_in_the_event(store: Store) -> None:
    data = {
        "labels": np.array([["a", "ü"], ["", "d"]]),
        "ragged": [[1], [2, 3]],
        "mixed": [[1, None]],
        "deep": {"a": [1]},
    }
    run = record(store, data)

    assert documents(store, run)["event"][0]["data"] == {**data, "labels": [["a", "ü"], ["", "d"]]}


def test_whatever_offers_itself_as_an_array_is_taken_as_one(store: Store) -> None:
    class Offering:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.array

    run = record(store, {"camera": Offering(encoded_frame((6, 9), "u2")), "trace": Offering(np.arange(3))})

    check_frame(pixels(store, run)["camera"][0])
    assert documents(store, run)["event"][0]["data"]["trace"] == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 2), object),
        np.zeros((2, 2), "datetime64[s]"),
        np.zeros(2, [("a", "i4")]),
        np.zeros((2, 2), "S3"),
        np.zeros(3, np.longdouble),
        np.ma.masked_array([[1, 2], [3, 4]], [[0, 1], [0, 0]]),
    ],
    ids=["object", "datetime", "structured", "bytes", "longdouble", "masked"],
)
def test_an_array_that_cannot_be_stored_is_one_clear_error_and_counted(store: Store, value: object) -> None:
    with pytest.raises(UnstorableDtype, match=r"expected an array of .*, got .* not stored; ") as caught:
        record(store, {"camera": np.zeros((2, 2)), "other": 1}, {"camera": value, "other": 2})

    assert caught.value.code == "unstorable-dtype"
    assert (store[-1].status, store[-1].record.received, store[-1].record.lost) == ("failed", 2, 1)
    assert np.asarray(store[-1]["primary"]["camera"]).shape == (1, 2, 2)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        1j,
        np.complex64(1j),
        np.datetime64("2026-11-21"),
        np.longdouble(1),
        b"bytes",
        np.bytes_(b"b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_one_clear_error(store: Store, value: object) -> None:
    with pytest.raises(InvalidDocument, match=r"expected .* not stored") as caught:
        record(store, {"n": 1, "camera": np.zeros((2, 2))}, {"n": value, "camera": np.zeros((2, 2))})

    assert isinstance(caught.value, GentlyError)
    assert (store[-1].status, store[-1].record.lost) == ("failed", 1)


def test_an_event_refused_for_one_value_gives_its_room_in_the_buffer_back(store: Store) -> None:
    writer = store.writer(max_pending_bytes=2 * 6 * 9, stall_timeout_s=5)
    for n in range(3):
        run = HandMadeRun()
        writer("start", run.start)
        descriptor = run.descriptor(camera={}, n={})
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=encoded_frame((6, 9), "u2", event=n), n=1))
        with pytest.raises(InvalidDocument):
            writer("event", run.event(descriptor, camera=encoded_frame((6, 9), "u2"), n={1, 2}))
        with pytest.raises(InvalidDocument):
            writer("stop", run.stop())
        check_frame(pixels(store, run)["camera"][0], event=n)
