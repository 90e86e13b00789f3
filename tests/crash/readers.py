"""Processes that watch a run while another one writes it, and check every pixel."""

from __future__ import annotations

from typing import Any

from zygote import Channel

from gently_bluesky import LazyArray, Store
from gently_bluesky.errors import NotYetStored, RunEnded
from gently_bluesky.testing.frames import check_frame

KEY = "view_a"
PATIENCE_S = 60.0


def follow_next_run(channel: Channel, root: str, mode: str, after: str | None = None) -> dict[str, Any]:
    """Wait for a run, that ``after`` another one if need be, and tell each event of it that comes.

    Say how it ended and what there is then.
    """
    with Store(root, mode=mode) as store:
        channel.tell({"ready": mode})
        run = store.wait_for_run(after, timeout_s=PATIENCE_S)
        night = run.start["night"]
        early = run.wait("primary", KEY, timeout_s=PATIENCE_S)
        seen: list[str] = []
        for event in early.follow(start=0, timeout_s=PATIENCE_S):
            seen.append(event.uid)
            check_frame(event.compute(), run=night, key=KEY, event=len(seen))
            channel.tell({"seen": event.uid})
        whole = early.wait(len(seen))
        for array in (early, whole, run["primary"][KEY]):
            _check(array, night)
        return {
            "seen": seen,
            "status": run.status,
            "held": [len(early), len(whole), len(run["primary"][KEY])],
            "refused": _refused(whole),
        }


def wait_for_more(channel: Channel, root: str, mode: str) -> dict[str, Any]:
    """Say what is answered to who asks beyond the third event, and then wait until there are six."""
    with Store(root, mode=mode) as store:
        channel.tell({"ready": mode})
        run = store.wait_for_run(timeout_s=PATIENCE_S)
        early = run.wait("primary", KEY, 3, timeout_s=PATIENCE_S)
        channel.tell({"has": len(early), "refused": _refused(early)})
        try:
            later = early.wait(6)
        except RunEnded as error:
            return {"has": len(early), "ended": str(error)}
        _check(later, run.start["night"])
        return {"has": len(later), "ended": None}


def _check(array: LazyArray, night: str) -> None:
    for number, frame in enumerate(array.compute(), 1):
        check_frame(frame, run=night, key=KEY, event=number)


def _refused(array: LazyArray) -> list[str]:
    """What is said of the event behind the last: by waiting for no time, and by asking."""
    said: list[str] = []
    for ask in (lambda: array.wait(len(array) + 1, timeout_s=0), lambda: array[len(array)]):
        try:
            ask()
        except NotYetStored:
            said.append("not yet")
        except (RunEnded, IndexError) as error:
            said.append(str(error))
    return said
