"""What a device hands the RunEngine: documents that name stored events, each once, whatever is interrupted.

A plan that is paused between reading a device and saving the event drops the documents that it had collected. A
document that a run has taken bears that run's marks: the RunEngine writes them into the very dictionary it got.
After a pause, and only then, these are looked for; what no run has taken is handed out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

from gently_bluesky.devices.recording import Written
from gently_bluesky.documents.announcing import Asset

__all__ = ["DatumHandover", "StreamHandover", "count_stored", "datum_ids", "is_stored", "pop_stored"]

Named = tuple[str, dict[str, Any]]


class DatumHandover:
    """Hands out resource and datum documents. Used by one thread at a time."""

    def __init__(self) -> None:
        self._resources: dict[Asset, dict[str, Any]] = {}

    def documents(self, events: Sequence[Written]) -> Iterator[Named]:
        """Yield what announces stored events."""
        for event in events:
            for asset, index in event.places.values():
                if asset not in self._resources:
                    name, self._resources[asset] = asset.introduction()
                    yield name, self._resources[asset]
                yield asset.datum(index)

    def forget_dropped(self) -> None:
        """Have resources that no run has taken handed out again."""
        self._resources = {asset: doc for asset, doc in self._resources.items() if "run_start" in doc}


class StreamHandover:
    """Hands out stream_resource and stream_datum documents: ranges one behind the other. One thread at a time."""

    def __init__(self) -> None:
        self._resources: dict[Asset, dict[str, Any]] = {}
        self._last: tuple[Sequence[Written], list[dict[str, Any]]] = (), []
        """Events that were handed out together, and the stream_datums that announce them."""

    def documents(self, events: Sequence[Written]) -> Iterator[Named]:
        """Yield what announces stored events, as few ranges as there can be."""
        ranges: list[dict[str, Any]] = []
        for _, made_alike in groupby(events, key=_assets_of):
            alike = list(made_alike)
            for asset, first in alike[0].places.values():
                if asset not in self._resources:
                    name, self._resources[asset] = asset.introduction()
                    yield name, self._resources[asset]
                named = asset.stream_datum((first, first + len(alike)))
                ranges.append(named[1])
                yield named
        if events:
            self._last = events, ranges

    def dropped(self) -> Sequence[Written]:
        """Return the last events that were handed out if no run has taken them, and forget about them."""
        self._resources = {asset: doc for asset, doc in self._resources.items() if "run_start" in doc}
        (events, ranges), self._last = self._last, ((), [])
        return () if all(datum["descriptor"] for datum in ranges) else events


def is_stored(event: Written) -> bool:
    """Say whether an event is *synced*."""
    return event.stored.done() and event.stored.exception() is None


def count_stored(events: Sequence[Written]) -> int:
    """Return how many events are *synced*, up to the first that is not."""
    return sum(1 for _ in takewhile(is_stored, events))


def pop_stored(events: list[Written], most: int | None = None) -> list[Written]:
    """Take the events that are *synced* out of a list, up to the first that is not, and so many at most."""
    there = count_stored(events)
    taken = events[: there if most is None else max(0, min(there, most))]
    del events[: len(taken)]
    return taken


def datum_ids(event: Written) -> dict[str, str]:
    """Return the datum ids of a stored event, by data key."""
    return {key: asset.datum_id(index) for key, (asset, index) in event.places.items()}


def _assets_of(event: Written) -> Mapping[str, Asset]:
    return {key: asset for key, (asset, _) in event.places.items()}
