"""What devices write through: one buffer and one storing thread for as many devices as share it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from gently_bluesky.devices.recording import Recording
from gently_bluesky.documents.desk import Desk
from gently_bluesky.errors import InvalidSetting, WriterClosed

__all__ = ["Recorder"]


class Recorder:
    """Gives devices a place in the store to write to. Made by ``store.recorder()``; any thread."""

    def __init__(self, desk: Desk) -> None:
        if desk.backend.mimetype is None:
            raise InvalidSetting(
                f"expected a format that keeps pixels on disk, got {desk.settings.format!r}; nothing was written; "
                "a device may die before a run announces what it wrote: choose 'zarr' or 'tiff'"
            )
        self._desk = desk
        self._closed = False
        self._recordings: list[Recording] = []
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def record(self, device: str, *, assets: str = "datum") -> Recording:
        """Open a recording: a folder below ``incoming/`` of the store, locked while it is written.

        Parameters
        ----------
        device
            The name of the device; the folder is called by it.
        assets
            ``"datum"`` or ``"stream"``: the family of documents that will announce the arrays.

        Raises
        ------
        StorageError
            The folder cannot be made, or there is too little free space; nothing was written.
        WriterClosed
            The recorder was closed.
        """
        recording = Recording(self._desk, device, assets)
        with self._lock:
            if self._closed:
                raise WriterClosed(
                    f"{device} wants to record after close(); nothing was written; make a new recorder"
                )
            self._recordings = [known for known in self._recordings if not known.closed]
            self._recordings.append(recording)
        recording.open()
        return recording

    def close(self) -> None:
        """End every recording that is open, when all it accepted is stored, and take nothing more. Idempotent.

        Raises
        ------
        GentlyError
            The first failure of those recordings.
        """
        with self._lock:
            self._closed = True
            recordings, self._recordings = self._recordings, []
        failure: Exception | None = None
        for recording in recordings:
            try:
                recording.close()
            except Exception as error:  # noqa: BLE001 # the first one is raised when all have ended
                failure = failure or error
        self._desk.pipeline.ring.keep_at_most(0)
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
