"""What is remembered of a journal from one batch of lines to the next.

It can be read back from the rows at any time (``keeping.py``): no process depends on another's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DescriptorState", "ExtentKey", "JournalState", "Row"]

Row = dict[str, Any]
ExtentKey = tuple[str, str, str, str]
"""Run, stream, data key, asset."""


@dataclass(slots=True)
class DescriptorState:
    """What later documents need of a descriptor: where it belongs and what its data keys are."""

    run_uid: str
    stream: str
    data_keys: Mapping[str, Mapping[str, Any]]
    external: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.external = tuple(
            key for key, about in self.data_keys.items() if str(about.get("external", "STREAM:")) != "STREAM:"
        )


@dataclass(slots=True)
class JournalState:
    """What is remembered of a journal between two batches: how far it is indexed, and its open runs."""

    journal: str
    end: int = 0
    lines: int = 0
    time: float = 0.0
    runs: dict[str, float] = field(default_factory=dict[str, float])
    descriptors: dict[str, DescriptorState] = field(default_factory=dict[str, DescriptorState])
    assets: dict[str, Row] = field(default_factory=dict[str, Row])
    waiting: dict[str, Row] = field(default_factory=dict[str, Row])
    """Datums that were announced and that no event has named yet."""
    extents: dict[ExtentKey, Row] = field(default_factory=dict[ExtentKey, Row])

    def drop_run(self, run_uid: str) -> None:
        """Forget what is only needed while the run goes on."""
        self.runs.pop(run_uid, None)
        for uid in [uid for uid, about in self.descriptors.items() if about.run_uid == run_uid]:
            del self.descriptors[uid]
        for key in [key for key in self.extents if key[0] == run_uid]:
            del self.extents[key]
        for rows in (self.assets, self.waiting):
            for uid in [uid for uid, row in rows.items() if row["run_uid"] == run_uid]:
                del rows[uid]
