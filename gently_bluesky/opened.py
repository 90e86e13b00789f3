"""Assets as lazy arrays of some of their events: by number, or by the datums that stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.handlers import asset_array
from gently_bluesky.elsewhere import Means, Places, axes_of, foreign_source, handled_source, means_of
from gently_bluesky.errors import AmbiguousArray, AssetMissing, LookupFailed
from gently_bluesky.index.index import Index, Point
from gently_bluesky.index.rows import datum_parameters, point_number
from gently_bluesky.lazy import ArraySource, LazyArray, Selection
from gently_bluesky.model import Record
from gently_bluesky.segments import tag_with_pools

__all__ = ["open_datum", "open_joined", "open_points", "open_rows"]

MAKE = ("frame_shape", "dtype", "dims", "scale", "units", "channel_names")
"""What opens two assets alike that are parts of one array."""

Rows = range | Sequence[int | None]


def open_rows(places: Places, index: Index, record: Record, rows: Rows) -> LazyArray | None:
    """Return the events of an asset at these places, in this order; a range has steps of 1. Reads no pixels.

    None where that does not say which they are: ask by the datums.

    Raises
    ------
    LookupFailed
        Nothing installed here reads it.
    AssetMissing, AssetDamaged, InvalidDocument
        The files are not what the record says, or may not be read.
    """
    means = means_of(places, index, record)
    if means.by_datum and len(rows):
        return None
    return _of_rows(places, index, record, rows, means)


def open_points(places: Places, index: Index, record: Record, points: Sequence[Point]) -> LazyArray:
    """Return the arrays of these points of an asset, in their order. Raises as `open_rows`."""
    means = means_of(places, index, record)
    numbers = [point.point_number for point in points]
    if not means.by_datum:
        return _of_rows(places, index, record, numbers, means)
    uids = [point.datum_uid for point in points]
    if "mimetype" in index.asset_document(record.uid):
        return _of_datums(places, index, record, [{"point_number": number} for number in numbers], means)
    datums = [document["datum_kwargs"] for document in index.datum_documents(uids)]
    return _of_datums(places, index, record, datums, means, uids)


def open_joined(
    places: Places, index: Index, records: Sequence[Record], points: Sequence[Point]
) -> LazyArray | None:
    """Return the arrays of these points, in their order, of assets of one make: of a run that went on elsewhere.

    None where the assets are not of one make. Raises as `open_rows`.
    """
    first = records[0]
    makes = [(one.format, *(one.metadata.get(name) for name in MAKE)) for one in records]
    if means_of(places, index, first).backend is None or any(make != makes[0] for make in makes):
        return None
    known = {record.uid: record for record in records}
    parts = [
        open_points(places, index, known[uid], list(group))
        for uid, group in groupby(points, key=lambda point: point.asset_uid)
    ]
    uids = [point.datum_uid for point in points]
    source = _Joined(parts)
    return asset_array(source, first.metadata, uid=first.uid, name=first.data_key or "", datum_uids=uids)


class _Joined(ArraySource):
    """Arrays one behind the other along the events. Any thread."""

    def __init__(self, parts: Sequence[LazyArray]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all."""
        return (int(self._ends[-1]), *self._parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each."""
        return self._parts[0].dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of the first; those of the others are cut alike, but for the events that share one."""
        return (1, *self._parts[0].chunks[1:])

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read of each part what is selected of it. Raises as the parts."""
        first = selection[0]
        events = np.arange(first.start, first.stop, first.step) if isinstance(first, slice) else first
        owners = np.searchsorted(self._ends, events, side="right")
        blocks: list[NDArray[Any]] = []
        order: list[NDArray[np.intp]] = []
        for owner in np.unique(owners):
            places = np.flatnonzero(owners == owner)
            part = self._parts[owner][events[places] - (self._ends[owner] - len(self._parts[owner]))]
            for axis, chosen in enumerate(selection[1:], 1):
                part = part[(slice(None),) * axis + (chosen,)]
            blocks.append(part.compute())
            order.append(places)
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate(blocks)[np.argsort(np.concatenate(order))]


def open_datum(places: Places, index: Index, record: Record, document: Mapping[str, Any]) -> LazyArray:
    """Return the array of a datum of an asset; of a stream_datum for several events, ``(t, ...)``.

    Raises as `open_rows`.
    """
    means = means_of(places, index, record)
    if "stream_resource" in document:
        indices = range(document["indices"]["start"], document["indices"]["stop"])
        if means.handler is None:
            array = _of_rows(places, index, record, indices, means)
        else:
            array = _of_datums(places, index, record, [{"point_number": number} for number in indices], means)
        return array[0] if len(array) == 1 else array
    datum = document["datum_kwargs"]
    if means.by_datum:
        return _of_datums(places, index, record, [datum], means, [document["datum_id"]])[0]
    number = point_number(datum)
    if number is None:
        raise LookupFailed(
            f"datum {document['datum_id']} does not say which event of its asset it is; ask for "
            f"store.array({record.uid!r})"
        )
    return _of_rows(places, index, record, [number], means)[0]


def _of_datums(
    places: Places,
    index: Index,
    record: Record,
    datums: Sequence[Mapping[str, Any]],
    means: Means,
    uids: Sequence[str] | None = None,
) -> LazyArray:
    if means.handler is None:
        return _told_by_datums(places, index, record, datums, means)
    source = handled_source(places, index, record, datums, means)
    return asset_array(
        source, {"dims": axes_of(record, source)}, uid=record.uid, name=record.data_key or "", datum_uids=uids
    )


def _told_by_datums(
    places: Places, index: Index, record: Record, datums: Sequence[Mapping[str, Any]], means: Means
) -> LazyArray:
    """Return the events of an asset whose datums say, all alike, what of it they are from."""
    told = [datum_parameters(datum) for datum in datums]
    if any(more != told[0] for more in told):
        raise AmbiguousArray(
            f"asset {record.uid} holds several arrays, as its datums say; nothing was read; ask for those of a data "
            "key, or of a datum"
        )
    rows = [point_number(datum) for datum in datums]
    return _of_rows(places, index, record, rows, means, told[0] if told else {})


def _of_rows(
    places: Places,
    index: Index,
    record: Record,
    rows: Rows,
    means: Means,
    more: Mapping[str, Any] | None = None,
) -> LazyArray:
    known = rows if isinstance(rows, range) else [row for row in rows if row is not None]
    if len(known) < len(rows):
        raise LookupFailed(f"the datums of asset {record.uid} do not say which of its events they are")
    if isinstance(known, range):
        first, last = known.start, known.stop - 1
    else:
        first, last = min(known, default=0), max(known, default=-1)
    array = _whole(places, index, record, max(last + 1, 0), means, more)
    if not 0 <= first <= last + 1 <= len(array):
        raise AssetMissing(
            f"{places.root / record.path}: event {last} was announced, the files hold {len(array)} events; "
            "nothing was read; restore them from a copy"
        )
    if isinstance(known, range) or known == list(range(first, last + 1)):
        return array[first : last + 1]
    return array[known]


def _whole(
    places: Places, index: Index, record: Record, count: int, means: Means, more: Mapping[str, Any] | None
) -> LazyArray:
    """Return an asset of which ``count`` events are known to be published."""
    source = foreign_source(places, index, record, count, means, more)
    kwargs = record.metadata if means.backend is not None else {"dims": axes_of(record, source)}
    if means.backend is not None and (tag := tag_with_pools(places.root)) is not None:
        from gently_bluesky.backends.hot_source import HotSource  # only where there is something hot

        source = HotSource(source, tag, record.uid)
    return asset_array(source, kwargs, uid=record.uid, name=record.data_key or "")
