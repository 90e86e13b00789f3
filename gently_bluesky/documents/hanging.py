"""Noticing what hangs: work is on its way, and for longer than there is patience for none of it has moved.

A call to a disk that hangs neither ends nor fails, and whoever works with it may be asleep, or waiting for
something that only its end would bring. So that somebody looks on a thread of its own, which sleeps for as
long as nothing can hang yet, and is woken by nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Doubt", "Watch"]

SECOND_LOOK = 20
"""What seems to hang is looked at again after one part in so many of the patience: a process that was stopped, or
a machine that slept, finds its disk well."""


class Doubt:
    """What seems to hang, until it is looked at again; for one who waits.

    Parameters
    ----------
    patience_s
        The least there ever is when work begins.
    """

    def __init__(self, patience_s: float) -> None:
        self._pause_s = patience_s / SECOND_LOOK
        self._until_s: float | None = None

    def pause_s(self, left_s: float) -> float:
        """Return for how long to wait before the next look, when there is so much patience left; 0: it hangs."""
        now_s = time.monotonic()
        if left_s > 0:
            self._until_s = None
            return left_s
        if self._until_s is None:
            self._until_s = now_s + self._pause_s
        return max(0.0, self._until_s - now_s)


class Watch:
    """Looks at something until `end`.

    Parameters
    ----------
    left_s
        Returns for how long there is patience yet, None while nothing is on its way.
    tell
        Called when there is none left, and as long as there is none, after each further ``patience_s``.
    patience_s
        The least there ever is when work begins.
    """

    def __init__(
        self, left_s: Callable[[], float | None], tell: Callable[[], object], patience_s: float
    ) -> None:
        self._left_s = left_s
        self._tell = tell
        self._patience_s = patience_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="gently-bluesky-watch", daemon=True)
        with suppress(RuntimeError):  # the interpreter is exiting, and starts no thread any more
            self._thread.start()

    def _look(self) -> None:
        sleep_s = self._patience_s
        seemed_to_hang = False
        while not self._ended.wait(min(sleep_s, threading.TIMEOUT_MAX)):
            left_s = self._left_s()
            hangs = left_s is not None and left_s <= 0
            if hangs and seemed_to_hang:
                self._tell()
            seemed_to_hang, is_told = hangs and not seemed_to_hang, hangs and seemed_to_hang
            if seemed_to_hang:
                sleep_s = self._patience_s / SECOND_LOOK
            elif left_s is None or is_told:
                sleep_s = self._patience_s
            else:
                sleep_s = left_s

    def end(self) -> None:
        """End the thread, and wait until it has ended."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
