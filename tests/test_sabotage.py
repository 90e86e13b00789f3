"""The suite notices the mistakes it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotage import FAILED, SABOTAGES, Sabotage, apply, copy, outcome_of


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_sabotage_turns_red_the_test_that_watches(sabotage: Sabotage, tmp_path: Path) -> None:
    apply(sabotage, tmp_path)
    status, said = outcome_of(tmp_path, [sabotage.watched_by])
    assert status == FAILED, said[-2000:]


def test_the_tests_that_watch_are_green_in_a_whole_copy(tmp_path: Path) -> None:
    copy(tmp_path)
    status, said = outcome_of(tmp_path, sorted({sabotage.watched_by for sabotage in SABOTAGES}))
    assert status == 0, said[-2000:]
