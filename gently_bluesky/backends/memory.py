"""Pixels in memory that processes share: quick to keep and to read, *stored*, and never *synced*.

At the asset's path lies a small file that names a segment folder (see ``segments``); in that folder is one
raw file for each event, hidden until it is published. The pixels survive the death of every process and no
restart of the machine; whoever wants to keep them converts them.

Nothing has a checksum: a changed pixel is found by ``verify`` and the journal's digests, not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import orjson
from numpy.typing import NDArray

from gently_bluesky.backends.base import DEFAULT_PACKING, Backend, Capabilities, Sink
from gently_bluesky.backends.frames import check_frame, declared_frame, frame_kwargs
from gently_bluesky.backends.inspecting import Fault, fault_of
from gently_bluesky.backends.ledger import Ledger
from gently_bluesky.backends.memory_source import (
    EVENT_FILE,
    MemorySource,
    count_events,
    event_name,
    find_pixels,
    inspect_events,
    read_place,
)
from gently_bluesky.backends.planes import as_bytes
from gently_bluesky.errors import GentlyError, InputError
from gently_bluesky.files import (
    create_file,
    remove_tree,
    replace_file,
    storage_error,
    sync_folder,
    write_all,
)
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec
from gently_bluesky.segments import (
    BINARY,
    Segment,
    create_segment,
    owner_of,
    remove_segment,
    shared_folder,
)
from gently_bluesky.settings import Packing

__all__ = ["MemoryBackend", "MemorySink", "drop_segment"]


class MemoryBackend(Backend):
    """Raw files in shared memory, one per event, and a small file on disk that says where."""

    name: ClassVar[str] = "memory"
    spec: ClassVar[str] = "GENTLY_MEMORY"
    suffix: ClassVar[str] = ".memory"
    capabilities: ClassVar[Capabilities] = Capabilities()

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
        sync: str = "event",  # noqa: ARG002 # no way of syncing has anything to do here
    ) -> MemorySink:
        """Make a new, empty asset at ``path``, which must not exist; the file there is synced on return.

        Raises
        ------
        FileExistsError
            Something is there; it is not touched.
        StorageError
            The file or its segment cannot be made; nothing is left of them.
        """
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is there already; it was not touched")
        segment: Segment | None = None
        try:
            segment = create_segment(path)
            said = {"segment": segment.name, "frame_shape": list(spec.shape), "dtype": spec.dtype.str}
            create_file(path, orjson.dumps(said))
            sync_folder(path.parent)
        except BaseException as error:
            if segment is not None:
                segment.let_go()
                with suppress(OSError):  # what is raised is why there is no asset; it is swept later
                    remove_segment(segment.name)
            if isinstance(error, OSError) and not isinstance(error, FileExistsError):
                remove_tree(path)
                raise storage_error(error, f"{path} could not be made; nothing was written") from error
            raise
        return MemorySink(path, spec, segment)

    def open(self, path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> ArraySource:
        """Open an asset as ``(t, ...)``: all events published by now. Reads no pixels. Any thread.

        Raises
        ------
        AssetMissing
            Nothing is at ``path``, or its pixels went with a restart of the machine.
        AssetDamaged
            What is there is not what ``resource_kwargs`` says.
        """
        shape, dtype = declared_frame(path, resource_kwargs)
        folder = find_pixels(path, read_place(path), shape, dtype)
        events = count_events(path, folder) if count is None else count
        return MemorySource(path, folder, (events, *shape), dtype)

    def inspect(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterator[Fault]:
        """Look at the size of each event's file; see ``Backend.inspect``."""
        try:
            shape, dtype = declared_frame(path, resource_kwargs)
            folder = find_pixels(path, read_place(path), shape, dtype)
            return inspect_events(folder, shape, dtype, count)
        except GentlyError as error:
            return iter([fault_of(path, error, range(count))])

    def recover(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> None:
        """Remove files of events from ``count`` on, never announced, and those that are half written.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            See ``Backend.recover``.
        """
        shape, dtype = declared_frame(path, resource_kwargs)
        folder = find_pixels(path, read_place(path), shape, dtype)
        try:
            for file in list(folder.iterdir()):
                event = EVENT_FILE.fullmatch(file.name)
                if event and (event["hidden"] or int(event["number"]) >= count):
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(
                error, f"{path} could not be recovered; announced events are untouched"
            ) from error

    def files(self, path: Path, resource_kwargs: Mapping[str, Any]) -> Sequence[Path]:
        """Return the small file and the files of the events in its segment.

        Raises
        ------
        AssetDamaged, StorageError
            The small file does not name a segment, or that cannot be listed.
        """
        here = super().files(path, resource_kwargs)
        if not here:
            return here
        folder = shared_folder() / read_place(path).segment
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [*here, *(file for file in found if EVENT_FILE.fullmatch(file.name))]

    def remove(self, path: Path, resource_kwargs: Mapping[str, Any]) -> None:
        """Remove the segment, then the small file. See ``Backend.remove``.

        Raises
        ------
        StorageError
            Something of it could not be removed; call it again.
        """
        place = None
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):  # not a file of ours any more: it goes, and its segment when it is swept
                place = read_place(path)
        try:
            if place is not None:
                drop_segment(path, place.segment)
        except OSError as error:
            raise storage_error(error, f"{path}: its pixels in shared memory could not be removed") from error
        super().remove(path, resource_kwargs)


def drop_segment(path: Path, name: str) -> None:
    """Remove a segment that the asset at ``path`` needs no more, unless it is that of another one.

    A store that was copied while it had assets in memory shares their segments with its original: the one
    for which a segment was made keeps it. Idempotent.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    owner = owner_of(name)
    if owner is not None:
        maker = Path(owner.root, owner.asset)
        with suppress(OSError):  # gone, or nothing of ours any more: it needs no segment
            if not (path.exists() and maker.samefile(path)) and read_place(maker).segment == name:
                return
    remove_segment(name)


class MemorySink(Sink):
    """Files being written, each by the call that brings it: a copy in memory has nothing to wait for."""

    def __init__(self, path: Path, spec: ArraySpec, segment: Segment) -> None:
        self._path: Path = path
        self._spec: ArraySpec = spec
        self._segment: Segment = segment
        self._ledger: Ledger = Ledger(path.name)
        self._closed: bool = False

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        """What ``open`` needs; ``sync`` says that no loss of power is survived."""
        return frame_kwargs(self._spec, sync="never")

    def write(self, index: int, frame: NDArray[Any], time: float) -> Future[None]:
        """Store one event's array at ``index``; it is *stored*, or has failed to be, on return.

        Raises
        ------
        FrameMismatch
            The frame is not what the spec says.
        """
        if self._closed:
            raise InputError(
                f"{self._path.name}: event {index} came after the asset was closed; it was not stored"
            )
        check_frame(self._path, self._spec, index, frame)
        future: Future[None] = Future()
        try:
            self._store(index, frame)
            future.set_result(None)
        except OSError as error:
            future.set_exception(
                storage_error(
                    error,
                    f"{self._path.name}: event {index} was not stored in {self._segment.folder.parent}; where "
                    "that is full, convert or remove runs that are kept in memory",
                )
            )
        self._ledger.enter(index, future, time)
        return future

    def publish(self, count: int) -> None:
        """Let outside readers see the events 0 ... count - 1, by their names. *Stored*, not synced.

        Raises
        ------
        InputError, StorageError
            See ``Sink.publish``; where renaming fails half way, readers see the first of them.
        """
        stored = self._ledger.check(count)
        try:
            for index in stored:
                self._show(index)
        except OSError as error:
            raise storage_error(error, f"{self._path.name}: {count} events could not be published") from error
        self._ledger.published(stored, count)

    def close(self) -> None:
        """Remove what was not published and let go of the segment. Idempotent.

        Raises
        ------
        StorageError
            A frame that replaces a published one could not take its place.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for index in self._ledger.settle_all():
                if index < self._ledger.count:
                    self._show(index)
                self._hidden(index).unlink(missing_ok=True)
        except OSError as error:
            what = f"{self._path.name}: files could not be tidied up, published events are safe"
            raise storage_error(error, what) from error
        finally:
            self._segment.let_go()

    def _hidden(self, index: int) -> Path:
        return self._segment.folder / event_name(index, hidden=True)

    def _show(self, index: int) -> None:
        if (hidden := self._hidden(index)).exists():
            replace_file(hidden, self._segment.folder / event_name(index))

    def _store(self, index: int, frame: NDArray[Any]) -> None:
        """Write by the system's call: where memory is full that is an error, while touching a map would kill."""
        hidden = self._hidden(index)
        try:
            fd = os.open(hidden, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | BINARY, 0o600)
            try:
                write_all(fd, as_bytes(frame))
            finally:
                os.close(fd)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
