"""One asset read back, event by event, and compared with what was announced of it.

Any thread: several pieces of an asset are read at once, and the first of them opens it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.inspecting import Fault
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.adopting import RECORD
from gently_bluesky.documents.live import is_live
from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import announced_path
from gently_bluesky.dtypes import known_dtype
from gently_bluesky.errors import LookupFailed, MissingExtra, PathNotAllowed
from gently_bluesky.files import inside
from gently_bluesky.index.fields import itemsize
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.accounts import Account, recorded_digests
from gently_bluesky.upkeep.announced import Announced
from gently_bluesky.upkeep.pixels import BLOCK_BYTES, block_nbytes, digest_of_event, kind_of, read_events
from gently_bluesky.upkeep.quarantine import records_of
from gently_bluesky.upkeep.sweeping import asset_in
from gently_bluesky.upkeep.verification import Finding

__all__ = ["AssetCheck", "Checked", "Opened", "OpensElsewhere"]

EVENTS_AT_ONCE: Final = 32
"""Most events that one thread checks at a time."""
TO_THE_END: Final = 2**62
LARGE_BYTES: Final = 128 * 2**20
"""Of what is read at once, from which on only one thread does so."""


class Opened(NamedTuple):
    """Events of an asset as they are found.

    Attributes
    ----------
    source
        ``(t, ...)``: of an asset of ours as it lies there, else the announced events in their order.
    backend
        Of an asset of ours; None for those of other writers.
    kwargs
        What it was opened with.
    datums
        Uids of the events, where the asset is not ours.
    """

    path: Path
    source: ArraySource
    backend: Backend | None = None
    kwargs: Mapping[str, Any] = {}
    datums: Sequence[str] = ()


OpensElsewhere = Callable[[str, "str | None"], Sequence[Opened]]
"""Opens an asset that does not lie in its run's folder, or one datum of it, by their uids."""


class Checked(NamedTuple):
    """What came of some events of an asset."""

    events: int = 0
    nbytes: int = 0
    without_digest: int = 0
    findings: Sequence[Finding] = ()
    unopened: str = ""


@dataclass(slots=True)
class AssetCheck:
    """An asset to be checked, all of it, or one event.

    Parameters
    ----------
    large
        Held while something is read that storage keeps in very large pieces: one at a time.
    only
        Uid of the datum that is wanted; None for all.
    """

    account: Account
    asset: Announced
    elsewhere: OpensElsewhere
    large: threading.Lock
    only: str | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _opened: Sequence[Opened] | None = None
    _findings: list[Finding] = field(default_factory=list[Finding])
    _unopened: str = ""
    _digests: Mapping[int, str | None] = field(default_factory=dict[int, "str | None"])
    _places: Sequence[int] = ()
    _wanted: frozenset[int] = frozenset()
    _faulty: dict[int, Fault] = field(default_factory=dict[int, Fault])
    """Events whose files do not look well: reading tells what it is."""
    _quarantined: Mapping[str, str] | None = None
    _lost: set[int] = field(default_factory=set[int])
    """Events that need not be read: why they cannot be is found already."""

    def __post_init__(self) -> None:
        announced = self.asset.digests
        self._places = [place for place in announced if self.only in (None, self.asset.datum_uid(place))]
        self._wanted = frozenset(self._places)

    def pieces(self) -> Iterator[range]:
        """Yield the numbers of the announced events, from 0 on, that are checked together."""
        total = 1 if self.only else len(self._places) + self.asset.numberless
        at_once = max(1, min(EVENTS_AT_ONCE, BLOCK_BYTES // max(1, self._declared_nbytes())))
        for start in range(0, total, at_once):
            # events may name a datum of others again: then there are more than datums
            yield range(start, start + at_once if start + at_once < total else TO_THE_END)

    def check(self, numbers: range) -> Checked:
        """Read these events. Raises nothing that is wrong with them."""
        with self._turn:
            if self._opened is None:
                self._opened = self._open()
            findings, self._findings = self._findings, []
            unopened, self._unopened = self._unopened, ""
        parts: list[Checked] = []
        for opened in self._opened:
            check = self._check_others if opened.backend is None else self._check_ours
            with self.large if block_nbytes(opened.source) > LARGE_BYTES else nullcontext():
                parts.append(check(opened, numbers))
            there = len(opened.datums)
            numbers = range(max(0, numbers.start - there), max(0, numbers.stop - there))
        return Checked(
            events=sum(part.events for part in parts),
            nbytes=sum(part.nbytes for part in parts),
            without_digest=sum(part.without_digest for part in parts),
            findings=[*findings, *(finding for part in parts for finding in part.findings)],
            unopened=unopened,
        )

    # -- opening ---------------------------------------------------------------------------------------------

    def _open(self) -> Sequence[Opened]:
        """Open the asset; note what keeps it from being opened, and what else is wrong with it."""
        path: Path | None = None
        try:
            line = JournalLine(self.asset.name, self.asset.doc)
            announced = asset_in(self.account.folder, line) if self.account.is_alone else None
            backend = None if announced is None else backend_for_spec(announced.spec)
            if announced is None or backend is None:
                path = self.account.root / announced_path(self.asset.doc)
                opened = self.elsewhere(self.asset.uid, self.only)
            else:
                path, self._digests = inside(self.account.root, announced.path), self.asset.digests
                source = backend.open(path, announced.kwargs, self.asset.count)
                opened = [Opened(path, source, backend, announced.kwargs)]
        except (LookupFailed, MissingExtra, PathNotAllowed) as error:
            self._unopened = f"run {self.account.uid[:8]}, asset {self.asset.uid}: {error}"
            return []
        except Exception as error:  # noqa: BLE001 # anything may be wrong with an asset: that is what is asked
            self._find(kind_of(error), _said(error), path)
            return []
        for one in opened:
            self._compare_declared(one)
            if one.backend is not None and INCOMING in one.path.parts:
                self._read_recorded(one.path)
            if one.backend is not None and not is_live(one.path.parent):
                for fault in one.backend.inspect(one.path, one.kwargs, self.asset.count):
                    self._take_fault(fault)
        return opened

    def _compare_declared(self, opened: Opened) -> None:
        """Compare what was opened with what the descriptor says of its data key."""
        shape, dtype = opened.source.shape[1:], opened.source.dtype
        said: Any = self.asset.declared.get("shape")
        is_told = isinstance(said, list) and bool(said) and all(isinstance(n, int) and n > 0 for n in said)
        known = _dtype(self.asset.declared.get("dtype_numpy"))
        # others name axes of length 1, or order them, as they like; how many pixels there are is no matter of taste
        if (is_told and prod(said) != prod(shape)) or (
            known is not None and known != dtype.newbyteorder("=")
        ):
            self._find(
                "foreign",
                f"expected events of shape {said} and dtype {known}, as the descriptor says, found {shape} of {dtype}",
                opened.path,
            )

    def _read_recorded(self, path: Path) -> None:
        """Read what the device that wrote an asset by itself put on record of its pixels."""
        journal = path.parent / RECORD
        try:
            try:
                digests, damaged = recorded_digests(journal, path.name)
            except FileNotFoundError:  # its run may have adopted it just now
                journal = self.elsewhere(self.asset.uid, self.only)[0].path.parent / RECORD
                digests, damaged = recorded_digests(journal, path.name)
        except OSError as error:
            self._find(kind_of(error), f"the digests of its pixels cannot be read: {_said(error)}", journal)
            return
        for reason in damaged:
            self._find("corrupted", reason, journal)
        self._digests = digests

    def _take_fault(self, fault: Fault) -> None:
        """Take what a look at the files found; where it does not say what is wrong with an event, reading does."""
        concerned = self._wanted.intersection(fault.events)
        if not concerned and (fault.events or self.only is not None):
            return
        if concerned and (fault.kind == "torn" or (fault.kind == "unreadable" and fault.errno is None)):
            self._faulty.update(dict.fromkeys(concerned, fault))
            return
        event = next(iter(concerned)) if len(fault.events) == 1 else None
        kind = "corrupted" if fault.kind == "unreadable" and fault.errno is None else fault.kind
        self._find(kind, fault.why, fault.path, event)
        self._lost |= concerned

    # -- reading ---------------------------------------------------------------------------------------------

    def _check_ours(self, opened: Opened, numbers: range) -> Checked:
        findings: list[Finding] = []
        places = [place for place in self._places[numbers.start : numbers.stop] if place not in self._lost]
        without = 0
        for place in places:
            digest = self._digests.get(place)
            without += digest is None
            wrong = self._read(opened, place, digest)
            if wrong is not None:
                findings.append(wrong)
        return Checked(len(places), len(places) * _event_nbytes(opened.source), without, findings)

    def _read(self, opened: Opened, place: int, digest: str | None) -> Finding | None:
        """Read an event; return what is wrong with it."""
        fault = self._faulty.get(place)
        path = opened.path if fault is None else fault.path
        there = opened.source.shape[0]
        try:
            if not 0 <= place < there:
                raise FileNotFoundError(f"the asset holds {there} events")
            found = digest_of_event(opened.source, place)
        except Exception as error:  # noqa: BLE001 # as in `_open`
            kind = kind_of(error)
            if fault is not None and fault.kind == "torn" and kind != "foreign":
                return self._finding("torn", fault.why, path, place)
            return self._finding(kind, _said(error), path, place)
        if digest is not None and found != digest:
            reason = f"expected pixels of {digest}, as announced, found {found}; restore them from a copy"
            return self._finding("corrupted", reason, path, place)
        return None if fault is None else self._finding(fault.kind, fault.why, path, place)

    def _check_others(self, opened: Opened, numbers: range) -> Checked:
        findings: list[Finding] = []
        events = range(len(opened.datums))[numbers.start : numbers.stop]
        try:
            read_events(opened.source, events)
        except Exception:  # noqa: BLE001 # which of them it is, and why, is found out one by one
            for event in events:
                try:
                    read_events(opened.source, range(event, event + 1))
                except Exception as error:  # noqa: BLE001 # as in `_open`
                    datum = opened.datums[event]
                    findings.append(self._finding(kind_of(error), _said(error), opened.path, event, datum))
        return Checked(len(events), len(events) * _event_nbytes(opened.source), len(events), findings)

    def _declared_nbytes(self) -> int:
        kwargs = self.asset.doc.get("resource_kwargs") or self.asset.doc.get("parameters") or {}
        try:
            return prod(kwargs["frame_shape"]) * (itemsize(kwargs["dtype"]) or 1)
        except (KeyError, TypeError, ValueError):
            return 1

    def _find(self, kind: str, reason: str, path: Path | None, event: int | None = None) -> None:
        self._findings.append(self._finding(kind, reason, path, event))

    def _finding(
        self, kind: str, reason: str, path: Path | None, event: int | None = None, datum: str = ""
    ) -> Finding:
        asset, root = self.asset, self.account.root
        place = path if path is None or not path.is_relative_to(root) else path.relative_to(root)
        if kind == "missing" and place is not None:
            reason += self._whereabouts(place.as_posix())
        return Finding(
            kind=kind,
            run=self.account.uid,
            path="" if place is None else place.as_posix(),
            reason=reason,
            asset=asset.uid,
            data_key=asset.data_key,
            event=event,
            datum=datum or ("" if event is None else asset.datum_uid(event)),
        )

    def _whereabouts(self, path: str) -> str:
        """Return where the quarantine has a file that is missing, in words; nothing if it has not."""
        if self._quarantined is None:
            entries = records_of(self.account.root, self.asset.uid)
            self._quarantined = {entry["from"]: entry["to"] for entry in entries}
        now = self._quarantined.get(path)
        return "" if now is None else f"; it was put in quarantine when its run was recovered: {now}"


def _dtype(said: Any) -> np.dtype[Any] | None:
    known = known_dtype(said)
    return None if known is None else known.newbyteorder("=")


def _event_nbytes(source: ArraySource) -> int:
    return prod(source.shape[1:]) * source.dtype.itemsize


def _said(error: Exception) -> str:
    """Return an error's text without its number."""
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    return str(error) or repr(error)
