"""What reconciling a store found and did, or would do: for a person to read, and for a program to parse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Ended", "Findings", "LeftAlone", "Missing", "PutAway", "Reconciliation", "TornTail"]

MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """A run whose process had died, with its end on record now.

    Attributes
    ----------
    run
        Its uid.
    journal
        Path of its journal, like all paths here relative to the store's root, or whole where it lies in the overflow.
    status
        ``"incomplete"``, or ``"failed"`` where it had failed before and the disk did not let it say so.
    received, stored, lost
        Frames; ``received`` and ``lost`` are None where nobody knows: power was lost before they were written.
    """

    run: str
    journal: str
    status: str
    received: int | None
    stored: int
    lost: int | None

    def __str__(self) -> str:
        lost = "nobody knows how many were lost" if self.lost is None else f"{self.lost} lost"
        received = "" if self.received is None else f"{self.received} received, "
        return f"run {self.run} is {self.status}: frames: {received}{self.stored} stored, {lost}"


@dataclass(frozen=True, slots=True)
class TornTail:
    """What was not whole at the end of a journal: never announced, and dropped."""

    journal: str
    at: int
    nbytes: int

    def __str__(self) -> str:
        return f"{self.journal}: the last {self.nbytes} bytes, from {self.at} on, announce nothing whole"


@dataclass(frozen=True, slots=True)
class PutAway:
    """A file or folder that was renamed into the quarantine.

    Attributes
    ----------
    run, asset
        Uids; None where no document names them.
    kind, why
        ``"torn"``, ``"unreadable"`` or ``"foreign"``, and in words.
    events
        First event whose pixels were in it, and the one behind the last; None where it held none's.
    path, now
        Where it was, and where it lies; whole paths where that is in the overflow.
    """

    run: str | None
    asset: str | None
    kind: str
    events: tuple[int, int] | None
    path: str
    now: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} -> {self.now} ({self.kind}: {self.why})"


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that announced events need and that is not there."""

    run: str | None
    asset: str
    events: tuple[int, int] | None
    path: str
    why: str

    def __str__(self) -> str:
        events = "" if self.events is None else f"events {self.events[0]} to {self.events[1] - 1}: "
        return f"{events}{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """What was not touched, and why; it needs a person."""

    path: str
    why: str

    def __str__(self) -> str:
        return self.why if self.path in self.why else f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found and done. ``str`` of it is a short report, `to_dict` the same for programs.

    Attributes
    ----------
    root
        Of the store.
    dry_run
        Nothing was changed: this is what would be done.
    ended, torn, quarantined, missing
        See the classes of what they hold.
    swept
        Leftovers of writes that were half done, removed: they held nothing whole.
    segments
        Shared memory that nobody alive uses and no run announces, given back.
    indexed
        Journals of which the index knew less, or other, than the file holds, and was corrected.
    forgotten
        Journals that the index knew and that are gone.
    strays
        Folders among the runs that have no journal: nothing in them is a run's.
    left
        What was left alone, with the reason.
    trashed
        Assets, by where they lay among the runs, that were deleted, restored or purged by a process that died before
        their files were where they are to be.
    home
        Uids of runs that went on in the overflow, and are home again.
    waiting
        Runs that are still in the overflow, with the reason.
    """

    root: str
    dry_run: bool = False
    ended: tuple[Ended, ...] = ()
    torn: tuple[TornTail, ...] = ()
    quarantined: tuple[PutAway, ...] = ()
    missing: tuple[Missing, ...] = ()
    swept: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    left: tuple[LeftAlone, ...] = ()
    trashed: tuple[str, ...] = ()
    home: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything was, or would be, changed."""
        done = (self.ended, self.torn, self.quarantined, self.swept, self.segments, self.indexed)
        return any(done) or bool(self.forgotten or self.trashed or self.home)

    @property
    def needs_attention(self) -> bool:
        """Whether something is left that only a person can mend."""
        return bool(self.left or self.missing or self.waiting)

    def __str__(self) -> str:
        if not self.changes:
            head = "nothing to do"
        elif self.dry_run:
            head = "nothing was changed; this would be done"
        else:
            head = "mended"
        return "\n".join([f"{self.root}: {head}", *(f"  {line}" for line in self._lines())])

    def _lines(self) -> Iterator[str]:
        findings: dict[str, Sequence[object]] = {
            "ended": self.ended,
            "torn tail dropped": self.torn,
            "quarantined": self.quarantined,
            "missing": self.missing,
            "leftover removed": self.swept,
            "shared memory given back": self.segments,
            "moved to or from the trash": self.trashed,
            "brought home": self.home,
            "waiting": self.waiting,
        }
        for word, found in findings.items():
            yield from (f"{word}: {one}" for one in found)
        for word, journals in {"indexed": self.indexed, "forgotten by the index": self.forgotten}.items():
            if journals:
                more = ", ..." if len(journals) > MOST_NAMED else ""
                yield f"{word}: {len(journals)} of journals: {', '.join(journals[:MOST_NAMED])}{more}"
        yield from (f"no run: {stray} has no journal" for stray in self.strays)
        yield from (f"left alone: {one}" for one in self.left)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in JSON's own types."""

        def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
            return {key: list(value) if isinstance(value, tuple) else value for key, value in items}

        found = asdict(self, dict_factory=plain)
        return {**found, "changes": self.changes, "needs_attention": self.needs_attention}


@dataclass(slots=True)
class Findings:
    """A reconciliation in the making; its lists are those of `Reconciliation`."""

    ended: list[Ended] = field(default_factory=list[Ended])
    torn: list[TornTail] = field(default_factory=list[TornTail])
    quarantined: list[PutAway] = field(default_factory=list[PutAway])
    missing: list[Missing] = field(default_factory=list[Missing])
    swept: list[str] = field(default_factory=list[str])
    segments: list[str] = field(default_factory=list[str])
    indexed: list[str] = field(default_factory=list[str])
    forgotten: list[str] = field(default_factory=list[str])
    strays: list[str] = field(default_factory=list[str])
    left: list[LeftAlone] = field(default_factory=list[LeftAlone])
    trashed: list[str] = field(default_factory=list[str])
    home: list[str] = field(default_factory=list[str])
    waiting: list[str] = field(default_factory=list[str])

    def report(self, root: str, *, dry_run: bool) -> Reconciliation:
        """Return what there is by now."""
        found = {name: tuple(getattr(self, name)) for name in self.__slots__}
        return Reconciliation(root, dry_run, **found)
