"""A disk that loses power: what a log of calls leaves on it, of all that it might.

The model is harsher than any file system we know with a journal of its own. What ``fsync`` has not returned for may be
there or not: of a file each sector by itself, and its length; of a folder each name by itself, so that a renamed file
may have both names, or neither. ``fsync`` of a file keeps its bytes and not its name; of a folder, the names in it and
not its own. Sectors that a file grew by and that were never written hold zeros.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shim import Call, Kind

SECTOR = 512


class Luck:
    """Which of several states is found. Mostly the first of all, or the last: else little would ever be whole."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._evenly = dice.choice([0.05, 0.3, 1.0])
        self._favoured = dice.choice([0, -1])

    def one_of(self, states: Sequence[Any]) -> Any:
        return self._dice.choice(states) if self._dice.random() < self._evenly else states[self._favoured]

    def cut(self, begin: int, end: int) -> int:
        """Return where a sector is torn, if it is."""
        return self._dice.randint(begin + 1, end) if self._dice.random() < 0.02 else end


class WorstLuck(Luck):
    """Nothing is found but what is safe."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))

    def one_of(self, states: Sequence[Any]) -> Any:
        return states[0]


class _File:
    """The bytes of a file: those that are safe, and each state they had since."""

    def __init__(self) -> None:
        self.states = [b""]

    def write(self, offset: int, data: bytes) -> None:
        now = self.states[-1].ljust(offset, b"\0")
        self.states.append(now[:offset] + data + now[offset + len(data) :])

    def truncate(self, size: int) -> None:
        self.states.append(self.states[-1][:size].ljust(size, b"\0"))

    def sync(self) -> None:
        del self.states[:-1]

    def left(self, luck: Luck) -> bytes:
        """Return the bytes that are found: each sector from some state or other, and a length of some state."""
        if len(self.states) == 1:
            return self.states[0]
        size = len(luck.one_of(self.states))
        found = bytearray()
        while len(found) < size:
            begin = len(found)
            end = luck.cut(begin, min(size, (begin // SECTOR + 1) * SECTOR))
            found += luck.one_of(self.states)[begin:end]
            found += bytes(end - len(found))
        return bytes(found)


class _Folder:
    """The names in a folder: of each, what it stood for when it was safe, and all it stood for since."""

    def __init__(self) -> None:
        self.names: dict[str, list[_File | _Folder | None]] = {}

    def __getitem__(self, name: str) -> _File | _Folder | None:
        return self.names.get(name, [None])[-1]

    def put(self, name: str, what: _File | _Folder | None) -> None:
        self.names.setdefault(name, [None]).append(what)

    def sync(self) -> None:
        self.names = {name: [states[-1]] for name, states in self.names.items() if states[-1] is not None}

    def left(self, luck: Luck) -> dict[str, _File | _Folder]:
        """Return what each name is found to stand for."""
        found = {name: luck.one_of(states) for name, states in self.names.items()}
        return {name: what for name, what in found.items() if what is not None}


class Disk:
    """What the calls of a log have done below ``root``, and what of it is safe."""

    def __init__(self, root: str | Path) -> None:
        self._root = str(root)
        self._top = _Folder()
        self._open: dict[int, _File | _Folder] = {}
        """What each inode is now: they are used again."""

    def take(self, place: Path) -> None:
        """Begin with all that is at a place, and safe."""
        self._open[place.stat().st_ino] = self._top
        for path in sorted(place.rglob("*")):
            made: _File | _Folder = _Folder() if path.is_dir() else _File()
            if isinstance(made, _File):
                made.states = [path.read_bytes()]
            folder, name = self._parent(f"{self._root}/{path.relative_to(place)}")
            folder.names[name] = [made]
            self._open[path.stat().st_ino] = made

    def play(self, call: Call) -> None:
        """Do what a call did."""
        if call.kind in (Kind.CREATE, Kind.MKDIR):
            if call.path == self._root:
                made: _File | _Folder = self._top
            else:
                made = _File() if call.kind is Kind.CREATE else _Folder()
                self._put(call.path, made)
            self._open[call.inode] = made
        elif call.kind is Kind.WRITE:
            self._file(call).write(call.offset, call.data)
        elif call.kind is Kind.TRUNCATE:
            self._file(call).truncate(call.offset)
        elif call.kind is Kind.SYNC:
            self._open[call.inode].sync()
        elif call.kind is Kind.LINK:
            self._put(call.other, self._at(call.path))
        elif call.kind is Kind.RENAME:
            self._put(call.other, self._at(call.path))
            self._put(call.path, None)
        elif call.kind is Kind.REMOVE:
            self._put(call.path, None)

    def _file(self, call: Call) -> _File:
        file = self._open[call.inode]
        assert isinstance(file, _File)
        return file

    def _parent(self, path: str) -> tuple[_Folder, str]:
        *above, name = path.removeprefix(self._root).strip("/").split("/")
        folder: _File | _Folder | None = self._top
        for part in above:
            assert isinstance(folder, _Folder)
            folder = folder[part]
        assert isinstance(folder, _Folder)
        return folder, name

    def _at(self, path: str) -> _File | _Folder | None:
        folder, name = self._parent(path)
        return folder[name]

    def _put(self, path: str, what: _File | _Folder | None) -> None:
        folder, name = self._parent(path)
        folder.put(name, what)

    def write_all(self, place: Path) -> None:
        """Write out what is on the disk as long as there is power."""
        self._write(self._top, place, None)

    def write_what_is_left(self, place: Path, luck: Luck) -> None:
        """Write out what may be found when there is power again."""
        self._write(self._top, place, luck)

    def _write(self, folder: _Folder, place: Path, luck: Luck | None) -> None:
        place.mkdir()
        names = folder.left(luck) if luck else {name: folder[name] for name in folder.names}
        for name, what in names.items():
            if isinstance(what, _Folder):
                self._write(what, place / name, luck)
            elif what is not None:
                (place / name).write_bytes(what.left(luck) if luck else what.states[-1])


def played(root: str | Path, calls: Iterable[Call]) -> Disk:
    """Return a disk on which all of this was done."""
    disk = Disk(root)
    for call in calls:
        disk.play(call)
    return disk
