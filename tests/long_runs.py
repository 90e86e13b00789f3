"""What folders of long tests have in common: these are left out unless ``-m`` says which are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest


def leave_out_long(folder: Path, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the long tests of a folder out of what was collected; for ``pytest_collection_modifyitems``."""
    if not config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long") and folder in item.path.parents]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
