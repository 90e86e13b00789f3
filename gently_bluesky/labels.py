"""A lazy array in words: a line for the terminal, a table for notebooks, names for new axes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["bytes_text", "free_name", "html_table", "one_line"]


def one_line(array: LazyArray) -> str:
    """Return name, axes, dtype, size and uid in a line."""
    axes = ", ".join(f"{dim}: {length}" for dim, length in zip(array.dims, array.shape, strict=True))
    head, slash, tail = array.uid.partition("/")
    words = (array.name, f"({axes})", str(array.dtype), bytes_text(array.nbytes), head[:8] + slash + tail)
    return f"<LazyArray {' '.join(filter(None, words))}>"


def html_table(array: LazyArray, chunks: int) -> str:
    """Return an HTML table of all there is to say; ``chunks`` is how many it touches."""
    axes = [
        f"{dim}: {length:,} x {scale:g} {unit or ''}".rstrip()
        for dim, length, scale, unit in zip(array.dims, array.shape, array.scale, array.units, strict=True)
    ]
    rows: Mapping[str, str] = {
        "name": array.name,
        "shape": str(array.shape),
        "axes": ", ".join(axes),
        "dtype": str(array.dtype),
        "size": f"{bytes_text(array.nbytes)} ({array.size:,} elements)",
        "chunks": f"{chunks:,} of {array.chunks}",
        "uid": array.uid,
    }
    left = 'style="text-align: left"'
    cells = (f"<tr><th {left}>{head}</th><td {left}>{escape(text)}</td></tr>" for head, text in rows.items())
    return f"<table><caption>LazyArray</caption><tbody>{''.join(cells)}</tbody></table>"


def free_name(stem: str, taken: set[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    names = (stem, *(f"{stem}{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in names if name not in taken)


def bytes_text(count: int) -> str:
    """Return a size for people, in powers of 1000."""
    power = max(0, len(str(count)) - 1) // 3
    return f"{count} B" if power == 0 else f"{count / 1000**power:.1f} {'kMGTPEZYRQ'[power - 1]}B"
