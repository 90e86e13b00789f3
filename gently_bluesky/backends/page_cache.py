"""What the system keeps of files in memory, behind the newest ones that were written.

A camera at full rate soon writes as much as a machine has memory. Left alone, all of it stays in the page cache, where
it drives out what others read, and every page that a frame is written to has to be found anew: that may cost more than
the writing. So only the newest files stay, for who follows; older ones are on disk, and are read from there.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["NewestFiles"]

KEPT_BYTES = 256 * 2**20
SMALLEST_BYTES = 64 * 2**10
"""What is smaller is not worth a call."""


class NewestFiles:
    """The newest files of one asset, which stay in the page cache. For one thread at a time.

    Of older ones that are not synced the system begins to write what it is to forget, and waits for nothing.
    """

    def __init__(self) -> None:
        self._files: deque[tuple[str, int]] = deque()
        self._nbytes: int = 0

    def add(self, files: Iterable[str]) -> None:
        """Note files that are written, and let the system forget older ones; it may ignore that."""
        if sys.platform != "linux":
            return
        for path in files:
            with suppress(OSError):  # whoever reads it will be told
                nbytes = os.stat(path).st_size  # noqa: PTH116 # thousands of names are kept: no Path of each
                if nbytes >= SMALLEST_BYTES:
                    self._files.append((path, nbytes))
                    self._nbytes += nbytes
        while self._nbytes > KEPT_BYTES:
            path, nbytes = self._files.popleft()
            self._nbytes -= nbytes
            with suppress(OSError):
                _forget(path)


def _forget(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
