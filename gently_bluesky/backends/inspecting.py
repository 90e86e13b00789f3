"""What a look at the files of an asset finds wrong, without reading its pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from errno import EPERM
from pathlib import Path
from typing import Literal

from gently_bluesky.errors import PathNotAllowed

__all__ = ["NO_EVENTS", "Fault", "FaultKind", "are_too_few", "fault_of", "inspect_event_files"]

FaultKind = Literal["missing", "torn", "unreadable", "foreign"]
NO_EVENTS = range(0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One file or folder of an asset that is not as it should be.

    Attributes
    ----------
    kind
        ``"missing"``: it is not there. ``"torn"``: it ends too early, or what is written last is not in it.
        ``"unreadable"``: it does not hold what was announced, or the system cannot read it. ``"foreign"``: it
        belongs to no announced event: stored and never announced, or not a writer's of ours.
    path
        Where it is, or ought to be.
    why
        In words.
    events
        Whose pixels cannot be read for it; none of them for what is foreign, or made of other pixels.
    errno
        What the system said where it could not look: the file itself may be whole.
    """

    kind: FaultKind
    path: Path
    why: str
    events: range = NO_EVENTS
    errno: int | None = None


def fault_of(path: Path, error: Exception, events: range = NO_EVENTS) -> Fault:
    """Return the fault that an error over a file means: EOFError that it is torn."""
    if isinstance(error, FileNotFoundError):
        return Fault("missing", path, "it is gone", events)
    if isinstance(error, EOFError):
        return Fault("torn", path, str(error), events)
    if isinstance(error, PathNotAllowed):
        return Fault("unreadable", path, str(error), events, EPERM)  # what the link leads to may be whole
    return Fault("unreadable", path, str(error), events, getattr(error, "errno", None))


def are_too_few(there: int, expected: int) -> bool:
    """Say whether what is expected is invented rather than lost: there is no end to looking for it one by one."""
    return expected > 2 * there + 1000


def inspect_event_files(
    folder: Path,
    count: int,
    name_of: Callable[[int], str],
    look: Callable[[Path], object],
    is_leftover: Callable[[str], bool],
) -> Iterator[Fault]:
    """Yield the faults of a folder with a file for each event.

    Parameters
    ----------
    folder, count
        Where, and how many events there are to be.
    name_of
        Returns the name of an event's file.
    look
        Raises where a file is not whole: see `fault_of`.
    is_leftover
        Says of a name whether it is what a dead writer leaves half written: swept, and no fault.
    """
    try:
        names = set(os.listdir(folder))  # noqa: PTH208 # a good deal faster
    except OSError as error:
        yield fault_of(folder, error, range(count))
        return
    if are_too_few(len(names), count):
        yield Fault("missing", folder, f"of {count} events it holds {len(names)} files", range(count))
        return
    for event in range(count):
        name = name_of(event)
        if name not in names:
            yield Fault("missing", folder / name, "it is gone", range(event, event + 1))
            continue
        names.discard(name)
        try:
            look(folder / name)
        except Exception as error:  # noqa: BLE001 # at damaged headers libraries raise errors of many kinds
            yield fault_of(folder / name, error, range(event, event + 1))
    yield from _foreign(folder, [name for name in names if not is_leftover(name)])


def _foreign(folder: Path, names: Collection[str]) -> Iterator[Fault]:
    for name in sorted(names):
        yield Fault("foreign", folder / name, "it belongs to no announced event")
