"""The suite notices the mistakes it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotage import FAILED, SABOTAGES, Sabotage, apply, copy, noticed_by, outcome_of


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_sabotage_turns_red_what_is_green_without_it(sabotage: Sabotage, tmp_path: Path) -> None:
    apply(sabotage, tmp_path / "copy")
    status, said = outcome_of(tmp_path / "copy", [sabotage.watched_by])
    assert status == FAILED, said[-2000:]

    copy(tmp_path / "whole")
    status, said = outcome_of(tmp_path / "whole", noticed_by(said))
    assert status == 0, said[-2000:]
