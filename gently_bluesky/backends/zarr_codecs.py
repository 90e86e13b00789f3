"""Which codecs chunks may go through, as Zarr v3 metadata spells them, and how far they shrink pixels.

Only codecs that zarr-python and TensorStore both write and read are taken. A crc32c goes over each chunk
whatever the codecs are; it is not named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import tensorstore as ts
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidSetting

__all__ = ["COMPRESSION_NAMES", "Codec", "check_codecs", "complete", "named_codecs", "shrunk_to"]

Codec = Mapping[str, Any]
COMPRESSION_NAMES = ("lz4", "zstd", "none")
COMMON_CODECS = ("blosc", "gzip", "zstd")
"""Of the codecs of bytes, those that zarr-python and TensorStore both know, crc32c aside."""
WIDEST = np.arange(64, dtype="<c16").reshape(1, 8, 8)


def named_codecs(name: str, itemsize: int) -> tuple[Codec, ...]:
    """Return the codecs of one of ``COMPRESSION_NAMES`` for pixels of this many bytes."""
    if name == "none":
        return ()
    # Bitshuffle pays for 1-byte pixels too: it gathers the high bits, which are mostly alike.
    configuration = {
        "typesize": itemsize,
        "cname": name,
        "clevel": 1,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return ({"name": "blosc", "configuration": configuration},)


def check_codecs(codecs: Sequence[Codec]) -> None:
    """Have TensorStore write a few pixels with these codecs, and zarr-python read them. In memory only.

    Raises
    ------
    InvalidSetting
        One of them is unknown to either, or cannot be set up like this.
    """
    for codec in codecs:
        if codec.get("name") not in COMMON_CODECS:
            raise InvalidSetting(
                f"expected codecs that zarr-python and TensorStore both read, {', '.join(COMMON_CODECS)} (crc32c "
                f"is always there), got {dict(codec)!r:.200}; nothing was written"
            )
    try:
        pixels = _through_both(codecs)
    except Exception as error:  # what two libraries make of somebody's settings is of many classes
        raise InvalidSetting(
            f"compression={[dict(codec) for codec in codecs]!r:.200} cannot be used: "
            f"{str(error).partition(' [')[0]:.300}; nothing was written; see the Zarr v3 codecs' specifications"
        ) from error
    if not np.array_equal(pixels, WIDEST):
        raise InvalidSetting(
            f"compression={[dict(codec) for codec in codecs]!r:.200} did not give back what was written; "
            "nothing was written to the store"
        )


def complete(codecs: Sequence[Codec], dtype: np.dtype[Any]) -> tuple[Codec, ...]:
    """Return checked codecs with everything said that zarr-python fills in for arrays of this dtype."""
    _, files = _composed(codecs, np.empty((1, 1), dtype))
    return tuple(orjson.loads(files["zarr.json"].to_bytes())["codecs"][1:-1])


def shrunk_to(pieces: Sequence[NDArray[Any]], codecs: Sequence[Codec]) -> float:
    """Return what part of the bytes of these pieces is left after the codecs; 1.0 for no pieces."""
    whole = sum(piece.nbytes for piece in pieces)
    return sum(len(_encoded(piece, codecs)) for piece in pieces) / whole if whole else 1.0


def _encoded(piece: NDArray[Any], codecs: Sequence[Codec]) -> bytes:
    """Return a piece as one chunk."""
    metadata = {
        "data_type": piece.dtype.name,
        "shape": piece.shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": piece.shape}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, *map(dict, codecs)],
    }
    return _written(metadata, piece)[1]


def _written(metadata: Mapping[str, Any], pixels: NDArray[Any]) -> tuple[str, bytes]:
    """Write an array of one chunk; return the chunk's key and bytes."""
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory"},
        "metadata": metadata,
        "store_data_equal_to_fill_value": True,
    }
    array = ts.open(spec, create=True, context=ts.Context()).result()
    array.write(pixels).result()
    store: ts.KvStore = array.kvstore  # pyright: ignore[reportAssignmentType] # an array in memory is in one
    (key,) = (key for key in store.list().result() if key != b"zarr.json")
    return key.decode(), bytes(store.read(key).result().value)


def _through_both(codecs: Sequence[Codec]) -> NDArray[Any]:
    from zarr.core.buffer import default_buffer_prototype

    array, files = _composed(codecs, WIDEST)
    metadata = orjson.loads(files["zarr.json"].to_bytes())
    for name in ("attributes", "storage_transformers"):
        metadata.pop(name, None)
    key, data = _written(metadata, WIDEST)
    files[key] = default_buffer_prototype().buffer.from_bytes(data)
    return np.asarray(array[:])


def _composed(codecs: Sequence[Codec], like: NDArray[Any]) -> tuple[Any, dict[str, Any]]:
    """Let zarr-python make an array of one chunk in memory; return it and its files."""
    # zarr-python takes as long to import as everything else; named codecs do without it here.
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    compressors = [*map(dict, codecs), Crc32cCodec()]
    array = zarr.create_array(
        MemoryStore(files), shape=like.shape, dtype=like.dtype, chunks=like.shape, compressors=compressors
    )
    return array, files
