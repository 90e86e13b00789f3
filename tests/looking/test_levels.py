"""Pictures of arrays that are stored at several resolutions: they read no more than they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gently_bluesky import LazyArray, Store
from gently_bluesky.projections import Grid, panels, project
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (3, 401, 512)
STEPS_UM = {"camera_pixel_size_um": 0.25, "camera_z_step_um": 2.0}


def with_steps(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Say in a descriptor how large pixels are: planes so far apart that all of them are kept."""
    times = dict.fromkeys(STEPS_UM, 0.0)
    keys = {name: {"source": "hand", "dtype": "number", "shape": []} for name in STEPS_UM}
    said = {"data": STEPS_UM, "timestamps": times, "data_keys": keys}
    return {**descriptor, "configuration": {"device": said}}


@pytest.fixture
def stored(store: Store) -> LazyArray:
    """A volume that is kept whole, by halves and by quarters along y and x."""
    run = HandMadeRun()
    descriptor = with_steps(run.descriptor(camera={"dims": ["z", "y", "x"]}))
    volume = encoded_frame(SHAPE, "<u2")
    with store.writer(levels=3, min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for _ in range(2):
            writer("event", run.event(descriptor, camera=volume))
        writer("stop", run.stop())
    return store[run.uid]["camera"]


def lose(store: Store, level: int) -> None:
    (folder,) = store.root.glob(f"runs/*/*/*/*/primary-camera.ome.zarr/{level}/c")
    folder.rename(folder.with_name("lost"))


@pytest.mark.parametrize(("factor", "kept"), [(1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (8, 4)])
def test_the_coarsest_that_suits_is_taken_and_what_was_cut_stays_as_it_is(
    stored: LazyArray, factor: int, kept: int
) -> None:
    coarse, by = stored[1].coarser({"y": factor, "x": factor})
    assert by == {"z": 1, "y": kept, "x": kept}
    assert coarse.shape == (3, -(-401 // kept), 512 // kept)
    assert coarse.scale == tuple(
        step * count for step, count in zip(stored[1].scale, (1, kept, kept), strict=True)
    )
    assert coarse.uid == stored[1].uid
    whole = np.asarray(stored[1], float)[:, :400].reshape(3, 400 // kept, kept, 512 // kept, kept)
    np.testing.assert_allclose(np.asarray(coarse)[:, : 400 // kept], whole.mean(axis=(2, 4)), atol=0.5)
    assert stored[1, :, 1:].coarser({"y": factor, "x": factor})[1]["y"] == 1
    np.testing.assert_array_equal(coarse[2, ::-1], np.asarray(coarse)[2, ::-1])


def test_a_picture_is_the_one_of_the_full_resolution_and_reads_nothing_of_that(
    store: Store, stored: LazyArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (panel,) = panels(stored)
    grid = Grid(1.0)
    with monkeypatch.context() as patched:
        patched.setattr(LazyArray, "coarser", lambda self, most: (self, dict.fromkeys(self.dims, 1)))
        expected = project(panel, grid)
    lose(store, 0)
    found = project(panel, grid)
    for one, same in zip(found.all, expected.all, strict=True):
        np.testing.assert_allclose(one, same, atol=1.0)
    assert stored._repr_html_().count("<img") == 1
    assert "cannot be shown" not in stored._repr_html_()


def test_where_a_resolution_cannot_be_opened_the_full_one_is_read(
    root: Path, store: Store, stored: LazyArray
) -> None:
    (metadata,) = root.glob("runs/*/*/*/*/primary-camera.ome.zarr/1/zarr.json")
    for text in ("{", "[" * 100, metadata.read_text().replace("uint16", "uint8")):
        metadata.write_text(text)
        assert stored.coarser({"y": 4, "x": 4})[1]["y"] == 1
    assert stored._repr_html_().count("<img") == 1


def test_a_picture_of_a_large_plane_in_thick_chunks_is_of_all_of_it(store: Store) -> None:
    run = HandMadeRun()
    descriptor = with_steps(run.descriptor(camera={"dims": ["z", "y", "x"]}))
    with store.writer(levels=4, chunks=(16, 1024, 1024), min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=np.ones((16, 1024, 1024), "<u2")))
        writer("stop", run.stop())
    assert "the middle" not in store[run.uid]["camera"]._repr_html_()
