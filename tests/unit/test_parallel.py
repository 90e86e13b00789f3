from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing

import pytest

from gently_bluesky.parallel import in_order, reading_threads


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gently-bluesky-read")]


def test_results_come_in_the_order_of_the_work_whoever_is_faster():
    last_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert last_is_done.wait(60)
        if number == 3:
            last_is_done.set()
        return number * number

    assert list(in_order(work, range(4), 2)) == [0, 1, 4, 9]
    assert readers() == []


def test_no_more_is_begun_than_a_few_ahead_of_who_takes_the_results():
    begun: list[int] = []
    with closing(in_order(begun.append, iter(range(10**9)), 3)) as results:
        for _ in range(5):
            next(results)
        assert len(begun) <= 5 + 2 * 3
    assert readers() == []


def test_errors_are_raised_in_their_turn_and_the_first_of_several_is_the_first_in_order():
    second_failed = threading.Event()

    def work(number: int) -> int:
        if number == 2:
            assert second_failed.wait(60)
            raise ValueError("two")
        if number == 3:
            second_failed.set()
            raise ValueError("three")
        return number

    results = in_order(work, range(10), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert readers() == []


def test_one_thread_or_one_item_is_worked_on_by_the_caller():
    def here(_: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert list(in_order(here, range(3), 1)) == [True] * 3
    assert list(in_order(here, range(3), 0)) == [True] * 3
    assert list(in_order(here, [7], 8)) == [True]
    assert list(in_order(here, [], 8)) == []
    assert list(in_order(here, range(2), 2)) == [False] * 2


def test_there_are_some_threads_and_not_too_many():
    assert 2 <= reading_threads() <= 8


def test_what_reads_while_the_interpreter_exits_reads_without_threads():
    code = """
import atexit
from gently_bluesky.parallel import in_order
def fail(number): return 1 // (number - 2)
def work():
    print(list(in_order(abs, range(5), 2)))
    try:
        list(in_order(fail, range(5), 2))
    except ZeroDivisionError:
        print("raised")
atexit.register(work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[0, 1, 2, 3, 4]", "raised", ""], done.stderr
