"""One run as it comes in: a state machine on the producers' threads, in front of the run's `RunStorage`.

It checks documents, copies arrays into the buffer, holds a descriptor back until its first event says what
the device really delivers, and passes everything on in order. It makes no call to the file system. The entry
lock of the `StoreWriter` is held around every method.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.assets import array_spec, describe
from gently_bluesky.documents.checks import check_descriptor, check_event, checked
from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.events import (
    arrays_of,
    conflicting_event,
    referring,
    said_by,
    unnamed_timestamps,
)
from gently_bluesky.documents.failure import FirstFailure
from gently_bluesky.documents.home import RunHome
from gently_bluesky.documents.intake import Intake
from gently_bluesky.documents.names import asset_name
from gently_bluesky.documents.references import References
from gently_bluesky.documents.run_state import MOVES, RunState
from gently_bluesky.documents.run_storage import RunStorage
from gently_bluesky.documents.tasks import DocumentTask, DuplicateTask, FailTask, Frame, OpenTask, StopTask
from gently_bluesky.errors import (
    ConflictingDocument,
    FrameMismatch,
    InvalidDocument,
    RunClosed,
    StorageError,
    SubscriberError,
    UnstorableDtype,
)
from gently_bluesky.jsontext import digest_of, plain
from gently_bluesky.model import ArraySpec, storable_dtype

__all__ = ["RunWriter"]


class _Descriptor:
    """A descriptor as it came, and, once its first event was there, the assets of its array keys."""

    __slots__ = ("assets", "doc", "held", "is_external")

    def __init__(self, doc: Mapping[str, Any]) -> None:
        self.doc = doc
        self.assets: dict[str, Asset] | None = None
        self.held: list[tuple[str, dict[str, Any]]] = []
        self.is_external = any(known.get("external") for known in doc["data_keys"].values())


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
        self.failure = FirstFailure(desk.on_failure, desk.pipeline.wake)
        self._state = RunState.NEW
        self._desk = desk
        self._pipeline = desk.pipeline
        self._storage = RunStorage(start, desk, home, self.failure)
        self._intake = Intake(desk.pipeline, self._storage.tally, copies=desk.settings.copy, pool=desk.pool)
        self._descriptors: dict[str, _Descriptor] = {}
        self._documents: dict[str, bytes] = {}
        self._references = References(self.uid)
        self.resources = self._references.resources
        self._assets: dict[tuple[Any, ...], Asset] = {}
        self._asset_numbers: dict[tuple[str, str], int] = {}
        self._events: set[str] = set()
        self._digest: Mapping[str, str] = {}
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

    # -- the run's beginning and end -------------------------------------------------------------------------

    def open(self) -> None:
        """Wait until the folder, the journal and the lock are there: the start is *synced* and announced."""
        self._pipeline.hold()
        task = OpenTask(self._storage)
        try:
            self._pipeline.put(task)
            self._pipeline.wait_until(lambda: task.ended, f"the start of run {self.uid}")
            self.failure.raise_if_set()
        except BaseException as error:
            given_up = StorageError(f"run {self.uid}: its start was interrupted; nothing of it was stored")
            self.failure.set(error if isinstance(error, Exception) else given_up)
            if not task.ended:
                self._pipeline.put(StopTask(self._storage, None))  # should it open yet, it ends on record
            self._move(RunState.ENDED)
            self._pipeline.release(join=task.ended)
            if isinstance(error, Exception):
                self.failure.raise_if_set()
            raise
        self._move(RunState.OPEN)
        self._pass_on_remarks()

    def receive(self, name: str, doc: Mapping[str, Any], digest: Mapping[str, str] | None = None) -> None:
        """Take a document between start and stop: *accepted* on return.

        An event's pixels must have this ``digest``, if it is given.

        Raises the run's first failure, if it has one, as every call after it does.
        """
        self.failure.raise_if_set()
        try:
            self._digest = digest or {}
            self._takers[name](name, doc)
        except Exception as error:  # noqa: BLE001 # kept, and raised
            self.refuse(error)
        self._pass_on_remarks()

    def _pass_on_remarks(self) -> None:
        """Warn, on the thread that brings the documents, of what the storing thread has met and survived."""
        while self._storage.remarks:
            warnings.warn(self._storage.remarks.popleft(), RuntimeWarning, stacklevel=5)

    def refuse(self, error: Exception) -> NoReturn:
        """Fail the run, and raise its first failure, which may be another."""
        self.fail(error)
        self.failure.raise_if_set()
        raise error

    def stop(self, stop: Mapping[str, Any] | None, outcome: Mapping[str, Any] | None = None) -> None:
        """Drain the buffer and end the run; with None, for want of a stop document, as incomplete.

        A copy of a recorded run ends on record with the ``outcome`` of that one.

        On return everything is announced, and *synced* unless that is left to the system, and nothing of the run
        is left in memory. A RuntimeWarning says why files that the run was to adopt were not, how many frames
        had to be written anew, and when another process holds the index.

        Raises
        ------
        GentlyError
            The run's first failure, the same object as before; or a SubscriberError if all was stored but a
            subscriber raised.
        """
        if self._state is RunState.ENDED:
            self.failure.raise_if_set()
        self._move(RunState.DRAINING)
        self._release_held()
        try:
            self._pipeline.put(StopTask(self._storage, None if stop is None else dict(stop), outcome))
            self._pipeline.wait_until(lambda: self._storage.ended, f"the end of run {self.uid}")
        except Exception as error:  # noqa: BLE001 # kept, and raised below
            self.failure.set(error)
        finally:
            self._move(RunState.ENDED)
            self._pipeline.release(join=self._storage.ended)
        try:
            self._raise_what_failed()
        finally:
            self._storage.remarks.extend(self._storage.last_remarks())
            self._pass_on_remarks()

    def _release_held(self) -> None:
        for uid, descriptor in self._descriptors.items():
            if descriptor.assets is None and self.failure.error is None:
                try:
                    self._release(uid, {}, {})
                except Exception as error:  # noqa: BLE001 # raised when the run has ended
                    self.fail(error)

    def _raise_what_failed(self) -> None:
        errors = tuple(self._storage.subscriber_errors)
        if self.failure.error is not None and errors:
            self.failure.error.add_note(
                f"{len(errors)} of the writer's subscribers raised too, first {errors[0]!r}"
            )
        self.failure.raise_if_set()
        if errors:
            raise SubscriberError(
                f"run {self.uid}: every frame was stored and announced, but {len(errors)} of the writer's "
                f"subscribers raised, first {errors[0]!r}; they saw no document of this run after that",
                errors,
            ) from errors[0]

    def fail(self, error: Exception) -> None:
        """End the run on record as failed, behind what was accepted before. The first failure stands."""
        if self.failure.set(error):
            self._pipeline.put(FailTask(self._storage))

    # -- documents in between --------------------------------------------------------------------------------

    def _put(self, name: str, doc: dict[str, Any]) -> None:
        self._pipeline.put(DocumentTask(self._storage, name, doc))

    def _is_repeated(self, name: str, uid: str, doc: Mapping[str, Any]) -> bool:
        digest = digest_of([name, doc])
        known = self._documents.setdefault(uid, digest)
        if known is digest:
            self._references.note(name, uid)
            return False
        if known != digest:
            raise ConflictingDocument(
                f"run {self.uid[:8]}: {name} {uid} came twice with different contents; the first one stands, "
                "the second was not stored; give every document a uid of its own"
            )
        return True

    def _descriptor(self, name: str, doc: Mapping[str, Any]) -> None:
        doc = plain(dict(check_descriptor(doc)))
        checked(name, describe(doc, {}, {}))  # what no event can put right is refused now
        if self._is_repeated(name, doc["uid"], doc):
            return
        self._descriptors[doc["uid"]] = _Descriptor(doc)
        if all(known.get("external") == "STREAM:" for known in doc["data_keys"].values()):
            self._release(doc["uid"], {}, {})  # no event of it holds anything

    def take_over(self, resource: dict[str, Any]) -> None:
        """Announce a resource of a run that has ended as this run's too, for the datums that go on to name it.

        It gets a uid of its own here, so that the run's journal says all that its datums need.
        """
        uid = self._references.stand_in_for(resource)
        self._storage.stand_ins.add(uid)
        self.receive("resource", {**resource, "uid": uid, "run_start": self.uid})

    def _passing(self, name: str, doc: Mapping[str, Any]) -> None:
        copy = checked(name, doc)
        uid = copy["datum_id" if name == "datum" else "uid"]
        if name == "datum":
            copy["resource"] = self._references.here(copy["resource"])
            self._references.require(name, uid, "resource", copy["resource"])
        if self._is_repeated(name, uid, copy):
            return
        if name == "resource":
            self._references.keep(copy)
        self._put(name, copy)

    def _stream_datum(self, name: str, doc: Mapping[str, Any]) -> None:
        copy = checked(name, doc)
        for reference in ("stream_resource", "descriptor"):
            self._references.require(name, copy["uid"], reference, copy[reference])
        descriptor = self._descriptors[copy["descriptor"]]
        if self._is_repeated(name, copy["uid"], copy):
            return
        self._references.extend(copy)
        if descriptor.assets is None:
            descriptor.held.append((name, copy))
        else:
            self._put(name, copy)

    def _event(self, name: str, doc: Mapping[str, Any]) -> None:
        doc = check_event(doc)
        self._references.require(name, doc["uid"], "descriptor", doc["descriptor"])
        descriptor = self._descriptors[doc["descriptor"]]
        self._check_keys(doc, descriptor.doc)
        if descriptor.is_external:
            self._references.require_datums(doc, descriptor.doc)
        is_new = doc["uid"] not in self._events
        try:
            arrays = arrays_of(doc, descriptor.doc, descriptor.assets)
        except UnstorableDtype:
            self._storage.receive(1)
            raise
        if is_new:
            self._storage.receive(len(arrays))
        said = said_by(doc, arrays)
        if not is_new:
            self._again(said, arrays, descriptor)
            return
        if descriptor.assets is None:
            self._release(doc["descriptor"], doc["data"], arrays)
        frames = self._accept(said, arrays, descriptor)
        self._events.add(doc["uid"])
        task = DocumentTask(self._storage, name, referring(said, frames), frames)
        task.recorded = self._digest
        task.timestamps = unnamed_timestamps(said, frames)
        self._pipeline.put(task)

    def _check_keys(self, doc: Mapping[str, Any], descriptor: Mapping[str, Any]) -> None:
        declared = {
            key for key, known in descriptor["data_keys"].items() if known.get("external") != "STREAM:"
        }
        if doc["data"].keys() != declared and doc["data"].keys() != descriptor["data_keys"].keys():
            raise InvalidDocument(
                f"run {self.uid[:8]}: event {doc['uid']} holds {sorted(doc['data'])}, its descriptor "
                f"declared {sorted(declared)}; the event was not stored"
            )

    def _accept(
        self, doc: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], descriptor: _Descriptor
    ) -> list[Frame]:
        """Copy the event's arrays into the buffer, once, as they will be stored."""
        assets = descriptor.assets or {}
        for key in assets.keys() | arrays.keys():
            self._require_match(doc, key, arrays.get(key), assets.get(key))
        frames = self._intake.accept(arrays, assets, self.failure.raise_if_set)
        return [frame._replace(place=frame.asset.place()) for frame in frames]

    def _require_match(
        self, doc: Mapping[str, Any], key: str, array: NDArray[Any] | None, asset: Asset | None
    ) -> None:
        want = None if asset is None else (asset.spec.shape, asset.spec.dtype)
        if array is not None and want == (array.shape, array.dtype):
            return
        got = None if array is None else (array.shape, storable_dtype(array.dtype))
        if got == want:
            return
        stream = self._descriptors[doc["descriptor"]].doc.get("name", "primary")
        raise FrameMismatch(
            f"run {self.uid[:8]}/{stream}/{key}: event {doc['seq_num']} came as {_described(got)}, the "
            f"stream was declared as {_described(want)}; the event was not stored, those before it are safe; "
            "a new descriptor (bps.configure, or a new run) may change the shape"
        )

    def _again(
        self, said: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], descriptor: _Descriptor
    ) -> None:
        """Let the storage compare an event that came twice with what was stored."""
        assets = descriptor.assets or {}
        made = {key: (array.shape, storable_dtype(array.dtype)) for key, array in arrays.items()}
        if made != {key: (asset.spec.shape, asset.spec.dtype) for key, asset in assets.items()}:
            raise conflicting_event(self.uid, said["uid"])
        frames = self._intake.accept(arrays, assets, self.failure.raise_if_set)
        task = DuplicateTask(self._storage, "event", referring(said, frames), frames)
        task.timestamps = unnamed_timestamps(said, frames)
        self._pipeline.put(task)

    # -- descriptors that were held back ---------------------------------------------------------------------

    def _release(self, uid: str, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Let a descriptor go, saying what its first event holds, and then what was waiting for it."""
        descriptor = self._descriptors[uid]
        origin = {
            "run": self.uid,
            "stream": descriptor.doc.get("name", "primary"),
            "time": self.start["time"],
        }
        specs = {
            key: array_spec(descriptor.doc, key, array, {**origin, "data_key": key})
            for key, array in arrays.items()
        }
        doc = checked("descriptor", describe(descriptor.doc, data, specs, self._desk.settings.assets))
        descriptor.assets = {key: self._asset(origin["stream"], key, spec) for key, spec in specs.items()}
        self._put("descriptor", doc)
        for name, held in descriptor.held:
            self._put(name, held)
        descriptor.held.clear()

    def _asset(self, stream: str, key: str, spec: ArraySpec) -> Asset:
        """Return the asset for arrays made like this; another make opens another asset."""
        made = (stream, key, spec.make)
        if made not in self._assets:
            number = self._asset_numbers.get((stream, key), 0) + 1
            self._asset_numbers[stream, key] = number
            name = asset_name(stream, key, number, self._desk.backend.suffix)
            settings, backend = self._desk.settings, self._desk.backend
            packing = settings.packing(key)
            backend.check_fit(packing, spec)
            path, root = f"{self._storage.home.folder}/{name}", self._storage.root
            self._assets[made] = Asset(
                backend, root, path, spec, self.uid, key, packing, settings.assets, settings.sync
            )
        return self._assets[made]


def _described(made: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "a value without an array" if made is None else f"an array {made[0]} of {made[1]}"
