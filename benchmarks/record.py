"""What is kept of a call: one JSON document with every sample, from which all else is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Contender, RowResult, judge, values
from benchmarks.machine import describe_machine, versions

__all__ = ["record_of"]

CURVE_POINTS = 240


def record_of(
    results: Sequence[RowResult], root: Path, *, quick: bool, load_before: float | None = None
) -> dict[str, Any]:
    """Return all that was measured, on what, and whether the goals were met."""
    return {
        "format": 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": describe_machine(root),
        "load_before": load_before,
        "versions": versions(),
        "rows": [_row(result) for result in results],
    }


def _row(result: RowResult) -> dict[str, Any]:
    row = result.row
    return {
        "name": row.name,
        "title": row.title,
        "text": row.text,
        "took_s": round(result.took_s, 1),
        "metrics": [asdict(metric) for metric in row.metrics],
        "curve": row.curve,
        "contenders": [_contender(known, result) for known in row.contenders],
        "goals": [judge(goal, result) for goal in row.goals],
    }


def _contender(contender: Contender, result: RowResult) -> dict[str, Any]:
    first = result.row.metrics[0]
    samples = result.samples.get(contender.name, [])
    ours = next(known.name for known in result.row.contenders if known.kind == "ours")
    mine, theirs = (values(result, name, first.name) for name in (ours, contender.name))
    ratios = [a / b for a, b in zip(mine, theirs, strict=False) if b] if result.row.compared else []
    curves = [sample["curve"] for sample in samples if "curve" in sample]
    return {
        "name": contender.name,
        "kind": contender.kind,
        "note": contender.note,
        "trouble": result.troubles.get(contender.name),
        "ratio": median(ratios) if ratios and contender.name != ours else None,
        "samples": [
            {name: _short(value) for name, value in sample.items() if isinstance(value, int | float)}
            for sample in samples
        ],
        "curve": _thinned(curves[-1]) if curves else None,
    }


def _thinned(curve: Sequence[Sequence[float]]) -> list[list[float]]:
    step = -(-len(curve) // CURVE_POINTS)
    return [[_short(x), _short(y)] for x, y in curve[::step]]


def _short(value: float) -> float:
    """Return a number as exact as it can be known."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
