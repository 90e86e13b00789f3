"""The least callback that stores frames: it copies each, hands it to TensorStore, and waits at stop.

No documents, no index, no journal, no checks. Same codec, shards and sync as ours: its array is made from the
``zarr.json`` that ours wrote. As many frames in flight as make no difference any more.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameSink", "minimal_callback"]

IN_FLIGHT = 16


class FrameSink:
    """A Zarr array made after a pattern, several of whose frames are being written."""

    def __init__(self, path: Path, pattern: Path, frames: int) -> None:
        import tensorstore as ts

        made = json.loads(pattern.read_bytes())
        metadata = {
            key: value for key, value in made.items() if key not in {"attributes", "storage_transformers"}
        }
        metadata["shape"] = [frames, *metadata["shape"][1:]]
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
        context = ts.Context({"file_io_sync": True, "cache_pool": {"total_bytes_limit": 0}})
        self._array = ts.open(spec, create=True, context=context).result()
        self._pending: deque[Any] = deque()

    def write(self, index: int, frame: NDArray[Any]) -> None:
        """Begin to store a frame, which must stay as it is."""
        future = self._array[index].write(frame, can_reference_source_data_indefinitely=True).commit
        future.force()
        self._pending.append(future)
        if len(self._pending) >= IN_FLIGHT:
            self._pending.popleft().result()

    def close(self) -> None:
        """Wait until all is synced."""
        while self._pending:
            self._pending.popleft().result()


@contextmanager
def minimal_callback(folder: Path, *, pattern: str, frames: int) -> Iterator[Any]:
    """Give a callback that writes to ``folder`` what events bring under ``camera``."""
    sink = FrameSink(folder / "minimal.zarr", Path(pattern), frames)
    places = iter(range(frames))

    def callback(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            sink.write(next(places), np.array(doc["data"]["camera"]))
        elif name == "stop":
            sink.close()

    yield callback
