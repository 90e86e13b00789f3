"""A run as its journal tells it, and what is wrong with the journal itself: damaged lines hide no others.

It reads journals and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from crc32c import crc32c

from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.documents.live import is_live
from gently_bluesky.documents.resources import announced_asset
from gently_bluesky.errors import JournalDamaged
from gently_bluesky.files import inside, open_plain
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.announced import Announced, AnnouncedAssets
from gently_bluesky.upkeep.stamps import JournalPart
from gently_bluesky.upkeep.sweeping import DOCUMENTS
from gently_bluesky.upkeep.verification import Finding

__all__ = ["Account", "accounts", "recorded_digests"]

NO_DOCUMENT = (KeyError, TypeError, ValueError, AttributeError)
"""What is raised over a document that lacks what a writer of ours gives it."""


@dataclass(slots=True)
class Account:
    """One run, as far as its journal goes by now.

    Attributes
    ----------
    journal
        Its path below the store's root.
    uid
        Of the run; empty where the journal does not say.
    has_stop
        The run has ended.
    nbytes, checksum
        Of the run's lines.
    findings
        What is wrong with the journal.
    """

    root: Path
    journal: str
    uid: str = ""
    has_stop: bool = False
    nbytes: int = 0
    checksum: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    _assets: AnnouncedAssets = field(default_factory=AnnouncedAssets)

    @property
    def folder(self) -> Path:
        """Where the run's own assets lie."""
        return (self.root / self.journal).parent

    @property
    def is_alone(self) -> bool:
        """The journal, and the folder, are this run's own."""
        return self.journal.endswith(f"/{DOCUMENTS}")

    @property
    def part(self) -> JournalPart:
        """What of the journal is this run's."""
        return JournalPart(self.journal, self.nbytes, f"crc32c:{self.checksum:08x}")

    @property
    def assets(self) -> dict[str, Announced]:
        """What the run announces, by uid."""
        return self._assets.by_uid

    def find(self, kind: str, reason: str) -> None:
        """Note what is wrong with the journal."""
        self.findings.append(Finding(kind, self.uid, self.journal, reason))

    def take(self, line: JournalLine | JournalDamaged, raw: bytes, number: int) -> None:
        """Take one of its lines, or that one of them is damaged."""
        self.nbytes += len(raw)
        self.checksum = crc32c(raw, self.checksum)
        if isinstance(line, JournalDamaged):
            self.find("corrupted", str(line).removeprefix(f"{self.root / self.journal}: "))
            return
        try:
            if not self.uid:
                self.uid = line.doc["uid"] if line.name == "start" else line.doc.get("run_start", "")
            self._assets.take(line)
        except NO_DOCUMENT as error:
            self.find(
                "corrupted",
                f"line {number} is no whole {line.name} document: {error!r:.200}; restore it from a copy",
            )
        self.has_stop = self.has_stop or line.name == "stop"


def accounts(
    root: Path, journal: str, reach: int = 0, reaches_now: Callable[[], int] = lambda: 0
) -> Iterator[Account]:
    """Yield the runs of a journal, each when all of its lines are read.

    A torn tail was not announced and is left out, unless the run had ended before it, or the index knows more.

    Parameters
    ----------
    reach
        Up to which byte the index knows the journal, asked before this is called.
    reaches_now
        Returns it as it is when the journal has been read: it may have been replaced by a shorter one meanwhile.

    Raises
    ------
    FileNotFoundError
        It is not there.
    OSError
        It cannot be read.
    InvalidDocument
        A link leads to it out of the store; nothing was read.
    """
    path = inside(root, journal)
    account = Account(root, journal)
    end = 0
    with BufferedReader(open_plain(path)) as file:
        for number, (line, behind) in enumerate(_lines(path), 1):
            if (
                account.nbytes
                and not account.is_alone
                and isinstance(line, JournalLine)
                and line.name == "start"
            ):
                yield account
                account = Account(root, journal)
            account.take(line, file.read(behind - end), number)
            end = behind
        size = os.fstat(file.fileno()).st_size
    if end < reach and end < reaches_now():
        account.find(
            "torn",
            f"whole lines up to byte {end}, the index knows {reach}: its end is gone; restore it from a copy",
        )
    elif end < size and account.has_stop and account.is_alone:
        account.find("torn", f"{size - end} bytes behind the end of its run are no whole line")
    if account.is_alone and not account.nbytes and not is_live(path.parent):
        account.find("torn", "it holds no start document: the process died at once, or the file was damaged")
    if account.nbytes or account.findings:
        yield account


def recorded_digests(journal: Path, asset: str) -> tuple[dict[int, str], list[str]]:
    """Return what a device put on record of the pixels of an asset beside its journal, by place; and what is damaged.

    Parameters
    ----------
    asset
        Name of its file or folder.

    Raises
    ------
    OSError
        The journal is not there, or cannot be read.
    """
    uids: set[str] = set()
    digests: dict[int, str] = {}
    damaged: list[str] = []
    for number, (line, _) in enumerate(_lines(journal), 1):
        if isinstance(line, JournalDamaged):
            damaged.append(str(line).removeprefix(f"{journal}: "))
            continue
        try:
            announced = announced_asset(line.name, line.doc)
            if announced is not None and announced.path.rpartition("/")[2] == asset:
                uids.add(announced.uid)
            elif line.name == "datum" and line.doc["resource"] in uids:
                digests[line.doc["datum_kwargs"]["point_number"]] = next(iter((line.digest or {}).values()))
            elif line.name == "stream_datum" and line.doc["stream_resource"] in uids:
                digests[line.doc["indices"]["start"]] = next(iter((line.digest or {}).values()))
        except (*NO_DOCUMENT, StopIteration) as error:
            damaged.append(f"line {number} is no whole {line.name} document: {error!r:.200}")
    return digests, damaged


def _lines(path: Path) -> Iterator[tuple[JournalLine | JournalDamaged, int]]:
    """Yield a journal's whole lines, or why one of them cannot be read, each with the offset behind it."""
    end = 0
    while True:
        try:
            for line, end in scan_journal(path, end):  # noqa: B020 # how far it came, when it raises
                yield line, end
            return
        except JournalDamaged as error:
            with BufferedReader(open_plain(path)) as file:
                file.seek(end)
                file.readline()
                end = file.tell()
            yield error, end
