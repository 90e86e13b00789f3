"""TIFF files of other writers: one for each frame, or one for each event."""

from __future__ import annotations

from io import FileIO
from math import prod
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gently_bluesky.backends.planes import read_planes
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.foreign.base import EventFiles, Places, count_of, files_of_stream, plausible, text_of
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.names import numbered
from gently_bluesky.lazy import ArraySource

__all__ = ["open_area_detector", "open_stream"]

MOST_PAGES = 2**20


def open_area_detector(asset: ForeignAsset) -> ArraySource:
    """Open ``AD_TIFF``: ``frame_per_point`` files for each event, whose arrays are ``(frame, y, x)``."""
    if "template" not in asset.kwargs and not asset.path.is_dir():  # as ophyd.sim writes it
        file_of = numbered(asset.path.parent, f"{asset.path.name.replace('%', '')}_%d.tif")
        return _TiffFiles(asset, file_of, None)
    filename = text_of(asset, "filename") if "filename" in asset.kwargs else ""
    file_of = numbered(asset.path, text_of(asset, "template"), filename)
    return _TiffFiles(asset, file_of, count_of(asset, "frame_per_point", 1))


def open_stream(asset: ForeignAsset) -> ArraySource:
    """Open ``multipart/related;type=image/tiff``: a file for each event, or for each frame."""
    return _TiffFiles(asset, *files_of_stream(asset))


class _TiffFiles(EventFiles):
    """Pages are read alone: other files that an OME header names are not looked for."""

    def look(self, file: FileIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with _tiff(file) as tiff:
            self.has_colours = tiff.pages.first.axes.endswith("S")
            return _made(tiff, file)

    def take(self, file: FileIO, wanted: Places, out: NDArray[Any]) -> None:
        with _tiff(file) as tiff:
            shape, _ = _made(tiff, file)
            first = tiff.pages.first
            leading = len(shape) - len(first.shape)
            if not leading:
                _take_page(file, first, wanted, out)
                return
            for number, page in enumerate(wanted[0]):
                _take_page(file, tiff.pages[int(page)], wanted[1:], out[number])


def _tiff(file: FileIO) -> tifffile.TiffFile:
    file.seek(0)  # where a file begins is taken from there
    return tifffile.TiffFile(file, is_ome=False)


def _made(tiff: tifffile.TiffFile, file: FileIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape, pages in front if there are several, and dtype, in the file's byte order."""
    first, pages = tiff.pages.first, len(tiff.pages)
    if first.dtype is None or pages > MOST_PAGES:
        raise ValueError(f"it holds {pages} pages of {first.bitspersample} bits")
    shape = first.shape if pages == 1 else (pages, *first.shape)
    dtype = np.dtype(first.dtype).newbyteorder(tiff.byteorder)
    plausible(shape, dtype, file.seek(0, 2))
    return shape, dtype


def _take_page(file: FileIO, page: Any, wanted: Places, out: NDArray[Any]) -> None:
    if tuple(page.shape) != tuple(page.keyframe.shape) or page.dtype.newbyteorder(
        "="
    ) != out.dtype.newbyteorder("="):
        raise AssetDamaged(f"{file.name}: its pages differ; no pixels were returned")
    if page.is_contiguous and page.dtype.kind != "b":
        offset = page.dataoffsets[0]
        if file.seek(0, 2) < offset + prod(page.shape) * page.dtype.itemsize:
            raise EOFError("it ends before its pixels do")
        read_planes(file, offset, page.shape, wanted, out[None])
        return
    out[...] = page.asarray()[np.ix_(*wanted)]  # compressed, or cut into tiles: it is read whole
