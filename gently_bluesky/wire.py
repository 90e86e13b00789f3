"""Documents as bytes and back, arrays included, for transports such as bluesky's 0MQ proxy. Nothing is unpickled.

A message is ``b"gently-wire-1" `` and three zero bytes, the length of the header (8 bytes, little-endian), the
header, and the arrays, each from a multiple of 16 bytes on: their elements in C order, little-endian. The header
is JSON: ``{"doc": the document with 0 in the place of each array, "arrays": [{"path", "dtype", "shape",
"scalar"}, ...]}``, where ``path`` is the keys and places that lead to an array and ``scalar`` says that it was one
of numpy's scalars. It sends nothing and receives nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy import ma
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidDocument, InvalidSetting, MessageTooLarge, UnstorableDtype
from gently_bluesky.jsontext import PLAIN_TYPES, decode, encode, plain
from gently_bluesky.model import storable_dtype

__all__ = ["MAX_MESSAGE_BYTES", "check_elements", "lossless", "pack", "unpack"]

MAX_MESSAGE_BYTES = 4 * 2**30
"""0MQ itself has no bound; a message stands four times in the memory of the process that publishes it."""

MAGIC = b"gently-wire-1\0\0\0"
ALIGNMENT = 16
BEGIN = len(MAGIC) + 8
LEGAL_DTYPE = re.compile(r"[|<](b1|[iu][1248]|f[248]|c8|c16|U[1-9][0-9]{0,8})")
LAST_CHARACTER = 0x10FFFF

End = TypeVar("End")


def pack(doc: Mapping[str, Any], *, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Return a document as bytes: ``Publisher(address, serializer=pack)``.

    Numbers, NaN, infinities and integers of any length, numpy's arrays and numpy's scalars of numbers, booleans
    and text come back from `unpack` as they went in; tuples come back as lists. Any thread. The document is not
    changed. Nothing is stored by it: what is sent is *accepted* when the other process's writer has it.

    Parameters
    ----------
    doc
        Any event-model document.
    max_bytes
        A message longer than this is refused before memory is taken for it. For a transport that carries less
        than 0MQ does: ``functools.partial(pack, max_bytes=1_000_000)``.

    Raises
    ------
    MessageTooLarge
        It would be longer than ``max_bytes``.
    InvalidDocument, UnstorableDtype
        There is something in it that no writer would take.

    Examples
    --------
    >>> message = pack({"data": {"camera": np.eye(2, dtype="u1"), "exposure_s": float("nan")}})
    >>> unpack(message)["data"]
    {'camera': array([[1, 0],
           [0, 1]], dtype=uint8), 'exposure_s': nan}
    """
    taken = _Taken()
    try:
        header = encode({"doc": taken.without_arrays(doc, ()), "arrays": taken.entries})
    except RecursionError as error:
        raise InvalidDocument(
            f"expected a document, got one nested too deep ({_name_of(doc)}); it was not sent"
        ) from error
    begin = _aligned(BEGIN + len(header))
    nbytes = begin + sum(_aligned(array.size * dtype.itemsize) for array, dtype in taken.arrays)
    if nbytes > max_bytes:
        raise MessageTooLarge(
            f"expected a message of at most {max_bytes} bytes, the document ({_name_of(doc)}) makes one of {nbytes}; "
            "it was not sent; give pack() a larger max_bytes if the transport carries it, deliver smaller frames, "
            "or write in the process that acquires"
        )
    pieces: list[Any] = [MAGIC, len(header).to_bytes(8, "little"), header, bytes(begin - BEGIN - len(header))]
    for array, dtype in taken.arrays:
        if array.size:
            elements = np.asarray(array, dtype=dtype, order="C").reshape(-1).view(np.uint8)
            pieces += [elements.data, bytes(-elements.nbytes % ALIGNMENT)]
    return b"".join(pieces)


def unpack(message: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the document that `pack` made a message of: ``RemoteDispatcher(address, deserializer=unpack)``.

    Its arrays lie in the message, uncopied, and cannot be written to. All that the message says of itself is
    checked against the bytes that there are before anything is made of it. Any thread.

    Raises
    ------
    InvalidDocument
        It is no such message, or not a whole one; nothing was made of it.
    """
    view = memoryview(message).cast("B")
    try:
        doc, entries, begin = _header(view)
        arrays: list[Any] = []
        for entry in entries:
            array, begin = _array(view, entry, begin)
            arrays.append(array)
        if begin != len(view):
            raise ValueError(f"{begin} bytes were to be expected")
        for entry, array in zip(entries, arrays, strict=True):
            _put(doc, entry["path"], array)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise InvalidDocument(
            f"expected a message made by gently_bluesky.wire.pack, got {len(view)} bytes that are none "
            f"({error!s:.200}); nothing was made of them; give the publisher serializer=pack"
        ) from error
    return doc


class _Taken:
    """Arrays that were taken out of a document, each with the dtype it is sent as, and what the header says of them."""

    def __init__(self) -> None:
        self.arrays: list[tuple[NDArray[Any], np.dtype[Any]]] = []
        self.entries: list[dict[str, Any]] = []

    def without_arrays(self, value: Any, path: tuple[str | int, ...]) -> Any:
        """Return a copy of a value with 0 in the place of each array in it."""
        if type(value) in PLAIN_TYPES:
            return value
        if isinstance(value, Mapping):
            return {
                _key(key): self.without_arrays(held, (*path, _key(key)))
                for key, held in value.items()  # pyright: ignore[reportUnknownVariableType] # whatever it holds
            }
        if isinstance(value, list | tuple):
            return [self.without_arrays(held, (*path, place)) for place, held in enumerate(value)]
        if hasattr(value, "__array__"):
            return self._take(value, path)
        return value

    def _take(self, value: Any, path: tuple[str | int, ...]) -> int:
        if not path:
            raise InvalidDocument(f"expected a document, got {type(value).__name__}; it was not sent")
        if isinstance(value, ma.MaskedArray) and ma.is_masked(value):
            raise UnstorableDtype(
                f"expected arrays without a mask, got one under {'/'.join(map(str, path))} of which some elements are "
                "masked; the document was not sent; give them a value with .filled() in the device"
            )
        array = np.asarray(value)
        dtype = _text(array.dtype) if array.dtype.kind == "U" else storable_dtype(array.dtype)
        self.arrays.append((array, dtype))
        entry = {
            "path": path,
            "dtype": dtype.str,
            "shape": array.shape,
            "scalar": isinstance(value, np.generic),
        }
        self.entries.append(entry)
        return 0


def _text(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian dtype of text; numpy's empty scalars have a length of 0, its arrays never do."""
    return dtype.newbyteorder("<") if dtype.itemsize else np.dtype("<U1")


def _key(key: object) -> str:
    """Return a key as JSON spells it."""
    return key if type(key) is str else next(iter(plain({key: 0})))


def _name_of(doc: Mapping[str, Any]) -> str:
    uid = next((doc[key] for key in ("uid", "datum_id") if isinstance(doc.get(key), str)), None)
    return f"uid {uid:.80}" if uid else f"keys {[*doc]!s:.80}"


def _aligned(place: int) -> int:
    return place + -place % ALIGNMENT


def _header(view: memoryview) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the document, what is said of its arrays, and where those begin."""
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise ValueError("the first bytes are others")
    length = int.from_bytes(view[len(MAGIC) : BEGIN], "little")
    if len(view) < BEGIN or length > len(view) - BEGIN:
        raise ValueError(f"a header of {length} bytes does not fit")
    header = decode(bytes(view[BEGIN : BEGIN + length]))
    doc, entries = header["doc"], header["arrays"]
    if not isinstance(doc, dict) or not isinstance(entries, list):
        raise TypeError("the header holds no document")
    return doc, entries, _aligned(BEGIN + length)


def _array(view: memoryview, entry: Mapping[str, Any], begin: int) -> tuple[Any, int]:
    """Return one array, or scalar, and where the next one begins."""
    said, shape = entry["dtype"], entry["shape"]
    if not isinstance(said, str) or not LEGAL_DTYPE.fullmatch(said):
        raise ValueError(f"an array of dtype {said!r}")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"an array of shape {shape!r}")
    dtype = np.dtype(said)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > len(view) - begin:
        raise ValueError(f"an array of {nbytes} bytes where there are {max(0, len(view) - begin)}")
    array = np.frombuffer(view[begin : begin + nbytes], np.uint8)
    check_elements(array, dtype)
    array = array.view(dtype).reshape(shape) if nbytes else np.zeros(shape, dtype)
    array.flags.writeable = False
    if entry["scalar"] is True:
        if shape:
            raise ValueError(f"a scalar of shape {shape}")
        return array[()], _aligned(begin + nbytes)
    return array, _aligned(begin + nbytes)


def check_elements(array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Refuse bytes that are no elements of a dtype: for numbers there are none."""
    if dtype.kind == "b" and array.size and array.max() > 1:
        raise ValueError("truth values that are neither 0 nor 1")
    if dtype.kind == "U" and array.size and array.view("<u4").max() > LAST_CHARACTER:
        raise ValueError("characters that Unicode does not have")


def _put(doc: Any, path: Any, value: object) -> None:
    """Put a value where the 0 stands that keeps its place."""
    *leading, last = path
    for step in leading:
        doc = _held(doc, step)
    if type(_held(doc, last)) is not int or doc[last]:
        raise ValueError(f"an array at {path!r:.80}, where nothing keeps a place for it")
    doc[last] = value


def _held(place: Any, step: object) -> Any:
    if isinstance(place, dict) and isinstance(step, str):
        return place[step]
    if isinstance(place, list) and type(step) is int and step >= 0:
        return place[step]
    raise TypeError(f"a path through {step!r:.80}, which is not there")


def lossless(end: End, *, max_waiting: int = 8) -> End:
    """Have an end of bluesky's 0MQ transport wait instead of losing messages, and return it.

    As they are made, the publishing sockets of 0MQ drop what comes while 1000 messages wait for a slow receiver,
    and say nothing. With this at all three of them, the Publisher, the Proxy and the RemoteDispatcher, a slow
    store slows the publisher down, as a full buffer of `StoreWriter` does, and as few messages wait as are asked for.
    What is published before anybody has subscribed is lost all the same: start the proxy and the receiver first.

    Parameters
    ----------
    end
        A ``Publisher``, ``Proxy`` or ``RemoteDispatcher`` of ``bluesky.callbacks.zmq``, not started yet.
    max_waiting
        Messages that may wait at this end, for each that it is connected with.

    Raises
    ------
    InvalidSetting
        It is none of these, or ``max_waiting`` is not 1 or more.

    Examples
    --------
    >>> from bluesky.callbacks.zmq import Publisher
    >>> publisher = lossless(Publisher("127.0.0.1:5577", serializer=pack))
    >>> publisher.close()
    """
    from bluesky.callbacks.zmq import Proxy, Publisher, RemoteDispatcher

    if isinstance(max_waiting, bool) or not isinstance(max_waiting, int) or max_waiting < 1:  # pyright: ignore[reportUnnecessaryIsInstance] # as anywhere
        raise InvalidSetting(f"max_waiting must be a number of messages, 1 or more, got {max_waiting!r}")
    sockets: Any = end  # bluesky has no public names for them
    if isinstance(end, Publisher):
        _limit_sending(sockets._socket, max_waiting)
    elif isinstance(end, Proxy):
        _limit_sending(sockets._backend, max_waiting)
        _limit_receiving(sockets._frontend, max_waiting)
    elif isinstance(end, RemoteDispatcher):
        # it makes its socket when it is started, before anything is called in its loop
        end.loop.call_soon(lambda: _limit_receiving(sockets._socket, max_waiting))
    else:
        raise InvalidSetting(
            "expected a Publisher, Proxy or RemoteDispatcher of bluesky.callbacks.zmq, got "
            f"{type(end).__name__}; nothing was set"
        )
    return end


def _limit_sending(socket: Any, max_waiting: int) -> None:
    import zmq

    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.setsockopt(zmq.SNDHWM, max_waiting)


def _limit_receiving(socket: Any, max_waiting: int) -> None:
    import zmq

    socket.setsockopt(zmq.RCVHWM, max_waiting)
