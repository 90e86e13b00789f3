"""What children of the zygote do with a store that is verified: they say how far they are, and may be stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from zygote import Channel

from gently_bluesky import Store

__all__ = ["verify_and_tell"]


def verify_and_tell(channel: Channel, root: str, stop_at: int, resume: bool = False) -> dict[str, Any]:
    """Verify everything on one thread; wait for a word after each run from ``stop_at`` on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = 0

    def tell(now: Any) -> None:
        nonlocal told
        if now.runs > told:
            told = now.runs
            if told >= stop_at:
                channel.tell({"runs": told})
                channel.hear()

    with Store(Path(root)) as store:
        try:
            report = store.verify(progress=tell, workers=1, resume=resume)
        except KeyboardInterrupt:
            return {"interrupted": told}
    return report.to_dict()
