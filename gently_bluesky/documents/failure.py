"""The first failure of a run: kept, told, and raised again, always the same object. It decides on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["FirstFailure"]


class FirstFailure:
    """The first failure of a run, kept for everybody who asks. Any thread.

    Parameters
    ----------
    on_failure
        Called with it at once, on a thread of its own: it may well wait for the RunEngine, whose thread may
        be the one that failed, or may be waiting for storage. What it raises becomes a note on the failure. Where no
        thread can be started it is called on the one that met the failure.
    wake
        Called when it is set, for those who wait for what will not come any more.
    """

    def __init__(self, on_failure: Callable[[Exception], object] | None, wake: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self._on_failure = on_failure
        self._wake = wake
        self._lock = threading.Lock()

    def set(self, error: Exception) -> bool:
        """Keep ``error`` if it is the first, and have ``on_failure`` called; say whether it was."""
        with self._lock:
            if self.error is not None:
                return False
            self.error = error
        self._wake()
        self.tell(error)
        return True

    def tell(self, error: Exception) -> None:
        """Have ``on_failure`` called: with the first failure, or with a RunGoesOn, which is none."""
        if self._on_failure is None:
            return
        arguments = self._on_failure, error
        thread = threading.Thread(
            target=_tell_of, args=arguments, name="gently-bluesky-on-failure", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # there are too many, or the interpreter is exiting
            _tell_of(*arguments)

    def raise_if_set(self) -> None:
        """Raise the first failure, always the same object."""
        if self.error is not None:
            raise self.error


def _tell_of(on_failure: Callable[[Exception], object], error: Exception) -> None:
    try:
        on_failure(error)
    except Exception as raised:  # noqa: BLE001 # goes with the failure, which is raised for everybody to see
        error.add_note(f"on_failure raised {raised!r}")
