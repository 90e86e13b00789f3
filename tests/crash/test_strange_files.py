"""What people, programs and disks leave in a store costs what it touches: the store opens, other runs are read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import snapshot
from typer.testing import CliRunner
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.cli import app
from gently_bluesky.errors import AssetMissing
from gently_bluesky.upkeep.accounts import accounts
from gently_bluesky.upkeep.findings import Reconciliation


@pytest.fixture
def night(zygote: Zygote, templates: Any, root: Path, format: str) -> Path:
    """The folder of a whole run of three events."""
    job = {"format": format, "night": "whole", "events": 3}
    templates.copy(f"night-{format}", root, lambda at: zygote.call("acquire", root=str(at), **job))
    return next(root.glob("runs/*/*/*/*_*"))


@pytest.fixture
def dead(zygote: Zygote, templates: Any, root: Path, format: str) -> Path:
    """The folder of a run of three events whose process died."""
    job = {"format": format, "night": "dead", "events": 9, "die_after_events": 3}
    templates.copy(
        f"dead-{format}", root, lambda at: zygote.start("acquire", root=str(at), **job).last_words()
    )
    return next(root.glob("runs/*/*/*/*_*"))


def reconciled(root: Path) -> Reconciliation:
    with Store(root) as store:
        assert store.last_reconciliation is not None
        return store.last_reconciliation


def test_files_that_a_file_manager_leaves_in_each_folder_are_passed_over(root: Path, night: Path) -> None:
    for folder in (root, *list(night.parents)[:4], night):
        (folder / ".DS_Store").write_bytes(b"Bud1")
    (night.parents[1] / "notes.txt").write_text("embryo 3 moved")
    for mode in ("a", "r"):
        with Store(root, mode=mode) as store:
            assert [record.metadata["night"] for record in store.query()] == ["whole"]
            assert store.verify(progress=False).ok
    (root / "index.sqlite").unlink()
    with Store(root, mode="r") as store:
        assert [record.metadata["night"] for record in store.query()] == ["whole"]


def test_a_day_that_nobody_may_list_is_left_alone_and_its_runs_stay_known(
    zygote: Zygote, root: Path, night: Path
) -> None:
    day = night.parent
    day.chmod(0)
    try:
        seen = zygote.call("open_as_user", root=str(root))
    finally:
        day.chmod(0o755)
    (left,) = seen["report"]["left"]
    assert left["path"] == f"{day.relative_to(root).as_posix()}/"
    assert seen["report"]["forgotten"] == []
    assert seen["nights"] == ["whole"]


def test_a_journal_that_cannot_be_looked_at_is_left_alone_and_not_forgotten(root: Path, night: Path) -> None:
    journal = night / "documents.jsonl"
    journal.unlink()
    journal.symlink_to(journal.name)
    with pytest.warns(RuntimeWarning, match="left alone"):
        found = reconciled(root)
    assert [one.path for one in found.left] == [journal.relative_to(root).as_posix()]
    assert not found.forgotten


def test_what_stands_behind_a_run_s_stop_is_dropped_and_told_once(root: Path, night: Path) -> None:
    journal = night / "documents.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content + bytes(300))
    with Store(root, mode="r") as store:
        torn = store.reconcile(dry_run=True).torn
    assert [(one.journal, one.nbytes) for one in torn] == [(journal.relative_to(root).as_posix(), 300)]
    assert journal.read_bytes() == content + bytes(300)
    assert reconciled(root).torn == torn
    assert journal.read_bytes() == content
    assert not reconciled(root).changes
    assert not (night / ".live").exists()


def test_results_that_another_user_put_are_found_when_the_index_is_built_anew(
    zygote: Zygote, root: Path
) -> None:
    with Store(root) as store:
        store.put({"n": 1}, data_type="nuclei")
    (journal,) = root.glob("runs/*/*/*/derived-*.jsonl")
    journal.write_bytes(journal.read_bytes() + b"torn")
    journal.chmod(0o444)
    (root / "index.sqlite").unlink()
    seen = zygote.call("open_as_user", root=str(root))
    assert seen["results"] == [{"n": 1}]
    assert [one["path"] for one in seen["report"]["left"]] == [journal.relative_to(root).as_posix()]


PLACES = {
    "zarr": {"metadata": "zarr.json", "array": "0/zarr.json", "pixels": "0/c/1/0/0/0"},
    "tiff": {"metadata": "000000.ome.tif", "array": "000001.ome.tif", "pixels": "000002.ome.tif"},
}
"""In the folder of an asset."""


@pytest.mark.parametrize("place", ["metadata", "array", "pixels", "documents.jsonl", ".live"])
@pytest.mark.filterwarnings("ignore:a run was left alone")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    root: Path, dead: Path, format: str, place: str
) -> None:
    (asset,) = dead.glob("primary-view_a*")
    inner = PLACES[format].get(place)
    file = dead / place if inner is None else asset / inner
    file.unlink()
    os.mkfifo(file)
    with Store(root, mode="r") as store:
        store.reconcile(dry_run=True)
        assert store.verify(progress=False).ok is (place == ".live")
    reconciled(root)
    again = reconciled(root)
    assert not again.ended
    assert not again.quarantined
    assert file.is_fifo() or place == ".live"


def test_a_shorter_journal_that_took_the_place_of_another_meanwhile_is_not_torn(
    root: Path, night: Path
) -> None:
    journal = (night / "documents.jsonl").relative_to(root).as_posix()
    end = (root / journal).stat().st_size

    def findings(reach: int, now: int) -> list[str]:
        return [
            one.kind for account in accounts(root, journal, reach, lambda: now) for one in account.findings
        ]

    assert findings(end, end) == findings(end + 90, end) == []
    assert findings(end + 90, end + 90) == ["torn"]


def test_the_command_verifies_a_store_with_a_dead_run_and_changes_nothing(root: Path, dead: Path) -> None:
    index = root.parent / "elsewhere.sqlite"
    with Store(root, mode="r"):
        files = snapshot(root, index=False)
    said = CliRunner().invoke(
        app, ["verify", "--store", str(root), "--index", f"sqlite:///{index}", "--json"]
    )
    assert json.loads(said.stdout)["events"] == 3
    (root / "upkeep.jsonl").unlink()
    assert snapshot(root, index=False) == files
    assert not index.exists()


@pytest.mark.parametrize("format", ["zarr"])
def test_a_large_event_whose_files_are_gone_is_missing(
    root: Path, night: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gently_bluesky.backends.zarr_source.SMALL_BYTES", 0)
    monkeypatch.setattr("gently_bluesky.backends.own_files.SMALL_BYTES", 0)
    with Store(root, mode="r") as store:
        array = store[-1]["view_a"]
        check = np.asarray(array[0])
        shutil.rmtree(next(night.glob("primary-view_a*/0/c/0")))
        with pytest.raises(AssetMissing, match="gone"):
            np.asarray(array[0])
        assert np.asarray(array[1]).shape == check.shape
