"""The suite notices the mistakes it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotage import FAILED, SABOTAGES, Sabotage, apply, copy, outcome_of


@pytest.mark.parametrize("watched_by", sorted({sabotage.watched_by for sabotage in SABOTAGES}))
def test_a_copy_without_sabotage_leaves_the_suite_green(watched_by: str, tmp_path: Path) -> None:
    copy(tmp_path / "copy")
    status, said = outcome_of(tmp_path / "copy", watched_by)
    assert status == 0, said[-2000:]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_sabotage_turns_the_suite_red(sabotage: Sabotage, tmp_path: Path) -> None:
    apply(sabotage, tmp_path / "copy")
    status, said = outcome_of(tmp_path / "copy", sabotage.watched_by)
    assert status == FAILED, said[-2000:]
