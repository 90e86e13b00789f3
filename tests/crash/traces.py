"""What a process did to its files, as ``strace`` saw it from outside, C++ and all; and what power could still take.

A file is on the disk when it was synced behind its last write. Its name is when the folder that holds it was synced
behind the call that put it there, and that folder's name, and so on up to a folder that was there before.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate")
NAMES = (
    "openat",
    "creat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
)
SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range")
CALL = re.compile(r"(\d+) +(\w+)\((.*)")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
RESULT = re.compile(r"\) += (-?\d+)")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
OPEN_FILE = re.compile(r"^\d+<([^>]*?)(?:\(deleted\))?>")
UNTOLD = (".live", ".reserve")
"""What a run's death, not the loss of power, is survived by."""


@dataclass
class Call:
    """One call, where it began and when it ended."""

    name: str
    arguments: str
    begun: int
    ended: int
    result: int

    @property
    def file(self) -> str:
        """The file that is open under the first argument."""
        found = OPEN_FILE.match(self.arguments)
        return "" if found is None else found[1]

    @property
    def texts(self) -> list[str]:
        return TEXT.findall(self.arguments)


def trace(pid: int, output: Path) -> subprocess.Popen[str]:
    """Attach to a process; it is traced, with all of its threads, when this returns."""
    command = ["strace", "-f", "-y", "-s", "200", "-p", str(pid), "-o", str(output)]
    command += ["-e", f"trace={','.join((*WRITES, *NAMES, *SYNCS))}", "-e", "signal=none"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    assert "attached" in (said := tracer.stderr.readline()), said
    return tracer


def calls_in(output: Path) -> Iterator[Call]:
    """Yield the calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(output.read_text(errors="replace").splitlines()):
        resumed, called = RESUMED.match(line), CALL.match(line)
        if resumed is not None:
            first, arguments = begun.pop(resumed[1], (number, ""))
            name, rest = resumed[2], arguments + resumed[3]
        elif called is not None and line.endswith("<unfinished ...>"):
            begun[called[1]] = number, called[3].removesuffix(" <unfinished ...>")
            continue
        elif called is not None:
            first, name, rest = number, called[2], called[3]
        else:
            continue
        results = RESULT.findall(rest)
        if results and int(results[-1]) >= 0:
            yield Call(name, rest, first, number, int(results[-1]))


@dataclass
class Disk:
    """What of the files below ``root`` is on the disk, call by call."""

    root: str
    written: dict[str, int] = field(default_factory=dict)
    """When a file was last written to."""
    synced: dict[str, int] = field(default_factory=dict)
    """Up to when a file, or a folder's entries, are on the disk."""
    named: dict[str, int] = field(default_factory=dict)
    """When a name was put into its folder."""

    def take(self, call: Call) -> None:
        if call.name in WRITES and self._is_ours(call.file):
            self.written[call.file] = call.ended
        elif call.name in ("fsync", "fdatasync") and self._is_ours(call.file):
            self.synced[call.file] = call.begun
        elif call.name in ("mkdir", "mkdirat") and self._is_ours(call.texts[0]):
            self.named[call.texts[0]] = call.ended
        elif call.name == "openat" and "O_CREAT" in call.arguments and self._is_ours(call.texts[0]):
            self.named.setdefault(call.texts[0], call.ended)
            self.written.setdefault(call.texts[0], -1)
        elif call.name.startswith(("rename", "link")):
            self._take_over(*call.texts[:2], call)
        elif call.name.startswith("unlink") and self._is_ours(call.texts[0]):
            self._forget(call.texts[0])

    def _is_ours(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.root}/")

    def _take_over(self, source: str, target: str, call: Call) -> None:
        if self._is_ours(target):
            for known in (self.written, self.synced):
                known[target] = known.get(source, -1)
            self.named[target] = call.ended
        if call.name.startswith("rename"):
            self._forget(source)

    def _forget(self, path: str) -> None:
        for known in (self.written, self.synced, self.named):
            known.pop(path, None)

    def unsafe(self) -> list[str]:
        """Return what a loss of power could take of the files that are there: bytes, and names, as sentences."""
        found = set[str]()
        for path, written in self.written.items():
            if not is_record(path):
                continue
            if self.synced.get(path, -1) < written:
                found.add(f"the bytes of {path}")
            place = path
            while place in self.named:
                folder = place.rpartition("/")[0]
                if self.synced.get(folder, -1) < self.named[place] and self._is_ours(folder):
                    found.add(f"the name of {place}")
                place = folder
        return sorted(found)


def is_of_index(path: str) -> bool:
    """Say whether a file belongs to the index, which is made of the others."""
    return path.rpartition("/")[2].startswith("index.sqlite")


def is_record(path: str) -> bool:
    """Say whether a file is one that announced documents need: whole, and under the name that it keeps."""
    name = path.rpartition("/")[2]
    is_half = name.endswith(("__lock", ".tmp", ".partial"))
    return not (is_half or is_of_index(path) or name.startswith((*UNTOLD, ".probe-")))
