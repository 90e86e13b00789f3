"""What is measured: one module a theme, each with the rows' declarations and the tasks that workers run."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["ROWS", "load_row"]

ROWS: dict[str, str] = {
    "write-zarr": "writing.row",
    "sync-zarr": "durability.zarr_row",
    "sync-tiff": "durability.tiff_row",
    "flying": "flying.row",
    "held": "producer.held_row",
    "scalar-events": "producer.scalar_row",
    "memory": "memory.row",
    "memory-frames": "memory.frames_row",
    "plane": "planes.row",
    "index": "finding.row",
    "rebuild": "finding.rebuild_row",
    "reconcile": "reconciling.row",
    "replay": "documents.replay_row",
    "import": "startup.row",
    "opening": "opening.row",
    "live": "live.live_row",
    "hot-pool": "live.hot_row",
    "layouts": "layouts.row",
    "convert": "converting.row",
    "reductions": "reductions.row",
    "simulator": "simulator.row",
}
"""In the order in which they run; each function takes ``quick`` and returns a `Row`."""


def load_row(name: str, *, quick: bool) -> Any:
    """Return the row of this name."""
    module, _, function = ROWS[name].rpartition(".")
    make: Callable[..., Any] = getattr(import_module(f"benchmarks.rows.{module}"), function)
    return make(quick=quick)
