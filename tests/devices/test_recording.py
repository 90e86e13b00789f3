"""What a device's author meets: recordings by hand, what they refuse, and what lies on the disk afterwards."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import zarr
from cameras import SHAPE, data_keys, frame

from gently_bluesky import Store
from gently_bluesky.devices.handover import pop_stored
from gently_bluesky.devices.recorder import Recorder
from gently_bluesky.devices.recording import Written
from gently_bluesky.documents.tasks import digest_of_pixels
from gently_bluesky.errors import (
    FrameMismatch,
    InputError,
    InvalidSetting,
    StorageFull,
    StoreReadOnly,
    UnstorableDtype,
    WriterClosed,
)

ABOUT = {"data_keys": {"view_a": data_keys()["view_a"]}}


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return store.recorder()


def written(recorder: Recorder, numbers: list[int], assets: str = "datum") -> Any:
    recording = recorder.record("camera", assets=assets)
    events = [recording.write({"view_a": frame(number)}, ABOUT, float(number)) for number in numbers]
    for event in events:
        event.stored.result(10)
    return recording, events


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (folder / "documents.jsonl").read_bytes().splitlines()]


def test_an_event_is_in_the_files_and_on_record_when_its_future_is_done(
    store: Store, recorder: Recorder
) -> None:
    recording, _ = written(recorder, [1, 2])
    folder = store.root / recording.folder
    np.testing.assert_array_equal(zarr.open_array(folder / "view_a.ome.zarr/0", mode="r")[1], frame(2))
    lines = lines_of(folder)
    assert [line["name"] for line in lines] == ["resource", "datum", "datum"]
    assert lines[2]["digest"] == {"view_a": digest_of_pixels(frame(2))}
    assert (folder / ".live").exists()
    recording.close()
    assert not (folder / ".live").exists()


def test_the_folder_is_called_by_the_day_and_the_device(store: Store, recorder: Recorder) -> None:
    recording = recorder.record("Dispim/Light sheet")
    assert recording.folder.startswith("incoming/2")
    assert "_dispim-light-sheet_" in recording.folder
    assert (store.root / recording.folder / ".live").exists()
    recording.close()


def test_a_recording_into_which_nothing_came_leaves_nothing(store: Store, recorder: Recorder) -> None:
    recording = recorder.record("camera")
    recording.close()
    recording.close()
    assert not list(store.root.glob("incoming/*/*/*/*"))


def test_arrays_are_copied_as_they_come(recorder: Recorder, store: Store) -> None:
    recording = recorder.record("camera")
    buffer = frame(1)
    event = recording.write({"view_a": buffer}, ABOUT)
    buffer[:] = 0
    event.stored.result(10)
    recording.close()
    stored = zarr.open_array(store.root / recording.folder / "view_a.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(stored[0], frame(1))


def test_events_are_handed_out_up_to_the_first_that_is_not_stored(recorder: Recorder) -> None:
    recording, (first, third) = written(recorder, [1, 3])
    waiting = [first, Written({}, 2.0, Future()), third]
    assert pop_stored(waiting) == [first]
    assert len(waiting) == 2
    recording.close()


def test_events_that_are_taken_back_are_written_over(recorder: Recorder, store: Store) -> None:
    recording, events = written(recorder, [1, 2, 3])
    recording.take_back(events[1:])
    recording.write({"view_a": frame(4)}, ABOUT).stored.result(10)
    recording.close()
    stored = zarr.open_array(store.root / recording.folder / "view_a.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(stored[:2], [frame(1), frame(4)])


def test_another_shape_that_is_declared_opens_another_asset(recorder: Recorder, store: Store) -> None:
    recording, _ = written(recorder, [1])
    about = {"data_keys": {"view_a": data_keys((2, 8, 8))["view_a"]}}
    recording.write({"view_a": frame(2, shape=(2, 8, 8))}, about).stored.result(10)
    recording.close()
    names = {path.name for path in (store.root / recording.folder).iterdir()}
    assert names == {"documents.jsonl", "view_a.ome.zarr", "view_a-2.ome.zarr"}


def test_an_array_of_a_shape_that_was_not_declared_is_refused_and_the_recording_goes_on(
    recorder: Recorder,
) -> None:
    recording, _ = written(recorder, [1])
    with pytest.raises(FrameMismatch, match=r"\(2, 16, 20\), the device had declared \(3, 16, 20\)"):
        recording.write({"view_a": frame(2)[:2]}, ABOUT)
    recording.write({"view_a": frame(3)}, ABOUT).stored.result(10)
    recording.close()


def test_nothing_declared_is_believed_what_comes(recorder: Recorder) -> None:
    recording = recorder.record("camera")
    about = {"data_keys": {"view_a": {"source": "x", "dtype": "array", "shape": []}}}
    assert recording.write({"view_a": frame(1)}, about).places["view_a"][0].spec.shape == SHAPE
    recording.close()


@pytest.mark.parametrize(
    ("arrays", "error"),
    [({}, InputError), ({"view_a": np.array([[None, {}]], object)}, UnstorableDtype)],
)
def test_what_cannot_be_stored_is_refused(recorder: Recorder, arrays: Any, error: type[Exception]) -> None:
    recording = recorder.record("camera")
    about = {"data_keys": {"view_a": {"source": "x", "dtype": "array", "shape": []}}}
    with pytest.raises(error, match="store"):
        recording.write(arrays, about)
    recording.close()


def test_a_closed_recording_takes_nothing(recorder: Recorder) -> None:
    recording, _ = written(recorder, [1])
    recording.close()
    with pytest.raises(WriterClosed, match="stage the device"):
        recording.write({"view_a": frame(2)}, ABOUT)


def test_a_closed_recorder_opens_no_recording(recorder: Recorder) -> None:
    recorder.close()
    with pytest.raises(WriterClosed, match="after close"):
        recorder.record("camera")


def test_closing_the_store_ends_its_recordings(root: Path) -> None:
    with Store(root) as store:
        recording = store.recorder().record("camera")
        event = recording.write({"view_a": frame(1)}, ABOUT)
    assert event.stored.done()
    assert event.stored.exception() is None
    assert not (root / recording.folder / ".live").exists()


def test_pixels_in_memory_are_refused(store: Store) -> None:
    with pytest.raises(InvalidSetting, match="on disk"):
        store.recorder(format="memory")


def test_a_store_that_is_only_read_has_no_recorder(store: Store) -> None:
    with Store(store.root, mode="r") as reader, pytest.raises(StoreReadOnly):
        reader.recorder()


def test_too_little_free_space_is_told_before_anything_begins(store: Store) -> None:
    with pytest.raises(StorageFull, match="min_free_bytes"):
        store.recorder(min_free_bytes=2**60).record("camera")
    assert not list(store.root.glob("incoming/*/*/*/*"))


def test_a_store_that_is_opened_meanwhile_leaves_a_living_recording_alone(
    store: Store, recorder: Recorder
) -> None:
    recording, _ = written(recorder, [1])
    with Store(store.root):
        assert (store.root / recording.folder / ".live").exists()
    recording.write({"view_a": frame(2)}, ABOUT).stored.result(10)
    recording.close()
