"""What opening a store, or reconciling it, finds and does: said, the same twice, nothing deleted, nothing guessed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import examine, snapshot
from typer.testing import CliRunner
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.cli import app
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.errors import AssetMissing, AssetQuarantined, StoreReadOnly
from gently_bluesky.testing.frames import check_frame
from gently_bluesky.upkeep.findings import Reconciliation
from gently_bluesky.upkeep.logbook import Logbook

PIXELS = {"zarr": "primary-view_a.ome.zarr/0/c/{}/0/0/0", "tiff": "primary-view_a/{:06d}.ome.tif"}
"""The file of an event in the folder of its run."""


@pytest.fixture
def dead(zygote: Zygote, templates: Any, root: Path, format: str) -> Path:
    """The folder of a run of three events whose process died."""
    assets = {"zarr": "datum", "tiff": "stream"}[format]
    job = {"format": format, "night": "n", "events": 9, "die_after_events": 3, "assets": assets}
    templates.copy(
        f"dead-{format}-{assets}", root, lambda at: zygote.start("acquire", root=str(at), **job).last_words()
    )
    (journal,) = root.glob("runs/*/*/*/*/documents.jsonl")
    return journal.parent


def reconciled(root: Path) -> Reconciliation:
    with Store(root) as store:
        assert store.last_reconciliation is not None
        return store.last_reconciliation


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    """All files, but for what SQLite's readers tell each other in."""
    return {name: about for name, about in snapshot(root).items() if not name.endswith("-shm")}


def all_bytes(root: Path) -> list[bytes]:
    """The contents of all files that could hold pixels."""
    return sorted(
        path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix not in {".json", ".jsonl"}
        and not path.name.startswith(("index.sqlite", ".live", ".reserve"))
    )


def test_torn_files_of_a_dead_run_are_quarantined_one_by_one_and_reading_them_says_where_they_are(
    root: Path, dead: Path, format: str
) -> None:
    torn = dead / PIXELS[format].format(1)
    with torn.open("r+b") as file:
        file.truncate(700)
    (dead / PIXELS[format].format(2)).unlink()
    found = reconciled(root)
    (away,) = found.quarantined
    was = torn.relative_to(root).as_posix()
    assert (away.path, away.now, away.kind, away.events) == (was, f"quarantine/{was}", "torn", (1, 2))
    assert (root / away.now).stat().st_size == 700
    (missing,) = found.missing
    assert (missing.events, missing.asset, missing.run) == ((2, 3), away.asset, away.run)
    (ended,) = found.ended
    assert (ended.run, ended.received, ended.stored, ended.lost) == (away.run, 3, 1, 2)

    (entry,) = Logbook(root).entries("quarantine")
    assert (entry["run"], entry["asset"], entry["from"], entry["to"]) == (
        away.run,
        away.asset,
        was,
        away.now,
    )
    with Store(root) as store:
        view = store.run(away.run or "")["view_a"]
        check_frame(np.asarray(view[0]), run="n", key="view_a", event=1)
        with pytest.raises(
            AssetQuarantined, match=rf"was put in quarantine .* torn .* lies at {root}/{away.now}"
        ):
            np.asarray(view[1])
        with pytest.raises(AssetMissing) as caught:
            np.asarray(view[2])
        assert not isinstance(caught.value, AssetQuarantined)
        assert store.record(ended.run).lost == 2


def test_what_nobody_announced_is_quarantined_and_never_made_part_of_a_run(
    root: Path, dead: Path, format: str
) -> None:
    asset = dead / PIXELS[format].partition("/")[0]
    beyond, strange = dead / PIXELS[format].format(7), asset / "notes.txt"
    beyond.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(dead / PIXELS[format].format(0), beyond)
    strange.write_text("embryo 3 moved")
    shutil.copytree(
        asset, dead / "primary-view_b", ignore=shutil.ignore_patterns("notes.txt", "7", "000007*")
    )
    (dead / "primary-empty").mkdir()
    before = all_bytes(root)
    found = reconciled(root)
    assert {away.path.rpartition("/")[2] for away in found.quarantined} == {
        "7" if format == "zarr" else "000007.ome.tif",
        "notes.txt",
        "primary-view_b",
    }
    assert {away.kind for away in found.quarantined} == {"foreign"}
    assert not (dead / "primary-empty").exists()
    assert all_bytes(root) == before
    run = examine(None, str(root))["n"]
    assert ([number for _, number in run["events"]], run["frames"]) == ([1, 2, 3], 3)
    assert (run["status"], run["stored"], run["lost"]) == ("incomplete", 3, 0)
    assert sorted(run["left"]) == sorted(["documents.jsonl", asset.name])


def test_frame_that_was_stored_and_not_shown_yet_is_kept_and_one_that_is_half_written_is_swept(
    zygote: Zygote, root: Path
) -> None:
    job = {"format": "tiff", "night": "n", "events": 9, "die_after_events": 2}
    zygote.start("acquire", root=str(root), **job).last_words()
    (asset,) = root.glob("runs/*/*/*/*/primary-view_a")
    whole = (asset / "000000.ome.tif").read_bytes()
    (asset / ".000002.ome.tif.partial").write_bytes(whole)
    (asset / ".000003.ome.tif.partial").write_bytes(whole[:-1])
    found = reconciled(root)
    assert [Path(away.path).name for away in found.quarantined] == [".000002.ome.tif.partial"]
    assert (root / found.quarantined[0].now).read_bytes() == whole
    assert [Path(swept).name for swept in found.swept] == [".000003.ome.tif.partial"]
    assert sorted(path.name for path in asset.iterdir()) == ["000000.ome.tif", "000001.ome.tif"]


def test_second_time_finds_nothing_to_do_and_a_taken_place_gets_a_number(
    root: Path, dead: Path, format: str
) -> None:
    strange = dead / "strange"
    strange.write_text("one")
    taken = root / "quarantine" / strange.relative_to(root)
    taken.parent.mkdir(parents=True)
    taken.write_text("from before")
    assert [away.now for away in reconciled(root).quarantined] == [f"{taken.relative_to(root)}-2"]
    files = snapshot(root)
    assert str(reconciled(root)) == f"{root}: nothing to do"
    with Store(root) as store:
        assert not store.reconcile().changes
    assert snapshot(root) == files
    assert taken.read_text() == "from before"


def test_dry_run_says_what_would_be_done_and_changes_nothing(root: Path, dead: Path, format: str) -> None:
    with (dead / PIXELS[format].format(1)).open("r+b") as file:
        file.truncate(700)
    (dead / "strange").write_text("one")
    (dead / ".zarr.json.4711-12.tmp").write_bytes(b"{")
    with (dead / "documents.jsonl").open("ab") as journal:
        journal.write(b'{"name":"event"')
    day = dead.parent
    (day / "start").mkdir()
    (day / "start" / ".live").write_bytes(b"")
    (day / "notes").mkdir()
    (day / "notes" / "a.txt").write_text("mine")
    files, folders = files_of(root), sorted(root.rglob("*"))
    with Store(root, mode="r") as store:
        assert store.last_reconciliation is None
        planned = store.reconcile(dry_run=True)
        with pytest.raises(StoreReadOnly):
            store.reconcile()
    assert (files_of(root), sorted(root.rglob("*"))) == (files, folders)
    assert planned.dry_run
    assert "this would be done" in str(planned)
    done = reconciled(root)
    assert {**planned.to_dict(), "dry_run": False} == done.to_dict()
    assert [(tail.nbytes, tail.journal) for tail in done.torn] == [
        (15, f"{dead.relative_to(root)}/documents.jsonl")
    ]
    assert done.strays == (f"{day.relative_to(root)}/notes",)
    with Store(root) as store:
        again = store.reconcile(dry_run=True)
        assert (again.changes, again.strays) == (False, done.strays)


def test_report_reads_well_and_is_plain_json(root: Path, dead: Path) -> None:
    (dead / "strange").write_text("one")
    found = reconciled(root)
    lines = str(found).splitlines()
    assert lines[0] == f"{root}: mended"
    assert lines[1].startswith(
        f"  ended: run {found.ended[0].run} is incomplete: frames: 3 received, 3 stored, 0 lost"
    )
    assert any(line.startswith("  quarantined: runs/") and " -> quarantine/runs/" in line for line in lines)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.to_dict()["ended"][0]["status"] == "incomplete"


def test_after_a_loss_of_power_nobody_says_how_many_were_lost(root: Path, dead: Path) -> None:
    (dead / ".live").write_bytes(b"")
    (ended,) = reconciled(root).ended
    assert (ended.received, ended.stored, ended.lost) == (None, 3, None)
    assert "nobody knows how many were lost" in str(ended)


def test_asset_whose_metadata_cannot_be_read_is_quarantined_as_a_whole(zygote: Zygote, root: Path) -> None:
    job = {"format": "zarr", "night": "n", "events": 9, "die_after_events": 3}
    zygote.start("acquire", root=str(root), **job).last_words()
    (asset,) = root.glob("runs/*/*/*/*/primary-view_a.ome.zarr")
    (asset / "0" / "zarr.json").write_bytes(b"{")
    found = reconciled(root)
    assert [(away.path, away.events) for away in found.quarantined] == [
        (asset.relative_to(root).as_posix(), (0, 3))
    ]
    assert (found.ended[0].stored, found.ended[0].lost) == (0, 3)
    with Store(root, mode="r") as store, pytest.raises(AssetQuarantined, match="lies at"):
        _ = store[-1]["view_a"]


def test_runs_that_ended_well_and_those_that_are_written_are_not_looked_at(
    zygote: Zygote, root: Path, format: str
) -> None:
    zygote.call("acquire", root=str(root), format=format, night="whole", events=2)
    held = zygote.start("acquire", root=str(root), format=format, night="live", events=6, pause_before=4)
    while "waiting" not in held.hear():
        pass
    for journal in root.glob("runs/*/*/*/*/documents.jsonl"):
        (journal.parent / "strange").write_text("mine")
    files = snapshot(root, index=False)
    assert not reconciled(root).quarantined
    assert snapshot(root, index=False) == files
    held.kill()


def test_what_cannot_be_moved_is_left_alone_and_tried_again(root: Path, dead: Path, format: str) -> None:
    (dead / "strange").write_text("one")
    (root / "quarantine").write_text("in the way")
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="left alone"):
            found = reconciled(root)
        assert found.needs_attention
        assert not found.quarantined
        assert (dead / "strange").exists()
    (root / "quarantine").unlink()
    assert [Path(away.path).name for away in reconciled(root).quarantined] == ["strange"]
    assert str(reconciled(root)).endswith("nothing to do")


def test_asset_in_memory_that_nobody_announced_goes_with_its_memory(zygote: Zygote, root: Path) -> None:
    job = {"format": "memory", "night": "n", "events": 9, "pause_before": 1}
    child = zygote.start("acquire", root=str(root), **job)
    while "waiting" not in child.hear():
        pass
    child.kill()
    (folder,) = root.glob("runs/*/*/*/*")
    from gently_bluesky.backends.memory import MemoryBackend
    from gently_bluesky.testing.assets import array_spec, write_asset

    path = folder / "primary-view_b.memory"
    write_asset(MemoryBackend(), path, array_spec((9, 11)))
    (segment,) = {file.parent for file in MemoryBackend().files(path, {}) if file != path}
    found = reconciled(root)
    assert not segment.exists()
    assert not path.exists()
    assert path.relative_to(root).as_posix() in found.swept
    assert not found.quarantined


def test_command_reconciles_says_so_and_tells_by_its_exit_code(root: Path, dead: Path, format: str) -> None:
    (dead / "strange").write_text("one")
    files = files_of(root)
    run = CliRunner().invoke
    dry = run(app, ["reconcile", "--store", str(root), "--dry-run", "--json"])
    assert (dry.exit_code, json.loads(dry.stdout)["dry_run"]) == (0, True)
    assert files_of(root) == files
    done = run(app, ["reconcile", "--store", str(root)])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, f"{root}: mended")
    assert run(app, ["reconcile", "--store", str(root)]).stdout == f"{root}: nothing to do\n"
    lines = (dead / "documents.jsonl").read_bytes().splitlines(keepends=True)
    (dead / "documents.jsonl").write_bytes(lines[0] + b"#" + b"".join(lines[1:]))
    damaged = run(app, ["reconcile", "--store", str(root)])
    assert (damaged.exit_code, "line 2 is not a document" in damaged.stdout) == (3, True)
    nothing = run(app, ["reconcile", "--store", str(root / "runs")])
    assert (nothing.exit_code, "there is no store" in nothing.stderr) == (1, True)
    assert not (root / "runs" / "gently-store.json").exists()


def test_recovery_looks_twice_at_a_clean_run_and_opens_nothing(root: Path) -> None:
    import sys
    from collections import Counter

    def calls_for(runs: int) -> Counter[str]:
        place = root / str(runs)
        with Store(place) as store, store.writer() as writer:
            for number in range(runs):
                uid = f"{number:08d}-run"
                writer("start", {"uid": uid, "time": 1.8e9 + number})
                writer(
                    "stop", {"uid": f"{uid}-stop", "run_start": uid, "time": 1.8e9, "exit_status": "success"}
                )
        calls: Counter[str] = Counter()

        def count(_frame: object, event: str, function: Any) -> None:
            if event == "c_call" and getattr(function, "__module__", None) in ("posix", "_io"):
                calls[function.__name__] += 1

        with Store(place) as store:
            sys.setprofile(count)
            try:
                found = store.reconcile()
            finally:
                sys.setprofile(None)
        assert not found.changes
        return calls

    few, many = calls_for(3), calls_for(23)
    assert few["stat"] > 0
    assert many - few == Counter({"stat": 2 * 20})


def test_logbook_entry_of_a_recovery_that_died_before_the_move_claims_nothing(
    root: Path, dead: Path, format: str
) -> None:
    torn = dead / PIXELS[format].format(1)
    was = torn.relative_to(root).as_posix()
    torn.unlink()
    reconciled(root)
    with Store(root, mode="r") as store:
        asset = store[-1]["view_a"].uid
    Logbook(root).append({"kind": "quarantine", "asset": asset, "from": was, "to": f"quarantine/{was}"})
    with Store(root, mode="r") as store, pytest.raises(AssetMissing) as caught:
        np.asarray(store[-1]["view_a"][1])
    assert not isinstance(caught.value, AssetQuarantined)


def test_uid_of_the_run_in_the_report_is_that_of_its_start(root: Path, dead: Path) -> None:
    uid = next(read_journal(dead / "documents.jsonl")).doc["uid"]
    assert [ended.run for ended in reconciled(root).ended] == [uid]
    assert not os.path.lexists(dead / ".live")


# -- a disk that is mounted read-only ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [
        [],
        ["index.sqlite"],
        ["index.sqlite", "index.sqlite-wal"],
        ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"],
    ],
    ids=lambda names: f"{len(names)} files of the index",
)
@pytest.mark.parametrize("dies", [False, True])
def test_store_on_a_read_only_mount_opens_read_only(
    zygote: Zygote, tmp_path: Path, leave: list[str], dies: bool
) -> None:
    root = tmp_path / "disk" / "store"
    root.parent.mkdir()
    job = {"root": str(root), "format": "tiff", "night": "n", "events": 4 if dies else 3}
    acquire = ("acquire_and_die", {**job, "die_after_events": 3}) if dies else ("acquire", job)
    look = ("look_where_nothing_can_be_written", {"root": str(root), "leave": leave})
    done = zygote.call("on_small_disk", folder=str(root.parent), size=1 << 24, jobs=[acquire, look])
    if "unavailable" in done:
        pytest.skip(f"nothing can be mounted here: {done['unavailable']}")
    found = done[1]
    assert (found["mode"], found["runs"]) == ("r", 1)
    assert len(found["warned"]) == 1
    assert "is mounted read-only: it was opened with mode='r'" in found["warned"][0]
    assert found["refused"].startswith("store-read-only: ")
    assert found["not reconciled"].startswith("store-read-only: ")
    run = found["seen"]["n"]
    assert [number for _, number in run["events"]] == [1, 2, 3]
    assert run["status"] == ("incomplete" if dies else "complete")
    assert found["ended"] == ([run["uid"]] if dies else [])
