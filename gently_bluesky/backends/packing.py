"""What a packing comes to for one asset: layout, codecs, and why. ``"auto"`` looks at the first event.

It decides; it writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.chunks import LAYOUT_NAMES, SMALL_SHARD_BYTES, Layout, choose_layout
from gently_bluesky.backends.zarr_codecs import (
    COMPRESSION_NAMES,
    Codec,
    check_codecs,
    complete,
    named_codecs,
    shrunk_to,
)
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

__all__ = ["Choice", "check_fit", "check_packing", "choose"]

SAMPLES = 4
SAMPLE_LENGTH = 512
SAMPLE_LINE = 2**18
FEW_PLANES = 8
HARDLY_SHRUNK = 0.9
STILL_LARGE = 0.75
ZSTD_PAYS = 2 / 3
"""zstd takes about twice the time of lz4: what it leaves has to be smaller by a third."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the arrays of one asset are cut and compressed.

    Attributes
    ----------
    chunks
        ``"planes"``, ``"blocks"``, ``"volume"`` or lengths: what ``"auto"`` came to.
    layout
        Of the full resolution.
    codecs
        As Zarr's metadata spells them; a crc32c comes behind them.
    why
        For people.
    """

    chunks: str | tuple[int, ...]
    layout: Layout
    codecs: tuple[Codec, ...]
    why: str

    def kwargs(self, levels: int) -> dict[str, Any]:
        """Return what is recorded of it, of JSON types only."""
        return {
            "chunks": list(self.layout.inner),
            "shards": list(self.layout.shard),
            "codecs": [dict(codec) for codec in self.codecs] + [{"name": "crc32c"}],
            "levels": levels,
            "why": self.why,
        }


def check_packing(packing: Packing) -> None:
    """Refuse names and codecs that nothing is known of. What does not fit an array, `check_fit` refuses.

    Raises
    ------
    InvalidSetting
        They are unknown, or zarr-python and TensorStore do not both read what they make.
    """
    for setting, value, names in (
        ("chunks", packing.chunks, LAYOUT_NAMES),
        ("compression", packing.compression, COMPRESSION_NAMES),
    ):
        if isinstance(value, str) and value not in {*names, "auto"}:
            explicit = "lengths of a chunk" if setting == "chunks" else "codecs as in Zarr's metadata"
            raise InvalidSetting(
                f"expected {setting} to be {', '.join(names)}, auto or {explicit}, got {value!r}; "
                "nothing was written"
            )
    if packing.compression is not None and not isinstance(packing.compression, str):
        check_codecs(packing.compression)


def check_fit(packing: Packing, spec: ArraySpec) -> None:
    """Refuse lengths of a chunk that do not fit arrays of this spec; words fit every array.

    Raises
    ------
    InvalidSetting
        As `choose_layout` raises it.
    """
    if isinstance(packing.chunks, tuple):
        choose_layout(spec.shape, spec.dtype.itemsize, packing.chunks)


def choose(packing: Packing, spec: ArraySpec, sample: NDArray[Any] | None) -> Choice:
    """Return how to cut and compress arrays of this spec.

    Parameters
    ----------
    sample
        The first event's array, of which ``"auto"`` compresses at most four pieces of 512 x 512 pixels.

    Raises
    ------
    InvalidSetting
        The chunks do not fit the array.
    """
    looked = _Look(spec, sample)
    codecs, why_codecs = _choose_codecs(packing, spec, looked)
    chunks, why_chunks = _choose_chunks(packing, spec, looked, codecs)
    layout = choose_layout(spec.shape, spec.dtype.itemsize, chunks)
    return Choice(chunks, layout, codecs, f"chunks: {why_chunks}; compression: {why_codecs}")


class _Look:
    """What a few pieces of the first event shrink to, found out when it is asked for."""

    def __init__(self, spec: ArraySpec, sample: NDArray[Any] | None) -> None:
        self._itemsize = spec.dtype.itemsize
        self._sample = sample

    @cached_property
    def pieces(self) -> list[NDArray[Any]]:
        """Pieces from corner to opposite corner, so that neither the middle nor the margin is all of them."""
        if self._sample is None or self._sample.size == 0:
            return []
        return [
            np.ascontiguousarray(self._sample[_window(self._sample.shape, (number + 0.5) / SAMPLES)])
            for number in range(SAMPLES)
        ]

    def shrunk_to(self, codecs: tuple[Codec, ...]) -> float:
        return shrunk_to(self.pieces, codecs)

    @cached_property
    def lz4(self) -> float:
        return self.shrunk_to(named_codecs("lz4", self._itemsize))

    @cached_property
    def zstd(self) -> float:
        return self.shrunk_to(named_codecs("zstd", self._itemsize))


def _window(shape: tuple[int, ...], place: float) -> tuple[slice, ...]:
    window: list[slice] = []
    for axis, length in enumerate(shape):
        behind = len(shape) - 1 - axis
        size = min(length, SAMPLE_LINE if len(shape) == 1 else SAMPLE_LENGTH if behind < 2 else 1)
        start = int((length - size) * place)
        window.append(slice(start, start + size))
    return tuple(window)


def _choose_codecs(packing: Packing, spec: ArraySpec, looked: _Look) -> tuple[tuple[Codec, ...], str]:
    asked = packing.compression
    if asked is None:
        return named_codecs("lz4", spec.dtype.itemsize), "lz4, by default"
    if not isinstance(asked, str):
        return complete(asked, spec.dtype), "as asked for"
    if asked != "auto":
        return named_codecs(asked, spec.dtype.itemsize), f"{asked}, as asked for"
    if not looked.pieces:
        name, why = "lz4", "there was nothing to look at"
    elif looked.lz4 > HARDLY_SHRUNK and looked.zstd > HARDLY_SHRUNK:
        name, why = "none", f"a sample shrank to {looked.zstd:.2f} of its size only"
    elif looked.zstd < ZSTD_PAYS * looked.lz4:
        name, why = "zstd", f"a sample shrank to {looked.zstd:.2f} of its size, with lz4 to {looked.lz4:.2f}"
    else:
        name, why = "lz4", f"a sample shrank to {looked.lz4:.2f} of its size, with zstd to {looked.zstd:.2f}"
    return named_codecs(name, spec.dtype.itemsize), f"{name}, chosen because {why}"


def _choose_chunks(
    packing: Packing, spec: ArraySpec, looked: _Look, codecs: tuple[Codec, ...]
) -> tuple[str | tuple[int, ...], str]:
    asked = packing.chunks
    if asked is None:
        return "planes", "planes, by default"
    if asked != "auto":
        return asked, f"{asked}, as asked for" if isinstance(asked, str) else "as asked for"
    if len(spec.shape) < 3:
        return "planes", f"planes, chosen because an event has {len(spec.shape)} axes"
    if spec.nbytes <= SMALL_SHARD_BYTES:
        return "volume", f"volume, chosen because an event is {spec.nbytes} bytes, little for one chunk"
    if spec.shape[-3] < FEW_PLANES:
        return "planes", f"planes, chosen because there are {spec.shape[-3]} of them, few to cut through"
    if not looked.pieces:
        return "planes", "planes, chosen because there was nothing to look at"
    left = looked.shrunk_to(codecs)
    if left > STILL_LARGE:
        why = f"a sample shrank to {left:.2f} of its size only, and blocks read four planes for one"
        return "planes", f"planes, chosen because {why}"
    why = f"there are {spec.shape[-3]} planes to cut through, and a sample shrank to {left:.2f} of its size"
    return "blocks", f"blocks, chosen because {why}"
