"""The one text under which a value of a start document is kept and looked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gently_bluesky.errors import InvalidSetting

__all__ = ["canonical", "conditions", "leaves"]

LONGEST = 200
"""Characters of a key or value in the index; longer ones are cut, and a digest of the whole stands behind."""

MOST_MEMBERS = 1000
"""Members of a list that can be looked for one by one."""

MAPPING = "{}"
"""What stands for a mapping, whatever it holds; its leaves stand under keys of their own."""


def leaves(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return every leaf of a document as ``(dotted key, canonical text)``.

    A list stands under its key as a whole and with each of its first members, a mapping with its leaves.
    """
    found: set[tuple[str, str]] = set()
    todo: list[tuple[str, Any]] = [(str(key), value) for key, value in document.items()]
    while todo:
        key, value = todo.pop()
        if isinstance(value, Mapping):
            found.add((bounded(key), MAPPING))
            todo += ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            found.add((bounded(key), canonical(value)))
            if isinstance(value, Sequence) and not isinstance(value, str):
                todo += ((key, inner) for inner in value[:MOST_MEMBERS])
    return found


def canonical(value: object) -> str:
    """Return the same text for values that are equal in JSON: ``3`` and ``3.0``, but not ``1`` and ``true``.

    Raises
    ------
    InvalidSetting
        When the value cannot stand in a JSON document.
    """
    try:
        return bounded(json.dumps(_plain(value), sort_keys=True, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSetting(
            f"expected a value that can stand in a start document, got {value!r} ({error}); "
            "nothing was looked for"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value


def bounded(text: str) -> str:
    """Return the text, cut and with a digest where it is too long to stand in an index of the database."""
    if len(text) <= LONGEST:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{text[: LONGEST // 2]}...{digest}"


def conditions(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the leaves that a start document must have to answer ``key=value``."""
    if not isinstance(value, Mapping):
        yield bounded(key), canonical(value)
        return
    todo: list[tuple[str, Any]] = [(key, value)]
    while todo:
        name, inner = todo.pop()
        if isinstance(inner, Mapping):
            yield bounded(name), MAPPING
            todo += ((f"{name}.{part}", deeper) for part, deeper in inner.items())
        else:
            yield bounded(name), canonical(inner)
