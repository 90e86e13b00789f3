"""Reads single fields of documents: those of the right type; anything else as nothing or a TypeError."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gently_bluesky.dtypes import known_dtype
from gently_bluesky.jsontext import encode

__all__ = [
    "LARGEST",
    "below_a_root",
    "integer",
    "itemsize",
    "json_text",
    "parents_named",
    "path_of_uri",
    "seconds",
    "sequence",
    "text",
    "text_or_none",
    "whole_asset",
]

LARGEST: Final = 2**63 - 1
"""The largest integer that a database keeps."""
IN_A_STORE = re.compile(r".*/((?:runs|incoming)/\d{4}/\d\d/\d\d/[^/]+/.+)", re.DOTALL)
"""A store's root, and the path below it of what lies in the folder of a run, or of what a device wrote."""

LOCAL_HOSTS = ("", "localhost")
DRIVE = re.compile(r"/[A-Za-z]:")


def json_text(value: object) -> str:
    """Return a value of a document as it is kept."""
    return encode(value).decode()


def integer(value: object) -> int | None:
    """Return an integer that a database can keep, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
        return None
    return value


def seconds(value: object) -> float:
    """Return a time; raise TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"time in seconds, {value!r}")
    return float(value)


def text(value: object) -> str:
    """Return a text; raise TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"text, {value!r}")
    return value


def text_or_none(value: object) -> str | None:
    """Return a text, and None for anything else."""
    return value if isinstance(value, str) else None


def sequence(value: object) -> Sequence[Any]:
    """Return a list, and an empty one for anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def parents_named(lineage: object) -> list[str]:
    """Return the uids that the ``lineage`` of a start document names as parents, as often as it does."""
    named = sequence(lineage.get("parents")) if isinstance(lineage, Mapping) else ()
    return [parent for parent in named if isinstance(parent, str)]


def itemsize(dtype: str | None) -> int:
    """Return the bytes of one item of a ``dtype_numpy``, and 0 where it is none."""
    known = known_dtype(dtype)
    return 0 if known is None else known.itemsize


def path_of_uri(uri: object) -> str | None:
    """Return the path that the URI of a file of this machine names, with slashes; None for any other value."""
    try:
        parts = urlsplit(uri) if isinstance(uri, str) else None
    except ValueError:  # as of half an address in brackets
        parts = None
    if parts is None or parts.scheme != "file" or parts.netloc.lower() not in LOCAL_HOSTS:
        return None
    path = unquote(parts.path).rstrip("/")
    if not path.startswith("/") or "\0" in path:
        return None
    return path[1:] if DRIVE.match(path) else path


def whole_asset(path: str, parameters: object) -> str:
    """Return the path of an asset, by that of the part which the uri of its stream_resource names."""
    part = parameters.get("part") if isinstance(parameters, Mapping) else None
    path = path.rstrip("/")
    return (path.removesuffix(f"/{part}") or path) if isinstance(part, str) and part else path


def below_a_root(path: str) -> str:
    """Return the path below a store's root, wherever that is, of what writers of ours put there; or nothing."""
    found = IN_A_STORE.fullmatch(path)
    return found[1] if found else ""
