"""What children of the zygote do on a disk that refuses single calls: TensorStore's and SQLite's as well as ours."""

from __future__ import annotations

import warnings
from typing import Any

import shim
from shim import Act, Kind
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError

__all__ = ["count_calls", "meet_faults"]

EVENTS = 2


def count_calls(channel: Channel, root: str, format: str, assets: str) -> dict[str, int]:
    """Return how many calls of each kind it takes to acquire a run."""
    with Store(root) as store:
        _acquire(store, "before", format, assets)
        shim.arm(root)
        _acquire(store, "counted", format, assets)
        return {kind.name or "": shim.counted(kind) for kind in Kind if kind is not Kind.MARK}


def meet_faults(
    channel: Channel, root: str, format: str, assets: str, faults: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Acquire one run after the other into one store; each of these faults meets one of them, the last meets none.

    Returns
    -------
    list
        Of each run what was raised, what was announced, how many calls were refused or cut short, and how many of
        that kind it made.
    """
    warnings.filterwarnings("ignore", ".* failed to reach the disk, by an error of its own, and did when")
    with Store(root) as store:
        said: list[dict[str, Any]] = []
        for number, fault in enumerate(faults):
            said.append(_acquire(store, f"n{number}", format, assets, **fault))
            channel.tell({"met": number})  # nobody has patience for all of them
        return [*said, _acquire(store, "after", format, assets)]


def _acquire(
    store: Store, night: str, format: str, assets: str, kind: str = "", **how: int
) -> dict[str, Any]:
    from scenes import Camera, _raised_by, acquisition, run_engine

    announced: list[list[Any]] = []
    failures: list[Exception] = []

    def note(name: str, doc: Any) -> None:
        if name == "event":
            announced.append([doc["uid"], doc["data"]["number"]])

    with run_engine() as RE:
        kept = {"format": format, "assets": assets, "min_free_bytes": 0}
        with store.writer(on_failure=failures.append, **kept) as writer:
            RE.subscribe(writer)
            writer.subscribe(note)
            if kind:
                at, act, until = how["at"], Act(how["act"]), how["until"]
                shim.arm(str(store.root), at, act, Kind[kind], until=until, error=how["error"])
            error = _raised_by(lambda: RE(acquisition(Camera(night), EVENTS)))
            refused, made = (shim.met(), shim.counted(Kind[kind])) if kind else (0, 0)
            if kind:
                shim.disarm()
    return {
        "night": night,
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "is_ours": isinstance(error, GentlyError),
        "was_called": error is None or error in failures,
        "announced": announced,
        "refused": refused,
        "made": made,
    }
