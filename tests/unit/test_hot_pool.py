"""The hot pool: who may find what, what makes room, and that no reader ever sees another frame's pixels."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hot_reading
import numpy as np
import pytest
from hot_reading import ASSET, NBYTES, SHAPE, Stored, hunted_frames, is_hot, put, reader, whole
from memory_left import clear

from gently_bluesky import Store
from gently_bluesky.backends.hot import DATA_OFFSET, PAGE, SLOTS, HotPool, key_of
from gently_bluesky.backends.hot_source import HotSource
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.segments import HOT, names_of, shared_folder, tag_of
from gently_bluesky.testing.frames import check_frame, encoded_frame


@pytest.fixture
def uid() -> Iterator[str]:
    """Of a store that is only a name; none of its pools outlives the test."""
    name = str(uuid.uuid4())
    yield name
    assert names_of(tag_of(name), HOT) == []


@pytest.fixture
def make(uid: str) -> Iterator[Callable[..., HotPool]]:
    """Make pools that have room for so many bytes of arrays."""
    pools: list[HotPool] = []

    def made(nbytes: int) -> HotPool:
        pools.append(HotPool.create(uid, DATA_OFFSET + nbytes))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close()


# -- what is in it -----------------------------------------------------------------------------------------


def test_kept_array_is_read_from_the_pool_and_everything_else_from_storage(uid, make):
    pool = make(4 * NBYTES)
    put(pool, 7)
    source = reader(uid)
    assert is_hot(source, 7)
    assert not is_hot(source, 6)
    assert not is_hot(reader(uid, asset="another asset"), 7)


def test_array_is_not_found_before_it_is_kept_nor_after_it_was_given_back(uid, make):
    pool, source = make(4 * NBYTES), reader(uid)
    buffer = pool.take(NBYTES)
    buffer.view("<u2").reshape(SHAPE)[...] = encoded_frame(SHAPE, "<u2", event=1)
    assert not is_hot(source, 1)
    pool.give_back(buffer)
    assert not is_hot(source, 1)


@pytest.mark.parametrize("dtype", ["|b1", "<u1", "<i4", "<f8", "<c16"])
def test_any_part_of_an_array_of_any_dtype_is_read(uid, make, dtype):
    shape = (3, 20, 31)
    pool, frame = make(1 << 20), encoded_frame(shape, dtype, event=2)
    buffer = pool.take(frame.nbytes)
    buffer[...] = np.frombuffer(frame.tobytes(), np.uint8)
    pool.keep(buffer, ASSET, 2)
    source = HotSource(Stored(shape=shape, dtype=dtype), tag_of(uid), ASSET)
    rows, columns = np.array([4, 1, 19]), slice(3, 31, 7)
    got = source.read((slice(2, 3, 1), slice(1, 3, 1), rows, columns))[0]
    np.testing.assert_array_equal(got, frame[1:3][:, rows][:, :, columns])
    assert got.any()


def test_view_of_a_buffer_is_as_good_as_the_buffer(uid, make):
    pool = make(NBYTES)
    frame = pool.take(NBYTES).view("<u2").reshape(SHAPE)
    frame[...] = encoded_frame(SHAPE, "<u2", event=3)
    pool.keep(frame, ASSET, 3)
    assert is_hot(reader(uid), 3)


def test_one_read_of_several_events_is_hot_only_if_all_of_them_are(uid, make):
    pool, source = make(4 * NBYTES), reader(uid)
    for event in (1, 2):
        put(pool, event)
    several = source.read((np.array([2, 1, 2]), *whole(0)[1:]))
    for frame, event in zip(several, (2, 1, 2), strict=True):
        check_frame(frame, event=event)
    assert not source.read((slice(1, 4, 1), *whole(0)[1:])).any()


def test_array_of_another_size_than_announced_is_not_believed(uid, make):
    pool = make(4 * NBYTES)
    put(pool, 1)
    assert not is_hot(reader(uid, (64, 32)), 1, (64, 32))


def test_nothing_selected_is_nothing_read(uid, make):
    put(make(NBYTES), 0)
    source = reader(uid)
    assert source.read((slice(0, 0, 1), slice(0, 64, 1), slice(0, 64, 1))).shape == (0, 64, 64)
    assert source.read((slice(0, 1, 1), slice(5, 5, 1), slice(0, 64, 1))).shape == (1, 0, 64)


# -- what makes room ---------------------------------------------------------------------------------------


def test_what_was_kept_longest_ago_makes_room_first(uid, make):
    pool, source = make(3 * NBYTES), reader(uid)
    for event in range(5):
        put(pool, event)
    assert [is_hot(source, event) for event in range(5)] == [False, False, True, True, True]


def test_reading_counts_as_using(uid, make):
    pool, source = make(3 * NBYTES), reader(uid)
    for event in range(3):
        put(pool, event)
    assert is_hot(source, 0)
    put(pool, 3)
    assert [is_hot(source, event) for event in (1, 2, 0, 3)] == [False, True, True, True]
    put(pool, 4)
    assert not is_hot(source, 2)


def test_buffers_in_flight_are_never_given_out_twice(make):
    pool = make(3 * NBYTES)
    taken = [pool.take(NBYTES) for _ in range(3)]
    for number, buffer in enumerate(taken):
        buffer[...] = number
    assert pool.take(NBYTES) is None
    assert [set(buffer) for buffer in taken] == [{0}, {1}, {2}]
    pool.give_back(taken[1])
    assert pool.take(NBYTES) is not None
    assert pool.take(NBYTES) is None


def test_steady_state_uses_the_same_memory_again(make):
    pool = make(3 * NBYTES)
    places = set()
    for event in range(50):
        buffer = pool.take(NBYTES)
        places.add(buffer.__array_interface__["data"][0])
        pool.keep(buffer, ASSET, event)
    assert len(places) == 3


def test_arrays_of_several_sizes_share_a_pool(uid, make):
    pool = make(16 * NBYTES)
    sizes = {0: SHAPE, 1: (128, 64), 2: (16, 32), 3: (200, 128)}
    dice = np.random.default_rng(1)
    sources = {number: reader(uid, shape, f"asset {number}") for number, shape in sizes.items()}
    for event in range(300):
        number = int(dice.integers(4))
        put(pool, event, sizes[number], f"asset {number}")
        assert is_hot(sources[number], event, sizes[number])
    assert sum(block.size for block in pool._blocks) == 16 * NBYTES


def test_larger_array_drives_out_neighbours_that_were_used_longest_ago(uid, make):
    pool, source = make(4 * NBYTES), reader(uid)
    for event in range(4):
        put(pool, event)
    for event in (0, 1):
        assert is_hot(source, event)
    put(pool, 9, (128, 64))
    assert [is_hot(source, event) for event in range(4)] == [True, True, False, False]
    assert is_hot(reader(uid, (128, 64)), 9, (128, 64))


def test_array_larger_than_the_pool_has_no_room_and_drives_nothing_out(uid, make):
    pool, source = make(2 * NBYTES), reader(uid)
    put(pool, 1)
    assert pool.take(3 * NBYTES) is None
    assert is_hot(source, 1)


def test_more_small_arrays_than_the_table_has_rows_drive_out_the_oldest(uid, make):
    pool, shape = make(2 * SLOTS * PAGE), (16, 16)
    for event in range(SLOTS + 3):
        put(pool, event, shape)
    source = HotSource(Stored(SLOTS + 3, shape), tag_of(uid), ASSET)
    assert [is_hot(source, event, shape) for event in (0, 2, 3, SLOTS + 2)] == [False, False, True, True]


def test_several_threads_take_and_keep_at_once(uid, make):
    pool, shape = make(6 * NBYTES), SHAPE
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        source = reader(uid, shape, f"of {worker}")
        try:
            for event in range(100):
                put(pool, event, shape, f"of {worker}")
                is_hot(source, event)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- bounds and names --------------------------------------------------------------------------------------


def test_pool_takes_its_memory_at_once_and_never_more(make):
    pool = make(8 * NBYTES)
    size = DATA_OFFSET + 8 * NBYTES
    about = pool.path.stat()
    assert about.st_size == size
    if sys.platform == "linux":
        assert about.st_blocks * 512 >= size
    for event in range(40):
        put(pool, event)
    assert pool.path.stat().st_size == size


@pytest.mark.parametrize("nbytes", [0, DATA_OFFSET, DATA_OFFSET + PAGE - 1])
def test_pool_that_holds_nothing_is_refused(uid, nbytes):
    with pytest.raises(InvalidSetting, match=r"hot_bytes.*nothing was written"):
        HotPool.create(uid, nbytes)


def test_pool_larger_than_shared_memory_is_refused(uid):
    free = shutil.disk_usage(shared_folder()).free
    with pytest.raises(InvalidSetting, match=rf"{free + (1 << 40)}.*nothing was written"):
        HotPool.create(uid, free + (1 << 40))
    assert names_of(tag_of(uid), HOT) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_pool_is_its_users_own_and_named_at_random(uid, make):
    first, second = make(NBYTES), make(NBYTES)
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert first.path.name.startswith(f"gently-{tag_of(uid)}-")
    assert first.path.name != second.path.name
    assert first.path.parent == second.path.parent == shared_folder()


def test_closed_pool_is_gone_and_readers_go_on_from_storage(uid, make):
    pool, source = make(2 * NBYTES), reader(uid)
    put(pool, 1)
    buffer = pool.take(NBYTES)
    assert is_hot(source, 1)
    pool.close()
    pool.close()
    assert not pool.path.exists()
    assert not is_hot(source, 1)
    assert pool.take(NBYTES) is None
    buffer[...] = 1
    pool.keep(buffer, ASSET, 2)
    assert not is_hot(source, 2)


def test_pool_is_made_as_the_format_page_says(uid, make):
    pool = make(2 * NBYTES)
    put(pool, 7)
    content = pool.path.read_bytes()
    assert content.startswith(b"gently-hot-pool1")
    rows = np.frombuffer(content, "<u8", 1024 * 8, 4096).reshape(1024, 8)
    (kept,) = np.flatnonzero(rows[:, 0] % 2 == 0)
    _, low, high, begin, nbytes, used, *unused = rows[kept].tolist()
    assert (low, high, nbytes, unused) == (*key_of(ASSET, 7), NBYTES, [0, 0])
    assert used > 0
    assert begin >= 4096 + 1024 * 64
    check_frame(np.frombuffer(content, "<u2", NBYTES // 2, begin).reshape(SHAPE), event=7)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_closed_pool_gives_its_memory_back_when_no_buffer_is_in_flight(uid, make):
    pool = make(2 * NBYTES)
    maps = Path("/proc/self/maps")
    put(pool, 1)
    buffer = pool.take(NBYTES)
    assert pool.path.name in maps.read_text()
    pool.close()
    buffer[...] = 1
    assert pool.path.name in maps.read_text()
    pool.give_back(buffer)
    del buffer
    assert pool.path.name not in maps.read_text()


@pytest.mark.parametrize("made", ["empty", "noise", "half", "link"])
def test_file_that_is_no_pool_of_ours_is_not_believed(uid, make, made):
    pool = make(2 * NBYTES)
    put(pool, 1)
    other = pool.path.with_name(f"gently-{tag_of(uid)}-0000000000000000{HOT}")
    content = pool.path.read_bytes()
    pool.close()
    try:
        if made == "link":
            target = other.with_suffix(".target")
            target.write_bytes(content)
            other.symlink_to(target)
        else:
            other.write_bytes(
                {"empty": b"", "noise": os.urandom(len(content)), "half": content[: DATA_OFFSET + 9]}[made]
            )
        assert not is_hot(reader(uid), 1)
    finally:
        for path in (other, other.with_suffix(".target")):
            path.unlink(missing_ok=True)


# -- through a store ---------------------------------------------------------------------------------------


def test_arrays_of_a_store_are_read_from_its_pool(root, acquire):
    try:
        with Store(root) as store:
            uid = acquire(store, [{"view": np.zeros(SHAPE, "<u2")}] * 3)
            asset = store[uid]["view"].uid
            pool = HotPool.create(store.uid, DATA_OFFSET + 4 * NBYTES)
            put(pool, 1, asset=asset)
            with Store(root, mode="r") as other:
                view = other[uid]["view"]
                check_frame(np.asarray(view[1]), event=1)
                assert not np.asarray(view[0]).any()
                check_frame(np.asarray(other.array(f"{asset}/1")), event=1)
                pool.close()
                assert not np.asarray(view[1]).any()
    finally:
        clear(root)


# -- other processes ---------------------------------------------------------------------------------------


def start(job: str, uid: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a job of ``hot_reading`` in a process of its own."""
    script = Path(hot_reading.__file__)
    return subprocess.Popen(
        [sys.executable, script, job, uid, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_reader_never_sees_another_frames_pixels_while_they_are_overwritten(uid, make):
    """The owner writes over its few places all the while another process reads thousands of times."""
    frames = [frame.reshape(-1).view(np.uint8) for frame in hunted_frames()]
    pool = make(4 * frames[0].nbytes)
    hunter = start("hunt", uid)
    assert hunter.stdout.readline().strip() == "ready"
    while hunter.poll() is None:
        for event, frame in enumerate(frames):
            buffer = pool.take(frame.nbytes)
            buffer[...] = frame
            pool.keep(buffer, ASSET, event)
    _, error = hunter.communicate()
    assert hunter.returncode == 0, error


@pytest.mark.parametrize("how", ["exits", "stays"])
def test_reader_that_exits_or_is_killed_takes_nothing_with_it(uid, make, how):
    pool = make(3 * NBYTES)
    put(pool, 1)
    visitor = start("visit", uid, how)
    assert visitor.stdout.readline().strip() == "True"
    if how == "stays":
        visitor.kill()
    visitor.communicate()
    assert pool.path.exists()
    put(pool, 2)
    assert is_hot(reader(uid), 1)
    assert is_hot(reader(uid), 2)
