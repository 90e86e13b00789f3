"""What a child does that deletes, restores or purges what is in a store, and may die on the way."""

from __future__ import annotations

import shim
from zygote import Channel

from gently_bluesky import Store


def delete_and_more(channel: Channel, root: str, uid: str, what: str, die_at_call: int = 0) -> int:
    """Do ``what`` to a run and die at a call; return how many calls it takes."""
    with Store(root) as store:
        shim.watch(root, die_at_call)
        if what == "delete":
            store.delete(uid, reason="room is needed", although=["unverified", "children"])
        elif what == "restore":
            store.restore(uid)
        else:
            store.purge(uid, now=True)
        return shim.counted()
