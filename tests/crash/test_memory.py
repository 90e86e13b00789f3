"""What is in shared memory when processes die: nothing that was announced goes, and nothing else stays."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import examine, snapshot
from memory_left import clear, segments_of
from shim import one_of_each_stretch
from test_kill import assert_opening_changes_nothing, wait_at_most
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame
from gently_bluesky.upkeep.sweeping import PLAN

FORMATS = ["zarr", "tiff"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store; what is in memory of it goes after the test."""
    yield tmp_path / "store"
    clear(tmp_path / "store")


def events_of(words: list[Any]) -> list[list[Any]]:
    documents = [word["doc"] for word in words if word is not None and word.get("name") == "event"]
    return [[doc["uid"], doc["data"]["number"]] for doc in documents]


def acquire(zygote: Zygote, root: Path, night: str, **how: Any) -> list[Any]:
    """Acquire a run into memory in a process of its own; return what it said."""
    return zygote.start("acquire", root=str(root), format="memory", night=night, **how).last_words()


# -- writers that die --------------------------------------------------------------------------------------


def kill_and_recover(zygote: Zygote, root: Path, seed: int) -> None:
    dice = random.Random(seed)
    child = zygote.start("acquire", root=str(root), format="memory", night="n", events=400)
    heard = [child.hear() for _ in range(2 + int(160 ** dice.random()))]
    wait_at_most(dice.random() * 0.01)
    announced = events_of([*heard, *child.kill()])

    seen = examine(None, str(root), mode="r")
    assert seen["n"]["events"][: len(announced)] == announced
    run = examine(None, str(root), mode="a")["n"]
    assert run["events"] == seen["n"]["events"]
    assert (run["status"], run["stored"]) == ("incomplete", len(run["events"]))
    segments = segments_of(root)
    assert len(segments) == (1 if run["events"] else 0)
    left = sorted(file.name for segment in segments for file in segment.iterdir())
    assert left == [".lock", *(f"{event:06d}.raw" for event in range(run["stored"]))][: len(left)]

    assert_opening_changes_nothing(root)
    assert segments_of(root) == segments


@pytest.mark.parametrize("seed", range(5))
def test_killed_writer_loses_no_announced_event_and_leaves_no_other(
    zygote: Zygote, root: Path, seed: int
) -> None:
    kill_and_recover(zygote, root, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_killed_writer_loses_no_announced_event_at_many_moments(
    zygote: Zygote, root: Path, seed: int
) -> None:
    kill_and_recover(zygote, root, seed)


def test_memory_of_a_run_that_announced_nothing_is_swept(zygote: Zygote, root: Path) -> None:
    whole = zygote.call(
        "acquire", root=str(root), format="memory", night="whole", events=2, die_at_call=1 << 30
    )
    kept = segments_of(root)
    assert len(kept) == 1
    for call in one_of_each_stretch(whole["calls"], 22, "memory"):
        dying = {"events": 2, "die_at_call": call}
        zygote.start("acquire", root=str(root), format="memory", night=f"n{call}", **dying).dying_words(call)
        Store(root).close()
        with Store(root, mode="r") as store:
            announcing = [asset for asset in store.query(kind="asset") if asset.shape and asset.shape[0]]
            for asset in announcing:
                assert store.array(asset.uid).compute().any()
        assert len(segments_of(root)) == len(announcing)
        small_files = list(root.glob("runs/*/*/*/*/*.memory"))
        assert len(small_files) == len(announcing)
    assert kept[0] in segments_of(root)


def test_segments_of_a_living_writer_are_left_alone(zygote: Zygote, root: Path) -> None:
    child = zygote.start("acquire", root=str(root), format="memory", night="n", events=6, pause_before=4)
    while "waiting" not in child.hear():
        pass
    (segment,) = segments_of(root)
    before = sorted(file.name for file in segment.iterdir())
    for _ in range(2):
        with Store(root) as store:
            check_frame(np.asarray(store[-1]["view_a"][2]), run="n", key="view_a", event=3)
    assert sorted(file.name for file in segment.iterdir()) == before
    child.tell("go on")
    child.result()
    run = examine(None, str(root))["n"]
    assert (run["status"], run["stored"]) == ("complete", 6)
    assert segments_of(root) == [segment]


def test_run_whose_folder_was_taken_away_leaves_nothing_in_memory(zygote: Zygote, root: Path) -> None:
    acquire(zygote, root, "n", events=2)
    (journal,) = root.glob("runs/*/*/*/*/documents.jsonl")
    shutil.rmtree(journal.parent)
    assert len(segments_of(root)) == 1
    Store(root).close()
    assert segments_of(root) == []


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"segment": "gently-0"}'])
def test_announced_pixels_stay_when_the_file_that_names_them_is_lost(
    zygote: Zygote, root: Path, damage: bytes | None
) -> None:
    acquire(zygote, root, "n", events=2)
    (named,) = root.glob("runs/*/*/*/*/*.memory")
    content = named.read_bytes()
    named.unlink()
    if damage is not None:
        named.write_bytes(damage)
    Store(root).close()
    named.write_bytes(content)
    assert examine(None, str(root))["n"]["stored"] == 2


def test_full_shared_memory_fails_the_run_and_keeps_what_was_announced(zygote: Zygote, root: Path) -> None:
    how = {"root": str(root), "format": "memory", "night": "n", "events": 60, "fault": "", "when": "crowded"}
    jobs = [
        ("acquire_on_failing_disk", how),
        ("examine", {"root": str(root)}),
        ("materialize", {"root": str(root), "format": "zarr"}),
        ("examine", {"root": str(root)}),
        ("acquire", {"root": str(root), "format": "memory", "night": "more", "events": 20}),
        ("examine", {"root": str(root)}),
    ]
    results = zygote.call("on_small_disk", folder="/dev/shm", size=1 << 20, jobs=jobs)
    if not isinstance(results, list):
        pytest.skip(f"nothing can be mounted here: {results}")
    report, failed, _, kept, _, both = results
    assert report["error"] == "StorageFull"
    assert report["is_one_object"]
    assert "convert or remove runs that are kept in memory" in report["message"]
    assert failed["n"]["status"] == kept["n"]["status"] == "failed"
    assert 20 <= failed["n"]["stored"] < 60
    assert failed["n"]["events"] == kept["n"]["events"]
    assert both["n"] == kept["n"]
    assert (both["more"]["status"], both["more"]["stored"]) == ("complete", 20)


# -- materialising that dies -------------------------------------------------------------------------------


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def kept_as(root: Path) -> list[str | None]:
    with Store(root, mode="r") as store:
        return [asset.format for asset in store.query(kind="asset")]


def dies_and_is_put_right(
    zygote: Zygote, template: Path, folder: Path, format: str, calls: Iterable[int]
) -> None:
    """Die before each of these calls, look, open, look, and materialise for good."""
    for call in calls:
        root = folder / f"at-{call}"
        shutil.copytree(template, root)
        clear(root)
        acquire(zygote, root, "n", events=3)
        before = examine(None, str(root))["n"]
        zygote.start("materialize", root=str(root), format=format, die_at_call=call).dying_words(call)
        for mode in ("r", "a", "r"):
            run = examine(None, str(root), mode=mode)["n"]
            assert run["events"] == before["events"], f"differs after a death at call {call}"
            assert (run["uid"], run["stop"], run["outcome"]) == (
                before["uid"],
                before["stop"],
                before["outcome"],
            )
        assert not {PLAN, ".live"} & set(run["left"])
        is_new = kept_as(root) == [f"GENTLY_{format.upper()}"]
        assert len(segments_of(root)) == (0 if is_new else 1)
        assert len(run["left"]) == 2, run["left"]
        files = snapshot(root)
        Store(root).close()
        assert snapshot(root) == files
        zygote.call("materialize", root=str(root), format=format)
        assert examine(None, str(root))["n"]["events"] == before["events"]
        assert kept_as(root) == [f"GENTLY_{format.upper()}"]
        assert segments_of(root) == []


def calls_of(zygote: Zygote, root: Path, format: str) -> int:
    acquire(zygote, root, "n", events=3)
    return zygote.call("materialize", root=str(root), format=format, die_at_call=1 << 30)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    Store(tmp_path / "empty").close()
    return tmp_path / "empty"


def test_materialising_that_dies_leaves_the_run_as_it_was_or_as_it_is_to_be(
    zygote: Zygote, root: Path, empty: Path, tmp_path: Path, form: str
) -> None:
    calls = calls_of(zygote, root, form)
    dies_and_is_put_right(zygote, empty, tmp_path, form, one_of_each_stretch(calls, 5, form))


@pytest.mark.long
@pytest.mark.parametrize("first", range(1, 9))
def test_materialising_that_dies_at_any_call_leaves_the_run_whole(
    zygote: Zygote, root: Path, empty: Path, tmp_path: Path, form: str, first: int
) -> None:
    calls = calls_of(zygote, root, form)
    dies_and_is_put_right(zygote, empty, tmp_path, form, range(first, calls + 1, 8))


def test_copy_that_was_begun_is_removed_by_the_next_attempt_too(
    zygote: Zygote, root: Path, form: str
) -> None:
    """Without anybody opening the store in between: it is open already."""
    acquire(zygote, root, "n", events=3)
    with Store(root) as store:
        (run,) = store.query()
        zygote.start("materialize", root=str(root), format="zarr", die_at_call=40).dying_words(40)
        assert (root / run.path).with_name(PLAN).exists()
        store.materialize(run.uid, format=form)
        assert not (root / run.path).with_name(PLAN).exists()
        assert {asset.format for asset in store.query(kind="asset")} == {f"GENTLY_{form.upper()}"}
    assert examine(None, str(root))["n"]["stored"] == 3
    assert segments_of(root) == []


# -- owners of hot pools that die --------------------------------------------------------------------------


def test_pool_of_a_dead_owner_is_swept_and_that_of_a_living_one_is_not(zygote: Zygote, root: Path) -> None:
    zygote.call("acquire", root=str(root), format="zarr", night="n", events=2)
    with Store(root, mode="r") as store:
        asset = next(store.query(kind="asset")).uid
    dead, living = (zygote.start("hold_hot_pool", root=str(root), asset=asset, night="n") for _ in range(2))
    names = [child.hear()["pool"] for child in (dead, living)]
    with Store(root, mode="r") as store:
        view = store.array(asset)
        dead.kill()
        assert sorted(path.name for path in segments_of(root)) == sorted(names)
        check_frame(np.asarray(view[0]), run="n", key="view_a", event=1)
        Store(root).close()
        assert [path.name for path in segments_of(root)] == names[1:]
        check_frame(np.asarray(view[0]), run="n", key="view_a", event=1)
        living.tell("enough")
        living.result()
        assert segments_of(root) == []
        for event in range(2):
            check_frame(np.asarray(view[event]), run="n", key="view_a", event=event + 1)
