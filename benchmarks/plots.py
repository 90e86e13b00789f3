"""Small pictures of the samples: every one a dot, the median a bar; curves where a row has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["draw_rows"]

COLOURS = {"ours": "#1f6fb2", "peer": "#b0b0b0", "floor": "#dedede"}
WIDTH_IN, DPI = 7.2, 80


def draw_rows(record: Mapping[str, Any], folder: Path) -> None:
    """Write ``<row>.png`` for each row that has figures; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    for row in record["rows"]:
        if not any(contender["samples"] for contender in row["contenders"]):
            continue
        curves = [known for known in row["contenders"] if known["curve"]]
        lines = len(row["contenders"])
        height_in = 2.8 if curves else 0.7 + 0.28 * lines
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        (_draw_curves if curves else _draw_bars)(axes, row)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        figure.savefig(folder / f"{row['name']}.png", metadata={"Software": None})


def _draw_bars(axes: Any, row: Mapping[str, Any]) -> None:
    metric = row["metrics"][0]
    names: list[str] = []
    for place, contender in enumerate(reversed(row["contenders"])):
        numbers = [sample[metric["name"]] for sample in contender["samples"] if metric["name"] in sample]
        names.append(contender["name"])
        if numbers:
            axes.barh(place, median(numbers), color=COLOURS[contender["kind"]], height=0.7)
            axes.plot(numbers, [place] * len(numbers), "k.", markersize=3)
    axes.set_yticks(range(len(names)), names)
    better = {"more": "more is better", "less": "less is better"}[metric["better"]]
    axes.set_xlabel(f"{metric['title']} ({better})", fontsize=8)


def _draw_curves(axes: Any, row: Mapping[str, Any]) -> None:
    for contender in row["contenders"]:
        if contender["curve"]:
            x, y = zip(*contender["curve"], strict=True)
            axes.plot(x, y, label=contender["name"], linewidth=1.0)
    axes.set_xlabel(row["curve"][0], fontsize=8)
    axes.set_ylabel(row["curve"][1], fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
