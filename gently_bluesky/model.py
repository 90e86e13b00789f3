"""Frozen values that every room of the house shares. They hold and check; they do no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gently_bluesky.errors import InvalidSetting, UnstorableDtype
from gently_bluesky.markup import table
from gently_bluesky.wording import printable

__all__ = [
    "SYNCS",
    "ArraySpec",
    "JournalLine",
    "Packing",
    "Record",
    "Settings",
    "is_derived",
    "storable_dtype",
]

STORABLE_KINDS = "biufc"
ASSETS = ("datum", "stream")
ADOPTIONS = ("reference", "move")
SYNCS = ("event", "run", "never")


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


Chunks = str | tuple[int, ...]
Compression = str | tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Packing:
    """How the arrays of a data key are cut and compressed; a backend says which of it it can do.

    Attributes
    ----------
    chunks
        ``"planes"``, ``"blocks"``, ``"volume"``, ``"auto"``, or the lengths of a chunk along the axes of one
        event; None is what the backend does by itself.
    compression
        ``"lz4"``, ``"zstd"``, ``"none"``, ``"auto"``, or codecs as Zarr's metadata spells them; None is what
        the backend does by itself.
    levels
        Resolutions kept, each half as fine as the one before it; 1 is the full one alone.

    Raises
    ------
    InvalidSetting
        One of them is nothing that any backend could take.
    """

    chunks: Chunks | None = None
    compression: Compression | None = None
    levels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", _checked_chunks(self.chunks))
        object.__setattr__(self, "compression", _checked_compression(self.compression))
        object.__setattr__(self, "levels", _checked_levels(self.levels))


def _checked_levels(levels: object) -> int:
    if isinstance(levels, bool) or not isinstance(levels, int | np.integer) or levels < 1:
        raise InvalidSetting(
            f"levels must be a number of resolutions, 1 or more, got {levels!r:.200}; nothing was written"
        )
    return int(levels)


def _checked_chunks(chunks: object) -> Chunks | None:
    if chunks is None or isinstance(chunks, str):
        return chunks
    lengths = [*chunks] if isinstance(chunks, list | tuple) else []
    if not lengths or any(
        isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1
        for length in lengths
    ):
        raise InvalidSetting(
            "chunks must be a word, or a tuple of whole numbers of 1 or more, one for each axis of an event's "
            f"array, got {chunks!r:.200}; nothing was written"
        )
    return tuple(map(int, lengths))


def _checked_compression(compression: object) -> Compression | None:
    if compression is None or isinstance(compression, str):
        return compression
    codecs = [*compression] if isinstance(compression, list | tuple) else []
    if not codecs or not all(
        isinstance(codec, Mapping) and isinstance(codec.get("name"), str) for codec in codecs
    ):
        raise InvalidSetting(
            "compression must be a word, or a sequence of codecs as Zarr's metadata spells them, like "
            f'[{{"name": "zstd", "configuration": {{"level": 5}}}}], got {compression!r:.200}; '
            "nothing was written"
        )
    return tuple(dict(codec) for codec in codecs)


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
        }
        return {name: printable(word) for name, word in words.items() if word}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a writer writes. Checked once, here.

    Attributes
    ----------
    format
        Name of a backend: ``"zarr"``, ``"tiff"``, ``"memory"``, or one from the entry-point group
        ``gently_bluesky.backends``.
    chunks, compression, levels
        As in `Packing`, or a mapping of data keys to such; keys it does not name get what the backend does
        by itself.
    assets
        Which documents announce arrays: ``"datum"`` (resource and datum) or ``"stream"`` (stream_resource and
        stream_datum).
    adopt
        What becomes of files that others put into the store's ``incoming`` folder: ``"reference"`` (nothing) or
        ``"move"`` (they are renamed into the folder of their run when it ends).
    sync
        When what is written is *synced*: ``"event"``, before an event is announced; ``"run"``, before the
        run's stop is; ``"never"``, when the system sees fit.
    copy
        Arrays are copied as they come; otherwise taken as they are where that is possible.
    hot_bytes
        Bound of the shared memory that keeps the newest arrays; 0 is none.
    max_pending_bytes
        Bound of the buffer between the RunEngine and storage. When it is full the producer waits. None is
        128 MiB, or one event where that is larger.
    stall_timeout_s
        A wait for storage without any progress longer than this is a failure of the run.
    min_free_bytes
        A run does not start with less free space than this, and fails, or goes on in the store's overflow, when
        there is less; 0 looks at nothing.
    """

    format: str = "zarr"
    chunks: Chunks | Mapping[str, Chunks] | None = None
    compression: Compression | Mapping[str, Compression] | None = None
    levels: int | Mapping[str, int] = 1
    assets: str = "datum"
    adopt: str = "reference"
    sync: str = "event"
    copy: bool = True
    hot_bytes: int = 0
    max_pending_bytes: int | None = None
    stall_timeout_s: float = 60.0
    min_free_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name in ("max_pending_bytes", "min_free_bytes", "hot_bytes"):
            value = getattr(self, name)
            if name == "max_pending_bytes" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidSetting(
                    f"{name} must be a whole number of bytes, 0 or more, got {value!r}; nothing was written"
                )
        for name, words in (("assets", ASSETS), ("adopt", ADOPTIONS), ("sync", SYNCS)):
            value = getattr(self, name)
            if value not in words:
                raise InvalidSetting(
                    f"{name} must be one of {', '.join(map(repr, words))}, got {value!r:.200}; nothing was written"
                )
        if self.hot_bytes and not self.copy:
            raise InvalidSetting(
                "copy=False takes arrays where they are, and hot_bytes copies them into shared memory: give one "
                "of the two; nothing was written"
            )
        if isinstance(self.stall_timeout_s, bool) or not self.stall_timeout_s > 0:
            raise InvalidSetting(
                f"stall_timeout_s must be seconds above 0, got {self.stall_timeout_s!r}; nothing was written"
            )
        for name in ("chunks", "compression", "levels"):
            value = getattr(self, name)
            if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
                raise InvalidSetting(
                    f"{name} by data key must name data keys by text, got {[*value]!r:.200}; "
                    "nothing was written"
                )
        self.packings()

    def packings(self) -> Sequence[Packing]:
        """Return all there may be: of the data keys that are named, and of others. Raises InvalidSetting."""
        named = {
            key
            for value in (self.chunks, self.compression, self.levels)
            if isinstance(value, Mapping)
            for key in value
        }
        return [self.packing(key) for key in ["", *sorted(named)]]

    def packing(self, data_key: str) -> Packing:
        """Return how the arrays of a data key are cut and compressed."""
        chunks = self.chunks.get(data_key) if isinstance(self.chunks, Mapping) else self.chunks
        levels = self.levels.get(data_key, 1) if isinstance(self.levels, Mapping) else self.levels
        compression = self.compression
        if isinstance(compression, Mapping):
            compression = compression.get(data_key)
        return Packing(chunks, compression, levels)


def is_derived(start: Mapping[str, Any]) -> bool:
    """Say whether a run was made from others, and not acquired: a RunEngine counts its runs, in ``scan_id``."""
    return isinstance(start.get("lineage"), Mapping) and "scan_id" not in start
