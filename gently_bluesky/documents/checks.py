"""What a document must be before anything is done with it. Each error says what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from event_model import DocumentNames, schema_validators
from jsonschema import ValidationError

from gently_bluesky.documents.journal import plain
from gently_bluesky.errors import InvalidDocument

__all__ = ["check_descriptor", "check_event", "checked"]


def checked(name: str, doc: object) -> dict[str, Any]:
    """Return a deep copy of a document in JSON's types that event-model's schema for it accepts.

    Raises
    ------
    InvalidDocument
        The schema does not accept it, or it holds what JSON cannot.
    """
    copy = plain(_mapping(name, doc))
    try:
        schema_validators[DocumentNames[name]].validate(copy)
    except ValidationError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        raise InvalidDocument(
            f"expected a valid {name} document, got one in which {where or 'the whole'} is not: {error.message[:200]}; "
            "it was not stored"
        ) from error
    if "time" in copy:
        _require(name, copy, "time", _is_time, "a finite number of seconds")
    for key in ("uid", "run_start", "resource", "descriptor"):
        if key in copy and name != "stream_datum":
            _require(name, copy, key, _is_uid, "a string that is not empty")
    return copy


def check_descriptor(doc: object) -> Mapping[str, Any]:
    """Refuse a descriptor that cannot be used. What devices get wrong and its first event puts right is let pass."""
    doc = _mapping("descriptor", doc)
    for key in ("uid", "run_start"):
        _require("descriptor", doc, key, _is_uid, "a string that is not empty")
    _require("descriptor", doc, "time", _is_time, "a finite number of seconds")
    _require("descriptor", doc, "data_keys", _is_data_keys, "a mapping of names to data keys")
    return doc


def check_event(doc: object) -> Mapping[str, Any]:
    """Refuse an event that is not one, as far as that can be said without its descriptor."""
    doc = _mapping("event", doc)
    for key in ("uid", "descriptor"):
        _require("event", doc, key, _is_uid, "a string that is not empty")
    _require("event", doc, "time", _is_time, "a finite number of seconds")
    _require("event", doc, "seq_num", _is_count, "a whole number, 0 or more")
    _require("event", doc, "data", _is_mapping, "a mapping")
    _require("event", doc, "timestamps", _is_mapping, "a mapping")
    if doc["timestamps"].keys() != doc["data"].keys():
        raise InvalidDocument(
            f"event {doc['uid']!r}: expected timestamps for {sorted(doc['data'])}, got {sorted(doc['timestamps'])}; "
            "it was not stored"
        )
    return doc


def _mapping(name: str, doc: object) -> Mapping[str, Any]:
    if not isinstance(doc, Mapping):
        raise InvalidDocument(f"expected a {name} document, got {type(doc).__name__}; it was not stored")
    return doc


def _require(name: str, doc: Mapping[str, Any], key: str, fits: Callable[[object], bool], wanted: str) -> None:
    if key not in doc:
        raise InvalidDocument(f"expected a {name} document with {key!r}, got the keys {sorted(doc)}; it was not stored")
    if not fits(doc[key]):
        raise InvalidDocument(f"{name} document: expected {wanted} as {key!r}, got {doc[key]!r:.200}; it was not stored")


def _is_uid(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_data_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(declared, Mapping) for key, declared in value.items()
    )
