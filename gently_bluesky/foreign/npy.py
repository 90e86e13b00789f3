"""Arrays that ``numpy.save`` wrote, one file for each event. Nothing is ever unpickled."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gently_bluesky.backends.planes import read_planes
from gently_bluesky.foreign.base import EventFiles, Places, plausible
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.lazy import ArraySource

__all__ = ["open_sequence"]

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def open_sequence(asset: ForeignAsset) -> ArraySource:
    """Open ``NPY_SEQ``, as ``ophyd.sim.SynSignalWithRegistry`` writes it: ``<path>_<n>.npy``."""
    return _NpyFiles(asset, lambda number: Path(f"{asset.path}_{number}.npy"), None)


class _NpyFiles(EventFiles):
    def look(self, file: FileIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
        shape, _, dtype = _header(file)
        return shape, dtype

    def take(self, file: FileIO, wanted: Places, out: NDArray[Any]) -> None:
        shape, is_fortran, _ = _header(file)
        offset = file.tell()
        if not is_fortran:
            read_planes(file, offset, shape, wanted, out[None])
            return
        turned = np.empty(out.shape[::-1], out.dtype)
        read_planes(file, offset, shape[::-1], wanted[::-1], turned[None])
        out[...] = turned.T


def _header(file: FileIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and dtype, and leave the file where its pixels begin."""
    size = file.seek(0, 2)
    file.seek(0)
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"it is of version {version} of its format")
    shape, is_fortran, dtype = HEADERS[version](file)
    left = size - file.tell()
    plausible(shape, dtype, left)
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if left < wanted:
        raise EOFError(f"it holds {left} bytes of {wanted}")
    return shape, is_fortran, dtype
