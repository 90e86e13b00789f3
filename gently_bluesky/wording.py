"""Words for people that many rooms print: uids cut short, moments, and text that cannot move a terminal's cursor."""

from __future__ import annotations

from datetime import datetime

__all__ = ["TO_THE_SECOND", "clock", "many", "printable", "short_uid"]

UID_SHOWN = 8
"""Characters of a uid that people quote."""
TO_THE_SECOND = "%Y-%m-%d %H:%M:%S"


def many(count: int, what: str) -> str:
    """Count things.

    Examples
    --------
    >>> many(1, "run"), many(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    r"""Take out what could move a terminal's cursor: the text came from a document.

    Examples
    --------
    >>> printable("night\x1b[2J of Näpfe")
    'night?[2J of Näpfe'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def short_uid(uid: str) -> str:
    """Cut a uid as people quote it; a datum of ours keeps its number.

    Examples
    --------
    >>> short_uid("034012e8-1a29-456d-bc5c-a2bb7d3ab0c3/17")
    '034012e8/17'
    """
    asset, slash, number = uid.partition("/")
    return printable(asset[:UID_SHOWN] + slash + number)


def clock(time: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a moment by the local clock, to the minute or as ``form`` has it; what is no moment as seconds."""
    try:
        return datetime.fromtimestamp(time).astimezone().strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{time:g} s"
