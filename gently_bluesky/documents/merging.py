"""All that was recorded below a folder, in the order in which it happened.

Documents of one file stay in their order. Those of several files are put together by the times in them; one
without a time goes with the one before it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from pathlib import Path
from typing import NamedTuple

from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.json_forms import NAMES
from gently_bluesky.documents.recorded import (
    BadDocument,
    Recorded,
    Refuse,
    is_journal_name,
    is_sealed,
)
from gently_bluesky.documents.vetting import Vetting
from gently_bluesky.errors import GentlyError, InvalidDocument, JournalDamaged, StorageError
from gently_bluesky.files import open_plain
from gently_bluesky.model import JournalLine
from gently_bluesky.segments import MARKER

__all__ = ["Part", "merged", "parts_below", "time_of"]

ENDINGS = (".jsonl", ".ndjson", ".json-seq", ".msgpack")
"""Of names of files that hold recordings, and of damaged ones that do not look like it any more."""
PIXELS = ("zarr.json", ".zarray", ".zgroup")
BEFORE_ALL = float("-inf")


class Part(NamedTuple):
    """One file, or one run of a journal that holds several.

    Attributes
    ----------
    time
        Of its first document.
    start
        The byte at which the run begins; None of a whole file.
    run
        The uid of the run that begins it; empty where something else does.
    """

    time: float
    path: Path
    start: int | None = None
    run: str = ""


def time_of(line: JournalLine) -> float | None:
    """Return when a document was made, by itself: None of one that does not say so."""
    time = line.doc.get("time")
    if type(time) is list and time:
        time = time[-1]  # of an event page, which comes when its last event is there
    return float(time) if isinstance(time, int | float) else None


# -- what there is ---------------------------------------------------------------------------------------------


def parts_below(folder: Path, refuse: Refuse) -> list[Part]:
    """Return what was recorded below a folder, what began first at the front.

    In a store only its journals count, beside them are pixels; elsewhere whatever begins as a recording does.

    Raises
    ------
    InvalidDocument
        A run is there twice, and nothing is to be passed over.
    StorageError
        A folder cannot be read, and nothing is to be passed over.
    """

    def unread(error: OSError) -> None:
        refuse(
            BadDocument(str(error.filename), "its files", "", f"cannot be listed ({error})"),
            StorageError,
            error,
        )

    first: dict[str, Path] = {}
    kept: list[Part] = []
    for part in sorted(_parts_below(folder, unread), key=_order):
        if part.run and (other := first.setdefault(part.run, part.path)) != part.path:
            reason = f"the run {part.run:.80} is in {other} too: move one of them away"
            refuse(BadDocument(str(part.path), "its beginning", "start", reason), InvalidDocument, None)
        else:
            kept.append(part)
    return kept


def _order(part: Part) -> tuple[float, Path, int]:
    return part.time, part.path, part.start or 0


def _parts_below(folder: Path, unread: Callable[[OSError], object]) -> Iterator[Part]:
    stores: set[str] = set()
    if any((above / MARKER).is_file() for above in folder.parents):
        stores.add(str(folder))
    for place, folders, names in os.walk(folder, onerror=unread):
        has_pixels = any(name in names for name in PIXELS)
        if "documents.jsonl" in names or has_pixels:
            folders.clear()  # below it there are only pixels
        if MARKER in names or place in stores:
            stores.update(os.path.join(place, name) for name in folders)  # noqa: PTH118 # as os.walk does
            stores.add(place)
        for name in names:
            path = Path(place, name)
            if is_journal_name(name) and (place in stores or is_sealed(path)):
                yield from _runs_of(path)
            elif place not in stores and not has_pixels:
                yield from _recording(path)


def _runs_of(path: Path) -> Iterator[Part]:
    found: list[Part] = []
    before = 0
    try:
        for line, end in scan_journal(path):
            if line.name == "start":
                found.append(Part(time_of(line) or 0.0, path, before, str(line.doc.get("uid", ""))))
            if path.name == "documents.jsonl":
                break  # it holds one run
            before = end
    except JournalDamaged:  # told when it is read
        yield found[0]._replace(start=None) if found else Part(BEFORE_ALL, path)
        return
    yield from found


def _recording(path: Path) -> Iterator[Part]:
    """Yield a file if it begins as a recording does, or is called like one and is damaged where it begins."""
    line = None
    try:
        with io.BufferedReader(open_plain(path)) as raw:
            if not raw.peek(1):
                return
            line = next(Recorded(str(path), _give_up).stream(raw), None)
    except GentlyError:
        pass
    except OSError:
        return  # no plain file, or nothing that this person may read
    if line is not None and line.name in NAMES:
        run = str(line.doc.get("uid", "")) if line.name == "start" else ""
        yield Part(time_of(line) or 0.0, path, run=run)
    elif path.name.removesuffix(".gz").endswith(ENDINGS):
        yield Part(BEFORE_ALL, path)


def _give_up(bad: BadDocument, kind: type[GentlyError], cause: BaseException | None) -> None:
    raise kind(str(bad)) from cause


# -- put together ----------------------------------------------------------------------------------------------


def merged(
    parts: Iterable[Part],
    opened: Callable[[Part], tuple[Vetting, Iterator[JournalLine]]],
    turn: Callable[[Vetting], object],
) -> Iterator[JournalLine]:
    """Yield the documents of all parts in the order of their times.

    A part is opened when it is its turn, and as few are open at a time as overlap. ``turn`` is told who looks through
    those that come next.
    """
    waiting = [(part.time, number, _Open(part, opened, turn)) for number, part in enumerate(parts)]
    heapify(waiting)
    while waiting:
        _, number, first = waiting[0]
        until = min((one[0] for one in waiting[1:3]), default=float("inf"))
        yield from first.lines(until)
        if first.has_ended:
            heappop(waiting)
        else:
            heapreplace(waiting, (first.time, number, first))


class _Open:
    """A part, and how far it was read."""

    def __init__(
        self,
        part: Part,
        opened: Callable[[Part], tuple[Vetting, Iterator[JournalLine]]],
        turn: Callable[[Vetting], object],
    ) -> None:
        self._part = part
        self.time = part.time
        self.has_ended = False
        self._opened = opened
        self._turn = turn
        self._reading: tuple[Vetting, Iterator[JournalLine]] | None = None
        self._ahead: JournalLine | None = None

    def lines(self, until: float) -> Iterator[JournalLine]:
        """Yield what comes next, as long as it is no later than this."""
        if self._reading is None:
            self._reading = self._opened(self._part)
        vetting, lines = self._reading
        self._turn(vetting)
        if self._ahead is not None:
            yield self._ahead
            self._ahead = None
        for line in lines:
            time = time_of(line)
            if time is not None and time > self.time:
                self.time = time
                if time > until:
                    self._ahead = line
                    return
            yield line
        self.has_ended = True
