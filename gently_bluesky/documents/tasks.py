"""What a run's two halves send each other through the pipeline.

Values; nothing here does anything with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.ring import Ring
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.files import may_pass
from gently_bluesky.jsontext import digest_of

if TYPE_CHECKING:
    from gently_bluesky.backends.hot import HotPool

__all__ = [
    "DocumentTask",
    "DuplicateTask",
    "FailTask",
    "Frame",
    "FramesTask",
    "OpenTask",
    "StopTask",
    "digest_of_blocks",
    "digest_of_pixels",
]

NO_PIXELS = np.empty(0, np.uint8)


def digest_of_pixels(array: NDArray[Any]) -> str:
    """Return the checksum of an array that the journal holds: over its C-order, little-endian bytes."""
    return digest_of_blocks([array])


def digest_of_blocks(blocks: Iterable[NDArray[Any]]) -> str:
    """Return the checksum of an array whose bytes are those of these blocks, one behind the other."""
    checksum = 0
    for block in blocks:
        checksum = crc32c(block.reshape(-1).view(np.uint8).data, checksum)
    return f"crc32c:{checksum:08x}"


class Frame(NamedTuple):
    """One array of one event, with its place, and whose buffer it lies in: the device's own if nobody's."""

    data_key: str
    asset: Asset
    place: int
    array: NDArray[Any]
    ring: Ring | None = None
    pool: HotPool | None = None

    def checksum(self) -> str:
        """Return the checksum of the pixels as they are stored, in C order."""
        return digest_of_pixels(self.array)

    def stored(self) -> Frame:
        """Return it without its pixels, which are stored; a hot pool wants them when they are announced."""
        if self.pool is not None:
            return self
        self.let_go(is_announced=False)
        return self._replace(array=NO_PIXELS, ring=None)

    def let_go(self, *, is_announced: bool) -> None:
        """Give the buffer back to whom it belongs."""
        buffer = self.array.reshape(-1).view(np.uint8)
        if self.ring is not None:
            self.ring.give_back(buffer)
        elif self.pool is not None and is_announced:
            self.pool.keep(buffer, self.asset.uid, self.asset.own_index(self.place))
        elif self.pool is not None:
            self.pool.give_back(buffer)


class OpenTask(Task):
    """Make the run's home and announce its start."""

    __slots__ = ("ended",)

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self.ended = False


class FramesTask(Task):
    """Frames to be stored."""

    __slots__ = ("digest", "error", "frames", "is_announced", "is_begun_anew")

    is_patient = True

    def __init__(self, owner: Owner, frames: Sequence[Frame] = ()) -> None:
        super().__init__(owner, sum(frame.array.nbytes for frame in frames))
        self.frames = frames
        self.is_announced = False
        self.digest: Mapping[str, str] = {}
        """Of the pixels, by data key."""
        self.error: Exception | None = None
        self.is_begun_anew = False
        """The frames were written, or begun to be, a second time."""

    def begin_writes(self, time_s: float) -> None:
        """Start to write the frames of an event, and compute the digest of their pixels; `wait` raises."""
        self.error = None
        try:
            for frame in self.frames:
                self.pendings.append(frame.asset.write(frame.place, frame.array, time_s))
            self.take_digest()  # while the pixels are still in a cache
        except Exception as error:  # noqa: BLE001 # whatever a backend raises ends its run, not the pipeline
            self.error = error

    def is_to_begin_anew(self) -> bool:
        """Say, once, that all that went wrong may pass: the frames, whose pixels are still here, are written anew.

        To the same places, and all of the event: a backend makes new files of them. Until they are begun it
        is `wait` that raises what went wrong.
        """
        errors = [] if self.error is None else [self.error]
        for pending in self.pendings:
            try:
                pending.result()
            except Exception as error:  # noqa: BLE001 # as `begin_writes`
                errors.append(error)
        if self.is_begun_anew or not errors or not all(map(may_pass, errors)):
            return False
        self.is_begun_anew = True
        self.error, self.pendings = errors[0], []
        return True

    def wait(self) -> None:
        """Wait for the writes; afterwards the frames are what their assets' ``sync`` says. Raises what they raised."""
        if self.error is not None:
            raise self.error
        for pending in self.pendings:
            pending.result()

    def take_digest(self) -> None:
        """Compute the digest of the pixels."""
        self.digest = {frame.data_key: frame.checksum() for frame in self.frames}

    def let_go_stored(self) -> None:
        """Drop the pixels that nobody needs any more."""
        super().let_go_stored()
        self.frames = [frame.stored() for frame in self.frames]

    def let_go(self) -> None:
        """Drop the frames."""
        frames, self.frames = self.frames, ()
        for frame in frames:
            is_there = frame.asset.own_index(frame.place) >= 0  # not before the asset went on elsewhere
            frame.let_go(is_announced=self.is_announced and is_there)


class DocumentTask(FramesTask):
    """A document to be announced, once its frames are stored."""

    __slots__ = ("doc", "name", "recorded", "root", "timestamps")

    def __init__(
        self,
        owner: Owner,
        name: str,
        doc: dict[str, Any],
        frames: Sequence[Frame] = (),
    ) -> None:
        super().__init__(owner, frames)
        self.name = name
        self.doc = doc
        self.recorded: Mapping[str, str] = {}
        """Digest of the pixels as they were recorded, where that is known."""
        self.timestamps: Mapping[str, float] = {}
        """Of the arrays that the document does not name."""
        self.root: Path | None = None
        """Where its frames were written."""

    def fingerprint(self) -> bytes:
        """Return a short digest of all an event says, pixels included, datum ids not."""
        event, digest = self.doc, self.digest
        said = {
            **event,
            "data": {key: value for key, value in event["data"].items() if key not in digest},
            "filled": sorted(event.get("filled", {}).keys() - digest.keys()),
            "timestamps": {**event["timestamps"], **self.timestamps},
            "pixels": digest,
        }
        return digest_of(said)


class DuplicateTask(DocumentTask):
    """An event that came again under its uid: to be compared, not stored."""

    __slots__ = ()

    is_patient = False


class FailTask(Task):
    """The run has failed before its storage did: say so, behind what was accepted before."""

    __slots__ = ()


class StopTask(Task):
    """The end of the run: the stop document, or None when it is given up without one.

    ``outcome`` is that of the run it is a copy of.
    """

    __slots__ = ("outcome", "stop")

    def __init__(
        self, owner: Owner, stop: dict[str, Any] | None, outcome: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(owner)
        self.stop = stop
        self.outcome = outcome
