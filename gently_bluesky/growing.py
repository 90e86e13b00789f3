"""How an array of a run that goes on learns of the events to come: the contract, and iteration over them.

Who knows of runs keeps the contract (``stored.py``); ``LazyArray`` asks by it.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from gently_bluesky.errors import FixedArray, InputError
from gently_bluesky.indexing import Gather, Index, Step

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["Feed", "Following", "Growth", "Waiting", "keeps_events"]


class Growth(ABC):
    """What the array of a run's events asks about those that it does not hold. Any thread."""

    @abstractmethod
    def wait(self, events: int, timeout_s: float | None) -> LazyArray:
        """Return the array with all events announced by now, as soon as there are so many.

        Raises
        ------
        NotYetStored
            There are fewer, and the run goes on.
        RunEnded
            There are fewer, and the run has ended.
        """

    @abstractmethod
    def feed(self) -> Feed:
        """Return what is announced behind the events that the array holds."""

    @abstractmethod
    def refusal(self, event: int) -> IndexError | None:
        """Return why an event that the array does not hold cannot be had, or None if there is nothing to add."""


class Feed(ABC):
    """What is announced, from some event on. Used by one thread at a time."""

    @abstractmethod
    def next(self, timeout_s: float | None) -> LazyArray | None:
        """Wait for events announced since the last call; return them, ``(t, ...)``, in that order.

        None when the run has ended, and from then on.

        Raises
        ------
        NotYetStored
            There are none yet; call again.
        """


class Waiting(ABC):
    """The half of a lazy array that knows of events to come."""

    _growth: Growth | None = None
    _cuts: tuple[Index, ...] = ()

    @abstractmethod
    def __getitem__(self, key: Index) -> LazyArray: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def wait(self, n: int, timeout_s: float | None = None) -> LazyArray:
        """Wait until ``n`` events are announced; return the array with all that are announced by then.

        This one keeps its shape, as numpy and dask need it. It works on the array of a run's data key or of
        an asset, also cut along the other axes: ``run["view_a"][:, 70].wait(5)``. Any thread but the
        RunEngine's own, which may have to bring the events.

        Parameters
        ----------
        n
            Events along axis 0; those that a rewind repeats count once where this array shows them once.
        timeout_s
            Longest wait; 0 asks once, None waits until the run ends.

        Raises
        ------
        NotYetStored
            There are fewer events, and the run goes on; call again.
        RunEnded
            There are fewer events, and there will be no more: the run is over, or its process died.
        FixedArray
            The array is not that of all events.
        """
        return self._cut(self._growing().wait(operator.index(n), timeout_s))

    def follow(
        self, start: int | None = None, timeout_s: float | None = None, *, latest_only: bool = False
    ) -> Following:
        """Iterate over the events as they are announced, each without the event axis, until the run ends.

        None is skipped, none comes twice. An event that a rewind repeats is announced again, and so comes
        again, with the uid of its new datum; one of another shape, after the device was configured anew,
        comes in that shape. Works where `wait` works; each iterator is for one thread at a time.

        Parameters
        ----------
        start
            First of the events of this array to begin with, counted from the end if negative; None begins
            behind them, with the first new one.
        timeout_s
            Longest wait for each event, as `wait` has it. After ``NotYetStored`` the iterator goes on where
            it was: ask it again.
        latest_only
            Skip to the newest event each time, for displays that are slower than the camera.

        Raises
        ------
        NotYetStored
            While iterating: there is no new event, and the run goes on.
        FixedArray
            The array is not that of all events.
        InputError
            ``start`` is behind the end of this array.
        """
        feed = self._growing().feed()
        first = len(self) if start is None else operator.index(start)
        if first > len(self):
            raise InputError(
                f"expected start to be an event of this array, or where it ends, got {first} for one of "
                f"{len(self)}; nothing was read; wait({first}) first"
            )
        known = self[first:]
        return Following(known, feed, self._cut, timeout_s=timeout_s, latest_only=latest_only)

    def _growing(self) -> Growth:
        if self._growth is None:
            raise FixedArray(
                f"expected the array of all events of a run's data key or asset, which may be cut along its "
                f"other axes; {self!r} is none and stays as it is; ask for run[stream][data_key]"
            )
        return self._growth

    def _cut(self, grown: LazyArray) -> LazyArray:
        """Return what is left of an array of more, or other, events after all that was done to this one."""
        for key in self._cuts:
            grown = grown[key]
        return grown

    def _to_come(self, key: Index) -> IndexError | None:
        """Return the error for an event that may come, if that is what ``key`` asks for."""
        first = key[0] if isinstance(key, tuple) and key else key
        if self._growth is None or not isinstance(first, SupportsIndex):
            return None
        if isinstance(first, bool | np.bool | np.ndarray):
            return None
        event = operator.index(first)
        return self._growth.refusal(event) if event >= len(self) else None


class Following(Iterator["LazyArray"]):
    """Iterates over events as they are announced. After ``NotYetStored`` it goes on where it was."""

    def __init__(
        self,
        known: LazyArray,
        feed: Feed,
        cut: Callable[[LazyArray], LazyArray],
        *,
        timeout_s: float | None,
        latest_only: bool,
    ) -> None:
        self._known = known
        self._feed = feed
        self._cut = cut
        self._timeout_s = timeout_s
        self._latest_only = latest_only
        self._place = 0
        self._skip()

    def __next__(self) -> LazyArray:
        while self._place >= len(self._known):
            fresh = self._feed.next(self._timeout_s)
            if fresh is None:
                raise StopIteration
            self._known, self._place = self._cut(fresh), 0
            self._skip()
        event = self._known[self._place]
        self._place += 1
        return event

    def _skip(self) -> None:
        if self._latest_only:
            self._place = max(0, len(self._known) - 1)


def keeps_events(gather: Gather | None, step: Step) -> bool:
    """Say whether an index takes every event there is or will be, and leaves their axis in front."""
    first = step.picks[0] if step.picks else 0
    whole = isinstance(first, slice) and first == slice(None)
    return whole and step.order[0] == 0 and (gather is None or gather.axis > 0)
