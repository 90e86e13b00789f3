"""Where the arrays of a data key are kept: event by event, and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.index.schema import AnyRow, extents, points

__all__ = [
    "EXTENTS_OF_ASSET",
    "EXTENTS_OF_KEY",
    "EXTENTS_OF_RUN",
    "POINTS_OF_ASSET",
    "POINTS_OF_KEY",
    "Extent",
    "Point",
    "expanded",
]

MOST_POINTS: Final = 50_000_000
"""Points of one data key; a stream_datum that claims more is not believed."""


class Point(NamedTuple):
    """One event's array of one data key: where it is kept, and which event it belongs to.

    ``point_number`` counts along the asset and is None where the datum does not say; an array that came by
    stream_datum has an empty ``event_uid``. ``position`` is the line of the journal that announced it, from 0 on.
    """

    asset_uid: str
    datum_uid: str
    point_number: int | None
    event_uid: str
    seq_num: int
    time: float
    descriptor_uid: str
    position: int


class Extent(NamedTuple):
    """The points of a data key in one asset, summed up.

    ``in_place`` says that the asset holds them one behind the other from 0 on, as they were announced;
    ``in_turn`` that each ``seq_num`` is larger than the one before. ``last_position`` is the line of the
    journal that announced the last of them.
    """

    asset_uid: str
    events: int
    in_place: bool
    in_turn: bool
    last_position: int


_POINTS: Final = (
    select(
        points.c.asset_uid,
        points.c.datum_uid,
        points.c.number,
        points.c.event_uid,
        points.c.seq_num,
        points.c.time,
        points.c.descriptor_uid,
        points.c.position,
        points.c.span,
    )
    .where(points.c.position > bindparam("after"))
    .order_by(points.c.position, points.c.data_key)
)

POINTS_OF_KEY: Final = _POINTS.where(
    points.c.run_uid == bindparam("run_uid"),
    points.c.stream == bindparam("stream"),
    points.c.data_key == bindparam("data_key"),
)
POINTS_OF_ASSET: Final = _POINTS.where(points.c.asset_uid == bindparam("asset_uid"))

_EXTENTS: Final = select(
    extents.c.asset_uid, extents.c.events, extents.c.in_place, extents.c.in_turn, extents.c.last_position
).order_by(extents.c.position, extents.c.data_key)

EXTENTS_OF_RUN: Final = _EXTENTS.where(extents.c.run_uid == bindparam("run_uid"))
EXTENTS_OF_KEY: Final = EXTENTS_OF_RUN.where(
    extents.c.stream == bindparam("stream"), extents.c.data_key == bindparam("data_key")
)
EXTENTS_OF_ASSET: Final = _EXTENTS.where(extents.c.asset_uid == bindparam("asset_uid"))


def expanded(rows: Sequence[AnyRow]) -> list[Point]:
    """Return one point per event; a row that came from a stream_datum stands for a range of them.

    Raises
    ------
    InvalidDocument
        When the stream_datum documents claim more events than can be.
    """
    if sum(row.span for row in rows) > MOST_POINTS:
        raise InvalidDocument(
            f"expected at most {MOST_POINTS:,} events of one data key, but the stream_datum documents of "
            f"asset {rows[0].asset_uid!r} claim more; nothing was read"
        )
    found: list[Point] = []
    for *values, span in rows:
        first = Point._make(values)
        if span == 1:
            found.append(first)
            continue
        number = first.point_number or 0
        found += (first._replace(point_number=number + i, seq_num=first.seq_num + i) for i in range(span))
    return found
