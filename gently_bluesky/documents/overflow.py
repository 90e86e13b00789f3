"""A store's second place, for runs that the root takes no further: what makes a folder one, which errors lead there."""

from __future__ import annotations

from pathlib import Path

import orjson

from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    InputError,
    InvalidSetting,
    JournalDamaged,
    NotAStore,
    StorageStalled,
    StoreReadOnly,
)
from gently_bluesky.files import make_folders, write_atomic

__all__ = ["OVERFLOW_MARKER", "is_of_its_place", "open_overflow"]

OVERFLOW_MARKER = "gently-overflow.json"
FORMAT_VERSION = 1
NOT_OF_A_PLACE = (InputError, AssetDamaged, AssetMissing, JournalDamaged, StorageStalled)


def is_of_its_place(error: Exception) -> bool:
    """Say whether an error says that a disk took no more: a run can go on in another place.

    Not one about a document, or about pixels that are not what they should be; and not a disk that hangs, because a
    thread that hangs with it cannot go on anywhere.
    """
    return isinstance(error, OSError) and not isinstance(error, NOT_OF_A_PLACE)


def open_overflow(path: str | Path, root: Path, store_uid: str, mode: str) -> Path:
    """Return the folder of a store's overflow, which is made if ``mode`` is ``"a"`` and it is not there.

    Raises
    ------
    InvalidSetting
        It is the store itself or lies in it, or it is the overflow of another store.
    NotAStore
        It is a file, or holds something else.
    StoreReadOnly
        It cannot be made, or not be read.
    """
    place = Path(path).expanduser().resolve()
    if place.is_relative_to(root) or root.is_relative_to(place):
        raise InvalidSetting(
            f"expected an overflow beside the store {root}, got {place}; nothing was opened; give a folder on another "
            "disk"
        )
    marker = place / OVERFLOW_MARKER
    try:
        if not marker.exists() and mode == "a":
            _make(place, marker, root, store_uid)
        if marker.exists():
            _require_own(place, marker.read_bytes(), root, store_uid)
    except OSError as error:
        if isinstance(error, StoreReadOnly):
            raise
        raise StoreReadOnly(
            f"the overflow {place} cannot be opened: {error}; nothing was opened; give another folder, or none"
        ) from error
    return place


def _make(place: Path, marker: Path, root: Path, store_uid: str) -> None:
    if place.exists() and not place.is_dir():
        raise NotAStore(f"expected a folder as overflow, {place} is a file; nothing was opened; give another")
    make_folders(place)
    strange = sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
    if strange and OVERFLOW_MARKER not in strange:
        raise NotAStore(
            f"{place} is no overflow and not empty ({', '.join(strange[:3])}, ...); nothing was written; give an empty "
            f"or new folder, or, if it was one, put its {OVERFLOW_MARKER} back"
        )
    content = {"format_version": FORMAT_VERSION, "store_uid": store_uid, "store_root": str(root)}
    write_atomic(marker, orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _require_own(place: Path, content: bytes, root: Path, store_uid: str) -> None:
    try:
        found = orjson.loads(content)
        version, uid, said = found["format_version"], found["store_uid"], found["store_root"]
    except (ValueError, TypeError, KeyError) as error:
        raise NotAStore(
            f"{place / OVERFLOW_MARKER} is not the marker of an overflow ({error!r}); nothing was opened; restore it "
            "from a copy"
        ) from error
    if version != FORMAT_VERSION:
        raise InvalidSetting(
            f"{place} is an overflow of format {version!r:.80}, this version of gently-bluesky knows "
            f"{FORMAT_VERSION}; nothing was opened; upgrade gently-bluesky"
        )
    if uid != store_uid:
        raise InvalidSetting(
            f"{place} is the overflow of the store {said!r:.200}, not of {root}; nothing was opened; give each store "
            "an overflow of its own (or is a disk missing that should be mounted there?)"
        )
