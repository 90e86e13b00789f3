"""Where arrays are accepted: copied once into a hot pool or the ring, or taken as they are, within the bound.

On the producers' threads. It makes no call to the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.ring import SMALLEST_KEPT_BYTES
from gently_bluesky.documents.tally import Tally
from gently_bluesky.documents.tasks import Frame

if TYPE_CHECKING:
    from gently_bluesky.backends.hot import HotPool

__all__ = ["Intake"]

NOWHERE = -1
"""Place of a frame that was not given one."""


class Intake:
    """Accepts the arrays of one run.

    Parameters
    ----------
    pipeline
        Whose buffer they go through.
    tally
        Of the run.
    copies
        Whether arrays are copied even where they are laid out as they are stored.
    pool
        Where copies are made while it has room.
    """

    def __init__(
        self, pipeline: Pipeline, tally: Tally, *, copies: bool, pool: HotPool | None = None
    ) -> None:
        self._pipeline = pipeline
        self._pool = pool
        self._tally = tally
        self._copies = copies

    def accept(
        self,
        arrays: Mapping[str, NDArray[Any]],
        assets: Mapping[str, Asset],
        check: Callable[[], object],
    ) -> list[Frame]:
        """Return an event's arrays as frames that have no place yet, waiting while the buffer is full.

        Raises
        ------
        InvalidSetting, StorageStalled
            There is no room for them, and will not be; nothing was accepted.
        Exception
            What ``check`` raises, which is called while waiting.
        """
        if not assets:
            return []
        nbytes = sum(asset.nbytes for asset in assets.values())
        waited_s = self._pipeline.reserve(nbytes, check)
        frames: list[Frame] = []
        try:
            for key, asset in assets.items():
                frames.append(self._frame(key, asset, arrays[key]))
        except BaseException:
            for frame in frames:
                frame.let_go(is_announced=False)
            self._pipeline.give_back(nbytes)
            raise
        self._tally.accept(len(frames), nbytes, waited_s, self._pipeline.pending[1])
        return frames

    def _frame(self, key: str, asset: Asset, array: NDArray[Any]) -> Frame:
        spec = asset.spec
        if not self._copies and array.flags.c_contiguous and array.dtype == spec.dtype:
            return Frame(key, asset, NOWHERE, array)
        pool = self._pool if asset.nbytes >= SMALLEST_KEPT_BYTES else None
        ring, buffer = None, None if pool is None else pool.take(asset.nbytes)
        if buffer is None:
            pool, ring = None, self._pipeline.ring
            buffer = ring.take(asset.nbytes)
        copy = buffer.view(spec.dtype).reshape(spec.shape)
        np.copyto(copy, array, casting="equiv")
        return Frame(key, asset, NOWHERE, copy, ring, pool)
