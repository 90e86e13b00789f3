"""The pages that are made of figures: docs/benchmarks.md and a part of the README. Nobody types them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import draw_rows
from benchmarks.words import goal_figure, machine_line, outcome, table_of

__all__ = ["PAGE", "README", "RESULTS", "page", "publish", "readme_part", "with_part"]

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
PAGE = TOP / "docs" / "benchmarks.md"
RESULTS = TOP / "docs" / "benchmarks" / "results.json"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def publish(record: Mapping[str, Any]) -> None:
    """Write results, plots, the page, and the README's part."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.parent.glob("*.png"):
        old.unlink()
    RESULTS.write_text(json.dumps(record, separators=(",", ":")) + "\n", "utf-8")
    draw_rows(record, RESULTS.parent)
    PAGE.write_text(page(record), "utf-8")
    README.write_text(with_part(README.read_text("utf-8"), readme_part(record)), "utf-8")


def with_part(readme: str, part: str) -> str:
    """Return a README whose part between the markers is this.

    Raises
    ------
    ValueError
        The markers are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected {BEGIN} and {END} in the README; nothing was written; put them back")
    return f"{before}{BEGIN}\n{part}{END}{after}"


def readme_part(record: Mapping[str, Any]) -> str:
    """Return the README's table: each headline goal, what was measured, and whether it is met."""
    goals = [goal for row in record["rows"] for goal in row["goals"] if goal["headline"]]
    return f"{_goals(goals)}\n{machine_line(record)}\n"


def page(record: Mapping[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "Made by `python -m benchmarks --publish`; every sample is in [results.json](benchmarks/results.json). "
        "Contenders take samples in turn, in another order each round. A figure is the median of its "
        "samples with the lowest and the highest behind it; a ratio is the median of the ratios within the "
        "rounds. A *floor* does less than anybody who stores frames can do.\n",
        f"{machine_line(record)}\n",
        "## Goals\n",
        _goals([goal for row in record["rows"] for goal in row["goals"]]),
        *(_section(row) for row in record["rows"]),
        "## Versions\n",
        ", ".join(f"{name} {number}" for name, number in record["versions"].items()) + "\n",
    ]
    return "\n".join(parts)


def _goals(goals: Sequence[Mapping[str, Any]]) -> str:
    lines = [[goal["what"], goal_figure(goal), goal["goal"], outcome(goal)] for goal in goals]
    return _table(["what", "measured", "goal", "met"], lines)


def _section(row: Mapping[str, Any]) -> str:
    heads, lines = table_of(row)
    parts = [f"## {row['title']}\n", f"`{row['name']}`. {row['text']}\n", _table(heads, lines)]
    if any(contender["samples"] for contender in row["contenders"]):
        parts.append(f"![{row['title']}](benchmarks/{row['name']}.png)\n")
    notes = [f"- {known['name']}: {known['note']}" for known in row["contenders"] if known["note"]]
    if notes:
        parts.append("\n".join(notes) + "\n")
    return "\n".join(parts)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
