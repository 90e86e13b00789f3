"""What the arrays of a run are, and the descriptors that say so.

What an array is made of (`array_spec`) is read from the frame itself and from the configuration in its
descriptor; `describe` makes the descriptor say so. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ma
from numpy.typing import NDArray

from gently_bluesky.dtypes import known_dtype
from gently_bluesky.errors import InvalidDocument, UnstorableDtype
from gently_bluesky.jsontext import plain
from gently_bluesky.model import ArraySpec, storable_dtype

__all__ = ["EXTERNAL", "array_spec", "array_to_store", "declared_dtype", "describe", "inline_value"]

INLINE_NBYTES = 16 * 1024
DEFAULT_DIMS = {1: ("sample",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("v", "z", "y", "x")}
EXTERNAL = {"datum": "FILESTORE:", "stream": "STREAM:"}
"""What a data key says of an asset, by the family of documents that announce it."""
DTYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
LEGAL_DTYPES = (*DTYPES.values(), "array")
LEGAL_DTYPE_NUMPY = re.compile(r"[|<>][tbiufcmMOSUV][0-9]+")


def array_to_store(value: object, dtype: np.dtype[Any] | None = None) -> NDArray[Any] | None:
    """Return ``value`` as an array if it is one that is stored as an asset, else None. Copies no numpy array.

    Arrays of two or more axes are, those over 16 KiB, and complex ones, for which JSON has no numbers; a
    nested list of numbers counts as the array it spells, of ``dtype`` if that holds it exactly. Empty arrays
    and strings are not.

    Raises
    ------
    UnstorableDtype
        An array whose elements are neither numbers nor strings, or are masked.
    """
    if isinstance(value, np.ndarray):
        array: NDArray[Any] = value
    elif isinstance(value, list | tuple):
        spelt = _spelt(value)
        if spelt is None:
            return None
        array = _exactly(spelt, dtype)
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
    else:
        return None
    if isinstance(array, ma.MaskedArray) and ma.is_masked(array):
        raise UnstorableDtype(
            "expected an array of pixels, got one of which some are masked; it was not stored; "
            "give masked pixels a value with .filled() in the device before it is read"
        )
    if array.dtype.kind == "U":
        return None
    storable_dtype(array.dtype)
    small = array.ndim < 2 and array.nbytes <= INLINE_NBYTES and array.dtype.kind != "c"
    return None if small or array.size == 0 else array


def inline_value(value: object) -> Any:
    """Return a copy of a value that stays in its document, in JSON's own types.

    Raises
    ------
    InvalidDocument
        JSON has nothing for it.
    """
    if isinstance(value, np.generic) and value.dtype.kind not in "biuU" and value.dtype.char not in "efd":
        raise InvalidDocument(
            f"expected numbers, strings and arrays of numbers in a document, got {value!r} of dtype "
            f"{value.dtype}, which JSON has nothing for; it was not stored; convert it in the device, or "
            "make it an array"
        )
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
        return array.tolist() if array.size == 0 else plain(array)
    return plain(value)


def _spelt(value: Sequence[Any]) -> NDArray[Any] | None:
    nested = bool(value) and isinstance(value[0], list | tuple | np.ndarray)
    if not nested and len(value) * 8 <= INLINE_NBYTES:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None  # ragged: it stays the list it is
    return array if array.dtype.kind in "biufc" else None


def _exactly(array: NDArray[Any], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """Return an array as ``dtype`` if it says the same then, else as it is."""
    if dtype is None or dtype.kind not in "biufc" or (array.dtype.kind == "c" != dtype.kind):
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        again = np.real(cast).astype(array.dtype) if array.dtype.kind != "c" else cast.astype(array.dtype)
    return cast if np.array_equal(again, array, equal_nan=array.dtype.kind in "fc") else array


def array_spec(
    descriptor: Mapping[str, Any], data_key: str, array: NDArray[Any], origin: Mapping[str, Any]
) -> ArraySpec:
    """Say what an array of ``data_key`` is made of: shape and dtype from the frame, the rest from the
    descriptor.

    Axis names come from the data key's ``dims`` where they fit the frame. Steps come from configuration
    fields whose names end with ``pixel_size_um`` (a number, or y and x) and ``z_step_um``, names of views
    from ``view_names``: of the device that owns the data key first, then of any other of the stream.
    """
    dims = _dims(descriptor["data_keys"][data_key].get("dims"), array.ndim)
    steps_um = _steps_um(descriptor, data_key)
    space = [dim in steps_um for dim in dims]
    channels = _configured(descriptor, data_key, "view_names")
    count = (
        array.shape[dims.index("v")] if "v" in dims else array.shape[dims.index("c")] if "c" in dims else 0
    )
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
        and all(isinstance(dim, str) and dim not in {"", "t"} for dim in declared)
        and len(declared) == ndim == len(set(declared))
    ):
        return tuple(declared)
    return DEFAULT_DIMS.get(ndim) or tuple(f"dim_{axis}" for axis in range(ndim))


def _steps_um(descriptor: Mapping[str, Any], data_key: str) -> dict[str, float]:
    pixel = _configured(descriptor, data_key, "pixel_size_um")
    step = _configured(descriptor, data_key, "z_step_um")
    y, x = pixel if isinstance(pixel, list | tuple) and len(pixel) == 2 else (pixel, pixel)
    found = {"z": step, "y": y, "x": x}
    return {
        dim: float(um) for dim, um in found.items() if isinstance(um, int | float) and 0 < um < float("inf")
    }


def _channel_names(names: object, count: int) -> tuple[str, ...]:
    if isinstance(names, list | tuple) and len(names) == count:
        return tuple(str(name) for name in names)
    return tuple(str(number) for number in range(count))


def _configured(descriptor: Mapping[str, Any], data_key: str, ending: str) -> Any:
    """Return the configured value whose name ends so, the data key's own device and own name first."""
    object_keys = descriptor.get("object_keys", {})
    owned = [device for device, keys in object_keys.items() if isinstance(keys, list) and data_key in keys]
    configuration = descriptor.get("configuration", {})
    for device in [*owned, *(name for name in configuration if name not in owned)]:
        fields = configuration.get(device, {}).get("data", {})
        matching = sorted((name for name in fields if name == ending or name.endswith(f"_{ending}")), key=len)
        for name in [*(name for name in matching if data_key in name), *matching]:
            return fields[name]
    return None


def describe(
    descriptor: Mapping[str, Any],
    values: Mapping[str, Any],
    specs: Mapping[str, ArraySpec],
    assets: str = "datum",
) -> dict[str, Any]:
    """Return a descriptor that says exactly what its first event holds, from ``values`` and the stored
    arrays' specs; ``assets`` is the family of documents that announce those.

    What a device said of itself stands where it is neither contradicted nor illegal.
    """
    data_keys = {
        key: _data_key(declared, values.get(key), specs.get(key), EXTERNAL[assets])
        for key, declared in descriptor["data_keys"].items()
    }
    described = {**descriptor, "data_keys": data_keys}
    if isinstance(configuration := descriptor.get("configuration"), Mapping):
        described["configuration"] = {device: _configuration(said) for device, said in configuration.items()}
    return described


def _data_key(
    declared: Mapping[str, Any], value: object, spec: ArraySpec | None, external: str
) -> dict[str, Any]:
    if spec is not None:
        shape, dtype = list(spec.shape), spec.dtype.str
        exact = {
            "dtype": "array",
            "shape": shape,
            "dtype_numpy": dtype,
            "dims": list(spec.dims),
            "external": external,
        }
        return _legal({**declared, **exact})
    if declared.get("external"):
        return _legal({"dtype": "array", "shape": [], **declared})
    return _legal({**declared, **_described(declared, value)})


def _configuration(said: Any) -> Any:
    """Fill in what the data keys of a device's configuration do not say; what they say stands."""
    if not isinstance(said, Mapping) or not isinstance(said.get("data_keys"), Mapping):
        return said
    data = said.get("data", {})
    data_keys = {
        key: _mended(declared, data.get(key)) if isinstance(declared, Mapping) else declared
        for key, declared in said["data_keys"].items()
    }
    return {**said, "data_keys": data_keys}


def _mended(declared: Mapping[str, Any], value: object) -> dict[str, Any]:
    described = _described(declared, value)
    dtype = declared.get("dtype") if declared.get("dtype") in LEGAL_DTYPES else described["dtype"]
    shape = declared.get("shape") if _is_shape(declared.get("shape")) else described["shape"]
    return _legal({**declared, "dtype": dtype, "shape": shape})


def _legal(said: dict[str, Any]) -> dict[str, Any]:
    """Return a data key without what event-model does not allow and nobody needs."""
    if not isinstance(said.get("source"), str):
        said["source"] = "unknown"
    if not said.get("external"):
        said.pop("external", None)
    dtype = declared_dtype(said)
    if isinstance(said.get("dtype_numpy"), str | None) and "dtype_numpy" in said:
        del said["dtype_numpy"]
        if dtype is not None and LEGAL_DTYPE_NUMPY.match(dtype.str):
            said["dtype_numpy"] = dtype.str
    dims: Any = said.get("dims", [])
    if not isinstance(dims, list | tuple) or not all(isinstance(dim, str) for dim in dims):
        del said["dims"]
    return said


def declared_dtype(declared: Mapping[str, Any]) -> np.dtype[Any] | None:
    """Return the numpy dtype that a data key declares, None where it says nothing that numpy knows."""
    return known_dtype(declared.get("dtype_numpy"))


def _described(declared: Mapping[str, Any], value: object) -> dict[str, Any]:
    """Say what an inline value is."""
    if isinstance(value, np.ndarray) and value.ndim:
        return {
            "dtype": "array",
            "shape": list(value.shape),
            "dtype_numpy": value.dtype.newbyteorder("<").str,
        }
    if isinstance(value, list | tuple):
        return {"dtype": "array", "shape": _shape_of(value, declared.get("shape"))}
    exact: dict[str, Any] = {}
    if isinstance(value, np.generic | np.ndarray):
        if value.dtype.kind in "biuf":
            exact["dtype_numpy"] = value.dtype.newbyteorder("<").str
        value = np.asarray(value).item()
    said, shape = declared.get("dtype"), declared.get("shape")
    dtype = DTYPES.get(type(value)) or (said if said in LEGAL_DTYPES else "string")
    if said == "number" and dtype == "integer":
        dtype = "number"
    return {"dtype": dtype, "shape": list(shape) if dtype == "array" and _is_shape(shape) else [], **exact}  # pyright: ignore[reportArgumentType] # a list of lengths, as checked


def _shape_of(value: Sequence[Any], declared: Any) -> list[int | None]:
    """Return the shape of a list; an empty one says nothing of further axes, and is believed what was declared."""
    lengths: list[int | None] = [*_lengths(value)]
    is_empty = bool(lengths) and lengths[-1] == 0
    if is_empty and _is_shape(declared) and [*declared[: len(lengths)]] == lengths:
        return [*declared]
    return lengths


def _lengths(value: Any) -> list[int]:
    """Return the shape of a list of lists, as deep as it has one."""
    lengths: list[int] = []
    while isinstance(value, list | tuple):
        lengths.append(len(value))
        inner = {len(item) if isinstance(item, list | tuple) else -1 for item in value}
        value = value[0] if len(inner) == 1 else None
    return lengths


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list | tuple) and all(length is None or type(length) is int for length in shape)
