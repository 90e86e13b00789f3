"""JPEG files of other writers: one for each frame, or one for each event. Each is decoded whole."""

from __future__ import annotations

from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import MissingExtra
from gently_bluesky.foreign.base import EventFiles, Places, files_of_stream, plausible
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.lazy import ArraySource

try:
    from PIL.JpegImagePlugin import JpegImageFile
except ImportError as error:
    raise MissingExtra(
        "JPEG files are read by Pillow, which is not installed; nothing was read; pip install 'gently-bluesky[jpeg]'"
    ) from error

__all__ = ["open_stream"]

COLOURS: dict[str, tuple[int, ...]] = {"L": (), "RGB": (3,)}
MOST_EXPANSION = 2**11
"""Blocks of 64 pixels take a bit at least."""


def open_stream(asset: ForeignAsset) -> ArraySource:
    """Open ``multipart/related;type=image/jpeg``: grey ``(y, x)``, or ``(y, x, colour)`` with red, green, blue."""
    return _JpegFiles(asset, *files_of_stream(asset))


class _JpegFiles(EventFiles):
    """The format is known before a file is: Pillow's own search for it would try other decoders on what is none."""

    def look(self, file: FileIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
        picture = _jpeg(file)
        if picture.mode not in COLOURS:
            raise ValueError(f"it is neither grey nor red, green and blue, but {picture.mode}")
        self.has_colours = bool(COLOURS[picture.mode])
        shape = (*picture.size[::-1], *COLOURS[picture.mode])
        plausible(shape, np.dtype(np.uint8), file.seek(0, 2), MOST_EXPANSION)
        return shape, np.dtype(np.uint8)

    def take(self, file: FileIO, wanted: Places, out: NDArray[Any]) -> None:
        out[...] = np.asarray(_jpeg(file))[np.ix_(*wanted)]


def _jpeg(file: FileIO) -> JpegImageFile:
    file.seek(0)
    return JpegImageFile(file)  # pyright: ignore[reportArgumentType] # any file that is open
