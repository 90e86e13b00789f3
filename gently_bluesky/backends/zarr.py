"""Pixels in OME-Zarr 0.5 (Zarr v3): zarr-python composes the hierarchy, TensorStore moves the chunks.

What OME cannot hold (waveforms, 5-D events, other axes) becomes a plain Zarr group of the same build. Chunks
carry a crc32c, so that a flipped bit is an error; an event whose files are gone is an error too, never zeros.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import orjson
import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.base import (
    DEFAULT_PACKING,
    Backend,
    Capabilities,
    Sink,
    check_frame,
    frame_kwargs,
)
from gently_bluesky.backends.chunks import Layout, choose_layout
from gently_bluesky.backends.ledger import Ledger
from gently_bluesky.backends.ome import median_interval_s, ngff_attributes, ome_axes
from gently_bluesky.backends.zarr_source import ARRAY, NO_CACHE, ZarrSource, kvstore, open_published
from gently_bluesky.backends.zarr_writing import ShardWriter
from gently_bluesky.errors import InputError
from gently_bluesky.files import storage_error, sync_folder, write_atomic
from gently_bluesky.model import ArraySpec, Packing

__all__ = ["ZarrBackend", "ZarrSink"]

UNBOUNDED_EVENTS = 1 << 40
PREPARED_FOLDERS = 64
LOCK_SUFFIX = ".__lock"
"""Of what TensorStore writes before it renames; a kill leaves them."""


class ZarrBackend(Backend):
    """One OME-Zarr image, or plain Zarr group, per asset; shards of one event.

    Parameters
    ----------
    chunks
        ``"planes"`` (inner chunks of 1 x 512 x 512: a plane costs a plane), ``"blocks"`` (4 x 256 x 256: for
        cutting in every direction), or the lengths of an inner chunk along the axes of one event.
    """

    name: ClassVar[str] = "zarr"
    spec: ClassVar[str] = "GENTLY_ZARR"
    suffix: ClassVar[str] = ".ome.zarr"
    capabilities: ClassVar[Capabilities] = Capabilities(ome=True, checksums=True)

    def __init__(self, chunks: str | tuple[int, ...] = "planes") -> None:
        self._chunks: str | tuple[int, ...] = chunks

    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,
        sample: NDArray[Any] | None = None,
    ) -> ZarrSink:
        """Make a new, empty asset at ``path``, which must not exist; synced on return.

        Raises
        ------
        FileExistsError
            Something is there; it is not touched.
        InvalidSetting
            The chunks asked for do not fit the array.
        StorageError
            The asset cannot be made; nothing is left of it.
        """
        layout = choose_layout(spec.shape, spec.dtype.itemsize, self._chunks)
        files = _compose_hierarchy(spec, layout)
        try:
            path.mkdir()
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error(error, f"{path} could not be made; nothing was written") from error
        try:
            (path / ARRAY / "c").mkdir(parents=True)
            for name, data in files.items():
                write_atomic(path / name, data)
            sync_folder(path.parent)
            return ZarrSink(path, spec, layout, files)
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise storage_error(error, f"{path} could not be made; nothing was written") from error
            raise

    def open(self, path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> ZarrSource:
        """Open an asset as ``(t, ...)``: all events published by now. Reads no pixels. Any thread.

        Raises
        ------
        AssetMissing
            Nothing is at ``path``.
        AssetDamaged
            What is there is not what ``resource_kwargs`` says.
        """
        return open_published(path, resource_kwargs)

    def recover(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> None:
        """Set the published shape to ``count``, sweep lock files and empty folders; no shard is deleted.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            See ``Backend.recover``.
        """
        published = self.open(path, resource_kwargs).shape[0]
        try:
            for folder, _, names in os.walk(path, topdown=False):
                for name in names:
                    if name.endswith(LOCK_SUFFIX) or (
                        name.startswith(".zarr.json.") and name.endswith(".tmp")
                    ):
                        (Path(folder) / name).unlink(missing_ok=True)
                _remove_if_empty(Path(folder))
            if published != count:
                metadata = orjson.loads((path / ARRAY / "zarr.json").read_bytes())
                metadata["shape"][0] = count
                write_atomic(path / ARRAY / "zarr.json", _json(metadata))
        except OSError as error:
            raise storage_error(
                error, f"{path} could not be recovered; announced events are untouched"
            ) from error


class ZarrSink(Sink):
    """One Zarr array being written through a handle without bounds; what readers see is ``publish``'s alone.

    Writing beyond the shape that is on disk needs a handle that was not told it: a resize first would show
    zeros.
    """

    def __init__(self, path: Path, spec: ArraySpec, layout: Layout, files: Mapping[str, bytes]) -> None:
        self._path: Path = path
        self._spec: ArraySpec = spec
        self._metadata: dict[str, Any] = orjson.loads(files[f"{ARRAY}/zarr.json"])
        self._group: dict[str, Any] = orjson.loads(files["zarr.json"])
        array = _open_unbounded(path, self._metadata)
        self._writer: ShardWriter | None = ShardWriter(array, layout.shard)
        self._ledger: Ledger = Ledger(path.name)
        # Folders above the shards: one for each place along each axis of an event but the last.
        self._folder_grid: tuple[int, ...] = tuple(map(_ceil_div, spec.shape, layout.shard))[:-1]
        self._prepared: set[int] = set()

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        """What ``open`` needs, and what a reader wants to know about the axes."""
        return frame_kwargs(self._spec)

    def write(self, index: int, frame: NDArray[Any], time: float) -> Future[None]:
        """Begin to store one event's array at ``index``; see ``Sink.write``.

        Raises
        ------
        FrameMismatch
            The frame is not what the spec says.
        StorageError
            The folders for it could not be made.
        """
        what = f"{self._path.name}: event {index}"
        if self._writer is None:
            raise InputError(f"{what} came after the asset was closed; it was not stored")
        check_frame(self._path, self._spec, index, frame)
        self._ledger.settle(index)
        self._prepare_folders(index)
        future = self._writer.write(index, frame, what)
        self._ledger.enter(index, future, time)
        return future

    def publish(self, count: int) -> None:
        """Let outside readers see the events 0 ... count - 1. Synced on return: pixels, folders and shape.

        Raises
        ------
        InputError, StorageError
            See ``Sink.publish``.
        """
        stored = self._ledger.check(count)
        self._metadata["shape"][0] = count
        try:
            write_atomic(self._path / ARRAY / "zarr.json", _json(self._metadata))
        except OSError as error:
            raise storage_error(error, f"{self._path.name}: {count} events could not be published") from error
        self._ledger.published(stored, count)

    def close(self) -> None:
        """Wait for writes under way, write the times of the events, let go of the files. Idempotent.

        Raises
        ------
        StorageError
            The times could not be written; the events are safe.
        """
        if self._writer is None:
            return
        self._ledger.settle_all()
        self._writer = None
        self._remove_unused_folders()
        times = self._ledger.event_times()
        attributes = self._group["attributes"]
        attributes["gently_bluesky"]["event_time_s"] = times
        if "ome" in attributes:
            attributes["ome"] = ngff_attributes(self._spec, median_interval_s(times))
        try:
            write_atomic(self._path / "zarr.json", _json(self._group))
        except OSError as error:
            what = f"{self._path.name}: the times of its events were not stored, the events are safe"
            raise storage_error(error, what) from error

    def _prepare_folders(self, index: int) -> None:
        """Make and sync the folders of an event: TensorStore syncs only the folder that the shard is in.

        Made for more and more events ahead: syncing them one by one between the writes costs a third of the
        speed.
        """
        if index in self._prepared or not self._spec.shape:
            return
        ahead = min(len(self._prepared), PREPARED_FOLDERS // (1 + prod(self._folder_grid)))
        chunks = self._path / ARRAY / "c"
        events = range(index, index + 1 + ahead)
        try:
            for event in events:
                _make_synced(chunks / str(event), self._folder_grid)
            sync_folder(chunks)
        except OSError as error:
            raise storage_error(error, f"{self._path.name}: event {index} was not stored") from error
        self._prepared.update(events)

    def _remove_unused_folders(self) -> None:
        for event in self._prepared:
            if not self._ledger.was_written(event):
                for folder, _, _ in os.walk(self._path / ARRAY / "c" / str(event), topdown=False):
                    _remove_if_empty(Path(folder))


def _open_unbounded(path: Path, metadata: Mapping[str, Any]) -> ts.TensorStore:
    unbounded = {
        key: value for key, value in metadata.items() if key not in {"attributes", "storage_transformers"}
    }
    unbounded["shape"] = [UNBOUNDED_EVENTS, *metadata["shape"][1:]]
    spec = {
        "driver": "zarr3",
        "kvstore": kvstore(path),
        "metadata": unbounded,
        "store_data_equal_to_fill_value": True,
    }
    context = ts.Context({"file_io_sync": True, **NO_CACHE})
    return ts.open(spec, open=True, assume_metadata=True, context=context).result()


def _compose_hierarchy(spec: ArraySpec, layout: Layout) -> dict[str, bytes]:
    """Let zarr-python make the empty group and array in memory; return its files by relative path."""
    # zarr-python takes as long to import as everything else here; readers do without it.
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import MemoryStore

    attributes: dict[str, Any] = {"gently_bluesky": {"origin": dict(spec.origin), "dims": ["t", *spec.dims]}}
    axes = ome_axes(spec)
    if axes is not None:
        attributes["ome"] = ngff_attributes(spec)
    files: dict[str, Any] = {}
    # Bitshuffle pays for 1-byte pixels too: it gathers the high bits, which are mostly alike.
    blosc = BloscCodec(typesize=spec.dtype.itemsize, cname="lz4", clevel=1, shuffle="bitshuffle")
    zarr.create_group(MemoryStore(files), attributes=attributes).create_array(
        ARRAY,
        shape=(0, *spec.shape),
        dtype=spec.dtype,
        shards=(1, *layout.shard),
        chunks=(1, *layout.inner),
        compressors=[blosc, Crc32cCodec()],
        dimension_names=["t", *(axes or spec.dims)],
    )
    return {name: data.to_bytes() for name, data in files.items()}


def _make_synced(folder: Path, grid: tuple[int, ...]) -> None:
    folder.mkdir(exist_ok=True)
    for place in range(grid[0] if grid else 0):
        _make_synced(folder / str(place), grid[1:])
    if grid:
        sync_folder(folder)


def _remove_if_empty(folder: Path) -> None:
    # Not empty, or gone: both are fine.
    with suppress(OSError):
        folder.rmdir()


def _ceil_div(length: int, piece: int) -> int:
    return -(-length // piece)


def _json(metadata: Mapping[str, Any]) -> bytes:
    return orjson.dumps(metadata, option=orjson.OPT_INDENT_2)
