"""The ring: buffers for arrays on their way to storage, used again and again.

Memory that is touched for the first time costs as much as the copy into it. It knows no documents, and
waits for nothing: how much may be in use is the pipeline's to bound.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

__all__ = ["SMALLEST_KEPT_BYTES", "Ring"]

SMALLEST_KEPT_BYTES = 64 * 2**10
"""What is smaller costs an allocator nothing worth keeping it for."""


class Ring:
    """Buffers of bytes, taken and given back. Any thread.

    Parameters
    ----------
    most_bytes
        Buffers that were given back are kept while they and those in use are no more than this.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._free: dict[int, list[NDArray[np.uint8]]] = {}
        self._free_bytes = 0
        self._used_bytes = 0

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return a buffer of this length, whatever it holds. The one that was given back last is warmest."""
        with self._lock:
            self._used_bytes += nbytes
            kept = self._free.get(nbytes)
            if kept:
                self._free_bytes -= nbytes
                return kept.pop()
            self._let_go(self._used_bytes + self._free_bytes - self.most_bytes)
        return np.empty(nbytes, np.uint8)

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        """Take a buffer back, which nobody looks at any more."""
        with self._lock:
            self._used_bytes -= buffer.nbytes
            if (
                buffer.nbytes >= SMALLEST_KEPT_BYTES
                and self._used_bytes + self._free_bytes + buffer.nbytes <= self.most_bytes
            ):
                self._free.setdefault(buffer.nbytes, []).append(buffer)
                self._free_bytes += buffer.nbytes

    def keep_at_most(self, nbytes: int) -> None:
        """Let go of buffers that are not in use until those that are kept are no more than this."""
        with self._lock:
            self._let_go(self._free_bytes - nbytes)

    def _let_go(self, nbytes: int) -> None:
        """Drop kept buffers until so many bytes are gone, or none are left."""
        for length in list(self._free):
            kept = self._free[length]
            while kept and nbytes > 0:
                nbytes -= length
                self._free_bytes -= length
                kept.pop()
            if not kept:
                del self._free[length]
