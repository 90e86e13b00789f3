"""Where a run stands, seen from its producers, and how it may go on from there."""

from __future__ import annotations

import enum

__all__ = ["MOVES", "RunState"]


class RunState(enum.Enum):
    """Where a run stands, seen from its producers."""

    NEW = "was not opened yet"
    OPEN = "takes documents"
    DRAINING = "has its stop document and stores what it accepted"
    ENDED = "has ended"


MOVES = {
    RunState.NEW: {RunState.OPEN, RunState.ENDED},
    RunState.OPEN: {RunState.DRAINING},
    RunState.DRAINING: {RunState.ENDED},
    RunState.ENDED: set[RunState](),
}
