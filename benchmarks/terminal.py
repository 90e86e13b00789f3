"""The tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.words import goal_figure, machine_line, outcome, table_of

__all__ = ["print_goals", "print_row"]


def print_row(console: Console, row: Mapping[str, Any]) -> None:
    """Print what came of one row."""
    heads, lines = table_of(row)
    table = Table(
        title=f"{row['name']}: {row['title']} ({row['took_s']:.0f} s)",
        title_justify="left",
        title_style="bold",
    )
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right")
    for line, contender in zip(lines, row["contenders"], strict=True):
        table.add_row(*line, style={"ours": "bold", "peer": "", "floor": "dim"}[contender["kind"]])
    console.print(table)
    for contender in row["contenders"]:
        if contender["note"]:
            console.print(f"  {contender['name']}: {contender['note']}", style="dim", highlight=False)
    for goal in row["goals"]:
        met = {True: "[green]met[/]", False: "[red bold]missed[/]", None: "[yellow]not measured[/]"}[
            goal["met"]
        ]
        console.print(f"  {met}: {goal['what']}: {goal_figure(goal)}, goal {goal['goal']}", highlight=False)
    console.print()


def print_goals(console: Console, record: Mapping[str, Any]) -> None:
    """Print all goals in one table, and where they were measured."""
    table = Table(title="goals", title_justify="left", title_style="bold")
    for head in ("row", "what", "measured", "goal", "met"):
        table.add_column(head)
    for row in record["rows"]:
        for goal in row["goals"]:
            style = {True: "", False: "red", None: "yellow"}[goal["met"]]
            table.add_row(
                row["name"],
                goal["what"],
                goal_figure(goal),
                goal["goal"],
                outcome(goal).strip("*"),
                style=style,
            )
    console.print(table)
    console.print(machine_line(record).replace("`", ""), highlight=False)
