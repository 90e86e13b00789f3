"""LazyArray: an array that is still in storage, sliced with numpy's meaning, read when asked for.

It turns indexing into selections; an ``ArraySource`` (a backend's reader) turns selections into pixels.
It knows neither files nor documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArraySource", "Selection"]

Selection = tuple["slice | NDArray[np.intp]", ...]
"""One entry per axis of the source: a slice with 0 <= start <= stop <= length and step >= 1, all given as ints,
or a 1-D array of indices with 0 <= index < length, in any order, repeats allowed. Axes select independently
(outer indexing)."""


class ArraySource(ABC):
    """Pixels in storage, read by selection. Any thread; shape and dtype never change."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes; for an asset the event axis ``t`` comes first."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Of what ``read`` returns."""

    @property
    @abstractmethod
    def chunks(self) -> tuple[int, ...]:
        """Lengths along each axis of the smallest piece that is read as a whole."""

    @abstractmethod
    def read(self, selection: Selection) -> NDArray[Any]:
        """Return a new array, owned by the caller, of the selected elements, one output axis per source axis.

        Raises
        ------
        AssetMissing, AssetDamaged
            The pixels are not there, or not what was stored; wrong pixels are never returned.
        """
