"""HDF5 datasets of other writers, also while they are written (SWMR). A file is open only during a read.

Files that a file names (external links, virtual and external datasets) are followed only where reading is
allowed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import AssetDamaged, AssetMissing, MissingExtra
from gently_bluesky.files import open_plain
from gently_bluesky.foreign.base import EventSource, Places, box_around, count_of, plausible, translated
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.foreign.rows import cut_as_declared, cut_by_rows, name_of_dataset
from gently_bluesky.lazy import ArraySource

try:
    import h5py
except ImportError as error:
    raise MissingExtra(
        "HDF5 files are read by h5py, which is not installed; nothing was read; pip install 'gently-bluesky[hdf5]'"
    ) from error
with suppress(ImportError):
    import hdf5plugin  # pyright: ignore[reportMissingImports, reportUnusedImport] # noqa: F401 # more ways to decompress, where it is there

__all__ = ["open_area_detector", "open_dataset", "open_swmr_stream", "takes_from_others"]

AREA_DETECTOR_DATASET = "/entry/data/data"
MOST_NAMES = 64
MOST_LINKS = 8
MOST_OBJECTS = 10_000
CACHE_BYTES = 2**20
"""Larger chunks, which are frames, go past HDF5's cache: through it they take three times as long."""


def open_area_detector(asset: ForeignAsset) -> ArraySource:
    """Open ``AD_HDF5``: ``frame_per_point`` rows of ``/entry/data/data`` for each event, ``(frame, y, x)``."""
    return _Hdf5Rows(asset, AREA_DETECTOR_DATASET, count_of(asset, "frame_per_point", 1))


def open_dataset(asset: ForeignAsset) -> ArraySource:
    """Open ``application/x-hdf5``: the dataset that ``parameters`` name, cut into events as the descriptor says."""
    return _Hdf5Rows(asset, _checked_name(asset, name_of_dataset(asset)))


def open_swmr_stream(asset: ForeignAsset) -> ArraySource:
    """Open ``AD_HDF5_SWMR_STREAM``: a resource that says what a stream_resource of ``application/x-hdf5`` does.

    Where it names no dataset, that is the area detectors'; where it gives ``frame_per_point``, an event has so
    many rows.
    """
    named = name_of_dataset(asset)
    dataset = _checked_name(asset, AREA_DETECTOR_DATASET if named is None else named)
    rows = count_of(asset, "frame_per_point", 1) if "frame_per_point" in asset.kwargs else None
    return _Hdf5Rows(asset, dataset, rows)


def takes_from_others(path: Path) -> bool:
    """Say whether a file names others, by links or for pixels: then it is not whole where these are not beside it.

    Of a file of very many objects it is assumed.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        It cannot be read.
    """
    with translated(path), _file(path) as file:
        groups, seen = [file], 0
        while groups:
            group = groups.pop()
            for name in group:
                seen += 1
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink) or seen > MOST_OBJECTS:
                    return True
                if isinstance(link, h5py.SoftLink):
                    continue
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset) and _is_fed(item):
                    return True
    return False


def _is_fed(dataset: Any) -> bool:
    sources = dataset.virtual_sources() if dataset.is_virtual else ()
    return bool(dataset.external) or any(source.file_name != "." for source in sources)


def _checked_name(asset: ForeignAsset, name: object) -> str:
    if not isinstance(name, str) or "\0" in name:
        raise AssetDamaged(
            f"{asset.path}: expected a text as 'dataset' in what announced it, got {name!r:.100}; nothing was read"
        )
    return name


class _Hdf5Rows(EventSource):
    """Rows of a dataset, so many for each event; with None as they were declared."""

    def __init__(self, asset: ForeignAsset, dataset: str, rows_per_event: int | None = None) -> None:
        self._path: Path = asset.path
        self._name: str = dataset
        self._roots: Roots = asset.roots
        with self._opened() as opened:
            _check(opened, rows_per_event or 1, self._roots)
            lengths, dtype, chunks = opened.shape, opened.dtype, opened.chunks
        cut = (
            cut_as_declared(asset, dataset, lengths)
            if rows_per_event is None
            else cut_by_rows(asset, dataset, lengths, rows_per_event)
        )
        self._rows: int | None = cut.rows
        self._chunk: tuple[int, ...] | None = chunks
        super().__init__(cut.events, cut.stored, dtype, cut.shape)

    @property
    def stored_chunks(self) -> tuple[int, ...]:
        """Lengths of what is read at once: the dataset's chunks."""
        if self._chunk is None:
            return super().stored_chunks
        rows, *rest = self._chunk
        if self._rows is None:
            return (rows, *rest)
        return (max(1, rows // self._rows), min(rows, self._rows), *rest)

    def read_events(self, events: NDArray[np.intp], inner: Places, out: NDArray[Any]) -> None:
        """Read neighbouring events together, by boxes around what is selected of each."""
        boxes = [box_around(along) for along in inner]
        whole = [box for box, _ in boxes]
        regular = all(isinstance(kept, slice) for _, kept in boxes)
        together = regular and (self._rows is None or len(inner[0]) == self._rows)
        cuts = np.flatnonzero(np.diff(events) != 1) + 1 if together else np.arange(1, len(events))
        with self._opened() as dataset:
            for run in np.split(np.arange(len(events)), cuts):
                first, count = int(events[run[0]]), len(run)
                target = out[run[0] : run[-1] + 1]
                place = self._place(first, count, whole)
                if regular:
                    dataset.read_direct(target.reshape(_lengths(place)), place)
                    continue
                block = dataset[place].reshape(1, *_lengths(whole))
                for axis, (_, kept) in enumerate(boxes, 1):
                    block = block[(slice(None),) * axis + (kept,)]
                target[...] = block

    def _place(self, first: int, count: int, boxes: Sequence[slice]) -> tuple[slice, ...]:
        """Return where the boxes of neighbouring events stand in the dataset; of several, with all of their rows."""
        if self._rows is None:
            return (slice(first, first + count, 1), *boxes)
        if count > 1:
            return (slice(first * self._rows, (first + count) * self._rows, 1), *boxes[1:])
        rows, by = boxes[0], first * self._rows
        return (slice(rows.start + by, rows.stop + by, rows.step), *boxes[1:])

    @contextmanager
    def _opened(self) -> Generator[Any]:
        path = self._roots.allowed(self._path, self._path.name)
        with translated(path), _filters_named(path), _file(path) as file:
            yield _found(file, self._name, path, self._roots)


def _file(path: Path) -> Any:
    """Open a file, whether it is still being written or not."""
    with open_plain(path):  # says what is wrong in the system's words
        pass
    try:
        return h5py.File(path, "r", swmr=True, libver="latest", rdcc_nbytes=CACHE_BYTES)
    except (OSError, ValueError):
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)


def _found(file: Any, name: str, path: Path, roots: Roots, links: int = 0) -> Any:
    """Return what is at a path in a file; links to other files are followed where these may be read."""
    names = [part for part in name.split("/") if part]
    if not names or len(names) > MOST_NAMES or links > MOST_LINKS:
        raise AssetDamaged(f"{path}: expected the path of a dataset, got {name!r:.100}; nothing was read")
    place: Any = file
    for part in names:
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            raise AssetMissing(
                f"{path} has no dataset {name!r:.100}; no pixels were returned; if its writer is still at it, try "
                "again"
            )
        if isinstance(link, h5py.ExternalLink):
            roots.allowed(path.parent / link.filename, f"the file that a link in {path.name} names")
        if isinstance(link, h5py.SoftLink):
            target = link.path if link.path.startswith("/") else f"{place.name}/{link.path}"
            place = _found(place.file, target, path, roots, links + 1)
        else:
            place = place[part]
    return place


def _check(dataset: Any, rows: int, roots: Roots) -> None:
    """Refuse a dataset that holds no numbers, claims what it cannot hold, or takes it from elsewhere."""
    if not isinstance(dataset, h5py.Dataset) or not dataset.ndim:
        raise ValueError(f"{dataset.name} is no dataset with events along its first axis")
    path = Path(dataset.file.filename)
    if dataset.external:
        raise ValueError(f"{dataset.name} takes its bytes from other files")
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                roots.allowed(path.parent / source.file_name, f"a file that {path.name} takes pixels from")
        names = {str(source.file_name) for source in dataset.virtual_sources()}
        files = [path if name == "." else path.parent / name for name in names]
        stored = sum(file.stat().st_size for file in files if file.exists())
        plausible((rows, *dataset.shape[1:]), dataset.dtype, stored)
        return
    stored = dataset.id.get_storage_size()
    if dataset.size and not stored:
        raise EOFError(f"nothing of {dataset.name} was ever written")
    plausible((rows, *dataset.shape[1:]), dataset.dtype, stored)


def _lengths(boxes: Sequence[slice]) -> tuple[int, ...]:
    return tuple(len(range(box.start, box.stop, box.step)) for box in boxes)


@contextmanager
def _filters_named(path: Path) -> Generator[None]:
    """Say which library is missing where HDF5 says that a filter is."""
    try:
        yield
    except OSError as error:
        if "filter" in str(error).lower() or "plugin" in str(error).lower():
            raise MissingExtra(
                f"{path} is compressed in a way that h5py cannot undo by itself: {error}; no pixels were returned; "
                "pip install hdf5plugin"
            ) from error
        raise
