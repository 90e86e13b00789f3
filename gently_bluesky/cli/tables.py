"""Tables: fitted to the window of a terminal, plain and complete for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gently_bluesky.cli.telling import say
from gently_bluesky.wording import printable

__all__ = ["Column", "is_terminal", "say_pairs", "say_table"]

GAP = "  "
FOLDED = 16
"""Characters that a column which folds is content with."""
STYLES = {
    "complete": "green",
    "failed": "red",
    "aborted": "yellow",
    "incomplete": "yellow",
    "running": "cyan",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    heading
        What stands above it.
    right
        Numbers stand on the right.
    spare
        A narrow window goes without it; the highest goes first.
    folds
        What has no room in its line goes on in the next one.
    """

    heading: str
    right: bool = False
    spare: int = 0
    folds: bool = False


def is_terminal() -> bool:
    """Say whether standard output is a person's terminal."""
    return sys.stdout.isatty()


def say_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: on a terminal what fits, in colour, and on a pipe all of it, a line for each row."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not is_terminal():
        widths = _widths(columns, rows)
        lines = [[column.heading for column in columns], *rows]
        say("\n".join(_line(columns, widths, line) for line in lines))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    shown = _fitting(columns, rows, console.width)
    table = Table(box=None, padding=(0, len(GAP), 0, 0), header_style="dim", pad_edge=False)
    for place in shown:
        column = columns[place]
        side = "right" if column.right else "left"
        table.add_column(column.heading, justify=side, overflow="fold", no_wrap=not column.folds)
    for row in rows:
        table.add_row(*(Text(row[place], style=STYLES.get(row[place], "")) for place in shown))
    with console.capture() as captured:
        console.print(table)
    say(captured.get().rstrip("\n"))


def say_pairs(pairs: Sequence[tuple[str, str]], indent: str = GAP) -> None:
    """Print names and what they stand for, one below the other."""
    if not pairs:
        return
    width = max(len(printable(name)) for name, _ in pairs)
    say(
        "\n".join(
            f"{indent}{printable(name):<{width}}{GAP}{printable(said)}".rstrip() for name, said in pairs
        )
    )


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([len(column.heading), *(len(row[place]) for row in rows)]) for place, column in enumerate(columns)
    ]


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    cells = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, width, cell in zip(columns, widths, row, strict=True)
    )
    return GAP.join(cells).rstrip()


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the places of the columns that are shown: not the empty ones, nor what a window has no room for."""
    widths = [
        min(width, FOLDED) if column.folds else width
        for column, width in zip(columns, _widths(columns, rows), strict=True)
    ]
    shown = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    for place in sorted(shown, key=lambda place: columns[place].spare, reverse=True):
        if sum(widths[other] + len(GAP) for other in shown) <= width or not columns[place].spare:
            break
        shown.remove(place)
    return shown
