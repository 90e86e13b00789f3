"""What the tests of other writers' assets have: a folder for those, and a store that may read there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gently_bluesky import Store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where devices write: beside the store, not in it."""
    folder = tmp_path / "ioc"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path, data: Path) -> Iterator[Store]:
    """A store that may read what the devices wrote."""
    with Store(tmp_path / "store", allowed_roots=[data]) as opened:
        yield opened
