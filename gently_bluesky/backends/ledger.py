"""What a sink was given and what became of it: writes under way, times of events, what is published."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress

from gently_bluesky.backends.base import Pending
from gently_bluesky.errors import InputError

__all__ = ["Ledger"]


class Ledger:
    """The books of one sink. Used by the sink's thread.

    Attributes
    ----------
    name
        Of the asset, for messages.
    count
        Events that are published.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.count: int = 0
        self._times: array[float] = array("d")
        self._gaps: set[int] = set()
        """Indexes below those that were written, and not written."""
        self._unpublished: dict[int, Pending] = {}

    def enter(self, index: int, pending: Pending, time: float) -> None:
        """Note a write that has begun."""
        self._gaps.update(range(len(self._times), index))
        self._times.extend([0.0] * (index + 1 - len(self._times)))
        self._times[index] = time
        self._gaps.discard(index)
        self._unpublished[index] = pending

    def settle(self, index: int) -> None:
        """Wait until an earlier write to this index has ended, so that the later one stands."""
        if index in self._unpublished:
            # How it ended is told to whoever holds its Pending.
            with suppress(OSError):
                self._unpublished.pop(index).result()

    def settle_all(self) -> Sequence[int]:
        """Wait until all writes have ended; return the indexes that were written and not published since."""
        indexes = sorted(self._unpublished)
        for index in indexes:
            self.settle(index)
        return indexes

    def check(self, count: int) -> Sequence[int]:
        """Return the indexes below ``count`` that were written since they were published, all of them stored.

        Raises
        ------
        InputError
            ``count`` events were never written, or fewer than are published already.
        OSError
            One of them is not stored.
        """
        missing = [index for index in range(self.count, count) if not self.was_written(index)]
        if count < self.count or missing:
            raise InputError(
                f"{self.name}: {count} events cannot be published: {self.count} are, and {missing[:5]} were "
                "never written; readers see what they saw before"
            )
        stored = sorted(index for index in self._unpublished if index < count)
        for index in stored:
            self._unpublished[index].result()
        return stored

    def published(self, indexes: Sequence[int], count: int) -> None:
        """Note what readers see now."""
        self.count = count
        for index in indexes:
            del self._unpublished[index]

    def was_written(self, index: int) -> bool:
        """Say whether a write to this index ever began."""
        return index < len(self._times) and index not in self._gaps

    def event_times(self) -> list[float]:
        """Return the times of the published events, seconds since the epoch."""
        return self._times[: self.count].tolist()
