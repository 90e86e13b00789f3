"""What the files of a store take on its disk: by session, data type, age, or any key of start documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Tombstone
from gently_bluesky.settings import DAY_S
from gently_bluesky.upkeep.holdings import Holding, Holdings, value_of
from gently_bluesky.wording import many, printable

__all__ = ["Share", "Usage", "usage_of"]

AGE: Final = "age"
AGES: Final = (("up to a day", 1), ("up to a week", 7), ("up to 30 days", 30), ("up to a year", 366))
OLDER: Final = "older"
NONE: Final = "(none)"
WIDTH: Final = 80
BAR: Final = 24
NAME: Final = 24


@dataclass(frozen=True, slots=True)
class Share:
    """What is alike: its name, how many runs, and what their files take on the disk."""

    name: str
    runs: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the files of a store take: a value; ``str()`` of it is a small bar chart.

    Attributes
    ----------
    by
        What they are told apart by.
    shares
        The largest first; of ages the youngest.
    in_trash_nbytes, free_bytes
        What lies in the trash, and is free on the disk.
    """

    by: str
    shares: tuple[Share, ...]
    in_trash_nbytes: int
    free_bytes: int

    @property
    def nbytes(self) -> int:
        """What all files of pixels take, but for those in the trash."""
        return sum(one.nbytes for one in self.shares)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        shares = [{"name": one.name, "runs": one.runs, "nbytes": one.nbytes} for one in self.shares]
        room = {"in_trash_nbytes": self.in_trash_nbytes, "free_bytes": self.free_bytes}
        return {"by": self.by, "nbytes": self.nbytes, **room, "shares": shares}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        most = max((one.nbytes for one in self.shares), default=0)
        for one in self.shares:
            bar = "#" * round(BAR * one.nbytes / most) if most else ""
            name = printable(one.name)[:NAME]
            yield f"{name:<{NAME}}{many(one.runs, 'run'):>12}{bytes_text(one.nbytes):>11}  {bar}".rstrip()
        runs = many(sum(one.runs for one in self.shares), "run")
        yield f"{'in all':<{NAME}}{runs:>12}{bytes_text(self.nbytes):>11}"
        room = (
            f"{bytes_text(self.in_trash_nbytes)} in the trash, {bytes_text(self.free_bytes)} free on the disk"
        )
        yield room


def usage_of(held: Holdings, by: str, now: float, trash: Sequence[Tombstone], free_bytes: int) -> Usage:
    """Return what a store's files take."""
    name_of: Callable[[Holding], str] = (
        (lambda one: _age(now - one.run.time)) if by == AGE else (lambda one: value_of(one.run, by) or NONE)
    )
    groups: dict[str, list[Holding]] = {}
    for one in held.runs:
        if one.assets:
            groups.setdefault(name_of(one), []).append(one)
    shares = [Share(name, len(runs), sum(one.nbytes for one in runs)) for name, runs in groups.items()]
    if by == AGE:
        order = [*(name for name, _ in AGES), OLDER]
        shares.sort(key=lambda one: order.index(one.name))
    else:
        shares.sort(key=lambda one: (-one.nbytes, one.name))
    return Usage(by, tuple(shares), sum(one.nbytes for one in trash), free_bytes)


def _age(age_s: float) -> str:
    return next((name for name, days in AGES if age_s <= days * DAY_S), OLDER)
