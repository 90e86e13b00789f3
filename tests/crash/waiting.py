"""Stores of which a run waits in the second place: made, killed, looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overflowing import come_back
from zygote import Zygote

EVENTS = 8
FAILS_AT = 4


class Places:
    """A small disk for a store, and a folder beside it to go on in."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote = zygote
        self.disk = folder / "disk"
        self.root = self.disk / "store"
        self.overflow = folder / "second"
        self.disk.mkdir()

    def do(self, *jobs: tuple[str, dict[str, Any]], size: int = 16 << 20) -> list[Any]:
        """Do jobs one after the other, each in a process of its own, with this store and its second place."""
        given = [
            (name, {"root": str(self.root), "overflow": str(self.overflow)} | more) for name, more in jobs
        ]
        done = self.zygote.call("on_small_disk", folder=str(self.disk), size=size, jobs=given)
        assert isinstance(done, list), f"no disk can be mounted here: {done}"
        return done


def acquiring(format: str, assets: str, fault: str, at: int, **more: Any) -> tuple[str, dict[str, Any]]:
    said = {"format": format, "assets": assets, "fault": fault, "at": at, "events": EVENTS, "night": "n"}
    return "acquire_into_overflow", said | more


def told_until(child: Any, wanted: str) -> list[list[Any]]:
    """Hear what a child announces until it says what is wanted; return the events."""
    announced: list[list[Any]] = []
    while wanted not in (message := child.hear()):
        assert "error" not in message, message
        if message.get("name") == "event":
            announced.append([message["doc"]["uid"], message["doc"]["data"]["number"]])
    return announced


def kill_in_overflow(zygote: Zygote, folder: Path, format: str, assets: str, after: int) -> list[list[Any]]:
    """Kill a run in its second place, once so many events are announced; return those that were."""
    where = {"root": str(folder / "store"), "overflow": str(folder / "second")}
    name, arguments = acquiring(format, assets, "forbid", FAILS_AT, events=200)
    child = zygote.start(name, **where, **arguments)
    announced: list[list[Any]] = []
    heard: list[Any] = []
    while len(announced) < after:
        heard = [child.hear()]
        announced += events_in(heard)
    announced += events_in(child.kill())
    come_back(folder / "store")
    return announced


def events_in(messages: list[Any]) -> list[list[Any]]:
    docs = [message["doc"] for message in messages if message.get("name") == "event"]
    return [[doc["uid"], doc["data"]["number"]] for doc in docs]


def waiting_store(zygote: Zygote, folder: Path, format: str, assets: str) -> None:
    """Make a store with a run that waits in its second place, after the death of its process."""
    folder.mkdir(parents=True)
    kill_in_overflow(zygote, folder, format, assets, FAILS_AT + 2)


def where(folder: Path) -> dict[str, str]:
    return {"root": str(folder / "store"), "overflow": str(folder / "second")}


def looked(zygote: Zygote, folder: Path, **more: Any) -> dict[str, Any]:
    return zygote.call("look", **(where(folder) | more))["runs"]["n"]
