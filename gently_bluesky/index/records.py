"""Turns rows back into records. One statement reads a record with what it owes to its run and its asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import case, func, select
from sqlalchemy.sql.selectable import FromClause

from gently_bluesky.index.fields import parents_named
from gently_bluesky.index.schema import AnySelect, IndexUnusable, records, tombstones
from gently_bluesky.jsontext import decode
from gently_bluesky.model import Record

__all__ = ["asset", "columns", "decoded", "document_of", "joined", "record_of", "run", "select_records"]

SAYING: Final = ("resource_kwargs", "parameters", "datum_kwargs", "indices")
"""What documents of assets and of datums say more of each: one of these stands in each of them."""

run: Final = records.alias("run")
asset: Final = records.alias("asset")

columns: Final = (
    records.c.uid,
    records.c.kind,
    records.c.run_uid,
    records.c.time,
    func.coalesce(run.c.data_type, records.c.data_type),
    func.coalesce(run.c.session, records.c.session),
    func.coalesce(run.c.status, records.c.status),
    records.c.stream,
    records.c.data_key,
    records.c.seq_num,
    asset.c.count,
    asset.c.shape,
    asset.c.dtype,
    asset.c.dims,
    asset.c.format,
    func.coalesce(asset.c.path, records.c.path),
    records.c.operation,
    records.c.received,
    records.c.stored,
    records.c.lost,
    tombstones.c.time,
    records.c.document,
)
"""What `record_of` reads, in the order in which it reads it."""


def joined(source: FromClause) -> FromClause:
    """Join run, asset and tombstone to a source that has ``records`` in it; a run is not joined to itself."""
    of_run = case((records.c.kind != "run", records.c.run_uid))
    held = func.coalesce(records.c.asset_uid, records.c.uid)
    with_run = source.outerjoin(run, run.c.uid == of_run)
    with_asset = with_run.outerjoin(asset, asset.c.uid == records.c.asset_uid)
    return with_asset.outerjoin(tombstones, tombstones.c.uid == held)


def select_records() -> AnySelect:
    """Return the statement that reads whole records."""
    return select(*columns).select_from(joined(records))


def decoded(text: object, kind: type = dict) -> Any:
    """Return what `json_text` made a text of. Raises IndexUnusable where the database holds something else."""
    try:
        value = decode(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise _damaged(text)
    return value


def document_of(text: object) -> Mapping[str, Any]:
    """Return the document of an asset or datum. Raises IndexUnusable where it lacks what each of them has."""
    doc = decoded(text)
    said = [doc[name] for name in SAYING if isinstance(doc.get(name), dict)]
    if not said or ("indices" in doc and not {"start", "stop"} <= said[-1].keys()):
        raise _damaged(text)
    return doc


def _damaged(text: object) -> IndexUnusable:
    return IndexUnusable(
        f"the index is damaged, it holds {text!r:.80} where a document was kept; nothing was read; close the store and "
        "delete index.sqlite: it is built again from the journals"
    )


def record_of(row: Sequence[Any]) -> Record:
    """Return the record that a row of `columns` tells of."""
    (
        uid,
        kind,
        run_uid,
        time,
        data_type,
        session,
        status,
        stream,
        data_key,
        seq_num,
        count,
        shape,
        dtype,
        dims,
        form,
        path,
        operation,
        received,
        stored,
        lost,
        deleted,
        document,
    ) = row
    doc = decoded(document)
    sizes = None if shape is None else tuple(decoded(shape, list))
    axes = () if dims is None else tuple(decoded(dims, list))
    if kind == "asset":
        axes = _with_events(axes, sizes)
        sizes = None if sizes is None else (count, *sizes)
    return Record(  # by position, since lineages make them by the thousand
        uid,
        kind,
        run_uid,
        time,
        data_type,
        session,
        status,
        stream,
        data_key,
        seq_num,
        sizes,
        dtype,
        axes,
        form,
        path or "",
        operation,
        tuple(parents_named(doc.get("lineage"))) if kind == "run" else (),
        received,
        stored,
        lost,
        deleted,
        _metadata(kind, doc),
    )


def _with_events(dims: tuple[str, ...], sizes: tuple[int, ...] | None) -> tuple[str, ...]:
    """Put the event axis in front of the axes of one event's array, where it is not there already."""
    if not dims or (sizes is not None and len(dims) == len(sizes) + 1):
        return dims
    return ("t", *dims)


def _metadata(kind: str, doc: Mapping[str, Any]) -> Mapping[str, Any]:
    if kind == "run":
        return doc
    if kind == "asset":
        return doc.get("resource_kwargs") or doc.get("parameters") or {}
    if "datum_id" in doc:
        return doc.get("datum_kwargs") or {}
    return {"indices": doc["indices"], "seq_nums": doc["seq_nums"]}
