"""What the lines of a run's journal say of its assets: which events each holds, and what their pixels are.

It reads no files, and believes what it is given: a line that cannot be understood raises, and is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gently_bluesky.index.rows import point_number
from gently_bluesky.model import JournalLine

__all__ = ["Announced", "AnnouncedAssets", "announced_assets"]

MOST_EVENTS = 10_000_000
"""Of one stream_datum; one that claims more is not believed."""


@dataclass(slots=True)
class Announced:
    """One asset, as its run announces it. Takes some 250 bytes for each event.

    Attributes
    ----------
    name, doc
        Its resource or stream_resource document.
    stream, data_key
        Where it belongs; empty while no event has named it.
    digests
        Of the pixels, by the event's place along ``t``; None where the journal has none.
    times
        Of the events whose documents name one, by place: seconds since the epoch.
    others
        Uids of datums, by place, where they are not ``<asset>/<place>``.
    numberless
        How many datums do not say which event they are.
    """

    name: str
    doc: Mapping[str, Any]
    stream: str = ""
    data_key: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the descriptor says of its data key."""
    digests: dict[int, str | None] = field(default_factory=dict[int, "str | None"])
    times: dict[int, float] = field(default_factory=dict[int, float])
    others: dict[int, str] = field(default_factory=dict[int, str])
    numberless: int = 0

    @property
    def uid(self) -> str:
        """Of the resource or stream_resource document."""
        return self.doc["uid"]

    @property
    def count(self) -> int:
        """One more than the highest place of an announced event."""
        return max(self.digests, default=-1) + 1

    def datum_uid(self, place: int) -> str:
        """Return the uid of the datum, or stream_datum, that announced an event."""
        return self.others.get(place, f"{self.uid}/{place}")

    def add(self, place: int, datum_uid: str) -> None:
        """Note that an event was announced."""
        self.digests.setdefault(place)
        if datum_uid != f"{self.uid}/{place}":
            self.others[place] = datum_uid


class AnnouncedAssets:
    """Takes the lines of one run, in order.

    Attributes
    ----------
    by_uid
        The assets, in the order in which they were announced.
    """

    def __init__(self) -> None:
        self.by_uid: dict[str, Announced] = {}
        self._descriptors: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._datums: dict[str, tuple[Announced, int]] = {}
        """Those that no event has named yet."""
        self._ranges: dict[tuple[str, str], tuple[Announced, int, range]] = {}
        """The last stream_datum by descriptor and data key: the asset, its first place, and its ``seq_nums``."""

    def take(self, line: JournalLine) -> None:
        """Take a line; raises KeyError, TypeError, ValueError or AttributeError over one that says nothing."""
        doc: Any = line.doc
        if line.name == "descriptor":
            self._descriptors[doc["uid"]] = doc.get("name", "primary"), doc["data_keys"]
        elif line.name in {"resource", "stream_resource"}:
            self.by_uid[doc["uid"]] = Announced(line.name, doc, data_key=doc.get("data_key", ""))
        elif line.name == "datum" and doc["resource"] in self.by_uid:
            self._datum(doc)
        elif line.name == "stream_datum" and doc["stream_resource"] in self.by_uid:
            self._stream_datum(doc)
        elif line.name == "event":
            self._event(doc, line.digest or {})

    def _datum(self, doc: Mapping[str, Any]) -> None:
        asset, place = self.by_uid[doc["resource"]], point_number(doc["datum_kwargs"])
        if place is None:
            asset.numberless += 1
            return
        asset.add(place, doc["datum_id"])
        self._datums[doc["datum_id"]] = asset, place

    def _stream_datum(self, doc: Mapping[str, Any]) -> None:
        asset, indices, seq_nums = self.by_uid[doc["stream_resource"]], doc["indices"], doc["seq_nums"]
        if indices["stop"] - indices["start"] > MOST_EVENTS:
            raise ValueError(f"it claims indices {indices!r:.100}")
        for place in range(indices["start"], indices["stop"]):
            asset.add(place, doc["uid"])
        self._learn(asset, doc["descriptor"], asset.data_key)
        told = range(seq_nums["start"], seq_nums["stop"])
        self._ranges[doc["descriptor"], asset.data_key] = asset, indices["start"], told

    def _event(self, doc: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        named = (
            {key: value for key, value in doc["data"].items() if isinstance(value, str)}
            if self._datums
            else {}
        )
        for key, value in named.items():
            found = self._datums.pop(value, None)
            if found is not None:
                self._name(*found, doc, key, digests.get(key))
        for key in digests.keys() - named.keys():
            asset, first, told = self._ranges.get((doc["descriptor"], key), (None, 0, range(0)))
            if asset is not None and doc["seq_num"] in told:
                self._name(asset, first + doc["seq_num"] - told.start, doc, key, digests[key])

    def _name(
        self, asset: Announced, place: int, event: Mapping[str, Any], key: str, digest: str | None
    ) -> None:
        self._learn(asset, event["descriptor"], key)
        asset.digests[place], asset.times[place] = digest, event["time"]

    def _learn(self, asset: Announced, descriptor: str, key: str) -> None:
        if not asset.stream:
            asset.stream, data_keys = self._descriptors[descriptor]
            asset.data_key, asset.declared = key, data_keys.get(key, {})


def announced_assets(lines: Iterable[JournalLine]) -> dict[str, Announced]:
    """Return what the lines of one run say of its assets, by their uids; raises as `AnnouncedAssets.take`."""
    found = AnnouncedAssets()
    for line in lines:
        found.take(line)
    return found.by_uid
