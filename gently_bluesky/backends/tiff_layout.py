"""What is in a TIFF file of ours, and in a folder of them: which events, and where their pixels stand."""

from __future__ import annotations

import re
import stat
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from gently_bluesky.errors import AssetDamaged, AssetDiffers, AssetMissing
from gently_bluesky.files import storage_error

__all__ = [
    "EVENT_FILE",
    "check_folder",
    "count_events",
    "file_shape",
    "find_pixels",
    "planes_shape",
    "stored_dtype",
]

EVENT_FILE = re.compile(r"(\d{6,})(?:\.ome)?\.tif")
STRIP_OFFSETS = 273
DESCRIPTION = 270
ALIGNMENT = 16
LAYOUT_TAGS = (256, 257, 258, 259, 262, 266, 277, 278, 279, 284, 317, 322, 323, 324, 338, 339)
"""Tags that say what the bytes of a plane mean: TIFF 6.0, sections 8, 14, 15 and 19."""
MOST_TAGS = 64
DIRECTORY_BYTES = 1024
"""More than a directory takes with all its values, as tifffile writes it."""


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the file: TIFF's own bool is one bit, which cannot be mapped."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


def planes_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return an event's shape as planes: TIFF knows nothing else, so a waveform is a plane of one row."""
    return (1,) * (2 - len(shape)) + shape


def file_shape(shape: tuple[int, ...], *, is_ome: bool) -> tuple[int, ...]:
    """Return the shape in the file: where it is not OME's, tifffile leaves out axes of length one at the end."""
    shape = planes_shape(shape)
    while not is_ome and len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_folder(path: Path) -> None:
    """Check that a folder is there, at the cost of one look, whatever is in it.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        There is no such folder, it is none, or the system could not look.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError
    except OSError as error:
        raise _folder_error(error, path) from error


def count_events(path: Path) -> int:
    """Return one more than the highest number of an event file in a folder.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        There is no such folder, it is no folder of ours, or it cannot be listed.
    """
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError as error:
        raise _folder_error(error, path) from error
    events = [int(found[1]) for found in map(EVENT_FILE.fullmatch, names) if found]
    count = max(events, default=-1) + 1
    # One lost event must not close the others; a name that invents them by the thousand is another matter.
    if count > 2 * len(events) + 1000:
        raise AssetDamaged(
            f"{path}: names {count} events, holds {len(events)} files; no pixels were returned"
        )
    return count


def _folder_error(error: OSError, path: Path) -> OSError:
    if isinstance(error, FileNotFoundError):
        return AssetMissing(f"{path} is gone; no pixels were returned")
    if isinstance(error, NotADirectoryError):
        return AssetDamaged(f"{path}: expected a folder with a file for each event, found a file")
    return storage_error(error, f"{path} cannot be listed")


def find_pixels(file: FileIO, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> int:
    """Return the offset of the pixels, if all planes are there, uncompressed, one behind the other.

    Parameters
    ----------
    file
        Unbuffered; its position is moved.
    shape, dtype
        What it is to hold: planes, rows, columns, with any number of axes of planes.
    size
        Of the file.

    Raises
    ------
    AssetDamaged
        It holds something else.
    EOFError
        It ends too early.
    Exception
        tifffile raises errors of many kinds at damaged headers.
    """
    plane_nbytes = shape[-2] * shape[-1] * dtype.itemsize
    planes = prod(shape[:-2])
    # tifffile closes what it opened itself, and leaves a handle it was given alone.
    with tifffile.TiffFile(file) as tiff:
        first = tiff.pages.first
        offset = first.dataoffsets[0]
        in_a_row = planes > 1 and _in_a_row(file, tiff, planes, plane_nbytes, size)
        found = (planes if in_a_row else len(tiff.pages), *first.shape)
        wanted = (planes, *shape[-2:])
        if found != wanted or first.dtype != dtype or first.compression != 1 or tiff.byteorder != "<":
            if found[1:] == wanted[1:] and size < offset + planes * plane_nbytes:
                raise EOFError(f"{size} bytes, expected {offset + planes * plane_nbytes}")
            raise AssetDiffers(
                f"{file.name}: expected {wanted} planes, rows, columns of {dtype}, as announced, "
                f"found {found} of {first.dtype}, byte order {tiff.byteorder}, compression "
                f"{first.compression}; no pixels were returned"
            )
        if not first.description:
            raise EOFError("its description, written last, is not there")
        if planes == 1 and not _is_in_place(tiff, offset, plane_nbytes, size):
            raise AssetDamaged(
                f"{file.name}: its pixels do not stand where they were written; no pixels were returned"
            )
        if not in_a_row:
            tiff.pages.set_keyframe(0)
            tiff.pages.useframes = True
            starts = [page.dataoffsets[0] for page in tiff.pages]
            if starts != list(range(offset, offset + planes * plane_nbytes, plane_nbytes)):
                raise AssetDamaged(
                    f"{file.name}: its planes do not stand one behind the other; no pixels were returned"
                )
    if size < offset + planes * plane_nbytes:
        raise EOFError(f"{size} bytes, expected {offset + planes * plane_nbytes}")
    return offset


def _is_in_place(tiff: tifffile.TiffFile, offset: int, nbytes: int, size: int) -> bool:
    """Say whether a lone plane stands where tifffile puts it: aligned, with the description or the end behind it.

    No other plane says that the offset in the file is the one that was written there.
    """
    description = tiff.pages.first.tags.get(DESCRIPTION)
    behind = (size,) if description is None else (size, description.valueoffset)
    return offset % ALIGNMENT == 0 and any(0 <= place - offset - nbytes < ALIGNMENT for place in behind)


def _in_a_row(file: FileIO, tiff: tifffile.TiffFile, planes: int, plane_nbytes: int, size: int) -> bool:
    """Say whether all planes stand one behind the other, by one look at all directories.

    tifffile reads the first two, and needs some ms for hundreds. The others, where tifffile wrote them, follow
    at even distances and differ from the second in nothing but where their pixels are and where the next
    directory is. False means only that they are to be read one by one.
    """
    try:
        first, second = tiff.pages.first, tiff.pages[1]
    except IndexError:
        return False
    if (second.shape, second.dtype, second.compression) != (first.shape, first.dtype, first.compression):
        return False
    head, tag, link = _directory_fields(bigtiff=tiff.is_bigtiff)
    file.seek(second.offset)
    data = file.read(min(size - second.offset, planes * DIRECTORY_BYTES)) or b""
    tags = int(np.frombuffer(data, head, 1)[0])
    if tags > MOST_TAGS:
        return False
    directory = np.dtype([("tags", head), ("tag", tag, (tags,)), ("next", link)])
    third = int(np.frombuffer(data, directory, 1)["next"][0])
    step = third - second.offset if planes > 2 else directory.itemsize
    if step < directory.itemsize or (planes - 2) * step + directory.itemsize > len(data):
        return False
    every = np.ndarray((planes - 1,), directory, data, 0, (step,))
    numbers = np.arange(1, planes, dtype=np.uint64)
    links = second.offset + numbers * np.uint64(step)
    links[-1] = 0
    code = every["tag"]["code"]
    means = np.isin(code[0], LAYOUT_TAGS)
    is_start = code[0] == STRIP_OFFSETS
    starts = every["tag"]["value"][:, is_start]
    return bool(
        is_start.sum() == 1
        and np.all(every["tags"] == tags)
        and np.all(every["next"] == links)
        and all(np.all(every["tag"][field] == every["tag"][field][0]) for field in ("code", "type", "count"))
        and np.all(every["tag"]["value"][:, means] == every["tag"]["value"][0, means])
        and np.all(starts[:, 0] == first.dataoffsets[0] + numbers * np.uint64(plane_nbytes))
    )


def _directory_fields(*, bigtiff: bool) -> tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]:
    """Return the dtypes of the number of tags, of a tag, and of the link to the next directory."""
    count, word = ("<u8", "<u8") if bigtiff else ("<u2", "<u4")
    tag = np.dtype([("code", "<u2"), ("type", "<u2"), ("count", word), ("value", word)])
    return np.dtype(count), tag, np.dtype(word)
