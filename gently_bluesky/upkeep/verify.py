"""Verification: every announced event is read back and compared with what was announced. It changes nothing.

A pass goes from run to run, as their journals tell them, on several threads; what was looked at is stamped in the
logbook, so that a pass that was interrupted can be resumed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.live import is_live
from gently_bluesky.documents.names import folder_of
from gently_bluesky.errors import InvalidDocument, JournalDamaged, StorageError
from gently_bluesky.index.fields import itemsize
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine, Record
from gently_bluesky.parallel import in_order
from gently_bluesky.upkeep.accounts import Account, accounts
from gently_bluesky.upkeep.asset_check import AssetCheck, Checked, OpensElsewhere
from gently_bluesky.upkeep.journals import find_all_journals
from gently_bluesky.upkeep.left_behind import OWN, names_of_run
from gently_bluesky.upkeep.logbook import LOGBOOK
from gently_bluesky.upkeep.pixels import kind_of
from gently_bluesky.upkeep.stamps import JournalPart, Stamps
from gently_bluesky.upkeep.verification import Finding, Progress, Verification

__all__ = ["Wanted", "verify"]

WantedRuns = Mapping[str, Sequence["Wanted"]]
"""What is wanted of a journal's runs, by their uids."""


class Wanted(NamedTuple):
    """What of a run is to be verified: all of it, an asset, or the event of one of its datums."""

    run: Record
    asset: str | None = None
    datum: str | None = None


@dataclass(slots=True)
class _Run:
    """A run that is being looked at, and what came of it so far."""

    account: Account
    is_whole: bool = True
    reference: JournalPart | None = None
    assets: int = 0
    events: int = 0
    nbytes: int = 0
    without_digest: int = 0
    unopened: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])

    def do(self) -> Checked:
        """Look for what nobody announced."""
        is_told = self.is_whole and self.account.is_alone and self.account.has_stop
        return Checked(findings=_strays(self.account) if is_told else ())


class _Piece(NamedTuple):
    """Some events of an asset, which one thread reads."""

    run: _Run
    check: AssetCheck
    numbers: range

    def do(self) -> Checked:
        """Read them."""
        return self.check.check(self.numbers)


def verify(
    journals: Journals,
    index: Index,
    elsewhere: OpensElsewhere,
    wanted: Sequence[Wanted] | None,
    stamps: Stamps,
    *,
    workers: int,
    resume: bool = False,
    since: float | None = None,
    tell: Callable[[Progress], object],
) -> Verification:
    """Verify what is wanted, or everything. On an interruption what was verified by then is stamped.

    Parameters
    ----------
    journals
        Of the store. Of a run that goes on in the overflow the part in the root is verified.
    elsewhere
        Opens assets that are not in their run's folder.
    workers
        Threads that read; each takes memory as `digest_of_event` says.
    resume
        Go on with the pass over everything that was interrupted last, if one was.
    since
        Leave out runs that were found well since then.
    tell
        Called on this thread, when some events have been read.
    """
    work = _Pass(journals, index, elsewhere, stamps, since, tell, is_everything=wanted is None)
    work.read_stamps(resume=resume)
    try:
        jobs = work.everything() if wanted is None else work.some(wanted)
        with closing(in_order(lambda job: (job, job.do()), jobs, workers)) as done:
            for job, checked in done:
                work.note(job, checked)
        if wanted is None:
            stamps.end_pass()
    finally:
        stamps.flush()
    return work.report()


@dataclass(slots=True)
class _Pass:
    journals: Journals
    index: Index
    elsewhere: OpensElsewhere
    stamps: Stamps
    since: float | None
    tell: Callable[[Progress], object]
    is_everything: bool
    total_nbytes: int = 0
    runs: int = 0
    assets: int = 0
    events: int = 0
    nbytes: int = 0
    without_digest: int = 0
    skipped: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    unopened: list[str] = field(default_factory=list[str])
    remarks: list[str] = field(default_factory=list[str])
    _large: threading.Lock = field(default_factory=threading.Lock)
    _begin_s: float = field(default_factory=time.monotonic)

    def read_stamps(self, *, resume: bool) -> None:
        """Read what was verified before; where that cannot be told, everything is read."""
        try:
            self.stamps.read(resume=resume)
        except JournalDamaged as error:
            self.findings.append(Finding("corrupted", "", LOGBOOK, str(error)))
        except StorageError as error:
            self.findings.append(Finding("unreadable", "", LOGBOOK, str(error)))

    # -- what there is to do ---------------------------------------------------------------------------------

    def everything(self) -> Iterator[_Run | _Piece]:
        """Yield all runs, piece by piece, oldest day first; then what the index knows and nobody finds."""
        self.total_nbytes = self.index.stats()["nbytes"]
        known = self.index.journals()
        there: set[str] = set()
        for journal in find_all_journals(self.journals):
            there.add(journal)
            yield from self._journal(journal, known.get(journal, 0), None)
        gone = {journal for journal in known.keys() - there if not (self.journals.root / journal).exists()}
        for record in self.index.query() if gone else ():
            if record.path in gone:
                self._cannot_read(FileNotFoundError(), record.path, record.uid)

    def some(self, wanted: Sequence[Wanted]) -> Iterator[_Run | _Piece]:
        """Yield what is wanted of some runs."""
        by_journal: dict[str, dict[str, list[Wanted]]] = {}
        for one in wanted:
            by_journal.setdefault(one.run.path, {}).setdefault(one.run.uid, []).append(one)
            self.total_nbytes += _nbytes_of(self.index, one)
        for journal, runs in by_journal.items():
            yield from self._journal(journal, self.index.reach(journal), runs)

    def _journal(self, journal: str, reach: int, wanted: WantedRuns | None) -> Iterator[_Run | _Piece]:
        rest = dict(wanted or {})
        if self.journals.continuation(journal) is not None:
            self.remarks.append(
                f"{journal}: its run goes on in {self.journals.overflow}; what is there is verified when it is home: "
                "make room, then reconcile"
            )
            if not (self.journals.root / journal).exists():
                return
            reach = 0
        try:
            for account in accounts(self.journals.root, journal, reach, lambda: self.index.reach(journal)):
                of_run = rest.pop(account.uid, None)
                if wanted is not None and of_run is None and account.is_alone and len(rest) == 1:
                    account.uid, of_run = rest.popitem()  # it does not say any more whose it is
                if wanted is None or of_run is not None:
                    yield from self._run(account, of_run)
        except OSError as error:
            if wanted is None and isinstance(error, FileNotFoundError):
                return  # somebody took the run away meanwhile, or swept what a dead process had left
            for uid in rest or [""]:
                self._cannot_read(error, journal, uid)
            return
        except InvalidDocument as error:  # a link that leads out of the store
            self.findings.extend(Finding("foreign", uid, journal, str(error)) for uid in rest or [""])
            return
        for uid in rest:
            self.findings.append(Finding("missing", uid, journal, "the run is not in this journal any more"))

    def _cannot_read(self, error: OSError, journal: str, run_uid: str) -> None:
        reason = error.strerror or "the index knows this journal, and it is gone; restore it from a copy"
        self.findings.append(Finding(kind_of(error), run_uid, journal, reason))

    def _run(self, account: Account, wanted: Sequence[Wanted] | None) -> Iterator[_Run | _Piece]:
        is_whole = wanted is None or any(one.asset is None for one in wanted)
        if (
            is_whole
            and not account.findings
            and self.stamps.is_verified(account.uid, account.part, self.since)
        ):
            self.skipped += 1
            return
        run = _Run(account, is_whole, findings=account.findings)
        self._compare_journal(run)
        only: dict[str, set[str | None]] = {}
        for one in wanted or ():
            only.setdefault(one.asset or "", set()).add(one.datum)
        deleted = {one.uid for one in self.index.tombstones(account.uid)} if account.uid else set[str]()
        for asset in account.assets.values():
            if asset.uid in deleted:
                run.unopened += 1  # so that what is restored does not pass for what was read
                continue
            datums = {None} if is_whole else only.get(asset.uid, set())
            run.assets += bool(datums)
            for datum in {None} if None in datums else datums:
                check = AssetCheck(account, asset, self.elsewhere, self._large, datum)
                yield from (_Piece(run, check, numbers) for numbers in check.pieces())
        yield run

    def _compare_journal(self, run: _Run) -> None:
        """Compare a journal with what it was when it was last found well: it may have grown since, not changed."""
        account, now, stamp = run.account, run.account.part, self.stamps.of(run.account.uid)
        before = JournalPart.of(stamp)
        is_rewritten = any("made_from" in _kwargs(asset.doc) for asset in account.assets.values())
        if not account.findings and before.path == now.path and not is_rewritten:
            if before.nbytes == now.nbytes and before.digest != now.digest:
                account.find("corrupted", f"its {now.nbytes} bytes are not those that were verified before")
            elif before.nbytes > now.nbytes and stamp.get("ended") is True:
                account.find("torn", f"{before.nbytes} bytes were verified before, it has {now.nbytes}")
        if account.findings:
            run.reference = before  # so that it is found again, until it is as it was

    # -- what came of it -------------------------------------------------------------------------------------

    def note(self, job: _Run | _Piece, checked: Checked) -> None:
        """Note what came of a piece, or that all of a run was read."""
        run = job if isinstance(job, _Run) else job.run
        run.events += checked.events
        run.nbytes += checked.nbytes
        run.without_digest += checked.without_digest
        run.findings += checked.findings
        self.events += checked.events
        self.nbytes += checked.nbytes
        self.without_digest += checked.without_digest
        if checked.unopened:
            run.unopened += 1
            self.unopened.append(checked.unopened)
        if isinstance(job, _Run):
            self._end_run(job)
        found = len(self.findings) + (0 if isinstance(job, _Run) else len(run.findings))
        self.tell(
            Progress(
                run.account.uid,
                self.runs,
                self.events,
                self.nbytes,
                found,
                max(self.total_nbytes, self.nbytes),
            )
        )

    def _end_run(self, run: _Run) -> None:
        self.runs += 1
        self.assets += run.assets
        self.findings += run.findings
        if run.is_whole or run.findings:  # damage in a part of it is that of the run
            read = {"events": run.events, "bytes": run.nbytes, "without_digest": run.without_digest}
            self.stamps.put(
                run.account.uid,
                run.reference or run.account.part,
                {**read, "unopened": run.unopened, "ended": run.account.has_stop},
                run.findings,
                whole=self.is_everything,
            )

    def report(self) -> Verification:
        """Return what came of the pass."""
        remarks = [*self.remarks, *([self.stamps.remark] if self.stamps.remark else [])]
        return Verification(
            findings=tuple(self.findings),
            runs=self.runs,
            assets=self.assets,
            events=self.events,
            nbytes=self.nbytes,
            without_digest=self.without_digest,
            skipped=self.skipped,
            unopened=tuple(self.unopened),
            remarks=tuple(remarks),
            elapsed_s=time.monotonic() - self._begin_s,
        )


def _nbytes_of(index: Index, wanted: Wanted) -> int:
    """Return about how many bytes of pixels there are to read."""
    if wanted.datum is not None:
        return 0
    uids = (
        [wanted.asset]
        if wanted.asset
        else [extent.asset_uid for extent in index.extents_of_run(wanted.run.uid)]
    )
    return sum(_nbytes(index.record(uid)) for uid in dict.fromkeys(uids))


def _nbytes(asset: Record) -> int:
    return prod(asset.shape or ()) * itemsize(asset.dtype) if asset.shape else 0


def _kwargs(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    return doc.get("resource_kwargs") or doc.get("parameters") or {}


def _strays(account: Account) -> list[Finding]:
    """Return what lies in the folder of a run that has ended, and nobody announced."""
    folder = account.folder
    own = set(OWN)
    for asset in account.assets.values():
        with suppress(KeyError, TypeError, AttributeError):  # found already
            own |= names_of_run(folder, [JournalLine(asset.name, asset.doc)])
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        return [
            Finding(kind_of(error), account.uid, account.journal, f"its folder cannot be listed: {error}")
        ]
    strays = [name for name in names if name not in own and not name.startswith(".")]
    if not strays or is_live(folder):
        return []
    place = folder_of(account.journal)
    return [Finding("foreign", account.uid, f"{place}/{name}", "no document announces it") for name in strays]
