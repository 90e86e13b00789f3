"""The ring: memory that was given back is taken again, within the bound."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np

from gently_bluesky.documents.ring import Ring

MIB = 2**20


def address(buffer: np.ndarray) -> int:
    return buffer.__array_interface__["data"][0]


def test_what_was_given_back_last_is_taken_first() -> None:
    ring = Ring(8 * MIB)
    first, second = ring.take(MIB), ring.take(MIB)
    addresses = address(first), address(second)
    ring.give_back(first)
    ring.give_back(second)
    assert (address(ring.take(MIB)), address(ring.take(MIB))) == addresses[::-1]


def test_two_that_are_in_use_never_share_memory() -> None:
    ring = Ring(8 * MIB)
    buffers = [ring.take(MIB) for _ in range(4)]
    ring.give_back(buffers.pop())
    buffers.append(ring.take(MIB))
    for number, buffer in enumerate(buffers):
        buffer[:] = number
    assert (
        [int(buffer.min()) for buffer in buffers] == [int(buffer.max()) for buffer in buffers] == [0, 1, 2, 3]
    )


def test_the_steady_state_allocates_nothing() -> None:
    ring = Ring(8 * MIB)
    for _ in range(3):
        ring.give_back(ring.take(MIB))
    tracemalloc.start()
    try:
        for _ in range(100):
            buffers = [ring.take(MIB)]
            ring.give_back(buffers.pop())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB // 10


def test_buffers_of_another_length_make_room() -> None:
    ring = Ring(4 * MIB)
    tracemalloc.start()
    try:
        for nbytes in (MIB, 2 * MIB, MIB // 2, MIB):
            buffers = [ring.take(nbytes) for _ in range(4 * MIB // nbytes)]
            while buffers:
                ring.give_back(buffers.pop())
            held, _ = tracemalloc.get_traced_memory()
            assert held < 4.1 * MIB
        ring.keep_at_most(2 * MIB)
        assert 1.9 * MIB < tracemalloc.get_traced_memory()[0] < 2.1 * MIB
        ring.keep_at_most(0)
        assert tracemalloc.get_traced_memory()[0] < MIB // 10
    finally:
        tracemalloc.stop()


def test_more_than_the_bound_is_lent_but_not_kept() -> None:
    ring = Ring(MIB)
    tracemalloc.start()
    try:
        buffers = [ring.take(MIB), ring.take(2 * MIB)]
        while buffers:
            ring.give_back(buffers.pop())
        assert tracemalloc.get_traced_memory()[0] < 1.1 * MIB
    finally:
        tracemalloc.stop()


def test_threads_that_take_and_give_back_at_once_never_meet_in_a_buffer() -> None:
    ring = Ring(4 * MIB)
    met: list[int] = []

    def work(name: int) -> None:
        for _ in range(300):
            buffer = ring.take(128 * 1024)
            buffer[:] = name
            if buffer.min() != name or buffer.max() != name:
                met.append(name)
            ring.give_back(buffer)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not met
