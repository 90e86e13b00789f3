"""A store that takes in image files from elsewhere, as runs: copied, or as they lie there."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from gently_bluesky.deleting import DeletingStore
from gently_bluesky.documents.resources import file_uri
from gently_bluesky.errors import InputError, InvalidSetting
from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Record, storable_dtype
from gently_bluesky.progress import terminal_bar
from gently_bluesky.settings import Chunks, Compression, Settings
from gently_bluesky.writing import Writing

if TYPE_CHECKING:
    from gently_bluesky.foreign.images import Image

__all__ = ["ImportingStore"]

STREAM = "primary"
DEVICE = "import"
OURS = frozenset({"uid", "time", "imported", "lineage", "result"})
"""Start-document keys that are set here."""

Named = tuple[str, dict[str, Any]]


class ImportingStore(DeletingStore):
    """What a `Store` is to those who bring what they have. Parameters as of `MaintainedStore`."""

    _writing: Writing

    def import_(
        self,
        path: str | Path,
        *,
        copy: bool = True,
        data_key: str = "image",
        data_type: str = "imported",
        session: str | None = None,
        dims: Sequence[str] | None = None,
        pixel_size_um: float | tuple[float, float] | None = None,
        z_step_um: float | None = None,
        format: str = "zarr",  # as in `writer`
        chunks: Chunks | None = None,
        compression: Compression | None = None,
        progress: bool | Callable[[int, int, str], object] = True,
        **metadata: Any,
    ) -> Record:
        """Take an image from elsewhere into the store, as a run; *synced* on return. Any thread.

        The axis ``t`` is that of the events; where there is none, all of it is one event. Names of axes, steps and
        channels are read from OME metadata, where there are any. Takes memory for a few events.

        Parameters
        ----------
        path
            Of an OME-Zarr, or a Zarr array, a TIFF or OME-TIFF, an npy file, or a folder of ``t0000.tif``,
            ``t0001.tif``, ...: an event each.
        copy
            Copy the pixels into the store, as a writer stores them. Otherwise the documents name the files where they
            are, below one of the store's ``allowed_roots``, and nothing of them is changed: of Zarr whose first axis is
            ``t``, and of folders whose files are numbered from 0 on without gaps.
        data_key, data_type, session, **metadata
            What the run says of it; ``imported`` in its start document says where it came from.
        dims
            Names of all axes, in their order, where the file does not say, or not rightly.
        pixel_size_um, z_step_um
            Along y and x, or both, and along z, in the same way.
        format, chunks, compression
            As in `writer`, of a copy.
        progress
            A bar, where standard error is a terminal; or what is called with the bytes that were copied, of how many,
            and a word of what, on this thread.

        Returns
        -------
        Record
            Of the run.

        Raises
        ------
        InputError
            It is no image of a kind that is known here, or cannot be imported so; nothing was stored.
        PathNotAllowed
            It lies below none of the ``allowed_roots``, and is not to be copied.
        AssetMissing, AssetDamaged
            It is not there, or not whole. What was copied before is in the store, in a run that failed.
        StoreReadOnly, StorageError
            The store cannot be written.
        """
        from gently_bluesky.foreign.images import open_image  # a store brings no reader of files

        self._require_writable()
        taken = sorted(OURS & metadata.keys())
        if taken:
            raise InvalidSetting(
                f"expected metadata other than {', '.join(taken)}, which import_ sets; nothing was stored"
            )
        if not isinstance(data_key, str) or not data_key or {"/", "."}.intersection(data_key):  # pyright: ignore[reportUnnecessaryIsInstance] # people type it
            raise InvalidSetting(
                f"expected a data_key without '/' and '.', got {data_key!r:.200}; nothing was stored"
            )
        place = Path(path).expanduser().absolute()
        if not copy:
            place = self._places.roots.allowed(place, "what is to be imported by reference")
            if place.is_relative_to(self.root.resolve()):
                raise InputError(
                    f"{place} lies in the store, where it goes with the run that has it; nothing was stored; copy it"
                )
        image = open_image(place, dims)
        along_y, along_x = pixel_size_um if _is_pair(pixel_size_um) else (pixel_size_um, pixel_size_um)
        given = {"z": z_step_um, "y": along_y, "x": along_x}
        steps = {**image.steps_um, **{axis: _step(axis, um) for axis, um in given.items() if um is not None}}
        nowhere = [axis for axis, um in given.items() if um is not None and axis not in image.dims]
        if nowhere:
            raise InvalidSetting(
                f"a step along {' and '.join(nowhere)} was given, and {place} has the axes {', '.join(image.dims)}; "
                "nothing was stored; give dims=, like ('z', 'y', 'x'), or leave the step out"
            )
        if copy:
            image.read(0)  # what cannot be read at all makes no run
        uid = str(uuid.uuid4())
        start: dict[str, Any] = {
            **metadata,
            "uid": uid,
            "time": time.time(),
            "data_type": data_type,
            **({} if session is None else {"session": session}),
        }
        run = _ImportedRun(replace(image, steps_um=steps), place, data_key, start)
        settings = Settings(format=format, chunks=chunks, compression=compression)
        if not copy:
            self._send(settings, run.by_reference())
        elif callable(progress):
            self._send(settings, run.copied(progress))
        else:
            with terminal_bar("Importing", wanted=progress) as tell:
                self._send(settings, run.copied(tell))
        return self.record(uid)

    def _send(self, settings: Settings, documents: Iterator[Named]) -> None:
        with self._writing.writer(settings, None) as writer:
            for name, doc in documents:
                writer(name, doc)


def _is_pair(given: object) -> TypeGuard[tuple[float, float]]:
    return isinstance(given, tuple | list) and len(given) == 2  # y and x


def _step(axis: str, um: Any) -> float:
    is_number = isinstance(um, int | float | np.number) and not isinstance(um, bool)
    if not is_number or not 0 < float(um) < math.inf:
        raise InvalidSetting(
            f"expected the step along {axis} as a number of micrometres above 0, got {um!r:.200}; nothing was stored"
        )
    return float(um)


@dataclass(frozen=True, slots=True)
class _ImportedRun:
    """The documents of an image, as a run. ``start`` is its start document, without what was imported."""

    image: Image
    path: Path
    data_key: str
    start: Mapping[str, Any]

    def copied(self, tell: Callable[[int, int, str], object]) -> Iterator[Named]:
        """Yield them, pixels and all. Where they cannot be read the run ends, as failed, and that is raised."""
        image = self.image
        descriptor = self._descriptor({"shape": [*image.shape]})
        yield "start", self._start("copy")
        yield "descriptor", descriptor
        nbytes = int(np.prod(image.shape)) * image.dtype.itemsize
        for event in range(image.count):
            try:
                pixels = np.ascontiguousarray(image.read(event), storable_dtype(image.dtype))
            except Exception as error:
                yield "stop", self._stop(event, f"event {event} could not be read: {error}")
                raise
            yield "event", self._event(descriptor, event, {self.data_key: pixels})
            done = (event + 1) * nbytes
            total = image.count * nbytes
            tell(done, total, f"{bytes_text(done)} of {bytes_text(total)}")
        yield "stop", self._stop(image.count)

    def by_reference(self) -> Iterator[Named]:
        """Yield them, with the files where they are. Raises InputError where nothing here could open those."""
        image, reference = self.image, self.image.reference
        if reference is None:
            raise InputError(
                "expected Zarr whose first axis is t, or a folder of t0000.tif, t0001.tif, ... without gaps, which can "
                f"be read where they are, {self.path} is {image.kind}, nothing was stored; leave copy=False away"
            )
        dtype = image.dtype.newbyteorder("<").str
        descriptor = self._descriptor({"shape": [*image.shape], "dtype_numpy": dtype, "external": "STREAM:"})
        resource = {
            "uid": str(uuid.uuid4()),
            "run_start": self.start["uid"],
            "data_key": self.data_key,
            "mimetype": reference.mimetype,
            "uri": file_uri(reference.path, is_folder=reference.is_folder),
            "parameters": dict(reference.parameters),
        }
        yield "start", self._start("reference")
        yield "descriptor", descriptor
        yield "stream_resource", resource
        datum = {
            "uid": f"{resource['uid']}/0",
            "stream_resource": resource["uid"],
            "descriptor": descriptor["uid"],
            "indices": {"start": 0, "stop": image.count},
            "seq_nums": {"start": 1, "stop": image.count + 1},
        }
        yield "stream_datum", datum
        yield "stop", self._stop(image.count)

    def _start(self, by: str) -> dict[str, Any]:
        step = self.image.time_step_s
        imported = {"path": str(self.path), "kind": self.image.kind, "by": by}
        return {**self.start, "imported": {**imported, **({} if step is None else {"time_step_s": step})}}

    def _descriptor(self, more: Mapping[str, Any]) -> dict[str, Any]:
        known, steps = self.image, self.image.steps_um
        said: dict[str, Any] = {}
        if {"y", "x"} <= steps.keys():
            said["pixel_size_um"] = [steps["y"], steps["x"]]
        if "z" in steps:
            said["z_step_um"] = steps["z"]
        if known.channels:
            said["view_names"] = [*known.channels]
        kinds = {"pixel_size_um": ("array", [2]), "z_step_um": ("number", [])}
        kinds["view_names"] = ("array", [len(known.channels)])
        now_s = self.start["time"]
        configuration = {
            "data": said,
            "timestamps": dict.fromkeys(said, now_s),
            "data_keys": {
                name: {"source": DEVICE, "dtype": kinds[name][0], "shape": kinds[name][1]} for name in said
            },
        }
        declared = {"source": DEVICE, "dtype": "array", "dims": [*known.dims], **more}
        return {
            "uid": str(uuid.uuid4()),
            "run_start": self.start["uid"],
            "time": now_s,
            "name": STREAM,
            "data_keys": {self.data_key: declared},
            "object_keys": {DEVICE: [self.data_key]},
            "configuration": {DEVICE: configuration},
            "hints": {DEVICE: {"fields": []}},
        }

    def _event(self, descriptor: Mapping[str, Any], event: int, data: dict[str, Any]) -> dict[str, Any]:
        now_s = time.time()
        return {
            "uid": str(uuid.uuid4()),
            "descriptor": descriptor["uid"],
            "time": now_s,
            "seq_num": event + 1,
            "data": data,
            "timestamps": dict.fromkeys(data, now_s),
            "filled": {},
        }

    def _stop(self, events: int, reason: str = "") -> dict[str, Any]:
        return {
            "uid": str(uuid.uuid4()),
            "run_start": self.start["uid"],
            "time": time.time(),
            "exit_status": "fail" if reason else "success",
            "reason": reason,
            "num_events": {STREAM: events},
        }
