"""Pixels in OME-TIFF: one uncompressed, contiguous, memory-mappable file per event.

What OME cannot hold (waveforms, 5-D events, 64-bit integers, float16) becomes a plain TIFF of the same build.
A file is written, and synced if events are, under a hidden temporary name; its renaming is its publication, so
that whoever looks into the folder sees whole, published events and nothing else.

Uncompressed TIFF has no checksum: a changed pixel is found by ``verify`` and the journal's digests, not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tifffile
from numpy.typing import NDArray

from gently_bluesky.backends.base import DEFAULT_PACKING, Backend, Capabilities, Sink
from gently_bluesky.backends.frames import check_frame, declared_frame, frame_kwargs
from gently_bluesky.backends.inspecting import Fault, fault_of
from gently_bluesky.backends.ledger import Ledger
from gently_bluesky.backends.ome import tiff_metadata
from gently_bluesky.backends.page_cache import NewestFiles
from gently_bluesky.backends.planes import TRUSTED_EVENTS, as_bytes
from gently_bluesky.backends.tiff_inspecting import inspect_tiff
from gently_bluesky.backends.tiff_layout import (
    EVENT_FILE,
    check_folder,
    count_events,
    planes_shape,
    stored_dtype,
)
from gently_bluesky.backends.tiff_source import TiffSource
from gently_bluesky.errors import AssetDamaged, InputError
from gently_bluesky.files import replace_file, storage_error, sync_folder, sync_tree, write_all
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["TiffBackend", "TiffSink"]

OME_TEMPLATE = "{:06d}.ome.tif"
PLAIN_TEMPLATE = "{:06d}.tif"
TEMPORARY = ".partial"
UNANNOUNCED = ".unannounced"
WRITERS = 2
BIGTIFF_NBYTES = 2**32 - 2**26
"""Above it offsets may not fit 32 bits; there is room for the metadata."""


class TiffBackend(Backend):
    """A folder of TIFF files, one per event."""

    name: ClassVar[str] = "tiff"
    spec: ClassVar[str] = "GENTLY_TIFF"
    mimetype: ClassVar[str | None] = "multipart/related;type=image/tiff"
    suffix: ClassVar[str] = ""
    capabilities: ClassVar[Capabilities] = Capabilities(ome=True)

    def check_packing(self, packing: Packing) -> None:
        """Take ``compression="none"``, which is what it does; nothing else. Raises InvalidSetting."""
        if packing != Packing(compression="none"):
            super().check_packing(packing)

    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,  # noqa: ARG002 # there is one way only
        sample: NDArray[Any] | None = None,  # noqa: ARG002
        *,
        sync: str = "event",
    ) -> TiffSink:
        """Make a new, empty folder at ``path``, which must not exist; with ``sync="event"`` synced on return.

        Raises
        ------
        FileExistsError
            Something is there; it is not touched.
        StorageError
            The folder cannot be made.
        """
        try:
            path.mkdir()
            if sync == "event":
                sync_folder(path.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error(error, f"{path} could not be made; nothing was written") from error
        return TiffSink(path, spec, sync)

    def open(self, path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> TiffSource:
        """Open an asset as ``(t, ...)``: all events published by now. Reads no pixels. Any thread.

        With a ``count`` of events that are known to be published the folder is not listed, and just those are
        opened.

        Raises
        ------
        AssetMissing
            Nothing is at ``path``.
        AssetDamaged
            What is there is not a folder of events, or ``resource_kwargs`` is not what this backend writes.
        """
        shape, dtype = declared_frame(path, resource_kwargs)
        template = _declared_template(path, resource_kwargs)
        if count is None or count > TRUSTED_EVENTS:
            count = count_events(path)
        else:
            check_folder(path)
        return TiffSource(path, template, (count, *shape), dtype)

    def inspect(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterator[Fault]:
        """Look at the header and the size of each file; see ``Backend.inspect``."""
        try:
            shape, dtype = declared_frame(path, resource_kwargs)
            template = _declared_template(path, resource_kwargs)
        except AssetDamaged as error:
            yield fault_of(path, error, range(count))
            return
        yield from inspect_tiff(path, template, shape, dtype, count, TEMPORARY)

    def recover(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> None:
        """Remove temporary files; give files of events from ``count`` on, never announced, another name.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            See ``Backend.recover``.
        """
        self.open(path, resource_kwargs)
        try:
            for file in list(path.iterdir()):
                event = EVENT_FILE.fullmatch(file.name)
                if file.name.endswith(TEMPORARY):
                    file.unlink(missing_ok=True)
                elif event and int(event[1]) >= count:
                    replace_file(file, file.with_name(file.name + UNANNOUNCED))
            sync_folder(path)
        except OSError as error:
            raise storage_error(
                error, f"{path} could not be recovered; announced events are untouched"
            ) from error


class TiffSink(Sink):
    """Files being written by two threads of its own; renamed, and so published, by ``publish``."""

    def __init__(self, path: Path, spec: ArraySpec, sync: str) -> None:
        self._path: Path = path
        self._spec: ArraySpec = spec
        self._sync: str = sync
        self._template: str = PLAIN_TEMPLATE if tiff_metadata(spec, 0.0) is None else OME_TEMPLATE
        self._ledger: Ledger = Ledger(path.name)
        self._newest: NewestFiles = NewestFiles()
        self._writers: ThreadPoolExecutor | None = ThreadPoolExecutor(WRITERS, "gently-bluesky-tiff")
        self._is_synced: bool = False

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        """What ``open`` needs, and what a reader wants to know of the axes; bool stays bool here."""
        return {**frame_kwargs(self._spec, self._sync), "template": self._template}

    def write(self, index: int, frame: NDArray[Any], time: float) -> Future[None]:
        """Begin to store one event's array at ``index``; see ``Sink.write``.

        Raises
        ------
        FrameMismatch
            The frame is not what the spec says.
        """
        if self._writers is None:
            raise InputError(
                f"{self._path.name}: event {index} came after the asset was closed; it was not stored"
            )
        check_frame(self._path, self._spec, index, frame)
        self._is_synced = False
        self._ledger.settle(index)
        try:
            future = self._writers.submit(self._store, index, frame, time)
        except RuntimeError:  # the interpreter is exiting and starts nothing on other threads
            future = self._store_here(index, frame, time)
        self._ledger.enter(index, future, time)
        return future

    def publish(self, count: int) -> None:
        """Let outside readers see the events 0 ... count - 1, by their names. Synced where frames are.

        Raises
        ------
        InputError, StorageError
            See ``Sink.publish``; where renaming fails half way, readers see the first of them.
        """
        stored = self._ledger.check(count)
        self._is_synced = False
        try:
            for index in stored:
                if (temporary := self._temporary(index)).exists():
                    replace_file(temporary, self._file(index))
            self._sync_names()
        except OSError as error:
            raise storage_error(error, f"{self._path.name}: {count} events could not be published") from error
        self._newest.add(str(self._file(index)) for index in stored)
        self._ledger.published(stored, count)

    def close(self) -> None:
        """Wait for writes under way, remove what was not published, end the threads. Idempotent.

        Raises
        ------
        StorageError
            A frame that replaces a published one could not take its place.
        """
        if self._writers is None:
            return
        self._is_synced = False
        leftover = self._ledger.settle_all()
        self._writers.shutdown()
        self._writers = None
        try:
            for index in leftover:
                temporary = self._temporary(index)
                if index < self._ledger.count and temporary.exists():
                    replace_file(temporary, self._file(index))
                temporary.unlink(missing_ok=True)
            self._sync_names()
        except OSError as error:
            what = f"{self._path.name}: files could not be tidied up, published events are safe"
            raise storage_error(error, what) from error

    def sync(self) -> None:
        """Sync all files and their folder, if that was left for the end of the run. See ``Sink.sync``.

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

    def _sync_names(self) -> None:
        if self._sync == "event":
            sync_folder(self._path)

    def _file(self, index: int) -> Path:
        return self._path / self._template.format(index)

    def _temporary(self, index: int) -> Path:
        return self._path / f".{self._template.format(index)}{TEMPORARY}"

    def _store_here(self, index: int, frame: NDArray[Any], time: float) -> Future[None]:
        future: Future[None] = Future()
        try:
            future.set_result(self._store(index, frame, time))
        except Exception as error:  # noqa: BLE001 # told to whoever asks for the result
            future.set_exception(error)
        return future

    def _store(self, index: int, frame: NDArray[Any], time: float) -> None:
        temporary = self._temporary(index)
        try:
            with _WholeWrites(temporary, "w+") as file:
                offset = _write_header(file, self._spec, time)
                file.seek(offset)
                # Not left to tifffile: numpy's tofile forgets the system's error number.
                write_all(file.fileno(), as_bytes(frame))
                if self._sync == "event":
                    os.fsync(file.fileno())
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise storage_error(error, f"{self._path.name}: event {index} was not stored") from error
            raise


class _WholeWrites(FileIO):
    """A file that takes all it is given: the system may take less at once, and tifffile does not look."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write every byte. Raises OSError."""
        whole = bytes(data)
        write_all(self.fileno(), whole)
        return len(whole)


def _declared_template(path: Path, resource_kwargs: Mapping[str, Any]) -> str:
    template = resource_kwargs.get("template")
    if template not in (OME_TEMPLATE, PLAIN_TEMPLATE):
        raise AssetDamaged(
            f"{path}: expected template {OME_TEMPLATE!r} or {PLAIN_TEMPLATE!r}, got {template!r}"
        )
    return template


def _write_header(file: FileIO, spec: ArraySpec, time: float) -> int:
    """Write all of a TIFF but the pixels; return where they go."""
    metadata = tiff_metadata(spec, time)
    written = tifffile.imwrite(
        file,
        None,
        shape=planes_shape(spec.shape),
        dtype=stored_dtype(spec.dtype),
        byteorder="<",
        bigtiff=spec.nbytes > BIGTIFF_NBYTES,
        ome=metadata is not None,
        photometric="minisblack",
        metadata={} if metadata is None else metadata,
        software="gently-bluesky",
        returnoffset=True,
    )
    if written is None:
        raise InputError(f"{spec.name}: tifffile would not write {spec.shape} {spec.dtype} in one piece")
    return written[0]
