"""Names of folders and files, made from names that people, devices and documents choose.

Whatever those are (``../x``, ``CON``, unicode, very long, differing only in case), a name made here is one plain
path component that every file system takes, and two different names never meet on one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gently_bluesky.errors import InvalidDocument

__all__ = [
    "INCOMING",
    "RUNS",
    "asset_name",
    "day_folder",
    "device_asset_name",
    "escape",
    "folder_of",
    "incoming_folder",
    "run_folder",
    "unescape",
]

RUNS = "runs"
INCOMING = "incoming"
"""Folders of a store: of the runs, and of what devices put into it by themselves."""
LONGEST = 80
PLAIN = re.compile(r"[a-z0-9_]")
ESCAPED = re.compile(r"~([a-z])|=([0-9a-f]{2})|([a-z0-9_])")


def folder_of(place: str) -> str:
    """Return the folder of a place in a store, relative to the store's root as it is."""
    return place.rpartition("/")[0]


def escape(name: str) -> str:
    """Return ``name`` in lower-case letters, digits and ``_ ~ =``, reversibly.

    A capital letter becomes ``~`` and its small one, any other byte of its UTF-8 form ``=`` and two hex digits.

    Examples
    --------
    >>> escape("view_a"), escape("ViewA"), escape("a-b"), escape("../x")
    ('view_a', '~view~a', 'a=2db', '=2e=2e=2fx')
    """
    out: list[str] = []
    for char in name:
        if PLAIN.match(char):
            out.append(char)
        elif "A" <= char <= "Z":
            out.append("~" + char.lower())
        else:
            out.extend(f"={byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
    return "".join(out)


def unescape(escaped: str) -> str:
    """Undo `escape`.

    Examples
    --------
    >>> unescape(escape("Näpfe/CON")) == "Näpfe/CON"
    True
    """
    out = bytearray()
    for capital, byte, plain in ESCAPED.findall(escaped):
        if byte:
            out.append(int(byte, 16))
        else:
            out += (capital.upper() or plain).encode()
    return out.decode("utf-8", "surrogatepass")


def asset_name(stream: str, data_key: str, number: int, suffix: str) -> str:
    """Return the name of a run's ``number``-th asset (1, 2, ...) of a stream and data key.

    A name that would be too long is cut, and a digest of the whole keeps it from meeting another.

    Examples
    --------
    >>> asset_name("primary", "view_a", 1, ".ome.zarr"), asset_name("primary", "view_a", 2, "")
    ('primary-view_a.ome.zarr', 'primary-view_a-2')
    """
    return _numbered(f"{escape(stream)}-{escape(data_key)}", number) + suffix


def device_asset_name(data_key: str, number: int, suffix: str) -> str:
    """Return the name of the ``number``-th asset (1, 2, ...) of a data key that a device writes, like `asset_name`.

    Examples
    --------
    >>> device_asset_name("view_a", 1, ".ome.zarr")
    'view_a.ome.zarr'
    """
    return _numbered(escape(data_key), number) + suffix


def _numbered(stem: str, number: int) -> str:
    if len(stem) > LONGEST:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:16]
        stem = f"{stem[:LONGEST]}-x{digest}"
    return f"{stem}-{number}" if number > 1 else stem


def day_folder(time_s: float, top: str = RUNS) -> str:
    """Return ``<top>/<year>/<month>/<day>`` of this moment, by the local clock, relative to the store's root."""
    try:
        day = datetime.fromtimestamp(time_s).astimezone()
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidDocument(
            f"expected the start document's time in seconds since 1970, got {time_s!r}; nothing was stored"
        ) from error
    return f"{top}/{day:%Y/%m/%d}"


def run_folder(start: Mapping[str, Any]) -> str:
    """Return the folder of a run, relative to the store's root: day, time, plan, first characters of the uid.

    Examples
    --------
    >>> run_folder({"time": 0.0, "plan_name": "acquire_volume", "uid": "1b9d6bcd-bbfd"})[-24:]
    '_acquire-volume_1b9d6bcd'
    """
    return _folder(RUNS, start, str(start.get("plan_name") or start.get("data_type")), "run")


def incoming_folder(recording: Mapping[str, Any]) -> str:
    """Return the folder of what a device writes by itself, relative to the store's root, like `run_folder`.

    Examples
    --------
    >>> incoming_folder({"time": 0.0, "device": "dispim_light_sheet", "uid": "1b9d6bcd-bbfd"})[-28:]
    '_dispim-light-sheet_1b9d6bcd'
    """
    return _folder(INCOMING, recording, recording["device"], "device")


def _folder(top: str, about: Mapping[str, Any], name: str, nameless: str) -> str:
    folder = day_folder(about["time"], top)
    moment = datetime.fromtimestamp(about["time"]).astimezone()
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or nameless
    uid = about["uid"][:8]
    if not re.fullmatch(r"[a-z0-9]{8}", uid):
        uid = hashlib.sha256(about["uid"].encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{folder}/{moment:%H%M%S}_{plain}_{uid}"
