"""Assets of a run being written, and the documents that announce them.

What an array is made of (`array_spec`) is read from the frame itself and from the configuration in its descriptor;
`describe` makes the descriptor say so. Nothing here does I/O but `Asset`, whose sink belongs to the pipeline's thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend, Pending, Sink
from gently_bluesky.errors import UnstorableDtype
from gently_bluesky.files import PATH_SEMANTICS
from gently_bluesky.model import ArraySpec, storable_dtype

__all__ = ["Asset", "array_spec", "array_to_store", "describe"]

INLINE_NBYTES = 16 * 1024
DEFAULT_DIMS = {1: ("sample",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("v", "z", "y", "x")}
EXTERNAL = "FILESTORE:"


def array_to_store(value: object) -> NDArray[Any] | None:
    """Return ``value`` as an array if it is one that is stored as an asset, else None. Copies no numpy array.

    Arrays of two or more axes are, those over 16 KiB, and complex ones, for which JSON has no numbers; a nested
    list of numbers counts as the array it spells. Empty arrays are not.

    Raises
    ------
    UnstorableDtype
        An array whose elements are neither numbers nor, if it is small, strings.
    """
    if isinstance(value, np.ndarray):
        array: NDArray[Any] = value
    elif isinstance(value, list | tuple):
        spelt = _spelt(value)
        if spelt is None:
            return None
        array = spelt
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
    else:
        return None
    stays_inline = array.size == 0 or (array.ndim < 2 and array.nbytes <= INLINE_NBYTES and array.dtype.kind != "c")
    if stays_inline and array.dtype.kind in "biufU":
        return None
    storable_dtype(array.dtype)
    return None if array.size == 0 else array


def _spelt(value: Sequence[Any]) -> NDArray[Any] | None:
    nested = bool(value) and isinstance(value[0], list | tuple | np.ndarray)
    if not nested and len(value) * 8 <= INLINE_NBYTES:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None  # ragged: it stays the list it is
    return array if array.dtype.kind in "biufc" else None


def array_spec(descriptor: Mapping[str, Any], data_key: str, array: NDArray[Any], origin: Mapping[str, Any]) -> ArraySpec:
    """Say what an array of ``data_key`` is made of: shape and dtype from the frame, the rest from the descriptor.

    Axis names come from the data key's ``dims`` where they fit the frame. Steps come from configuration fields whose
    names end with ``pixel_size_um`` (a number, or y and x) and ``z_step_um``, names of views from ``view_names``: of
    the device that owns the data key first, then of any other of the stream.
    """
    dims = _dims(descriptor["data_keys"][data_key].get("dims"), array.ndim)
    steps_um = _steps_um(descriptor, data_key)
    space = [dim in steps_um for dim in dims]
    channels = _configured(descriptor, data_key, "view_names")
    count = array.shape[dims.index("v")] if "v" in dims else array.shape[dims.index("c")] if "c" in dims else 0
    return ArraySpec(
        name=data_key,
        shape=array.shape,
        dtype=storable_dtype(array.dtype),
        dims=dims,
        scale=tuple(steps_um.get(dim, 1.0) for dim in dims),
        units=tuple("micrometer" if known else None for known in space),
        channel_names=_channel_names(channels, count),
        origin=origin,
    )


def _dims(declared: object, ndim: int) -> tuple[str, ...]:
    if (
        isinstance(declared, list | tuple)
        and len(declared) == ndim == len(set(declared))
        and all(isinstance(dim, str) and dim not in {"", "t"} for dim in declared)
    ):
        return tuple(declared)
    return DEFAULT_DIMS.get(ndim) or tuple(f"dim_{axis}" for axis in range(ndim))


def _steps_um(descriptor: Mapping[str, Any], data_key: str) -> dict[str, float]:
    pixel = _configured(descriptor, data_key, "pixel_size_um")
    step = _configured(descriptor, data_key, "z_step_um")
    y, x = pixel if isinstance(pixel, list | tuple) and len(pixel) == 2 else (pixel, pixel)
    found = {"z": step, "y": y, "x": x}
    return {dim: float(um) for dim, um in found.items() if isinstance(um, int | float) and 0 < um < float("inf")}


def _channel_names(names: object, count: int) -> tuple[str, ...]:
    if isinstance(names, list | tuple) and len(names) == count:
        return tuple(str(name) for name in names)
    return tuple(str(number) for number in range(count))


def _configured(descriptor: Mapping[str, Any], data_key: str, ending: str) -> Any:
    """Return the configured value whose name ends so, the data key's own device and own name first."""
    owned = [device for device, keys in descriptor.get("object_keys", {}).items() if data_key in keys]
    configuration = descriptor.get("configuration", {})
    for device in [*owned, *(name for name in configuration if name not in owned)]:
        fields = configuration.get(device, {}).get("data", {})
        matching = sorted((name for name in fields if name == ending or name.endswith(f"_{ending}")), key=len)
        for name in [*(name for name in matching if data_key in name), *matching]:
            return fields[name]
    return None


def describe(descriptor: Mapping[str, Any], values: Mapping[str, Any], specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """Return a descriptor that says exactly what its first event holds, from ``values`` and the stored arrays' specs.

    What a device said of itself stands where it is not contradicted.
    """
    data_keys = {key: dict(declared) for key, declared in descriptor["data_keys"].items()}
    for key, declared in data_keys.items():
        declared.setdefault("source", "unknown")
        if (spec := specs.get(key)) is not None:
            shape, dtype = list(spec.shape), spec.dtype.str
            declared.update(dtype="array", shape=shape, dtype_numpy=dtype, dims=list(spec.dims), external=EXTERNAL)
        elif not declared.get("external"):
            declared.update(_described(declared, values.get(key)))
    return {**descriptor, "data_keys": data_keys}


def _described(declared: Mapping[str, Any], value: object) -> dict[str, Any]:
    if isinstance(value, np.ndarray) and value.ndim:
        return {"dtype": "array", "shape": list(value.shape), "dtype_numpy": value.dtype.newbyteorder("<").str}
    if isinstance(value, list | tuple):
        shape = declared.get("shape") if declared.get("dtype") == "array" else None
        return {"dtype": "array", "shape": list(shape or [len(value)])}
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    dtype = kinds.get(type(value), declared.get("dtype", "string"))
    if declared.get("dtype") == "number" and dtype == "integer":
        dtype = "number"
    return {"dtype": dtype, "shape": [] if dtype != "array" else list(declared.get("shape") or [])}


class Asset:
    """One asset of a run: frames are placed on the RunEngine's thread, everything else is the pipeline's.

    Attributes
    ----------
    uid
        Of the resource document.
    placed
        Frames that were given an index.
    announced
        Frames whose documents are in the journal.
    """

    def __init__(
        self, backend: Backend, root: Path, folder: str, name: str, spec: ArraySpec, run_uid: str
    ) -> None:
        self.uid = str(uuid.uuid4())
        self.spec = spec
        self.placed = 0
        self.announced = 0
        self._backend = backend
        self._root = root
        self._path = f"{folder}/{name}"
        self._run_uid = run_uid
        self._sink: Sink | None = None
        self._introduced = False

    def place(self) -> int:
        """Return the index of the next frame."""
        self.placed += 1
        return self.placed - 1

    def datum_id(self, index: int) -> str:
        """Return the uid of the datum of frame ``index``."""
        return f"{self.uid}/{index}"

    def write(self, index: int, frame: NDArray[Any], time_s: float) -> Pending:
        """Begin to store a frame; the first one makes the asset. Raises OSError."""
        if self._sink is None:
            self._sink = self._backend.create(self._root / self._path, self.spec)
        return self._sink.write(index, frame, time_s)

    def documents(self, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what announces frame ``index``, once it is stored: the resource before the first datum."""
        if self._sink is not None and not self._introduced:
            self._introduced = True
            resource = {
                "uid": self.uid,
                "spec": self._backend.spec,
                "root": str(self._root),
                "resource_path": self._path,
                "resource_kwargs": dict(self._sink.resource_kwargs),
                "path_semantics": PATH_SEMANTICS,
                "run_start": self._run_uid,
            }
            yield "resource", resource
        yield "datum", {"datum_id": self.datum_id(index), "resource": self.uid, "datum_kwargs": {"point_number": index}}

    def publish(self, count: int) -> None:
        """Let outside readers see the first ``count`` frames. Raises OSError."""
        if self._sink is not None and count > self.announced:
            self._sink.publish(count)
            self.announced = count

    def close(self) -> None:
        """Finish the asset. Idempotent. Raises OSError."""
        if self._sink is not None:
            self._sink.close()
