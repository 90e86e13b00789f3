from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gently_bluesky.errors import InputError, MissingExtra
from gently_bluesky.indexing import BLOCK_BYTES, View, parse
from gently_bluesky.lazy import ArraySource, LazyArray
from gently_bluesky.reductions import Blocked, reduce_blocks
from gently_bluesky.sources import Points
from gently_bluesky.testing.strategies import indices_for

DIMS = ("t", "v", "z", "y", "x")
DTYPES = ("?", "u1", "<u2", "<i4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8")


class CountingSource(ArraySource):
    """An array in memory that refuses selections outside the contract and notes what is read."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, ...] | None = None) -> None:
        self.array = array
        self._chunks = chunks or tuple(max(1, length // 2) for length in array.shape)
        self.reads: list[int] = []

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    chunks = property(lambda self: self._chunks)

    def read(self, selection):
        assert isinstance(selection, tuple)
        assert len(selection) == len(self.shape)
        places = [self._check(pick, length) for pick, length in zip(selection, self.shape, strict=True)]
        block = np.array(self.array[np.ix_(*places)]) if places else self.array.copy()
        self.reads.append(block.size)
        return block

    @staticmethod
    def _check(pick, length) -> np.ndarray:
        if isinstance(pick, slice):
            assert [type(end) for end in (pick.start, pick.stop, pick.step)] == [int, int, int]
            assert 0 <= pick.start <= pick.stop <= length
            assert pick.step >= 1
            return np.arange(length)[pick]
        assert isinstance(pick, np.ndarray)
        assert pick.dtype == np.intp
        assert pick.ndim == 1
        assert ((pick >= 0) & (pick < length)).all()
        return pick


class PlaneNumbers(ArraySource):
    """A large array made while it is read: every pixel holds the number of its z plane."""

    shape = (3, 12, 1024, 2048)
    dtype = np.dtype("u1")
    chunks = (1, 1, 512, 512)

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.starts: list[tuple[int, ...]] = []

    def read(self, selection):
        lengths = [len(range(*pick.indices(n))) for pick, n in zip(selection, self.shape, strict=True)]
        self.reads.append(math.prod(lengths))
        self.starts.append(tuple(pick.start for pick in selection))
        block = np.empty(lengths, self.dtype)
        block[:] = np.arange(self.shape[1], dtype=self.dtype)[selection[1]][:, None, None]
        return block


def numbered(*shape: int, dtype: Any = np.int64) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


def lazy(
    array: np.ndarray, chunks: tuple[int, ...] | None = None, **options: Any
) -> tuple[LazyArray, CountingSource]:
    source = CountingSource(array, chunks)
    return LazyArray(source, dims=DIMS[: array.ndim], **options), source


@st.composite
def shapes_and_chunks(draw, max_side: int = 5, min_side: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(min_side, max_side), min_size=1, max_size=5)))
    return shape, tuple(draw(st.integers(1, max_side)) for _ in shape)


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes_and_chunks())
def test_any_chain_of_indices_gives_what_numpy_gives_and_reads_nothing_before(data, shape_and_chunks):
    shape, chunks = shape_and_chunks
    expected = numbered(*shape)
    part, source = lazy(expected, chunks)
    several_axes = False
    for _ in range(data.draw(st.integers(1, 4))):
        key = data.draw(indices_for(expected.shape))
        several_axes |= any(
            isinstance(item, np.ndarray) and item.dtype == bool and item.ndim > 1
            for item in (key if isinstance(key, tuple) else (key,))
        )
        expected, part = expected[key], part[key]
        assert (part.shape, part.ndim, part.size) == (expected.shape, expected.ndim, expected.size)
    assert len(part.dims) == len(set(part.dims)) == len(part.scale) == len(part.units) == part.ndim
    assert repr(part)
    assert source.reads == []
    event(f"{expected.ndim} axes, {'empty' if not expected.size else 'full'}")

    got = part.compute()

    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected, strict=True)
    assert len(source.reads) <= 1 or several_axes
    if not expected.size:
        assert source.reads == []
    elif not several_axes:
        assert sum(source.reads) <= expected.size


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes_and_chunks(max_side=6, min_side=1), st.integers(1, 40))
def test_a_mask_over_several_axes_reads_no_more_than_the_box_around_its_points(data, shape_and_chunks, limit):
    shape, chunks = shape_and_chunks
    assume(len(shape) > 1)
    first = data.draw(st.integers(0, len(shape) - 2))
    after = data.draw(st.integers(first + 2, len(shape)))
    mask = data.draw(npst.arrays(bool, shape[first:after]))
    array = numbered(*shape, dtype=np.int64)
    gather, step = parse((slice(None),) * first + (mask,), shape)
    source = CountingSource(array, chunks)
    points = Points(source, View.whole(shape), gather, block_bytes=limit * array.itemsize)

    got = points.read(View.whole(points.shape).select(step).selection())

    np.testing.assert_array_equal(got, array[(slice(None),) * first + (mask,)], strict=True)
    sides = [np.ptp(along) + 1 if len(along) else 0 for along in mask.nonzero()]
    others = math.prod(shape[:first] + shape[after:])
    assert sum(source.reads) <= math.prod(sides) * others
    assert max(source.reads, default=0) <= max(limit, math.prod(map(min, chunks, shape)))


def test_far_apart_points_of_a_mask_do_not_read_what_lies_between():
    array = numbered(2, 64, 64)
    volume, source = lazy(array, (1, 8, 8))
    mask = np.zeros((64, 64), bool)
    mask[[0, 1, 63], [0, 2, 63]] = True
    gather, _ = parse((slice(None), mask), array.shape)
    points = Points(source, View.whole(array.shape), gather, block_bytes=8 * 8 * 8)

    np.testing.assert_array_equal(points.read((slice(0, 2, 1), slice(0, 3, 1))), array[:, mask])

    assert sorted(source.reads) == [1, 1, 6, 6]
    np.testing.assert_array_equal(volume[:, mask], array[:, mask])


@pytest.mark.parametrize(
    "key",
    [
        (0, slice(None), [1, 2]),
        (slice(None), 0, [1, 2]),
        (slice(None), 0, ..., [1, 2, 0, 0]),
        ([1, 0], None, 0),
        (None, 0, [2, 1]),
        (0, None, slice(None), [1]),
        (..., [0, 1], 1),
        (np.array(-1), np.int8(1), np.array([-1, 0])),
        (0, np.ones((3, 4), bool)),
        (0, None, np.eye(3, 4, dtype=bool)),
    ],
    ids=repr,
)
def test_lists_put_their_axis_where_numpy_puts_it(key):
    array = numbered(2, 3, 4)

    np.testing.assert_array_equal(lazy(array)[0][key].compute(), array[key], strict=True)


@pytest.mark.parametrize(
    "key",
    [
        2,
        -3,
        (0, 3),
        (0, slice(None), -5),
        [0, 2],
        (slice(None), [0, -4]),
        (0, 0, 0, 0),
        (..., 0, 0, 0, 0),
        (..., ...),
        [True, False, True],
        (0, np.ones((3, 5), bool)),
    ],
    ids=repr,
)
def test_an_index_that_numpy_refuses_is_refused_at_once_in_its_words(key):
    array = numbered(2, 3, 4)
    with pytest.raises(IndexError) as refused:
        array[key]

    with pytest.raises(IndexError, match=re.escape(str(refused.value))):
        lazy(array)[0][key]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (True, "a bare True is not an index"),
        ((0, np.False_), "a bare False is not an index"),
        (np.array(True), "only integers, slices"),
        (1.0, "only integers, slices"),
        ("z", "only integers, slices"),
        ([0.5], "only integers, slices"),
        ([[0, 1], [1, 0]], "must have one axis, got one with 2"),
        (([0, 1], [0, 1]), "at most one list"),
        ((np.ones(2, bool), slice(None), [0]), "at most one list"),
    ],
    ids=repr,
)
def test_what_is_not_an_index_here_is_refused_at_once(key, message):
    with pytest.raises(IndexError, match=message):
        lazy(numbered(2, 3, 4))[0][key]


def test_slices_that_make_no_sense_are_refused_as_numpy_does():
    volume, _ = lazy(numbered(2, 3, 4))
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        volume[::0]
    with pytest.raises(TypeError, match="slice indices must be integers"):
        volume[:1.5]


def test_an_array_in_storage_can_be_the_index():
    array = numbered(4, 3)
    volume, _ = lazy(array)
    places, _ = lazy(np.array([2, 0]))

    np.testing.assert_array_equal(volume[places], array[[2, 0]])
    np.testing.assert_array_equal(volume[places[0]], array[2])
    np.testing.assert_array_equal(volume[volume > 5], array[array > 5])


def test_axes_keep_their_names_scales_and_units():
    volume, _ = lazy(
        numbered(3, 2, 8, 6, 4),
        scale=(30.0, 1.0, 0.5, 0.1625, 0.25),
        units=("second", None, "micrometer", "micrometer", "nanometer"),
    )

    part = volume[1, None, :, ::-2, [0, 2, 4], ..., ::3]

    assert part.dims == ("y", "new", "v", "z", "x")
    assert part.shape == (3, 1, 2, 4, 2)
    assert part.scale == (0.1625, 1.0, 1.0, 1.0, 0.75)
    assert part.units == ("micrometer", None, None, "micrometer", "nanometer")
    assert part[:, 0, :, ::3, None, :, None].dims == ("y", "v", "z", "new", "x", "new1")
    assert part[:, 0, :, ::3].scale == (0.1625, 1.0, 3.0, 0.75)
    mask = np.ones((8, 6), bool)
    assert volume[:, :, mask].dims == ("t", "v", "point", "x")
    assert volume[:, :, mask].scale == (30.0, 1.0, 1.0, 0.25)
    assert volume[:, :, mask].units == ("second", None, None, "nanometer")


def test_an_array_without_scale_and_units_has_neutral_ones():
    volume, _ = lazy(numbered(2, 3, dtype="<u2"), name="view_a", uid="0b9c")

    assert (volume.scale, volume.units) == ((1.0, 1.0), (None, None))
    assert (volume.name, volume.uid, volume.dtype, volume.nbytes) == ("view_a", "0b9c", np.dtype("<u2"), 12)
    assert len(volume) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"dims": ("t",)}, {"dims": ("t", "t")}, {"scale": (1.0,)}, {"units": (None, None, None)}],
    ids=repr,
)
def test_an_array_needs_one_name_scale_and_unit_per_axis(wrong):
    with pytest.raises(InputError, match="nothing was read"):
        LazyArray(CountingSource(numbered(2, 3)), **({"dims": ("t", "z")} | wrong))


def test_chunks_are_the_runs_of_places_in_one_chunk_of_the_source():
    volume, _ = lazy(numbered(4, 10, 12), (1, 4, 5))

    assert volume.chunks == (1, 4, 5)
    assert volume[0, ::2, ::-1].chunks == (2, 5)
    assert volume[:, ::6].chunks == (1, 1, 5)
    assert volume[:, 3:5, None].chunks == (1, 1, 1, 5)
    assert volume[0, [0, 1, 3, 9, 2], 2:].chunks == (3, 5)
    assert volume[0, 0:0].chunks == (1, 5)


def test_the_uid_is_the_datum_s_once_one_event_is_chosen():
    volume, source = lazy(numbered(3, 4, 5, 2), uid="asset", event_uid=lambda index: f"asset/{index}")
    z_and_y, t_and_z = np.ones((4, 5), bool), np.zeros((3, 4), bool)
    t_and_z[1, :2] = True

    assert [volume.uid, volume[:2].uid, volume[:, 0].uid, volume[[0, 2]].uid, volume[0:0].uid] == [
        "asset"
    ] * 5
    assert [part.uid for part in volume] == ["asset/0", "asset/1", "asset/2"]
    assert volume[-1, 0, 0, 0].uid == "asset/2"
    assert volume[1:2].uid == volume[::-1][1].uid == volume[[1]].uid == volume[[1, 1], 0].uid == "asset/1"
    assert volume[1:][1:].uid == volume[2, 0:0].uid == volume[..., 0][[False, False, True]].uid == "asset/2"
    assert volume[:, z_and_y].uid == volume[None, None].uid == "asset"
    assert volume[1:, z_and_y, 0][-1].uid == volume[:, :, np.ones((5, 2), bool)][2].uid == "asset/2"
    assert volume[2, z_and_y].uid == volume[None, 2, z_and_y][:, 0].uid == "asset/2"
    assert volume[t_and_z].uid == "asset/1"
    assert volume[None, None][np.ones((1, 1), bool)][:, 2].uid == "asset/2"
    assert volume[~t_and_z].uid == "asset"
    assert volume[~t_and_z][-1].uid == "asset/2"
    assert source.reads == []


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_the_uid_is_the_datum_s_for_whatever_leaves_one_event_of_several(data, rest):
    shape = (data.draw(st.integers(2, 4)), *rest)
    events = np.broadcast_to(np.arange(shape[0]).reshape(-1, *(1 for _ in rest)), shape)
    part, _ = lazy(np.zeros(shape, "u1"), uid="asset", event_uid=lambda index: f"asset/{index}")
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(indices_for(events.shape))
        events, part = events[key], part[key]
    assume(events.size)

    left = np.unique(events)

    assert part.uid == (f"asset/{left[0]}" if len(left) == 1 else "asset")


def test_an_asset_of_one_event_has_its_own_uid_until_an_integer_chooses_the_event():
    volume, _ = lazy(numbered(1, 4, 5), uid="asset", event_uid=lambda index: f"asset/{index}")

    assert [volume.uid, volume[:].uid, volume[:1, 0].uid] == ["asset"] * 3
    assert volume[0].uid == volume[:, 2][0].uid == "asset/0"


def test_an_array_without_events_keeps_its_uid():
    volume, _ = lazy(numbered(3, 4), uid="asset")

    assert volume[0].uid == volume[0, 1].uid == "asset"


def test_repr_is_one_line_that_says_name_axes_dtype_size_and_uid():
    source = CountingSource(np.broadcast_to(np.zeros((), "<u2"), (3, 96, 2048, 2048)))
    volume = LazyArray(
        source,
        dims=("t", "z", "y", "x"),
        name="view_a",
        uid="0b9c12345678",
        event_uid=lambda i: f"0b9c12345678/{i}",
    )

    assert repr(volume) == "<LazyArray view_a (t: 3, z: 96, y: 2048, x: 2048) uint16 2.4 GB 0b9c1234>"
    assert repr(volume[2, 0]) == "<LazyArray view_a (y: 2048, x: 2048) uint16 8.4 MB 0b9c1234/2>"
    assert repr(lazy(numbered(4)[:0])[0]) == "<LazyArray (t: 0) int64 0 B>"


def test_the_html_table_says_everything_and_escapes_it():
    volume = LazyArray(
        CountingSource(np.zeros((2, 8, 6), "<u2"), (1, 4, 4)),
        dims=("t", "<y>", "x"),
        units=(None, "micro&meter", None),
        scale=(1, 0.1625, 1),
        name="<script>",
        uid='"uid"',
    )

    table = volume._repr_html_()

    for text in ("(2, 8, 6)", "uint16", "192 B (96 elements)", "8 of (1, 4, 4)", "0.1625 micro&amp;meter"):
        assert text in table
    for text in ("&lt;script&gt;", "&lt;y&gt;: 8", "&quot;uid&quot;"):
        assert text in table
    assert not re.search(r"<(?!/?(table|caption|tbody|tr|th|td|figure|img|figcaption)\b)", table)


def test_numpy_reads_a_new_array_that_belongs_to_the_caller():
    array = numbered(3, 4, 5, dtype="<u2")
    volume, source = lazy(array)

    plane = np.asarray(volume[1, ::-1])
    assert source.reads == [20]
    np.testing.assert_array_equal(plane, array[1, ::-1], strict=True)
    plane[:] = 0
    np.testing.assert_array_equal(volume[1], numbered(3, 4, 5)[1])
    assert np.asarray(volume, dtype="f4").dtype == np.float32
    assert np.array(volume, copy=True).shape == (3, 4, 5)
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(volume, copy=False)


def test_iterating_gives_lazy_parts_along_the_first_axis():
    array = numbered(3, 4)
    volume, source = lazy(array)

    parts = list(volume)

    assert source.reads == []
    assert all(isinstance(part, LazyArray) for part in parts)
    np.testing.assert_array_equal([np.asarray(part) for part in parts], array)
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        iter(volume[0, 0])
    with pytest.raises(TypeError, match="unsized"):
        len(volume[0, 0])


def test_a_single_element_converts_to_a_python_number():
    volume, _ = lazy(numbered(3, 4))

    assert (int(volume[1, 2]), float(volume[1, 2]), complex(volume[1, 2])) == (6, 6.0, 6 + 0j)
    assert bool(volume[0, 1])
    assert not bool(volume[:1, :1])
    for convert in (int, float, complex):
        with pytest.raises(TypeError, match="0-dimensional"):
            convert(volume[1, :1])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(volume)


def test_arithmetic_and_comparison_read_and_give_arrays():
    array = numbered(3, 4, dtype="<u2")
    volume, _ = lazy(array)

    for got, expected in (
        (volume - 1, array - 1),
        (10 - volume[0], 10 - array[0]),
        (volume - array, array - array),
        (array[:, :1] * volume, array[:, :1] * array),
        (volume[0] / volume[1], array[0] / array[1]),
        (volume == 5, array == 5),
        (array != volume, array != array),
        (np.add(volume, 1.5), array + 1.5),
        (np.add.outer(volume[0], volume[0]), np.add.outer(array[0], array[0])),
        (np.isfinite(volume), np.isfinite(array)),
        (np.logical_and.reduce(volume, axis=0), np.logical_and.reduce(array, axis=0)),
    ):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, expected, strict=True)


def test_nothing_writes_into_a_lazy_array():
    volume, source = lazy(numbered(3, 4))
    message = "read-only"

    with pytest.raises(TypeError, match=message):
        volume += 1
    with pytest.raises(TypeError, match=message):
        np.add(1, 1, out=volume)
    with pytest.raises(TypeError, match=message):
        np.add.at(volume, 0, 1)
    with pytest.raises(TypeError, match="does not support item assignment"):
        volume[0] = 1
    np.testing.assert_array_equal(source.array, numbered(3, 4))


def test_numpy_s_own_functions_take_a_lazy_array():
    array = numbered(3, 4, 5, dtype="<u2")
    volume, _ = lazy(array)

    np.testing.assert_array_equal(np.stack([volume[0], volume[1]]), array[:2])
    np.testing.assert_array_equal(np.percentile(volume, [1, 99]), np.percentile(array, [1, 99]))
    np.testing.assert_array_equal(np.transpose(volume), array.T)
    assert (np.shape(volume), np.ndim(volume), np.size(volume)) == ((3, 4, 5), 3, 60)
    assert np.argmax(volume) == 59
    assert np.any(volume)
    assert not np.all(volume)


def test_reading_on_asyncio_gives_the_same_as_reading():
    array = numbered(3, 4)
    volume, source = lazy(array)

    np.testing.assert_array_equal(asyncio.run(volume[1:, ::2].read_async()), array[1:, ::2], strict=True)
    assert source.reads == [4]


def test_a_cancelled_read_leaves_the_loop_and_the_array_usable():
    class Slow(CountingSource):
        begun, go_on = threading.Event(), threading.Event()

        def read(self, selection):
            self.begun.set()
            assert self.go_on.wait(30)
            return super().read(selection)

    source = Slow(numbered(3, 4))
    volume = LazyArray(source, dims=("t", "x"))

    async def cancel_then_read() -> np.ndarray:
        reading = asyncio.create_task(volume.read_async())
        await asyncio.to_thread(source.begun.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert source.reads == []
        source.go_on.set()
        return await volume.read_async()

    np.testing.assert_array_equal(asyncio.run(cancel_then_read()), source.array)


def test_an_error_of_the_source_reaches_the_reader_as_it_is():
    class Damaged(CountingSource):
        def read(self, selection):
            raise OSError("torn")

    volume = LazyArray(Damaged(numbered(3, 4)), dims=("t", "x"))
    for read in (
        volume.compute,
        volume.max,
        volume[np.eye(3, 4, dtype=bool)].compute,
        lambda: np.asarray(volume[0]),
    ):
        with pytest.raises(OSError, match="torn"):
            read()
    with pytest.raises(OSError, match="torn"):
        asyncio.run(volume.read_async())


def axes_for(ndim: int) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.integers(-ndim, ndim - 1), npst.valid_tuple_axes(ndim))


def elements_for(dtype: np.dtype) -> st.SearchStrategy[Any]:
    """Numbers small enough that the order of additions does not show."""
    match dtype.kind:
        case "b":
            return st.booleans()
        case "f":
            return st.floats(-10, 10, width=16)
        case "c":
            return st.complex_numbers(max_magnitude=10, width=64)
        case _:
            return st.integers(-(10**6) * (dtype.kind == "i"), min(10**6, np.iinfo(dtype).max))


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes_and_chunks(min_side=1), st.sampled_from(DTYPES), st.integers(1, 60))
@pytest.mark.parametrize("operation", ["max", "min", "sum", "mean", "std"])
def test_a_reduction_in_blocks_has_numpy_s_dtype_shape_and_values(
    operation, data, shape_and_chunks, dtype, limit
):
    shape, chunks = shape_and_chunks
    dtype = np.dtype(dtype)
    array = data.draw(npst.arrays(dtype, shape, elements=elements_for(dtype)))
    axis, keepdims = data.draw(axes_for(len(shape))), data.draw(st.booleans())
    view, source = View.whole(shape), CountingSource(array, chunks)
    seen: list[int] = []

    def cuts(asked: int, *_: object) -> list[list[slice]]:
        seen.append(asked)
        return view.blocks(chunks, limit)

    blocked = Blocked(shape, dtype, cuts, lambda block: source.read(view.take(*block).selection()))
    got = reduce_blocks(blocked, operation, axis, keepdims=keepdims)

    expected = getattr(np, operation)(array, axis=axis, keepdims=keepdims)
    assert type(got) is type(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if dtype.kind in "fc":  # numpy adds floats up in their own precision, blocks in double precision
        double = array.astype(np.result_type(dtype, "f8"))
        expected = getattr(np, operation)(double, axis=axis, keepdims=keepdims)
    if got.dtype.kind in "fc":
        limits = np.finfo(got.dtype)
        lost = 1e-12 * float(np.abs(array).max()) * array.size + float(limits.smallest_subnormal)
        np.testing.assert_allclose(got, expected, rtol=float(limits.eps), atol=lost)
    else:
        np.testing.assert_array_equal(got, expected)
    assert sum(source.reads) == array.size
    assert max(source.reads) <= max(limit, math.prod(map(min, chunks, shape)))
    assert seen[0] <= BLOCK_BYTES // max(dtype.itemsize, 8 if operation == "std" else 1)


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes_and_chunks(min_side=1))
def test_reducing_a_slice_is_reducing_what_numpy_slices(data, shape_and_chunks):
    shape, chunks = shape_and_chunks
    expected = numbered(*shape)
    part, _ = lazy(expected, chunks)
    key = data.draw(indices_for(shape))
    expected, part = expected[key], part[key]
    assume(expected.size)
    axis = data.draw(axes_for(expected.ndim)) if expected.ndim else None

    for operation in (np.max, np.min, np.sum, np.mean, np.std):
        np.testing.assert_allclose(
            operation(part, axis=axis), operation(expected, axis=axis), rtol=1e-12, strict=True
        )


def test_a_large_array_is_reduced_in_blocks_of_bounded_size_each_read_once():
    source = PlaneNumbers()
    volume = LazyArray(source, dims=("t", "z", "y", "x"))
    size = math.prod(source.shape)
    assert size > BLOCK_BYTES

    peak = volume.max(axis=1)

    assert (peak.shape, peak.dtype, peak.min(), peak.max()) == ((3, 1024, 2048), np.uint8, 11, 11)
    assert sum(source.reads) == size
    assert max(source.reads) <= BLOCK_BYTES
    assert all(y % 512 == 0 and x % 512 == 0 for *_, y, x in source.starts)
    source.reads.clear()
    assert float(volume.std()) == pytest.approx(np.std(np.arange(12)), rel=1e-12)
    assert sum(source.reads) == size
    assert max(source.reads) * 8 <= BLOCK_BYTES


def test_the_deviation_of_large_numbers_close_together_is_exact():
    array = 1e9 + np.random.default_rng(1).normal(size=(50, 7))
    view = View.whole(array.shape)
    blocked = Blocked(
        array.shape, array.dtype, lambda *_: view.blocks((3, 2), 6), lambda block: array[block].copy()
    )

    got = reduce_blocks(blocked, "std", None, keepdims=False, ddof=1)

    assert float(got) == pytest.approx(np.std(array - 1e9, ddof=1), rel=1e-6)
    assert not np.isclose(np.sqrt((array**2).mean() - array.mean() ** 2), np.std(array - 1e9), rtol=1e-2)


def test_numpy_s_reductions_call_ours_with_their_options():
    array = numbered(3, 4, 5, dtype="<u2")
    volume, source = lazy(array)

    np.testing.assert_array_equal(np.max(volume, axis=(0, -1)), array.max(axis=(0, 2)), strict=True)
    np.testing.assert_array_equal(
        np.min(volume, axis=1, keepdims=True), array.min(axis=1, keepdims=True), strict=True
    )
    assert np.mean(volume, dtype="f4") == np.mean(array, dtype="f4")
    assert np.mean(volume, dtype="f4").dtype == np.float32
    for reduce in (np.sum, np.mean):
        assert reduce(volume, dtype="u1") == reduce(array, dtype="u1")
        assert reduce(volume, dtype="u1").dtype == np.uint8
        halves, _ = lazy(array / 2)
        assert reduce(halves, dtype="i4") == reduce(array / 2, dtype="i4")
    np.testing.assert_allclose(np.std(volume, axis=0, ddof=1), np.std(array, axis=0, ddof=1), strict=True)
    assert set(source.reads) == {60}
    with pytest.raises(TypeError, match="leave out"):
        np.max(volume, axis=0, out=np.empty((4, 5), "<u2"))
    with pytest.raises(np.exceptions.AxisError, match="axis 3 is out of bounds"):
        volume.max(axis=3)
    with pytest.raises(ValueError, match="duplicate"):
        volume.mean(axis=(0, 0))


def test_not_a_number_is_not_lost_between_blocks():
    array = numbered(4, 6).astype("f8")
    array[1, 2] = np.nan
    view = View.whole(array.shape)
    blocked = Blocked(
        array.shape, array.dtype, lambda *_: view.blocks((1, 2), 2), lambda block: array[block].copy()
    )

    for operation in ("max", "min", "sum", "mean", "std"):
        got = reduce_blocks(blocked, operation, 1, keepdims=False)
        np.testing.assert_allclose(got, getattr(np, operation)(array, axis=1))
        assert np.isnan(got[1])


def test_reducing_nothing_does_what_numpy_does_and_reads_nothing():
    volume, source = lazy(numbered(3, 4))

    with pytest.raises(ValueError, match="zero-size array"):
        volume[:, 0:0].max()
    np.testing.assert_array_equal(volume[:, 0:0].sum(axis=1), np.zeros(3, np.int64), strict=True)
    assert volume[:, 0:0].max(axis=0).shape == (0,)
    with (
        pytest.warns(RuntimeWarning, match="invalid value"),
        pytest.warns(RuntimeWarning, match="empty slice"),
    ):
        assert np.isnan(volume[0:0].mean())
    assert source.reads == []
    assert volume[1, 1].max() == 5
    assert volume[1, 1].std() == 0


@settings(max_examples=40, deadline=None)
@given(st.data(), shapes_and_chunks(min_side=1))
def test_dask_gives_what_the_array_gives(data, shape_and_chunks):
    shape, chunks = shape_and_chunks
    expected = numbered(*shape)
    part, source = lazy(expected, chunks)
    key = data.draw(indices_for(shape))
    expected, part = expected[key], part[key]

    array = part.to_dask()

    assert source.reads == []
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(array.compute(scheduler="synchronous"), expected, strict=True)


def test_dask_cuts_along_chunks_and_reads_on_many_threads():
    source = PlaneNumbers()
    volume = LazyArray(source, dims=("t", "z", "y", "x"))
    array = volume.to_dask()
    cuts = [np.cumsum(along)[:-1] for along in array.chunks]

    assert array.npartitions > 1
    assert all((cut % chunk == 0).all() for cut, chunk in zip(cuts, source.chunks, strict=True))
    assert max(map(math.prod, np.broadcast(*np.ix_(*array.chunks)))) <= BLOCK_BYTES
    with ThreadPoolExecutor(4) as pool:
        planes = array.max(axis=(0, 2, 3)).compute(scheduler="threads", pool=pool)
    np.testing.assert_array_equal(planes, np.arange(12))


def test_dask_reads_only_the_plane_that_is_asked_for():
    array = numbered(3, 8, 16)
    volume, source = lazy(array, (1, 4, 4))
    lazily = volume.to_dask()

    np.testing.assert_array_equal(lazily[1, [7, 0]].compute(scheduler="synchronous"), array[1, [7, 0]])
    outer = lazily[[2, 0]][:, [7, 0, 3]][..., [5, 1]]
    np.testing.assert_array_equal(
        outer.compute(scheduler="synchronous"), array[[2, 0]][:, [7, 0, 3]][..., [5, 1]]
    )
    source.reads.clear()
    np.testing.assert_array_equal(lazily[1, 2].compute(scheduler="synchronous"), array[1, 2])
    assert source.reads == [16]


def test_without_dask_the_error_names_the_extra(monkeypatch):
    volume, _ = lazy(numbered(3, 4))
    for name in ("dask", "dask.array"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(MissingExtra, match=re.escape("gently-bluesky[dask]")):
        volume.to_dask()


def test_importing_it_imports_neither_dask_nor_asyncio_nor_a_backend():
    code = "import sys, gently_bluesky.lazy as _; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "numpy" in run.stdout.split()
    assert not {"dask", "asyncio", "tensorstore", "zarr", "tifffile", "bluesky", "hypothesis"} & set(
        run.stdout.split()
    )


def test_a_zarr_copy_holds_what_was_selected_and_overwrites_nothing(tmp_path):
    numbers = np.arange(3 * 50 * 70, dtype=np.uint16).reshape(3, 50, 70)
    part = LazyArray(CountingSource(numbers, chunks=(1, 7, 70)), dims=("t", "y", "x"))[1, ::-1, 3:]
    part.to_zarr(tmp_path / "part.zarr")
    assert np.array_equal(zarr.open_array(tmp_path / "part.zarr", mode="r")[:], numbers[1, ::-1, 3:])
    with pytest.raises(FileExistsError, match="nothing was written"):
        part.to_zarr(tmp_path / "part.zarr")
