"""Files that devices put into a store's ``incoming`` folder, and that their run adopts: moved, and found again.

What was announced at ``<root>/incoming/X`` is looked for at ``<run's folder>/incoming/X`` first. No journal is
rewritten for it, so that a process may die between any two renames.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from gently_bluesky.documents.names import INCOMING
from gently_bluesky.documents.resources import announced_path, file_uri
from gently_bluesky.errors import GentlyError
from gently_bluesky.files import make_folders, open_plain, read_plain, sync_folder, write_atomic
from gently_bluesky.foreign.names import named_by
from gently_bluesky.index.fields import path_of_uri
from gently_bluesky.model import JournalLine
from gently_bluesky.settings import Settings

__all__ = ["LIVE", "RECORD", "Adoption", "adopted_place", "below_incoming", "has_files_at", "settled_lines"]

ORIGIN = ".incoming-root"
"""In a run's folder: where the store lay when the files came, for whole paths in documents of a store moved since."""
RECORD = "documents.jsonl"
"""In the folder of a device that writes for itself: it and what lies beside it belong together."""
LIVE = ".live"
HDF5 = b"\x89HDF\r\n\x1a\n"
NUMBERED = r"_\d+\.(npy|tif)"


# -- finding ---------------------------------------------------------------------------------------------------


def below_incoming(root: Path, said: Path) -> PurePath | None:
    """Return the path below ``<root>/incoming`` of what was announced; None of what lies elsewhere."""
    try:
        below = (root / said).relative_to(root / INCOMING)
    except ValueError:
        return None
    return below if below.parts and ".." not in below.parts else None


def adopted_place(root: Path, folder: Path, said: Path) -> Path | None:
    """Return where in the folder of its run an asset lies that was announced at ``said``; None if it is not there."""
    if INCOMING not in said.parts or not (folder / INCOMING).is_dir():
        return None
    below = below_incoming(root, said)
    if below is None:
        with suppress(OSError, UnicodeError):
            below = below_incoming(Path(read_plain(folder / ORIGIN).decode()), said)
    place = None if below is None else folder / INCOMING / below
    return place if place is not None and has_files_at(place) else None


def has_files_at(place: Path) -> bool:
    """Say whether there is a file or folder at a path, or one whose name begins so."""
    if os.path.lexists(place):
        return True
    try:
        return any(entry.name.startswith(place.name) for entry in place.parent.iterdir())
    except (OSError, ValueError):
        return False


def settled_lines(lines: Iterator[JournalLine], root: Path | None, folder: Path) -> Iterator[JournalLine]:
    """Yield a run's lines; documents of what the run, in this folder, has adopted name the place where it is now."""
    if root is None or not (folder / INCOMING).is_dir():
        yield from lines
        return
    for line in lines:
        if line.name not in {"resource", "stream_resource"}:
            yield line
            continue
        yield replace(line, doc=_settled(line.doc, root, folder))


def _settled(doc: Mapping[str, Any], root: Path, folder: Path) -> Mapping[str, Any]:
    if "resource_path" in doc:
        place = adopted_place(root, folder, announced_path(doc))
        below = None if place is None else place.relative_to(root).as_posix()
        return doc if below is None else {**doc, "root": str(root), "resource_path": below}
    said = path_of_uri(doc["uri"])
    place = None if said is None else adopted_place(root, folder, Path(said))
    return doc if place is None else {**doc, "uri": file_uri(place, is_folder=doc["uri"].endswith("/"))}


# -- moving ----------------------------------------------------------------------------------------------------


class _Claim(NamedTuple):
    """What an asset is made of, below ``incoming``: all that is at ``place``, or the files there of these ``names``."""

    place: PurePath
    names: re.Pattern[str] | None = None

    def has(self, path: PurePath) -> bool:
        """Say whether what is at a path is the asset's, or holds it."""
        if self.names is not None and path.parent == self.place:
            return self.names.fullmatch(path.name) is not None
        return path == self.place or path in self.place.parents


class Adoption:
    """Moves what a run's documents announce below ``incoming`` into its folder. On the pipeline's thread.

    Parameters
    ----------
    root
        Of the store.
    run_uid
        For messages.
    settings
        Whether anything is moved at all, and whether it is synced where it comes to lie.

    Attributes
    ----------
    remarks
        What stays where it is, and why.
    """

    def __init__(self, root: Path, run_uid: str, settings: Settings) -> None:
        self.remarks: list[str] = []
        self._root = root
        self._run = run_uid[:8]
        self._moves = settings.adopt == "move"
        self._syncs = settings.sync != "never"
        self._announced: list[tuple[PurePath, Mapping[str, Any]]] = []

    def note(self, name: str, doc: Mapping[str, Any]) -> None:
        """Keep what a document of another writer announces below ``incoming``. Looks at no file."""
        if not self._moves or name not in {"resource", "stream_resource"}:
            return
        with suppress(GentlyError):  # what names no file here is refused when it is opened
            said = announced_path(doc)
            whole = self._root / said == self._root / INCOMING
            below = PurePath() if whole else below_incoming(self._root, said)
            if below is not None:
                self._announced.append((below, doc.get("resource_kwargs") or doc.get("parameters") or {}))

    def move(self, folder: str) -> None:
        """Rename what was noted into a run's folder; what cannot be moved stays, and is remarked on. Never raises.

        Each file or folder is *synced* where it is when this returns, if this syncs at all. Twice is as once.
        """
        claims: list[_Claim] = []
        for below, kwargs in self._announced:
            try:
                claims.append(self._claim(below, kwargs))
            except Exception as error:  # noqa: BLE001 # nothing that is wrong with a file may fail the run
                self._remark(below, error)
        units = dict.fromkeys(self._unit(claim) for claim in claims)
        for unit in units:
            if any(outer.parts and outer in units for outer in unit.parents):
                continue  # it goes where that goes
            try:
                if self._is_adopted(unit, self._root / folder) or self._is_recording(unit):
                    continue
                obstacle = self._obstacle(unit, claims, self._root / folder)
                if obstacle is None:
                    self._rename(unit, self._root / folder)
                else:
                    self._remark(unit, obstacle)
            except Exception as error:  # noqa: BLE001 # as above
                self._remark(unit, error)

    def _remark(self, unit: PurePath, why: object) -> None:
        self.remarks.append(
            f"run {self._run}: {self._root / INCOMING / unit} stays where it is, and is read there: {why}; the run is "
            "whole all the same"
        )

    def _claim(self, below: PurePath, kwargs: Mapping[str, Any]) -> _Claim:
        path = self._root / INCOMING / below
        if path.is_dir() and "template" in kwargs:
            return _Claim(below, named_by(path, kwargs["template"], kwargs.get("filename", "")))
        if path.exists():
            return _Claim(below)
        return _Claim(below.parent, re.compile(re.escape(below.name) + NUMBERED))

    def _unit(self, claim: _Claim) -> PurePath:
        """Return what has to be renamed as a whole for an asset."""
        for place in (claim.place, *claim.place.parents):
            if place.parts and (self._root / INCOMING / place / RECORD).exists():
                return place
        return claim.place

    def _is_adopted(self, unit: PurePath, folder: Path) -> bool:
        return os.path.lexists(folder / INCOMING / unit) and not os.path.lexists(self._root / INCOMING / unit)

    def _is_recording(self, unit: PurePath) -> bool:
        """Say whether a device that writes through a recorder is still staged: its arrays may stay there."""
        path = self._root / INCOMING / unit
        return (path / RECORD).exists() and (path / LIVE).exists()

    def _obstacle(self, unit: PurePath, claims: Sequence[_Claim], folder: Path) -> str | None:
        """Return why a file or folder cannot be moved; None if it can."""
        path = self._root / INCOMING / unit
        way = [path, *(path.parents[number] for number in range(len(unit.parts)))]
        found: str | None = None
        if not unit.parts:
            found = f"its files lie in {INCOMING} itself, beside those of others"
        elif any(step.is_symlink() for step in way):
            found = "a symbolic link leads there"
        elif not path.exists():
            found = "nothing is there"
        elif any((step / LIVE).exists() for step in way[:-1]):
            found = "its writer has not let go of it"
        elif os.path.lexists(folder / INCOMING / unit):
            found = "in the run's folder there is something of that name"
        elif path.is_file() and _takes_from_others(path):
            found = "it takes pixels from other files"
        elif path.is_dir() and _Claim(unit) not in claims:
            strays = (
                entry.name
                for entry in path.iterdir()
                if entry.name != RECORD
                and (entry.is_symlink() or not any(claim.has(unit / entry.name) for claim in claims))
            )
            stray = next(strays, None)
            found = (
                None if stray is None else f"this run does not announce {stray!r:.100}, which is beside it"
            )
        return found

    def _rename(self, unit: PurePath, folder: Path) -> None:
        source, target = self._root / INCOMING / unit, folder / INCOMING / unit
        make_folders(target.parent, sync=self._syncs)
        if not (folder / ORIGIN).exists():
            write_atomic(folder / ORIGIN, str(self._root).encode(), sync=self._syncs)
        source.rename(target)
        if self._syncs:
            sync_folder(target.parent)
            sync_folder(source.parent)


def _takes_from_others(path: Path) -> bool:
    with open_plain(path) as file:
        if file.read(len(HDF5)) != HDF5:
            return False
    from gently_bluesky.foreign.hdf5 import takes_from_others  # only for such a file

    return takes_from_others(path)
