"""An array of a run that goes on: waiting for events, following them, and what there is when the run has ended."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

from gently_bluesky import LazyArray, Store
from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.continued import Journals
from gently_bluesky.errors import (
    AmbiguousArray,
    AssetMissing,
    FixedArray,
    FrameMismatch,
    InputError,
    InvalidSetting,
    JournalDamaged,
    LookupFailed,
    NotYetStored,
    RunEnded,
    StoreUnusable,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import GatedBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame
from gently_bluesky.watching import JournalIndex

SHAPE = (3, 8, 9)
LONG_S = 60.0
"""Longer than anything here takes: a wait for what must come."""


class Acquisition:
    """A run that is written, a document at a time; each event is announced when ``take`` returns."""

    def __init__(self, store: Store, format: str = "zarr", backend: Backend | None = None) -> None:
        self.store = store
        self.writer = store.writer(format=format)
        if backend is not None:
            self.writer._desk.backend = backend
        self.run = HandMadeRun()
        self.uid = self.run.uid
        self.taken = 0
        self.is_declared = threading.Event()
        self._announced = threading.Semaphore(0)
        self.writer.subscribe(self._note)
        self.writer("start", self.run.start)
        self._descriptor = self._declare(SHAPE)

    def _note(self, name: str, doc: Any) -> None:
        if name == "descriptor":
            self.is_declared.set()
        elif name == "event":
            self._announced.release()

    def _declare(self, shape: tuple[int, ...]) -> dict[str, Any]:
        self.shape = shape
        descriptor = self.run.descriptor(camera={"shape": list(shape)}, n={"dtype": "integer"})
        self.writer("descriptor", descriptor)
        return descriptor

    def configure(self, shape: tuple[int, ...]) -> None:
        self._descriptor = self._declare(shape)

    def take(self, events: int = 1, *, seq_num: int | None = None) -> None:
        self.bring(events, seq_num=seq_num)
        self.wait_for_announcements(events)

    def bring(self, events: int = 1, *, seq_num: int | None = None) -> None:
        for _ in range(events):
            frame = encoded_frame(self.shape, "u2", event=self.taken)
            doc = self.run.event(self._descriptor, seq_num, camera=frame, n=self.taken)
            self.writer("event", doc)
            self.taken += 1

    def wait_for_announcements(self, events: int) -> None:
        for _ in range(events):
            assert self._announced.acquire(timeout=LONG_S)

    def stop(self, exit_status: str = "success") -> None:
        self.writer("stop", self.run.stop(exit_status))


@pytest.fixture(params=["zarr", "tiff"])
def format(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def going(store: Store) -> Acquisition:
    """A run with two events that goes on."""
    acquisition = Acquisition(store)
    acquisition.take(2)
    return acquisition


OPENINGS = {
    "for reading": ("r", None, None),
    "for writing": ("a", None, None),
    "for reading, without an index": ("r", "elsewhere", None),
    "for reading, with an old copy of the index": ("r", None, "copy"),
    "for writing, with an index of its own": ("a", None, "own"),
}
"""The mode of another process, and where the index of who writes and its own index are."""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def check_events(array: LazyArray, events: list[int]) -> None:
    pixels = array.compute()
    assert len(pixels) == len(events)
    for frame, number in zip(pixels, events, strict=True):
        check_frame(frame, event=number)


def numbers(array: Iterator[LazyArray]) -> list[int]:
    """Read each event that comes, and return which it was, by the datum's uid; the pixels must be its own."""
    found: list[int] = []
    for one in array:
        found.append(int(one.uid.rpartition("/")[2]))
        check_frame(one.compute(), event=found[-1])
    return found


# -- other processes' runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "writers", "own"), OPENINGS.values(), ids=OPENINGS)
def test_every_reader_sees_each_event_once_and_its_handle_works_after_the_end(
    root: Path,
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    format: str,
    mode: Any,
    writers: str | None,
    own: str | None,
) -> None:
    Store(root, index="sqlite://" if writers else None).close()  # see the next test
    places = {name: f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("elsewhere", "copy", "own")}
    with Store(root, index=places.get(writers or "")) as writing:
        if own == "copy":
            shutil.copyfile(root / "index.sqlite", tmp_path / "copy.sqlite")
        going = Acquisition(writing, format)
        going.take(2)
        with Store(root, mode=mode, index=places.get(own or "")) as reader:
            run = reader.wait_for_run(timeout_s=LONG_S)
            early = run.wait("primary", "camera", timeout_s=LONG_S)
            following = pool.submit(numbers, early.follow(start=0, timeout_s=LONG_S))
            waiting = pool.submit(early.wait, 6, LONG_S)
            for _ in range(3):
                going.take(2)
            assert len(waiting.result()) >= 6
            assert run.status == "running"
            going.stop()
            assert following.result() == list(range(8))
            assert run.status == "complete"
            whole = early.wait(8)
            assert whole.uid == early.uid
            check_events(whole, list(range(8)))
            check_events(early, list(range(len(early))))
            assert len(run["primary"]["camera"]) == 8
            with pytest.raises(RunEnded, match=r"holds 8 events, 9 were waited for; .* ended \(complete\)"):
                whole.wait(9)


def test_a_reader_of_a_read_only_copy_of_the_index_lags_behind_nobody(root: Path, tmp_path: Path) -> None:
    """The copy never hears of the run: the journal is asked instead, also for the run's status."""
    Store(root).close()  # else the file of the index may be empty, with everything beside it
    with Store(root) as store:
        shutil.copyfile(root / "index.sqlite", tmp_path / "old.sqlite")
        with Store(root, mode="r", index=f"sqlite:///{tmp_path}/old.sqlite") as reader:
            going = Acquisition(store)
            going.take(3)
            run = reader.wait_for_run(timeout_s=LONG_S)
            assert run.uid == going.uid
            assert run.status == "running"
            check_events(run.wait("primary", "camera", 3, timeout_s=0), [0, 1, 2])
            assert run.streams == ("primary",)
            going.stop()
            assert run.status == "complete"


# -- wait ----------------------------------------------------------------------------------------------------


def test_wait_returns_a_longer_array_and_leaves_this_one_as_it_is(store: Store, going: Acquisition) -> None:
    first = store[going.uid]["camera"]
    going.take(3)
    later = first.wait(4)
    assert (first.shape, later.shape) == ((2, *SHAPE), (5, *SHAPE))
    assert (later.dims, later.scale, later.units, later.name) == (
        first.dims,
        first.scale,
        first.units,
        first.name,
    )
    check_events(first, [0, 1])
    check_events(later, [0, 1, 2, 3, 4])
    assert len(first.wait(0)) == 5
    assert later[4].uid == f"{first.uid}/4"


def test_wait_without_time_asks_once(store: Store, going: Acquisition) -> None:
    view = store[going.uid]["camera"]
    assert len(view.wait(2, timeout_s=0)) == 2
    with pytest.raises(
        NotYetStored, match=r"primary/camera holds 2 events, 3 were waited for; after 0 s"
    ) as caught:
        view.wait(3, timeout_s=0)
    assert caught.value.code == "not-yet-stored"
    assert isinstance(caught.value, IndexError)
    assert isinstance(caught.value, TimeoutError)
    going.take()
    assert len(view.wait(3, timeout_s=0)) == 3


@pytest.mark.parametrize(
    ("exit_status", "said"), [("success", "complete"), ("abort", "aborted"), ("fail", "failed")]
)
def test_wait_for_what_will_not_come_ends_with_the_run(
    store: Store, going: Acquisition, pool: ThreadPoolExecutor, exit_status: str, said: str
) -> None:
    view = store[going.uid]["camera"]
    waiting = pool.submit(view.wait, 4)
    following = pool.submit(numbers, view.follow())
    going.take()
    going.stop(exit_status)
    for ask in (waiting.result, lambda: view.wait(4), lambda: view.wait(4, timeout_s=0)):
        with pytest.raises(
            RunEnded, match=rf"holds 3 events, 4 .* ended \({said}\): there will be no more"
        ) as caught:
            ask()
        assert caught.value.code == "run-ended"
    assert following.result() == [2]
    check_events(view.wait(3), [0, 1, 2])


def test_a_run_whose_storage_failed_has_ended_too(store: Store, going: Acquisition) -> None:
    view = store[going.uid]["camera"]
    with pytest.raises(FrameMismatch):
        going.writer("event", going.run.event(going._descriptor, camera=np.zeros((2, 2), "u2"), n=1))
    with pytest.raises(FrameMismatch):
        going.stop()
    with pytest.raises(RunEnded, match=r"holds 2 events, 3 were waited for; the run has ended \(failed\)"):
        view.wait(3)
    assert list(view.follow()) == []


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "soon", True])
def test_a_time_that_is_none_is_refused(store: Store, going: Acquisition, timeout_s: Any) -> None:
    view = store[going.uid]["camera"]
    for ask in (
        lambda: view.wait(3, timeout_s),
        lambda: next(view.follow(timeout_s=timeout_s)),
        lambda: store[going.uid].wait("primary", "camera", 3, timeout_s),
        lambda: store.wait_for_run(timeout_s=timeout_s),
    ):
        with pytest.raises(InvalidSetting, match="expected timeout_s of 0 or more, or None"):
            ask()


# -- asking beyond -------------------------------------------------------------------------------------------


def test_an_event_that_may_come_is_a_retryable_index_error_and_after_the_end_a_plain_one(
    store: Store, going: Acquisition
) -> None:
    view = store[going.uid]["camera"]
    with pytest.raises(
        NotYetStored, match=r"event 2 is not in this array, which holds 2; there are 2 by now"
    ) as caught:
        view[2]
    assert isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(NotYetStored, match=r"\.wait\(6\) waits for it"):
        view[5, 0]
    going.take()
    with pytest.raises(NotYetStored, match="holds 2; there are 3 by now"):
        view[2]
    check_frame(view.wait(3)[2].compute(), event=2)
    going.stop()
    with pytest.raises(NotYetStored, match="holds 2; there are 3 by now"):
        view[2]
    for ended in (view, view.wait(3)):
        with pytest.raises(IndexError, match="index 3 is out of bounds for axis 0 with size") as plain:
            ended[3]
        assert not isinstance(plain.value, NotYetStored)


@pytest.mark.parametrize(
    "key", [(0, 3), (slice(None), 0, 8), -3, [0, 5], True, (0, 0, 0, 0, 0), "x", (..., 9)]
)
def test_other_wrong_indices_are_what_they_are_while_the_run_goes_on(
    store: Store, going: Acquisition, key: Any
) -> None:
    with pytest.raises(IndexError) as caught:
        store[going.uid]["camera"][key]
    assert not isinstance(caught.value, NotYetStored)


def test_a_slice_beyond_the_end_is_as_short_as_numpys(store: Store, going: Acquisition) -> None:
    assert store[going.uid]["camera"][1:9].shape == (1, *SHAPE)


# -- follow --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"), [(None, [2, 3]), (0, [0, 1, 2, 3]), (-1, [1, 2, 3]), (1, [1, 2, 3])]
)
def test_following_begins_where_it_is_told(
    store: Store, going: Acquisition, start: int | None, expected: list[int]
) -> None:
    events = store[going.uid]["camera"].follow(start)
    going.take(2)
    going.stop()
    assert numbers(events) == expected
    assert next(events, None) is None


def test_following_cannot_begin_behind_what_there_is(store: Store, going: Acquisition) -> None:
    view = store[going.uid]["camera"]
    with pytest.raises(InputError, match=r"got 3 for one of 2; nothing was read; wait\(3\) first"):
        view.follow(start=3)


def test_following_goes_on_after_it_had_to_wait_too_long(store: Store, going: Acquisition) -> None:
    events = store[going.uid]["camera"].follow(start=1, timeout_s=0)
    seen: list[int] = []
    for _ in range(3):
        seen += numbers(iter([next(events)]))
        with pytest.raises(NotYetStored, match="has no new event; after 0 s the run goes on"):
            next(events)
        going.take()
    going.stop()
    assert seen + numbers(events) == [1, 2, 3, 4]


def test_a_slow_display_skips_to_the_newest(store: Store, going: Acquisition) -> None:
    events = store[going.uid]["camera"].follow(start=0, latest_only=True)
    assert next(events).uid.endswith("/1")
    going.take(3)
    assert next(events).uid.endswith("/4")
    going.take(2)
    going.stop()
    assert numbers(events) == [6]


def test_what_is_cut_from_every_event_follows_and_waits_like_the_whole(
    store: Store, going: Acquisition
) -> None:
    view = store[going.uid]["camera"]
    plane = view[:, 1, ::-1][..., 2:5]
    point = view[:, np.arange(3 * 8 * 9).reshape(SHAPE) % 7 == 0]
    events = plane.follow(start=0)
    going.take()
    whole = np.stack([encoded_frame(SHAPE, "u2", event=number) for number in range(3)])
    np.testing.assert_array_equal(plane.wait(3), whole[:, 1, ::-1, 2:5])
    np.testing.assert_array_equal(point.wait(3), whole[:, np.arange(3 * 8 * 9).reshape(SHAPE) % 7 == 0])
    going.stop()
    found = list(events)
    np.testing.assert_array_equal(np.stack(found), whole[:, 1, ::-1, 2:5])
    assert [one.uid for one in found] == [f"{view.uid}/{number}" for number in range(3)]
    assert found[0].dims == ("y", "x")


@pytest.mark.parametrize(
    "cut",
    [
        lambda view: view[0],
        lambda view: view[:2],
        lambda view: view[1:],
        lambda view: view[::-1],
        lambda view: view[[0, 1]],
        lambda view: view[[True, False]],
        lambda view: view[np.ones((2, *SHAPE), bool)],
        lambda view: view[None],
        lambda view: view[:, 0][0],
        lambda view: view[:1][:],
    ],
)
def test_what_is_not_all_events_says_that_it_stays_as_it_is(
    store: Store, going: Acquisition, cut: Callable[[LazyArray], LazyArray]
) -> None:
    fixed = cut(store[going.uid]["camera"])
    for ask in (lambda: fixed.wait(3), fixed.follow):
        with pytest.raises(FixedArray, match=r"stays as it is; ask for run\[stream\]\[data_key\]"):
            ask()
    with pytest.raises(IndexError) as caught:
        fixed[10**6]
    assert not isinstance(caught.value, NotYetStored)


def test_results_and_values_that_stand_in_events_do_not_grow(store: Store, going: Acquisition) -> None:
    result = store.put(np.zeros((4, 5)), data_type="x")
    small = store.put([1, 2, 3], data_type="x")
    for fixed in (store.get(result.uid), store.get(small.uid), store[going.uid]["n"]):
        with pytest.raises(FixedArray, match="stays as it is"):
            fixed.wait(1)
    with pytest.raises(FixedArray, match=r"/primary/n has values that stand in the events.*run\.table\(\)"):
        store[going.uid].wait("primary", "n")


def test_an_array_whose_store_is_closed_still_reads_and_says_why_it_cannot_wait(root: Path) -> None:
    with Store(root) as writing:
        going = Acquisition(writing)
        going.take()
        with Store(root, mode="r") as store:
            view = store[going.uid]["camera"]
        check_events(view, [0])
        with pytest.raises(StoreUnusable, match="was closed"):
            view.wait(2)
        with pytest.raises(IndexError, match="out of bounds"):
            view[1]


# -- rewinds and new configurations --------------------------------------------------------------------------


def test_an_event_that_a_rewind_repeats_is_followed_again_and_counted_once(store: Store, format: str) -> None:
    going = Acquisition(store, format)
    going.take(3)
    view = store[going.uid]["camera"]
    asset = store.array(view.uid)
    events, again = view.follow(start=0), asset.follow(start=0)
    for seq_num in (2, 3):
        going.take(seq_num=seq_num)
    with pytest.raises(NotYetStored, match="holds 3 events, 4 were waited for"):
        view.wait(4, timeout_s=0)
    check_events(view.wait(3), [0, 3, 4])
    going.take()
    with pytest.raises(NotYetStored, match="which holds 3; there are 4 by now"):
        view[3]
    check_events(view.wait(4), [0, 3, 4, 5])
    check_events(asset.wait(6), [0, 1, 2, 3, 4, 5])
    late = view.wait(4).follow()
    going.take(seq_num=4)
    going.stop()
    assert numbers(events) == numbers(again) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(late) == [6]
    with pytest.raises(IndexError, match="out of bounds") as plain:
        view.wait(4)[4]  # seven were announced, and none is to come
    assert not isinstance(plain.value, NotYetStored)
    assert numbers(store[going.uid]["camera"].follow(start=0)) == [0, 3, 4, 6]


def test_events_of_another_shape_are_followed_and_waited_for_by_their_asset(
    store: Store, going: Acquisition
) -> None:
    view = store[going.uid]["camera"]
    events = view.follow(start=1)
    going.configure((3, 4, 5))
    going.take(2)
    going.stop()
    found = list(events)
    assert [one.shape for one in found] == [SHAPE, (3, 4, 5), (3, 4, 5)]
    for number, one in enumerate(found, 1):
        check_frame(one.compute(), event=number)
    with pytest.raises(AmbiguousArray, match="kept in 2 arrays"):
        view.wait(3)
    assert len(store.array(view.uid).wait(2)) == 2
    with pytest.raises(RunEnded, match=rf"asset {view.uid[:8]} holds 2 events"):
        store.array(view.uid).wait(3)


# -- before the first event ----------------------------------------------------------------------------------


def test_a_display_is_started_before_the_run(root: Path, format: str, pool: ThreadPoolExecutor) -> None:
    def display() -> tuple[str, list[int]]:
        with Store(root, mode="r") as store:
            ready.set()
            run = store.wait_for_run(timeout_s=LONG_S)
            return run.uid, numbers(run.wait("primary", "camera", timeout_s=LONG_S).follow(0, LONG_S))

    ready = threading.Event()
    with Store(root) as store:
        shown = pool.submit(display)
        assert ready.wait(LONG_S)
        going = Acquisition(store, format)
        going.take(4)
        going.stop()
        assert shown.result() == (going.uid, [0, 1, 2, 3])


def test_a_run_is_waited_for_before_its_first_event(store: Store, pool: ThreadPoolExecutor) -> None:
    going = Acquisition(store)
    run = store[going.uid]
    with pytest.raises(LookupFailed, match="it has no streams"):
        run["primary"]
    with pytest.raises(NotYetStored, match="primary/camera holds 0 events, 1 were waited for"):
        run.wait("primary", "camera", timeout_s=0)
    waiting = pool.submit(run.wait, "primary", "camera", 2)
    going.take(2)
    check_events(waiting.result(), [0, 1])
    going.stop()
    with pytest.raises(RunEnded, match="holds 2 events, 3 were waited for"):
        run.wait("primary", "camera", 3)
    with pytest.raises(RunEnded, match="baseline/camera holds 0 events, 1 were waited for"):
        run.wait("baseline", "camera")


@pytest.fixture
def gated() -> Iterator[GatedBackend]:
    """A backend that stores nothing until its gate is open, at the latest when the test has ended."""
    backend = GatedBackend()
    yield backend
    backend.gate.set()


def test_an_array_that_is_opened_before_its_first_event_follows_and_waits_like_any_other(
    root: Path, pool: ThreadPoolExecutor, gated: GatedBackend
) -> None:
    with Store(root) as store:
        going = Acquisition(store, backend=gated)
        going.bring()
        assert gated.waiting.wait(LONG_S)
        assert going.is_declared.wait(LONG_S)
        with Store(root, mode="r") as reader:
            view = reader[-1]["primary"]["camera"]
            plane = view[:, 1]
            assert (view.shape, view.dims, view.dtype) == ((0, *SHAPE), ("t", "z", "y", "x"), np.dtype("<u2"))
            assert view.compute().shape == (0, *SHAPE)
            for ask in (lambda: view[0], lambda: view.wait(1, timeout_s=0), lambda: next(view.follow(0, 0))):
                with pytest.raises(NotYetStored):
                    ask()
            following = pool.submit(numbers, view.follow(0, LONG_S))
            waiting = pool.submit(plane.wait, 3, LONG_S)
            gated.gate.set()
            going.wait_for_announcements(1)
            going.take(2)
            whole = np.stack([encoded_frame(SHAPE, "u2", event=number) for number in range(3)])
            np.testing.assert_array_equal(waiting.result(), whole[:, 1])
            going.stop()
            assert following.result() == [0, 1, 2]
            check_events(view.wait(3), [0, 1, 2])


def test_waiting_for_a_first_event_that_never_comes_ends_with_the_run(
    store: Store, pool: ThreadPoolExecutor
) -> None:
    """The descriptor comes just before the stop then, and can say nothing of stored arrays."""
    going = Acquisition(store)
    run = store[going.uid]
    waiting = pool.submit(run.wait, "primary", "camera")
    going.stop("abort")
    for ask in (waiting.result, lambda: run.wait("primary", "camera")):
        with pytest.raises(RunEnded, match=r"holds 0 events, 1 were waited for; .* ended \(aborted\)"):
            ask()
    assert len(run["primary"]["camera"]) == 0


def test_values_of_a_device_that_promised_references_are_values(store: Store) -> None:
    run = HandMadeRun()
    descriptor = run.descriptor(trace={"external": "FILESTORE:", "shape": [3]})
    with store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        for number in range(2):
            writer("event", run.event(descriptor, trace=np.arange(3.0) + number))
        writer("stop", run.stop())
    assert store[run.uid]["trace"].compute().tolist() == [[0, 1, 2], [1, 2, 3]]


def test_a_data_key_that_its_stream_does_not_have_is_not_waited_for(store: Store, going: Acquisition) -> None:
    with pytest.raises(LookupFailed, match="no data key 'camrea'; it has camera, n") as caught:
        store[going.uid].wait("primary", "camrea")
    assert not isinstance(caught.value, NotYetStored | RunEnded)


# -- runs to come --------------------------------------------------------------------------------------------


def test_runs_are_waited_for_one_after_the_other(store: Store, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(NotYetStored, match=r"no run has begun in .*after 0 s"):
        store.wait_for_run(timeout_s=0)
    first = Acquisition(store)
    assert store.wait_for_run(timeout_s=0).uid == first.uid
    with pytest.raises(NotYetStored, match=f"no run has begun in .* since {first.uid[:8]}"):
        store.wait_for_run(after=first.uid, timeout_s=0)
    first.stop()
    with pytest.raises(NotYetStored):
        store.wait_for_run(timeout_s=0)
    waiting = pool.submit(store.wait_for_run, store[first.uid])
    store.put({"n": 1}, data_type="x")
    store.put(np.zeros((300, 300)), data_type="x")
    second = Acquisition(store)
    assert waiting.result().uid == second.uid
    second.stop()
    third = Acquisition(store)
    assert store.wait_for_run(after=first.uid).uid == second.uid
    assert store.wait_for_run(after=second.uid).uid == third.uid
    fourth = Acquisition(store)
    assert store.wait_for_run().uid == fourth.uid
    for one in (third, fourth):
        one.stop()


def test_a_run_that_began_and_ended_meanwhile_is_found_by_a_reader_without_an_index(
    root: Path, tmp_path: Path
) -> None:
    with Store(root, index=f"sqlite:///{tmp_path}/elsewhere.sqlite") as store:
        first = Acquisition(store)
        first.stop()
        with Store(root, mode="r") as reader:
            known = reader[first.uid]
            second = Acquisition(store)
            second.take()
            second.stop()
            found = reader.wait_for_run(after=known, timeout_s=LONG_S)
            assert (found.uid, found.status) == (second.uid, "complete")
            check_events(found["camera"], [0])


def test_a_folder_that_is_no_run_keeps_nobody_from_seeing_one(store: Store) -> None:
    first = Acquisition(store)
    folder = (store.root / store.record(first.uid).path).parent
    first.stop()
    (folder.parent / "something").mkdir()
    (folder.parent / "torn").mkdir()
    (folder.parent / "torn" / "documents.jsonl").write_text('{"name": "sta')
    second = Acquisition(store)
    assert store.wait_for_run(after=first.uid, timeout_s=LONG_S).uid == second.uid
    second.stop()


# -- what it costs, and what is found in odd journals --------------------------------------------------------


def test_waiting_while_nothing_happens_asks_no_index(store: Store, going: Acquisition) -> None:
    view = store[going.uid]["camera"]
    events = view.follow(timeout_s=0.3)
    with pytest.raises(NotYetStored):
        next(events)
    statements: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*about: Any) -> None:
        statements.append(about[2])

    try:
        with pytest.raises(NotYetStored):
            next(events)
        assert statements == []
        with pytest.raises(NotYetStored):
            store.wait_for_run(after=going.uid, timeout_s=0.3)
        assert len(statements) < 5
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def test_a_journal_that_is_gone_is_said_to_be_gone(store: Store, going: Acquisition) -> None:
    view = store[going.uid]["camera"]
    journal = store.root / store.record(going.uid).path
    journal.rename(away := journal.with_suffix(".away"))
    with pytest.raises(AssetMissing, match="the journal of the run is gone"):
        view.wait(3)
    away.rename(journal)


def test_an_index_of_a_journal_follows_it_through_a_recovery(store: Store, tmp_path: Path) -> None:
    """A torn tail is left out; when it was cut off and the run's end written there, all is read again."""
    going = Acquisition(store)
    going.take(3)
    going.stop()
    text = (store.root / store.record(going.uid).path).read_bytes()
    *lines, stop = text.splitlines(keepends=True)
    copy = tmp_path / "documents.jsonl"
    copy.write_bytes(b"".join(lines)[:-20])
    index = JournalIndex(Journals(tmp_path), copy.name)
    assert len(index.points(going.uid, "primary", "camera")) == 2
    copy.write_bytes(b"".join(lines))
    assert len(index.points(going.uid, "primary", "camera")) == 3
    for cut, events in (
        (1, 2),
        (3, 1),
    ):  # longer than it was, and shorter: an event and its datum are two lines
        copy.write_bytes(b"".join(lines[:-cut]) + stop)
        assert index.record(going.uid).status == "complete"
        assert len(index.points(going.uid, "primary", "camera")) == events
    index.close()


def test_a_run_that_is_being_recovered_is_never_out_of_the_index(root: Path) -> None:
    """What was indexed of a dead run is replaced at once, so that who looks on meanwhile is not told lies."""
    with Store(root) as reader:
        going = Acquisition(reader)
        going.take(2)
        going.stop()
        run = reader[going.uid]
        journal = root / run.record.path
        *lines, _ = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines))
        seen: list[tuple[str, int]] = []

        @event.listens_for(Engine, "commit")
        def look(_: object) -> None:
            seen.append((run.status, len(run["primary"]["camera"])))

        try:
            Store(root).close()
        finally:
            event.remove(Engine, "commit", look)
        assert seen
        assert {events for _, events in seen} == {2}
        assert run.status == "incomplete"


@pytest.mark.parametrize("spoil", [b"x" * 40 + b"\n", b"{}\n"])
def test_a_journal_that_is_damaged_in_the_middle_is_an_error_of_ours(
    store: Store, tmp_path: Path, going: Acquisition, spoil: bytes
) -> None:
    text = (store.root / store.record(going.uid).path).read_bytes()
    copy = tmp_path / "documents.jsonl"
    copy.write_bytes(text)
    index = JournalIndex(Journals(tmp_path), copy.name)
    copy.write_bytes(
        text + spoil + b" " + text.splitlines(keepends=True)[-1].lstrip(b" ")
    )  # all before it was synced
    with pytest.raises(JournalDamaged, match=r"documents\.jsonl: line \d+ is not a document"):
        index.record(going.uid)
    index.close()
