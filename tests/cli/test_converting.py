"""``convert`` and ``import`` at the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nights import acquire

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame


@pytest.fixture
def mine(tmp_path):
    """A store that may be changed, and the uids of its runs."""
    root = tmp_path / "mine"
    with Store(root) as store:
        return root, [acquire(store) for _ in range(2)]


def test_runs_are_converted_and_what_came_of_it_is_said(command, mine):
    root, uids = mine
    said = command("convert", uids[0][:8], "--to", "tiff", "--store", str(root)).stdout
    assert "zarr to tiff" in said
    assert "2 arrays converted" in said
    known = json.loads(
        command(
            "convert", "-1", *uids, "--to", "tiff", "--discard-original", "--json", "--store", str(root)
        ).stdout
    )
    assert known["ok"]
    assert {one["run_uid"] for one in known["converted"]} == {uids[1]}
    assert {one["is_so"] for one in known["left"]} == {True}
    with Store(root, mode="r") as store:
        assert {one.run_uid for one in store.trash()} == {uids[0]}
        check_frame(np.asarray(store[uids[1]]["view_a"][0]), key="view_a", event=1)


def test_chunks_and_levels_are_typed_as_they_are_said(command, mine):
    root, uids = mine
    command("convert", uids[0], "--chunks", "3,20,25", "--levels", "2", "--quiet", "--store", str(root))
    with Store(root, mode="r") as store:
        packing = store.record(store[uids[0]]["view_a"].uid).metadata["packing"]
    assert (packing["chunks"], packing["levels"]) == ([3, 20, 25], 2)
    assert (
        "word or lengths"
        in command("convert", uids[0], "--chunks", "3,x", "--store", str(root), code=2).stderr
    )


def test_what_cannot_be_converted_is_said_in_a_line(command, mine):
    root, uids = mine
    where = ("--store", str(root))
    assert "UID" in command("convert", "--to", "tiff", *where, code=2).stderr
    assert "got none of them" in command("convert", uids[0], *where, code=2).stderr
    both = ("--to", "tiff", "--discard-original", "--keep-days", "3")
    assert "give one of them" in command("convert", uids[0], *both, *where, code=2).stderr
    assert "hdf5" in command("convert", uids[0], "--to", "hdf5", *where, code=2).stderr
    asset = next((root).glob("runs/*/*/*/*/primary-view_a.ome.zarr/0/c/0/0/0/0"))
    asset.write_bytes(asset.read_bytes()[:-9])
    assert "failed: " in command("convert", *uids, "--to", "tiff", *where, code=3).stdout


def test_an_image_is_imported_with_what_is_known_of_it(command, mine, tmp_path):
    root, _ = mine
    np.save(tmp_path / "x.npy", np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5))
    arguments = (
        "--dims",
        "t,z,y,x",
        "--z-step-um",
        "2",
        "--set",
        "embryo=e2",
        "--set",
        "age_h=3",
        "--session",
        "old",
    )
    said = command("import", "x.npy", *arguments, "--store", str(root)).stdout
    with Store(root, mode="r") as store:
        run = store[-1]
        assert run.uid in said
        assert (run.start["embryo"], run.start["age_h"], run.start["session"]) == ("e2", 3, "old")
        assert run["image"].shape == (2, 3, 4, 5)
    known = json.loads(
        command("import", "x.npy", "--json", "--data-type", "stack", "--store", str(root)).stdout
    )
    assert known["data_type"] == "stack"
    assert "key=value" in command("import", "x.npy", "--set", "copy=1", "--store", str(root), code=2).stderr
    assert "allowed_roots" in command("import", "x.npy", "--in-place", "--store", str(root), code=1).stderr
    assert "no store" in command("import", "x.npy", "--store", "mistyped", code=1).stderr
