"""``gently-bluesky pin``, ``delete``, ``restore`` and ``trash``, as a person meets them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nights import acquire
from typer.testing import CliRunner

from gently_bluesky import Store
from gently_bluesky.cli import app


def command(*arguments: str, store: str = ""):
    return CliRunner().invoke(app, [*arguments, *(["--store", store] if store else [])])


@pytest.fixture
def night(tmp_path):
    with Store(tmp_path / "store") as store:
        uid = acquire(store)
    return str(tmp_path / "store"), uid


def test_pixels_go_come_back_and_are_removed(night):
    root, uid = night
    refused = command("delete", "-1", "--reason", "out of focus", store=root)
    assert refused.exit_code == 1
    assert "was not verified since it was written" in refused.stderr
    assert "--although unverified" in refused.stderr
    done = command("delete", "-1", "-m", "out of focus", "--although", "unverified", store=root)
    assert done.exit_code == 0, done.output
    assert "2 arrays, " in done.stdout
    listed = command("trash", store=root)
    assert "primary-view_a.ome.zarr" in listed.stdout
    assert "out of focus" in listed.stdout
    assert "deleted" in command("runs", store=root).stdout
    assert ", in the trash until" in command("show", uid, store=root).stdout
    assert uid in command("find", "deleted=true", store=root).stdout
    assert command("restore", uid[:8], store=root).exit_code == 0
    with Store(root, mode="r") as store:
        assert np.asarray(store[uid]["view_a"]).any()
    in_json = command(
        "delete", uid, "-m", "x", "--although", "unverified", "--keep-days", "0", "--json", store=root
    )
    assert {one["run_uid"] for one in json.loads(in_json.stdout)} == {uid}
    assert len(json.loads(command("trash", "--json", store=root).stdout)) == 2
    assert "2 arrays, " in command("trash", "--purge", store=root).stdout
    assert command("trash", store=root).stdout == "0 arrays in the trash, 0 B\n"
    assert "purged" in command("show", uid, store=root).stdout
    assert command("restore", uid, store=root).exit_code == 1


def test_a_pin_keeps_a_run_until_it_is_removed(night):
    root, uid = night
    assert command("pin", "-1", "--reason", "figure 2", store=root).exit_code == 0
    refused = command("delete", uid, "-m", "x", "--although", "unverified", store=root)
    assert (refused.exit_code, "figure 2" in refused.stderr) == (1, True)
    assert "figure 2" in command("show", uid, store=root).stdout
    listed = command("pin", store=root)
    assert uid[:8] in listed.stdout
    assert "1 run pinned" in listed.stdout
    assert [one["run_uid"] for one in json.loads(command("pin", "--json", store=root).stdout)] == [uid]
    unpinned = command("pin", uid, "--remove", "-m", "published", "--json", store=root)
    assert json.loads(unpinned.stdout) == {"run": uid, "pinned": False, "reason": "published"}
    assert command("pin", uid, "--remove", store=root).exit_code == 1
    assert command("pin", store=root).stdout == "0 runs pinned\n"


def test_what_was_verified_is_told_as_it_stands_now(night):
    root, uid = night
    assert command("verify", uid, store=root).exit_code == 0
    assert "all was well" in command("show", uid, store=root).stdout
    assert command("convert", uid, "--to", "tiff", store=root).exit_code == 0
    assert "not since it was changed" in command("show", uid, store=root).stdout
    assert command("delete", uid, "-m", "x", "--although", "unverified", store=root).exit_code == 0
    assert command("verify", uid, store=root).exit_code == 0
    assert "2 arrays not read then" in command("show", uid, store=root).stdout
    assert ", deleted" in command("lineage", uid, store=root).stdout
    assert command("pin", uid, "-m", "after all", store=root).exit_code == 0
    left = command("trash", "--purge", "--now", store=root)
    assert left.exit_code == 0
    assert "left: what is pinned" in left.stdout


def test_what_was_mistyped_makes_and_changes_nothing(night, tmp_path):
    root, uid = night
    for arguments in (
        ["delete", uid],
        ["delete", uid, "-m", " "],
        ["delete", uid, "-m", "x", "--although", "haste"],
        ["delete", uid, "-m", "x", "--keep-days", "-1"],
        ["trash", "--now"],
    ):
        assert command(*arguments, store=root).exit_code == 2, arguments
    for arguments in (["delete", uid, "-m", "x"], ["trash"], ["trash", "--purge"], ["pin", uid, "-m", "x"]):
        refused = command(*arguments, store=str(tmp_path / "typo"))
        assert refused.exit_code == 1
        assert "there is no store at" in refused.stderr
    assert not (tmp_path / "typo").exists()
    with Store(root, mode="r") as store:
        assert (store.trash(), store.pins()) == ([], [])
