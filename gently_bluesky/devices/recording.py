"""What a device writes between staging and unstaging, on its way through the pipeline to assets of its own.

The order is that of a run: frames synced, shape published, journal synced; only then is an event's future done,
and only then may a document name it. The journal lies beside the assets and holds what announces each frame, as
the device hands it out, with the digest of its pixels: frames that no run came to announce can still be told.
"""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.assets import array_spec
from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.failure import FirstFailure
from gently_bluesky.documents.home import FolderHome
from gently_bluesky.documents.intake import Intake
from gently_bluesky.documents.journal import encode_line
from gently_bluesky.documents.names import device_asset_name, incoming_folder
from gently_bluesky.documents.tally import Tally
from gently_bluesky.documents.tasks import Frame, FramesTask, OpenTask, StopTask
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.errors import FrameMismatch, InputError, StorageError, WriterClosed
from gently_bluesky.files import storage_error
from gently_bluesky.model import ArraySpec, JournalLine

__all__ = ["Recording", "Written"]


class Written(NamedTuple):
    """The arrays of one event, on their way.

    Attributes
    ----------
    places
        By data key: the asset, and the index in it.
    time_s
        When they were taken, in seconds since 1970.
    stored
        Done when they are *synced*, if events are, and readers may see them; holds the failure if they are not
        stored, or storage hangs. What is called back runs on the storing thread, or on the one that notices that
        it hangs, and must be quick.
    """

    places: Mapping[str, tuple[Asset, int]]
    time_s: float
    stored: Future[None]


class _EventTask(FramesTask):
    """One event's frames."""

    __slots__ = ("stored", "time_s")

    def __init__(self, owner: Owner, frames: Sequence[Frame], time_s: float) -> None:
        super().__init__(owner, frames)
        self.time_s = time_s
        self.stored: Future[None] = Future()
        self.stored.set_running_or_notify_cancel()  # nobody else's timeout takes it back


class Recording(Owner):
    """The assets of a device, from its staging to its unstaging. Made by `Recorder.record`.

    `write`, `take_back` and `close` are the device's, on any thread, one at a time; the rest is the pipeline's.
    """

    def __init__(self, desk: Desk, device: str, assets: str) -> None:
        self.device = device
        self.closed = False
        self._desk = desk
        self._family = assets
        self._about = {"uid": str(uuid.uuid4()), "time": time.time(), "device": device}
        settings = desk.settings
        self._home = FolderHome(desk.place, settings.min_free_bytes, incoming_folder, settings.sync)
        self._failure = FirstFailure(None, desk.pipeline.wake)
        self._tally = Tally()
        self._intake = Intake(desk.pipeline, self._tally, copies=desk.settings.copy)
        self._assets: dict[tuple[str, tuple[Any, ...]], Asset] = {}
        self._introduced: set[str] = set()
        self._entry = threading.RLock()
        self._ended = False

    @property
    def folder(self) -> str:
        """Where the assets lie, relative to the store's root."""
        return self._home.folder

    # -- the device's calls ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Wait until the folder and its lock are there. Raises StorageError, and nothing is left behind."""
        self._desk.pipeline.hold()
        task = OpenTask(self)
        try:
            self._desk.pipeline.put(task)
            self._desk.pipeline.wait_until(lambda: task.ended, f"the folder of {self.device}")
            self._failure.raise_if_set()
        except BaseException:
            self._failure.set(
                StorageError(f"{self.device}: its recording could not begin; nothing was stored")
            )
            self.closed = True
            self._desk.pipeline.put(StopTask(self, None))
            self._desk.pipeline.release(join=task.ended)
            raise

    def write(
        self, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any], time_s: float | None = None
    ) -> Written:
        """Take the arrays of one event: *accepted* on return, and *synced* when ``stored`` of the result is done.

        With ``sync="run"`` they are synced by `close`, with ``"never"`` when the system sees fit.

        Waits while the buffer is full.

        Parameters
        ----------
        arrays
            By data key. Copied, unless the recorder was made with ``copy=False``.
        about
            What a descriptor would say of the device: its ``data_keys``, and, as event-model has them,
            ``configuration`` and ``object_keys``.
        time_s
            When they were taken, in seconds since 1970; now by default.

        Raises
        ------
        FrameMismatch
            An array is not of the shape that its data key declares.
        InputError, UnstorableDtype, InvalidSetting
            There are no arrays, or none that can be stored like this.
        WriterClosed
            The recording has ended.
        GentlyError
            What came before could not be stored: the first failure, always the same object.
        """
        with self._entry:
            if self.closed:
                raise WriterClosed(
                    f"{self.device}: an array came after its recording had ended; it was not stored; stage the "
                    "device first"
                )
            self._failure.raise_if_set()
            if not arrays:
                raise InputError(f"{self.device}: expected arrays to store, got none; nothing was stored")
            whole = {key: np.asarray(array) for key, array in arrays.items()}
            assets = {key: self._asset(key, array, about) for key, array in whole.items()}
            frames = self._intake.accept(whole, assets, self._failure.raise_if_set)
            frames = [frame._replace(place=frame.asset.place()) for frame in frames]
            task = _EventTask(self, frames, time.time() if time_s is None else time_s)
            self._desk.pipeline.put(task)
        places = {frame.data_key: (frame.asset, frame.place) for frame in frames}
        return Written(places, task.time_s, task.stored)

    def take_back(self, events: Sequence[Written]) -> None:
        """Have the next events take the places of these, the last ones, which nobody has announced."""
        with self._entry:
            for event in events:
                event.stored.exception()  # waits for it
            for event in reversed(events):
                for asset, index in event.places.values():
                    asset.placed = min(asset.placed, index)

    def close(self) -> None:
        """End the recording when all it accepted is stored, and *synced* unless that is left to the system.

        A RuntimeWarning says of frames that had to be written anew how many there were. Idempotent.

        Raises
        ------
        GentlyError
            Its first failure, or that it could not be ended.
        """
        with self._entry:
            if self.closed:
                return
            self.closed = True
            self._desk.pipeline.put(StopTask(self, None))
        try:
            self._desk.pipeline.wait_until(lambda: self._ended, f"{self.device} to be stored")
        except Exception as error:  # noqa: BLE001 # kept, and raised below
            self._failure.set(error)
        finally:
            self._desk.pipeline.release(join=self._ended)
        self._failure.raise_if_set()
        for remark in self._tally.remarks(self.device):
            warnings.warn(remark, RuntimeWarning, stacklevel=3)

    def _asset(self, key: str, array: NDArray[Any], about: Mapping[str, Any]) -> Asset:
        """Return the asset for arrays made like this; another make opens another asset."""
        origin = {"device": self.device, "data_key": key, "time": self._about["time"]}
        spec = array_spec(about, key, array, origin)
        _require_declared(self.device, spec, about["data_keys"][key].get("shape"))
        if (key, spec.make) not in self._assets:
            settings, backend = self._desk.settings, self._desk.backend
            packing = settings.packing(key)
            backend.check_fit(packing, spec)
            number = 1 + sum(known == key for known, _ in self._assets)
            path = f"{self.folder}/{device_asset_name(key, number, backend.suffix)}"
            self._assets[key, spec.make] = Asset(
                backend, self._desk.root, path, spec, None, key, packing, self._family, settings.sync
            )
        return self._assets[key, spec.make]

    # -- the pipeline's calls --------------------------------------------------------------------------------

    def begin(self, task: Task) -> None:
        """Start an event's writes."""
        if isinstance(task, _EventTask) and self._failure.error is None:
            task.begin_writes(task.time_s)

    def commit(self, tasks: Sequence[Task]) -> None:
        """Publish what is stored; events that follow each other share one sync of the journal."""
        batch: list[_EventTask] = []
        for task in tasks:
            if isinstance(task, _EventTask):
                batch.append(task)
                continue
            self._commit_events(batch)
            batch = []
            if isinstance(task, OpenTask):
                self._open_folder(task)
            else:
                self._finish()
        self._commit_events(batch)

    def _open_folder(self, task: OpenTask) -> None:
        try:
            self._home.open(self._about)
        except Exception as error:  # noqa: BLE001 # raised on the thread that waits for the folder
            self._failure.set(error)
        task.ended = True
        self._desk.pipeline.wake()

    def _commit_events(self, batch: Sequence[_EventTask]) -> None:
        stored: list[_EventTask] = []
        try:
            for task in batch:
                self._failure.raise_if_set()
                task.wait()
                self._tally.store(len(task.frames), anew=task.is_begun_anew)
                stored.append(task)
        except Exception as error:  # noqa: BLE001 # given to whoever waits for the events that it concerns
            self._fail(error)
        try:
            self._record(stored)
        except Exception as error:  # noqa: BLE001 # as above
            self._fail(error)
            stored = []
        for task in batch:
            _settle(task.stored, None if task in stored else self._failure.error)

    def stall(self, tasks: Sequence[Task], error: Exception) -> None:
        """Fail at once, and let nobody wait for these events any longer."""
        self._failure.set(error)
        for task in tasks:
            if isinstance(task, _EventTask):
                _settle(task.stored, self._failure.error)

    def _record(self, stored: Sequence[_EventTask]) -> None:
        """Publish events and put them on record, *synced*."""
        counts = {frame.asset: frame.place + 1 for task in stored for frame in task.frames}
        for asset, count in counts.items():
            asset.publish(count)
        lines = [line for task in stored for line in self._lines(task)]
        if lines:
            self._home.append([encode_line(line) for line in lines])

    def _lines(self, task: _EventTask) -> list[JournalLine]:
        lines: list[JournalLine] = []
        for frame in task.frames:
            asset, index = frame.asset, frame.place
            if asset.uid not in self._introduced:
                self._introduced.add(asset.uid)
                lines.append(JournalLine(*asset.introduction()))
            named = asset.stream_datum((index, index + 1)) if asset.is_stream else asset.datum(index)
            lines.append(JournalLine(*named, digest={frame.data_key: task.digest[frame.data_key]}))
        return lines

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            error = storage_error(error, f"{self.device}: an event could not be stored")
        self._failure.set(error)

    def _finish(self) -> None:
        """Close the assets, and let go of the folder; one into which nothing came is not kept."""
        for asset in self._assets.values():
            try:
                asset.close()
                asset.sync()
            except Exception as error:  # noqa: BLE001 # raised where the recording is closed
                self._fail(error)
        try:
            if self._assets:
                self._home.append([], is_edge=True)
            else:
                self._home.discard()
            self._home.close(recorded=self._failure.error is None)
        except OSError as error:
            self._fail(error)
        self._ended = True
        self._desk.pipeline.wake()


def _settle(stored: Future[None], error: BaseException | None) -> None:
    """Say how it ended, unless that was said already: that storage hangs, or just before it was said to."""
    with suppress(InvalidStateError):
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)


def _require_declared(device: str, spec: ArraySpec, declared: object) -> None:
    if not isinstance(declared, list | tuple) or not declared or tuple(declared) == spec.shape:
        return
    raise FrameMismatch(
        f"{device}/{spec.name}: an array came as {spec.shape}, the device had declared {tuple(declared)}; it was "
        "not stored, those before it are safe; describe() must say what comes"
    )
