"""What a person may set of how arrays are written: frozen values, checked once, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gently_bluesky.errors import InvalidSetting

__all__ = ["DAY_S", "SYNCS", "Chunks", "Compression", "Packing", "Settings", "seconds_kept"]

ASSETS = ("datum", "stream")
ADOPTIONS = ("reference", "move")
SYNCS = ("event", "run", "never")
DAY_S = 86_400.0
LONGEST_DAYS = 366_000

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


def seconds_kept(keep_days: object) -> float:
    """Return for how long something stays in the trash, in seconds, from a number of days.

    Raises
    ------
    InvalidSetting
        It is none, below 0, or without an end.
    """
    if (
        isinstance(keep_days, int | float)
        and not isinstance(keep_days, bool)
        and 0 <= keep_days < LONGEST_DAYS
    ):
        return keep_days * DAY_S
    raise InvalidSetting(
        f"expected keep_days to be a number of days, 0 or more and below {LONGEST_DAYS:,}, got {keep_days!r:.200}; "
        "nothing was changed"
    )
