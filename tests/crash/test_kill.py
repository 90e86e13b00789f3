"""SIGKILL at any instant loses nothing that was announced, and what was only accepted is counted."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from busy import check_results
from looking import answers, examine, snapshot
from zygote import Zygote

from gently_bluesky import Store

EVENTS = 400
SHAPE = (4, 96, 128)


def killed_at_random(
    zygote: Zygote, root: Path, format: str, dice: random.Random, night: str, assets: str
) -> list[Any]:
    """Kill a process that acquires; return the documents it had announced."""
    job = {"root": str(root), "format": format, "night": night, "events": EVENTS, "shape": SHAPE}
    job["assets"] = assets
    child = zygote.start("acquire", **job)
    heard = [child.hear() for _ in range(int(160 ** dice.random()))]  # the first moments are the richest
    wait_at_most(dice.random() * 0.01)
    heard += child.kill()
    return [message for message in heard if message is not None and "name" in message]


def wait_at_most(seconds: float) -> None:
    """Let a moment pass that no event marks."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def events_of(announced: list[Any]) -> list[list[Any]]:
    documents = (message["doc"] for message in announced if message["name"] == "event")
    return [[doc["uid"], doc["data"]["number"]] for doc in documents]


def assert_recovered(run: dict[str, Any], announced: list[list[Any]]) -> None:
    """Every announced event is there, bit for bit, nothing else is claimed, and the counts are right."""
    assert run["events"][: len(announced)] == announced
    stored = len(run["events"])
    assert [number for _, number in run["events"]] == list(range(1, stored + 1))
    assert run["frames"] == run["stored"] == stored
    assert run["received"] >= stored
    assert run["lost"] == run["received"] - stored
    assert run["stops"] == 1
    assert not {".live", ".reserve"} & set(run["left"])
    assert run["status"] == "incomplete"
    assert run["stop"]["exit_status"] == "abort"
    assert "process" in run["stop"]["reason"]


def assert_nothing_half_done(root: Path, format: str) -> None:
    in_place = [name for name in snapshot(root) if not name.startswith("quarantine/")]
    leftovers = [name for name in in_place if name.endswith((".__lock", ".tmp", ".partial"))]
    assert leftovers == []
    with Store(root, mode="r") as store:
        for asset in store.query(kind="asset"):
            in_files = store.array(asset.uid).shape[0]
            assert in_files == asset.shape[0]
            if format == "zarr":
                import zarr

                assert zarr.open_group(root / asset.path, mode="r")["0"].shape[0] == in_files


def kill_and_recover(zygote: Zygote, root: Path, format: str, seed: int, assets: str) -> None:
    night = f"night-{seed}"
    announced = killed_at_random(zygote, root, format, random.Random(seed), night, assets)
    files = snapshot(root, index=False)
    before = examine(None, str(root), mode="r")
    assert snapshot(root, index=False) == files
    if any(message["name"] == "start" for message in announced):
        assert before[night]["events"][: len(events_of(announced))] == events_of(announced)
        assert before[night]["status"] == "incomplete"

    recovered = examine(None, str(root), mode="a")
    if night in before:
        assert recovered[night]["events"] == before[night]["events"]
        assert_recovered(recovered[night], events_of(announced))
    else:
        assert announced == []
    assert_nothing_half_done(root, format)

    assert_opening_changes_nothing(root)


def assert_opening_changes_nothing(root: Path) -> None:
    """Whoever opens a store that was recovered touches no file, and the files alone say what the index does."""
    files = snapshot(root)
    said = answers(root, "a")
    assert snapshot(root) == files
    assert answers(root, "r") == said
    (root / "index.sqlite").unlink()
    assert answers(root, "a") == said
    assert snapshot(root, index=False) == {
        name: about for name, about in files.items() if not name.startswith("index.sqlite")
    }


@pytest.mark.parametrize("assets", ["datum", "stream"])
@pytest.mark.parametrize("seed", range(5))
def test_killed_writer_loses_no_announced_event(
    zygote: Zygote, root: Path, format: str, seed: int, assets: str
) -> None:
    kill_and_recover(zygote, root, format, seed, assets)


@pytest.mark.long
@pytest.mark.parametrize("assets", ["datum", "stream"])
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_writer_loses_no_announced_event_at_many_moments(
    zygote: Zygote, root: Path, format: str, seed: int, assets: str
) -> None:
    kill_and_recover(zygote, root, format, seed, assets)


def kill_while_putting(zygote: Zygote, root: Path, seed: int) -> None:
    dice = random.Random(seed)
    child = zygote.start("put_again_and_again", root=str(root), of=f"{seed}")
    heard = [child.hear() for _ in range(int(24 ** dice.random()))]
    wait_at_most(dice.random() * 0.01)
    heard += child.kill()
    told = {word["put"]: (word["of"], word["n"]) for word in heard if "put" in word}
    with Store(root, mode="r") as store:
        seen = check_results(store)
    assert told.items() <= seen.items()
    with Store(root) as store:
        kept = check_results(store)
        assert seen.items() <= kept.items()
        assert sorted(n for _, n in kept.values()) == list(range(len(kept)))
        assert {record.status for record in store.query()} <= {"complete", "incomplete"}
        for record in store.query(status="incomplete"):
            assert record.metadata["n"] == len(kept)
            assert record.lost == record.received - record.stored
    assert_opening_changes_nothing(root)


@pytest.mark.parametrize("seed", range(5))
def test_killed_process_loses_no_result_that_it_had_put(zygote: Zygote, root: Path, seed: int) -> None:
    kill_while_putting(zygote, root, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_process_loses_no_result_that_it_had_put_at_many_moments(
    zygote: Zygote, root: Path, seed: int
) -> None:
    kill_while_putting(zygote, root, seed)


def test_counter_of_received_frames_survives_the_kill(zygote: Zygote, root: Path, format: str) -> None:
    """Seven frames are in the buffer of a writer whose subscriber hangs when it is killed."""
    child = zygote.start("accept_and_hang", root=str(root), format=format, night="n", events=8)
    assert child.hear() == {"accepted": 8}
    child.kill()
    run = examine(None, str(root), mode="a")["n"]
    assert (run["received"], run["stored"], run["lost"]) == (8, 1, 7)
    with Store(root) as store:
        record = store.record(run["uid"])
        assert (record.received, record.stored, record.lost) == (8, 1, 7)


def test_count_is_unknown_where_power_was_lost_before_the_lock_was_on_disk(
    zygote: Zygote, root: Path, format: str
) -> None:
    zygote.start(
        "acquire", root=str(root), format=format, night="n", events=9, die_after_events=3
    ).last_words()
    (live,) = root.glob("runs/*/*/*/*/.live")
    live.write_bytes(b"")
    run = examine(None, str(root), mode="a")["n"]
    assert (run["received"], run["stored"], run["lost"]) == (None, 3, None)
    assert run["outcome"] == {"status": "incomplete", "received": None, "stored": 3, "lost": None}


def test_run_whose_lock_was_taken_away_ends_as_incomplete(zygote: Zygote, root: Path, format: str) -> None:
    zygote.start(
        "acquire", root=str(root), format=format, night="n", events=9, die_after_events=3
    ).last_words()
    for name in (".live", ".reserve"):
        next(root.glob(f"runs/*/*/*/*/{name}")).unlink()
    run = examine(None, str(root), mode="a")["n"]
    assert (run["status"], run["stored"], run["lost"], run["stops"]) == ("incomplete", 3, None, 1)
    (root / "index.sqlite").unlink()
    assert examine(None, str(root), mode="a")["n"] == run
