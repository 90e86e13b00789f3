"""Hypothesis strategies for tests of arrays in storage. Needs hypothesis; no other module here imports it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from gently_bluesky.indexing import Index

__all__ = ["indices_for"]


@st.composite
def indices_for(draw: st.DrawFn, shape: tuple[int, ...], *, newaxis: bool = True) -> Index:
    """Draw one numpy index that fits an array of this shape.

    Integers (of Python and numpy, 0-d arrays), slices with steps of either sign, an ellipsis, new axes, and
    at most one list, array of integers or mask; a mask covers one axis or several.

    Parameters
    ----------
    shape
        Of the array.
    newaxis
        Whether there may be new axes.
    """
    basic = draw(npst.basic_indices(shape, allow_newaxis=newaxis))
    items: list[Any] = list(basic) if isinstance(basic, tuple) else [basic]
    runs = _runs(items, len(shape))
    if runs and draw(st.booleans()):
        place, first, longest = draw(st.sampled_from(runs))
        width = draw(st.integers(1, longest))
        items[place : place + width] = [draw(_array_for(shape[first : first + width]))]
    items = [
        draw(st.sampled_from([int, np.int64, np.array]))(item) if isinstance(item, int) else item
        for item in items
    ]
    return items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


def _runs(items: list[Any], ndim: int) -> list[tuple[int, int, int]]:
    """Return where integers and slices stand: place in the index, axis, how many side by side from there."""
    runs: list[tuple[int, int, int]] = []
    axis = 0
    taken = sum(isinstance(item, int | slice) for item in items)
    for place, item in enumerate(items):
        if isinstance(item, int | slice):
            length = 1
            while place + length < len(items) and isinstance(items[place + length], int | slice):
                length += 1
            runs.append((place, axis, length))
            axis += 1
        elif item is ...:
            axis += ndim - taken
    return runs


def _array_for(shape: tuple[int, ...]) -> st.SearchStrategy[NDArray[Any] | list[Any]]:
    """Return what indexes axes of these lengths: masks, and lists or arrays of integers for a single axis."""
    masks = npst.arrays(np.bool_, shape)
    if len(shape) != 1:
        return masks
    (length,) = shape
    mask_lists = masks.map(lambda mask: mask.tolist())
    if not length:
        return st.one_of(masks, mask_lists, st.just(np.empty(0, np.intp)))
    places = st.lists(st.integers(-length, length - 1), max_size=6)
    arrays = st.builds(np.array, places, st.sampled_from([np.intp, np.int32]))
    unsigned = st.lists(st.integers(0, length - 1), max_size=6).map(
        lambda places: np.array(places, np.uint16)
    )
    return st.one_of(masks, mask_lists, places, arrays, unsigned)
