"""Pixels that were kept in memory only, put on disk: same uids, same lineage, another way of keeping them.

The run's journal is the switch. Before it is replaced the run is as it was, and what has been copied is
undone by whoever comes next; after it, what is left to do is finished by whoever comes next. The assets in
memory say from then on where their pixels are, for those who opened them, or heard of them, before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.frames import declared_frame
from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.documents.journal import rewritten, scan_journal
from gently_bluesky.documents.live import LiveFile
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.errors import AssetDamaged, InputError, StorageError
from gently_bluesky.files import inside, read_plain, storage_error, write_atomic
from gently_bluesky.index.index import Index
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec, JournalLine, Record
from gently_bluesky.settings import Packing
from gently_bluesky.upkeep.announced import Announced, announced_assets
from gently_bluesky.upkeep.in_memory import settle
from gently_bluesky.upkeep.journals import whole_lines
from gently_bluesky.upkeep.sweeping import DOCUMENTS, PLAN, asset_in

__all__ = ["materialize"]

MADE_FROM = "made_from"


def materialize(root: Path, index: Index, record: Record, backend: Backend, packing: Packing) -> None:
    """Copy what a run, or one asset of it, keeps in memory to where ``backend`` keeps it; *synced* on return.

    Takes memory for one event. Where nothing is in memory, nothing is done.

    Raises
    ------
    InputError
        The run is still being written, or materialised by somebody else; nothing was changed.
    AssetMissing, AssetDamaged
        The pixels are gone, or not those that were announced; nothing was changed.
    StorageError
        There is no room for the copy, or it could not be written; nothing was changed.
    """
    run = index.record(record.run_uid)
    journal = root / run.path
    if journal.name != DOCUMENTS:
        return  # of small results, which have no assets
    only = record.uid if record.kind == "asset" else None
    try:
        live = LiveFile.take(journal.parent, make=True)
    except OSError as error:
        raise storage_error(
            error, f"run {run.uid}: it cannot be materialised; nothing was changed"
        ) from error
    if live is None:
        raise _not_now(run, "is still being written, or materialised by another process")
    try:
        _Materializing(root, index, run, backend, packing).run(only)
    finally:
        is_settled = not (journal.parent / PLAN).exists()
        live.close(remove=is_settled)  # otherwise the next opening takes it for a dead process's, and settles


def _not_now(run: Record, why: str) -> InputError:
    return InputError(
        f"run {run.uid} {why}; nothing was changed and its pixels stay in memory; materialise it when it has "
        "ended"
    )


def _check(asset: Announced, event: int, frame: NDArray[Any]) -> None:
    digest = digest_of_pixels(frame)
    announced = asset.digests.get(event) or "no event"
    if digest != announced:
        raise AssetDamaged(
            f"{asset.doc['resource_path']}: expected pixels of {announced} for event {event}, "
            f"as announced, found {digest}; nothing was changed; what is in memory can still be read"
        )


def _in_memory(lines: Sequence[JournalLine], folder: Path) -> dict[str, Announced]:
    """Return what a journal says of the assets in memory, by their uids."""
    there = {
        line.doc["uid"]
        for line in lines
        if line.name == "resource" and line.doc["spec"] == MemoryBackend.spec and asset_in(folder, line)
    }
    return {uid: asset for uid, asset in announced_assets(lines).items() if uid in there}


@dataclass(frozen=True, slots=True)
class _Materializing:
    """One run being materialised, by the process that holds its lock."""

    root: Path
    index: Index
    record: Record
    backend: Backend
    packing: Packing

    @property
    def _journal(self) -> Path:
        return self.root / self.record.path

    def run(self, only: str | None) -> None:
        folder = self._journal.parent
        lines, end = whole_lines(self._journal)
        if not any(line.name == "stop" for line in lines):
            raise _not_now(self.record, "has no end on record yet (open the store again if its process died)")
        settle(folder, lines)
        wanted = _in_memory(lines, folder)
        if only is not None:
            wanted = {uid: asset for uid, asset in wanted.items() if uid == only}
        if not wanted:
            if self.index.reach(self.record.path) != end:  # somebody died before the index was told
                self.index.add(self.record.path, lines, end, anew=True)
            return
        try:
            made = self._copy_all(wanted)
            self._announce(made)
        finally:
            # what is raised, if anything is, is why the run is as it was; settling again finishes the rest
            with suppress(OSError):
                settle(folder, whole_lines(self._journal)[0])

    def _copy_all(self, wanted: Mapping[str, Announced]) -> dict[str, dict[str, Any]]:
        """Copy assets; return their new resource documents by uid."""
        folder = self._journal.parent
        names: dict[str, str] = {}
        for uid, asset in wanted.items():
            old = inside(self.root, asset.doc["resource_path"])
            names[uid] = old.name.removesuffix(MemoryBackend.suffix) + self.backend.suffix
            if os.path.lexists(folder / names[uid]):
                raise StorageError(
                    f"run {self.record.uid}: expected nothing at {folder / names[uid]}, where what it keeps in "
                    "memory was to go; it was not touched and nothing was changed; move it elsewhere"
                )
        olds = {uid: Path(asset.doc["resource_path"]).name for uid, asset in wanted.items()}
        plan = {uid: (olds[uid], self.backend.spec, names[uid]) for uid in wanted}
        write_atomic(folder / PLAN, orjson.dumps(plan))
        return {uid: self._copied(asset, names[uid]) for uid, asset in wanted.items()}

    def _copied(self, asset: Announced, name: str) -> dict[str, Any]:
        old, folder = asset.doc, self._journal.parent
        source = MemoryBackend().open(
            inside(self.root, old["resource_path"]), old["resource_kwargs"], asset.count
        )
        spec = _spec_of(asset, self.record, folder / name)
        sample = _event(source, 0) if asset.count else None
        sink = self.backend.create(folder / name, spec, self.packing, sample)
        try:
            for event in range(asset.count):
                frame = _event(source, event)
                _check(asset, event, frame)
                sink.write(event, frame, asset.times[event]).result()
            sink.publish(asset.count)
            resource_kwargs = {**sink.resource_kwargs, MADE_FROM: old["spec"]}
        finally:
            sink.close()
        made = self.backend.open(folder / name, resource_kwargs, asset.count)
        for event in range(asset.count):  # memory holds the only copy: look before it is let go
            _check(asset, event, _event(made, event))
        place = f"{old['resource_path'].rpartition('/')[0]}/{name}"
        return {
            **old,
            "spec": self.backend.spec,
            "resource_path": place,
            "resource_kwargs": resource_kwargs,
        }

    def _announce(self, made: Mapping[str, dict[str, Any]]) -> None:
        """Replace the journal, then tell the index: every line but those of the resources stays as it is."""
        text = read_plain(self._journal)

        def change(line: JournalLine) -> JournalLine:
            is_made = line.name == "resource" and line.doc["uid"] in made
            return replace(line, doc=made[line.doc["uid"]]) if is_made else line

        _, pieces = rewritten(text, 0, scan_journal(self._journal), change)
        if sum(map(len, pieces)) == len(text):  # indexes tell by its length that a journal is another one
            pieces[-1] = pieces[-1].rstrip(b"\n") + b" \n"
        write_atomic(self._journal, b"".join(pieces))
        lines, end = whole_lines(self._journal)
        try:
            self.index.add(self.record.path, lines, end, anew=True)
        except StorageError as error:
            raise type(error)(
                error.errno,
                f"run {self.record.uid} was materialised, but the index could not be written ({error}); its "
                "arrays open as before, and the index follows when the store is next opened",
            ) from error


def _spec_of(asset: Announced, run: Record, path: Path) -> ArraySpec:
    kwargs = asset.doc["resource_kwargs"]
    shape, dtype = declared_frame(path, kwargs)
    origin: dict[str, Any] = {"run": run.uid, "time": run.time}
    if asset.stream:
        origin.update(stream=asset.stream, data_key=asset.data_key)
    return ArraySpec(
        name=asset.data_key,
        shape=shape,
        dtype=dtype,
        dims=tuple(kwargs["dims"]),
        scale=tuple(kwargs["scale"]),
        units=tuple(kwargs["units"]),
        channel_names=tuple(kwargs["channel_names"]),
        origin=origin,
    )


def _event(source: ArraySource, event: int) -> NDArray[Any]:
    rest = (slice(0, length, 1) for length in source.shape[1:])
    return source.read((slice(event, event + 1, 1), *rest))[0]
