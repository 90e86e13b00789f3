"""Figures as people read them: the same on the terminal, on the page and in the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

__all__ = ["figure", "goal_figure", "machine_line", "outcome", "spread", "table_of"]

KINDS = {"ours": "ours", "peer": "peer", "floor": "floor"}


def figure(value: float, digits: int) -> str:
    """Return a number with thousands apart."""
    return f"{value:,.{digits}f}"


def spread(numbers: Sequence[float], digits: int) -> str:
    """Return a median and the range around it."""
    if not numbers:
        return "-"
    if len(numbers) == 1:
        return figure(numbers[0], digits)
    low, high = figure(min(numbers), digits), figure(max(numbers), digits)
    return f"{figure(median(numbers), digits)} ({low} to {high})"


def goal_figure(goal: Mapping[str, Any]) -> str:
    """Return what a goal's figure is, with its range."""
    if goal["value"] is None:
        return "not measured"
    digits = 2 if abs(goal["value"]) < 10 else 1 if abs(goal["value"]) < 100 else 0
    unit = f" {goal['unit']}" if goal["unit"] else ""
    if len(goal["rounds"]) == 1:
        return f"{figure(goal['value'], digits)}{unit}"
    return f"{figure(goal['value'], digits)}{unit} ({figure(goal['low'], digits)} to {figure(goal['high'], digits)})"


def outcome(goal: Mapping[str, Any]) -> str:
    """Return whether a goal is met."""
    return {True: "yes", False: "**no**", None: "?"}[goal["met"]]


def table_of(row: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a row's table: its heads, and a line for each contender."""
    metrics = row["metrics"]
    has_ratio = any(contender["ratio"] is not None for contender in row["contenders"])
    ratio = [f"ours / this, {metrics[0]['title']}"] if has_ratio else []
    heads = ["", "", *(metric["title"] for metric in metrics), *ratio]
    lines: list[list[str]] = []
    for contender in row["contenders"]:
        cells = []
        for metric in metrics:
            numbers = [sample[metric["name"]] for sample in contender["samples"] if metric["name"] in sample]
            cells.append(spread(numbers, metric["digits"]))
        if contender["trouble"]:
            cells[0] = contender["trouble"] if cells[0] == "-" else f"{cells[0]}; {contender['trouble']}"
        if has_ratio:
            cells.append("" if contender["ratio"] is None else figure(contender["ratio"], 2))
        lines.append([contender["name"], KINDS[contender["kind"]], *cells])
    return heads, lines


def machine_line(record: Mapping[str, Any]) -> str:
    """Return one sentence on where and when the figures were taken."""
    machine = record["machine"]
    memory = f", {machine['memory_gb']:g} GB" if machine["memory_gb"] else ""
    busy = record["load_before"]
    load = "" if busy is None else f"; load before it began {busy:g}"
    quick = " with `--quick`: fewer and shorter samples" if record["quick"] else ""
    return (
        f"Measured {record['time'][:10]} on {machine['cpu']}, {machine['cores']} cores{memory}, "
        f"{machine['file_system'] or 'an unknown file system'}, {machine['kernel']}, Python {machine['python']}"
        f"{quick}{load}."
    )
