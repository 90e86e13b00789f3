"""What a run's frames took on their way: counts, bytes, and how long their producer had to wait.

Each field is set by one thread; whoever reads sees a moment ago.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Tally"]


class Tally:
    """The figures of one run, which are also added to those of its writer.

    Attributes
    ----------
    accepted, stored, announced
        Frames.
    written_anew
        Frames of events that the disk took only when they were written a second time.
    accepted_bytes, announced_bytes
        Of their pixels.
    waited_s
        For how long the producer waited because the buffer was full.
    peak_pending_bytes
        Most bytes of the buffer that were in use as an event was accepted.
    overflowed
        Runs that went on in the store's second place.
    """

    def __init__(self, whole: Tally | None = None) -> None:
        self.accepted = self.stored = self.announced = self.written_anew = 0
        self.accepted_bytes = self.announced_bytes = 0
        self.waited_s = 0.0
        self.peak_pending_bytes = self.overflowed = 0
        self._whole = whole
        self._first_s: float | None = None
        self._last_s = 0.0

    def accept(self, frames: int, nbytes: int, waited_s: float, pending_bytes: int) -> None:
        """Count an event's frames. On the producer's thread."""
        if self._first_s is None:
            self._first_s = time.monotonic()
        self.accepted += frames
        self.accepted_bytes += nbytes
        self.waited_s += waited_s
        self.peak_pending_bytes = max(self.peak_pending_bytes, pending_bytes)
        if self._whole is not None:
            self._whole.accept(frames, nbytes, waited_s, pending_bytes)

    def store(self, frames: int, *, anew: bool = False) -> None:
        """Count frames whose pixels are stored. On the pipeline's thread."""
        self.stored += frames
        self.written_anew += frames if anew else 0
        if self._whole is not None:
            self._whole.store(frames, anew=anew)

    def overflow(self) -> None:
        """Count a run that goes on elsewhere, where all frames that are not announced are stored anew."""
        self.overflowed += 1
        again = self.stored - self.announced
        self.stored -= again
        if self._whole is not None:
            self._whole.overflowed += 1
            self._whole.stored -= again

    def announce(self, frames: int, nbytes: int) -> None:
        """Count frames whose documents are in the journal. On the pipeline's thread."""
        self.announced += frames
        self.announced_bytes += nbytes
        self._last_s = time.monotonic()
        if self._whole is not None:
            self._whole.announce(frames, nbytes)

    @property
    def bytes_per_s(self) -> float:
        """Bytes announced, over the time from the first frame accepted to the last one announced."""
        if self._first_s is None or self._last_s <= self._first_s:
            return 0.0
        return self.announced_bytes / (self._last_s - self._first_s)

    def line(self) -> dict[str, Any]:
        """Return what goes on record with the run's end."""
        return {
            "frames": self.announced,
            "bytes": self.announced_bytes,
            "bytes_per_s": round(self.bytes_per_s),
            "waited_s": round(self.waited_s, 3),
            "peak_pending_bytes": self.peak_pending_bytes,
            **({"written_anew": self.written_anew} if self.written_anew else {}),
        }

    def remarks(self, whose: str) -> list[str]:
        """Return what whoever looks after the disk has to know."""
        if not self.written_anew:
            return []
        return [
            f"{whose}: {self.written_anew} frames failed to reach the disk, by an error of its own, and did when they "
            "were written anew; all are safe; look after the disk"
        ]
