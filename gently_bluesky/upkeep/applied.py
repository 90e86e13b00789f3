"""What came of a plan that was applied: a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Tombstone
from gently_bluesky.wording import many, short_uid

__all__ = ["Applied"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, and what was left alone; ``str()`` of it is for people.

    Attributes
    ----------
    deleted
        What was put into the trash, an asset each.
    purged
        What was removed from there.
    left
        Runs that were left alone, by uid, and why.
    """

    deleted: tuple[Tombstone, ...]
    purged: tuple[Tombstone, ...]
    left: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "deleted": [_of_asset(one) for one in self.deleted],
            "purged": [_of_asset(one) for one in self.purged],
            "left": dict(self.left),
        }

    def __str__(self) -> str:
        lines = [
            f"{_counted(self.deleted)} put into the trash, {_counted(self.purged)} purged from there",
            *(f"left alone: {short_uid(uid)}: {why}" for uid, why in self.left.items()),
        ]
        return "\n".join(lines)


def _counted(stones: tuple[Tombstone, ...]) -> str:
    runs = len({one.run_uid for one in stones})
    return f"{many(runs, 'run')} ({bytes_text(sum(one.nbytes for one in stones))})"


def _of_asset(one: Tombstone) -> dict[str, Any]:
    return {"uid": one.uid, "run_uid": one.run_uid, "nbytes": one.nbytes}
