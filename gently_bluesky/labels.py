"""A lazy array in words: a line for the terminal, its axes, a size, names for new axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["axes_text", "bytes_text", "free_name", "one_line"]


def one_line(array: LazyArray) -> str:
    """Return name, axes, dtype, size and uid in a line."""
    head, slash, tail = array.uid.partition("/")
    words = (
        array.name,
        f"({axes_text(array)})",
        str(array.dtype),
        bytes_text(array.nbytes),
        head[:8] + slash + tail,
    )
    return f"<LazyArray {' '.join(filter(None, words))}>"


def axes_text(array: LazyArray) -> str:
    """Return names and lengths of the axes."""
    return ", ".join(f"{dim}: {length}" for dim, length in zip(array.dims, array.shape, strict=True))


def free_name(stem: str, taken: set[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    names = (stem, *(f"{stem}{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in names if name not in taken)


def bytes_text(count: int) -> str:
    """Return a size for people, in powers of 1000."""
    power = max(0, len(str(count)) - 1) // 3
    if power and f"{count / 1000**power:.1f}" == "1000.0":
        power += 1
    return f"{count} B" if power == 0 else f"{count / 1000**power:.1f} {'kMGTPEZYRQ'[power - 1]}B"
