"""What the documents of one run may refer to: what came before them, and ranges one behind the other."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from gently_bluesky.documents.ended import REMEMBERED_RESOURCES
from gently_bluesky.errors import InvalidDocument, UnknownReference

__all__ = ["References"]

NAMED = frozenset({"descriptor", "resource", "datum", "stream_resource"})
"""Documents that others refer to."""


class References:
    """Knows what has come in a run. The entry lock of the writer is held around every call."""

    def __init__(self, run_uid: str) -> None:
        self._run = run_uid[:8]
        self._kinds: dict[str, str] = {}
        self._stops: dict[str, int] = {}
        self._stand_ins: dict[str, str] = {}
        self.resources: dict[str, dict[str, Any]] = {}

    def note(self, name: str, uid: str) -> None:
        """Note that a document came."""
        if name in NAMED:
            self._kinds[uid] = name

    def keep(self, resource: dict[str, Any]) -> None:
        """Keep a resource document, which datums may go on to name after this run; the oldest ones are forgotten."""
        self.resources[resource["uid"]] = resource
        if len(self.resources) > REMEMBERED_RESOURCES:
            del self.resources[next(iter(self.resources))]

    def stand_in_for(self, resource: dict[str, Any]) -> str:
        """Return a uid under which this run announces a resource that another run announced first."""
        self.keep(resource)
        return self._stand_ins.setdefault(resource["uid"], str(uuid.uuid4()))

    def here(self, resource: str) -> str:
        """Return the uid under which this run knows a resource."""
        return self._stand_ins.get(resource, resource)

    def require(self, name: str, uid: str, reference: str, named: str) -> None:
        """Refuse a document that names another one which has not come. Raises UnknownReference."""
        if self._kinds.get(named) != reference:
            raise UnknownReference(
                f"run {self._run}: {name} {uid} names {named!r} as its {reference}, which has "
                f"not come; the {name} was not stored; a {reference} must come before what refers to it"
            )

    def require_datums(self, event: Mapping[str, Any], descriptor: Mapping[str, Any]) -> None:
        """Refuse an event that names a datum which has not come. Raises UnknownReference."""
        filled = event.get("filled", {})
        for key, declared in descriptor["data_keys"].items():
            value = event["data"].get(key)
            if declared.get("external") and isinstance(value, str) and filled.get(key, False) is False:
                self.require("event", event["uid"], "datum", value)

    def extend(self, datum: Mapping[str, Any]) -> None:
        """Take the range of a stream_datum.

        Raises
        ------
        InvalidDocument
            It does not begin where the one before it, of the same stream_resource, ended; or it is for another
            number of events.
        """
        indices, seq_nums, resource = datum["indices"], datum["seq_nums"], datum["stream_resource"]
        start, stop = indices["start"], indices["stop"]
        expected = self._stops.get(resource, 0)
        if start != expected or stop < start:
            fault = "leaves a gap" if start > expected else "overlaps what came before"
            raise InvalidDocument(
                f"run {self._run}: stream_datum {datum['uid']} is for indices {start} to {stop} of {resource}, "
                f"expected from {expected} on: it {fault if stop >= start else 'ends before it begins'}; it was not "
                "stored; ranges must follow each other"
            )
        if seq_nums["stop"] - seq_nums["start"] != stop - start:
            raise InvalidDocument(
                f"run {self._run}: stream_datum {datum['uid']} is for indices {start} to {stop}, and for seq_nums "
                f"{seq_nums['start']} to {seq_nums['stop']}, expected as many of these; it was not stored"
            )
        self._stops[resource] = stop
