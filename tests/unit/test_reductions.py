from __future__ import annotations

import _thread
import math
import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gently_bluesky import reductions
from gently_bluesky.indexing import View
from gently_bluesky.lazy import ArraySource, LazyArray
from gently_bluesky.reductions import Blocked, reduce_blocks

SHAPE = (12, 1024, 2048)
CHUNKS = (1, 512, 512)
BLOCKS = 6
"""Of an array of this shape and dtype, in blocks of 8 MiB."""


class Watched(ArraySource):
    """Planes that hold their own number; notes which thread reads what, and how many read at once."""

    shape = SHAPE
    dtype = np.dtype("<u2")
    chunks = CHUNKS

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: set[str] = set()
        self.blocks: list[tuple[int, ...]] = []
        self.nbytes = 0
        self.now = self.most = 0

    def read(self, selection):
        shape = tuple(pick.stop - pick.start for pick in selection)
        with self.lock:
            self.threads.add(threading.current_thread().name)
            self.blocks.append(shape)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return self.pixels(selection[0].start, shape)
        finally:
            with self.lock:
                self.now -= 1

    def pixels(self, first: int, shape: tuple[int, ...]) -> np.ndarray:
        block = np.empty(shape, self.dtype)
        block[:] = np.arange(first, first + shape[0], dtype=self.dtype)[:, None, None]
        return block


def volume_of(source: ArraySource) -> LazyArray:
    return LazyArray(source, dims=("z", "y", "x"))


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gently-bluesky-read")]


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reductions, "reading_threads", lambda: 2)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_read_blocks_at_the_same_time():
    both = threading.Barrier(2, timeout=60)

    class Meeting(Watched):
        def pixels(self, first, shape):
            both.wait()  # breaks, and with it the test, where nobody else ever comes
            return super().pixels(first, shape)

    source = Meeting()
    np.testing.assert_array_equal(volume_of(source).max(axis=(1, 2)), np.arange(12))

    assert len(source.blocks) == BLOCKS
    assert source.most == 2
    assert all(name.startswith("gently-bluesky-read") for name in source.threads)
    assert readers() == []


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("operation", ["max", "min", "sum", "mean", "std"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 1), (1, 2)])
def test_every_block_is_read_once_and_no_more_of_them_at_once_than_threads(operation, axis):
    source = Watched()
    expected = np.broadcast_to(np.arange(12, dtype="<u2")[:, None, None], SHAPE)

    got = getattr(volume_of(source), operation)(axis)

    if operation in ("mean", "std"):
        numbers = np.arange(12.0)
        along = getattr(numbers, operation)() if axis in (None, 0, (0, 1)) else None
        if along is None:
            along = (numbers if operation == "mean" else np.zeros(12)).reshape(
                (12,) + (1,) * (getattr(got, "ndim", 0) - 1)
            )
        np.testing.assert_allclose(got, np.broadcast_to(along, np.shape(got)), rtol=1e-14)
    else:
        np.testing.assert_array_equal(got, getattr(expected, operation)(axis), strict=True)
    assert sum(map(math.prod, source.blocks)) == math.prod(SHAPE)
    assert max(map(math.prod, source.blocks)) * 2 <= reductions.BLOCK_BYTES
    assert source.most <= 2
    assert readers() == []


def test_blocks_are_tall_along_what_is_reduced_so_that_little_is_kept_of_each():
    source = Watched()
    volume_of(source).mean(axis=0)
    assert set(source.blocks) == {(12, 512, 512)}
    source.blocks.clear()
    volume_of(source).mean()
    assert set(source.blocks) == {(2, 1024, 2048)}


@pytest.mark.usefixtures("two_threads")
def test_what_was_added_up_does_not_depend_on_which_thread_was_faster():
    rng = np.random.default_rng(3)
    array = (rng.random((40, 30, 50)) - 0.5) * 10.0 ** rng.integers(-12, 12, (40, 30, 50))
    view = View.whole(array.shape)

    def reduced(order: list[int]) -> list[float]:
        """Let the blocks come in an order of ours: each waits until those before it have been read."""
        turns = {number: threading.Event() for number in range(len(order))}
        numbers = iter(range(10**6))
        lock = threading.Lock()

        def read(block):
            with lock:
                number = next(numbers) % len(order)
            turns[number].set()
            turns[order[number]].wait(60)
            return array[block].copy()

        blocked = Blocked(array.shape, array.dtype, lambda *_: view.blocks((1, 30, 50), 1500), read)
        return [float(reduce_blocks(blocked, how, None, keepdims=False)) for how in ("sum", "mean", "std")]

    count = array.shape[0]
    straight = list(range(count))
    swapped = [number ^ 1 for number in straight]  # of each pair the first waits for the second
    assert reduced(straight) == reduced(swapped)


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_block_is_raised_and_leaves_no_thread_and_no_read():
    class Torn(Watched):
        def pixels(self, first, shape):
            if first == 4:
                raise OSError("torn")
            return super().pixels(first, shape)

    source = Torn()
    with pytest.raises(OSError, match="torn"):
        volume_of(source).max()

    assert source.now == 0
    assert readers() == []


@pytest.mark.usefixtures("two_threads")
def test_who_interrupts_the_program_leaves_no_thread_and_no_read():
    class Interrupted(Watched):
        def pixels(self, first, shape):
            if first == 4:
                _thread.interrupt_main()
            return super().pixels(first, shape)

    source = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        volume_of(source).max()

    # one that was just being started when the interrupt came is told to end, and nobody has waited for it
    deadline = time.monotonic() + 60
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert readers() == []
    assert source.now == 0


@pytest.mark.usefixtures("two_threads")
def test_an_error_stops_reading_long_before_the_end():
    class TornFirst(Watched):
        shape = (1200, 1024, 2048)

        def pixels(self, first, shape):
            if first == 0:
                raise OSError("torn")
            return np.broadcast_to(np.zeros((), self.dtype), shape)

    source = TornFirst()
    with pytest.raises(OSError, match="torn"):
        volume_of(source).max()

    assert len(source.blocks) <= 2 * 3  # of 600: what was begun ahead


@pytest.mark.usefixtures("two_threads")
def test_an_error_while_merging_ends_the_threads_too():
    class Infinite(Watched):
        dtype = np.dtype("<f4")

        def pixels(self, first, shape):
            return np.full(shape, np.inf if first % 4 else -np.inf, self.dtype)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="invalid value") as raised:
            volume_of(Infinite()).sum()

    assert raised.value is not None  # and holds the frames, so that nothing was closed by chance
    assert readers() == []


@pytest.mark.usefixtures("two_threads")
def test_what_numpy_is_told_to_ignore_is_ignored_on_every_thread():
    class Infinite(Watched):
        def pixels(self, first, shape):
            return np.full(shape, np.inf, self.dtype)

        dtype = np.dtype("<f4")

    with np.errstate(invalid="ignore"):
        assert np.isnan(volume_of(Infinite()).std())


def test_a_small_array_starts_no_thread():
    source = Watched()
    assert volume_of(source)[:2, :100, :100].max() == 1
    assert source.threads == {threading.current_thread().name}


def test_chunks_too_large_to_have_several_at_once_are_read_one_after_the_other():
    class Large(Watched):
        shape = (36, 1024, 2048)
        chunks = (12, 1024, 2048)

    source = Large()
    assert (volume_of(source).mean(axis=0) == 17.5).all()
    assert source.blocks == [source.chunks] * 3
    assert source.threads == {threading.current_thread().name}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("operation", ["max", "mean", "std"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_memory_stays_within_a_few_blocks(operation, axis):
    class Long(Watched):
        shape = (32, 1024, 2048)

    volume = volume_of(Long())
    volume[:4].max()
    tracemalloc.start()
    try:
        result = getattr(volume, operation)(axis)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # two blocks in work, each with 4 MiB pieces in double precision and what is left of it, waiting results
    assert peak - result.nbytes < 96 * 2**20 < volume.nbytes


@settings(max_examples=75, deadline=None)
@given(
    st.data(),
    st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    st.sampled_from(["?", "u1", "i1", "<u2", "<i2", "<u4", "<i8"]),
)
def test_extreme_integers_are_added_up_exactly(data, shape, dtype):
    limits = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    array = data.draw(npst.arrays(np.dtype(dtype), shape, elements=st.sampled_from(limits).map(int)))
    axis = data.draw(st.one_of(st.none(), npst.valid_tuple_axes(len(shape))))
    view = View.whole(shape)
    blocked = Blocked(
        shape, array.dtype, lambda *_: view.blocks((2,) * len(shape), 8), lambda block: array[block].copy()
    )
    for how in ("sum", "max", "min"):
        got = reduce_blocks(blocked, how, axis, keepdims=False)
        np.testing.assert_array_equal(got, getattr(np, how)(array, axis=axis), strict=True)


def test_sums_of_small_integers_do_not_overflow_where_there_are_many():
    array = np.full((1, 2**15, 40), 2**16 - 1, "<u2")
    for axis in (None, 1, (0, 1)):
        blocked = Blocked(
            array.shape,
            array.dtype,
            lambda *_: View.whole(array.shape).blocks((1, 1, 1), 2**30),
            array.__getitem__,
        )
        got = reduce_blocks(blocked, "sum", axis, keepdims=False)
        np.testing.assert_array_equal(got, array.sum(axis=axis), strict=True)
    lowest = np.full((2**16, 3), -(2**15), "<i2")
    blocked = Blocked(
        lowest.shape,
        lowest.dtype,
        lambda *_: View.whole(lowest.shape).blocks((1, 1), 2**30),
        lowest.__getitem__,
    )
    assert reduce_blocks(blocked, "mean", 0, keepdims=False).tolist() == [-(2.0**15)] * 3
