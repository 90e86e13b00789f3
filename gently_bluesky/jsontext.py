"""JSON that loses nothing a document may hold.

Numbers and NaN come back as they went in: what strict JSON cannot hold is written as Python's own json module
writes it (``NaN``, ``Infinity``, integers of any length), which it also reads.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import orjson

from gently_bluesky.errors import InvalidDocument

__all__ = ["PLAIN_TYPES", "decode", "digest_of", "encode", "plain"]

FAST = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

PLAIN_TYPES = frozenset({float, int, str, bool, type(None)})
"""What is its own copy, and JSON's own."""

AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
LONG_INTEGER = b"0" * 19
"""orjson reads integers beyond 64 bits as floats; those have 19 digits or more."""


def encode(value: object) -> bytes:
    """Return ``value`` as one line of JSON, without the newline; numpy scalars and arrays become numbers and lists.

    Raises
    ------
    InvalidDocument
        Something in it is not of JSON's types.
    """
    try:
        line = orjson.dumps(value, default=_unknown, option=FAST)
        if b"null" not in line:
            return line
    except (TypeError, orjson.JSONEncodeError):
        pass
    try:
        # orjson writes NaN as null and refuses integers beyond 64 bits: Python's own encoder keeps both
        return json.dumps(value, default=_unknown, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDocument(
            f"expected a document of JSON types (and numpy numbers), got one that cannot be written: {error}; "
            "it was not stored"
        ) from error


def _unknown(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufUS":
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def decode(line: bytes | str) -> Any:
    """Undo `encode`; raises ValueError on anything that is not JSON."""
    if isinstance(line, str):
        line = line.encode()
    if LONG_INTEGER in line.translate(AS_ZEROS):
        return json.loads(line)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def plain(value: Any) -> Any:
    """Return a deep copy of ``value`` in JSON's own types, cheap for the numbers and strings that most values are."""
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, np.generic):
        return value.item()
    return decode(encode(value))


def digest_of(value: Any) -> bytes:
    """Return a short digest of what a JSON value says: equal for equal values, NaN equal to NaN."""
    try:
        canonical = orjson.dumps(value, default=_unknown, option=FAST | orjson.OPT_SORT_KEYS)
        is_whole = b"null" not in canonical  # as in `encode`
    except (TypeError, orjson.JSONEncodeError):
        canonical, is_whole = b"", False
    if not is_whole:
        canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode("ascii")
    return hashlib.blake2b(canonical, digest_size=16).digest()
