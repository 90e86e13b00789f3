"""A process that dies at any of its calls to the file system, TensorStore's and SQLite's too, loses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from looking import answers, examine, snapshot
from shim import Kind, one_of_each_stretch, read_log
from test_devices import assert_nothing_lost
from test_kill import assert_nothing_half_done, assert_recovered, events_of
from zygote import Zygote

from gently_bluesky import Store

FAMILIES = pytest.mark.parametrize("assets", ["datum", "stream"])
SHAPE = (3, 64, 96)
FEW = 4


def job(root: Path, format: str, assets: str, **how: Any) -> dict[str, Any]:
    return {"root": str(root), "format": format, "night": "n", "events": 2, "assets": assets, **how}


# -- what is seen ------------------------------------------------------------------------------------------


def test_calls_are_seen_whoever_makes_them(zygote: Zygote, root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = zygote.call("acquire", **job(root, "zarr", "datum", log=str(log)))
    noted = list(read_log(log))
    assert ended["calls"] >= len(noted) - 4 > 200
    by_tensorstore = [call.kind for call in noted if "/c/0/" in call.path and ".__lock" in call.path]
    assert by_tensorstore[0] is Kind.CREATE
    assert {Kind.WRITE, Kind.SYNC, Kind.RENAME} <= set(by_tensorstore)
    assert {Kind.CREATE, Kind.WRITE, Kind.SYNC} <= {c.kind for c in noted if "index.sqlite-wal" in c.path}
    assert sum(call.kind is Kind.MARK for call in noted) == 4


# -- a writer ----------------------------------------------------------------------------------------------


def dies_at(zygote: Zygote, folder: Path, format: str, assets: str, calls: Iterable[int], torn: bool) -> None:
    for call in calls:
        root = folder / f"store-{call}-{torn}"
        child = zygote.start("acquire", **job(root, format, assets, die_at_call=call, torn=torn))
        announced = [word for word in child.dying_words(call) if "name" in word]
        with Store(root) as store:
            left = [path.name for path in root.glob("runs/*/*/*/*")]
            assert len(left) == len(list(store.query())), f"differs after a death at call {call}"
        files = snapshot(root)
        seen = examine(None, str(root), mode="a")
        assert bool(seen) >= bool(announced)
        for run in seen.values():
            assert run["events"][: len(events_of(announced))] == events_of(announced)
            if run["status"] != "complete":
                assert_recovered(run, events_of(announced))
        assert_nothing_half_done(root, format)
        said = answers(root, "a")
        assert snapshot(root) == files
        (root / "index.sqlite").unlink()
        assert answers(root, "a") == said


@FAMILIES
def test_writer_that_dies_at_a_call_loses_nothing(
    zygote: Zygote, tmp_path: Path, format: str, assets: str
) -> None:
    whole = zygote.call("acquire", **job(tmp_path / "whole", format, assets, die_at_call=1 << 30))
    opened = whole["opened"]
    calls = one_of_each_stretch(whole["calls"] - opened, FEW, f"{format}-{assets}")
    dies_at(zygote, tmp_path, format, assets, (opened + call for call in calls), assets == "stream")


def test_process_that_dies_while_it_makes_a_store_leaves_one_that_can_be_made(
    zygote: Zygote, tmp_path: Path
) -> None:
    dies_at(zygote, tmp_path, "tiff", "datum", [1, 2, 3, 5, 6, 8, 14], torn=True)


@pytest.mark.long
@FAMILIES
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("first", range(8))
def test_writer_that_dies_at_each_of_its_calls_loses_nothing(
    zygote: Zygote, tmp_path: Path, format: str, assets: str, torn: bool, first: int
) -> None:
    whole = zygote.call("acquire", **job(tmp_path / "whole", format, assets, die_at_call=1 << 30))
    calls = range(1 + first, whole["calls"] + 1, 8)
    dies_at(zygote, tmp_path, format, assets, calls, torn)


# -- a device that writes for itself -----------------------------------------------------------------------


def device_dies_at(
    zygote: Zygote, folder: Path, format: str, assets: str, calls: Iterable[int], torn: bool
) -> None:
    for call in calls:
        root = folder / f"store-{call}-{torn}"
        how = job(root, format, assets, shape=SHAPE, die_at_call=call, torn=torn)
        words = zygote.start("acquire_by_device", **how).dying_words(call)
        announced = [word["doc"]["data"]["number"] for word in words if word.get("name") == "event"]
        if root.is_dir():
            Store(root).close()
            assert_nothing_lost(root, "n", announced)


@FAMILIES
def test_device_that_dies_at_a_call_loses_nothing(
    zygote: Zygote, tmp_path: Path, format: str, assets: str
) -> None:
    whole = zygote.call(
        "acquire_by_device", **job(tmp_path / "whole", format, assets, shape=SHAPE, die_at_call=1 << 30)
    )
    calls = one_of_each_stretch(whole["calls"], FEW, f"{format}-{assets}")[1:]
    device_dies_at(zygote, tmp_path, format, assets, calls, torn=assets == "datum")


@pytest.mark.long
@FAMILIES
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("first", range(8))
def test_device_that_dies_at_each_of_its_calls_loses_nothing(
    zygote: Zygote, tmp_path: Path, format: str, assets: str, torn: bool, first: int
) -> None:
    whole = zygote.call(
        "acquire_by_device", **job(tmp_path / "whole", format, assets, shape=SHAPE, die_at_call=1 << 30)
    )
    device_dies_at(zygote, tmp_path, format, assets, range(1 + first, whole["calls"] + 1, 8), torn)


# -- a conversion ------------------------------------------------------------------------------------------

CONVERSIONS = pytest.mark.parametrize(
    ("format", "assets", "how"),
    [
        ("zarr", "datum", {"format": "tiff"}),
        ("tiff", "stream", {"format": "zarr", "keep_original": False}),
        ("zarr", "stream", {"chunks": "blocks"}),
    ],
    ids=str,
)


def acquired(zygote: Zygote, root: Path, format: str, assets: str) -> dict[str, Any]:
    zygote.call("acquire", **job(root, format, assets))
    return seen_in(root)


def seen_in(root: Path) -> dict[str, Any]:
    (run,) = examine(None, str(root)).values()
    return {name: said for name, said in run.items() if name != "left"}


def conversion_dies_at(
    zygote: Zygote, template: Path, format: str, how: dict[str, Any], calls: Iterable[int], torn: bool
) -> None:
    """Die there; look; open; look; convert for good: it is one run all along, and nothing is left in the end."""
    before = seen_in(template)
    for call in calls:
        root = template.with_name(f"store-{call}-{torn}")
        shutil.copytree(template, root)
        zygote.start("convert", root=str(root), how=how, die_at_call=call, torn=torn).dying_words(call)
        assert seen_in(root) == before, f"differs to a reader after a death at call {call}"
        with Store(root) as store:
            assert store.last_reconciliation is not None
            assert not store.last_reconciliation.needs_attention
            assert not store.last_reconciliation.quarantined
        assert seen_in(root) == before, f"differs after a death at call {call}"
        files, said = snapshot(root), answers(root, "a")
        assert snapshot(root) == files
        (root / "index.sqlite").unlink()
        assert answers(root, "a") == said
        with Store(root) as store:
            assert store.verify(progress=False).ok
            assert store.convert(store.query(), **how, progress=False).ok
            (asset,) = store.query(kind="asset")
            assert asset.metadata["made_from"][0]["spec"] == f"GENTLY_{format.upper()}"
            folder, copies = root / asset.path, list(root.glob("trash/runs/*/*/*/*/*"))
            assert {one.name for one in folder.parent.iterdir()} == {"documents.jsonl", folder.name}
            store.purge(now=True)
            assert len(copies) == 1 or (not copies and not how.get("keep_original", True))
        assert not [path for path in root.glob("trash/**/*") if path.is_file()]
        assert seen_in(root) == before


@CONVERSIONS
def test_conversion_that_dies_at_a_call_leaves_the_run_whole(
    zygote: Zygote, root: Path, tmp_path: Path, format: str, assets: str, how: dict[str, Any]
) -> None:
    acquired(zygote, root, format, assets)
    shutil.copytree(root, tmp_path / "whole")
    calls = zygote.call("convert", root=str(tmp_path / "whole"), how=how, die_at_call=1 << 30)
    some = one_of_each_stretch(calls, 5, f"{format}-{assets}")
    conversion_dies_at(zygote, root, format, how, some, torn=assets == "stream")


@pytest.mark.long
@CONVERSIONS
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("first", range(8))
def test_conversion_that_dies_at_each_of_its_calls_leaves_the_run_whole(
    zygote: Zygote,
    root: Path,
    tmp_path: Path,
    format: str,
    assets: str,
    how: dict[str, Any],
    torn: bool,
    first: int,
) -> None:
    acquired(zygote, root, format, assets)
    shutil.copytree(root, tmp_path / "whole")
    calls = zygote.call("convert", root=str(tmp_path / "whole"), how=how, die_at_call=1 << 30)
    conversion_dies_at(zygote, root, format, how, range(1 + first, calls + 1, 8), torn)
