"""Assets put into another format, or packed anew: same uids, same lineage, same pixels, another way of keeping them.

Each is copied beside what it was, read back and compared with the digests that it was announced with; then the run's
journal, which is the switch, says what it is now and what it was made from; then what it was goes to the trash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.documents.converted import MADE_FROM, former_places
from gently_bluesky.documents.journal import rewritten, scan_journal
from gently_bluesky.documents.names import asset_name, folder_of
from gently_bluesky.documents.resources import announced_asset, file_uri
from gently_bluesky.errors import (
    InputError,
    StorageError,
)
from gently_bluesky.files import inside, read_plain, storage_error, write_atomic
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine, Record
from gently_bluesky.settings import Packing
from gently_bluesky.upkeep.announced import Announced, announced_assets
from gently_bluesky.upkeep.conversion_plan import (
    ConversionPlan,
    entry_of,
    forget_plan,
    is_planned,
    settle,
)
from gently_bluesky.upkeep.conversions import Converted, LeftOut, Wish
from gently_bluesky.upkeep.convertible import NOT_CONVERTED, Convertible, Opened, convertible, opened
from gently_bluesky.upkeep.journals import has_stop, whole_lines
from gently_bluesky.upkeep.pixels import digest_of_digests
from gently_bluesky.upkeep.protection import Where
from gently_bluesky.upkeep.purging import purge_held
from gently_bluesky.upkeep.recoding import Recoding
from gently_bluesky.upkeep.run_lock import (
    RunLock,
    free_in_trash,
    locked,
    require_same_disk,
    tell_index,
)
from gently_bluesky.upkeep.sweeping import DOCUMENTS
from gently_bluesky.upkeep.trash import settle_run

__all__ = ["convert_run"]

Tell = Callable[[int, str], object]


def convert_run(
    root: Path, index: Index, record: Record, where: Where, wish: Wish, tell: Tell
) -> Generator[Converted | LeftOut]:
    """Convert what a run keeps, or one asset, one after the other; what was yielded is done, and *synced*.

    Parameters
    ----------
    record
        Of a run that has ended, or of one of its assets.
    where
        Tells where an asset lies.
    tell
        Called with the bytes of pixels that were copied or read back since the last time, and whose they are.

    Raises
    ------
    InputError
        The run is being written, or converted by somebody else; nothing was changed.
    InvalidSetting
        The format cannot hold an asset so; that was not changed.
    AssetMissing, AssetDamaged
        The pixels are gone, or not those that were announced; their asset was not changed.
    StorageError
        There is no room for the copy, or it could not be written; its asset was not changed.
    """
    run = index.record(record.run_uid)
    journal = inside(root, run.path)
    if journal.name != DOCUMENTS:
        return  # of small results, which have no assets
    with locked(root, index, run) as lock:
        work = _Work(root, index, run, journal, where, wish, tell, lock)
        for asset in work.wanted(record):
            yield work.converted(asset)


@dataclass(slots=True)
class _Work:
    """The conversion of one run, by whoever holds its lock."""

    root: Path
    index: Index
    run: Record
    journal: Path
    where: Where
    wish: Wish
    tell: Tell
    lock: RunLock
    _lines: Sequence[JournalLine] = ()

    def wanted(self, record: Record) -> list[Announced]:
        """Return the assets that are asked for, after what a dead process left of a conversion is in order."""
        self._lines, end = whole_lines(self.journal)
        if not has_stop(self._lines):
            raise InputError(
                f"run {self.run.uid} has no end on record yet; nothing was changed; convert it when it has ended, and "
                "open the store again if its process died"
            )
        try:
            self.lock.is_settled = not (was_planned := is_planned(self.journal.parent))
            finished = settle(self.root, self.journal.parent, self._lines)
            if self.lock.is_marked and was_planned:
                settle_run(self.root, self.run.uid)  # a deletion may have died here too
            self.lock.is_settled = True
            self.lock.is_marked = self.lock.is_marked and not was_planned
        except OSError as error:
            raise storage_error(
                error, f"run {self.run.uid}: what was begun before could not be put in order"
            ) from error
        if finished or self.index.reach(self.run.path) != end:
            self._tell_index()
        found = announced_assets(self._lines)
        return [asset for uid, asset in found.items() if record.kind == "run" or uid == record.uid]

    def converted(self, asset: Announced) -> Converted | LeftOut:
        """Convert one asset, if it is to be."""
        was = convertible(asset, self.run, self._lines, self.root, self.index, self.where)
        if isinstance(was, str):
            return LeftOut(asset.uid, self.run.uid, was)
        if self.wish.only_spec not in (None, was.backend.spec):
            return LeftOut(asset.uid, self.run.uid, f"is kept as {was.backend.name} already")
        goal = self.wish.goal(was.backend, was.kwargs)
        if goal is None:
            return LeftOut(asset.uid, self.run.uid, "is kept so already", is_so=True)
        was.require_fits(*goal)
        return self._convert(was, *goal)

    # -- one asset ---------------------------------------------------------------------------------------

    def _convert(self, was: Convertible, backend: Backend, packing: Packing) -> Converted:
        folder, uid = self.journal.parent, was.announced.uid
        name, plan = self._free_name(was, backend), None
        try:
            source = opened(self.root, self.index, was)
            recoding = self._recoding(was, source, backend)
            plan = ConversionPlan(
                uid, was.place, was.backend.spec, name, backend.spec, self._entry(was, source.nbytes)
            )
            self.lock.is_settled = False
            plan.write(folder)
            try:
                kwargs = {
                    **recoding.into(backend, packing, folder / name),
                    MADE_FROM: [*was.history, self._provenance(was, backend)],
                }
                after = sum(file.stat().st_size for file in backend.files(folder / name, kwargs))
                self._announce(was, backend, name, kwargs)
                plan.finish(self.root, is_noted=False)
                forget_plan(folder)
            finally:
                # what is raised, if anything is, is why the asset is as it was; settling again finishes the rest
                with suppress(OSError):
                    settle(self.root, folder, whole_lines(self.journal)[0])
                self.lock.is_settled = not is_planned(folder)
        except StorageError:
            raise
        except OSError as error:
            is_done = plan is not None and plan.is_announced(self._lines)
            came = "is converted, and the next opening puts away what it was" if is_done else NOT_CONVERTED
            raise storage_error(error, f"asset {uid} ({was.place}) {came}") from error
        if plan.entry is not None:
            self._put_away(plan.entry)
        place = f"{folder_of(self.run.path)}/{name}"
        made = (was.backend.name, backend.name, was.announced.count, was.nbytes)
        return Converted(uid, self.run.uid, was.announced.data_key, *made, source.nbytes, after, place)

    def _recoding(self, was: Convertible, found: Opened, backend: Backend) -> Recoding:
        takes_room = not isinstance(backend, MemoryBackend)
        if takes_room:
            was.require_room(min(found.nbytes, was.nbytes))

        def tell(nbytes: int) -> None:
            if takes_room:
                was.require_room(0)
            self.tell(nbytes, was.announced.data_key)

        return Recoding(found.announced, found.source, found.path, was.spec, self.run.time, tell)

    def _free_name(self, was: Convertible, backend: Backend) -> str:
        """Return a name that nothing in the run's folder has, or had: who knows an old one is led on by it."""
        taken = {entry.name for entry in self.journal.parent.iterdir()}
        for asset in announced_assets(self._lines).values():
            known = announced_asset(asset.name, asset.doc)
            if known is not None:
                taken |= {place.rpartition("/")[2] for place in (known.path, *former_places(known.kwargs))}
        stream, key = was.announced.stream or "asset", was.announced.data_key or was.announced.uid
        number = 1
        while (name := asset_name(stream, key, number, backend.suffix)) in taken:
            number += 1
        return name

    def _entry(self, was: Convertible, nbytes: int) -> dict[str, Any] | None:
        """Return the logbook's entry by which what the asset was goes to the trash; None of what is in memory."""
        if isinstance(was.backend, MemoryBackend):
            return None
        require_same_disk(self.root, [was.place])
        asset, now = was.announced, time.time()
        return entry_of(
            asset.uid,
            self.run.uid,
            folder_of(self.run.path),
            was.place,
            free_in_trash(self.root, was.place, set()),
            nbytes=nbytes,
            events=len(asset.digests),
            digest=digest_of_digests(asset.digests),
            time=now,
            reason=f"it was converted ({self.wish})",
            policy=None,
            keep_until=now + self.wish.keep_s,
            start=self.run.metadata,
        )

    def _put_away(self, entry: Mapping[str, Any]) -> None:
        tell_index(self.root, self.index, "converted")
        if not self.wish.keep_original:
            copies = {copy["uid"] for copy in entry["assets"]}
            found = [one for one in self.index.tombstones(self.run.uid) if one.uid in copies]
            purge_held(self.root, self.index, self.run, self.lock, found)

    # -- the switch --------------------------------------------------------------------------------------

    def _provenance(self, was: Convertible, backend: Backend) -> dict[str, Any]:
        packing = was.kwargs.get("packing")
        return {
            "spec": was.backend.spec,
            "path": was.place,
            **({} if packing is None else {"packing": packing}),
            "time": time.time(),
            "asked": self.wish.asked(backend),
            **(_needed_again(was.kwargs) if isinstance(backend, MemoryBackend) else {}),
        }

    def _announce(self, was: Convertible, backend: Backend, name: str, kwargs: Mapping[str, Any]) -> None:
        """Replace the journal, then tell the index: every line but that of the asset stays as it is."""
        uid, text = was.announced.uid, read_plain(self.journal)
        made = self._document(was, backend, name, kwargs)

        def change(line: JournalLine) -> JournalLine:
            return (
                replace(line, doc=made)
                if line.name == was.announced.name and line.doc["uid"] == uid
                else line
            )

        lines, pieces = rewritten(text, 0, scan_journal(self.journal), change)
        if sum(map(len, pieces)) == len(text):  # indexes tell by its length that a journal is another one
            pieces[-1] = pieces[-1].rstrip(b"\n") + b" \n"
        write_atomic(self.journal, b"".join(pieces))
        self._lines = lines
        self._tell_index()

    def _document(
        self, was: Convertible, backend: Backend, name: str, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        old, path = was.announced.doc, f"{folder_of(self.run.path)}/{name}"
        if was.announced.name == "resource":
            return {
                **old,
                "spec": backend.spec,
                "root": was.root,
                "resource_path": path,
                "resource_kwargs": kwargs,
            }
        parameters = {**kwargs, **backend.stream_parameters(kwargs), "spec": backend.spec}
        if backend.part:
            parameters["part"] = backend.part
        uri = file_uri(Path(was.root, path, backend.part), is_folder=not backend.part)
        return {**old, "mimetype": backend.mimetype, "uri": uri, "parameters": parameters}

    def _tell_index(self) -> None:
        lines, end = whole_lines(self.journal)
        try:
            self.index.add(self.run.path, lines, end, anew=True)
        except StorageError as error:
            raise type(error)(
                error.errno,
                f"run {self.run.uid} was converted, but the index could not be written ({error}); its arrays open as "
                "before, and the index follows when the store is next opened",
            ) from error


def _needed_again(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what opens an asset when the memory that it was put into is gone."""
    return {"kwargs": {name: value for name, value in kwargs.items() if name != MADE_FROM}}
