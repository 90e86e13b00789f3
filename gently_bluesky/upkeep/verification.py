"""What `verify` found: one finding for each thing that is not as it was announced, and the report of a pass.

Values; nothing here looks at a store.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from gently_bluesky.labels import bytes_text
from gently_bluesky.wording import many

__all__ = ["KINDS", "Finding", "Progress", "Verification"]

KINDS: Final = ("missing", "torn", "corrupted", "unreadable", "foreign")
LINES_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was announced.

    Attributes
    ----------
    kind
        ``"missing"``: a file is not there. ``"torn"``: it is there, and ends too early. ``"corrupted"``: it is as long
        as it should be, and a checksum, or its structure, says that it is not what was written. ``"unreadable"``: the
        system refuses to read it, or what reads it cannot look; the pixels may well be whole. ``"foreign"``: it is
        whole, and not what was announced, or nobody announced it.
    run
        Uid of the run; empty where that cannot be told.
    asset, data_key
        Uid of the asset, and where it belongs; empty for what is wrong with the run, or its journal.
    event
        Place of the event along ``t`` of the asset; None for the asset as a whole.
    datum
        Uid of the event's datum or stream_datum.
    path
        Of the file, or of the asset: below the store's root with slashes, or whole where it lies elsewhere.
    reason
        What was expected and what was found.
    """

    kind: str
    run: str
    path: str
    reason: str
    asset: str = ""
    data_key: str = ""
    event: int | None = None
    datum: str = ""

    def __str__(self) -> str:
        what = [f"run {self.run[:8]}" if self.run else "", self.data_key]
        where = "/".join(filter(None, what)) + ("" if self.event is None else f" event {self.event}")
        return " ".join(f"{self.kind:<10} {where}: {self.path}: {self.reason}".split("\n"))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is: what its ``progress`` is called with.

    Attributes
    ----------
    run
        Uid of the run that was just looked at.
    runs, events, nbytes, findings
        How many so far.
    total_nbytes
        Bytes of pixels that there are to read, as the index has it: about so many.
    """

    run: str
    runs: int
    events: int
    nbytes: int
    findings: int
    total_nbytes: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What a pass of `verify` read, and what it found.

    Attributes
    ----------
    findings
        What is not as it was announced, in the order of the runs.
    runs, assets, events, nbytes
        How many were read; bytes of pixels, uncompressed.
    without_digest
        Events among them whose digest nobody took when they were announced: those of other writers. They are there,
        can be read, and have the announced shape; that their pixels are right nobody can say.
    skipped
        Runs that were not read, as they were verified before.
    unopened
        Assets that were not read as nothing here may, or can, open them: a sentence for each.
    remarks
        What else is worth knowing: that the pass could not be put on record, and why.
    elapsed_s
        How long it took.
    """

    findings: tuple[Finding, ...] = ()
    runs: int = 0
    assets: int = 0
    events: int = 0
    nbytes: int = 0
    without_digest: int = 0
    skipped: int = 0
    unopened: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    elapsed_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Nothing was found that is not as it was announced."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with ``ok``, and how many findings there are of each kind."""
        counts = {kind: sum(finding.kind == kind for finding in self.findings) for kind in KINDS}
        return {"ok": self.ok, "counts": counts, **asdict(self)}

    def __str__(self) -> str:
        speed = (
            f" ({bytes_text(int(self.nbytes / self.elapsed_s))}/s)" if self.elapsed_s and self.nbytes else ""
        )
        lines = [
            f"{many(self.runs, 'run')}, {many(self.assets, 'array')}, {many(self.events, 'event')}, "
            f"{bytes_text(self.nbytes)} read back in {self.elapsed_s:.1f} s{speed}"
        ]
        if self.skipped:
            lines.append(f"{many(self.skipped, 'run')} not read again: verified before")
        if self.without_digest:
            events = many(self.without_digest, "event")
            lines.append(f"{events} without a digest: there and readable, their pixels compared with nothing")
        lines += [f"not opened: {text}" for text in self.unopened[:LINES_SHOWN]]
        lines += self.remarks
        lines += map(str, self.findings[:LINES_SHOWN])
        more = len(self.findings) - LINES_SHOWN
        if more > 0:
            lines.append(f"... and {more:,} more: to_dict() has them all")
        lines.append(
            "all is well" if self.ok else f"{many(len(self.findings), 'finding')}; nothing was changed"
        )
        return "\n".join(lines)
