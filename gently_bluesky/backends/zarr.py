"""Pixels in OME-Zarr 0.5 (Zarr v3): zarr-python composes the hierarchy, TensorStore moves the chunks.

What OME cannot hold (waveforms, 5-D events, other axes) becomes a plain Zarr group of the same build. Chunks
carry a crc32c, so that a flipped bit is an error; an event whose files are gone is an error too, never zeros.
"""

from __future__ import annotations

import operator
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import orjson
from numpy.typing import NDArray

from gently_bluesky.backends.base import DEFAULT_PACKING, Backend, Capabilities, Sink
from gently_bluesky.backends.chunks import Layout, choose_layout
from gently_bluesky.backends.frames import check_frame, frame_kwargs
from gently_bluesky.backends.inspecting import Fault
from gently_bluesky.backends.ledger import Ledger
from gently_bluesky.backends.ome import median_interval_s, ngff_attributes, ome_axes
from gently_bluesky.backends.packing import Choice, check_fit, check_packing, choose
from gently_bluesky.backends.zarr_folders import remove_if_empty
from gently_bluesky.backends.zarr_inspecting import LOCK_SUFFIX, inspect_zarr
from gently_bluesky.backends.zarr_levels import Coarse, LevelMaker, coarse_factors, coarse_shape
from gently_bluesky.backends.zarr_source import ARRAY, ZarrSource, open_published
from gently_bluesky.backends.zarr_writing import ArrayWriter, as_json, when_all_ended
from gently_bluesky.errors import AssetDamaged, InputError
from gently_bluesky.files import (
    create_file,
    is_leftover,
    read_plain,
    side_by_side,
    storage_error,
    sync_folder,
    sync_tree,
    write_atomic,
)
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

__all__ = ["ZarrBackend", "ZarrSink"]

LEVEL = re.compile(r"[0-9]+")


class ZarrBackend(Backend):
    """One OME-Zarr image, or plain Zarr group, per asset; shards of one event."""

    name: ClassVar[str] = "zarr"
    spec: ClassVar[str] = "GENTLY_ZARR"
    suffix: ClassVar[str] = ".ome.zarr"
    mimetype: ClassVar[str | None] = "application/x-zarr"
    part: ClassVar[str] = ARRAY
    capabilities: ClassVar[Capabilities] = Capabilities(ome=True, checksums=True)

    def check_packing(self, packing: Packing) -> None:
        """Refuse chunks and compressions that nothing is known of. Raises InvalidSetting."""
        check_packing(packing)

    def check_fit(self, packing: Packing, spec: ArraySpec) -> None:
        """Refuse lengths of a chunk that do not fit the array. Raises InvalidSetting."""
        check_fit(packing, spec)

    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,
        sample: NDArray[Any] | None = None,
        *,
        sync: str = "event",
    ) -> ZarrSink:
        """Make a new, empty asset at ``path``, which must not exist; with ``sync="event"`` synced on return.

        Raises
        ------
        FileExistsError
            Something is there; it is not touched.
        InvalidSetting
            The chunks asked for do not fit the array.
        StorageError
            The asset cannot be made; nothing is left of it.
        """
        plan = _Plan.of(spec, packing, sample)
        files = _compose_hierarchy(plan)
        try:
            path.mkdir()
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error(error, f"{path} could not be made; nothing was written") from error
        try:
            folders = [path.parent, path]
            for level in range(plan.levels):
                (path / str(level) / "c").mkdir(parents=True)
                folders.append(path / str(level))
            syncs = sync == "event"
            side_by_side(
                [partial(create_file, path / name, data, sync=syncs) for name, data in files.items()]
            )
            if syncs:
                side_by_side([partial(sync_folder, folder) for folder in folders])
            return ZarrSink(path, plan, files, sync)
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
        return open_published(path, resource_kwargs, count)

    def stream_parameters(self, resource_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``chunk_shape`` and ``join_method``: a chunk is what a reader decodes at once, not a shard."""
        chunks = [1, *resource_kwargs["packing"]["chunks"]]
        return {**super().stream_parameters(resource_kwargs), "chunk_shape": chunks}

    def inspect(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterator[Fault]:
        """Look at the metadata, and at the index of each shard; see ``Backend.inspect``."""
        return inspect_zarr(path, resource_kwargs, count)

    def recover(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> None:
        """Set the shape of all levels to ``count``, sweep lock files and empty folders; no shard is deleted.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            See ``Backend.recover``.
        """
        published = self.open(path, resource_kwargs).shape[0]
        try:
            levels = sorted(
                (folder for folder in path.iterdir() if LEVEL.fullmatch(folder.name)),
                key=lambda folder: int(folder.name),
            )
            # As in `publish`: at no time has the full resolution an event that a coarser level lacks.
            ordered = levels if published > count else levels[::-1]
            metadata = {level / "zarr.json": _metadata_of(level / "zarr.json") for level in ordered}
            for folder, _, names in os.walk(path, topdown=False):
                for name in names:
                    if name.endswith(LOCK_SUFFIX) or is_leftover(name):
                        (Path(folder) / name).unlink(missing_ok=True)
                remove_if_empty(Path(folder))
            for file, known in metadata.items():
                if known["shape"][0] != count:
                    write_atomic(file, as_json({**known, "shape": [count, *known["shape"][1:]]}))
        except OSError as error:
            raise storage_error(
                error, f"{path} could not be recovered; announced events are untouched"
            ) from error


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is decided of an asset before anything is made.

    Attributes
    ----------
    factors
        By how much each level is coarser along the axes of one event; the first is the full resolution.
    """

    spec: ArraySpec
    choice: Choice
    factors: tuple[tuple[int, ...], ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def of(cls, spec: ArraySpec, packing: Packing, sample: NDArray[Any] | None) -> _Plan:
        choice = choose(packing, spec, sample)
        coarse = coarse_factors(spec, packing.levels)
        layouts = [
            choose_layout(coarse_shape(spec.shape, factors), spec.dtype.itemsize, choice.chunks)
            for factors in coarse
        ]
        return cls(spec, choice, ((1,) * len(spec.shape), *coarse), (choice.layout, *layouts))

    @property
    def levels(self) -> int:
        return len(self.factors)

    @property
    def packing_kwargs(self) -> dict[str, Any]:
        return self.choice.kwargs(self.levels)


class ZarrSink(Sink):
    """The arrays of one image being written, the full resolution and those made of it."""

    def __init__(self, path: Path, plan: _Plan, files: Mapping[str, bytes], sync: str) -> None:
        self._path: Path = path
        self._plan: _Plan = plan
        self._sync: str = sync
        self._group: dict[str, Any] = orjson.loads(files["zarr.json"])
        self._ledger: Ledger = Ledger(path.name)
        self._arrays: list[ArrayWriter] = [
            ArrayWriter(
                path / str(level), orjson.loads(files[f"{level}/zarr.json"]), layout, syncs=sync == "event"
            )
            for level, layout in enumerate(plan.layouts)
        ]
        coarse = [Coarse(*pair) for pair in zip(plan.factors[1:], self._arrays[1:], strict=True)]
        self._maker: LevelMaker | None = LevelMaker(coarse) if coarse else None
        self._closed: bool = False
        self._is_synced: bool = False

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        """What ``open`` needs, and what a reader wants to know about axes and packing."""
        return {**frame_kwargs(self._plan.spec, self._sync), "packing": self._plan.packing_kwargs}

    def write(self, index: int, frame: NDArray[Any], time: float) -> Future[None]:
        """Begin to store one event's array at ``index``, and its coarser levels; see ``Sink.write``.

        Raises
        ------
        FrameMismatch
            The frame is not what the spec says.
        StorageError
            The folders for it could not be made.
        """
        what = f"{self._path.name}: event {index}"
        if self._closed:
            raise InputError(f"{what} came after the asset was closed; it was not stored")
        check_frame(self._path, self._plan.spec, index, frame)
        self._is_synced = False
        self._ledger.settle(index)
        future = self._arrays[0].write(index, frame, what)
        if self._maker is not None:
            future = when_all_ended([future, self._maker.make(index, frame, what)])
        self._ledger.enter(index, future, time)
        return future

    def publish(self, count: int) -> None:
        """Let outside readers see the events 0 ... count - 1. Where frames are synced, so are folders and shapes.

        Coarser levels come first, so that at no time one lacks an event that the full resolution has.

        Raises
        ------
        InputError, StorageError
            See ``Sink.publish``.
        """
        stored = self._ledger.check(count)
        self._is_synced = False
        try:
            for array in reversed(self._arrays):
                array.publish(count, stored)
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
        if self._closed:
            return
        self._ledger.settle_all()
        self._closed, self._is_synced = True, False
        if self._maker is not None:
            self._maker.close()
        for array in self._arrays:
            array.remove_unused(self._ledger.was_written)
        self._maker, self._arrays = None, []
        times = self._ledger.event_times()
        attributes = self._group["attributes"]
        attributes["gently_bluesky"]["event_time_s"] = times
        if "ome" in attributes:
            attributes["ome"] = _ome_attributes(self._plan, median_interval_s(times))
        try:
            write_atomic(self._path / "zarr.json", as_json(self._group), sync=self._sync == "event")
        except OSError as error:
            what = f"{self._path.name}: the times of its events were not stored, the events are safe"
            raise storage_error(error, what) from error

    def sync(self) -> None:
        """Sync all files and folders, if that was left for the end of the run. See ``Sink.sync``.

        Raises
        ------
        StorageError
            One of them could not be synced.
        """
        if self._sync != "run" or self._is_synced:
            return
        try:
            sync_tree(self._path)
            self._is_synced = True
        except OSError as error:
            raise storage_error(error, f"{self._path.name}: its events could not be synced") from error


def _metadata_of(file: Path) -> dict[str, Any]:
    """Return an array's metadata, which has a shape."""
    try:
        metadata = orjson.loads(read_plain(file))
        operator.index(metadata["shape"][0])
    except (ValueError, LookupError, TypeError, FileNotFoundError) as error:
        raise AssetDamaged(
            f"{file}: expected the metadata of an array of events, {error!r:.200}; nothing was changed"
        ) from error
    return metadata


def _ome_attributes(plan: _Plan, interval_s: float | None = None) -> dict[str, Any]:
    return ngff_attributes(plan.spec, interval_s, plan.factors[1:])


def _compose_hierarchy(plan: _Plan) -> dict[str, bytes]:
    """Let zarr-python make the empty group and arrays in memory; return their files by relative path."""
    # zarr-python takes as long to import as everything else here; readers do without it.
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    spec = plan.spec
    attributes: dict[str, Any] = {
        "gently_bluesky": {
            "origin": dict(spec.origin),
            "dims": ["t", *spec.dims],
            "packing": plan.packing_kwargs,
        }
    }
    axes = ome_axes(spec)
    if axes is not None:
        attributes["ome"] = _ome_attributes(plan)
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), attributes=attributes)
    for level, (factors, layout) in enumerate(zip(plan.factors, plan.layouts, strict=True)):
        group.create_array(
            str(level),
            shape=(0, *coarse_shape(spec.shape, factors)),
            dtype=spec.dtype,
            shards=(1, *layout.shard),
            chunks=(1, *layout.inner),
            compressors=[*map(dict, plan.choice.codecs), Crc32cCodec()],
            dimension_names=["t", *(axes or spec.dims)],
        )
    return {name: data.to_bytes() for name, data in files.items()}
