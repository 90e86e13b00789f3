"""For ophyd-async detectors whose arrays come to Python: the logic that stores them, and announces what is stored.

Give a `RecorderDataLogic` to a `StandardDetector`, beside whatever makes it acquire, and call `deliver` with the
arrays of each collection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from bluesky.protocols import StreamAsset
from event_model import ComposeStreamResource, DataKey
from numpy.typing import NDArray
from ophyd_async.core import (
    DetectorDataLogic,
    SignalR,
    StreamableDataProvider,
    StreamResourceDataProvider,
    soft_signal_r_and_setter,
)

from gently_bluesky.devices.described import about_device, external_keys
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.devices.recording import Recording, Written
from gently_bluesky.documents.announcing import Asset
from gently_bluesky.errors import InputError

__all__ = ["RecorderDataLogic"]


class RecordedDataProvider(StreamResourceDataProvider):
    """Announces a recording's arrays: exact shapes, and assets of their own for each data key."""

    def __init__(self, data_keys: Mapping[str, Mapping[str, Any]], collections_written: SignalR[int]) -> None:
        super().__init__("", [], "", collections_written)
        self.assets: Mapping[str, Asset] = {}
        """By data key, once the first collection is accepted."""
        self._data_keys = data_keys
        self._emitted_before = 0
        self._last_datums: list[dict[str, Any]] = []

    async def make_datakeys(self, collections_per_event: int) -> dict[str, DataKey]:
        """Return the data keys of an event.

        Raises
        ------
        InputError
            An event is to hold several collections.
        """
        if collections_per_event != 1:
            raise InputError(
                f"expected one collection an event, got collections_per_event={collections_per_event}; nothing was "
                "taken; a volume is one collection: let the arrays have an axis more"
            )
        return cast("dict[str, DataKey]", external_keys(self._data_keys, "stream"))

    async def make_stream_docs(
        self, collections_written: int, collections_per_event: int
    ) -> AsyncIterator[StreamAsset]:
        """Yield what announces the collections that are stored, up to so many."""
        if collections_written and not self.bundles:
            self.bundles = [_composed(asset) for asset in self.assets.values()]
        if collections_written > self.last_emitted:
            self._emitted_before, self._last_datums = self.last_emitted, []
        async for name, doc in super().make_stream_docs(collections_written, collections_per_event):
            if name == "stream_datum":
                self._last_datums.append(cast("dict[str, Any]", doc))
            yield cast("StreamAsset", (name, doc))

    def recall(self) -> None:
        """Have what was handed out last handed out again, if no run has taken it: see `devices.handover`."""
        if not all(datum["descriptor"] for datum in self._last_datums):
            self.last_emitted, self._last_datums = self._emitted_before, []


def _composed(asset: Asset) -> Any:
    _, doc = asset.introduction()
    return ComposeStreamResource()(
        mimetype=doc["mimetype"],
        uri=doc["uri"],
        data_key=doc["data_key"],
        parameters=doc["parameters"],
        uid=doc["uid"],
        validate=True,
    )


class RecorderDataLogic(DetectorDataLogic):
    """Stores the arrays of a `StandardDetector`, and counts those that are stored.

    Parameters
    ----------
    recorder
        From ``store.recorder()``; several devices may share one.
    describe_arrays
        Gives the data keys of the arrays of one collection, by what follows the detector's name and a dash in
        their names (nothing for ``""``): ``source``, ``dtype``, ``shape`` (exact), ``dtype_numpy``, ``dims``.
    configuration
        Gives values whose names end with ``pixel_size_um``, ``z_step_um`` and ``view_names``, for the metadata
        of the assets.
    hinted
        Which of the arrays are hinted.
    """

    def __init__(
        self,
        recorder: Recorder,
        describe_arrays: Callable[[], Mapping[str, Mapping[str, Any]]],
        configuration: Callable[[], Mapping[str, Any]] = dict,
        hinted: Sequence[str] = (),
    ) -> None:
        self._recorder = recorder
        self._describe_arrays = describe_arrays
        self._configuration = configuration
        self._hinted = hinted
        self._recording: Recording | None = None
        self._provider: RecordedDataProvider | None = None
        self._written: list[Written] = []
        self._set_count: Callable[[int], object] = lambda _: None
        self._device = ""

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        """Make the folder that the detector will write to. Raises StorageError if that fails."""
        await self.stop()
        self._device = datakey_name
        signal, set_count = soft_signal_r_and_setter(int, 0)
        self._recording = await asyncio.to_thread(self._recorder.record, datakey_name, assets="stream")
        self._provider = RecordedDataProvider(self._data_keys(), signal)
        self._written = []
        self._set_count = partial(asyncio.get_running_loop().call_soon_threadsafe, set_count)
        return self._provider

    def deliver(self, arrays: Mapping[str, NDArray[Any]], time_s: float | None = None) -> Written:
        """Store the arrays of one collection, and count it when they are *synced*.

        Waits while the buffer is full: call it on a thread, not in the event loop. One at a time.

        Parameters
        ----------
        arrays
            By the names that ``describe_arrays`` gives. Copied, unless the recorder was made with ``copy=False``.
        time_s
            When they were taken, in seconds since 1970; now by default.

        Raises
        ------
        InputError
            The detector is not prepared.
        FrameMismatch
            An array is not of the shape that was described.
        GentlyError
            What came before could not be stored: the first failure, always the same object.
        """
        recording, provider, set_count = self._recording, self._provider, self._set_count
        if recording is None or provider is None:
            raise InputError("an array came before the detector was prepared; it was not stored")
        data_keys = self._data_keys()
        about = about_device(self._device, data_keys, self._configuration())
        written = recording.write({self._named(key): array for key, array in arrays.items()}, about, time_s)
        provider.assets = {key: asset for key, (asset, _) in written.places.items()}
        self._written.append(written)
        count = len(self._written)
        written.stored.add_done_callback(lambda stored: stored.exception() is None and set_count(count))
        return written

    async def drain(self) -> None:
        """Wait until all that was delivered is stored and counted, or could not be stored."""
        if self._written:
            await asyncio.wait([asyncio.wrap_future(self._written[-1].stored)])
            await asyncio.sleep(0)  # behind the counting, which the loop was asked for before

    async def forget_unannounced(self) -> None:
        """Have the next collection take the place of what was stored and not announced.

        For a detector's ``pause``, once it has stopped acquiring: the plan triggers it again when it is resumed.
        """
        recording, provider = self._recording, self._provider
        if recording is None or provider is None:
            return
        provider.recall()
        await asyncio.to_thread(recording.take_back, self._written[provider.last_emitted :])
        del self._written[provider.last_emitted :]
        self._set_count(provider.last_emitted)

    async def stop(self) -> None:
        """Wait until all that was delivered is stored. Raises what storing it raised."""
        recording, self._recording = self._recording, None
        if recording is not None:
            await asyncio.to_thread(recording.close)

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        """Return the names of the hinted arrays."""
        return [f"{datakey_name}-{key}" if key else datakey_name for key in self._hinted]

    def _named(self, key: str) -> str:
        return f"{self._device}-{key}" if key else self._device

    def _data_keys(self) -> dict[str, dict[str, Any]]:
        return {self._named(key): dict(said) for key, said in self._describe_arrays().items()}
