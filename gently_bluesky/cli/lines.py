"""Runs and records as lines of a table, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from math import prod
from typing import TYPE_CHECKING, Any

from gently_bluesky.cli.tables import Column, is_terminal
from gently_bluesky.model import is_derived
from gently_bluesky.wording import clock, short_uid

if TYPE_CHECKING:
    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = [
    "RECORD_COLUMNS",
    "RUN_COLUMNS",
    "arrays_text",
    "label",
    "nbytes_of",
    "record_json",
    "record_row",
    "run_json",
    "run_row",
    "sample_of",
    "shown_uid",
    "status_of",
]

RUN_COLUMNS = (
    Column("run"),
    Column("when"),
    Column("plan", folds=True),
    Column("session", spare=3),
    Column("sample", spare=1),
    Column("status"),
    Column("arrays", folds=True),
    Column("size", right=True, spare=2),
)
RECORD_COLUMNS = (
    Column("uid"),
    Column("when"),
    Column("of", folds=True),
    Column("shape"),
    Column("dtype", spare=1),
    Column("run"),
    Column("status", spare=2),
)
SAMPLES = ("embryo", "sample_name", "sample", "sample_id", "specimen")
"""What start documents call what lay under the microscope; the first that is there is shown."""


def run_row(store: Store, record: Record) -> list[str]:
    """Return a run as a line of `RUN_COLUMNS`."""
    from gently_bluesky.labels import bytes_text

    assets = store.assets(record.uid)
    return [
        shown_uid(record.uid),
        shown_time(record.time),
        label(record),
        record.session or "",
        sample_of(record.metadata),
        "deleted" if record.deleted is not None else status_of(store, record),
        arrays_text(assets),
        bytes_text(_held(assets)) if assets and record.deleted is None else "",
    ]


def run_json(store: Store, record: Record) -> dict[str, Any]:
    """Return a run with its arrays."""
    assets = store.assets(record.uid)
    return {
        **record_json(record),
        "status": status_of(store, record),
        "nbytes": _held(assets),
        "arrays": [record_json(asset) for asset in assets],
    }


def _held(assets: Iterable[Record]) -> int:
    """Return how many bytes of pixels there are, without those that were deleted."""
    return sum(nbytes_of(asset) for asset in assets if asset.deleted is None)


def record_row(record: Record) -> list[str]:
    """Return an array or an event as a line of `RECORD_COLUMNS`."""
    return [
        short_uid(record.uid) if is_terminal() else record.uid,
        shown_time(record.time),
        f"{record.stream or '?'}/{record.data_key or '?'}",
        shape_text(record.shape),
        dtype_text(record),
        shown_uid(record.run_uid),
        record.status or "",
    ]


def record_json(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it; of an array with its bytes of pixels."""
    known = asdict(record)
    return known if record.kind == "run" else {**known, "nbytes": nbytes_of(record)}


def shown_uid(uid: str) -> str:
    """Return a uid as people read it, or all of it for a pipe."""
    return short_uid(uid) if is_terminal() else uid


def shown_time(time: float) -> str:
    """Return a moment; on a terminal without the year if it is this one."""
    moment, this_year = clock(time), f"{datetime.now().astimezone():%Y-}"
    return moment.removeprefix(this_year) if is_terminal() else moment


def status_of(store: Store, record: Record) -> str:
    """Return how a run stands now: of one that goes on, whether its process lives."""
    from gently_bluesky.errors import GentlyError

    try:
        return store.run(record.uid).status if record.status == "running" else str(record.status)
    except GentlyError:  # its journal cannot be read: the index knows what it knew
        return str(record.status)


def label(record: Record) -> str:
    """Return what a run was: the plan, or what was derived and how."""
    if is_derived(record.metadata):
        return f"{record.data_type} by {record.operation}" if record.operation else str(record.data_type)
    return str(record.metadata.get("plan_name") or record.data_type or "")


def sample_of(start: Mapping[str, Any]) -> str:
    """Return what lay under the microscope, as far as the start document says."""
    for name in SAMPLES:
        said = start.get(name)
        if isinstance(said, Mapping):
            said = said.get("name")
        if said not in (None, ""):
            return str(said)
    return ""


def arrays_text(assets: Iterable[Record]) -> str:
    """Return data keys and shapes, those of one shape together: ``"view_a, view_b 1x32x64x64"``."""
    by_shape: dict[str, list[str]] = {}
    for asset in assets:
        by_shape.setdefault(shape_text(asset.shape), []).append(asset.data_key or "?")
    return "; ".join(f"{', '.join(dict.fromkeys(keys))} {shape}" for shape, keys in by_shape.items())


def shape_text(shape: Sequence[int] | None) -> str:
    """Return ``"1x32x64x64"``."""
    return "x".join(map(str, shape)) if shape else ""


def dtype_text(record: Record) -> str:
    """Return a dtype as numpy names it."""
    from gently_bluesky.dtypes import known_dtype

    known = known_dtype(record.dtype)
    return record.dtype or "" if known is None else known.name


def nbytes_of(record: Record) -> int:
    """Return the bytes of pixels of an array or an event, 0 where nothing says so."""
    from gently_bluesky.dtypes import known_dtype

    known = known_dtype(record.dtype)
    return 0 if known is None or record.shape is None else prod(record.shape) * known.itemsize
