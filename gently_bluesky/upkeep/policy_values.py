"""The values that stand in a policy: read from words, checked, and put into words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.labels import bytes_text

__all__ = [
    "SO",
    "age",
    "among",
    "count",
    "days",
    "flag",
    "in_words",
    "plain",
    "query",
    "said",
    "size",
    "texts",
    "words",
]

SO: Final = "nothing was deleted"
SECONDS: Final = {"min": 60, "h": 3600, "hour": 3600, "day": 86_400, "week": 604_800, "year": 31_557_600}
BYTES: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
BYTES_OF_TWO: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}
SIZES: Final = ("max_size", "min_free")
LONGEST: Final = timedelta(days=366_000)
MOST_BYTES: Final = 10**21
QUANTITY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+)")


def texts(name: str, given: object) -> tuple[str, ...]:
    """Return texts. Raises InvalidSetting."""
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    if not found or not all(isinstance(one, str) and one for one in found):
        raise InvalidSetting(f"expected {name} to be a text, or several, got {given!r:.200}; {SO}")
    return found


def flag(name: str, given: object) -> bool:
    """Return true or false. Raises InvalidSetting."""
    if not isinstance(given, bool):
        raise InvalidSetting(f"expected {name} to be true or false, got {given!r:.200}; {SO}")
    return given


def count(name: str, given: object) -> int:
    """Return a number of runs. Raises InvalidSetting."""
    least = {"keep_last": 1, "thin": 2}[name]
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise InvalidSetting(
            f"expected {name} to be a whole number of {least} or more, got {given!r:.200}; {SO}"
        )
    return given


def days(name: str, given: object) -> float:
    """Return a number of days. Raises InvalidSetting."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < LONGEST.days:
        raise InvalidSetting(f"expected {name} to be a number of days, 0 or more, got {given!r:.200}; {SO}")
    return float(given)


def words(name: str, given: object) -> str:
    """Return a text that says something. Raises InvalidSetting."""
    if not isinstance(given, str) or not given.strip():
        raise InvalidSetting(f"expected {name} to be in words, got {given!r:.200}; {SO}")
    return given


def age(name: str, given: object) -> timedelta:
    """Return a time. Raises InvalidSetting."""
    found = given
    if isinstance(given, str) and (match := QUANTITY.fullmatch(given.strip())) is not None:
        unit = match[2] if match[2] in SECONDS else match[2].removesuffix("s")
        if unit in SECONDS and float(match[1]) * SECONDS[unit] <= LONGEST.total_seconds():
            found = timedelta(seconds=float(match[1]) * SECONDS[unit])
    if not isinstance(found, timedelta) or not timedelta(0) < found <= LONGEST:
        raise InvalidSetting(
            f"expected {name} to be a time such as '30 days' or '12 h' ({', '.join(SECONDS)}), above 0 and up to 1,000 "
            f"years, got {given!r:.200}; {SO}"
        )
    return found


def size(name: str, given: object) -> int:
    """Return a number of bytes. Raises InvalidSetting."""
    if isinstance(given, str) and (match := QUANTITY.fullmatch(given.strip())) is not None:
        unit = (BYTES | BYTES_OF_TWO).get(match[2])
        given = given if unit is None else round(min(float(match[1]) * unit, 2 * MOST_BYTES))
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given <= MOST_BYTES:
        raise InvalidSetting(
            f"expected {name} to be a size such as '500 GB' ({', '.join(BYTES | BYTES_OF_TWO)}), or a number of "
            f"bytes, above 0, got {given!r:.200}; {SO}"
        )
    return given


def query(name: str, given: object) -> Mapping[str, Any]:
    """Return conditions of a query. Raises InvalidSetting."""
    if not isinstance(given, Mapping) or "kind" in given or not all(isinstance(key, str) for key in given):
        raise InvalidSetting(f"expected {name} to be conditions of a query of runs, got {given!r:.200}; {SO}")
    return dict(given)


def among(value: str | None, wanted: Sequence[str] | None) -> bool:
    """Say whether a value is one of those that are wanted; None wants any."""
    return wanted is None or value in {*wanted}


def plain(value: object) -> object:
    """Return a value as a file has it."""
    if isinstance(value, timedelta):
        return _age_text(value.total_seconds())
    return [*value] if isinstance(value, tuple) else value


def _age_text(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            number = seconds / length
            return f"{number:.15g} {unit}{'s' if unit == 'day' and number != 1 else ''}"
    return f"{seconds / 60:.15g} min"


def in_words(told: Mapping[str, object]) -> str:
    """Return conditions and limits in words."""
    return "; ".join(
        f"{name} {bytes_text(value) if name in SIZES and isinstance(value, int) else said(value)}"
        for name, value in told.items()
    )


def said(value: object) -> str:
    """Return a value in words."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
