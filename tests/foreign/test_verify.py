"""Arrays of other writers have no digests: they are verified to be there, readable, and of the announced shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from foreign_runs import datum_run, frames, send, stream_run, uri_of, write_hdf5, write_tiffs
from ophyd.sim import SynSignalWithRegistry

from gently_bluesky import Store
from gently_bluesky.upkeep.verification import Verification

DATUMS = [{"point_number": number} for number in range(3)]


def verified(store: Store) -> Verification:
    return store.verify(progress=False)


def told(report: Verification) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.event) for finding in report.findings]


def numpy_files(RE: Any, store: Store, data: Path) -> list[Path]:
    camera = SynSignalWithRegistry(lambda: np.ones((6, 8)), name="camera", save_path=str(data))
    RE.subscribe(store.writer())
    RE(bp.count([camera], 3))
    return sorted(data.glob("*.npy"))[-3:]


def area_detector(RE: Any, store: Store, data: Path) -> list[Path]:
    write_tiffs(data, 3, "img_{:06d}.tiff")
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "img", "frame_per_point": 1}
    send(store, datum_run("AD_TIFF", data, "", kwargs, DATUMS))
    return sorted(data.glob("*.tiff"))


def stream_of_tiffs(RE: Any, store: Store, data: Path) -> list[Path]:
    write_tiffs(data, 3, "img_{:06d}.tiff")
    parameters = {"template": "img_{:06d}.tiff", "chunk_shape": [1, 6, 8], "join_method": "concat"}
    uri = f"{uri_of(data)}/"
    send(store, stream_run("multipart/related;type=image/tiff", uri, parameters))
    return sorted(data.glob("*.tiff"))


@pytest.mark.parametrize("write", [numpy_files, area_detector, stream_of_tiffs])
def test_files_of_others_are_there_and_readable_or_the_event_is_named(
    RE: Any, store: Store, data: Path, write: Any
) -> None:
    files = write(RE, store, data)
    report = verified(store)
    assert report.ok, report
    assert (report.events, report.without_digest) == (3, 3)
    assert "3 events without a digest" in str(report)
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2])
    assert [event for _, event in told(verified(store))] == [1]
    files[1].unlink()
    (finding,) = verified(store).findings
    assert (finding.kind, finding.event, finding.path[:1]) == ("missing", 1, "/")
    files[1].symlink_to(files[1].name)
    assert told(verified(store)) == [("unreadable", 1)]


def test_a_file_of_others_that_holds_another_shape_is_foreign(store: Store, data: Path) -> None:
    write_hdf5(data / "scan.h5", 3)
    send(store, stream_run("application/x-hdf5", uri_of(data / "scan.h5"), {"dataset": "/entry/data/data"}))
    assert verified(store).ok
    for other, says in (
        (np.zeros((3, 12, 16), "u2"), "as declared"),
        (frames(3).astype("u4"), "as the descriptor says"),
    ):
        with h5py.File(data / "scan.h5", "r+") as file:
            del file["/entry/data/data"]
            file["/entry/data/data"] = other
        (finding,) = verified(store).findings
        assert (finding.kind, finding.event, finding.path) == ("foreign", None, (data / "scan.h5").as_posix())
        assert says in finding.reason


def test_several_arrays_in_one_file_are_each_read(store: Store, data: Path) -> None:
    write_hdf5(data / "scan.h5", 2, "/a")
    write_hdf5(data / "scan.h5", 2, "/b")
    datums = [{"point_number": number, "dataset": name} for name in ("/a", "/b") for number in range(2)]
    uid = send(store, datum_run("AD_HDF5_SWMR_STREAM", data, "scan.h5", {}, datums))
    report = verified(store)
    assert report.ok, report
    assert report.events == 4
    with h5py.File(data / "scan.h5", "r+") as file:
        del file["/b"]
    assert {finding.kind for finding in verified(store).findings} & {"missing", "corrupted"}
    assert uid in {finding.run for finding in verified(store).findings}


def test_what_may_not_or_cannot_be_opened_is_said_and_is_no_finding(
    store: Store, data: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(elsewhere / "x_0.npy", frames(1)[0])
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "img"}
    send(store, datum_run("AD_TIFF", elsewhere, "x", kwargs, DATUMS[:1]))
    (data / "x").touch()
    send(store, datum_run("NOBODYS", data, "x", {}, DATUMS[:1]))
    report = verified(store)
    assert report.ok
    assert report.events == 0
    assert len(report.unopened) == 2
    assert "not opened: run" in str(report)
    assert verified(store).unopened == store.verify(progress=False, unless_verified_since=0).unopened
    (data / "x").unlink()
    assert told(verified(store)) == [("missing", None)]
