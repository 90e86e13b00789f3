"""What `verify` needs of a store beyond its files: assets that are not in their run's folder, opened, and a bar.

How events are compared is in ``upkeep``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.adopting import has_files_at
from gently_bluesky.elsewhere import Places, foreign_source, means_of, place_of
from gently_bluesky.errors import AmbiguousArray, AssetMissing, LookupFailed
from gently_bluesky.index.index import Index, Point
from gently_bluesky.index.rows import datum_parameters
from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import ArraySource, LazyArray, Selection
from gently_bluesky.model import Record
from gently_bluesky.opened import open_points
from gently_bluesky.progress import terminal_bar
from gently_bluesky.upkeep.asset_check import Opened
from gently_bluesky.upkeep.verification import Progress
from gently_bluesky.upkeep.verify import Wanted
from gently_bluesky.wording import many

__all__ = ["opener", "progress_bar", "wanted_of"]


def wanted_of(index: Index, uids: str | Iterable[str]) -> list[Wanted]:
    """Return what these uids of runs, assets and datums name. Raises UnknownUid, AmbiguousUid."""
    found: list[Wanted] = []
    for uid in [uids] if isinstance(uids, str) else uids:
        record = index.record(uid)
        run = index.record(record.run_uid)
        if record.kind == "datum":
            document = index.datum_document(record.uid)
            asset = str(document.get("resource") or document.get("stream_resource"))
            found.append(Wanted(run, asset, record.uid))
        else:
            found.append(Wanted(run, record.uid if record.kind == "asset" else None))
    return found


def opener(places: Places, index: Index) -> Callable[[str, str | None], Sequence[Opened]]:
    """Return what opens the announced events of an asset that lies elsewhere, or that another writer made.

    It raises as `foreign_source`; LookupFailed where nothing installed here opens it.
    """

    def open_asset(uid: str, datum: str | None) -> Sequence[Opened]:
        record = index.record(uid)
        try:
            means = means_of(places, index, record)
        except LookupFailed:
            _require_there(places, index, record)
            raise
        points = index.points_of_asset(uid)
        if means.backend is not None:
            count = max((point.point_number or 0 for point in points), default=-1) + 1
            source = foreign_source(places, index, record, count, means)
            return [Opened(place_of(places, index, record), source, means.backend, record.metadata)]
        wanted = [point for point in points if datum in (None, point.datum_uid)]
        return [
            Opened(place_of(places, index, record), _Read(array), datums=[point.datum_uid for point in group])
            for group, array in _arrays(places, index, record, wanted)
        ]

    return open_asset


def _require_there(places: Places, index: Index, record: Record) -> None:
    path = place_of(places, index, record)
    if not has_files_at(path):
        raise AssetMissing(f"{path} is not there")


def _arrays(
    places: Places, index: Index, record: Record, points: Sequence[Point]
) -> list[tuple[Sequence[Point], LazyArray]]:
    """Return the arrays of some events of an asset: one, or one for each thing in it that its datums tell of."""
    try:
        return [(points, open_points(places, index, record, points))]
    except AmbiguousArray:
        groups: dict[str, list[Point]] = {}
        for point in points:
            told = datum_parameters(index.datum_document(point.datum_uid)["datum_kwargs"])
            groups.setdefault(repr(sorted(told.items())), []).append(point)
        return [(group, open_points(places, index, record, group)) for group in groups.values()]


class _Read(ArraySource):
    """A lazy array as a source."""

    def __init__(self, array: LazyArray) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self._array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of the array."""
        return self._array.chunks

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read slices; raises as the array."""
        return self._array[selection].compute()


@contextmanager
def progress_bar(progress: bool | Callable[[Progress], object]) -> Generator[Callable[[Progress], object]]:
    """Give what is to be called while a pass goes on: a bar's, if a terminal is there to show it, or the caller's."""
    if callable(progress):
        yield progress
        return
    with terminal_bar("Verifying", wanted=progress) as show:

        def tell(now: Progress) -> None:
            found = f", {many(now.findings, 'finding')}" if now.findings else ""
            words = (
                f"{bytes_text(now.nbytes)} of {bytes_text(now.total_nbytes)}, {many(now.runs, 'run')}{found}"
            )
            show(now.nbytes, now.total_nbytes, words)

        yield tell
