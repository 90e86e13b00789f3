"""An asset that may be converted: what it is, what it can become, and where its pixels are to be read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.frames import declared_frame
from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.adopting import RECORD
from gently_bluesky.documents.converted import MADE_FROM
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import announced_asset
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    InvalidDocument,
    InvalidSetting,
    LookupFailed,
    StorageFull,
)
from gently_bluesky.files import inside
from gently_bluesky.index.index import Index
from gently_bluesky.labels import bytes_text
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec, JournalLine, Record
from gently_bluesky.settings import Packing, Settings
from gently_bluesky.upkeep.accounts import recorded_digests
from gently_bluesky.upkeep.announced import Announced
from gently_bluesky.upkeep.protection import Where
from gently_bluesky.wording import clock

__all__ = ["NOT_CONVERTED", "Convertible", "Opened", "convertible", "opened"]

NOT_CONVERTED: Final = "was not converted, and is what it was"
LEFT_FREE: Final = Settings().min_free_bytes
"""A conversion stops before a run beside it would."""


@dataclass(frozen=True, slots=True)
class Convertible:
    """An asset as it is.

    Attributes
    ----------
    announced
        What the journal says of it.
    run
        The record of its run.
    backend, root, path, kwargs
        What opens it, and with what.
    place
        Where it lies, relative to the store's root.
    spec
        What one event is.
    """

    announced: Announced
    run: Record
    backend: Backend
    root: str
    path: Path
    place: str
    kwargs: Mapping[str, Any]
    spec: ArraySpec

    @property
    def nbytes(self) -> int:
        """Of its pixels, as they are in memory."""
        return self.announced.count * self.spec.nbytes

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """What it was before it was converted, oldest first."""
        said: Any = self.kwargs.get(MADE_FROM)
        return [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []

    def require_fits(self, backend: Backend, packing: Packing) -> None:
        """Return if a backend can keep it so. Raises InvalidSetting."""
        what = f"asset {self.announced.uid} ({self.place})"
        can, is_other = backend.capabilities, backend.spec != self.backend.spec
        if is_other and (self.spec.dtype.kind not in can.kinds or len(self.spec.shape) > can.max_ndim):
            raise InvalidSetting(
                f"{what}: format {backend.name!r} holds arrays of up to {can.max_ndim} axes and of the kinds "
                f"{can.kinds!r}, got events of {self.spec.shape} and {self.spec.dtype}; it was not converted; choose "
                "another format"
            )
        if self.announced.name == "stream_resource" and backend.mimetype is None:
            raise InvalidSetting(
                f"{what} is announced by stream_resource, and format {backend.name!r} has no mimetype by which such a "
                "document could name it; it was not converted; choose another format"
            )
        backend.check_packing(packing)
        backend.check_fit(packing, self.spec)

    def require_room(self, nbytes: int) -> None:
        """Return if so much can be written beside it, and what runs leave free is left. Raises StorageFull."""
        free = shutil.disk_usage(self.path.parent).free
        if free - nbytes < LEFT_FREE:
            raise StorageFull(
                f"asset {self.announced.uid} ({self.place}) {NOT_CONVERTED}: it takes {bytes_text(nbytes)}, "
                f"{self.path.parent} has {bytes_text(free)} free, and {bytes_text(LEFT_FREE)} must stay free for "
                "runs; make room"
            )


def convertible(
    asset: Announced, run: Record, lines: Sequence[JournalLine], root: Path, index: Index, where: Where
) -> Convertible | str:
    """Return an asset as it is, or why it is left so.

    Parameters
    ----------
    asset, run
        What the journal says of it, and the index of its run.
    lines
        Of the journal.
    root, index, where
        Of the store, and what tells where an asset lies.
    """
    record = index.record(asset.uid)
    known = announced_asset(asset.name, asset.doc)
    if record.deleted is not None:
        stone = index.tombstone(asset.uid)
        if stone is not None and stone.purged is not None:
            return f"was deleted, and purged {clock(stone.purged)}"
        return "was deleted: restore it first, if it is to be converted"
    try:
        backend = None if known is None else backend_for_spec(known.spec)
        path = where(record)
    except (LookupFailed, InvalidDocument) as error:
        return str(error)
    if known is None or backend is None:
        return "was written by others, whose files are left as they are"
    if not path.is_relative_to(inside(root, run.path).parent):
        return (
            "lies where its device put it, and not in the folder of its run: what a run adopts (adopt='move') can be "
            "converted"
        )
    for line in lines:
        is_asset = line.name in {"resource", "stream_resource"}
        other = announced_asset(line.name, line.doc) if is_asset else None
        if other is not None and other.uid != asset.uid and other.path == known.path:
            return f"is announced a second time, as {other.uid}"
    if record.path in index.shared_places():
        return "is announced by another run too"
    place, spec = path.relative_to(root).as_posix(), _spec(asset, run, path, known.kwargs)
    return Convertible(asset, run, backend, known.root, path, place, known.kwargs, spec)


def _spec(asset: Announced, run: Record, path: Path, kwargs: Mapping[str, Any]) -> ArraySpec:
    shape, dtype = declared_frame(path, kwargs)
    origin: dict[str, Any] = {"run": run.uid, "time": run.time}
    if asset.stream:
        origin.update(stream=asset.stream, data_key=asset.data_key)
    return ArraySpec(
        name=asset.data_key,
        shape=shape,
        dtype=dtype,
        dims=tuple(kwargs["dims"]),
        scale=tuple(kwargs["scale"]),
        units=tuple(kwargs["units"]),
        channel_names=tuple(kwargs["channel_names"]),
        origin=origin,
    )


class Opened(NamedTuple):
    """Where the pixels of an asset are read: the source, where it lies, what its files take, and what is known."""

    source: ArraySource
    path: Path
    nbytes: int
    announced: Announced


def opened(root: Path, index: Index, was: Convertible) -> Opened:
    """Open an asset, or, where it was put into memory that is gone, what it was before that and lies in the trash.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        As `Backend.open`; or what a device put on record of its pixels is damaged.
    OSError
        Its files cannot be looked at.
    """
    announced = _with_recorded_digests(was)
    try:
        return _opened(was.backend, was.path, was.kwargs, announced)
    except AssetMissing:
        last = was.history[-1] if was.history and isinstance(was.backend, MemoryBackend) else {}
        backend, kwargs = backend_for_spec(str(last.get("spec"))), last.get("kwargs")
        for one in index.tombstones(was.run.uid):
            is_it = one.copy_of == was.announced.uid and one.purged is None and one.path == last.get("path")
            if is_it and backend is not None and isinstance(kwargs, Mapping):
                return _opened(backend, inside(root, one.trash), kwargs, announced)
        raise


def _opened(backend: Backend, path: Path, kwargs: Mapping[str, Any], announced: Announced) -> Opened:
    source = backend.open(path, kwargs, announced.count)
    return Opened(source, path, sum(file.stat().st_size for file in backend.files(path, kwargs)), announced)


def _with_recorded_digests(was: Convertible) -> Announced:
    """Return what the journal says of an asset, with what a device that wrote it put on record beside it."""
    if INCOMING not in was.place.split("/"):
        return was.announced
    try:
        recorded, damaged = recorded_digests(was.path.parent / RECORD, was.path.name)
    except FileNotFoundError:  # written by no device of ours
        return was.announced
    if damaged:
        raise AssetDamaged(
            f"asset {was.announced.uid} ({was.place}) {NOT_CONVERTED}: what its device put on record of its pixels is "
            f"damaged ({damaged[0]}); verify the run"
        )
    return replace(was.announced, digests={**was.announced.digests, **recorded})
