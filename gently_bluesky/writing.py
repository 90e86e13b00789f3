"""What of a store is open for writing: writers, recorders, and the writers of derived results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gently_bluesky.backends.registry import get_backend
from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.home import SharedJournal
from gently_bluesky.documents.overflow import OVERFLOW_MARKER
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.place import Place
from gently_bluesky.documents.relief import Relief
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.index.index import Index
from gently_bluesky.segments import MARKER
from gently_bluesky.settings import Settings

if TYPE_CHECKING:
    from gently_bluesky.devices.recorder import Recorder

__all__ = ["Writing"]


class Writing:
    """Opens and closes what writes into one store. Any thread.

    Runs that a writer takes go on in ``overflow``, if there is one, where the root fails; what devices write by
    themselves and derived results do not. ``make_room`` does what the store's policy says when there is little room
    for runs that a writer takes.
    """

    def __init__(
        self, root: Path, uid: str, index: Index, overflow: Path | None, make_room: Callable[[], str]
    ) -> None:
        self._relief = Relief(make_room)
        self._place = Place(root, MARKER, uid)
        self._second = None if overflow is None else Place(overflow, OVERFLOW_MARKER, uid)
        self._index = index
        self._open: list[StoreWriter | Recorder] = []
        self._of_results: dict[str | None, StoreWriter] = {}
        self._lock = threading.Lock()

    def writer(self, settings: Settings, on_failure: Callable[[Exception], object] | None) -> StoreWriter:
        """Return a new writer. Raises InvalidSetting."""
        writer = StoreWriter(self._desk(settings, on_failure, self._second, self._relief))
        self._keep(writer)
        return writer

    def recorder(self, settings: Settings) -> Recorder:
        """Return a new recorder. Raises InvalidSetting."""
        from gently_bluesky.devices.recorder import Recorder  # most stores have no such device

        recorder = Recorder(self._desk(settings))
        self._keep(recorder)
        return recorder

    def of_results(self, format: str | None) -> StoreWriter:  # the field's word
        """Return the writer of results in this format, or, with None, of those without arrays."""
        with self._lock:
            if format not in self._of_results:
                settings = Settings() if format is None else Settings(format=format)
                shared = SharedJournal(self._place) if format is None else None
                self._of_results[format] = StoreWriter(self._desk(settings), shared=shared)
            return self._of_results[format]

    def _keep(self, opened: StoreWriter | Recorder) -> None:
        with self._lock:
            self._open = [known for known in self._open if not known.closed]
            self._open.append(opened)

    def _desk(
        self,
        settings: Settings,
        on_failure: Callable[[Exception], object] | None = None,
        second: Place | None = None,
        relief: Relief | None = None,
    ) -> Desk:
        backend = get_backend(settings.format)
        if settings.assets == "stream" and backend.mimetype is None:
            raise InvalidSetting(
                f"format {settings.format!r} has no mimetype under which stream_resource documents could name its "
                "assets; nothing was written; leave assets='stream' away, or choose another format"
            )
        for packing in settings.packings():
            backend.check_packing(packing)
        if backend.name == "memory":
            second = None  # no disk takes its pixels
        pipeline = Pipeline(
            max_pending_bytes=settings.max_pending_bytes,
            stall_timeout_s=settings.stall_timeout_s,
            keeps_stored=second is not None,
        )
        pool = None
        if settings.hot_bytes:
            from gently_bluesky.backends.hot import HotPool  # a store brings no backend

            pool = HotPool.create(self._place.store_uid, settings.hot_bytes)
        return Desk(
            self._place,
            self._index,
            backend,
            settings,
            pipeline,
            on_failure=on_failure,
            pool=pool,
            second=second,
            relief=relief,
        )

    def close(self) -> Exception | None:
        """Close everything, in the order in which it was opened; return the first failure of what was open."""
        failure: Exception | None = None
        for opened in [*self._open, *self._of_results.values()]:
            try:
                opened.close()
            except Exception as error:  # noqa: BLE001 # the others have to be closed too; the first is returned
                failure = failure or error
        self._relief.close()
        return failure
