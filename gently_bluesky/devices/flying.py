"""Flyers: devices that take one event after another at the hardware's speed, and write them by themselves.

A flyer does not wait for storage between events, only where the buffer is full. A pause lets the event under way
be finished, and the flight goes on with the next one: what was taken is never taken again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray
from ophyd.status import Status

from gently_bluesky.devices.described import about_device, external_keys
from gently_bluesky.devices.handover import (
    DatumHandover,
    StreamHandover,
    count_stored,
    datum_ids,
    pop_stored,
)
from gently_bluesky.devices.ophyd import finish
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.devices.recording import Recording, Written
from gently_bluesky.errors import InputError

__all__ = ["FliesWithDatums", "FliesWithStreams"]

Named = tuple[str, dict[str, Any]]
Arrays = Mapping[str, NDArray[Any]]


class FlightStatus(Status):
    """Done when a flight is over and all of it is stored; it tells bluesky's progress bars how far that is."""

    def __init__(self, name: str, num_events: int | None) -> None:
        self._name = name
        self._num_events = num_events
        self._begun_s = time.time()
        self._watchers: list[Callable[..., object]] = []
        super().__init__()

    def watch(self, func: Callable[..., object]) -> None:
        """Have a function called with the progress whenever an event is stored, as bluesky's progress bars have it."""
        self._watchers.append(func)

    def tell(self, stored: int) -> None:
        """Tell how many events are stored."""
        target = self._num_events
        for watcher in self._watchers:
            watcher(
                name=self._name,
                current=stored,
                initial=0,
                target=target,
                unit="events",
                precision=0,
                fraction=None if not target else max(0.0, 1 - stored / target),  # what is left
                time_elapsed=time.time() - self._begun_s,
            )


class _Flight:
    """Events taken one after another on a thread of their own, from kickoff until all is stored."""

    def __init__(
        self,
        name: str,
        num_events: int | None,
        recording: Recording,
        taken: Iterator[Arrays],
        about: Mapping[str, Any],
    ) -> None:
        self.is_over = False
        self.is_paused = False
        self.was_resumed = False
        """Since the last kickoff: a plan that is resumed kicks off again what it had kicked off."""
        self.events: list[Written] = []
        """Those that were not collected so far."""
        self._name = name
        self._num_events = num_events
        self._stored = 0
        self._recording = recording
        self._taken = taken
        self._about = about
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._completed: FlightStatus | None = None
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """Take the next events."""
        self._halt.clear()
        self._thread = threading.Thread(target=self._fly, name=f"{self._name}-flight")
        self._thread.start()

    def halt(self) -> None:
        """Let the event under way be taken, and no further one."""
        self._halt.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def end(self) -> None:
        """End the flight here."""
        self.halt()
        if not self.is_over:
            self._end(None)

    def completed(self) -> Status:
        """Return what is done when the flight is over and all of it is stored: always the same status."""
        with self._lock:
            if self._completed is None:
                self._completed = FlightStatus(self._name, self._num_events)
            if self.is_over:
                finish(self._completed, self._error)
            return self._completed

    def _fly(self) -> None:
        try:
            for arrays in self._taken:
                event = self._recording.write(arrays, self._about, time.time())
                self.events.append(event)
                event.stored.add_done_callback(self._count)
                if self._halt.is_set():
                    return
        except Exception as error:  # noqa: BLE001 # belongs to whoever waits for the flight
            self._end(error)
        else:
            self._end(None)

    def _count(self, stored: Future[None]) -> None:
        """Tell who watches, on the storing thread."""
        self._stored += stored.exception() is None
        if self._completed is not None:
            self._completed.tell(self._stored)

    def _end(self, error: Exception | None) -> None:
        try:
            self._recording.close()
        except Exception as raised:  # noqa: BLE001 # as above
            error = error or raised
        with self._lock:
            self._error = error
            self.is_over = True
            if self._completed is not None:
                finish(self._completed, error)


class _Flies(ABC):
    """What both families share: kickoff, complete, pause and resume.

    Parameters
    ----------
    name
        Of the device.
    recorder
        From ``store.recorder()``; several devices may share one.
    """

    family: str
    """Of the documents: a key of `EXTERNAL`."""
    parent = None

    def __init__(self, *, name: str, recorder: Recorder) -> None:
        self.name = name
        self._recorder = recorder
        self._flight: _Flight | None = None

    @property
    def num_events(self) -> int | None:
        """How many events a flight has, where that is known: for progress bars."""
        return None

    @abstractmethod
    def take(self) -> Iterator[Arrays]:
        """Yield the arrays of one event after another, by data key, as the hardware delivers them.

        Called at kickoff; iterated on a thread of the flight's own. Its end is the end of the flight; what it
        raises fails the flight, and what it yielded before stays. Arrays are copied, unless the recorder was
        made with ``copy=False``.
        """

    @abstractmethod
    def describe_arrays(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the arrays, as `WritesDatums.describe_arrays` does."""

    # A flyer without settings has nothing to say.
    def read_configuration(self) -> dict[str, Any]:
        """Return the settings that go into the descriptor."""
        return {}

    # As above.
    def describe_configuration(self) -> dict[str, Any]:
        """Describe the settings."""
        return {}

    def kickoff(self) -> Status:
        """Start a flight; the status is done when it has started. A paused one goes on.

        Raises
        ------
        InputError
            The last flight is still under way.
        StorageError
            There is no room to write to; nothing was taken.
        """
        status = Status()
        flight = self._flight
        if flight is not None and not flight.is_over and not flight.was_resumed:
            raise InputError(
                f"{self.name} is still flying, and goes on; no other flight was started; wait for complete(), or "
                "stop() it"
            )
        if flight is None or flight.is_over:
            recording = self._recorder.record(self.name, assets=self.family)
            flight = _Flight(self.name, self.num_events, recording, self.take(), self._about())
            self._flight = flight
            self.begin()
            flight.go_on()
        flight.was_resumed = False
        status.set_finished()
        return status

    @abstractmethod
    def begin(self) -> None:
        """Forget what was announced of the flight before."""

    def complete(self) -> Status:
        """Return a status that is done when the flight is over and all of it is *synced*, or fails."""
        return self._in_flight().completed()

    async def pause(self) -> None:
        """Let the event under way be taken, and wait with the next one. The RunEngine's loop goes on meanwhile."""
        if self._flight is not None and not self._flight.is_over:
            self._flight.is_paused = True
            await asyncio.to_thread(self._flight.halt)

    def resume(self) -> None:
        """Take the next event."""
        flight = self._flight
        if flight is not None and flight.is_paused and not flight.is_over:
            flight.is_paused, flight.was_resumed = False, True
            flight.go_on()

    def stop(self, *, success: bool = False) -> None:  # noqa: ARG002 # ophyd's signature
        """End the flight after the event under way; what was taken is stored, and can be collected."""
        if self._flight is not None:
            self._flight.end()

    def _in_flight(self) -> _Flight:
        if self._flight is None:
            raise InputError(f"{self.name} has not flown: kickoff() comes first")
        return self._flight

    def _to_collect(self) -> _Flight:
        """Return the flight. If it is paused, and its plan collects without resuming it, both are at their end."""
        flight = self._in_flight()
        if flight.is_paused:
            flight.end()
        return flight

    def _about(self) -> dict[str, Any]:
        """Return what a descriptor would say of this device."""
        values = {name: reading["value"] for name, reading in self.read_configuration().items()}
        return about_device(self.name, self.describe_arrays(), values)

    def _described(self) -> dict[str, dict[str, Any]]:
        return external_keys(self.describe_arrays(), self.family)


class FliesWithDatums(_Flies):
    """A flyer whose events name datums: for ``bp.fly``.

    Parameters
    ----------
    name
        Of the device.
    recorder
        From ``store.recorder()``; several devices may share one.
    stream
        Where its events go.
    """

    family = "datum"

    def __init__(self, *, name: str, recorder: Recorder, stream: str = "primary") -> None:
        super().__init__(name=name, recorder=recorder)
        self._stream = stream
        self._handover = DatumHandover()
        self._announced: list[Written] = []

    def begin(self) -> None:
        """Forget what was announced of the flight before."""
        self._handover, self._announced = DatumHandover(), []

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Describe the stream of its events."""
        return {self._stream: self._described()}

    def collect_asset_docs(self) -> Iterator[Named]:
        """Yield what announces the events stored since the last call: resource once, and datum documents."""
        events = pop_stored(self._to_collect().events)
        self._announced.extend(events)
        yield from self._handover.documents(events)

    def collect(self) -> Iterator[dict[str, Any]]:
        """Yield the events whose arrays `collect_asset_docs` has announced."""
        announced, self._announced = self._announced, []
        for event in announced:
            yield {
                "time": event.time_s,
                "data": datum_ids(event),
                "timestamps": dict.fromkeys(event.places, event.time_s),
                "filled": dict.fromkeys(event.places, False),
            }


class FliesWithStreams(_Flies):
    """A flyer whose events are announced in ranges: for plans that declare a stream and collect it by name."""

    family = "stream"

    def __init__(self, *, name: str, recorder: Recorder) -> None:
        super().__init__(name=name, recorder=recorder)
        self.begin()

    def begin(self) -> None:
        """Forget what was announced of the flight before."""
        self._handover, self._announced = StreamHandover(), 0

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Describe the arrays."""
        return self._described()

    def get_index(self) -> int:
        """Return how many events of the flight are stored."""
        return self._announced + count_stored(self._in_flight().events)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[Named]:
        """Yield what announces the events that are stored, up to ``index`` of them since kickoff."""
        events = pop_stored(self._to_collect().events, None if index is None else index - self._announced)
        self._announced += len(events)
        yield from self._handover.documents(events)
