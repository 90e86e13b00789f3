"""ome-writers' OME-Zarr by TensorStore, driven from documents: a frame is appended as it comes, uncopied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ome_writers_zarr"]


@contextmanager
def ome_writers_zarr(
    folder: Path, *, frames: int, shape_yx: Sequence[int], pattern: str | None = None
) -> Iterator[Any]:
    """Give a callback that appends what events bring under ``camera``.

    With ``pattern``, the ``zarr.json`` of our array, its chunks, shards and compression are asked for as far as
    its settings can say them: the codec is blosc-lz4 with its own level and shuffle.
    """
    from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat, create_stream

    chunks, shards = _layout(pattern) if pattern else ((None, None), (None, None))
    spatial = [
        Dimension(name=name, count=length, type="space", chunk_size=chunk, shard_size_chunks=shard)
        for name, length, chunk, shard in zip("yx", shape_yx, chunks, shards, strict=True)
    ]
    settings = AcquisitionSettings(
        root_path=str(folder / "peer.ome.zarr"),
        dimensions=[Dimension(name="t", count=frames, type="time", chunk_size=1), *spatial],
        dtype="uint16",
        format=OmeZarrFormat(backend="tensorstore"),
        compression="blosc-lz4" if pattern else None,
    )
    stream = create_stream(settings)

    def callback(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            stream.append(doc["data"]["camera"])
        elif name == "stop":
            stream.close()

    try:
        yield callback
    finally:
        stream.close()


def _layout(pattern: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    made = json.loads(Path(pattern).read_bytes())
    shard = made["chunk_grid"]["configuration"]["chunk_shape"]
    (codec,) = made["codecs"]
    inner = codec["configuration"]["chunk_shape"]
    return tuple(inner[-2:]), tuple(whole // part for whole, part in zip(shard[-2:], inner[-2:], strict=True))
