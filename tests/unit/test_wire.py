"""Documents as bytes: they come back as they were, and what is no such message is refused."""

from __future__ import annotations

import functools
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gently_bluesky.errors import InvalidDocument, InvalidSetting, MessageTooLarge, UnstorableDtype
from gently_bluesky.wire import ALIGNMENT, BEGIN, MAGIC, lossless, pack, unpack

STORABLE = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(endianness="?"),
    npst.unicode_string_dtypes(endianness="?", max_len=5),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), STORABLE.flatmap(npst.from_dtype)
)
ARRAYS = npst.arrays(STORABLE, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
VALUES = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda held: st.one_of(st.lists(held, max_size=3), st.dictionaries(st.text(), held, max_size=3)),
    max_leaves=8,
)


def spelt(value: Any) -> Any:
    """Return a value with its types, arrays by their elements and NaN as text, to be compared."""
    if isinstance(value, dict):
        return {key: spelt(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [spelt(held) for held in value]
    if isinstance(value, np.ndarray | np.generic):
        little = value.astype(value.dtype.newbyteorder("<"))
        dtype = "<U" if value.dtype.kind == "U" and not np.any(value) else little.dtype.str
        elements = little.tolist() if value.dtype.kind == "U" else little.tobytes()
        return isinstance(value, np.generic), dtype, value.shape, elements
    return type(value).__name__, repr(value)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_whatever_a_document_may_hold_comes_back_as_it_went_in(doc: dict[str, Any]) -> None:
    assert spelt(unpack(pack(doc))) == spelt(doc)


def test_document_is_not_changed_and_its_arrays_come_back_little_endian_in_c_order() -> None:
    volume = np.arange(24, dtype=">u2").reshape(4, 3, 2).T
    doc = {"data": {"volume": volume[:, ::2], "list": [1, (2, volume)]}}
    back = unpack(pack(doc))
    assert doc["data"]["volume"].base is not None
    assert doc["data"]["list"][1][1] is volume
    array = back["data"]["volume"]
    assert (array.dtype.str, array.flags.c_contiguous, array.flags.aligned) == ("<u2", True, True)
    assert np.array_equal(array, volume[:, ::2])
    assert np.array_equal(back["data"]["list"][1][1], volume)


def test_arrays_lie_in_the_message_and_cannot_be_written_to() -> None:
    message = pack({"frame": np.zeros((64, 64))})
    array = unpack(message)["frame"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert unpack(memoryview(bytearray(message)))["frame"].flags.writeable is False


def test_keys_that_are_not_text_come_as_json_spells_them() -> None:
    back = unpack(pack({"offsets": {1: np.arange(2), None: 0}}))
    assert spelt(back) == spelt({"offsets": {"1": np.arange(2), "null": 0}})


def test_message_is_refused_before_memory_is_taken_for_it() -> None:
    huge = np.broadcast_to(np.zeros((), np.uint16), (10**6, 10**6))
    with pytest.raises(
        MessageTooLarge, match=r"at most 1000 bytes, the document \(uid e7\) makes one of 1152"
    ):
        pack({"uid": "e7", "data": {"frame": np.zeros(1000, np.uint8)}}, max_bytes=1000)
    assert functools.partial(pack, max_bytes=100)({"uid": "e7"})
    with pytest.raises(MessageTooLarge, match="it was not sent"):
        pack({"frame": np.zeros((3, 4))[:0], "huge": _NotCopied(huge)})


class _NotCopied:
    """An array that says how large it is and cannot be had."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._array


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([object()]), UnstorableDtype),
        (np.zeros(2, [("x", "i4")]), UnstorableDtype),
        (np.array(["2026-11-21"], "M8[s]"), UnstorableDtype),
        (np.ma.masked_array([1, 2], [True, False]), UnstorableDtype),
        (b"bytes", InvalidDocument),
        ({1, 2}, InvalidDocument),
        (1 + 2j, InvalidDocument),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_writer_would_take_is_not_sent(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack({"data": {"value": value}})
    with pytest.raises(InvalidDocument):
        pack(np.zeros(3))  # type: ignore[arg-type]


def test_document_nested_too_deep_is_not_sent() -> None:
    doc: dict[str, Any] = {}
    for _ in range(100_000):
        doc = {"in": doc}
    with pytest.raises(InvalidDocument, match="nested too deep"):
        pack(doc)


# -- what is no message of ours -------------------------------------------------------------------------------


def message(header: Any, pixels: bytes = b"") -> bytes:
    """Return a message with this header, well aligned."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + bytes(-(BEGIN + len(text)) % ALIGNMENT) + pixels


def with_array(pixels: bytes = bytes(16), doc: Any = None, **said: Any) -> bytes:
    entry = {"path": ["a"], "dtype": "<u2", "shape": [2, 4], "scalar": False, **said}
    return message({"doc": {"a": 0} if doc is None else doc, "arrays": [entry]}, pixels)


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


HOSTILE = {
    "nothing": b"",
    "a pickle": pickle.dumps(Trap()),
    "a magic alone": MAGIC,
    "a header that is not there": MAGIC + (2**63).to_bytes(8, "little"),
    "no json": message(b"{"),
    "nested json": message(b"[" * 100_000),
    "no document": message({"doc": [], "arrays": []}),
    "no object": message([1]),
    "arrays that are none": message({"doc": {}, "arrays": [7]}),
    "arrays that are no list": message({"doc": {}, "arrays": {}}),
    "objects": with_array(dtype="|O"),
    "records": with_array(dtype="<u2,<u2"),
    "big-endian numbers": with_array(dtype=">u2"),
    "a dtype that is no text": with_array(dtype=["<u2"]),
    "a shape that is no list": with_array(shape="8"),
    "a negative length": with_array(shape=[-2, -4]),
    "a length that is true": with_array(shape=[True, 8]),
    "a terabyte": with_array(shape=[2**20, 2**20]),
    "more than a machine counts": with_array(shape=[2**62, 2**62]),
    "nothing, of more than a machine counts": with_array(b"", shape=[0, 2**62, 2**62]),
    "a hundred axes": with_array(shape=[*[1] * 100, 8]),
    "fewer bytes": with_array(bytes(14)),
    "more bytes": with_array(bytes(32)),
    "bytes without an array": message({"doc": {}, "arrays": []}, bytes(16)),
    "half a truth": with_array(bytes([2] * 16), dtype="|b1", shape=[16]),
    "no character": with_array(b"\xff" * 16, dtype="<U1", shape=[4]),
    "endless text": with_array(b"", dtype="<U999999999", shape=[1]),
    "a scalar of a shape": with_array(scalar=True),
    "no path": with_array(path=[]),
    "a path that is no list": with_array(path=7),
    "a path to nowhere": with_array(path=["b"]),
    "a path through a number": with_array(path=["a", "b"]),
    "a path through text": with_array(doc={"a": "text"}, path=["a", 0]),
    "a path by an attribute": with_array(path=["__class__"]),
    "a path from behind": with_array(doc={"a": [0]}, path=["a", -1]),
    "a path to something else": with_array(doc={"a": "0"}),
    "a path to a truth": with_array(doc={"a": False}),
    "one place for two": message(
        {"doc": {"a": 0}, "arrays": [{"path": ["a"], "dtype": "|u1", "shape": [16], "scalar": False}] * 2},
        bytes(32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("came", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_message_is_refused(came: bytes) -> None:
    with pytest.raises(InvalidDocument, match=r"expected a message made by gently_bluesky\.wire\.pack"):
        unpack(came)


@given(st.data())
def test_message_that_was_cut_or_changed_is_refused_or_some_other_document(data: st.DataObject) -> None:
    whole = pack({"uid": "e", "data": {"a": np.arange(8, dtype="u2"), "t": np.array(["ab", "c"]), "n": 1.5}})
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InvalidDocument):
        unpack(whole[:cut])
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        doc = unpack(changed)
    except InvalidDocument:
        return
    assert isinstance(doc, dict)
    spelt(doc)


def test_only_ends_of_blueskys_transport_are_made_lossless() -> None:
    with pytest.raises(InvalidSetting, match="expected a Publisher, Proxy or RemoteDispatcher"):
        lossless(print)
    for wrong in (0, True, 1.5):
        with pytest.raises(InvalidSetting, match="max_waiting"):
            lossless(print, max_waiting=wrong)  # type: ignore[arg-type]
