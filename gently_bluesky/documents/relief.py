"""Room made while runs are written: asked for by those who see the disk fill up, and done on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gently_bluesky.errors import GentlyError

__all__ = ["Relief"]

BETWEEN_S = 60.0
"""It is not asked for anew so soon."""


class Relief:
    """Makes room in a store, if it has a policy by which that may be done. One for a store; any thread.

    Parameters
    ----------
    make_room
        Does it, and says what was done, or nothing if there is nothing by which to do it.
    """

    def __init__(self, make_room: Callable[[], str]) -> None:
        self._make_room = make_room
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again_s = 0.0
        self._told: list[str] = []
        self._closed = False

    def ask(self) -> None:
        """Have it begin, unless it is under way, or was done just now."""
        with self._lock:
            is_under_way = self._thread is not None and self._thread.is_alive()
            if self._closed or is_under_way or time.monotonic() < self._again_s:
                return
            self._thread = threading.Thread(target=self._relieve, name="gently-bluesky-relief", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until it is done, if it is under way, or for so long."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    @property
    def told(self) -> list[str]:
        """What was done, a sentence for each time."""
        return [*self._told]

    def close(self) -> None:
        """Wait until it is done, and begin no more. Idempotent."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.join()

    def _relieve(self) -> None:
        try:
            done = self._make_room()
        except GentlyError as error:  # told like what was done: the run goes on as long as there is room
            done = f"by its policy no room could be made: {error}"
        except Exception as error:  # noqa: BLE001 # as above, of whatever kind
            done = f"by its policy no room could be made: {error!r}"
        if done:
            self._told.append(done)
        self._again_s = time.monotonic() + BETWEEN_S
