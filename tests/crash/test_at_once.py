"""Many processes on one store: readers see whole frames only and stop nobody, and the index is that of the files.

Some write runs, results and by devices, some read with and without an index or with other people's libraries, some
are killed, and some recover what those left, all at once.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from busy import check_results
from looking import answers, examine
from memory_left import clear
from zygote import Child, Zygote

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame

LOOKERS = ["index", "journals", "follow", "plain"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A store; what is in memory of it goes after the test."""
    Store(tmp_path / "store").close()
    yield tmp_path / "store"
    clear(tmp_path / "store")


@pytest.fixture
def started(zygote: Zygote, root: Path) -> Iterator[Any]:
    """Starts children on the store; whatever becomes of the test they end with it."""
    children: list[Child] = []

    def start(job: str, **arguments: Any) -> Child:
        children.append(zygote.start(job, root=str(root), **arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()


def killed(started: Any, name: str, after: int) -> list[Any]:
    """Kill a process that writes when it has said so much; return all that it said."""
    victim = started("work", name=name, rounds=1000)
    heard = [victim.hear() for _ in range(after)]
    return heard + victim.kill()


def all_at_once(started: Any, root: Path, seed: int, rounds: int, kills: int) -> None:
    dice = random.Random(seed)
    lookers = [started("look_around", how=how, seed=seed) for how in LOOKERS]
    frozen = started("look_around", how="index", seed=seed + 1)
    for looker in (*lookers, frozen):
        assert "looking" in looker.hear()
    held = started("acquire", format="zarr", night="held", events=6, pause_before=4)
    for looker in lookers:  # while this run goes on, and before the others begin
        assert "saw" in looker.hear()
    held.tell("go on")
    writers = [started("work", name=f"w{seed}{letter}", rounds=rounds) for letter in "ab"]
    heard = [writers[0].hear() for _ in range(9)]
    listeners = [Thread(target=lambda writer=writer: heard.extend(writer.last_words())) for writer in writers]
    for listener in listeners:  # else they wait for who hears them, as their subscribers do
        listener.start()
    os.kill(frozen.pid, signal.SIGSTOP)
    for kill in range(kills):
        heard.extend(killed(started, f"k{seed}-{kill}", 1 + dice.randrange(60)))
        recoveries = [started("recover", die_at_call=0) for _ in range(2)]
        for recovery in recoveries:
            recovery.result()
    for listener in listeners:
        listener.join()
    os.kill(frozen.pid, signal.SIGCONT)
    for looker in (*lookers, frozen):
        with suppress(BrokenPipeError):  # then its result says why
            looker.tell("enough")
    looked = [looker.result() for looker in lookers]
    assert min(looked) > 0, dict(zip(LOOKERS, looked, strict=True))
    frozen.result()
    heard.extend(held.last_words())
    assert [word for word in heard if "error" in word] == []
    assert sum("result" in word for word in heard) == 3
    assert_nothing_lost(root, heard)


def assert_nothing_lost(root: Path, heard: list[Any]) -> None:
    said = answers(root, "a")
    seen = examine(None, str(root))
    kept = {uid: number for run in seen.values() for uid, number in run["events"]}
    for word in heard:
        if word.get("name") == "event":
            assert kept[word["doc"]["uid"]] == word["doc"]["data"]["number"]
    for night, run in seen.items():
        assert run["status"] == (
            "incomplete" if run["lost"] or run["stop"]["exit_status"] == "abort" else "complete"
        )
        assert night.startswith("k") or run["status"] == "complete"
        assert run["stops"] == 1
    with Store(root, mode="r") as store:
        results = check_results(store)
    assert {
        word["put"]: (word["of"], word["n"]) for word in heard if "put" in word
    }.items() <= results.items()
    (root / "index.sqlite").unlink()
    assert answers(root, "a") == said


def test_outsider_sees_what_was_announced_and_nothing_else(started: Any, root: Path, format: str) -> None:
    writer = started("acquire", format=format, night="n", events=6, pause_before=4)
    while "waiting" not in writer.hear():
        pass
    (asset,) = root.glob("runs/*/*/*/*/primary-view_a*")
    if format == "zarr":
        frames = zarr.open_group(asset, mode="r")["0"][:]
    else:
        frames = np.stack([tifffile.imread(file) for file in sorted(asset.iterdir())])
    assert len(frames) == 3
    for number, frame in enumerate(frames, start=1):
        check_frame(frame, run="n", key="view_a", event=number)
    writer.tell("go on")
    assert "error" not in writer.last_words()[-1]


def test_processes_that_write_read_die_and_recover_at_once_agree_in_the_end(started: Any, root: Path) -> None:
    all_at_once(started, root, seed=1, rounds=4, kills=2)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(100, 105))
def test_many_processes_agree_for_minutes(started: Any, root: Path, seed: int) -> None:
    all_at_once(started, root, seed, rounds=60, kills=15)
