"""Where the arrays of a data key are kept, event by event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, bindparam, select

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.index.schema import points

__all__ = ["POINTS_OF_ASSET", "POINTS_OF_KEY", "Point", "expanded"]

MOST_POINTS: Final = 50_000_000
"""Points of one data key; a stream_datum that claims more is not believed."""


class Point(NamedTuple):
    """One event's array of one data key: where it is kept, and which event it belongs to.

    ``point_number`` counts along the asset and is None where the datum does not say; an array that came by
    stream_datum has an empty ``event_uid``.
    """

    asset_uid: str
    datum_uid: str
    point_number: int | None
    event_uid: str
    seq_num: int
    time: float
    descriptor_uid: str


_POINTS: Final = select(
    points.c.asset_uid,
    points.c.datum_uid,
    points.c.number,
    points.c.event_uid,
    points.c.seq_num,
    points.c.time,
    points.c.descriptor_uid,
    points.c.span,
).order_by(points.c.position, points.c.data_key)

POINTS_OF_KEY: Final = _POINTS.where(
    points.c.run_uid == bindparam("run_uid"),
    points.c.stream == bindparam("stream"),
    points.c.data_key == bindparam("data_key"),
)
POINTS_OF_ASSET: Final = _POINTS.where(points.c.asset_uid == bindparam("asset_uid"))


def expanded(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Point]:
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
