"""Documents in MessagePack, as suitcase-msgpack writes them, arrays included: both ways. Nothing is unpickled.

A document is ``[name, doc]``; an array in it is a map of ``b"nd"``, ``b"type"``, ``b"kind"``, ``b"shape"`` and
``b"data"``, as msgpack-numpy has it. That library would unpickle arrays of objects: here they are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.model import storable_dtype
from gently_bluesky.wire import check_elements

__all__ = ["MAGIC", "pack_document", "packed_values", "restored", "told_arrays"]

MAGIC = frozenset((b"\x92", b"\x82"))
"""What a document begins with: a list of two, or a map of two."""
CHUNK_BYTES = 2**20
MOST_BYTES = 2**32 - 1
"""Of one document; MessagePack itself has no longer arrays."""
LEGAL_DTYPE = re.compile(r"[|<>=](b1|[iu][1248]|f[248]|c(8|16)|[US][1-9][0-9]{0,8})")
LONGEST_NUMBER = 100


class Place(Protocol):
    """Where one is in a file, and who is told of what is bad there."""

    number: int

    def bad(self, reason: str, *, cause: BaseException | None = None) -> None:
        """Tell of it."""
        ...


# -- out of bytes ----------------------------------------------------------------------------------------------


def packed_values(file: Any, at: Place) -> Iterator[Any]:
    """Yield what is packed in a file, one object after the other.

    Behind bytes that are no MessagePack nobody can say where the next object begins: that is told once.
    """
    unpacking = _Unpacking()
    unpacker = msgpack.Unpacker(
        object_hook=unpacking.hook,
        ext_hook=unpacking.extension,
        max_buffer_size=MOST_BYTES,
        strict_map_key=False,
    )
    fed = done = 0
    while chunk := file.read1(CHUNK_BYTES):
        try:
            unpacker.feed(chunk)
            fed += len(chunk)
            for value in unpacker:
                at.number += 1
                done = unpacker.tell()
                refused, unpacking.refused = unpacking.refused, None
                if refused is None:
                    yield value
                else:
                    at.bad(refused)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            at.number += 1
            reason = (
                f"from byte {done} on the file is no MessagePack ({error!s:.100}); the rest of it is lost"
            )
            at.bad(reason, cause=error)
            return
    if fed > done:
        at.number += 1
        at.bad(f"the file ends within the document, which begins at byte {done}")


class _Unpacking:
    """Makes arrays and numbers of what stands for them; what may not be made is remembered, and stays away."""

    def __init__(self) -> None:
        self.refused: str | None = None

    def hook(self, held: dict[Any, Any]) -> Any:
        try:
            if b"nd" in held:
                return _array(held) if held[b"nd"] is True else _number(held)
            if b"complex" in held:
                return complex(str(held[b"data"])[:LONGEST_NUMBER])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            self.refused = self.refused or f"an array in it is not what it says ({error!s:.200})"
        return held

    def extension(self, code: int, _: bytes) -> None:
        self.refused = (
            self.refused or f"it holds an extension of MessagePack ({code}), which documents have not"
        )


def _array(held: Mapping[bytes, Any]) -> NDArray[Any]:
    kind, shape, data = held.get(b"kind", b""), held[b"shape"], held[b"data"]
    if kind in (b"O", "O"):
        raise ValueError("an array of objects is a pickle, and nothing is ever unpickled")
    dtype = _structure(held[b"type"]) if kind in (b"V", "V") else _dtype(held[b"type"])
    return _elements(data, dtype, shape).copy()


def _elements(data: bytes, dtype: np.dtype[Any], shape: Any) -> NDArray[Any]:
    if not isinstance(shape, list | tuple) or not all(
        type(length) is int and length >= 0 for length in shape
    ):
        raise ValueError(f"a shape of {shape!r:.80}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes where shape {tuple(shape)} of {dtype} needs others")
    if not data:
        return np.zeros(shape, dtype)
    if dtype.kind in "bU":
        check_elements(np.frombuffer(data, np.uint8), dtype)
    return np.frombuffer(data, dtype).reshape(shape)


def _number(held: Mapping[bytes, Any]) -> Any:
    return _elements(held[b"data"], _dtype(held[b"type"]), ())[()]


def _dtype(said: Any) -> np.dtype[Any]:
    said = said.decode("ascii") if isinstance(said, bytes) else said
    if not isinstance(said, str) or not LEGAL_DTYPE.fullmatch(said):
        raise ValueError(f"a dtype of {said!r:.80}")
    return np.dtype(said)


def _structure(said: Any) -> np.dtype[Any]:
    if not isinstance(said, list | tuple) or not all(isinstance(field, list | tuple) for field in said):
        raise ValueError(f"a dtype of {said!r:.80}")
    return np.dtype([(str(name), _dtype(of), *map(tuple, shape)) for name, of, *shape in said])


# -- into bytes ------------------------------------------------------------------------------------------------


def pack_document(name: str, doc: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document, as suitcase-msgpack would write them.

    Raises
    ------
    InvalidDocument
        Something in it has no bytes of its own, an array of objects for instance.
    """
    try:
        # strict, or numpy's float64 would go as a float, which it is too
        packed: Any = msgpack.packb([name, doc], default=_packable, strict_types=True)
        return packed
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidDocument(
            f"expected a document of numbers, text, lists and arrays, got a {name} that cannot be written "
            f"({error!s:.200}); it was not recorded"
        ) from error


def _packable(value: Any) -> Any:
    if hasattr(value, "__array__"):
        return _packable_array(value)
    if isinstance(value, complex):
        return {b"complex": True, b"data": repr(complex(value))}
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    plain = next(
        (kind for kind in (int, float, str) if isinstance(value, kind)), None
    )  # an Enum, for instance
    if plain is None:
        raise TypeError(f"a value of type {type(value).__name__}")
    return plain(value)


def _packable_array(value: Any) -> dict[bytes, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "US":
        storable_dtype(array.dtype)
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": array.dtype.str, b"data": array.tobytes()}
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }


# -- lists in JSON that were arrays ----------------------------------------------------------------------------


def told_arrays(name: str, doc: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Return what JSON does not say of an event's arrays: dtype and shape, by data key; no shape for a number."""
    data = doc.get("data") if name == "event" else None
    if not isinstance(data, Mapping):
        return {}
    return {
        key: (value.dtype.str, None if isinstance(value, np.generic) else value.shape)
        for key, value in data.items()
        if isinstance(value, np.ndarray | np.generic)
    }


def restored(doc: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with arrays in the place of the lists, and numbers, that they were written as.

    Raises
    ------
    ValueError, TypeError, KeyError
        A list is not what was told of it.
    """
    data = dict(doc["data"])
    for key, (said, shape) in told.items():
        array = np.asarray(data[key], _dtype(said))
        if array.size != math.prod(shape or ()):
            raise ValueError(f"{key} has {array.size} elements where its shape says {shape}")
        data[key] = array[()] if shape is None else array.reshape(shape)
    return {**doc, "data": data}
