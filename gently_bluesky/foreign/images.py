"""Image files that somebody brings: OME-Zarr, TIFF, npy, and folders of ``t0000.tif``, opened as events.

They say of their axes, steps and channels what they can; who brings them may know better. The axis ``t`` is that of the
events; where there is none, all of it is one event.
"""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from gently_bluesky.errors import AssetDamaged, InputError, InvalidSetting
from gently_bluesky.files import read_plain
from gently_bluesky.foreign.base import KINDS_OF_NUMBERS, plausible, translated
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.ome import SECONDS, UM, said_by_ome
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.jsontext import decode

__all__ = ["Image", "Reference", "open_image"]

TIME_POINT: Final = re.compile(r"t(\d+)(\.tiff?)")
USUAL_DIMS: Final = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}

PLANE: Final = 2
SO: Final = "nothing was imported"

Read = Callable[[int], NDArray[Any]]
_translated = partial(translated, so=SO)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a stream_resource says of an image that stays where it is."""

    mimetype: str
    path: Path
    is_folder: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """An image as events.

    Attributes
    ----------
    kind
        In a word.
    dims
        Of one event; ``t`` is not among them.
    count, shape, dtype
        Number of events, and what one of them is.
    read
        Returns an event, by its number: C-contiguous. Raises AssetMissing, AssetDamaged, StorageError.
    steps_um
        Along axes of space, as far as they are known.
    channels
        Their names; empty where nobody named them.
    time_step_s
        Between events; None where nothing says so.
    reference
        How it is announced in place; None where nothing here could open it then.
    """

    kind: str
    dims: tuple[str, ...]
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Read
    steps_um: Mapping[str, float] = field(default_factory=dict[str, float])
    channels: tuple[str, ...] = ()
    time_step_s: float | None = None
    reference: Reference | None = None


def open_image(path: Path, dims: Sequence[str] | None = None) -> Image:
    """Open an image; reads no pixels.

    Parameters
    ----------
    dims
        Names of all axes, ``t`` among them if it has events; None is what it says itself, or what is usual.

    Raises
    ------
    InputError
        It is no image of a kind that is known here, or has other axes.
    AssetMissing, AssetDamaged, StorageError
        It is not there, not whole, or cannot be read.
    """
    with _translated(path):
        if path.is_dir():
            found = _open_folder(path, dims)
        elif path.suffix.lower() in {".tif", ".tiff"}:
            found = _open_tiff(path, dims)
        elif path.suffix.lower() == ".npy":
            found = _open_npy(path, dims)
        else:
            path.stat()
            raise InputError(
                f"expected an OME-Zarr folder, a TIFF or npy file, or a folder of t0000.tif, t0001.tif, ..., got "
                f"{path}; nothing was imported"
            )
    if (
        found.dtype.kind not in KINDS_OF_NUMBERS
        or len(found.shape) < PLANE
        or not found.count * prod(found.shape)
    ):
        raise InputError(
            f"expected images, {path} holds {found.count} events of {found.shape} {found.dtype}; {SO}"
        )
    return found


def _require_plain(path: Path) -> None:
    """Return if a file is a plain one: whoever opens a pipe waits for who writes into it."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"expected a file at {path}, it is none: a pipe, or a device; {SO}")


def _open_folder(path: Path, dims: Sequence[str] | None) -> Image:
    if any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        return _open_zarr(path, dims)
    named = [(match, entry) for entry in path.iterdir() if (match := TIME_POINT.fullmatch(entry.name))]
    if not named:
        raise InputError(
            f"expected an OME-Zarr folder, or one of t0000.tif, t0001.tif, ..., {path} is neither; nothing was imported"
        )
    return _open_time_points(path, sorted((int(match[1]), entry) for match, entry in named), dims)


# -- Zarr --------------------------------------------------------------------------------------------------


def _open_zarr(path: Path, dims: Sequence[str] | None) -> Image:
    from gently_bluesky.foreign.zarr import open_array  # TensorStore takes a while

    said, names, array = _said_by_zarr(path)
    asset = ForeignAsset(array, {"join_method": "stack"}, 0, roots=Roots((path.resolve(),)))
    source = open_array(asset)
    names = _named(path, dims or names, len(source.shape))
    space = {name: step for name, step in zip(names, said.get("scale", ()), strict=False) if name in "zyx"}
    units: Sequence[Any] = said.get("units", ())
    steps = {
        name: space[name] * UM[unit]
        for name, unit in zip(names, units, strict=False)
        if name in space and unit in UM
    }
    seconds = {
        step * SECONDS[unit]
        for name, step, unit in zip(names, said.get("scale", ()), units, strict=False)
        if name == "t" and unit in SECONDS
    }
    rest = (slice(0, length, 1) for length in source.shape[1:])
    inner = tuple(rest)
    if names[0] == "t":
        shape, count = source.shape[1:], source.shape[0]

        def read(event: int) -> NDArray[Any]:
            return source.read((slice(event, event + 1, 1), *inner))[0]
    else:
        _require_t_first(path, names)
        shape, count = source.shape, 1

        def read(event: int) -> NDArray[Any]:
            del event
            return source.read((slice(0, source.shape[0], 1), *inner))

    dtype, kept = source.dtype, tuple(name for name in names if name != "t")
    channels = tuple(said.get("channels", ()))
    reference = None
    if names[0] == "t":
        parameters = {"chunk_shape": [*source.chunks], "join_method": "stack"}
        reference = Reference("application/x-zarr", array, False, parameters)
    kind = "OME-Zarr" if said else "Zarr"
    return Image(kind, kept, count, shape, dtype, read, steps, channels, next(iter(seconds), None), reference)


def _said_by_zarr(path: Path) -> tuple[dict[str, Any], list[str] | None, Path]:
    """Return scale, units and channels of an image, names of its axes, and where its full resolution is."""
    attributes = _attributes(path)
    if (path / ".zarray").is_file() or attributes.get("node_type") == "array":
        return {}, attributes.get("dimension_names"), path
    ome: Any = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping) or not isinstance(ome.get("multiscales"), list):
        raise InputError(
            f"expected an image, {path} is a Zarr group without multiscales; nothing was imported"
        )
    image: Any = ome["multiscales"][0]
    axes, level = image["axes"], image["datasets"][0]
    names = [axis["name"] if isinstance(axis, Mapping) else str(axis) for axis in axes]
    scale = [1.0] * len(names)
    for transformation in [
        *level.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ]:
        if transformation["type"] == "scale":
            scale = [one * float(more) for one, more in zip(scale, transformation["scale"], strict=True)]
    units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes]
    omero: Any = ome.get("omero", {})
    channels = [str(one.get("label")) for one in omero.get("channels", ()) if one.get("label")]
    array = (path / str(level["path"])).resolve()
    if not array.is_relative_to(path.resolve()):
        raise AssetDamaged(f"{path} says that its pixels are at {array}, outside of it; nothing was read")
    return {"scale": scale, "units": units, "channels": channels}, names, array


def _attributes(path: Path) -> dict[str, Any]:
    """Return what the metadata of a Zarr group or array say: of version 3 with what the node itself says."""
    if (path / "zarr.json").is_file():
        node: Any = decode(read_plain(path / "zarr.json"))
        return {
            **node.get("attributes", {}),
            **{name: node.get(name) for name in ("node_type", "dimension_names")},
        }
    return dict(decode(read_plain(path / ".zattrs"))) if (path / ".zattrs").is_file() else {}


# -- TIFF --------------------------------------------------------------------------------------------------


def _open_tiff(path: Path, dims: Sequence[str] | None) -> Image:
    _require_plain(path)
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        series = tiff.series[0]
        shape, dtype = tuple(series.shape), np.dtype(series.dtype)
        plausible(shape, dtype, path.stat().st_size)
        axes = series.axes.lower().replace("s", "c" if "C" not in series.axes else "s")
        known = axes if tiff.is_ome or tiff.is_imagej or tiff.is_shaped or len(axes) == 2 else None
        said = said_by_ome(tiff.ome_metadata) if tiff.is_ome else {}
        kind = "OME-TIFF" if tiff.is_ome else "TIFF"
    usual = known is None or not set(known) <= set("tczyxs")
    names = _named(path, dims if dims is not None else None if usual else list(known or ""), len(shape))
    events = shape[0] if names[0] == "t" else 1
    if names[0] != "t":
        _require_t_first(path, names)
    each = shape[1:] if names[0] == "t" else shape

    def read(event: int) -> NDArray[Any]:
        with _translated(path), tifffile.TiffFile(path, _multifile=False) as tiff:
            series = tiff.series[0]
            if series.dataoffset is not None:
                order = dtype.newbyteorder(tiff.byteorder)
                offset = series.dataoffset + event * prod(each) * dtype.itemsize
                return np.array(np.memmap(path, order, "r", offset, each), dtype)
            pages = len(series.pages) // events
            frames = [series.pages[number].asarray() for number in range(event * pages, (event + 1) * pages)]  # pyright: ignore[reportOptionalMemberAccess] # of a series that has such pages
            return np.stack(frames).reshape(each)

    kept = tuple(name for name in names if name != "t")
    return Image(
        kind,
        kept,
        events,
        each,
        dtype,
        read,
        said.get("steps_um", {}),
        said.get("channels", ()),
        said.get("time_step_s"),
    )


def _open_time_points(path: Path, files: Sequence[tuple[int, Path]], dims: Sequence[str] | None) -> Image:
    """Open a folder with a file for each event, in the order of their numbers."""
    numbers, paths = [number for number, _ in files], [file for _, file in files]
    if len({*numbers}) < len(numbers):
        raise InputError(
            f"{path} has several files for one time point; nothing was imported; leave one of each"
        )
    first = _open_tiff(paths[0], dims[1:] if dims and dims[0] == "t" else dims)
    if first.count != 1:
        raise InputError(
            f"expected one event in each file of {path}, {paths[0].name} holds {first.count}; nothing was imported"
        )

    def opened(event: int) -> Image:
        with _translated(paths[event]):
            image = _open_tiff(paths[event], first.dims)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise AssetDamaged(
                f"{paths[event]}: expected {first.shape} of {first.dtype}, as in {paths[0].name}, found {image.shape} "
                f"of {image.dtype}; {SO}"
            )
        return image

    for event in range(len(paths)):
        opened(event)
    missing = sorted({*range(numbers[0], numbers[-1])} - {*numbers})
    if missing:
        warnings.warn(
            f"{path} has no t{missing[0]:04d}{' and others' * (len(missing) > 1)}: events are numbered without gaps",
            RuntimeWarning,
            stacklevel=2,
        )

    digits, ending = {len(file.name.partition(".")[0]) - 1 for file in paths}, {file.suffix for file in paths}
    reference = None
    if numbers == [*range(len(numbers))] and len(digits) == len(ending) == 1:
        template = f"t{{:0{digits.pop()}d}}{ending.pop()}"
        parameters = {"template": template, "chunk_shape": [1, *first.shape], "join_method": "stack"}
        reference = Reference("multipart/related;type=image/tiff", path, True, parameters)
    return replace(
        first,
        kind="folder of TIFF",
        count=len(paths),
        read=lambda event: opened(event).read(0),
        reference=reference,
        time_step_s=None,
    )


# -- npy ---------------------------------------------------------------------------------------------------


def _open_npy(path: Path, dims: Sequence[str] | None) -> Image:
    _require_plain(path)
    stored = np.load(path, mmap_mode="r")  # which unpickles nothing unless it is told to
    shape, dtype = stored.shape, stored.dtype
    names = _named(path, dims, len(shape))
    if names[0] != "t":
        _require_t_first(path, names)

    def read(event: int) -> NDArray[Any]:
        with _translated(path):
            pixels = np.load(path, mmap_mode="r")
            return np.array(pixels[event] if names[0] == "t" else pixels, order="C")

    each, count = (shape[1:], shape[0]) if names[0] == "t" else (shape, 1)
    return Image("npy", tuple(name for name in names if name != "t"), count, each, dtype, read)


# -- axes --------------------------------------------------------------------------------------------------


def _named(path: Path, dims: Sequence[str] | None, ndim: int) -> list[str]:
    names = [*(dims if dims is not None else USUAL_DIMS.get(ndim, ()))]
    if len(names) != ndim or len({*names}) < ndim or not all(names):
        raise InvalidSetting(
            f"expected names of the {ndim} axes of {path}, each once, got {names}; nothing was imported; give dims=, "
            "like ('t', 'z', 'y', 'x')"
        )
    return names


def _require_t_first(path: Path, names: Sequence[str]) -> None:
    if "t" in names:
        raise InputError(
            f"expected the axis t of {path} in front of all others, got {', '.join(names)}; nothing was imported"
        )
