"""One run as it comes in: a state machine on the producers' threads, in front of the run's `RunStorage`.

It checks documents, copies arrays into the buffer, holds a descriptor back until its first event says what the
device really delivers, and passes everything on in order. It makes no call to the file system. The entry lock of
the `StoreWriter` is held around every method.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.assets import Asset, array_spec, array_to_store, describe
from gently_bluesky.documents.checks import check_descriptor, check_event, checked
from gently_bluesky.documents.home import RunHome
from gently_bluesky.documents.journal import digest_of, plain
from gently_bluesky.documents.names import asset_name
from gently_bluesky.documents.run_storage import (
    Desk,
    DocumentTask,
    DuplicateTask,
    FailTask,
    FirstFailure,
    Frame,
    OpenTask,
    RunStorage,
    StopTask,
)
from gently_bluesky.errors import (
    ConflictingDocument,
    FrameMismatch,
    InvalidDocument,
    RunClosed,
    SubscriberError,
    UnknownReference,
)
from gently_bluesky.model import ArraySpec, storable_dtype

__all__ = ["RunState", "RunWriter"]


class RunState(enum.Enum):
    """Where a run stands, seen from its producers."""

    NEW = "was not opened yet"
    OPEN = "takes documents"
    DRAINING = "has its stop document and stores what it accepted"
    ENDED = "has ended"


MOVES = {
    RunState.NEW: {RunState.OPEN, RunState.ENDED},
    RunState.OPEN: {RunState.DRAINING},
    RunState.DRAINING: {RunState.ENDED},
    RunState.ENDED: set[RunState](),
}


class _Descriptor:
    """A descriptor as it came, and, once its first event was there, the assets of its array keys."""

    __slots__ = ("assets", "doc", "held")

    def __init__(self, doc: Mapping[str, Any]) -> None:
        self.doc = doc
        self.assets: dict[str, Asset] | None = None
        self.held: list[tuple[str, dict[str, Any]]] = []


class RunWriter:
    """Takes the documents of one run.

    Parameters
    ----------
    start
        The start document, checked and copied.
    desk
        What all runs of the writer share.
    home
        Where the run's journal will be.
    """

    def __init__(self, start: dict[str, Any], desk: Desk, home: RunHome) -> None:
        self.start = start
        self.uid: str = start["uid"]
        self.failure = FirstFailure(desk.on_failure)
        self._state = RunState.NEW
        self._desk = desk
        self._pipeline = desk.pipeline
        self._storage = RunStorage(start, desk, home, self.failure)
        self._descriptors: dict[str, _Descriptor] = {}
        self._documents: dict[str, bytes] = {}
        self._assets: dict[tuple[Any, ...], Asset] = {}
        self._asset_numbers: dict[tuple[str, str], int] = {}
        self._events: set[str] = set()
        self._takers = {
            "descriptor": self._descriptor,
            "event": self._event,
            "resource": self._passing,
            "datum": self._passing,
            "stream_resource": self._passing,
            "stream_datum": self._stream_datum,
        }

    def _move(self, state: RunState) -> None:
        if state not in MOVES[self._state]:
            raise RunClosed(f"run {self.uid}: {self._state.value}; the document was not stored")
        self._state = state

    # -- the run's beginning and end ---------------------------------------------------------------------------

    def open(self) -> None:
        """Wait until the folder, the journal and the lock are there: the start is *synced* and announced."""
        self._pipeline.hold()
        try:
            task = OpenTask(self._storage)
            self._pipeline.put(task)
            self._pipeline.wait_until(lambda: task.ended, f"the start of run {self.uid}")
            self.failure.raise_if_set()
        except Exception as error:
            self.failure.set(error)
            self._move(RunState.ENDED)
            self._pipeline.release()
            raise
        self._move(RunState.OPEN)

    def receive(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document between start and stop: *accepted* on return.

        Raises the run's first failure, if it has one, as every call after it does.
        """
        self.failure.raise_if_set()
        try:
            self._takers[name](name, doc)
        except Exception as error:
            self.fail(error)
            self.failure.raise_if_set()

    def stop(self, stop: Mapping[str, Any] | None) -> None:
        """Drain the buffer and end the run; with None, for want of a stop document, as incomplete.

        On return everything is *synced* and announced, and nothing of the run is left in memory.

        Raises
        ------
        GentlyError
            The run's first failure, the same object as before; or a SubscriberError if all was stored but a
            subscriber raised.
        """
        if self._state is RunState.ENDED:
            self.failure.raise_if_set()
        self._move(RunState.DRAINING)
        for uid, descriptor in self._descriptors.items():
            if descriptor.assets is None and self.failure.error is None:
                self._release(uid, {}, {})
        try:
            self._pipeline.put(StopTask(self._storage, None if stop is None else dict(stop)))
            self._pipeline.wait_until(lambda: self._storage.ended, f"the end of run {self.uid}")
        except Exception as error:  # noqa: BLE001 # kept, and raised below
            self.failure.set(error)
        self._move(RunState.ENDED)
        self._pipeline.release()
        self.failure.raise_if_set()
        if self._storage.subscriber_errors:
            errors = tuple(self._storage.subscriber_errors)
            raise SubscriberError(
                f"run {self.uid}: every frame was stored and announced, but {len(errors)} of the writer's subscribers "
                f"raised, first {errors[0]!r}; they saw no document of this run after that",
                errors,
            ) from errors[0]

    def fail(self, error: Exception) -> None:
        """End the run on record as failed, behind what was accepted before. The first failure stands."""
        if self.failure.set(error):
            self._pipeline.put(FailTask(self._storage))

    # -- documents in between ----------------------------------------------------------------------------------

    def _put(self, name: str, doc: dict[str, Any], frames: list[Frame] | None = None) -> None:
        self._pipeline.put(DocumentTask(self._storage, name, doc, frames or ()))

    def _is_repeated(self, name: str, uid: str, doc: Mapping[str, Any]) -> bool:
        digest = digest_of([name, doc])
        known = self._documents.setdefault(uid, digest)
        if known is digest:
            return False
        if known != digest:
            raise ConflictingDocument(
                f"run {self.uid[:8]}: {name} {uid} came twice with different contents; the first one stands, the "
                "second was not stored; give every document a uid of its own"
            )
        return True

    def _descriptor(self, name: str, doc: Mapping[str, Any]) -> None:
        doc = plain(dict(check_descriptor(doc)))
        if not self._is_repeated(name, doc["uid"], doc):
            self._descriptors[doc["uid"]] = _Descriptor(doc)

    def _passing(self, name: str, doc: Mapping[str, Any]) -> None:
        copy = checked(name, doc)
        uid = copy["datum_id" if name == "datum" else "uid"]
        if name == "datum" and copy["resource"] not in self._documents:
            raise UnknownReference(
                f"run {self.uid[:8]}: datum {uid} names resource {copy['resource']}, which has not come; the datum was "
                "not stored; a resource must come before its datums"
            )
        if not self._is_repeated(name, uid, copy):
            self._put(name, copy)

    def _stream_datum(self, name: str, doc: Mapping[str, Any]) -> None:
        copy = checked(name, doc)
        if copy["stream_resource"] not in self._documents:
            raise UnknownReference(
                f"run {self.uid[:8]}: stream_datum {copy['uid']} names stream_resource {copy['stream_resource']}, which "
                "has not come; the stream_datum was not stored"
            )
        descriptor = self._descriptors.get(copy["descriptor"])
        if self._is_repeated(name, copy["uid"], copy):
            return
        if descriptor is not None and descriptor.assets is None:
            descriptor.held.append((name, copy))
        else:
            self._put(name, copy)

    def _event(self, name: str, doc: Mapping[str, Any]) -> None:
        doc = check_event(doc)
        descriptor = self._descriptors[doc["descriptor"]]
        self._check_keys(doc, descriptor.doc)
        external = {key for key, declared in descriptor.doc["data_keys"].items() if declared.get("external")}
        arrays: dict[str, NDArray[Any]] = {}
        for key, value in doc["data"].items():
            array = None if key in external and isinstance(value, str) else array_to_store(value)
            if array is not None:
                arrays[key] = array
        if doc["uid"] in self._events:
            self._again(doc, arrays, descriptor)
            return
        self._storage.receive(len(arrays))
        if descriptor.assets is None:
            self._release(doc["descriptor"], doc["data"], arrays)
        frames = self._accept(doc, arrays, descriptor)
        self._events.add(doc["uid"])
        self._put(name, self._referring(doc, frames), frames)

    def _check_keys(self, doc: Mapping[str, Any], descriptor: Mapping[str, Any]) -> None:
        declared = {key for key, known in descriptor["data_keys"].items() if known.get("external") != "STREAM:"}
        if doc["data"].keys() != declared and doc["data"].keys() != descriptor["data_keys"].keys():
            raise InvalidDocument(
                f"run {self.uid[:8]}: event {doc['uid']} holds {sorted(doc['data'])}, its descriptor declared "
                f"{sorted(declared)}; the event was not stored"
            )

    def _accept(self, doc: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], descriptor: _Descriptor) -> list[Frame]:
        """Copy the event's arrays into the buffer, once, as they will be stored."""
        assets = descriptor.assets or {}
        for key in assets.keys() | arrays.keys():
            self._require_match(doc, key, arrays.get(key), assets.get(key))
        nbytes = sum(asset.spec.nbytes for asset in assets.values())
        self._pipeline.reserve(nbytes)
        try:
            copies = {
                key: np.array(arrays[key], dtype=asset.spec.dtype, order="C", copy=True) for key, asset in assets.items()
            }
        except BaseException:
            self._pipeline.give_back(nbytes)
            raise
        return [Frame(key, assets[key], assets[key].place(), copy) for key, copy in copies.items()]

    def _require_match(
        self, doc: Mapping[str, Any], key: str, array: NDArray[Any] | None, asset: Asset | None
    ) -> None:
        want = None if asset is None else (asset.spec.shape, asset.spec.dtype)
        got = None if array is None else (array.shape, storable_dtype(array.dtype))
        if got == want:
            return
        stream = self._descriptors[doc["descriptor"]].doc.get("name", "primary")
        raise FrameMismatch(
            f"run {self.uid[:8]}/{stream}/{key}: event {doc['seq_num']} came as {_described(got)}, the stream was declared "
            f"as {_described(want)}; the event was not stored, those before it are safe; a new descriptor "
            "(bps.configure, or a new run) may change the shape"
        )

    def _referring(self, doc: Mapping[str, Any], frames: list[Frame]) -> dict[str, Any]:
        """Return a copy of the event with references in the place of its stored arrays."""
        references = {frame.data_key: frame.asset.datum_id(frame.index) for frame in frames}
        data = {key: references.get(key) or plain(value) for key, value in doc["data"].items()}
        filled = {**doc.get("filled", {}), **dict.fromkeys(references, False)}
        rest = {key: plain(value) for key, value in doc.items() if key not in {"data", "filled", "timestamps"}}
        timestamps = {key: plain(value) for key, value in doc["timestamps"].items()}
        return {**rest, "data": data, "timestamps": timestamps, "filled": filled}

    def _again(self, doc: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], descriptor: _Descriptor) -> None:
        """Let the storage compare an event that came twice with what was stored."""
        frames: list[Frame] = []
        for key, asset in (descriptor.assets or {}).items():
            self._require_match(doc, key, arrays.get(key), asset)
            copy = np.array(arrays[key], dtype=asset.spec.dtype, order="C", copy=True)
            frames.append(Frame(key, asset, -1, copy))
        task = DuplicateTask(self._storage, "event", self._referring(doc, frames), frames)
        self._pipeline.reserve(task.nbytes)
        self._pipeline.put(task)

    # -- descriptors that were held back -----------------------------------------------------------------------

    def _release(self, uid: str, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Let a descriptor go, saying what its first event holds, and then what was waiting for it."""
        descriptor = self._descriptors[uid]
        origin = {"run": self.uid, "stream": descriptor.doc.get("name", "primary"), "time": self.start["time"]}
        specs = {key: array_spec(descriptor.doc, key, array, {**origin, "data_key": key}) for key, array in arrays.items()}
        doc = checked("descriptor", describe(descriptor.doc, data, specs))
        descriptor.assets = {key: self._asset(origin["stream"], key, spec) for key, spec in specs.items()}
        self._put("descriptor", doc)
        for name, held in descriptor.held:
            self._put(name, held)
        descriptor.held.clear()

    def _asset(self, stream: str, key: str, spec: ArraySpec) -> Asset:
        """Return the asset of this stream and key for arrays made like this; another make opens another asset."""
        made = (stream, key, spec.shape, spec.dtype.str, spec.dims, spec.scale, spec.units, spec.channel_names)
        if made not in self._assets:
            number = self._asset_numbers.get((stream, key), 0) + 1
            self._asset_numbers[stream, key] = number
            name = asset_name(stream, key, number, self._desk.backend.suffix)
            self._assets[made] = Asset(self._desk.backend, self._desk.root, self._storage.home.folder, name, spec, self.uid)
        return self._assets[made]


def _described(made: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "a value without an array" if made is None else f"an array {made[0]} of {made[1]}"
