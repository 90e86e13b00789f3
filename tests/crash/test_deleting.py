"""A deletion, a restoration, a purge or a plan that dies at any of its calls is done or undone by the next opening."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import answers, snapshot
from nights import acquire
from shim import one_of_each_stretch
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.errors import AssetDeleted, AssetPurged
from gently_bluesky.upkeep.trash import TRASH

WHAT = ("delete", "restore", "purge", "apply")
FEW = 5
Made = Callable[[Path, str], str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Copy a store, before something is done to its run, to a folder; return the run's uid."""
    folder = tmp_path_factory.mktemp("deleting")
    uids: dict[str, str] = {}

    def copy(root: Path, name: str) -> str:
        format, assets, what = name.split("-")
        if name not in uids:
            with Store(folder / name) as store:
                uids[name] = acquire(store, format, assets)
                store.put({"nuclei": 12}, data_type="count", parents=[uids[name]])
                store.pin(store.put(np.eye(9), data_type="still").uid, reason="not concerned")
                store.verify(progress=False)
                if what in {"restore", "purge"}:
                    store.delete(uids[name], reason="room", although=["unverified", "children"])
        shutil.copytree(folder / name, root)
        return uids[name]

    return copy


def state(root: Path, uid: str) -> str:
    """How the pixels of a run stand, which they do whole: all answers and all files agree."""
    with Store(root) as store:
        keys = [key for key, of in store._index.data_keys(uid)["primary"].items() if of.get("external")]
        found = set()
        for key in keys:
            try:
                assert np.asarray(store[uid]["primary"][key]).any()
                found.add("here")
            except AssetPurged:
                found.add("purged")
            except AssetDeleted:
                found.add("trash")
        (how,) = found
        tombstone = store.tombstone(uid)
        assert (how == "here") == (tombstone is None) == (store.record(uid).deleted is None)
        assert len(store.trash()) == (len(keys) if how == "trash" else 0)
        assert (how == "purged") == (tombstone is not None and tombstone.purged is not None)
        in_trash = [path for path in (root / TRASH).rglob("*") if path.is_file()]
        assert bool(in_trash) == (how == "trash")
        lying = [*(root / store.record(uid).path).parent.glob("primary-*")]
        assert bool(lying) == (how == "here")
        assert store.verify(progress=False, record=False).ok
        assert [one.reason for one in store.pins()] == ["not concerned"]
        assert len(store.children(uid)) == 1
    return how


def dies_at(zygote: Zygote, folder: Path, made: Made, name: str, calls: Iterable[int]) -> None:
    what = name.rpartition("-")[2]
    before, after = {
        "delete": ("here", "trash"),
        "restore": ("trash", "here"),
        "purge": ("trash", "purged"),
        "apply": ("here", "trash"),
    }[what]
    for call in calls:
        root = folder / f"store-{call}"
        uid = made(root, name)
        child = zygote.start("delete_and_more", root=str(root), uid=uid, what=what, die_at_call=call)
        child.dying_words(call)
        how = state(root, uid)
        assert how in (before, after)
        files, said = snapshot(root), answers(root, "a")
        assert snapshot(root) == files
        (root / "index.sqlite").unlink()
        assert answers(root, "a") == said
        if how == before:
            zygote.call("delete_and_more", root=str(root), uid=uid, what=what)
            assert state(root, uid) == after
        shutil.rmtree(root)


FORMS = pytest.mark.parametrize("form", ["zarr-datum", "tiff-stream"])


@pytest.mark.parametrize("what", WHAT)
@FORMS
def test_what_dies_at_a_call_is_finished_or_undone(
    zygote: Zygote, tmp_path: Path, made: Made, form: str, what: str
) -> None:
    name = f"{form}-{what}"
    uid = made(tmp_path / "whole", name)
    calls = zygote.call(
        "delete_and_more", root=str(tmp_path / "whole"), uid=uid, what=what, die_at_call=1 << 30
    )
    dies_at(zygote, tmp_path, made, name, one_of_each_stretch(calls, FEW, name))


@pytest.mark.long
@pytest.mark.parametrize("what", WHAT)
@FORMS
def test_what_dies_at_each_call_is_finished_or_undone(
    zygote: Zygote, tmp_path: Path, made: Made, form: str, what: str
) -> None:
    name = f"{form}-{what}"
    uid = made(tmp_path / "whole", name)
    calls = zygote.call(
        "delete_and_more", root=str(tmp_path / "whole"), uid=uid, what=what, die_at_call=1 << 30
    )
    dies_at(zygote, tmp_path, made, name, range(1, calls + 1))


def test_a_trash_on_another_disk_takes_nothing(zygote: Zygote, tmp_path: Path, made: Made) -> None:
    root = tmp_path / "store"
    uid = made(root, "zarr-datum-delete")
    journal = next(root.rglob("documents.jsonl")).read_bytes()
    said = on_a_small_disk(zygote, "put_away_on_another_disk", root=str(root), uid=uid)
    assert ["on another disk" in text and "nothing was changed" in text for text in said] == [True, True]
    assert state(root, uid) == "here"
    assert next(root.rglob("documents.jsonl")).read_bytes() == journal


def test_a_full_disk_is_told_and_a_little_room_is_enough_to_make_more(zygote: Zygote, tmp_path: Path) -> None:
    done = on_a_small_disk(zygote, "purge_on_full_disk", folder=str(tmp_path))
    assert "its disk is full" in done["said"]
    assert "make room (1 MB) and call again" in done["said"]
    assert done["purged"] == 2


def on_a_small_disk(zygote: Zygote, job: str, **arguments: str) -> Any:
    try:
        return zygote.call(job, **arguments)
    except AssertionError as error:
        if "PermissionError" in str(error):
            pytest.skip(f"nothing can be mounted here: {error}")
        raise
