"""Other processes see each event of a run that goes on: whole, once, in order, and whatever becomes of the writer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looking import examine, snapshot
from memory_left import clear
from zygote import Child, Zygote

from gently_bluesky import Store

EVENTS = 60
SHAPE = (4, 96, 128)


@pytest.fixture(params=["zarr", "tiff", "memory"])
def format(request: pytest.FixtureRequest, root: Path) -> Iterator[str]:
    """Each way of keeping pixels."""
    yield request.param
    clear(root)


@pytest.fixture
def readers(zygote: Zygote, root: Path) -> Iterator[list[Child]]:
    """Two processes that wait for a run in an empty store, one of which may write too."""
    yield from start_readers(zygote, root, "follow_next_run")


@pytest.fixture
def waiting(zygote: Zygote, root: Path) -> Iterator[list[Child]]:
    """Two processes that ask for what is not there yet."""
    yield from start_readers(zygote, root, "wait_for_more")


def start_readers(zygote: Zygote, root: Path, job: str) -> Iterator[list[Child]]:
    Store(root).close()
    children = [zygote.start(job, root=str(root), mode=mode) for mode in ("r", "a")]
    for child in children:
        assert "ready" in child.hear()
    yield children
    for child in children:
        child.kill()


def hear_until(child: Child, word: str) -> list[Any]:
    """Return what is said up to a message that has this word."""
    heard: list[Any] = []
    while word not in (message := child.hear()):
        heard.append(message)
    return heard


def datums(messages: list[Any]) -> list[str]:
    """The uids of the frames that were announced."""
    return [one["doc"]["data"]["view_a"] for one in messages if one and one.get("name") == "event"]


def assert_ended(found: dict[str, Any], announced: list[str], status: str, how: str) -> None:
    assert found["seen"] == announced
    assert found["status"] == status
    early, *whole = found["held"]
    assert 1 <= early <= len(announced)
    assert whole == [len(announced)] * 2
    waited, asked = found["refused"]
    assert f"the run has ended ({how}): there will be no more" in waited
    assert "is out of bounds for axis 0" in asked


def test_two_readers_see_each_event_whole_once_and_in_order(
    zygote: Zygote, root: Path, format: str, readers: list[Child]
) -> None:
    writer = zygote.start("acquire", root=str(root), format=format, night="n", events=EVENTS, shape=SHAPE)
    announced = datums(hear_until(writer, "result"))
    writer.wait()
    assert len(announced) == EVENTS
    for reader in readers:
        assert_ended(reader.result(), announced, "complete", "complete")


def test_each_event_is_seen_before_the_next_is_taken(
    zygote: Zygote, root: Path, format: str, readers: list[Child]
) -> None:
    """While the plan waits the run goes on: nothing but the announcement can have told the readers."""
    writer = zygote.start("acquire", root=str(root), format=format, night="n", events=6, pause_before=4)
    announced = datums(hear_until(writer, "waiting"))
    for reader in readers:
        assert [reader.hear()["seen"] for _ in range(3)] == announced
    writer.tell("go on")
    announced += datums(hear_until(writer, "result"))
    writer.wait()
    for reader in readers:
        assert_ended(reader.result(), announced, "complete", "complete")


@pytest.mark.parametrize("is_killed", [False, True])
def test_who_asks_beyond_what_is_stored_waits_or_is_told_to_ask_again(
    zygote: Zygote, root: Path, format: str, waiting: list[Child], is_killed: bool
) -> None:
    writer = zygote.start("acquire", root=str(root), format=format, night="n", events=6, pause_before=4)
    hear_until(writer, "waiting")
    for reader in waiting:
        assert reader.hear() == {"has": 3, "refused": ["not yet", "not yet"]}
    if is_killed:
        writer.kill()
    else:
        writer.tell("go on")
        hear_until(writer, "result")
        writer.wait()
    for reader in waiting:
        found = reader.result()
        if is_killed:
            assert found["has"] == 3
            assert "holds 3 events, 6 were waited for; the run has ended (its process died)" in found["ended"]
        else:
            assert found == {"has": 6, "ended": None}


def test_readers_of_a_killed_writer_have_all_that_it_announced(
    zygote: Zygote, root: Path, format: str, readers: list[Child]
) -> None:
    writer = zygote.start("acquire", root=str(root), format=format, night="n", events=6, pause_before=4)
    announced = datums(hear_until(writer, "waiting"))
    for reader in readers:
        assert [reader.hear()["seen"] for _ in range(3)] == announced
    files = snapshot(root, index=False)
    writer.kill()
    for reader in readers:
        assert_ended(reader.result(), announced, "incomplete", "its process died")
    assert snapshot(root, index=False) == files


@pytest.mark.parametrize("seed", range(3))
def test_readers_see_what_recovery_keeps_whenever_the_writer_is_killed(
    zygote: Zygote, root: Path, format: str, readers: list[Child], seed: int
) -> None:
    """What stood in the journal was announced, also where the process died before it could say so."""
    dice = random.Random(seed)
    writer = zygote.start("acquire", root=str(root), format=format, night="n", events=10**6, shape=SHAPE)
    heard = [writer.hear() for _ in range(10 + dice.randrange(100))]
    announced = datums(heard + writer.kill())
    found = [reader.result() for reader in readers]
    examine(None, str(root), mode="a")
    with Store(root, mode="r") as store:
        kept = [record.uid for record in store.query(kind="datum")]
        assert store[-1].status == "incomplete"
    assert set(announced) <= set(kept)
    for seen in found:
        assert seen["seen"][: len(announced)] == announced
        assert set(seen["seen"]) == set(kept)
        assert_ended(seen, seen["seen"], "incomplete", "its process died")
