"""A store's second place: what is written again there, how both parts are one run, which folder may be one; room."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from second_place import EVENTS, FAILS_AT, FRAMES, SHAPE, frame, overflowing

from gently_bluesky import Store
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.overflow import OVERFLOW_MARKER
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.room import Forecast
from gently_bluesky.documents.work import Owner, Task
from gently_bluesky.errors import FrameMismatch, GentlyError, InvalidSetting, NotAStore, StorageFull
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with a second place."""
    with Store(root, overflow=tmp_path / "second") as opened:
        yield opened


@pytest.mark.parametrize("assets", ["datum", "stream"])
@pytest.mark.parametrize("by", ["write", "result", "publish"])
def test_frames_that_were_not_announced_are_written_again_in_the_second_place(
    store: Store, by: str, assets: str
) -> None:
    uid = overflowing(store, by, assets=assets)
    run = store[uid]
    np.testing.assert_array_equal(run["camera"].compute(), FRAMES)
    assert run.status == "complete"
    assert run.stop is not None
    filled = [doc["data"]["camera"] for name, doc in run.documents(fill=True) if name == "event"]
    np.testing.assert_array_equal(np.stack([np.asarray(one) for one in filled]), FRAMES)
    journal = Journals(store.root, store.overflow).tail(run.record.path)
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    outcome = lines[-1]["outcome"]
    assert outcome["overflow"]["root"] == str(store.overflow)
    assert 1 <= outcome["overflow"]["stored"] <= EVENTS
    assert (outcome["received"], outcome["stored"], outcome["lost"]) == (EVENTS, EVENTS, 0)


def test_both_parts_are_one_array(store: Store) -> None:
    uid = overflowing(store, hot_bytes=1 << 20)
    array = store[uid]["camera"]
    for key in (
        np.s_[2:4],
        np.s_[::-2],
        np.s_[[4, 0, 2, 2]],
        np.s_[1:, 1, ::2, 3],
        np.s_[4],
        np.s_[:, 0],
        np.s_[FRAMES[:, 0, 0, 0] > FRAMES[1, 0, 0, 0]],
    ):
        np.testing.assert_array_equal(array[key].compute(), FRAMES[key])
    np.testing.assert_array_equal(array.max(axis=0), FRAMES.max(axis=0))
    assert [one.uid for one in array] == list(store[uid].table()["camera"])
    assert [np.asarray(one).tolist() for one in array.follow(start=0)] == FRAMES.tolist()
    assert len(array.wait(EVENTS)) == EVENTS
    assert set(store[uid].to_xarray()["camera"].dims) == {"t", *array.dims[1:]}


def test_run_in_two_places_is_verified_as_far_as_the_root_has_it_and_whole_when_it_is_home(
    store: Store,
) -> None:
    uid = overflowing(store)
    for found in (store.verify(progress=False), store.verify(uid, progress=False)):
        assert found.ok, str(found)
        assert found.events == FAILS_AT
        assert f"goes on in {store.overflow}" in str(found)
    assert store.reconcile().home == (uid,)
    found = store.verify(progress=False)
    assert found.ok
    assert (found.events, found.remarks) == (EVENTS, ())


def test_run_is_brought_home_when_the_store_is_next_opened(store: Store, root: Path) -> None:
    uid = overflowing(store)
    before = [doc for name, doc in store[uid].documents() if name in ("event", "datum", "stop")]
    held = store[uid]["camera"]
    second = store.overflow
    store.close()
    with Store(root, overflow=second):
        np.testing.assert_array_equal(held[EVENTS - 1].compute(), FRAMES[-1])
    with Store(root, mode="r") as alone:
        np.testing.assert_array_equal(alone[uid]["camera"].compute(), FRAMES)
        documents = list(alone[uid].documents())
    assert [doc for name, doc in documents if name in ("event", "datum", "stop")] == before
    assert {doc["root"] for name, doc in documents if name == "resource"} == {str(root)}


def test_refused_frame_does_not_lead_to_the_second_place(store: Store) -> None:
    writer = store.writer()
    run = HandMadeRun()
    writer("start", run.start)
    descriptor = run.descriptor("primary", camera={"dtype": "array", "shape": list(SHAPE), "source": "test"})
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=frame(0)))
    with pytest.raises(FrameMismatch):
        writer("event", run.event(descriptor, camera=frame(1)[0]))
    with pytest.raises(FrameMismatch):
        writer("stop", run.stop())
    assert writer.stats()["overflowed"] == 0
    assert store[run.uid].status == "failed"


def test_second_place_that_never_had_a_whole_line_leaves_the_run_as_the_root_has_it(
    store: Store, root: Path, RE: RunEngine
) -> None:
    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([EncodedCamera("camera", SHAPE)], 2))
    journal, second = store.record(uid).path, store.overflow
    store.close()
    assert second is not None
    (second / journal).parent.mkdir(parents=True)
    start = (root / journal).read_bytes().splitlines()[0]
    said = json.loads(start) | {"continues": {"journal": journal, "bytes": 400, "repeats": 3}}
    (second / journal).write_bytes(json.dumps(said).encode() + b'\n{"name": "descr')
    beside = (second / journal).with_name("primary-camera-overflow")
    beside.mkdir()
    (beside / "000000.ome.tif").write_bytes(b"pixels")
    for mode in ("r", "a"):
        with Store(root, mode=mode, overflow=second) as opened:
            assert opened[uid].status == "complete"
            assert len(opened[uid]["camera"]) == 2
    assert [path.read_bytes() for path in second.rglob("000000.ome.tif")] == [b"pixels"]
    assert not (second / journal).exists()


# -- which folder --------------------------------------------------------------------------------------------------


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def full_of_others(folder: Path) -> Path:
    (folder / "theirs").mkdir()
    (folder / "theirs" / "thesis.odt").touch()
    return folder / "theirs"


def of_another_store(folder: Path) -> Path:
    Store(folder / "another", overflow=folder / "their-second").close()
    return folder / "their-second"


def damaged(folder: Path) -> Path:
    (folder / "second").mkdir()
    (folder / "second" / OVERFLOW_MARKER).write_text("{}")
    return folder / "second"


def of_the_future(folder: Path) -> Path:
    Store(folder / "store", overflow=folder / "second").close()
    marker = folder / "second" / OVERFLOW_MARKER
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format_version": 2}))
    return folder / "second"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (a_file, NotAStore, "is a file"),
        (full_of_others, NotAStore, "thesis.odt"),
        (of_another_store, InvalidSetting, "is the overflow of the store"),
        (damaged, NotAStore, "is not the marker"),
        (of_the_future, InvalidSetting, "format 2"),
        (lambda folder: folder / "store" / "second", InvalidSetting, "beside the store"),
        (lambda folder: folder, InvalidSetting, "beside the store"),
    ],
)
@pytest.mark.parametrize("mode", ["a", "r"])
def test_folder_that_cannot_be_the_second_place_is_refused(
    tmp_path: Path, root: Path, mode: Any, make: Any, error: type[GentlyError], said: str
) -> None:
    Store(root).close()
    if mode == "r" and make in (a_file, full_of_others):
        return  # a reader takes nothing from it, and makes nothing there
    with pytest.raises(error, match=said):
        Store(root, mode=mode, overflow=make(tmp_path))


def test_reader_makes_no_second_place(tmp_path: Path, root: Path) -> None:
    Store(root).close()
    Store(root, mode="r", overflow=tmp_path / "second").close()
    assert not (tmp_path / "second").exists()


# -- room ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "min_free", "wanted"),
    [
        ({"num_points": 10}, 5, True),
        ({"num_points": 10}, 0, False),
        ({}, 5, False),
        ({"num_points": "ten"}, 5, False),
    ],
)
def test_a_run_is_foretold_where_its_length_is_known(
    start: dict[str, Any], min_free: int, wanted: bool
) -> None:
    assert Forecast({"uid": "r", **start}, min_free).is_wanted == wanted


def test_what_is_left_of_a_run_and_what_is_to_stay_free_have_to_fit() -> None:
    forecast = Forecast({"uid": "run-uid-1", "num_points": 10}, 50)
    assert forecast.fits(4, 100.0, 650)
    assert not forecast.fits(4, 100.0, 649)
    assert forecast.fits(12, 100.0, 50)
    refusal = forecast.refusal(4, 100.0, 649, "the disk")
    assert isinstance(refusal, StorageFull)
    for said in ("num_points=10", "650 bytes", "649 free", "min_free_bytes=50", "min_free_bytes=0 switches"):
        assert said in str(refusal)


class Weighing(Owner):
    """Notes how many bytes are pending when a task is committed."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(max_pending_bytes=10, stall_timeout_s=30, keeps_stored=True)
        self.pending: list[int] = []

    def begin(self, task: Task) -> None:
        """Nothing to write."""

    def stall(self, tasks: Sequence[Task], error: Exception) -> None:
        """Nobody waits so long."""

    def commit(self, tasks: Sequence[Task]) -> None:
        self.pending.append(self.pipeline.pending[1])


def test_pixels_that_may_have_to_be_written_elsewhere_count_until_they_are_announced() -> None:
    owner = Weighing()
    pipeline = owner.pipeline
    pipeline.hold()
    for _ in range(3):  # the second one waits for the commit of the first
        pipeline.reserve(10)
        pipeline.put(Task(owner, 10))
    pipeline.release()
    assert owner.pending == [10, 10, 10]
    assert pipeline.pending == (0, 0)
