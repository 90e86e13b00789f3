"""Stores, runs, records and arrays as notebooks show them: a table, what they came from, small pictures.

What cannot be read is said where it would stand; a page is always made. Pictures cost what `glances` says each, and
there are four on a page at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, cast

from gently_bluesky.dtypes import known_dtype
from gently_bluesky.glances import glances
from gently_bluesky.labels import axes_text, bytes_text
from gently_bluesky.markup import Markup, pre, said, table, table_of
from gently_bluesky.wording import TO_THE_SECOND, clock, many

if TYPE_CHECKING:
    from gently_bluesky.index.lineage import Lineage
    from gently_bluesky.lazy import LazyArray
    from gently_bluesky.model import Record
    from gently_bluesky.reading import StoreView
    from gently_bluesky.run import Run
    from gently_bluesky.streams import Stream

__all__ = [
    "array_page",
    "datum_page",
    "lineage_text",
    "page",
    "run_page",
    "status_text",
    "store_page",
]

MOST_PICTURES = 4
MOST_KEYS = 24
MOST_RUNS = 8
MOST_LINES = 16
MOST_LETTERS = 120
TOLD = frozenset(
    (
        "uid",
        "time",
        "plan_name",
        "session",
        "data_type",
        "lineage",
        "scan_id",
        "versions",
        "hints",
        "detectors",
    )
)
"""What a start document says and a page of a run says otherwise, or not."""


def page(caption: str, make: Callable[[], str]) -> str:
    """Return a page, or one that says why there is none."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 # a closed store, a lost disk: a notebook's cell goes on
        return table(caption, {"cannot be shown": str(error) or type(error).__name__})


def array_page(array: LazyArray, origin: Callable[[str], str] | None) -> str:
    """Return what there is to say of an array; ``origin`` says what a uid was made from."""
    axes = [
        f"{dim}: {length:,} x {scale:g} {unit or ''}".rstrip()
        for dim, length, scale, unit in zip(array.dims, array.shape, array.scale, array.units, strict=True)
    ]
    rows = {
        "name": array.name,
        "shape": str(array.shape),
        "axes": ", ".join(axes),
        "views": ", ".join(array.channels),
        "dtype": str(array.dtype),
        "size": f"{bytes_text(array.nbytes)} ({array.size:,} elements)",
        "chunks": f"{array.touched_chunks:,} of {array.chunks}",
        "uid": array.uid,
        "lineage": _guarded(lambda: origin(array.uid)) if origin is not None and array.uid else "",
    }
    return table("LazyArray", rows, glances(array))


def datum_page(record: Record, array: Callable[[], LazyArray], lineage: Callable[[], str]) -> str:
    """Return what there is to say of the record of an asset or of one event's array."""
    rows = {**record.rows(), "size": _size(record.shape, record.dtype), "lineage": _guarded(lineage)}
    return table("Record", rows, _pictures([("", array)]))


def run_page(
    caption: str, run: Run, lineage: Callable[[], Lineage], children: Callable[[], Sequence[Record]]
) -> str:
    """Return what there is to say of a run, with the arrays that it stored."""
    record, start = run.record, run.start
    rows = {
        "uid": run.uid,
        "plan": str(start.get("plan_name", "")),
        "started": clock(record.time, TO_THE_SECOND),
        "status": status_text(record),
        "deleted": clock(record.deleted) if record.deleted is not None else "",
        "session": record.session or "",
        "data type": record.data_type or "",
        **{str(key): _short(value) for key, value in islice(start.items(), MOST_KEYS) if key not in TOLD},
        "lineage": _guarded(lambda: lineage_text(lineage())) if record.parents else "",
        "made from it": _guarded(lambda: _made(children())),
    }
    return table(caption, rows, [_keys_table(run), *_pictures(_stored(run))])


def store_page(store: StoreView) -> str:
    """Return what there is in a store: how much, the newest runs, and what the newest one holds."""
    stats = store.stats()
    runs = sum(stats["runs"].values()) - stats["derived"]
    by_status = ", ".join(f"{count} {status}" for status, count in stats["runs"].items())
    rows = {
        "root": str(store.root),
        "runs": f"{runs:,} acquired, {many(stats['derived'], 'derived result')} ({by_status or 'none yet'})",
        "arrays": f"{stats['assets']:,} with {many(stats['datums'], 'event')}, {bytes_text(stats['nbytes'])}",
        "free": bytes_text(stats["free_bytes"]),
        "sessions": _short(", ".join(map(str, stats["sessions"]))),
    }
    newest = list(islice(store.query(derived=False), MOST_RUNS))
    below: list[Markup] = []
    if newest:
        below.append(table_of(("run", "started", "plan", "session", "status"), map(_run_row, newest)))
        below += _pictures(_stored(store[newest[0].uid]))
    return table("Store", rows, below)


def _run_row(record: Record) -> tuple[str, ...]:
    plan = str(record.metadata.get("plan_name", ""))
    return record.uid[:8], clock(record.time, TO_THE_SECOND), plan, record.session or "", status_text(record)


def _keys_table(run: Run) -> Markup:
    """Return a line for each stored array and one for the rest of each stream; opens arrays, and reads none."""
    rows: list[tuple[str, ...]] = []
    for of in _streams(run):
        stored = [key for key, declared in of.declared.items() if declared.get("external")]
        rows += [(of.name, key, *_guarded_array(partial(of.__getitem__, key))) for key in stored[:MOST_KEYS]]
        if len(stored) > MOST_KEYS:
            rows.append((of.name, f"and {len(stored) - MOST_KEYS} more arrays", "", "", ""))
        others = [key for key in of.declared if key not in stored]
        if others:
            more = f" and {len(others) - MOST_KEYS} more" if len(others) > MOST_KEYS else ""
            rows.append((of.name, f"{', '.join(others[:MOST_KEYS])}{more}", "in the events", "", ""))
    if not rows:
        return said("no streams")
    return table_of(("stream", "data key", "array", "dtype", "size"), rows)


def _guarded_array(array: Callable[[], LazyArray]) -> tuple[str, str, str]:
    try:
        found = array()
        return f"({axes_text(found)})", str(found.dtype), bytes_text(found.nbytes)
    except Exception as error:  # noqa: BLE001 # as of `page`: the other data keys are shown
        return f"cannot be opened: {_short(str(error))}", "", ""


def _stored(run: Run) -> Iterator[tuple[str, Callable[[], LazyArray]]]:
    """Yield the names of the arrays that a run stored, and what opens them."""
    streams = _streams(run)
    for of in streams:
        for key in (key for key, declared in of.declared.items() if declared.get("external")):
            name = f"{of.name}/{key}" if len(streams) > 1 else key
            yield name, partial(of.__getitem__, key)


def _streams(run: Run) -> list[Stream]:
    return [cast("Stream", run[name]) for name in run.streams]


def _pictures(arrays: Iterable[tuple[str, Callable[[], LazyArray]]]) -> list[Markup]:
    found: list[Markup] = []
    for name, array in arrays:
        if len(found) >= MOST_PICTURES:
            break
        try:
            found += glances(array(), name)
        except Exception:  # noqa: BLE001, S112 # the table says why it cannot be opened
            continue
    return found[:MOST_PICTURES]


def lineage_text(lineage: Lineage) -> Markup:
    """Return a lineage as it is printed, no more than its first lines."""
    lines = str(lineage).splitlines()
    more = [f"... and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return pre("\n".join(lines[:MOST_LINES] + more))


def status_text(record: Record) -> str:
    """Return how a run stands, with its frames where they are counted."""
    if record.stored is None:
        return record.status or ""
    of = "" if record.received is None else f" of {record.received:,}"
    lost = f", {record.lost:,} lost" if record.lost else ""
    return f"{record.status}, {record.stored:,}{of} frames stored{lost}"


def _made(children: Sequence[Record]) -> str:
    counts: dict[str, int] = {}
    for child in children:
        kind = child.data_type or "result"
        counts[kind] = counts.get(kind, 0) + 1
    return _short(", ".join(f"{count} {kind}" for kind, count in counts.items()))


def _guarded(make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 # as of `page`: the rest is shown
        return f"cannot be told: {_short(str(error))}"


def _size(shape: tuple[int, ...] | None, dtype: str | None) -> str:
    known = known_dtype(dtype)
    return "" if shape is None or known is None else bytes_text(prod(shape) * known.itemsize)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}\u2026"
