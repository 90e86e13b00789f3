"""A plan, as a value: what would go by a policy and why, and what stays and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.upkeep.retention import Policy
from gently_bluesky.wording import clock, many, printable, short_uid

__all__ = ["MOST_NAMED", "Going", "Plan", "Staying"]

WIDTH: Final = 80
WHAT: Final = 24
MOST_ROWS: Final = 40
MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Going:
    """A run whose pixels would go.

    Attributes
    ----------
    run
        Its record.
    nbytes
        What its files take on the disk.
    why
        Over which limits it is.
    although
        What protects it, and is waived by a rule.
    assets
        Their uids.
    """

    run: Record
    nbytes: int
    why: tuple[str, ...]
    although: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        """Of the run."""
        return self.run.uid

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        more = {"why": [*self.why], "although": [*self.although], "assets": [*self.assets]}
        return {**_of_run(self.run), "nbytes": self.nbytes, **more}


@dataclass(frozen=True, slots=True)
class Staying:
    """A run whose pixels stay.

    Attributes
    ----------
    run
        Its record.
    nbytes
        What its files take on the disk.
    why
        A sentence for each thing that keeps it: "running", "pinned", "incomplete", "damaged", "unverified", "children",
        "used" (a result is being made from it), "elsewhere" (its pixels are not ours, or not on disk in the store),
        "keep" and "rule" (of the policy), or else "within" (all limits).
    asked
        Over which limits it is all the same.
    """

    run: Record
    nbytes: int
    why: Mapping[str, str]
    asked: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        """Of the run."""
        return self.run.uid

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**_of_run(self.run), "nbytes": self.nbytes, "why": dict(self.why), "asked": [*self.asked]}


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go by a policy, and what stays: a value; ``str()`` of it is a table for people.

    Attributes
    ----------
    policy
        By which it was made.
    made, ticks
        When, in seconds since the epoch, and by a clock that nobody sets.
    goes, stays
        Every run that has pixels, oldest first.
    purges
        What lies in the trash, and has been there for as long as it was to be kept.
    in_trash_nbytes, free_bytes
        Of all that lies in the trash, and of the disk, when it was made.
    remarks
        Limits that are exceeded all the same.
    fingerprint
        Of what it was made from; it is stale when that has changed.
    """

    policy: Policy
    made: float
    ticks: float
    goes: tuple[Going, ...]
    stays: tuple[Staying, ...]
    purges: tuple[Tombstone, ...]
    in_trash_nbytes: int
    free_bytes: int
    remarks: tuple[str, ...]
    fingerprint: str

    @property
    def nbytes(self) -> int:
        """What the files that would go take on the disk: so much is regained when they are purged from the trash."""
        return sum(one.nbytes for one in self.goes)

    @property
    def uids(self) -> frozenset[str]:
        """Of the runs that would go."""
        return frozenset(one.uid for one in self.goes)

    @property
    def purged_nbytes(self) -> int:
        """What is regained at once: of what lies in the trash for long enough."""
        return sum(one.nbytes for one in self.purges)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "policy": self.policy.to_dict(),
            "made": self.made,
            "nbytes": self.nbytes,
            "purged_nbytes": self.purged_nbytes,
            "in_trash_nbytes": self.in_trash_nbytes,
            "free_bytes": self.free_bytes,
            "goes": [one.to_dict() for one in self.goes],
            "stays": [one.to_dict() for one in self.stays],
            "purges": [{"uid": one.uid, "run_uid": one.run_uid, "nbytes": one.nbytes} for one in self.purges],
            "remarks": [*self.remarks],
            "fingerprint": self.fingerprint,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        held = self.nbytes + sum(one.nbytes for one in self.stays)
        runs = many(len(self.goes) + len(self.stays), "run")
        goes = f"{len(self.goes):,} of {runs} would go, {bytes_text(self.nbytes)} of {bytes_text(held)}"
        yield from _wrapped(f"By the policy {self.policy.name!r}, {clock(self.made)}: {goes}", "")
        if self.goes:
            yield ""
            shown = self.goes[:MOST_ROWS]
            width = max(len("what"), *(len(_what(one)) for one in shown))
            yield f"  {'run':<8}  {'when':<16}  {'what':<{width}}{'size':>10}  goes because"
            for one in shown:
                yield from _row(one, width)
            if len(self.goes) > MOST_ROWS:
                yield f"  ... and {many(len(self.goes) - MOST_ROWS, 'run')} more"
        yield ""
        yield from self._stays()
        yield from self._regained()
        for remark in self.remarks:
            yield from _wrapped(remark, "! ")

    def _stays(self) -> Iterator[str]:
        groups: dict[str, list[Staying]] = {}
        for one in self.stays:
            for kind in one.why:
                groups.setdefault(kind, []).append(one)
        if not groups:
            yield "Nothing stays."
            return
        yield f"{many(len(self.stays), 'run')}, {bytes_text(sum(one.nbytes for one in self.stays))}, stay:"
        for kind, runs in groups.items():
            nbytes = bytes_text(sum(one.nbytes for one in runs))
            yield f"  {kind:<12}{many(len(runs), 'run'):<12}{nbytes:>9}  {_named(runs)}"
            whys = [*dict.fromkeys(one.why[kind] for one in runs)]
            for why in whys[:MOST_NAMED]:
                yield from _wrapped(why, "      ")
            if len(whys) > MOST_NAMED:
                yield "      ..."

    def _regained(self) -> Iterator[str]:
        yield ""
        days = self.policy.keep_days
        if days:
            later = f"What goes lies in the trash for {days:g} day{'' if days == 1 else 's'}"
        else:
            later = "What goes is purged at once"
        now = f"{bytes_text(self.purged_nbytes)} of {bytes_text(self.in_trash_nbytes)} in the trash would be purged"
        yield from _wrapped(f"{later}. {now}; {bytes_text(self.free_bytes)} are free.", "")


def _of_run(run: Record) -> dict[str, Any]:
    known = {"uid": run.uid, "time": run.time, "status": run.status}
    return {**known, "session": run.session, "data_type": run.data_type}


def _what(one: Going) -> str:
    named = (one.run.data_type or one.run.metadata.get("plan_name"), one.run.session)
    return printable(" ".join(map(str, filter(None, named))))[:WHAT]


def _row(one: Going, width: int) -> Iterator[str]:
    named = f"  {short_uid(one.uid):<8}  {clock(one.run.time):<16}  {_what(one):<{width}}"
    head = f"{named}{bytes_text(one.nbytes):>10}  "
    first, *more = textwrap.wrap(printable("; ".join(one.why)), WIDTH - len(head))
    yield head + first
    yield from (" " * len(head) + line for line in more)


def _named(runs: Sequence[Staying]) -> str:
    named = [short_uid(one.uid) for one in runs[:MOST_NAMED]]
    return ", ".join([*named, *["..."] * (len(runs) > MOST_NAMED)])


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent))
