"""Where a store's journals lie: in its root, or begun there and continued in a second place, its overflow.

A run that the root could not take any further goes on in the overflow, in a folder of the same relative path. Its
journal there says with its first line what it continues, and up to which byte that counts; then it repeats what makes
it readable by itself. Everybody who reads journals asks here, and is given one run: the lines of both parts, with
offsets as if they stood in one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from gently_bluesky.documents.journal import encode_line, envelope_of, scan_journal, sealed, unsealed
from gently_bluesky.documents.live import is_live
from gently_bluesky.errors import JournalDamaged
from gently_bluesky.files import open_plain
from gently_bluesky.model import JournalLine

__all__ = ["Continuation", "Journals", "continuing_lines"]

CONTINUES = "continues"


class Continuation(NamedTuple):
    """How the two parts of a journal are joined.

    Attributes
    ----------
    begin
        Bytes of the part in the root that count; what stands behind them was never announced. 0 for a run that is
        in the overflow as a whole.
    header
        Bytes of the part in the overflow that repeat lines of the first one.
    damage
        Why that cannot be told, as an error says it; empty where it can. Such a journal is there, and is not read.
    """

    begin: int
    header: int
    damage: str = ""

    @property
    def shift(self) -> int:
        """What is added to an offset in the second part."""
        return self.begin - self.header


def continuing_lines(journal: str, end: int, repeated: Sequence[JournalLine]) -> list[bytes]:
    """Return the lines with which a journal in the overflow begins that continues another one.

    Parameters
    ----------
    journal
        The other one, relative to the store's root.
    end
        Bytes of it that are announced.
    repeated
        Lines of it that make the second part readable by itself, the start first.
    """
    continues = {"journal": journal, "bytes": end, "repeats": len(repeated)}
    return [sealed({**envelope_of(repeated[0]), CONTINUES: continues}), *map(encode_line, repeated[1:])]


class Journals:
    """The journals of a store, by their paths relative to its root. Any thread; reads only.

    Parameters
    ----------
    root
        Of the store.
    overflow
        Its second place, if it has one.
    """

    def __init__(self, root: Path, overflow: Path | None = None) -> None:
        self.root = root
        self.overflow = overflow
        self._known: dict[str, tuple[int, Continuation]] = {}

    def continuation(self, journal: str) -> Continuation | None:
        """Return how a journal goes on in the overflow; None where nothing was announced there."""
        if self.overflow is None:
            return None
        path = self.overflow / journal
        try:
            inode = os.stat(path).st_ino  # noqa: PTH116 # many times a second
        except OSError:
            self._known.pop(journal, None)
            return None
        known = self._known.get(journal)
        if known is None or known[0] != inode:
            found = _continuation(path)
            if found is None or found.damage:
                return found
            known = self._known[journal] = inode, found
        return known[1]

    def tail(self, journal: str) -> Path:
        """Return the file in which a journal's last lines are."""
        at_hand = self.root if self.continuation(journal) is None else self.overflow
        return (at_hand or self.root) / journal

    def size(self, journal: str) -> tuple[int, int]:
        """Return what tells a journal's file from another one in its place, and the journal's length.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        joined = self.continuation(journal)
        status = os.stat(self.tail(journal))  # noqa: PTH116 # many times a second
        return status.st_ino, status.st_size + (0 if joined is None else joined.shift)

    def scan(self, journal: str, start: int = 0, *, alone: bool = False) -> Iterator[tuple[JournalLine, int]]:
        """Yield each whole line from byte ``start`` on, with the offset behind it, of both parts.

        With ``alone`` of the last part only, and all of it, which is a readable run by itself.

        Raises
        ------
        JournalDamaged
            A line in the middle cannot be read, the first part is shorter than it was, or the second one does not
            say what it continues.
        FileNotFoundError
            There is no such journal.
        """
        joined = self.continuation(journal)
        if joined is None or self.overflow is None:
            yield from scan_journal(self.root / journal, start)
            return
        if joined.damage:
            raise JournalDamaged(joined.damage)
        if start < joined.begin and not alone:
            yield from self._first_part(journal, start, joined.begin)
        begin = 0 if alone else max(start - joined.shift, joined.header)
        try:
            for line, end in scan_journal(self.overflow / journal, begin):
                yield line, end + joined.shift
        except FileNotFoundError:  # it was brought home just now
            yield from scan_journal(self.root / journal, max(start, joined.begin))

    def _first_part(self, journal: str, start: int, stop: int) -> Iterator[tuple[JournalLine, int]]:
        end = start
        for line, end in scan_journal(self.root / journal, start):
            if end > stop:
                break
            yield line, end
            if end == stop:
                return
        raise JournalDamaged(
            f"{self.root / journal}: expected a line to end at byte {stop}, from where on the run goes on in "
            f"{self.overflow}, the last one before it ends at {end}: the file was changed after it was written; it is "
            "left as it is; restore it from a copy"
        )

    def is_live(self, journal: str) -> bool:
        """Say whether a living process writes the run of a journal. Changes nothing, and hinders no writer."""
        return any(
            is_live((root / journal).parent) for root in (self.root, self.overflow) if root is not None
        )

    def ends_line(self, journal: str, position: int) -> bool:
        """Say whether a line of the journal ends at an offset, or the journal begins there."""
        if position == 0:
            return True
        joined = self.continuation(journal)
        if joined is None or position <= joined.begin:
            path, at = self.root / journal, position
        else:
            path, at = self.tail(journal), position - joined.shift
        with open_plain(path) as file:
            file.seek(at - 1)
            return file.read(1) == b"\n"


def _continuation(path: Path) -> Continuation | None:
    """Read how a journal in the overflow begins; None where its first line, or what it repeats, is not whole."""
    try:
        with BufferedReader(open_plain(path)) as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                return None
            said: Any = unsealed(first).get(CONTINUES)
            if said is None:
                return Continuation(0, 0)
            begin, header = _number(said, "bytes"), len(first)
            for _ in range(_number(said, "repeats") - 1):
                line = file.readline()
                if not line.endswith(b"\n"):
                    return None
                header += len(line)
            return Continuation(begin, header)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if _is_torn(path):
            return None
        return Continuation(
            0,
            0,
            f"{path}: its first line does not say what it continues ({error!r}); it is not changed; restore it from a "
            "copy",
        )


def _number(said: Any, key: str) -> int:
    number = said[key]
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"expected {key} to be a number from 1 on, got {number!r:.80}")
    return number


def _is_torn(path: Path) -> bool:
    """Say whether all of a journal was appended at once, and not all of it has reached the disk."""
    try:
        return next(scan_journal(path), None) is None
    except JournalDamaged:
        return False
