"""Stamps in the logbook: which run was verified, when, and as what its journal stood there then.

A pass over a whole store that was interrupted is told by its stamps, and by there being no line that it ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gently_bluesky.errors import JournalDamaged, StorageError
from gently_bluesky.upkeep.logbook import Logbook
from gently_bluesky.upkeep.verification import Finding

__all__ = ["JournalPart", "Stamps"]

VERIFIED: Final = "verified"
ALL_VERIFIED: Final = "verified-all"
TOGETHER_S: Final = 1.0
"""Stamps that come faster than this share one sync."""
MOST_FINDINGS: Final = 100
"""Of one stamp."""


@dataclass(frozen=True, slots=True)
class JournalPart:
    """What a run's lines in a journal came to: where, how many bytes, and their checksum."""

    path: str
    nbytes: int
    digest: str

    @classmethod
    def of(cls, stamp: Mapping[str, Any]) -> JournalPart:
        """Return it as it was stamped; an empty one where nothing was."""
        said: Any = stamp.get("journal")
        try:
            return cls(str(said["path"]), int(said["bytes"]), str(said["digest"]))
        except (KeyError, TypeError, ValueError):
            return cls("", 0, "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in a stamp."""
        return {"path": self.path, "bytes": self.nbytes, "digest": self.digest}


@dataclass(slots=True)
class Stamps:
    """The stamps of one store: read again, it reads what is new. Used by one thread.

    Parameters
    ----------
    root
        Of the store.
    writes
        Nothing is written otherwise.

    Attributes
    ----------
    began
        When the pass began whose stamps are written: one that is resumed goes on being the same.
    remark
        Why stamps could not be read or written; the pass goes on without them.
    newest
        Time of the newest entry of the logbook, of whatever kind; 0 where there is none.
    """

    root: Path
    writes: bool
    began: float = field(default_factory=time.time)
    remark: str = ""
    newest: float = 0.0
    _known: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    _waiting: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _last_s: float = field(default_factory=time.monotonic)
    _end: int = 0
    _latest: float | None = None
    """The newest pass, while it has not ended."""

    def read(self, *, resume: bool = False) -> None:
        """Read what was stamped since it was last read; with ``resume`` the newest pass that has not ended goes on.

        Raises
        ------
        StorageError
            The logbook cannot be read, or is damaged; what stands before that is known.
        """
        logbook = Logbook(self.root)
        if logbook.size < self._end:  # it is another one: restored from a copy
            self._forget()
        try:
            self._read(logbook)
        except JournalDamaged:
            if self._end == 0:
                raise
            self._forget()  # somebody took back what could not be synced, and was read
            self._read(logbook)
        if resume and self._latest is not None:
            self.began = self._latest

    def _forget(self) -> None:
        self._known, self._end, self._latest = {}, 0, None

    def _read(self, logbook: Logbook) -> None:
        for entry, end in logbook.behind(self._end):
            self._end = end
            if isinstance(entry.get("time"), float):
                self.newest = entry["time"]
            if entry["kind"] == VERIFIED:
                self._known[str(entry.get("run"))] = entry
                if isinstance(entry.get("pass"), float):
                    self._latest = entry["pass"]
            elif entry["kind"] == ALL_VERIFIED and entry.get("pass") == self._latest:
                self._latest = None

    def of(self, run_uid: str) -> Mapping[str, Any]:
        """Return the last stamp of a run; an empty one if it has none."""
        return self._known.get(run_uid, {})

    def is_verified(self, run_uid: str, journal: JournalPart, since: float | None) -> bool:
        """Say whether a run was found well, with this journal, in this pass, or else since then."""
        stamp = self._known.get(run_uid)
        if (
            stamp is None
            or stamp.get("findings")
            or stamp.get("unopened")
            or stamp.get("journal") != journal.to_dict()
        ):
            return False
        when = stamp.get("time")
        return stamp.get("pass") == self.began or (
            since is not None and isinstance(when, float) and when >= since
        )

    def is_verified_up_to(self, run_uid: str, journal: str, nbytes: int) -> bool:
        """Say whether a run was found well with a journal of so many bytes, which is not read."""
        part = JournalPart.of(self.of(run_uid))
        return (part.path, part.nbytes) == (journal, nbytes) and self.is_verified(run_uid, part, 0.0)

    def put(
        self,
        run_uid: str,
        journal: JournalPart,
        read: Mapping[str, int],
        findings: list[Finding],
        *,
        whole: bool,
    ) -> None:
        """Stamp a run: *synced* a second later, or with `flush`. ``whole`` says that the pass is over a whole store."""
        if not self.writes:
            return
        entry: dict[str, Any] = {
            "kind": VERIFIED,
            "time": time.time(),
            "run": run_uid,
            "journal": journal.to_dict(),
            **read,
            "findings": [finding.to_dict() for finding in findings[:MOST_FINDINGS]],
        }
        self._waiting.append(entry | ({"pass": self.began} if whole else {}))
        if time.monotonic() - self._last_s > TOGETHER_S:
            self.flush()

    def end_pass(self) -> None:
        """Say that the pass over the whole store has ended."""
        if self.writes:
            self._waiting.append({"kind": ALL_VERIFIED, "time": time.time(), "pass": self.began})

    def flush(self) -> None:
        """Write what is waiting; *synced* on return. What cannot be written is remarked on."""
        waiting, self._waiting, self._last_s = self._waiting, [], time.monotonic()
        if not waiting or self.remark:
            return
        try:
            Logbook(self.root).append(*waiting)
        except StorageError as error:
            self.remark = f"what was verified could not be put on record: {error}"
