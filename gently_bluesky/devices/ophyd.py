"""Mixins for ophyd devices that write their arrays by themselves: put one in front of the device's other bases.

The device's trigger takes its arrays, on whatever thread, and gives them to ``deliver`` with its status, which is
done when they are *synced*. What the RunEngine reads then names them, in either family of documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, cast

from numpy.typing import NDArray
from ophyd import Device
from ophyd.status import StatusBase

from gently_bluesky.devices.described import about_device, external_keys
from gently_bluesky.devices.handover import (
    DatumHandover,
    StreamHandover,
    count_stored,
    datum_ids,
    is_stored,
    pop_stored,
)
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.devices.recording import Recording, Written
from gently_bluesky.errors import InputError

__all__ = ["WritesDatums", "WritesStreams", "finish"]

Named = tuple[str, dict[str, Any]]


class _Writes(Device, ABC):
    """What both families share: a recording from staging to unstaging.

    Parameters
    ----------
    recorder
        From ``store.recorder()``; several devices may share one.
    """

    family: str
    """Of the documents: a key of `EXTERNAL`."""

    def __init__(self, *args: Any, recorder: Recorder, **kwargs: Any) -> None:
        self._recorder = recorder
        self._recording: Recording | None = None
        self._last: Written | None = None
        self._to_announce: list[Written] = []
        self._was_paused = False
        super().__init__(*args, **kwargs)

    @abstractmethod
    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays that the next trigger delivers.

        Each says ``source``, ``dtype: "array"`` and ``shape``, and had better say ``dtype_numpy`` and ``dims``.
        Steps and names of views are found in the device's configuration, as in any other device: values whose
        names end with ``pixel_size_um``, ``z_step_um``, ``view_names``.
        """

    def stage(self) -> list[object]:
        """Stage the device, and make the folder that it will write to. Raises StorageError if that fails."""
        staged = super().stage()
        try:
            self._recording = self._recorder.record(self.name, assets=self.family)
        except BaseException:
            super().unstage()
            raise
        self._last, self._to_announce, self._was_paused = None, [], False
        return staged

    def unstage(self) -> list[object]:
        """Unstage the device, and wait until all it delivered is stored. Raises what storing it raised."""
        try:
            return super().unstage()
        finally:
            recording, self._recording = self._recording, None
            if recording is not None:
                recording.close()

    def deliver(
        self, status: StatusBase, arrays: Mapping[str, NDArray[Any]], time_s: float | None = None
    ) -> None:
        """Store the arrays of a trigger: its status is done when they are *synced*, or fails with the reason.

        Waits while the buffer is full, and raises nothing. Any thread, one at a time.

        Parameters
        ----------
        status
            Of the trigger.
        arrays
            By data key. Copied, unless the recorder was made with ``copy=False``.
        time_s
            When they were taken, in seconds since 1970; now by default.
        """
        try:
            self._last = self._write(arrays, time_s)
        except Exception as error:  # noqa: BLE001 # belongs to whoever waits for the status
            finish(status, error)
            return
        self._to_announce.append(self._last)
        self._last.stored.add_done_callback(lambda stored: finish(status, stored.exception()))

    def _write(self, arrays: Mapping[str, NDArray[Any]], time_s: float | None) -> Written:
        if self._recording is None:
            raise InputError(
                f"{self.name} is not staged, and has no place to write to; nothing was stored; stage it in the "
                "plan, as bluesky's own plans do"
            )
        if self._was_paused:
            self._was_paused = False
            self._recover_from_pause(self._recording)
        return self._recording.write(arrays, self._about(), time_s)

    def _about(self) -> dict[str, Any]:
        """Return what a descriptor would say of this device."""
        configuration = cast("dict[str, Any]", self.read_configuration())
        values = {name: reading["value"] for name, reading in configuration.items()}
        return about_device(self.name, self.describe_arrays(), values)

    def describe(self) -> Any:
        """Describe what the device reads, and the arrays that it writes."""
        arrays = external_keys(self.describe_arrays(), self.family)
        return {**cast("dict[str, Any]", super().describe()), **arrays}

    def resume(self) -> None:
        """Note that a plan was paused: what it had collected may never be emitted.

        A device whose trigger takes its time waits for it in ``pause``: the plan triggers again when it goes on.
        """
        super().resume()
        self._was_paused = True

    @abstractmethod
    def _recover_from_pause(self, recording: Recording) -> None:
        """Make good what a pause may have dropped, before the first arrays that come after it."""


class WritesDatums(_Writes):
    """A device that announces its arrays by resource and datum documents, and names them in its readings."""

    family = "datum"

    def stage(self) -> list[object]:
        """Stage the device, and make the folder that it will write to. Raises StorageError if that fails."""
        self._handover = DatumHandover()
        return super().stage()

    def read(self) -> Any:
        """Return readings, with the datum ids of the arrays that the last trigger delivered.

        Raises
        ------
        InputError
            It delivered none, or they are not stored yet.
        """
        written = self._last
        if written is None or not is_stored(written):
            raise InputError(
                f"{self.name} has no stored arrays to name: trigger it first, and wait for its status"
            )
        readings = {
            key: {"value": uid, "timestamp": written.time_s} for key, uid in datum_ids(written).items()
        }
        return {**cast("dict[str, Any]", super().read()), **readings}

    def collect_asset_docs(self) -> Iterator[Named]:
        """Yield what announces the arrays stored since the last call: resource once, and datum documents."""
        yield from self._handover.documents(pop_stored(self._to_announce))

    def _recover_from_pause(self, recording: Recording) -> None:
        self._handover.forget_dropped()
        recording.take_back(self._to_announce)
        self._to_announce = []


class WritesStreams(_Writes):
    """A device that announces its arrays by stream_resource and stream_datum documents.

    One event, one index: `get_index` counts the events that are stored.
    """

    family = "stream"

    def stage(self) -> list[object]:
        """Stage the device, and make the folder that it will write to. Raises StorageError if that fails."""
        self._handover, self._announced = StreamHandover(), 0
        return super().stage()

    def get_index(self) -> int:
        """Return how many events are stored since staging."""
        return self._announced + count_stored(self._to_announce)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[Named]:
        """Yield what announces the events that are stored, up to ``index`` of them since staging."""
        events = pop_stored(self._to_announce, None if index is None else index - self._announced)
        self._announced += len(events)
        yield from self._handover.documents(events)

    def _recover_from_pause(self, recording: Recording) -> None:
        dropped = self._handover.dropped()
        recording.take_back([*dropped, *self._to_announce])
        self._announced -= len(dropped)
        self._to_announce = []


def finish(status: StatusBase, error: BaseException | None) -> None:
    """Finish a status, well or badly, unless it has ended by itself, as by a timeout."""
    if status.done:
        return
    if error is None:
        status.set_finished()
    else:
        status.set_exception(cast("Exception", error))
