"""What a document must be before anything is done with it.

Each error says what was expected and what came.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from event_model import DocumentNames, schema_validators
from jsonschema import ValidationError

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.jsontext import plain

__all__ = ["check_descriptor", "check_event", "check_page", "checked"]

EVENT_KEYS = frozenset({"uid", "descriptor", "time", "seq_num", "data", "timestamps", "filled"})
FOREVER_S = 1e18
COLUMNS = {
    "event_page": (("uid", "time", "seq_num"), ("data", "timestamps", "filled"), "descriptor"),
    "datum_page": (("datum_id",), ("datum_kwargs",), "resource"),
}
"""Of each kind of page: its columns, its tables of columns, and what all of it refers to."""


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
        json.dumps(copy, ensure_ascii=False).encode()
    except ValidationError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        raise InvalidDocument(
            f"expected a valid {name} document, got one in which {where or 'the whole'} is not: "
            f"{error.message[:200]}; it was not stored"
        ) from error
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"expected a {name} document of Unicode text, got half a character in {error.object[:80]!a}; "
            "it was not stored"
        ) from error
    except RecursionError as error:
        raise InvalidDocument(
            f"expected a valid {name} document, got one nested too deep; it was not stored"
        ) from error
    if "time" in copy:
        _require(name, copy, "time", _is_time, "a finite number of seconds")
    for key in ("uid", "run_start", "resource", "descriptor"):
        if key in copy and name != "stream_datum":
            _require(name, copy, key, _is_uid, "a string that is not empty")
    return copy


def check_descriptor(doc: object) -> Mapping[str, Any]:
    """Refuse a descriptor that cannot be used.

    What devices get wrong and its first event puts right is let pass.
    """
    doc = _mapping("descriptor", doc)
    for key in ("uid", "run_start"):
        _require("descriptor", doc, key, _is_uid, "a string that is not empty")
    _require("descriptor", doc, "time", _is_time, "a finite number of seconds")
    _require("descriptor", doc, "data_keys", _is_data_keys, "a mapping of names to data keys")
    return doc


def check_event(doc: object) -> Mapping[str, Any]:
    """Refuse an event that is not one, as far as that can be said without its descriptor."""
    if type(doc) is dict and _is_common_event(doc):
        return doc
    doc = _mapping("event", doc)
    for key in ("uid", "descriptor"):
        _require("event", doc, key, _is_uid, "a string that is not empty")
    _require("event", doc, "time", _is_time, "a finite number of seconds")
    _require("event", doc, "seq_num", _is_count, "a whole number, 0 or more")
    _require("event", doc, "data", _is_mapping, "a mapping")
    _require("event", doc, "timestamps", _is_mapping, "a mapping")
    _require(
        "event",
        {"filled": doc.get("filled", {})},
        "filled",
        _is_filled,
        "a mapping to True, False or a datum_id",
    )
    if doc.keys() - EVENT_KEYS or not all(isinstance(key, str) for key in doc["data"]):
        raise InvalidDocument(
            f"event {doc['uid']!r}: expected the keys {sorted(EVENT_KEYS)}, and data by name, got "
            f"{list(doc)} and data of {list(doc['data'])}; it was not stored"
        )
    if doc["timestamps"].keys() != doc["data"].keys():
        raise InvalidDocument(
            f"event {doc['uid']!r}: expected timestamps for {list(doc['data'])}, got "
            f"{list(doc['timestamps'])}; it was not stored"
        )
    return doc


def _is_common_event(doc: Mapping[str, Any]) -> bool:
    """Say whether an event is made as nearly every one is: a question that costs little."""
    uid, descriptor, time, seq_num = map(doc.get, ("uid", "descriptor", "time", "seq_num"))
    data: Any = doc.get("data")
    timestamps: Any = doc.get("timestamps")
    filled: Any = doc.get("filled", {})
    return (
        type(uid) is type(descriptor) is str
        and uid != "" != descriptor
        and type(time) is float
        and -FOREVER_S <= time < FOREVER_S
        and type(seq_num) is int
        and 0 <= seq_num < FOREVER_S
        and type(data) is type(timestamps) is dict
        and data.keys() == timestamps.keys()
        and set(map(type, data)) <= {str}
        and type(filled) is dict
        and not filled
        and doc.keys() <= EVENT_KEYS
    )


def check_page(name: str, page: Mapping[str, Any]) -> None:
    """Refuse a page that cannot be taken apart into documents without losing anything."""
    columns, tables, reference = COLUMNS[name]
    required = {*columns, *tables, reference} - {"filled"}
    if not required <= page.keys() <= required | {"filled"} or not _is_uid(page[reference]):
        raise InvalidDocument(
            f"expected an {name} with the keys {sorted(required)}, got {list(page)}; nothing of it was stored"
        )
    all_columns: dict[str, Any] = {key: page[key] for key in columns}
    for table in tables:
        _require(name, {table: page.get(table, {})}, table, _is_mapping, "a mapping of names to columns")
        all_columns.update({f"{table}/{key}": column for key, column in page.get(table, {}).items()})
    lengths = {key: _length(column) for key, column in all_columns.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise InvalidDocument(
            f"{name} of {page[reference]!r}: expected columns of one length, got {lengths}; nothing of it "
            "was stored"
        )


def _length(column: object) -> int | None:
    if isinstance(column, list | tuple):
        return len(column)
    return len(column) if isinstance(column, np.ndarray) and column.ndim else None


def _mapping(name: str, doc: object) -> Mapping[str, Any]:
    if not isinstance(doc, Mapping):
        raise InvalidDocument(f"expected a {name} document, got {type(doc).__name__}; it was not stored")
    return doc


def _require(
    name: str, doc: Mapping[str, Any], key: str, fits: Callable[[object], bool], wanted: str
) -> None:
    if key not in doc:
        raise InvalidDocument(
            f"expected a {name} document with {key!r}, got the keys {list(doc)}; it was not stored"
        )
    if not fits(doc[key]):
        raise InvalidDocument(
            f"{name} document: expected {wanted} as {key!r}, got {doc[key]!r:.200}; it was not stored"
        )


def _is_uid(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and _is_between(
        value, -FOREVER_S, FOREVER_S
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and _is_between(value, 0, FOREVER_S)


def _is_between(value: Any, least: float, most: float) -> bool:
    return not isinstance(value, bool) and bool(least <= value < most)


def _is_filled(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(said, bool | str) for key, said in value.items()
    )


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_data_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(declared, Mapping) for key, declared in value.items()
    )
