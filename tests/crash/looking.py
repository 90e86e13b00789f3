"""Looking at a store as somebody else would: every run, every pixel, every file, every answer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from zygote import Channel, obey_permissions

from gently_bluesky import Store
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.errors import AssetQuarantined
from gently_bluesky.testing.frames import check_frame


def examine(channel: Channel | None, root: str, mode: str = "r") -> dict[str, Any]:
    """Look at a store as somebody else would: every run, every event, every pixel. By the runs' nights."""
    with Store(root, mode=mode) as store:
        acquired = [record for record in store.query(derived=False) if "night" in record.metadata]
        return {record.metadata["night"]: _examined(store, record.uid) for record in acquired}


def open_as_user(channel: Channel | None, root: str) -> dict[str, Any]:
    """Open a store for writing as somebody whom permissions bind; return the report, and what can be found."""
    obey_permissions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Store(root) as store:
            assert store.last_reconciliation is not None
            nights = [record.metadata.get("night") for record in store.query(derived=False)]
            results = [store.get(record.uid) for record in store.query(derived=True)]
            return {"report": store.last_reconciliation.to_dict(), "nights": nights, "results": results}


def _examined(store: Store, uid: str) -> dict[str, Any]:
    run = store[uid]
    record = store.record(uid)
    lines = list(read_journal(store.root / record.path))
    found = {
        "uid": uid,
        "status": run.status,
        "received": record.received,
        "stored": record.stored,
        "lost": record.lost,
        "stop": run.stop,
        "outcome": next((line.outcome for line in lines if line.name == "stop"), None),
        "stops": sum(line.name == "stop" for line in lines),
        "events": [],
        "frames": 0,
        "left": [path.name for path in (store.root / record.path).parent.iterdir()],
    }
    for stream in run.streams:
        if "view_a" not in run[stream].data_keys:
            continue
        for place, event in enumerate(run[stream].events):
            number = event["data"].get("number") or int(event["timestamps"]["view_a"])
            named = event["data"].get("view_a")
            try:
                frame = (run[stream]["view_a"][place] if named is None else store.array(named)).compute()
            except AssetQuarantined as error:
                found["events"].append([event["uid"], type(error).__name__])
                continue
            check_frame(frame, run=run.start["night"], key="view_a", event=number)
            found["events"].append([event["uid"], number])
        found["frames"] = len(run[stream]["view_a"])
    return found


def snapshot(root: Path, *, index: bool = True) -> dict[str, tuple[int, bytes]]:
    """When each file of a store was changed last, and its bytes."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and (index or not path.name.startswith("index.sqlite"))
    }


def answers(root: Path, mode: str = "r", **options: Any) -> list[str]:
    """Everything that an index answers: records of each kind by query, streams, points, lineage, counts."""
    said: list[str] = []
    with Store(root, mode=mode, **options) as store:
        index = store._index
        runs = list(store.query())
        for kind in ("run", "asset", "datum"):
            records = list(store.query(kind=kind))
            said += [f"{record!r} {dict(record.metadata)!r}" for record in records]
            said += [repr(store.record(record.uid)) for record in records]
            said += [f"{record.uid}: {store.lineage(record.uid)}" for record in records]
            said += [f"{record.uid}: {store.children(record.uid)}" for record in records]
            if kind == "asset":
                said += [repr((index.asset_document(r.uid), index.points_of_asset(r.uid))) for r in records]
        for run in runs:
            streams = index.streams(run.uid)
            said.append(repr(streams))
            said += [repr(index.points(run.uid, name, key)) for name, keys in streams.items() for key in keys]
            said += [
                repr([r.uid for r in store.query(kind=k, session=run.session)]) for k in ("run", "datum")
            ]
            said += [repr([r.uid for r in store.query(status=run.status)])]
            said += [repr([r.uid for r in store.query(derived=True, operation=run.operation)])]
        said += [repr(index.tombstones()), repr(index.pins())]
        said.append(repr({**store.stats(), "free_bytes": None, "root": None}))
    return said


def told_answers(channel: Channel, root: str, mode: str = "r") -> list[str]:
    """What the index of a store answers to a process of its own."""
    return answers(Path(root), mode)
