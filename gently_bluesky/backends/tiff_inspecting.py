"""A look at the files of an asset kept as TIFF: their headers and sizes, and which there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gently_bluesky.backends.inspecting import Fault, fault_of, inspect_event_files
from gently_bluesky.backends.own_files import open_own
from gently_bluesky.backends.tiff_layout import check_folder, file_shape, find_pixels, stored_dtype
from gently_bluesky.files import is_leftover

__all__ = ["inspect_tiff"]


def inspect_tiff(
    path: Path, template: str, shape: tuple[int, ...], dtype: np.dtype[Any], count: int, temporary: str
) -> Iterator[Fault]:
    """Yield the faults of a folder of TIFF files; what has a name that ends in ``temporary`` is half written.

    But a whole one of these is foreign: it was stored, and its renaming, which would have shown it, did not come.
    """
    in_file = file_shape(shape, is_ome=".ome." in template)

    def look(file_path: Path) -> None:
        with open_own(file_path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < prod(in_file) * dtype.itemsize:  # tifffile has other words for it
                raise EOFError(f"it has {size} bytes, less than the pixels of one event")
            find_pixels(file, in_file, stored_dtype(dtype), size)

    def is_half_written(name: str) -> bool:
        if not name.endswith(temporary):
            return is_leftover(name)
        try:
            look(path / name)
        except Exception:  # noqa: BLE001 # as in `inspect_event_files`
            return True
        return False

    try:
        check_folder(path)
    except OSError as error:
        yield fault_of(path, error, range(count))
        return
    yield from inspect_event_files(path, count, template.format, look, is_half_written)
