"""Which kinds of assets of other writers are read here, and what opens each: imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from gently_bluesky.foreign.roots import Roots
from gently_bluesky.lazy import ArraySource

__all__ = ["KINDS", "TOLD_BY_DATUMS", "ForeignAsset", "foreign_dims", "open_foreign"]

KINDS = {
    "NPY_SEQ": ("gently_bluesky.foreign.npy", "open_sequence"),
    "AD_TIFF": ("gently_bluesky.foreign.tiff", "open_area_detector"),
    "AD_HDF5": ("gently_bluesky.foreign.hdf5", "open_area_detector"),
    "AD_HDF5_SWMR": ("gently_bluesky.foreign.hdf5", "open_area_detector"),
    "AD_HDF5_SWMR_STREAM": ("gently_bluesky.foreign.hdf5", "open_swmr_stream"),
    "application/x-hdf5": ("gently_bluesky.foreign.hdf5", "open_dataset"),
    "application/x-zarr": ("gently_bluesky.foreign.zarr", "open_array"),
    "multipart/related;type=image/jpeg": ("gently_bluesky.foreign.jpeg", "open_stream"),
    "multipart/related;type=image/tiff": ("gently_bluesky.foreign.tiff", "open_stream"),
}
"""Specs of resource documents and mimetypes of stream_resource documents, and what opens each."""

TOLD_BY_DATUMS = ("AD_HDF5_SWMR_STREAM",)
"""Those whose datums may say what of the file is theirs."""


@dataclass(frozen=True, slots=True)
class ForeignAsset:
    """What opens an asset of another writer.

    Attributes
    ----------
    path
        Of a file, of a folder, or what the names of its files begin with; allowed to be read.
    kwargs
        ``resource_kwargs``, or ``parameters``. Not trusted.
    count
        Events that are known to be there. What is opened may hold more.
    shape
        Of one event, as the descriptor says; None where it says nothing that can be. Not trusted.
    roots
        Where files that are named within files may lie.
    """

    path: Path
    kwargs: Mapping[str, Any]
    count: int
    shape: tuple[int, ...] | None = None
    roots: Roots = field(default_factory=lambda: Roots(()))


def open_foreign(kind: str, asset: ForeignAsset) -> ArraySource:
    """Open an asset as ``(t, ...)``: the announced events, or more. Reads no pixels. Any thread.

    Raises
    ------
    KeyError
        Nothing here opens this kind.
    AssetMissing, AssetDamaged, StorageError
        The files are not there, not what was announced, or cannot be read.
    PathNotAllowed
        A file names another one that may not be read.
    MissingExtra
        The library that reads them is not installed.
    """
    module, name = KINDS[kind]
    opened: ArraySource = getattr(import_module(module), name)(asset)
    return opened


def foreign_dims(source: ArraySource) -> list[str]:
    """Return names of the axes of one event, where nobody gives them: images have the last two, but for colours."""
    ndim = len(source.shape) - 1
    last = ["y", "x", "c"] if getattr(source, "has_colours", False) else ["y", "x"]
    return (
        [*(f"dim_{axis}" for axis in range(ndim - len(last))), *last]
        if ndim >= len(last)
        else ["dim_0"] * ndim
    )
