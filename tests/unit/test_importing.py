"""Images from elsewhere become runs: pixels, axes, steps and channels as they are, copied or where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from gently_bluesky import Store
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    GentlyError,
    InputError,
    InvalidSetting,
    PathNotAllowed,
    StoreReadOnly,
)
from gently_bluesky.testing.frames import check_frame, encoded_frame

SHAPE = (3, 20, 30)
EVENTS = 4


def volumes(dtype: str = "<u2") -> np.ndarray:
    return np.stack([encoded_frame(SHAPE, dtype, run="elsewhere", event=event) for event in range(EVENTS)])


def check(array, dims=("t", "z", "y", "x")) -> None:
    assert array.dims == dims
    for event, frame in enumerate(np.asarray(array)):
        check_frame(frame, run="elsewhere", event=event)


def write_ome_zarr(path: Path, pixels: np.ndarray, axes: str, version: int) -> None:
    """Write an OME-Zarr as others do: of 0.4 in Zarr v2, of 0.5 in v3; in nanometres."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == 4 else 3)
    array = group.create_array("0", shape=pixels.shape, chunks=(1, *pixels.shape[1:]), dtype=pixels.dtype)
    array[:] = pixels
    kinds = {"t": ("time", "second"), "c": ("channel", None)}
    steps = {"t": 30.0, "z": 1500.0, "y": 162.5, "x": 162.5, "c": 1.0}
    said = {
        "multiscales": [
            {
                "axes": [
                    {
                        "name": a,
                        "type": kinds.get(a, ("space", ""))[0],
                        "unit": kinds.get(a, ("", "nanometer"))[1],
                    }
                    for a in axes
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [{"type": "scale", "scale": [steps[a] for a in axes]}],
                    }
                ],
            }
        ],
        **({"omero": {"channels": [{"label": "GFP"}, {"label": "RFP"}]}} if "c" in axes else {}),
    }
    group.attrs.update(said if version == 4 else {"ome": {"version": "0.5", **said}})


def write_time_points(folder: Path, numbers=range(EVENTS)) -> None:
    folder.mkdir()
    for number, volume in zip(numbers, volumes(), strict=True):
        tifffile.imwrite(folder / f"t{number:04d}.tif", volume, photometric="minisblack")


# -- copied ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_ome_zarr_comes_with_its_axes_and_steps(store: Store, tmp_path: Path, version: int) -> None:
    write_ome_zarr(tmp_path / "x.ome.zarr", volumes(), "tzyx", version)
    told: list[tuple[int, int]] = []
    record = store.import_(
        tmp_path / "x.ome.zarr", session="old", embryo="e3", progress=lambda *now: told.append(now[:2])
    )
    run = store[record.uid]
    check(run["image"])
    assert run["image"].scale == (1.0, 1.5, 0.1625, 0.1625)
    assert (run.status, record.session, record.data_type) == ("complete", "old", "imported")
    imported = run.start["imported"]
    assert imported == {
        "path": str(tmp_path / "x.ome.zarr"),
        "kind": "OME-Zarr",
        "by": "copy",
        "time_step_s": 30.0,
    }
    assert [one.uid for one in store.query(embryo="e3")] == [record.uid]
    assert told[-1] == (volumes().nbytes, volumes().nbytes)
    assert store.verify(record.uid, progress=False).without_digest == 0


def test_channels_keep_their_names(store: Store, tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "x.zarr", np.stack([volumes()] * 2, 1), "tczyx", 5)
    array = store[store.import_(tmp_path / "x.zarr", progress=False).uid]["image"]
    assert array.dims == ("t", "c", "z", "y", "x")
    assert array.channels == ("GFP", "RFP")
    check(array[:, 1])


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"bigtiff": True, "tile": (16, 16)}], ids=str)
def test_ome_tiff_comes_with_its_axes_and_steps(store: Store, tmp_path: Path, how) -> None:
    about = {"axes": "TZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    about |= {"PhysicalSizeZ": 1.5, "TimeIncrement": 2.0, "TimeIncrementUnit": "min"}
    tifffile.imwrite(
        tmp_path / "x.ome.tif", volumes(), ome=True, metadata=about, photometric="minisblack", **how
    )
    run = store[store.import_(tmp_path / "x.ome.tif", format="tiff", progress=False).uid]
    check(run["image"])
    assert run["image"].scale == (1.0, 1.5, 0.25, 0.25)
    assert run.start["imported"]["time_step_s"] == 120.0


def test_what_the_file_does_not_say_can_be_said(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(volumes(">u2")))
    how = {"dims": ("t", "z", "y", "x"), "pixel_size_um": 0.25, "z_step_um": 2, "progress": False}
    array = store[store.import_(tmp_path / "x.npy", **how).uid]["image"]
    check(array)
    assert (array.scale, array.dtype) == ((1.0, 2.0, 0.25, 0.25), np.dtype("<u2"))


def test_image_without_events_is_one(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", volumes()[0])
    tifffile.imwrite(tmp_path / "x.tif", volumes()[0], photometric="minisblack")
    write_ome_zarr(tmp_path / "x.zarr", volumes()[0], "zyx", 5)
    for name in ("x.npy", "x.tif", "x.zarr"):
        check(store[store.import_(tmp_path / name, data_key="view", progress=False).uid]["view"])


def test_folder_of_time_points_is_in_the_order_of_its_numbers(store: Store, tmp_path: Path) -> None:
    write_time_points(tmp_path / "embryo", [2, 9, 10, 11])
    (tmp_path / "embryo" / "notes.txt").write_text("of that night")
    with pytest.warns(RuntimeWarning, match="has no t0003 and others"):
        record = store.import_(tmp_path / "embryo", progress=False)
    check(store[record.uid]["image"])


def test_folder_of_which_a_file_is_damaged_or_unlike_the_others_makes_no_run(
    store: Store, tmp_path: Path
) -> None:
    for name in ("damaged", "unlike"):
        write_time_points(tmp_path / name)
        file = tmp_path / name / "t0002.tif"
        if name == "damaged":
            file.write_bytes(file.read_bytes()[:100])
        else:
            tifffile.imwrite(file, volumes()[0, :, 1:], photometric="minisblack")
        with pytest.raises(AssetDamaged, match=r"t0002\.tif.*nothing was imported"):
            store.import_(tmp_path / name, progress=False)
    assert not [*store.query()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_pipe_is_no_image_and_nobody_waits_for_it(store: Store, tmp_path: Path) -> None:
    write_time_points(tmp_path / "embryo")
    (tmp_path / "embryo" / "t0001.tif").unlink()
    for place in (tmp_path / "x.tif", tmp_path / "x.npy", tmp_path / "embryo" / "t0001.tif"):
        os.mkfifo(place)
        with pytest.raises(InputError, match="a pipe, or a device; nothing was imported"):
            store.import_(place.parent if place.parent.name == "embryo" else place)


def test_file_that_goes_meanwhile_fails_its_run_and_keeps_what_came(store: Store, tmp_path: Path) -> None:
    write_time_points(tmp_path / "embryo")
    with pytest.raises(AssetMissing, match=r"t0002\.tif"):
        store.import_(
            tmp_path / "embryo",
            progress=lambda *_: (tmp_path / "embryo" / "t0002.tif").unlink(missing_ok=True),
        )
    (record,) = store.query()
    assert (record.status, record.stored) == ("failed", 2)
    assert "event 2 could not be read" in store[record.uid].stop["reason"]


# -- by reference ------------------------------------------------------------------------------------------


def test_what_stays_where_it_is_is_read_there(root: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write_time_points(theirs / "embryo")
    write_ome_zarr(theirs / "x.zarr", volumes(), "tzyx", 4)
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    with Store(root) as store:
        for name in ("embryo", "x.zarr"):
            with pytest.raises(PathNotAllowed, match="allowed_roots"):
                store.import_(theirs / name, copy=False)
        assert not [*store.query()]
    with Store(root, allowed_roots=[theirs]) as store:
        for name in ("embryo", "x.zarr"):
            record = store.import_(theirs / name, copy=False)
            run = store[record.uid]
            assert (run.status, run.start["imported"]["by"]) == ("complete", "reference")
            check(run["image"])
            assert store.verify(record.uid, progress=False).ok
            assert {path.name for path in (root / record.path).parent.iterdir()} == {"documents.jsonl"}
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before


def test_what_the_store_has_is_not_imported_by_reference(root: Path) -> None:
    with Store(root) as store:
        uid = store.put(volumes(), data_type="x").uid
        kept = store.root / store.assets(uid)[0].path
        with pytest.raises(InputError, match=r"lies in the store.*nothing was stored; copy it"):
            store.import_(kept, copy=False)
        copied = store.import_(kept, progress=False).uid
        assert np.array_equal(np.asarray(store[copied]["image"]).squeeze(), volumes())


@pytest.mark.parametrize("um", [-1, 0, float("nan"), "a", (1, 2, 3), [0.1], True])
def test_steps_that_are_none_are_refused(store: Store, tmp_path: Path, um: object) -> None:
    np.save(tmp_path / "x.npy", volumes())
    with pytest.raises(InvalidSetting, match="number of micrometres"):
        store.import_(tmp_path / "x.npy", pixel_size_um=um)
    assert not [*store.query()]


@pytest.mark.filterwarnings("ignore:.*has no t0002:RuntimeWarning")
def test_what_nothing_reads_in_place_is_to_be_copied(root: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", volumes())
    write_time_points(tmp_path / "gap", [0, 1, 3, 4])
    write_ome_zarr(tmp_path / "x.zarr", volumes()[0], "zyx", 5)
    with Store(root, allowed_roots=[tmp_path]) as store:
        for name in ("x.npy", "gap", "x.zarr"):
            with pytest.raises(InputError, match=r"nothing was stored; leave copy=False away"):
                store.import_(tmp_path / name, copy=False)
        assert not [*store.query()]


# -- what is refused ---------------------------------------------------------------------------------------


def test_what_is_no_image_is_refused_and_nothing_stored(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.tif").write_bytes(b"II*\0nothing")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "good.npy", volumes())
    np.save(tmp_path / "none.npy", np.empty((0, 4, 4)))
    np.save(tmp_path / "line.npy", np.arange(4))
    tifffile.imwrite(
        tmp_path / "zt.ome.tif", volumes(), ome=True, metadata={"axes": "ZTYX"}, photometric="minisblack"
    )
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    refused: list[tuple[str, dict, type[GentlyError], str]] = [
        ("x.txt", {}, InputError, "OME-Zarr"),
        ("empty", {}, InputError, "is neither"),
        (
            "good.npy",
            {"dims": ("t", "c", "y", "x"), "z_step_um": 1},
            InvalidSetting,
            "step along z was given",
        ),
        ("good.npy", {"data_key": "a/b"}, InvalidSetting, "expected a data_key"),
        ("none.npy", {}, InputError, "holds 1 events of"),
        ("line.npy", {"dims": ("x",)}, InputError, "expected images"),
        ("gone.tif", {}, AssetMissing, "not there"),
        ("x.tif", {}, AssetDamaged, "cannot be read"),
        ("pickled.npy", {}, AssetDamaged, "cannot be read"),
        ("words.npy", {}, InputError, "expected images"),
        ("good.npy", {"dims": ("z", "y")}, InvalidSetting, "4 axes"),
        ("good.npy", {"dims": ("z", "t", "y", "x")}, InputError, "in front"),
        ("good.npy", {"uid": "mine"}, InvalidSetting, "other than uid"),
        ("good.npy", {"format": "hdf5"}, InvalidSetting, "hdf5"),
        ("zt.ome.tif", {}, InputError, "in front"),
        ("group.zarr", {}, InputError, "multiscales"),
    ]
    for name, how, error, message in refused:
        with pytest.raises(error, match=message):
            store.import_(tmp_path / name, **how, progress=False)
    with Store(store.root, mode="r") as reader, pytest.raises(StoreReadOnly, match="mode='r'"):
        reader.import_(tmp_path / "good.npy")
    assert not [*store.query()]
