"""A look at the files of an asset kept as Zarr: its metadata, which shards there are, and the index in each.

A shard has its index of chunks at its end, under a checksum of its own (Zarr v3, codec ``sharding_indexed``): a
shard that was cut short has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from crc32c import crc32c

from gently_bluesky.backends.inspecting import Fault, are_too_few, fault_of
from gently_bluesky.backends.own_files import open_own
from gently_bluesky.backends.zarr_source import ARRAY, open_published
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.files import is_leftover

__all__ = ["LOCK_SUFFIX", "inspect_zarr"]

LOCK_SUFFIX = ".__lock"
"""Of what TensorStore writes before it renames; a kill leaves them."""
METADATA = "zarr.json"
CHUNKS = "c"
ENTRY_BYTES = 16
CHECKSUM_BYTES = 4
ABSENT = 2**64 - 1
"""Offset and length of a chunk that was never written."""


def inspect_zarr(path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterator[Fault]:
    """Yield the faults of a group of arrays: the full resolution, whose pixels count, and the coarser ones."""
    try:
        names = set(os.listdir(path))  # noqa: PTH208 # a good deal faster
        open_published(path, resource_kwargs, count)
    except FileNotFoundError as error:
        missing = path / ARRAY / METADATA if path.exists() else path
        yield Fault("missing", missing, str(error), range(count))
        return
    except OSError as error:
        yield fault_of(path, error, range(count))
        return
    if (fault := _fault_of_metadata(path / METADATA)) is not None:
        yield fault
    levels = {str(level) for level in range(_levels(resource_kwargs, len(names)))}
    for level in sorted(levels, key=int):
        yield from _inspect_array(path / level, count, has_pixels=level == ARRAY)
    yield from _foreign(path, names - levels - {METADATA})


def _levels(resource_kwargs: Mapping[str, Any], most: int) -> int:
    packing = resource_kwargs.get("packing")
    levels = packing.get("levels", 1) if isinstance(packing, Mapping) else 1
    return min(levels, most) if isinstance(levels, int) else 1


def _read(file: Path) -> bytes:
    with open_own(file) as opened:
        return opened.readall()


def _fault_of_metadata(file: Path) -> Fault | None:
    try:
        if not isinstance(orjson.loads(_read(file)), dict):
            raise TypeError("expected an object")
    except (OSError, ValueError, TypeError) as error:
        return fault_of(file, error)
    return None


@dataclass(frozen=True, slots=True)
class _Grid:
    """How an array is cut: shards of one event along its axes, and chunks in a shard."""

    shards: tuple[int, ...]
    chunks: int

    @classmethod
    def of(cls, file: Path) -> _Grid:
        """Read it from an array's metadata. Raises OSError, LookupError, TypeError, ValueError."""
        metadata = orjson.loads(_read(file))
        (codec,) = metadata["codecs"]
        if (
            codec["name"] != "sharding_indexed"
            or codec["configuration"].get("index_location", "end") != "end"
        ):
            raise ValueError(f"expected shards with an index at their ends, found {codec!r:.200}")
        shape = metadata["shape"][1:]
        shard = metadata["chunk_grid"]["configuration"]["chunk_shape"][1:]
        chunk = codec["configuration"]["chunk_shape"][1:]
        shards = tuple(-(-length // piece) for length, piece in zip(shape, shard, strict=True))
        return cls(shards, prod(length // piece for length, piece in zip(shard, chunk, strict=True)))


def _inspect_array(folder: Path, count: int, *, has_pixels: bool) -> Iterator[Fault]:
    def events_of(first: int, end: int) -> range:
        return range(first, end) if has_pixels else range(0)

    try:
        grid = _Grid.of(folder / METADATA)
    except FileNotFoundError as error:
        yield fault_of(folder / METADATA, error, events_of(0, count))
        return
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        yield fault_of(folder, error, events_of(0, count))
        return
    chunks = folder / CHUNKS
    try:
        names = set(os.listdir(chunks)) if chunks.exists() else set[str]()  # noqa: PTH208 # as above
    except OSError as error:
        yield fault_of(chunks, error, events_of(0, count))
        return
    if are_too_few(len(names), count):
        yield Fault("missing", chunks, f"of {count} events it holds {len(names)}", events_of(0, count))
        return
    for event in range(count):
        names.discard(str(event))
        yield from _inspect_event(chunks / str(event), grid, events_of(event, event + 1))
    yield from _foreign(chunks, names)
    yield from _foreign(folder, set(os.listdir(folder)) - {METADATA, CHUNKS})  # noqa: PTH208 # as above


def _inspect_event(event: Path, grid: _Grid, events: range) -> Iterator[Fault]:
    there = set(_files_below(event))
    if are_too_few(len(there), prod(grid.shards)):
        yield Fault("missing", event, f"of {prod(grid.shards)} shards it holds {len(there)}", events)
        return
    for place in product(*map(range, grid.shards)):
        shard = event.joinpath(*map(str, place))
        there.discard(shard)
        try:
            _check_shard(shard, grid.chunks)
        except (OSError, EOFError) as error:
            yield fault_of(shard, error, events)
    for stray in sorted(there):
        if not _is_half_written(stray.name):
            yield Fault("foreign", stray, "it belongs to no announced event")


def _check_shard(shard: Path, chunks: int) -> None:
    """Check that a shard has its index, and that this tells of chunks that are in it. Raises EOFError, OSError."""
    wanted = chunks * ENTRY_BYTES + CHECKSUM_BYTES
    with open_own(shard) as file:
        size = os.fstat(file.fileno()).st_size
        if size < wanted:
            raise EOFError(f"it has {size} bytes, less than an index of {chunks} chunks")
        file.seek(size - wanted)
        index = file.read(wanted) or b""
    entries = np.frombuffer(index[:-CHECKSUM_BYTES], "<u8").reshape(-1, 2)
    room = size - wanted
    # Of what is no index hardly a pair of numbers lies in the file.
    inside = (entries[:, 0] < room) & (entries[:, 1] <= room) & (entries[:, 1] > 0)
    if crc32c(index[:-CHECKSUM_BYTES]) != int.from_bytes(index[-CHECKSUM_BYTES:], "little"):
        if not inside.any():
            raise EOFError("its index of chunks, which is written last, is not there")
        raise AssetDamaged("its index of chunks does not fit its checksum")
    absent = (entries == ABSENT).all(axis=1)
    with np.errstate(over="ignore"):
        ends = entries[:, 0] + entries[:, 1]
    if not np.all(absent | (inside & (ends <= room))):
        raise EOFError(f"it has {size} bytes, and its index tells of chunks beyond them")


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (Path(folder, name) for name in names)
    elif os.path.lexists(path):
        yield path


def _foreign(folder: Path, names: set[str]) -> Iterator[Fault]:
    """Yield what belongs to no event; folders that were made ahead, and hold nothing, are not worth a word."""
    for name in sorted(names):
        if any(not _is_half_written(file.name) for file in _files_below(folder / name)):
            yield Fault("foreign", folder / name, "it belongs to no announced event")


def _is_half_written(name: str) -> bool:
    return name.endswith(LOCK_SUFFIX) or is_leftover(name)
