"""The suite notices the mistakes it is there to notice: some of them in each run, all of them in the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotage import FAILED, SABOTAGES, Sabotage, apply, copy, outcome_of

EVERY = 10
SAMPLE = SABOTAGES[::EVERY]


@pytest.mark.parametrize(
    "sabotage",
    [pytest.param(one, id=one.name, marks=() if one in SAMPLE else pytest.mark.long) for one in SABOTAGES],
)
def test_sabotage_turns_red_the_test_that_watches(sabotage: Sabotage, tmp_path: Path) -> None:
    apply(sabotage, tmp_path)
    status, said = outcome_of(tmp_path, [sabotage.watched_by])
    assert status == FAILED, said[-2000:]


@pytest.mark.long
def test_the_tests_that_watch_are_green_in_a_whole_copy(tmp_path: Path) -> None:
    copy(tmp_path)
    status, said = outcome_of(tmp_path, sorted({sabotage.watched_by for sabotage in SABOTAGES}))
    assert status == 0, said[-2000:]
