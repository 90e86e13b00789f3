"""Frozen values that every room of the house shares. They hold and check; they do no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gently_bluesky.errors import UnstorableDtype
from gently_bluesky.markup import table
from gently_bluesky.wording import clock, printable

__all__ = [
    "ArraySpec",
    "JournalLine",
    "Pin",
    "Record",
    "Tombstone",
    "is_derived",
    "storable_dtype",
]

STORABLE_KINDS = "biufc"


def storable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian dtype under which arrays of this dtype are stored.

    Raises
    ------
    UnstorableDtype
        For anything but bool, integers, floats (16 to 64 bits) and complex (64 and 128 bits).
    """
    if dtype.kind not in STORABLE_KINDS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise UnstorableDtype(
            f"expected an array of bool, integers, floats or complex numbers, got dtype {dtype}; "
            "the array was not stored; convert it with .astype() in the device before it is read"
        )
    return dtype.newbyteorder("<")


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """What the array of one (run, stream, data key) is made of; one event's part of it.

    Attributes
    ----------
    name
        What people call it, usually the data key.
    shape
        Of one event's array; the stored array has the event axis ``t`` in front.
    dtype
        Little-endian.
    dims
        One name per axis of one event: ``("z", "y", "x")``, ``("v", "z", "y", "x")``.
    scale
        Step along each axis of one event, in ``units``; 1.0 where nothing is known.
    units
        Unit of each axis as in OME (``"micrometer"``), None where nothing is known or the axis has none.
    channel_names
        Names of the views or channels along ``v`` or ``c``; empty where there is no such axis.
    origin
        Where it comes from, for the metadata of the asset: run, stream, data key, time of the run.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    channel_names: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def make(self) -> tuple[Any, ...]:
        """All that arrays in one asset must have in common."""
        return (self.shape, self.dtype.str, self.dims, self.scale, self.units, self.channel_names)

    @property
    def nbytes(self) -> int:
        """Bytes of one event's array."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of a run's journal: a document as it was announced, and what stands beside it.

    Attributes
    ----------
    name, doc
        The document's name in event-model, and the document, of JSON types only.
    digest
        For an event with stored arrays: ``{data key: "crc32c:<8 hex digits>"}`` over the C-order
        little-endian bytes.
    outcome
        For a stop: how the run ended on record, ``{"status", "received", "stored", "lost"}``, counts of
        frames; ``"missing"`` where the stop counts more events than came: how many, by stream; and
        ``"overflow"`` where the run went on in a second place: ``{"root", "reason", "stored"}``.
    timestamps
        For an event: of its arrays that stream_datum documents announce, by data key; the event itself does
        not name them.
    storing
        For a stop: what its frames took on their way, ``{"frames", "bytes", "bytes_per_s", "waited_s",
        "peak_pending_bytes"}``, and ``"written_anew"`` where the disk refused some at first.
    """

    name: str
    doc: Mapping[str, Any]
    digest: Mapping[str, str] | None = None
    outcome: Mapping[str, Any] | None = None
    storing: Mapping[str, Any] | None = None
    timestamps: Mapping[str, float] | None = None


class _Shown:
    """Holds who shows a record, which is no part of its value: not compared, not pickled."""

    __slots__ = ("_shown_by",)


@dataclass(frozen=True, slots=True)
class Record(_Shown):
    """What the index keeps about one uid.

    Attributes
    ----------
    uid
        Of the run (its start document), the asset (its resource document) or the datum.
    kind
        ``"run"``, ``"asset"`` or ``"datum"``. A derived result is a run too, with ``lineage`` in its start
        document and no ``scan_id``, as no RunEngine counted it.
    run_uid
        The run it belongs to; its own uid for a run.
    time
        Seconds since the epoch: of the start document, the asset's first event, or the datum's event.
    data_type, session
        From the run's start document.
    status
        Of the run: ``"running"``, ``"complete"``, ``"failed"``, ``"aborted"`` or ``"incomplete"``.
    stream, data_key
        Where an asset or datum belongs.
    seq_num
        Of a datum's event.
    shape, dtype, dims
        Of an asset: ``(t, ...)`` as announced; of a datum: one event's array.
    format
        An asset's ``spec``, e.g. ``"GENTLY_ZARR"``.
    path
        Relative to the store's root: a run's journal or an asset's files. Empty for assets that others wrote
        elsewhere.
    operation, parents
        How a derived result was made, and the uids it was made from.
    received, stored, lost
        Frames of a run that has ended; None while it runs, or where a crash left no count.
    deleted
        When the pixels of the asset, the datum's asset, or of all of the run's assets were deleted, in seconds since
        the epoch; None where they were not.
    metadata
        A run's start document; what opens an asset (its ``resource_kwargs``); a datum's ``datum_kwargs``.
    """

    uid: str
    kind: str
    run_uid: str
    time: float
    data_type: str | None = None
    session: str | None = None
    status: str | None = None
    stream: str | None = None
    data_key: str | None = None
    seq_num: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    dims: tuple[str, ...] = ()
    format: str | None = None
    path: str = ""
    operation: str | None = None
    parents: tuple[str, ...] = ()
    received: int | None = None
    stored: int | None = None
    lost: int | None = None
    deleted: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __repr__(self) -> str:
        words = [self.kind, printable(self.uid), *self._words().values()]
        return f"<Record {' '.join(words)}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks; of a record that a store gave, with a small picture and its lineage."""
        shown_by: Callable[[Record], str] | None = getattr(self, "_shown_by", None)
        return table("Record", self.rows()) if shown_by is None else shown_by(self)

    def shown_by(self, shown_by: Callable[[Record], str]) -> Record:
        """Have a store, which knows more, say what notebooks show; return the record, which is the same value."""
        object.__setattr__(self, "_shown_by", shown_by)
        return self

    def rows(self) -> dict[str, str]:
        """Return what there is to say of it, for people."""
        words = self._words()
        named = {"operation": self.operation, "session": self.session}
        words |= {name: value for name, value in named.items() if value and name in words}
        return {"uid": self.uid, "kind": self.kind, "run": self.run_uid, **words, "path": self.path}

    def _words(self) -> dict[str, str]:
        """Return what tells this record from others, where there is something to tell."""
        shape = self.shape or ()
        named = [f"{dim}: {length}" for dim, length in zip(self.dims, shape, strict=False)]
        axes = ", ".join(named or map(str, shape))
        count = len(self.parents)
        words = {
            "of": "/".join(filter(None, (self.stream, self.data_key))),
            "array": f"({axes}) {self.dtype or ''}".rstrip() if self.shape else "",
            "format": self.format if self.kind == "asset" else None,
            "data type": self.data_type if self.kind == "run" else None,
            "operation": f"by {self.operation}" if self.operation else None,
            "parents": f"from {count} parent{'s' if count > 1 else ''}" if count else None,
            "session": f"session {self.session}" if self.session else None,
            "status": self.status,
            "deleted": f"deleted {clock(self.deleted)}" if self.deleted is not None else None,
        }
        return {name: printable(word) for name, word in words.items() if word}


@dataclass(frozen=True, slots=True)
class Pin:
    """A run that is not to be deleted until it is unpinned.

    Attributes
    ----------
    run_uid
        Of the run.
    time
        When it was pinned, in seconds since the epoch.
    reason
        Why, in somebody's words.
    """

    run_uid: str
    time: float
    reason: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of pixels that were deleted, beside all documents of their run.

    Attributes
    ----------
    uid
        Of the asset; of a run, all of whose assets were deleted.
    run_uid
        Of the run.
    time, purged
        When it was put into the trash, and when it was removed from there; seconds since the epoch. ``purged`` is None
        while `Store.restore` can bring it back.
    reason, policy
        Why, in somebody's words, and the name of the policy that asked for it, or None.
    keep_until
        In the trash at least until then.
    nbytes
        What its files take on the disk.
    events, digest
        How many events it held, and a checksum over their digests, in their order.
    path, trash
        Where it lay and where it lies, or lay, in the trash; relative to the store's root.
    copy_of
        The asset that was converted, where this is what it was before: it is no deletion, has a ``uid`` of its own and
        is not restored. None of what was deleted.
    start
        The run's start document.
    """

    uid: str
    run_uid: str
    time: float
    reason: str
    keep_until: float
    nbytes: int
    events: int
    digest: str
    path: str
    trash: str
    policy: str | None = None
    purged: float | None = None
    copy_of: str | None = None
    start: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __str__(self) -> str:
        state = f"in the trash until {clock(self.keep_until)}" if self.purged is None else "purged"
        done = "deleted" if self.copy_of is None else f"was {printable(self.copy_of)} until"
        return f"{printable(self.uid)} {done} {clock(self.time)}, {state}: {printable(self.reason)}"


def is_derived(start: Mapping[str, Any]) -> bool:
    """Say whether a run was made from others, and not acquired: a RunEngine counts its runs, in ``scan_id``."""
    return isinstance(start.get("lineage"), Mapping) and "scan_id" not in start
