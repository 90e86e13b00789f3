"""What the command ``show`` knows of a run, an array or an event: gathered from records, documents and folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from gently_bluesky.cli.lines import record_json, status_of
from gently_bluesky.errors import GentlyError
from gently_bluesky.index.lineage import Lineage, LineageNode
from gently_bluesky.upkeep.sizes import nbytes_of_files
from gently_bluesky.upkeep.stamps import Stamps
from gently_bluesky.wording import clock, many

if TYPE_CHECKING:
    from gently_bluesky.model import Pin, Record, Tombstone
    from gently_bluesky.run import Run
    from gently_bluesky.store import Store

__all__ = ["Facts", "facts_of"]

OWN_JOURNAL = "documents.jsonl"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a record, and of the run that it belongs to.

    Attributes
    ----------
    record, run
        Of what was asked for, and of its run.
    status
        Of the run, now.
    stop
        The run's stop document.
    events, keys
        By stream: how many events, and what the descriptors say of each data key.
    assets
        Of the run, or the one that was asked for.
    where
        Where the files of assets are, by uid.
    journal, file_nbytes
        Of the run, and the bytes that its files, or those of the array, take on disk; None where they are not there.
    parents, children
        A line for each.
    tombstone
        Of the run, or of the array; None where its pixels are there.
    verified
        The last stamp of the run; empty where it has none, None where that cannot be read.
    pin
        Of the run; None where there is none.
    """

    record: Record
    run: Record
    status: str
    stop: Mapping[str, Any] | None
    events: Mapping[str, int]
    keys: Mapping[str, Mapping[str, Mapping[str, Any]]]
    assets: Sequence[Record]
    where: Mapping[str, str]
    journal: Path
    file_nbytes: int | None
    parents: Sequence[str]
    children: Sequence[str]
    child_uids: Sequence[str]
    tombstone: Tombstone | None
    verified: Mapping[str, Any] | None
    pin: Pin | None

    @property
    def folder(self) -> Path:
        """Where the journal is."""
        return self.journal.parent

    @property
    def has_folder(self) -> bool:
        """The run has a folder of its own; small results share a journal."""
        return self.journal.name == OWN_JOURNAL

    @property
    def frames(self) -> dict[str, int | None]:
        """Frames of the run: received, stored and lost; None where nobody knows."""
        return {"received": self.run.received, "stored": self.run.stored, "lost": self.run.lost}

    @property
    def reason(self) -> str:
        """Why the run ended, where its stop says so."""
        return str((self.stop or {}).get("reason") or "")

    @property
    def took_s(self) -> float | None:
        """Seconds from start to stop."""
        ended = (self.stop or {}).get("time")
        return ended - self.run.time if isinstance(ended, int | float) else None

    def verified_text(self) -> str:
        """Return when the run was last verified, and what was found."""
        if self.verified is None:
            return "cannot be told: upkeep.jsonl cannot be read"
        if not self.verified:
            return "never"
        said: Any = self.verified.get("journal")
        nbytes = said.get("bytes") if isinstance(said, Mapping) else None
        if self.has_folder and self.journal.stat().st_size != nbytes:
            return f"not since it was changed: verify it again (it was, {clock(self.verified['time'])})"
        if self.verified.get("unopened"):
            return f"{clock(self.verified['time'])}, but for {many(self.verified['unopened'], 'array')} not read then"
        found = len(self.verified.get("findings") or ())
        text = (
            "all was well"
            if not found
            else f"{found} finding{'s' * (found != 1)}: verify it again to see them"
        )
        return f"{clock(self.verified['time'])}, {text}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        known: dict[str, Any] = {
            **record_json(self.record),
            "status": self.status,
            "children": list(self.child_uids),
            "pinned": None if self.pin is None else self.pin.reason,
            "verified": self.verified,
            "journal": str(self.journal),
            "file_nbytes": self.file_nbytes,
            "assets": [{**record_json(asset), "where": self.where.get(asset.uid)} for asset in self.assets],
        }
        if self.record.kind == "run":
            streams = {
                stream: {"events": count, "data_keys": self.keys[stream]}
                for stream, count in self.events.items()
            }
            known |= {"stop": self.stop, "streams": streams}
        return known


def facts_of(store: Store, record: Record) -> Facts:
    """Gather what is known of a record; reads the run's journal, and no pixels.

    Raises
    ------
    AssetMissing, JournalDamaged, StorageError
        The journal is not there, or cannot be read.
    """
    run = store.run(record.run_uid)
    counts, keys, where = _from_documents(run)
    assets = store.assets(record.uid)
    journal = store.root / run.record.path
    own = journal.parent if journal.name == OWN_JOURNAL else journal  # small results share one
    measured = own if record.kind == "run" else Path(where.get(assets[0].uid, ""))
    children = store.children(record.uid)
    return Facts(
        record=record,
        run=run.record,
        status=status_of(store, run.record),
        stop=run.stop,
        events=counts,
        keys=keys,
        assets=assets,
        where=where,
        journal=journal,
        file_nbytes=_nbytes_on_disk(measured),
        parents=[_line(store, uid) for uid in record.parents],
        children=[_named(child.uid, child) for child in children],
        child_uids=[child.uid for child in children],
        tombstone=store.tombstone(record.run_uid if record.kind == "run" else assets[0].uid),
        verified=_stamp(store, record.run_uid),
        pin=next((pin for pin in store.pins() if pin.run_uid == record.run_uid), None),
    )


def _from_documents(run: Run) -> tuple[dict[str, int], dict[str, dict[str, Any]], dict[str, str]]:
    """Return how many events each stream has, what descriptors say of its data keys, and where assets are."""
    keys: dict[str, dict[str, Any]] = {}
    streams: dict[str, str] = {}
    counts: dict[str, int] = {}
    where: dict[str, str] = {}
    for name, doc in run.documents():
        if name == "descriptor":
            streams[doc["uid"]] = stream = doc.get("name", "primary")
            keys.setdefault(stream, {}).update(doc["data_keys"])
            counts.setdefault(stream, 0)
        elif name == "event":
            counts[streams[doc["descriptor"]]] = max(counts[streams[doc["descriptor"]]], doc["seq_num"])
        elif name in {"resource", "stream_resource"}:
            where[doc["uid"]] = _place(doc)
    counts |= {
        stream: n for stream, n in ((run.stop or {}).get("num_events") or {}).items() if stream in keys
    }
    return counts, keys, where


def _place(doc: Mapping[str, Any]) -> str:
    if "uri" not in doc:
        return str(Path(str(doc.get("root") or "/"), str(doc.get("resource_path"))))
    parts = urlsplit(str(doc["uri"]))
    return unquote(parts.path) if parts.scheme == "file" else str(doc["uri"])


def _nbytes_on_disk(path: Path) -> int | None:
    return nbytes_of_files(path) if path.exists() else None


def _line(store: Store, uid: str) -> str:
    try:
        return _named(uid, store.record(uid))
    except GentlyError:
        return _named(uid, None)


def _named(uid: str, record: Record | None) -> str:
    """Return a record as a lineage prints it."""
    return str(Lineage((LineageNode(0, uid, record),)))


def _stamp(store: Store, run_uid: str) -> Mapping[str, Any] | None:
    stamps = Stamps(store.root, writes=False)
    try:
        stamps.read()
    except GentlyError:
        return None
    return stamps.of(run_uid)
