"""The stored arrays of a run: the announced events of an asset or a data key, and those that will be.

Opening one costs the same for any number of events: the index keeps sums. Only where a rewind repeated events,
or the assets are not ours, are they looked up one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from gently_bluesky.documents.assets import declared_dtype
from gently_bluesky.documents.handlers import asset_array
from gently_bluesky.elsewhere import Places
from gently_bluesky.errors import (
    AmbiguousArray,
    GentlyError,
    NotYetStored,
    RunEnded,
)
from gently_bluesky.growing import Feed, Growth
from gently_bluesky.index.index import Extent, Index, Point
from gently_bluesky.lazy import LazyArray, growing
from gently_bluesky.model import Record
from gently_bluesky.opened import open_datum, open_joined, open_points, open_rows
from gently_bluesky.sources import no_events
from gently_bluesky.watching import Look, RunWatch, load_backends

__all__ = ["KeyEvents", "asset_events", "datum_array", "key_events", "wait_for_events"]


class StoredEvents(ABC):
    """Which events an array is made of, and how the index is asked for them."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def extents(self, index: Index) -> list[Extent]:
        """Return what there is, summed up."""

    @abstractmethod
    def points(self, index: Index, after: int = -1) -> list[Point]:
        """Return what was announced behind a line of the journal."""

    @abstractmethod
    def is_plain(self, extent: Extent) -> bool:
        """Say whether the array is the asset's events from the first to the last, if that is all there is."""

    @abstractmethod
    def shown(self, points: Sequence[Point]) -> list[Point]:
        """Return those that the array shows, in its order."""


@dataclass(frozen=True, slots=True)
class KeyEvents(StoredEvents):
    """The last event of each ``seq_num`` of a data key."""

    run_uid: str
    stream: str
    data_key: str

    def __str__(self) -> str:
        return f"run {self.run_uid[:8]}/{self.stream}/{self.data_key}"

    def extents(self, index: Index) -> list[Extent]:
        """Ask for the data key."""
        return index.extents(self.run_uid, self.stream, self.data_key)

    def points(self, index: Index, after: int = -1) -> list[Point]:
        """Ask for the data key."""
        return index.points(self.run_uid, self.stream, self.data_key, after=after)

    def is_plain(self, extent: Extent) -> bool:
        """No event was repeated."""
        return extent.in_place and extent.in_turn

    def shown(self, points: Sequence[Point]) -> list[Point]:
        """Leave out what a rewind superseded."""
        last = {point.seq_num: point for point in points}
        return [last[number] for number in sorted(last)]


@dataclass(frozen=True, slots=True)
class AssetEvents(StoredEvents):
    """All announced events of an asset, superseded ones too."""

    asset_uid: str

    def __str__(self) -> str:
        return f"asset {self.asset_uid[:8]}"

    def extents(self, index: Index) -> list[Extent]:
        """Ask for the asset."""
        return index.extents_of_asset(self.asset_uid)

    def points(self, index: Index, after: int = -1) -> list[Point]:
        """Ask for the asset."""
        return index.points_of_asset(self.asset_uid, after=after)

    def is_plain(self, extent: Extent) -> bool:
        """Every event is at its place, repeated or not."""
        return extent.in_place

    def shown(self, points: Sequence[Point]) -> list[Point]:
        """Leave out nothing."""
        return list(points)


def key_events(places: Places, watch: RunWatch, of: KeyEvents) -> LazyArray | None:
    """Return the last event of each ``seq_num`` of a data key; None where they are not declared as stored.

    Where they are, and none is announced so far, the array is one without events, which grows all the same.

    Raises
    ------
    AmbiguousArray
        They are in several assets.
    LookupFailed, AssetMissing, AssetDamaged, InvalidDocument
        As `asset_events`.
    """
    index = watch.index
    found = _array(places, watch, of, index)
    if found is not None:
        return found
    declared = index.data_keys(of.run_uid).get(of.stream, {}).get(of.data_key, {})
    return _none_yet(places, watch, of, declared) if declared.get("external") else None


def asset_events(places: Places, index: Index, record: Record) -> LazyArray:
    """Return all announced events of an asset, ``(t, ...)``, superseded ones too, without reading pixels.

    Raises
    ------
    LookupFailed
        No installed backend reads it.
    AssetMissing, AssetDamaged
        The files are not what the record says.
    InvalidDocument
        Its path leads out of the store.
    """
    watch = RunWatch(places.journals, index, record.run_uid)
    of = AssetEvents(record.uid)
    found = _array(places, watch, of, index)
    return (
        growing(open_points(places, index, record, []), _RunGrowth(places, watch, of))
        if found is None
        else found
    )


def datum_array(places: Places, index: Index, record: Record) -> LazyArray:
    """Return one event's array, by the record of its datum; of a stream_datum for several, ``(t, ...)``.

    Reads no pixels; raises as `asset_events`.
    """
    document = index.datum_document(record.uid)
    asset = index.record(str(document.get("resource") or document.get("stream_resource")))
    return open_datum(places, index, asset, document)


class _RunGrowth(Growth):
    """Knows of the events of a run that come after those of one array."""

    def __init__(
        self, places: Places, watch: RunWatch, of: StoredEvents, position: int = -1, events: int = 0
    ) -> None:
        self._places = places
        self._watch = watch
        self._of = of
        self._position = position
        self._events = events

    def wait(self, events: int, timeout_s: float | None) -> LazyArray:
        """Wait for the run. Raises as `Growth.wait`, and as `asset_events`."""
        return wait_for_events(self._places, self._watch, self._of, events, timeout_s)

    def feed(self) -> Feed:
        """Return what is announced behind the last event of the array, superseded or not."""
        return _RunFeed(self._places, self._watch, self._of, self._position)

    def refusal(self, event: int) -> IndexError | None:
        """Say that it can be waited for, if the run goes on or has brought it meanwhile."""
        try:
            ended = self._watch.ended()
            there = _count(self._of, self._watch.index)
        except GentlyError:
            return None  # the store was closed: the plain error says enough
        if there <= event and ended is not None:
            return None
        return NotYetStored(
            f"{self._of}: event {event} is not in this array, which holds {self._events}; there are {there} "
            f"by now; .wait({event + 1}) waits for it and returns an array that has it"
        )


class _RunFeed(Feed):
    def __init__(self, places: Places, watch: RunWatch, of: StoredEvents, position: int) -> None:
        self._places = places
        self._watch = watch
        self._of = of
        self._position = position
        self._look = Look()
        self._points: list[Point] = []
        self._assets: dict[str, Record] = {}

    def next(self, timeout_s: float | None) -> LazyArray | None:
        if not self._points:
            try:
                self._points = self._watch.until(
                    lambda index: self._of.points(index, self._position) or None,
                    lambda _: f"{self._of} has no new event",
                    timeout_s,
                    self._look,
                )
            except RunEnded:
                return None
        asset = self._points[0].asset_uid
        group = list(takewhile(lambda point: point.asset_uid == asset, self._points))
        if asset not in self._assets:
            self._assets[asset] = self._watch.index.record(asset)
        found = open_points(self._places, self._watch.index, self._assets[asset], group)
        self._points, self._position = self._points[len(group) :], group[-1].position
        return found


def wait_for_events(
    places: Places,
    watch: RunWatch,
    of: StoredEvents,
    events: int,
    timeout_s: float | None,
    check: Callable[[], object] | None = None,
) -> LazyArray:
    """Return the array of these events, as soon as it holds so many.

    ``check`` is called while there are none, to raise what makes waiting vain.

    Raises
    ------
    NotYetStored, RunEnded
        It holds fewer.
    AmbiguousArray, LookupFailed, AssetMissing, AssetDamaged, InvalidDocument
        As `key_events`.
    """

    def ask(index: Index) -> LazyArray | None:
        extents = of.extents(index)
        if not extents and check is not None:
            check()
        if not extents and timeout_s != 0:
            load_backends()
        if _announced(extents) < events:
            return None
        array = _array(places, watch, of, index, extents)
        return None if array is None or len(array) < events else array

    def tell(index: Index) -> str:
        there = _count(of, index)
        return f"{of} holds {there} event{'s' * (there != 1)}, {events} were waited for"

    return watch.until(ask, tell, timeout_s)


def _announced(extents: Sequence[Extent]) -> int:
    return sum(extent.events for extent in extents)


def _count(of: StoredEvents, index: Index) -> int:
    """Return how many events the array would hold now."""
    plain = _plain(of, of.extents(index))
    return len(of.shown(of.points(index))) if plain is None else plain.events


def _plain(of: StoredEvents, extents: Sequence[Extent]) -> Extent | None:
    """Return the sum of all there is, where that is enough to know which events the array shows."""
    return extents[0] if len(extents) == 1 and of.is_plain(extents[0]) else None


def _array(
    places: Places, watch: RunWatch, of: StoredEvents, index: Index, extents: Sequence[Extent] | None = None
) -> LazyArray | None:
    extents = of.extents(index) if extents is None else extents
    if not extents:
        return None
    plain = _plain(of, extents)
    if plain is not None:
        array = open_rows(places, index, index.record(plain.asset_uid), range(plain.events))
        if array is not None:
            return growing(array, _RunGrowth(places, watch, of, plain.last_position, len(array)))
    points = of.points(index)
    shown = of.shown(points)
    assets = list(dict.fromkeys(point.asset_uid for point in shown))
    records = [index.record(asset) for asset in assets]
    array = open_points(places, index, records[0], shown) if len(records) == 1 else None
    if array is None:
        array = open_joined(places, index, records, shown)
    if array is None:
        raise AmbiguousArray(
            f"{of} changed shape, dtype or scale during the run and is kept in {len(assets)} arrays; ask for "
            f"store.array(uid) of each: {', '.join(assets)}"
        )
    return growing(array, _RunGrowth(places, watch, of, points[-1].position, len(array)))


def _none_yet(places: Places, watch: RunWatch, of: KeyEvents, declared: Mapping[str, Any]) -> LazyArray:
    """Return an array without events, made as the descriptor says; steps and units come with the first event."""
    said = declared.get("shape")
    lengths = said if isinstance(said, list) else []
    shape = [length if isinstance(length, int) and length > 0 else 0 for length in lengths]
    dims = declared.get("dims")
    source = no_events(shape, declared_dtype(declared))
    kwargs = {"dims": dims} if isinstance(dims, list) and len(dims) == len(source.shape) - 1 else {}
    return growing(asset_array(source, kwargs, name=of.data_key), _RunGrowth(places, watch, of))
