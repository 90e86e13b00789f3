"""Recovery that dies inside itself, at any of its calls to the file system, is put right by the next one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from looking import answers, examine, snapshot
from shim import one_of_each_stretch
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.upkeep.logbook import LOGBOOK, Logbook


@pytest.fixture
def wreck(zygote: Zygote, root: Path, format: str) -> Path:
    """A store with all that recovery deals with: dead runs with torn ends and torn, unannounced and strange files,
    a dead start, torn results.
    """
    with Store(root) as store:
        for i in range(2):
            store.put({"n": i}, data_type="nuclei")
    writers = []
    for night, pause_before in (("one", 4), ("two", 3)):
        job = {"format": format, "night": night, "events": 9, "pause_before": pause_before}
        writers.append(zygote.start("acquire", root=str(root), **job))
        while "waiting" not in writers[-1].hear():
            pass
    for writer in writers:
        writer.kill()
    first, second = sorted(root.glob("runs/*/*/*/*/documents.jsonl"), key=lambda path: -path.stat().st_size)
    first.write_bytes(first.read_bytes() + b'{"name":"event"')
    second.write_bytes(second.read_bytes()[:-7])
    for asset in root.glob("runs/*/*/*/*/primary-view_a*"):
        shutil.copytree(asset, asset.with_name("primary-view_b"))
        (asset / ".zarr.json.4711-12.tmp").write_bytes(b"{")
        (asset / ("1.__lock" if format == "zarr" else ".000009.ome.tif.partial")).write_bytes(b"II*")
        (asset / "notes.txt").write_text("embryo 3 moved")
        pixels = "0/c/{}/0/0/0" if format == "zarr" else "{:06d}.ome.tif"
        (asset / pixels.format(20)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(asset / pixels.format(0), asset / pixels.format(20))
        with (asset / pixels.format(0)).open("r+b") as file:
            file.truncate(700)
    day = first.parents[1]
    (day / "start").mkdir()
    (day / "start" / ".live").write_bytes(b"")
    (day / "start" / ".reserve").write_bytes(b"")
    (day / "torn").mkdir()
    (day / "torn" / ".live").write_bytes(bytes(4096))
    (day / "torn" / "documents.jsonl").write_bytes(b'{"name":"start","do')
    shared = next(root.glob("runs/*/*/*/derived-*.jsonl"))
    shared.write_bytes(shared.read_bytes()[:-30])
    (root / "index.sqlite").unlink()
    return root


def end_state(root: Path) -> tuple[dict[str, object], list[object]]:
    """All files and all answers, but for what is new in each stop that recovery writes: its uid and time.

    Which of the runs was put in order first is left out too: that is for those who do it at once to settle. So is how
    often the logbook was sealed, and half a seal at its end: what it says is what is in it.
    """
    files: dict[str, Any] = {}
    for name, (_, content) in snapshot(root, index=False).items():
        if name == LOGBOOK:
            continue
        files[name] = (
            [_timeless(line) for line in content.splitlines()] if name.endswith(".jsonl") else content
        )
    entries = [{**entry, "time": 0} for entry in Logbook(root).entries()]
    files[LOGBOOK] = sorted(entries, key=lambda entry: str(entry.get("run")))
    seen = examine(None, str(root))
    for run in seen.values():
        run["stop"] = {key: value for key, value in run["stop"].items() if key not in ("uid", "time")}
        run["left"].sort()
    folders = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir())
    return files, [seen, folders, answers(root)]


def _timeless(line: bytes) -> object:
    decoded = orjson.loads(line)
    if decoded.get("name") == "stop":
        decoded["doc"] |= {"uid": "", "time": 0}
        decoded["crc32c"] = ""
    return {**decoded, "time": 0}


def dies_and_recovers(
    zygote: Zygote, wreck: Path, folder: Path, calls: Iterable[int], whole: object, torn: bool
) -> None:
    for call in calls:
        root = folder / f"store-{call}"
        shutil.copytree(wreck, root)
        zygote.start("recover", root=str(root), die_at_call=call, torn=torn).dying_words(call)
        Store(root).close()
        assert end_state(root) == whole, f"differs after a death at call {call}"
        files = snapshot(root)
        Store(root).close()
        assert snapshot(root) == files
        shutil.rmtree(root)


@pytest.fixture
def recovered(zygote: Zygote, wreck: Path, tmp_path: Path) -> tuple[int, object]:
    """How many calls a whole recovery makes, and what it makes of the wreck."""
    copy = tmp_path / "whole"
    shutil.copytree(wreck, copy)
    calls = zygote.call("recover", root=str(copy), die_at_call=1 << 30)
    state = end_state(copy)
    assert not [name for name in state[0] if ".live" in name or ".reserve" in name or ".tmp" in name]
    assert sorted(run["status"] for run in state[1][0].values()) == ["incomplete", "incomplete"]
    assert sorted(run["events"][0][1] for run in state[1][0].values()) == ["AssetQuarantined"] * 2
    assert sum(name.startswith("quarantine/") for name in state[0]) >= 2 * 4
    assert not [name for name in state[1][1] if name.endswith(("start", "torn"))]
    return calls, state


def test_recovery_that_dies_inside_itself_is_finished_by_the_next(
    zygote: Zygote, wreck: Path, tmp_path: Path, recovered: tuple[int, object]
) -> None:
    calls, whole = recovered
    some = one_of_each_stretch(calls, 8, "recovery")
    dies_and_recovers(zygote, wreck, tmp_path, some, whole, torn=True)


def test_recoveries_at_once_end_as_one_does(
    zygote: Zygote, wreck: Path, tmp_path: Path, recovered: tuple[int, object]
) -> None:
    _, whole = recovered
    for attempt in range(3):
        root = tmp_path / f"store-{attempt}"
        shutil.copytree(wreck, root)
        for child in [zygote.start("recover", root=str(root), die_at_call=0) for _ in range(3)]:
            child.result()
        assert end_state(root) == whole


@pytest.mark.long
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("first", range(4))
def test_recovery_that_dies_at_any_of_its_calls_is_finished_by_the_next(
    zygote: Zygote, wreck: Path, tmp_path: Path, recovered: tuple[int, object], torn: bool, first: int
) -> None:
    calls, whole = recovered
    dies_and_recovers(zygote, wreck, tmp_path, range(1 + first, calls + 1, 4), whole, torn)
