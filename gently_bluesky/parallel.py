"""Work shared out over a few threads that are gone when the call is over.

Results come in the order of the work, so that what is made of them does not depend on which thread was faster.
Nothing here knows what the work is.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import chain, islice
from typing import TypeVar

__all__ = ["in_order", "reading_threads"]

MOST_THREADS = 8
AHEAD = 2
"""Results that may wait for their turn, for each thread."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def reading_threads() -> int:
    """Return how many threads reading is worth: one for each core this process may use, 2 to 8."""
    cores = (os.cpu_count() or 1) if sys.platform in {"win32", "darwin"} else len(os.sched_getaffinity(0))
    return min(MOST_THREADS, max(2, cores))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in the order of the items.

    At most ``threads`` calls run at once, and at most twice as many results wait for their turn; with one
    thread, or one item, the calls are made on the caller's own. An exception of a call is raised when its
    turn comes; then, and when the caller goes no further and closes the generator (do, with
    ``contextlib.closing``), no further call begins, and those under way are waited for. A Ctrl-C that comes
    while a thread is just being started leaves that one to end by itself, after the call it is in.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if threads < 2 or len(first) < 2:
        yield from map(function, chain(first, rest))
        return
    pool = ThreadPoolExecutor(threads, "gently-bluesky-read")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in chain(first, rest):
            waiting.append(_begin(pool, function, item))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(pool: ThreadPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        # in the caller's context, where numpy keeps what its ``errstate`` says
        return pool.submit(copy_context().run, function, item)
    except RuntimeError:  # the interpreter is exiting, or the system out of threads: then here
        future: Future[Result] = Future()
        try:
            future.set_result(function(item))
        except Exception as error:  # noqa: BLE001 # raised when its turn comes
            future.set_exception(error)
        return future
