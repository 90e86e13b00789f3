"""Copies to carry away: arrays in a format of one's choice, with the documents of their run beside them.

A copy knows nothing of the store, and the store nothing of it. It appears under its name when it is whole.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import get_backend
from gently_bluesky.documents.names import asset_name
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.elsewhere import Places
from gently_bluesky.errors import (
    AmbiguousArray,
    AssetDamaged,
    InputError,
    InvalidSetting,
    LookupFailed,
    StorageFull,
)
from gently_bluesky.exported import BackendAsset, Exported, ExportedArray, NumpyFile, Target
from gently_bluesky.files import create_file, remove_tree, storage_error, sync_folder, sync_tree
from gently_bluesky.index.index import Index
from gently_bluesky.jsontext import encode
from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import ArraySpec, Record, storable_dtype
from gently_bluesky.run import Run, Stream
from gently_bluesky.settings import Packing
from gently_bluesky.stored import asset_events, datum_array
from gently_bluesky.upkeep.announced import AnnouncedAssets

__all__ = ["export", "is_copy"]

ARRAYS = "arrays.json"
DOCUMENTS = "documents.jsonl"
UNFINISHED = ".partial"
SCRATCH = "event.scratch"
BLOCK_BYTES = 64 * 2**20
"""Of pixels that are read at once, if no layer of chunks is more."""


Tell = Callable[[int, int, str], object]


def is_copy(path: Path) -> bool:
    """Say whether a folder is a copy that `export` made, into which nothing else belongs."""
    return all((path / name).is_file() for name in (ARRAYS, DOCUMENTS))


def export(places: Places, index: Index, record: Record, path: Path, form: str, tell: Tell) -> Exported:
    """Copy the arrays of a run, or an array or an event, to a new folder; see `StoreView.export`.

    ``tell`` is called with the bytes of pixels that are copied, of how many, and a word of what.
    """
    backend = _backend(form)
    _require_free(path, places.root, places.journals.overflow)
    run = index.record(record.run_uid)
    status = Run(places, index, run).status
    wanted = _wanted(places, index, record)
    total = sum(one.array.nbytes for one in wanted)
    if backend is None or backend.name == "tiff":
        _require_room(path, total)
    known = _Known.of(places, run)
    with _appearing(path) as folder:
        copying = _Copying(folder, backend, run, known, lambda done, what: tell(done, total, what))
        arrays = tuple(copying.array(one) for one in wanted)
        documents = Run(places, index, run).documents()
        lines = b"".join(encode({"name": name, "doc": doc}) + b"\n" for name, doc in documents)
        create_file(folder / DOCUMENTS, lines, sync=False)
        create_file(folder / ARRAYS, encode([asdict(array) for array in arrays]) + b"\n", sync=False)
    return Exported(path, run.uid, status, form, arrays, copying.unchecked)


def _backend(form: str) -> Backend | None:
    """Return what writes a format; None for NumPy's own."""
    if form == "npy":
        return None
    if form == "memory":
        raise InvalidSetting(
            "expected a format that keeps pixels on disk: npy, zarr or tiff, got 'memory'; nothing was copied"
        )
    return get_backend(form)


def _require_free(path: Path, *places: Path | None) -> None:
    if os.path.lexists(path):
        raise InputError(
            f"expected nothing at {path}, where the copy was to go, and something is there; it was not touched and "
            "nothing was copied; name another place"
        )
    if not path.parent.is_dir():
        raise InputError(
            f"expected a folder at {path.parent}, where the copy was to go, there is none; nothing was copied; make "
            "it, or mount its disk"
        )
    if any(place is not None and path.resolve().is_relative_to(place) for place in places):
        raise InputError(
            f"{path} lies in the store, where only what the store keeps belongs; nothing was copied; name a place "
            "outside of it"
        )


def _require_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageFull(
            f"the copy takes {bytes_text(needed)}, {path.parent} has {bytes_text(free)} free; nothing was copied; make "
            "room, or name a place on another disk"
        )


@contextmanager
def _appearing(path: Path) -> Generator[Path]:
    """Give a folder to fill; *synced*, and under its own name, when that is done, or gone if it is not."""
    folder = path.with_name(path.name + UNFINISHED)
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise InputError(
            f"{folder} is there: a copy is just being made, or the process that made one was killed; it was not "
            "touched and nothing was copied; remove it if nobody writes it, or name another place"
        ) from error
    except OSError as error:
        raise storage_error(error, f"{folder} could not be made; nothing was copied") from error
    try:
        yield folder
        sync_tree(folder)
        _require_free(path, folder)
        folder.rename(path)
    except BaseException as error:  # Ctrl-C too: half a copy is none
        remove_tree(folder)
        if isinstance(error, OSError):
            raise storage_error(error, f"{path} could not be written; nothing is left of the copy") from error
        raise
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(
            error, f"{path} is whole, and may not outlive a loss of power: its folder cannot be synced"
        ) from error


# -- what is copied -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An array to be copied: with the event axis in front, or one event."""

    array: LazyArray
    asset: Record
    stream: str
    data_key: str
    number: int = 1
    is_event: bool = False

    @property
    def dims(self) -> tuple[str, ...]:
        return self.array.dims if self.is_event else self.array.dims[1:]

    def events(self) -> Iterator[LazyArray]:
        return iter([self.array] if self.is_event else self.array)

    def spec(self, run: Record) -> ArraySpec:
        first = 0 if self.is_event else 1
        named: Any = self.asset.metadata.get("channel_names", ())
        origin = {"run": run.uid, "time": run.time, "stream": self.stream, "data_key": self.data_key}
        return ArraySpec(
            name=self.data_key,
            shape=self.array.shape[first:],
            dtype=storable_dtype(self.array.dtype),
            dims=self.dims,
            scale=self.array.scale[first:],
            units=self.array.units[first:],
            channel_names=tuple(map(str, named)) if isinstance(named, list | tuple) else (),
            origin=origin,
        )

    @property
    def packing(self) -> Packing:
        """As many resolutions as the store keeps."""
        known: Any = self.asset.metadata.get("packing")
        levels = known.get("levels", 1) if isinstance(known, Mapping) else 1
        return Packing(levels=levels if isinstance(levels, int) and levels > 1 else 1)


def _wanted(places: Places, index: Index, record: Record) -> Sequence[_Wanted]:
    if record.kind == "run":
        found = list(_of_run(places, index, record))
        if not found:
            raise LookupFailed(
                f"run {record.uid} holds no stored arrays; nothing was copied; its values are in its documents: "
                f"{places.root / record.path}"
            )
        return found
    place = record.stream or "", record.data_key or ""
    if record.kind == "asset":
        return [_Wanted(asset_events(places, index, record), record, *place)]
    document = index.datum_document(record.uid)
    asset = index.record(str(document.get("resource") or document.get("stream_resource")))
    array = datum_array(places, index, record)
    one = "stream_resource" not in document or document["indices"]["stop"] - document["indices"]["start"] == 1
    return [_Wanted(array, asset, *place, is_event=one)]


def _of_run(places: Places, index: Index, record: Record) -> Iterator[_Wanted]:
    """Yield the arrays of a run as it shows them; each asset by itself where a data key changed its shape."""
    run = Run(places, index, record)
    for stream, keys in index.streams(record.uid).items():
        for key in keys:
            assets = [index.record(extent.asset_uid) for extent in index.extents(record.uid, stream, key)]
            if not assets:
                continue
            try:
                yield _Wanted(cast("Stream", run[stream])[key], assets[0], stream, key)
            except AmbiguousArray:
                for number, asset in enumerate(assets, 1):
                    yield _Wanted(asset_events(places, index, asset), asset, stream, key, number)


class _Known:
    """What the journal says of events, by the uids of their datums: the digest of their pixels, and when they were."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[str | None, float | None]] = {}

    @classmethod
    def of(cls, places: Places, run: Record) -> _Known:
        announced, is_of_run = AnnouncedAssets(), False
        for line, _ in places.journals.scan(run.path):
            if line.name == "start":
                is_of_run = line.doc.get("uid") == run.uid
            if is_of_run:
                announced.take(line)
        known = cls()
        for uid, asset in announced.by_uid.items():
            several: set[str] = set()
            for place, digest in asset.digests.items():
                said = digest, asset.times.get(place)
                datum = asset.datum_uid(place)
                known._events[f"{uid}/{place}"] = said
                if datum in known._events and datum != f"{uid}/{place}":
                    several.add(datum)  # a stream_datum of many events says nothing of one
                known._events[datum] = said
            for datum in several:
                del known._events[datum]
        return known

    def time(self, event: LazyArray) -> float | None:
        return self._events.get(event.uid, (None, None))[1]

    def is_checked(self, event: LazyArray, pixels: NDArray[Any]) -> bool:
        """Compare pixels with what was announced; say whether anything was. Raises AssetDamaged."""
        announced = self._events.get(event.uid, (None, None))[0]
        if announced is None:
            return False
        found = digest_of_pixels(pixels)
        if found != announced:
            raise AssetDamaged(
                f"event {event.uid}: expected pixels of {announced}, as announced, found {found}; nothing is left of "
                "the copy; verify the store, and restore the event from a copy"
            )
        return True


# -- how it is copied ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Copying:
    """A copy being made."""

    folder: Path
    backend: Backend | None
    run: Record
    known: _Known
    tell: Callable[[int, str], object]
    done: int = 0
    unchecked: int = 0

    def array(self, wanted: _Wanted) -> ExportedArray:
        spec = wanted.spec(self.run)
        suffix = ".npy" if self.backend is None else self.backend.suffix
        name = asset_name(wanted.stream, wanted.data_key, wanted.number, suffix)
        target = self._target(wanted, spec, self.folder / name)
        times: list[float | None] = []
        try:
            for number, event in enumerate(wanted.events()):
                times.append(self.known.time(event))
                self._event(target, number, event, times[-1])
            target.finish(len(times))
        finally:
            target.close()
        return ExportedArray(
            file=name,
            uid=wanted.array.uid,
            stream=wanted.stream,
            data_key=wanted.data_key,
            shape=wanted.array.shape,
            dtype=spec.dtype.str,
            dims=wanted.array.dims,
            scale=wanted.array.scale,
            units=wanted.array.units,
            channel_names=spec.channel_names,
            event_time_s=tuple(times),
        )

    def _target(self, wanted: _Wanted, spec: ArraySpec, path: Path) -> Target:
        if self.backend is None:
            return NumpyFile(path, wanted.array.shape, spec.dtype, is_event=wanted.is_event)
        packing = wanted.packing if self.backend.name == "zarr" else Packing()
        sink = self.backend.create(path, spec, packing, sync="never")
        return BackendAsset(sink, spec, self.folder / SCRATCH)

    def _event(self, target: Target, number: int, event: LazyArray, time_s: float | None) -> None:
        pixels = target.room(number)
        for box in _boxes(event):
            pixels[box] = event[box].compute()
            self.done += pixels[box].nbytes
            self.tell(self.done, event.name)
        self.unchecked += not self.known.is_checked(event, pixels)
        target.store(number, pixels, self.run.time if time_s is None else time_s)


def _boxes(event: LazyArray) -> Iterator[tuple[slice, ...]]:
    """Yield boxes along the chunks, to be read one by one: of `BLOCK_BYTES`, if no layer of chunks is more."""
    lengths = list(event.shape)
    if not event.size:
        return
    for axis, (length, chunk) in enumerate(zip(event.shape, event.chunks, strict=True)):
        one = math.prod(lengths) // length * event.dtype.itemsize
        fitting = BLOCK_BYTES // one // chunk * chunk
        lengths[axis] = min(length, max(fitting, chunk))
        if fitting >= chunk:
            break
    yield from product(
        *(
            [slice(first, min(first + step, length)) for first in range(0, length, step)]
            for length, step in zip(event.shape, lengths, strict=True)
        )
    )
