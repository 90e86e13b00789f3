"""Callbacks that people always have, beside ours on one RunEngine: they show what they show without us."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plans as bp
import matplotlib.pyplot as plt
import pytest
from bluesky.callbacks import LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from ophyd.sim import SynAxis, SynGauss

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    before = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def shown(
    RE: Any, capsys: Any, subscribe_first: Callable[[], object]
) -> tuple[str, list[str], list[str], Any]:
    """Return what is printed during a scan, what a table of its own shows, the titles of plots, and the peaks."""
    lines: list[str] = []
    scope = SimulatedDiSPIM(size=32, n_slices=2)
    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    tokens = [RE.subscribe(callback) for callback in [subscribe_first()] if callback]
    effort = BestEffortCallback()
    tokens += [RE.subscribe(effort), RE.subscribe(LiveTable(["motor", "det"], out=lines.append))]
    RE(bp.scan([det, scope.light_sheet], motor, -1, 1, 5))
    for token in tokens:
        RE.unsubscribe(token)
    titles = [plt.figure(number).get_label() for number in plt.get_fignums()]
    plt.close("all")
    return capsys.readouterr().out, lines, titles, effort.peaks["com"]


def without_what_changes(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{8}\b", "<uid>", text)
    return re.sub(r"\d\d:\d\d:\d\d(\.\d)?|\d{4}-\d\d-\d\d|scan num: \d+|Scan ID: \d+", "<time>", text)


@pytest.mark.parametrize("assets", ["datum", "stream"])
def test_tables_and_plots_are_those_of_a_run_without_a_store(
    RE: Any, store: Store, capsys: Any, assets: str
) -> None:
    alone = shown(RE, capsys, lambda: None)
    beside = shown(RE, capsys, lambda: store.writer(assets=assets))
    assert without_what_changes(beside[0]) == without_what_changes(alone[0])
    assert [without_what_changes(line) for line in beside[1]] == [
        without_what_changes(line) for line in alone[1]
    ]
    assert beside[2] == alone[2]
    assert beside[3] == alone[3]
    assert "det" in alone[0]
    assert len(alone[1]) > 5
    assert alone[2]
    assert store[-1]["view_a"].shape == (5, 2, 32, 32)


def test_announced_documents_are_shown_by_them_too(RE: Any, store: Store, capsys: Any) -> None:
    lines: list[str] = []
    writer = store.writer()
    writer.subscribe(LiveTable(["motor", "det"], out=lines.append))
    RE.subscribe(writer)
    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    RE(bp.scan([det, SimulatedDiSPIM(size=32, n_slices=2).light_sheet], motor, -1, 1, 3))
    assert sum("0.000" in line or "1.000" in line for line in lines) == 3
