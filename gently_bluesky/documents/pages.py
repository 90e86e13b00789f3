"""Pages and bulk documents, taken apart into the events and datums that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from event_model import unpack_datum_page, unpack_event_page

from gently_bluesky.documents.checks import check_page
from gently_bluesky.errors import InvalidDocument

__all__ = ["REFERENCES", "documents_in", "events_in_bulk"]

REFERENCES = {"event_page": "descriptor", "datum_page": "resource", "bulk_datum": "resource"}
"""What all of a page refers to, by the page's name."""


def documents_in(name: str, page: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return what the documents in a page are called, and the documents.

    Raises
    ------
    InvalidDocument
        It cannot be taken apart without losing anything.
    """
    if name == "bulk_datum":
        return "datum", _datums_in_bulk(page)
    check_page(name, page)
    if name == "event_page":
        return "event", [dict(event) for event in unpack_event_page(dict(page))]  # pyright: ignore[reportArgumentType] # a page, as checked
    return "datum", [dict(datum) for datum in unpack_datum_page(dict(page))]  # pyright: ignore[reportArgumentType] # as above


def events_in_bulk(bulk: Mapping[str, Any]) -> list[Any]:
    """Return the events in a bulk, of whatever descriptors. Raises InvalidDocument."""
    if not all(isinstance(events, list | tuple) for events in bulk.values()):
        raise InvalidDocument("bulk_events: expected lists of events by descriptor; nothing was stored")
    return [event for events in bulk.values() for event in events]


def _datums_in_bulk(bulk: Mapping[str, Any]) -> list[dict[str, Any]]:
    ids, kwargs = bulk.get("datum_ids"), bulk.get("datum_kwarg_list")
    if not isinstance(ids, list | tuple) or not isinstance(kwargs, list | tuple) or len(ids) != len(kwargs):
        raise InvalidDocument(
            "bulk_datum: expected datum_ids and datum_kwarg_list of one length; nothing of it was stored"
        )
    return [
        {"datum_id": uid, "resource": bulk["resource"], "datum_kwargs": said}
        for uid, said in zip(ids, kwargs, strict=True)
    ]
