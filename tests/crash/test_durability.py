"""What is synced, and when: seen from outside, at each level of durability, for each way of keeping pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from looking import examine
from test_kill import assert_nothing_half_done, events_of
from traces import SYNCS, Call, Disk, calls_in, is_of_index, trace
from zygote import Zygote

ALL_SYNCED = {
    "event": ("opened", "start", "event", "stop", "staged", "recorded", "unstaged", "put"),
    "run": ("opened", "start", "stop", "staged", "unstaged"),
    "never": ("opened",),
}
"""When power may be lost, and nothing that was announced is."""
NONE_SYNCED = {
    "event": (),
    "run": ("descriptor", "resource", "event", "recorded"),
    "never": (
        "start",
        "descriptor",
        "resource",
        "event",
        "stop",
        "staging",
        "staged",
        "recorded",
        "unstaged",
    ),
}
"""Notes before which nothing was synced since the note ahead."""


def traced(zygote: Zygote, folder: Path, format: str, sync: str) -> list[Call]:
    job = {"root": str(folder / "store"), "told": str(folder / "told"), "format": format, "sync": sync}
    child = zygote.start("write_and_tell", **job)
    assert child.hear() == {"ready": True}
    tracer = trace(child.pid, folder / "trace")
    child.tell("go")
    files = child.result()["files"]
    tracer.communicate(timeout=60)
    assert sum(name.endswith("documents.jsonl") for name in files) == 2 + (sync == "event")
    return list(calls_in(folder / "trace"))


@pytest.mark.parametrize("sync", ["event", "run", "never"])
def test_what_is_announced_is_synced_when_the_level_says_so_and_not_before(
    zygote: Zygote, tmp_path: Path, format: str, sync: str
) -> None:
    disk, root, notes = Disk(str(tmp_path / "store")), str(tmp_path / "store"), list[str]()
    synced: list[str] = []
    for call in traced(zygote, tmp_path, format, sync):
        if call.file == str(tmp_path / "told"):
            (note,) = (text.removesuffix("\\n") for text in call.texts)
            notes.append(note)
            if note in ALL_SYNCED[sync]:
                assert disk.unsafe() == [], f"{note} number {notes.count(note)}"
            if note in NONE_SYNCED[sync]:
                assert synced == [], f"before {note} number {notes.count(note)}"
            synced = []
        elif call.name in SYNCS and call.file.startswith(root) and not is_of_index(call.file):
            synced.append(call.file)
        disk.take(call)
    assert notes.count("event") == notes.count("recorded") == 3
    assert set(ALL_SYNCED[sync]) <= set(notes)
    assert len(disk.written) >= 13  # they were seen
    assert bool(disk.unsafe()) == (sync == "never")


@pytest.mark.parametrize("sync", ["run", "never"])
def test_killed_writer_loses_no_announced_event_whatever_is_synced(
    zygote: Zygote, root: Path, format: str, sync: str
) -> None:
    job = {
        "root": str(root),
        "format": format,
        "night": "n",
        "events": 9,
        "die_after_events": 4,
        "sync": sync,
    }
    words = zygote.start("acquire", **job).last_words()
    announced = events_of([word for word in words if "name" in word])
    assert len(announced) == 4
    for mode in ("r", "a"):
        run = examine(None, str(root), mode=mode)["n"]
        assert (run["events"], run["status"]) == (announced, "incomplete")
    assert_nothing_half_done(root, format)
