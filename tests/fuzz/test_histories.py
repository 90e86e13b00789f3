"""Random histories of a store (written, read, killed, copied, reopened, verified) against a plain dict."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from living import pixels, written
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.errors import StoreReadOnly
from gently_bluesky.testing.strategies import indices_for

HOW = st.fixed_dictionaries(
    {"format": st.sampled_from(["zarr", "tiff"]), "assets": st.sampled_from(["datum", "stream"])}
)
VALUES = st.one_of(
    st.integers(),
    st.text(max_size=9),
    st.dictionaries(
        st.text(st.sampled_from("abc"), min_size=1, max_size=3),
        st.floats(allow_nan=False),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 5).map(lambda side: np.arange(side * 7, dtype="<u2").reshape(side, 7)),
)


class History(RuleBasedStateMachine):
    """One store, and what it was given: frames by run, values by result."""

    runs = Bundle("runs")
    results = Bundle("results")

    def __init__(self, children: Zygote, folder: Path) -> None:
        super().__init__()
        self.children = children
        self.folder = folder
        self.copies = 0
        self.names = 0
        self.frames: dict[str, np.ndarray] = {}
        self.values: dict[str, Any] = {}
        self.status: dict[str, str] = {}
        self.parents: dict[str, str] = {}
        self.root = folder / "store"
        self.store = Store(self.root)

    def teardown(self) -> None:
        self.everything_is_there()
        self.store.close()

    def reopen(self, mode: str = "a") -> None:
        self.store.close()
        self.store = Store(self.root, mode=mode)

    def remember(self, uid: str, name: str, events: int, status: str = "complete") -> str:
        shape = (0, *pixels(name, 0).shape)
        frames = [pixels(name, number) for number in range(events)]
        self.frames[uid] = np.stack(frames) if frames else np.empty(shape, "<u2")
        self.status[uid] = status
        return uid

    def new_name(self) -> str:
        self.names += 1
        return f"{'ab'[self.names % 2]}{self.names}"

    def everything_is_there(self) -> None:
        assert {record.uid: record.status for record in self.store.query(derived=False)} == self.status
        assert {record.uid for record in self.store.query(derived=True)} == set(self.values)
        for uid, frames in self.frames.items():
            assert np.array_equal(self.store[uid]["image"], frames)
            assert np.array_equal(self.store[uid]["number"], np.arange(len(frames)))
        for uid, value in self.values.items():
            same(self.store.get(uid), value)

    is_writable = precondition(lambda self: self.store.mode == "a")

    # -- what is written --------------------------------------------------------------------------------------

    @is_writable
    @rule(target=runs, events=st.integers(1, 4), how=HOW)
    def write(self, events: int, how: dict[str, str]) -> str:
        name = self.new_name()
        return self.remember(written(self.store, name, events, **how), name, events)

    @is_writable
    @rule(target=results, value=VALUES)
    def put(self, value: Any) -> str:
        record = self.store.put(value, data_type="value")
        self.values[record.uid] = value
        return record.uid

    @is_writable
    @rule(target=results, run=runs)
    def derive(self, run: str) -> str:
        projection = self.store[run]["image"][0].max(axis=0)
        record = self.store.put(projection, data_type="projection", parents=[run], operation="max_z")
        self.values[record.uid], self.parents[record.uid] = self.frames[run][0].max(axis=0), run
        return record.uid

    @rule(target=runs, results=results, how=HOW, value=VALUES)
    def write_beside_another_process(self, results: str, how: dict[str, str], value: Any) -> Any:
        """While that is in the middle of its run, this one reads, and stores a result where it may."""
        name = self.new_name()
        job = {"name": name, "events": 3, "pause_after": 1, **how}
        child = self.children.start("write_run", root=str(self.root), **job)
        said = child.hear()
        while "paused" not in said:
            assert "error" not in said, said["error"]
            said = child.hear()
        same(self.store.get(results), self.values[results])
        if self.store.mode == "a":
            self.values[self.store.put(value, data_type="value").uid] = value
        child.tell("go on")
        uid = child.result()
        deadline_s = time.monotonic() + 60
        while (
            self.store.mode == "r"
            and self.store.record(uid).status != "complete"
            and time.monotonic() < deadline_s
        ):
            time.sleep(0.01)  # who reads without an index looks for news for a tenth of its time at most
        return self.remember(uid, name, 3)

    # -- what goes wrong --------------------------------------------------------------------------------------

    @rule(target=runs, announced=st.integers(1, 6), how=HOW)
    def kill_a_writer(self, announced: int, how: dict[str, str]) -> Any:
        """What was announced is there when the store is opened again, and what else is there is right."""
        name = self.new_name()
        job = {"name": name, "events": 200, "pause_after": -1, **how}
        child = self.children.start("write_run", root=str(self.root), **job)
        heard = [child.hear() for _ in range(announced)]
        heard += child.kill()
        events = [message for message in heard if "event" in message]
        self.reopen()
        (run,) = [record for record in self.store.query(derived=False) if record.uid not in self.status]
        found = len(self.store[run.uid]["image"])
        assert found >= len(events)
        assert (run.stored, run.status) == (found, "incomplete")
        assert [event["uid"] for event in self.store[run.uid]["primary"].events][: len(events)] == [
            message["event"] for message in events
        ]
        return self.remember(run.uid, name, found, "incomplete")

    @rule()
    def go_on_from_a_copy(self) -> None:
        """As after a loss of power, with what the disk holds at this moment."""
        self.copies += 1
        copy = self.folder / f"copy-{self.copies}"
        shutil.copytree(self.root, copy)
        self.store.close()
        self.root = copy
        self.store = Store(self.root)

    @rule(mode=st.sampled_from("ar"), without_index=st.booleans())
    def open_again(self, mode: str, without_index: bool) -> None:
        self.store.close()
        if without_index:
            for file in self.root.glob("index.sqlite*"):
                file.unlink()
        self.store = Store(self.root, mode=mode)

    # -- what is asked ----------------------------------------------------------------------------------------

    @rule(run=runs, data=st.data())
    def slice(self, run: str, data: st.DataObject) -> None:
        frames = self.frames[run]
        # how many there are is for the moment of a kill to say, and what is drawn must not depend on that
        within = data.draw(indices_for(frames.shape[1:]))
        part = sorted(
            int(one * len(frames)) for one in data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
        )
        index = np.s_[part[0] : part[1]], *(within if isinstance(within, tuple) else (within,))
        assert np.array_equal(self.store[run]["image"][index], self.frames[run][index])

    @rule(result=results)
    def get(self, result: str) -> None:
        same(self.store.get(result), self.values[result])
        if result in self.parents:
            children = [record.uid for record in self.store.children(self.parents[result])]
            assert result in children

    @rule(session=st.sampled_from("ab"))
    def query(self, session: str) -> None:
        found = {record.uid for record in self.store.query(session=session, derived=False)}
        assert found == {uid for uid in self.status if self.store[uid].start["history"].startswith(session)}
        assert self.store.stats()["derived"] == len(self.values)

    @rule()
    def verify(self) -> None:
        report = self.store.verify(progress=False)
        assert report.ok, str(report)

    @rule()
    def reconcile(self) -> None:
        if self.store.mode == "r":
            with pytest.raises(StoreReadOnly, match="nothing was written"):
                self.store.reconcile()
            return
        self.store.reconcile()
        assert {record.uid: record.status for record in self.store.query(derived=False)} == self.status


def same(got: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        assert np.array_equal(np.asarray(got), value)
    else:
        assert got == value


OPTIONS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "print_blob": True,
}


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda: tmp_path_factory.mktemp("history")


def test_a_store_answers_as_a_dict_does_whatever_has_happened_to_it(children: Zygote, folders: Any) -> None:
    few = settings(max_examples=4, stateful_step_count=14, derandomize=True, **OPTIONS)
    run_state_machine_as_test(lambda: History(children, folders()), settings=few)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_a_store_answers_as_a_dict_does_for_hours(children: Zygote, folders: Any) -> None:
    many = settings(max_examples=1000, stateful_step_count=50, **OPTIONS)
    run_state_machine_as_test(lambda: History(children, folders()), settings=many)
