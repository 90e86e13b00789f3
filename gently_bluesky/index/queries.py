"""Turns the conditions of a query into SQL. Everything that a person may have typed is checked here, once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from math import isfinite
from typing import Final

from sqlalchemy import ColumnElement, and_, or_, select

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.index.records import run, select_records
from gently_bluesky.index.schema import AnySelect, metadata, records, stream_keys, tombstones
from gently_bluesky.index.values import conditions

__all__ = ["after", "newest_first", "seconds"]

KINDS: Final = ("run", "asset", "datum")
STATUSES: Final = ("running", "complete", "failed", "aborted", "incomplete")
TEXTS: Final = ("data_type", "session", "status", "stream", "data_key", "operation")


def newest_first(
    *,
    kind: str,
    texts: Mapping[str, str | None],
    since: object,
    until: object,
    derived: bool | None,
    deleted: bool | None,
    wanted: Mapping[str, object],
) -> AnySelect:
    """Return the statement that reads the records that answer all the conditions, newest first.

    Raises
    ------
    InvalidSetting
        When a condition is of a kind that no record can answer.
    """
    _check(kind, texts, {"derived": derived, "deleted": deleted})
    found: list[ColumnElement[bool]] = [records.c.kind == kind]
    owner = records if kind == "run" else run
    found += [
        owner.c[name] == texts[name]
        for name in ("data_type", "session", "status", "operation")
        if texts.get(name) is not None
    ]
    if derived is not None:
        found.append(owner.c.derived == derived)
    if deleted is not None:
        found.append(tombstones.c.uid.is_not(None) if deleted else tombstones.c.uid.is_(None))
    found += _of_streams(kind, texts.get("stream"), texts.get("data_key"))
    if since is not None:
        found.append(records.c.time >= seconds("since", since))
    if until is not None:
        found.append(_until(until))
    for key, value in wanted.items():
        for name, text in conditions(key, value):
            holders = select(metadata.c.run_uid).where(metadata.c.key == name, metadata.c.value == text)
            found.append(records.c.run_uid.in_(holders))
    return select_records().where(and_(*found)).order_by(records.c.time.desc(), records.c.uid.desc())


def after(statement: AnySelect, time: float, uid: str) -> AnySelect:
    """Return the same statement for what comes after this record in its order."""
    return statement.where(
        records.c.time <= time,
        or_(records.c.time < time, records.c.uid < uid),
    )


def _check(kind: object, texts: Mapping[str, object], choices: Mapping[str, object]) -> None:
    if kind not in KINDS:
        raise InvalidSetting(f"expected kind to be one of {KINDS}, got {kind!r}; nothing was looked for")
    for name in TEXTS:
        if not isinstance(texts.get(name), str | None):
            raise InvalidSetting(f"expected {name} to be text, got {texts[name]!r}; nothing was looked for")
    if texts.get("status") not in (None, *STATUSES):
        raise InvalidSetting(
            f"expected status to be one of {STATUSES}, got {texts['status']!r}; nothing was looked for"
        )
    for name, choice in choices.items():
        if not isinstance(choice, bool | None):
            raise InvalidSetting(
                f"expected {name} to be True, False or None, got {choice!r}; nothing was looked for"
            )


def _of_streams(kind: str, stream: str | None, data_key: str | None) -> list[ColumnElement[bool]]:
    if stream is None and data_key is None:
        return []
    if kind != "run":
        return [
            column == value
            for column, value in ((records.c.stream, stream), (records.c.data_key, data_key))
            if value is not None
        ]
    holders = select(stream_keys.c.run_uid).where(stream_keys.c.data_key == (data_key or ""))
    if stream is not None:
        holders = holders.where(stream_keys.c.stream == stream)
    return [records.c.uid.in_(holders)]


def _until(value: object) -> ColumnElement[bool]:
    """Return the condition; a date stands for the whole of its day."""
    if isinstance(value, str) and len(value) == len("2026-11-21"):
        value = _parsed("until", value).date()
    if isinstance(value, date) and not isinstance(value, datetime):
        return records.c.time < seconds("until", value + timedelta(days=1))
    return records.c.time <= seconds("until", value)


def seconds(name: str, value: object) -> float:
    """Return seconds since the epoch; times without a zone are local.

    Raises
    ------
    InvalidSetting
        When the value is no time.
    """
    if isinstance(value, str):
        value = _parsed(name, value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise InvalidSetting(
            f"expected {name} as seconds since the epoch, a datetime or '2026-11-21T14:30', got {value!r}; "
            "nothing was looked for"
        )
    return float(value)


def _parsed(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidSetting(
            f"expected {name} as seconds since the epoch, a datetime or '2026-11-21T14:30', got {text!r}; "
            "nothing was looked for"
        ) from None
