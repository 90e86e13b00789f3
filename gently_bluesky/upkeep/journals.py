"""Which journals a store has, and what is whole in each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.journal import scan_journal
from gently_bluesky.errors import InputError, JournalDamaged
from gently_bluesky.model import JournalLine
from gently_bluesky.upkeep.sweeping import DOCUMENTS

__all__ = [
    "UNREADABLE",
    "Found",
    "find",
    "find_all_journals",
    "find_journals",
    "has_stop",
    "is_shared",
    "whole_lines",
]

UNREADABLE = (JournalDamaged, InputError, ValueError, KeyError, TypeError, AttributeError)
"""What is raised over a journal that does not hold what a writer of ours writes."""


class Found(NamedTuple):
    """A journal, or a folder without one.

    Attributes
    ----------
    path
        Relative to the store's root; of a folder without a journal with a slash at the end.
    size
        Of the journal in bytes; 0 of a folder without one, -1 of what is no plain file, or cannot be looked at.
    error
        Why a folder cannot be looked into: nobody knows what is in it.
    """

    path: str
    size: int
    error: OSError | None = None


def find_journals(root: Path) -> Iterator[str]:
    """Yield the paths of all journals, relative to the root, oldest day first."""
    return (found.path for found in find(root) if not found.path.endswith("/"))


def find_all_journals(journals: Journals) -> list[str]:
    """Return the paths of all journals, also of those that are in the overflow, or are continued there."""
    found = dict.fromkeys(find_journals(journals.root))
    if journals.overflow is not None:
        there = find_journals(journals.overflow)
        found |= dict.fromkeys(name for name in there if journals.continuation(name) is not None)
    return list(found)


def find(root: Path) -> Iterator[Found]:
    """Yield all journals, and the folders among the runs that have none, oldest day first.

    One call to the system for each run: a store may have many.
    """
    for day in sorted(root.glob("runs/*/*/*")):
        relative = day.relative_to(root).as_posix()
        try:
            with os.scandir(day) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a file that a file manager left there is nobody's run
        except OSError as error:
            yield Found(f"{relative}/", 0, error)
            continue
        for entry in entries:
            is_one = is_shared(entry.name)
            name = entry.name if is_one else f"{entry.name}/{DOCUMENTS}"
            try:
                status = os.stat(f"{day}/{name}")  # noqa: PTH116 # ten times faster than Path here
            except (FileNotFoundError, NotADirectoryError):
                if not is_one and entry.is_dir():
                    yield Found(f"{relative}/{entry.name}/", 0)
                continue
            except OSError:  # said where it is opened
                yield Found(f"{relative}/{name}", -1)
                continue
            size = status.st_size if stat.S_ISREG(status.st_mode) else -1  # nothing that was ever indexed
            yield Found(f"{relative}/{name}", size)


def is_shared(name: str) -> bool:
    """Say whether a file of this name is a journal of derived results, which holds many runs."""
    return name.startswith("derived-") and name.endswith(".jsonl")


def has_stop(lines: Sequence[JournalLine]) -> bool:
    """Say whether a run's end is on record."""
    return any(line.name == "stop" for line in lines)


def whole_lines(
    path: Path, start: int = 0, scan: Iterable[tuple[JournalLine, int]] | None = None
) -> tuple[list[JournalLine], int]:
    """Return a journal's whole lines from a byte on, of a shared one those of its whole runs, and where they end.

    ``scan`` yields them where they are not, or not all, in the file at ``path``.

    Raises
    ------
    JournalDamaged
        It cannot be read, or a line in the middle cannot.
    FileNotFoundError
        It is gone.
    """
    lines: list[JournalLine] = []
    end = start
    whole = 0
    try:
        for line, position in scan_journal(path, start) if scan is None else scan:
            lines.append(line)
            if line.name == "stop" or not is_shared(path.name):
                whole, end = len(lines), position
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, JournalDamaged):
            raise
        raise JournalDamaged(f"{path} cannot be read: {error}; it is not changed") from error
    return lines[:whole], end
