"""Uids as the index is asked for them, and the ranges of text that their beginnings stand for."""

from __future__ import annotations

import sys

from gently_bluesky.errors import InputError, UnknownUid

__all__ = ["behind", "checked"]


def checked(uid: object) -> str:
    """Return a uid that the database can be asked for."""
    if not isinstance(uid, str):
        raise InputError(f"expected a uid as text, got {uid!r}; nothing was looked for")
    if not uid or any("\ud800" <= character <= "\udfff" for character in uid):
        raise UnknownUid(f"expected a uid or the beginning of one, got {uid!r}")
    return uid


def behind(prefix: str) -> str:
    """Return the first text that is behind all those that begin with ``prefix``."""
    last = ord(prefix[-1]) + 1
    if last > sys.maxunicode:
        return prefix + chr(sys.maxunicode)
    return prefix[:-1] + ("\ue000" if chr(last) == "\ud800" else chr(last))
