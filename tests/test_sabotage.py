"""The suite notices the mistakes it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotage import SABOTAGES, Sabotage, apply, turns_red


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_sabotage_turns_the_suite_red(sabotage: Sabotage, tmp_path: Path) -> None:
    apply(sabotage, tmp_path / "copy")
    red, said = turns_red(tmp_path / "copy", sabotage.watched_by)
    assert red, said[-2000:]
