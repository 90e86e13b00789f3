"""Random histories of what an owner does to a store (pin, plan, apply, delete, restore, purge, convert, die in the
middle of it) against a model that knows what must survive, and who has arrays open meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    rule,
    run_state_machine_as_test,
)
from memory_left import clear
from nights import SHAPE, acquire
from zygote import Zygote

from gently_bluesky import LazyArray, Store
from gently_bluesky.errors import AssetDeleted, AssetPurged, InputError, Protected, StalePlan
from gently_bluesky.testing.frames import encoded_frame
from gently_bluesky.upkeep.retention import Policy, Rule
from gently_bluesky.upkeep.trash import TRASH

HERE, TRASHED, PURGED = "here", "trash", "purged"
FRAMES = np.stack([encoded_frame(SHAPE, "<u2", key="view_a", event=event) for event in (1, 2, 3)])
"""Of a night; a rewind superseded the first."""
KEPT = st.fixed_dictionaries(
    {"format": st.sampled_from(["zarr", "tiff"]), "assets": st.sampled_from(["datum", "stream"])}
)
CONVERSIONS = st.sampled_from(
    [
        {"format": "tiff"},
        {"format": "zarr"},
        {"format": "zarr", "chunks": "blocks", "keep_original": False},
        {"format": "tiff", "keep_original": False},
    ]
)
CALLS = st.integers(1, 60)


class Keeping(RuleBasedStateMachine):
    """One store, and what must be true of each run: its pixels, where they are, what protects them."""

    runs = Bundle("runs")

    def __init__(self, zygote: Zygote, root: Path) -> None:
        super().__init__()
        self.zygote = zygote
        self.root = root
        self.pixels: dict[str, np.ndarray] = {}
        self.state: dict[str, str] = {}
        self.pinned: set[str] = set()
        self.verified: set[str] = set()
        self.made: dict[str, list[str]] = {}
        self.acquired: list[str] = []
        self.by_stream: set[str] = set()
        self.opened: list[tuple[str, LazyArray]] = []
        self.store = Store(root)
        self.reader = Store(root, mode="r")

    def teardown(self) -> None:
        self.look()
        self.store.close()
        self.reader.close()
        with Store(self.root) as store:
            assert not store.last_reconciliation.needs_attention
            assert store.verify(progress=False).ok

    def child(self, job: str, call: int, **arguments: Any) -> None:
        """Have a process do something and die at a call, or when it is done; open the store again."""
        words = self.zygote.start(job, root=str(self.root), die_at_call=call, **arguments).last_words()
        assert not [word["error"] for word in words if "error" in word]
        self.reopen(without_index=False)

    def needed(self, run: str) -> bool:
        return any(self.state[one] == HERE for one in self.made.get(run, []))

    def array(self, store: Store, run: str) -> LazyArray:
        return store[run]["view_a"] if run in self.acquired else store.get(run)

    # -- what comes in ----------------------------------------------------------------------------------------

    @rule(target=runs, how=KEPT)
    def acquire(self, how: dict[str, str]) -> str:
        uid = acquire(self.store, **how)
        self.acquired.append(uid)
        if how["assets"] == "stream":
            self.by_stream.add(uid)
        self.pixels[uid], self.state[uid] = FRAMES, HERE
        return uid

    @rule(target=runs, run=runs)
    def derive(self, run: str) -> Any:
        if self.state[run] != HERE or run not in self.acquired:
            return multiple()
        mip = FRAMES[0].max(axis=0)
        uid = self.store.put(mip, data_type="projection", parents=[run]).uid
        self.made.setdefault(run, []).append(uid)
        self.pixels[uid], self.state[uid] = mip, HERE
        return uid

    @rule(run=runs)
    def somebody_opens(self, run: str) -> None:
        if self.state[run] == HERE:
            self.opened.append((run, self.array(self.reader, run)))

    # -- what an owner does -----------------------------------------------------------------------------------

    @rule(run=runs)
    def pin(self, run: str) -> None:
        self.store.pin(run, reason="figure")
        self.pinned.add(run)

    @rule(run=runs)
    def unpin(self, run: str) -> None:
        if run in self.pinned:
            self.store.unpin(run)
            self.pinned.discard(run)

    @rule()
    def verify(self) -> None:
        report = self.store.verify(progress=False)
        assert report.ok, str(report)
        self.verified = {run for run, state in self.state.items() if state == HERE}

    @rule(run=runs, although=st.sets(st.sampled_from(["unverified", "children", "damaged", "incomplete"])))
    def delete(self, run: str, although: set[str]) -> None:
        protected = run in self.pinned
        protected |= run not in self.verified and "unverified" not in although
        protected |= self.needed(run) and "children" not in although
        if self.state[run] != HERE:
            with pytest.raises(InputError):
                self.store.delete(run, reason="room", although=although)
        elif protected:
            with pytest.raises(Protected):
                self.store.delete(run, reason="room", although=although)
        else:
            self.store.delete(run, reason="room", although=although)
            self.state[run] = TRASHED

    @rule(run=runs)
    def restore(self, run: str) -> None:
        if self.state[run] == TRASHED:
            self.store.restore(run)
            self.state[run] = HERE
        else:
            with pytest.raises(InputError):
                self.store.restore(run)

    @rule(run=st.none() | runs)
    def purge(self, run: str | None) -> None:
        self.store.purge(run, now=True)
        for one, state in self.state.items():
            if state == TRASHED and run in (None, one) and one not in self.pinned:
                self.state[one] = PURGED

    @rule(last=st.integers(1, 3), derived_suffice=st.booleans(), is_stale=st.booleans())
    def plan_and_apply(self, last: int, derived_suffice: bool, is_stale: bool) -> None:
        limit = Rule(keep_last=last, derived=False, derived_suffice=derived_suffice)
        plan = self.store.retention.plan(Policy(rules=(limit,), keep_days=1))
        here = [run for run in self.acquired if self.state[run] == HERE]
        free = [
            run
            for run in here[:-last]
            if run not in self.pinned and run in self.verified and (derived_suffice or not self.needed(run))
        ]
        assert {one.run.uid for one in plan.goes} == set(free)
        if is_stale and free:
            self.store.pin(free[0], reason="after all")
            with pytest.raises(StalePlan):
                self.store.retention.apply(plan)
            self.store.unpin(free[0])
            return
        applied = self.store.retention.apply(plan)
        assert not applied.left
        self.state.update(dict.fromkeys(free, TRASHED))

    @rule(run=runs, how=CONVERSIONS)
    def convert(self, run: str, how: dict[str, Any]) -> None:
        if self.state[run] == HERE:
            before = self.store.record(run), self.store.assets(run)[0].format, self.journal(run)
            assert self.store.convert(run, **how, progress=False).ok
            if self.journal(run) != before[2]:
                self.verified.discard(run)

    @rule(run=runs, restarts=st.booleans())
    def go_through_memory(self, run: str, restarts: bool) -> None:
        """Put a run into memory and back on disk, with a restart of the machine in between or not."""
        if self.state[run] != HERE or run in self.by_stream:
            return
        assert self.store.convert(run, format="memory", progress=False).ok
        self.verified.discard(run)
        self.see(run, lambda: self.array(self.reader, run))
        assert all(stone.copy_of is None for stone in self.store.purge(run, now=True))
        if restarts:
            clear(self.root)
        self.store.materialize(run, format="tiff")

    def journal(self, run: str) -> bytes:
        return (self.root / self.store.record(run).path).read_bytes()

    # -- what goes wrong --------------------------------------------------------------------------------------

    @rule(run=runs, what=st.sampled_from(["delete", "restore", "purge"]), call=CALLS)
    def die(self, run: str, what: str, call: int) -> None:
        possible = {"delete": (HERE, TRASHED), "restore": (TRASHED, HERE), "purge": (TRASHED, PURGED)}[what]
        if self.state[run] != possible[0] or run in self.pinned:
            return
        self.child("delete_and_more", call, uid=run, what=what)
        stone = self.store.tombstone(run)
        self.state[run] = HERE if stone is None else TRASHED if stone.purged is None else PURGED
        assert self.state[run] in possible

    @rule(how=CONVERSIONS, call=CALLS)
    def die_while_converting(self, how: dict[str, Any], call: int) -> None:
        journals = {run: self.journal(run) for run in self.verified}
        self.child("convert", call, how=how)
        self.verified = {run for run, journal in journals.items() if self.journal(run) == journal}

    @rule(without_index=st.booleans())
    def reopen(self, without_index: bool) -> None:
        self.store.close()
        if without_index:
            self.reader.close()
            for file in self.root.glob("index.sqlite*"):
                file.unlink()
        self.store = Store(self.root)
        if without_index:
            self.reader = Store(self.root, mode="r")
            self.opened.clear()

    # -- what is asked ----------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        """Everything is where the model says, to the owner, to a reader, and to who has arrays open."""
        for run in self.state:
            self.see(run, lambda run=run: self.array(self.store, run))
            record = self.store.record(run)
            assert (record.deleted is None) == (self.state[run] == HERE)
            assert {one.uid for one in self.store.children(run)} == set(self.made.get(run, []))
        for run, array in self.opened:
            self.see(run, lambda array=array: array)
        copies = {stone.uid for stone in self.store.trash() if stone.copy_of is not None}
        held = {stone.run_uid for stone in self.store.trash() if stone.uid not in copies}
        assert held == {run for run, state in self.state.items() if state == TRASHED}
        assert {pin.run_uid for pin in self.store.pins()} == self.pinned
        lying = [path for path in (self.root / TRASH).rglob("*") if path.is_file()]
        assert bool(lying) == bool(held or copies)

    def see(self, run: str, open_array: Any) -> None:
        if self.state[run] == HERE:
            assert np.array_equal(np.asarray(open_array()), self.pixels[run])
            return
        with pytest.raises(AssetDeleted) as gone:
            np.asarray(open_array())
        assert isinstance(gone.value, AssetPurged) == (self.state[run] == PURGED)


OPTIONS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Makes folders for stores; what is in memory of them goes after the test."""
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path_factory.mktemp("keeping") / "store")
        return made[-1]

    yield make
    for root in made:
        clear(root)


def test_what_must_survive_does(zygote: Zygote, roots: Any) -> None:
    few = settings(max_examples=4, stateful_step_count=16, derandomize=True, print_blob=True, **OPTIONS)
    run_state_machine_as_test(lambda: Keeping(zygote, roots()), settings=few)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_what_must_survive_does_for_hours(zygote: Zygote, roots: Any) -> None:
    many = settings(max_examples=300, stateful_step_count=40, print_blob=True, **OPTIONS)
    run_state_machine_as_test(lambda: Keeping(zygote, roots()), settings=many)
