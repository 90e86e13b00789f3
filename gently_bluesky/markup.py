"""HTML for notebooks, and text for terminals, out of what documents say: nothing in it can do anything.

Text is escaped, pictures come with the page, and there are neither scripts nor colours of our own, so that it looks
right in a dark notebook too. It knows nothing of what it shows.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from gently_bluesky.wording import printable

__all__ = ["Markup", "picture", "pre", "said", "table", "table_of"]

LEFT = 'style="text-align: left; vertical-align: top"'


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def table(caption: str, rows: Mapping[str, str], below: Iterable[Markup] = ()) -> str:
    """Return a table of names and what they stand for, those with something to say; more HTML may follow it."""
    cells = (
        f"<tr><th {LEFT}>{_cell(name)}</th><td {LEFT}>{_cell(text)}</td></tr>"
        for name, text in rows.items()
        if text
    )
    return (
        f"<table><caption>{_cell(caption)}</caption><tbody>{''.join(cells)}</tbody></table>{''.join(below)}"
    )


def table_of(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table with a heading for each column."""
    head = "".join(f"<th {LEFT}>{_cell(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td {LEFT}>{_cell(text)}</td>' for text in row)}</tr>" for row in rows)
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def picture(png: bytes, alt: str, caption: str = "") -> Markup:
    """Return a picture with the words that stand for it where it cannot be seen, and a line below it."""
    data = b64encode(png).decode("ascii")
    image = f'<img alt="{escape(printable(alt))}" src="data:image/png;base64,{data}">'
    below = f"<figcaption>{_cell(caption)}</figcaption>" if caption else ""
    return Markup(f'<figure style="display: inline-block; margin: 0 1em 0 0">{image}{below}</figure>')


def said(text: str) -> Markup:
    """Return a line of text."""
    return Markup(f"<p>{_cell(text)}</p>")


def pre(text: str) -> Markup:
    """Return lines as they are."""
    lines = "\n".join(map(printable, text.splitlines()))
    return Markup(f'<pre style="text-align: left; margin: 0">{escape(lines)}</pre>')


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
