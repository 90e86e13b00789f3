"""Jobs of children that take part in a history: they write runs, to their end or until they are killed."""

from __future__ import annotations

from typing import Any

import numpy as np
from stores import frame
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.testing.documents import HandMadeRun

SMALL = (2, 6, 8)


def write_run(
    channel: Channel | None, root: str, name: str, events: int, pause_after: int, **how: Any
) -> str:
    """Write a run in a process of its own, telling each announced event; pause after one until told to go on."""
    with Store(root) as store:
        return written(store, name, events, channel, pause_after, **how)


def written(
    store: Store, name: str, events: int, channel: Channel | None = None, pause_after: int = 0, **how: Any
) -> str:
    """Write a run of so many events; return its uid."""
    run = HandMadeRun(history=name, session=name[:1])
    descriptor = run.descriptor(image={"dims": ["z", "y", "x"]}, number={"dtype": "integer"})
    with store.writer(min_free_bytes=0, **how) as writer:
        if channel is not None:
            writer.subscribe(lambda name, doc: channel.tell({name: doc["uid"]}) if name == "event" else None)
        writer("start", run.start)
        writer("descriptor", descriptor)
        for number in range(events):
            writer("event", run.event(descriptor, image=pixels(name, number), number=number))
            if channel is not None and number == pause_after:
                channel.tell({"paused": run.uid})
                channel.hear()
        writer("stop", run.stop())
    return run.uid


def pixels(name: str, number: int) -> np.ndarray:
    """The frame of an event, which nobody has to remember."""
    return frame(name, "image", number, SMALL)
