"""The library that stands between a process and the disk (`shim.c`): built here, driven here, its log read here.

Only what is changed below one folder counts, and only what goes through the C library. What goes through a memory
map is not seen; that is the counters of a ``.live`` file, which are a help after a kill and nothing that is
announced rests on, and SQLite's ``-shm``, which the first to open an index makes anew.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

FOREVER = 1 << 40
HEADER = struct.Struct("<iIIIQq")


class Kind(IntFlag):
    """What a call does."""

    WRITE = 1
    SYNC = 2
    RENAME = 4
    LINK = 8
    CREATE = 16
    OPEN = 32
    """Opening what is there already."""
    MKDIR = 64
    REMOVE = 128
    TRUNCATE = 256
    MARK = 512
    """No call: something that is worth to be known of the moment."""


CHANGES = ~(Kind.OPEN | Kind.MARK)
"""All that leaves a trace on the disk."""


class Act(IntEnum):
    """What happens at the calls that are meant."""

    COUNT = 0
    DIE = 1
    """SIGKILL, just before it."""
    TEAR = 2
    """SIGKILL, in the middle of it where it writes."""
    FAIL = 3
    SHORTEN = 4
    """Write only half of what is there to write, and say so."""


class Call(NamedTuple):
    """One call, as it was noted."""

    kind: Kind
    inode: int
    """Of the file or folder that is there afterwards."""
    offset: int
    """Where a write went; how long a file is now."""
    path: str
    other: str
    """The new name."""
    data: bytes


def build_shim(folder: Path) -> Path:
    """Compile the library into a folder."""
    library = folder / "shim.so"
    source = Path(__file__).with_suffix(".c")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl", "-pthread"], check=True)
    return library


def arm(
    root: str | Path,
    at: int = 0,
    act: Act = Act.COUNT,
    kinds: Kind = CHANGES,
    *,
    until: int | None = None,
    error: int = 0,
) -> None:
    """From now on do this at the ``at``-th call of these kinds below ``root``, and at those up to ``until``."""
    last = at if until is None else until
    arguments = [ctypes.c_int(kinds & 0xFFFF), ctypes.c_long(at), ctypes.c_long(last), ctypes.c_int(act)]
    ctypes.CDLL(None).shim_arm(os.fsencode(root), *arguments, ctypes.c_int(error))


def watch(root: str | Path, die_at_call: int = 0, *, torn: bool = False, log: str = "") -> None:
    """Die just before this call that changes a file below ``root``, or, ``torn``, in the middle; note each in a log.

    With neither nothing is counted, and no call waits for another.
    """
    if log:
        library = ctypes.CDLL(None)
        library.shim_log(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
    if log or die_at_call:
        arm(root, die_at_call, Act.TEAR if torn else Act.DIE)


def disarm() -> None:
    """Let everything happen as it would, and count no more."""
    arm("")


def counted(kinds: Kind = CHANGES) -> int:
    """Return how many calls of these kinds there have been since something was armed."""
    library = ctypes.CDLL(None)
    library.shim_counted.restype = ctypes.c_long
    return int(library.shim_counted(ctypes.c_int(kinds & 0xFFFF)))


def met() -> int:
    """Return how many calls were refused, or wrote less than they should, since something was armed."""
    library = ctypes.CDLL(None)
    library.shim_met.restype = ctypes.c_long
    return int(library.shim_met())


def mark(text: str) -> None:
    """Note something between the calls before and those after it."""
    ctypes.CDLL(None).shim_mark(text.encode())


def read_log(log: Path) -> Iterator[Call]:
    """Yield the calls in the order in which they happened."""
    noted = log.read_bytes()
    position = 0
    while position < len(noted):
        kind, *sizes, inode, offset = HEADER.unpack_from(noted, position)
        position += HEADER.size
        texts: list[bytes] = []
        for size in sizes:
            texts.append(noted[position : position + size])
            position += size
        path, other, data = texts
        yield Call(Kind(kind), inode, offset, os.fsdecode(path), os.fsdecode(other), data)


def one_of_each_stretch(calls: int, stretches: int, seed: str) -> list[int]:
    """Choose a call of each of so many stretches of a run, by dice."""
    assert calls >= stretches, (
        f"{calls} calls were seen, fewer than the {stretches} stretches they are to make"
    )
    dice = random.Random(seed)
    ends = [1 + calls * stretch // stretches for stretch in range(stretches + 1)]
    return [dice.randrange(begin, max(end, begin + 1)) for begin, end in pairwise(ends)]
