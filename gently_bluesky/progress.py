"""A bar on standard error for what takes long, where a terminal is there to show it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["terminal_bar"]

Show = Callable[[int, int, str], object]


@contextmanager
def terminal_bar(title: str, *, wanted: bool = True) -> Generator[Show]:
    """Give what is called with how much is done, of how much, and that in words; it goes when all is done.

    0 of 0 is a bar that only moves: nothing is known of how much is to come.
    """
    from rich.console import Console  # as few as possible wait for it

    console = Console(stderr=True)
    if not wanted or not console.is_terminal:
        yield lambda done, total, words: None  # noqa: ARG005
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=30),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(TextColumn(title), *columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, words: bar.update(
            task, total=total or None, completed=done, description=words
        )
