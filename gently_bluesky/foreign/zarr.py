"""Zarr arrays of other writers, of both versions, by TensorStore: it knows numbers, and no codec that runs code.

What a writer leaves out, as zarr-python does with chunks of zeros, is the fill value.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.backends.chunks import MAX_CHUNK_BYTES
from gently_bluesky.backends.zarr_source import NO_CACHE, kvstore, os_error
from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError, LookupFailed
from gently_bluesky.files import open_plain, storage_error
from gently_bluesky.foreign.base import (
    KINDS_OF_NUMBERS,
    MOST_EXPANSION,
    SMALL_BYTES,
    EventSource,
    Places,
    box_around,
    plausible,
    translated,
)
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.foreign.rows import cut_as_declared, name_of_dataset
from gently_bluesky.jsontext import decode
from gently_bluesky.lazy import ArraySource

__all__ = ["open_array"]

METADATA = {"zarr.json": "zarr3", ".zarray": "zarr"}
GROUPS = ("zarr.json", ".zgroup")
MOST_METADATA = 2**24
MOST_NAMES = 64
NOT_KNOWN = ("is not registered", "filters are not supported")


def open_array(asset: ForeignAsset) -> ArraySource:
    """Open ``application/x-zarr``: an array, or the one of a group that ``parameters`` name, cut as declared."""
    path, named = asset.path, name_of_dataset(asset)
    if named is not None:
        path = _within(path, named)
    return _ZarrRows(asset, asset.roots.allowed(path, path.name))


class _ZarrRows(EventSource):
    """Rows of an array, one or several for each event."""

    def __init__(self, asset: ForeignAsset, folder: Path) -> None:
        self._folder: Path = folder
        self._roots: Roots = asset.roots
        with _translated(folder):
            driver, metadata = _metadata(folder, asset.roots)
            self._metadata: str = "zarr.json" if driver == "zarr3" else ".zarray"
            self._array: ts.TensorStore = _opened(folder, driver)
            self._files: _Files = _Files(self._array, driver, metadata)
            lengths, dtype = tuple(self._array.shape), np.dtype(self._array.dtype.numpy_dtype)
            if not lengths:
                raise ValueError("it has no axis for events")
            if dtype.kind not in KINDS_OF_NUMBERS:
                raise ValueError(f"it holds {dtype}, not numbers")
            chunk = _chunk(self._array)
            if prod(chunk) * dtype.itemsize > MAX_CHUNK_BYTES:
                raise ValueError(f"it claims chunks of {chunk} of {dtype}")
        cut = cut_as_declared(asset, folder.name, lengths)
        with _translated(folder):
            plausible(cut.stored, dtype, _stored_bytes(folder, prod(cut.stored) * dtype.itemsize))
        self._rows: int | None = cut.rows
        self._chunk: tuple[int, ...] = chunk
        super().__init__(cut.events, cut.stored, dtype, cut.shape)

    @property
    def stored_chunks(self) -> tuple[int, ...]:
        """Lengths of what is read at once: the array's inner chunks."""
        rows, *rest = self._chunk
        if self._rows is None:
            return (rows, *rest)
        return (max(1, rows // self._rows), min(rows, self._rows), *rest)

    def read_events(self, events: NDArray[np.intp], inner: Places, out: NDArray[Any]) -> None:
        """Read the rows of all events together."""
        places = [events, *inner]
        if self._rows is not None:
            rows = (events[:, None] * self._rows + inner[0][None, :]).ravel()
            places = [rows, *inner[1:]]
        with _translated(self._folder):
            for name in self._files.holding(places):
                self._require_allowed(self._folder / name)
            target = out.reshape([len(along) for along in places])
            boxes = [(along, *box_around(along)) for along in places]
            wanted = tuple(box if isinstance(kept, slice) else along for along, box, kept in boxes)
            ts.array(target, copy=False).write(self._array.oindex[wanted]).result()
            if not (self._folder / self._metadata).exists():  # then what was not found is no fill value
                raise AssetMissing(f"{self._folder} is not there any more; no pixels were returned")

    def _require_allowed(self, path: Path) -> None:
        if os.path.realpath(path) != str(path):  # a link: the folder itself has none on its way
            self._roots.allowed(path, f"a chunk of {self._folder.name}")


class _Files:
    """Which files hold what of an array."""

    def __init__(self, array: ts.TensorStore, driver: str, metadata: Mapping[str, Any]) -> None:
        self._lengths: tuple[int, ...] = tuple(
            length or 1 for length in array.chunk_layout.write_chunk.shape or ()
        )
        encoding: Mapping[str, Any] = metadata.get("chunk_key_encoding", {})
        self._first: tuple[str, ...] = ("c",) if driver == "zarr3" and encoding["name"] == "default" else ()
        separator = metadata.get("dimension_separator", ".")
        if driver == "zarr3":
            usual = "/" if self._first else "."
            separator = encoding.get("configuration", {}).get("separator", usual)
        self._separator: str = separator

    def holding(self, places: Places) -> list[str]:
        """Return the names of the files that hold the elements at these places, or would if they were there."""
        numbers = [np.unique(along // length) for along, length in zip(places, self._lengths, strict=True)]
        return [self._separator.join((*self._first, *map(str, each))) for each in product(*numbers)]


def _within(folder: Path, name: object) -> Path:
    """Return the path of what a group holds under this name."""
    parts = [part for part in name.split("/") if part] if isinstance(name, str) else []
    if not 0 < len(parts) <= MOST_NAMES or any(
        part in {".", ".."} or set("\\:\0") & set(part) for part in parts
    ):
        raise AssetDamaged(
            f"{folder}: expected the path of an array within this group, got {name!r:.100}; nothing was read"
        )
    return folder.joinpath(*parts)


def _metadata(folder: Path, roots: Roots) -> tuple[str, Mapping[str, Any]]:
    """Return TensorStore's name for the array's version, and what its metadata say."""
    for name, driver in METADATA.items():
        path = roots.allowed(folder / name, f"{name} of {folder.name}")
        if not path.exists():
            continue
        with BufferedReader(open_plain(path)) as file:
            raw = file.read(MOST_METADATA + 1)
        if len(raw) > MOST_METADATA:
            raise ValueError(f"its {name} is longer than {MOST_METADATA} bytes")
        found = decode(raw)
        if driver == "zarr" or found["node_type"] == "array":
            return driver, found
    if any((folder / name).exists() for name in GROUPS):
        raise AssetDamaged(
            f"{folder} is a group, expected an array, or its path within the group as 'dataset' in what announced "
            "it; nothing was read"
        )
    raise AssetMissing(
        f"{folder} holds no Zarr array; no pixels were returned; if its writer is still at it, try again"
    )


def _opened(folder: Path, driver: str) -> ts.TensorStore:
    spec = {"driver": driver, "kvstore": kvstore(folder)}
    return ts.open(spec, open=True, read=True, context=ts.Context(NO_CACHE)).result()


def _chunk(array: ts.TensorStore) -> tuple[int, ...]:
    return tuple(length or 1 for length in array.chunk_layout.read_chunk.shape or ())


@contextmanager
def _translated(folder: Path) -> Generator[None]:
    """Turn what TensorStore raises into our errors, without its account of the array."""
    with translated(folder):
        try:
            yield
        except GentlyError:
            raise
        except ValueError as error:
            text = str(error).partition(" [tensorstore_spec=")[0]
            if any(words in text for words in NOT_KNOWN):
                raise LookupFailed(
                    f"{folder} is coded in a way that is not undone here: {text}; no pixels were returned; open it "
                    "with zarr, if you trust it"
                ) from error
            if "os_error_code" in text:
                raise storage_error(os_error(error), f"{folder} cannot be read: {text}") from error
            raise ValueError(text) from error


def _stored_bytes(folder: Path, claimed: int) -> int:
    """Return how many bytes the files of an array have, or as many as a claim needs: then no more are looked at."""
    enough = claimed // MOST_EXPANSION + 1 if claimed > SMALL_BYTES else 0
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if found >= enough:
                return found
            found += Path(place, name).lstat().st_size
    return found
