"""What the index asks its database, but for queries, lineages and points."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, func, select

from gently_bluesky.index.records import select_records
from gently_bluesky.index.schema import descriptors, journals, records, tombstones

__all__ = [
    "BY_UID",
    "CANDIDATES",
    "DATUMS",
    "DESCRIPTOR",
    "DOCUMENT",
    "END",
    "IN_RANGE",
    "JOURNALS",
    "KEYS",
    "SESSIONS",
    "STATUSES",
    "TOTALS",
    "UID",
]

CANDIDATES: Final = 5
"""Uids that the message about an ambiguous prefix lists."""

DESCRIPTOR: Final = select(descriptors.c.uid).where(descriptors.c.uid == bindparam("uid"))
UID: Final = select(records.c.uid).where(records.c.uid == bindparam("uid"))
BY_UID: Final = select_records().where(records.c.uid == bindparam("uid"))
DOCUMENT: Final = select(records.c.document).where(
    records.c.uid == bindparam("uid"), records.c.kind == bindparam("kind")
)
DATUMS: Final = select(records.c.uid, records.c.document).where(
    records.c.uid.in_(bindparam("uids", expanding=True)), records.c.kind == "datum"
)
END: Final = select(journals.c.end).where(journals.c.journal == bindparam("journal"))
JOURNALS: Final = select(journals.c.journal, journals.c.end).order_by(journals.c.journal)
KEYS: Final = (
    select(descriptors.c.stream, descriptors.c.data_keys)
    .where(descriptors.c.run_uid == bindparam("run_uid"))
    .order_by(descriptors.c.position)
)

_holder: Final = records.alias("holder")
IN_RANGE: Final = (
    select(records.c.uid)
    .outerjoin(_holder, _holder.c.uid == records.c.asset_uid)
    .where(
        records.c.uid >= bindparam("low"),
        records.c.uid < bindparam("high"),
        # An asset stands for its datums: what begins them all means the asset.
        (records.c.kind != "datum")
        | _holder.c.uid.is_(None)
        | (_holder.c.uid < bindparam("low"))
        | (_holder.c.uid >= bindparam("high")),
    )
    .order_by(records.c.uid)
    .limit(CANDIDATES + 1)
)

_number: Final = func.count().label("number")
_of_kind: Final = {kind: records.c.kind == kind for kind in ("run", "asset", "datum")}
TOTALS: Final = select(
    select(func.count()).where(_of_kind["asset"]).scalar_subquery().label("assets"),
    select(func.count()).where(_of_kind["datum"]).scalar_subquery().label("datums"),
    select(func.count()).where(_of_kind["run"], records.c.derived).scalar_subquery().label("derived"),
    select(func.sum(records.c.nbytes))
    .where(_of_kind["asset"], records.c.uid.not_in(select(tombstones.c.uid)))
    .scalar_subquery()
    .label("nbytes"),
)
STATUSES: Final = select(records.c.status, _number).where(_of_kind["run"]).group_by(records.c.status)
SESSIONS: Final = (
    select(records.c.session)
    .where(_of_kind["run"], records.c.session.is_not(None))
    .distinct()
    .order_by(records.c.session)
)
