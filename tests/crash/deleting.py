"""What a child does that deletes, restores or purges what is in a store, and may die on the way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import shim
from zygote import Channel, mount_small_disk

from gently_bluesky import Store
from gently_bluesky.errors import StorageError
from gently_bluesky.upkeep.retention import Policy, Rule


def delete_and_more(channel: Channel, root: str, uid: str, what: str, die_at_call: int = 0) -> int:
    """Do ``what`` to a run and die at a call; return how many calls it takes."""
    with Store(root) as store:
        policy = Policy(rules=[Rule(max_size=1, derived_suffice=True)])
        plan = store.retention.plan(policy) if what == "apply" else None
        shim.watch(root, die_at_call)
        if plan is not None:
            assert not store.retention.apply(plan).left
        elif what == "delete":
            store.delete(uid, reason="room is needed", although=["unverified", "children"])
        elif what == "restore":
            store.restore(uid)
        else:
            store.purge(uid, now=True)
        return shim.counted()


def purge_on_full_disk(channel: Channel, folder: str) -> dict[str, object]:
    """Delete, fill the disk, try to purge, make a little room, and purge; return what was said, and how much it was."""
    from nights import acquire  # not beside this file

    mount_small_disk(Path(folder), 8 << 20)
    root, filler = Path(folder, "store"), Path(folder, "filler")
    with Store(root) as store:
        uid = acquire(store, min_free_bytes=0)
        store.delete(uid, reason="room is needed", although=["unverified"], keep_days=0)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    said = ""
    try:
        Store(root).close()
    except StorageError as error:
        said = str(error)
    os.truncate(filler, filler.stat().st_size - (1 << 20))
    with Store(root) as store:
        return {"said": said, "purged": len(store.purge())}


def put_away_on_another_disk(channel: Channel, root: str, uid: str) -> list[str]:
    """Delete and convert where the trash is a disk of its own; return what is said."""
    trash = Path(root, "trash")
    trash.mkdir()
    mount_small_disk(trash, 1 << 20)
    said: list[str] = []
    with Store(root) as store:
        for ask in (
            lambda: store.delete(uid, reason="room is needed", although=["unverified", "children"]),
            lambda: store.convert(uid, format="tiff", progress=False),
        ):
            try:
                ask()
            except StorageError as error:
                said.append(str(error))
    return said
