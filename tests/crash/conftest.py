"""What the tests of failure and recovery have beside the others' fixtures: processes to kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shim import build_shim
from templates import Templates
from zygote import Zygote

collect_ignore = (
    [
        path.name
        for path in Path(__file__).parent.glob("*.py")
        if not path.name.startswith(("test_", "conftest"))
    ]
    if sys.platform == "linux"
    else ["."]
)
"""Elsewhere there is no LD_PRELOAD, no tmpfs to fill and no pidfd, on which what is here rests."""


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The process that forks children to kill, one for all tests."""
    process = Zygote(shim=build_shim(tmp_path_factory.mktemp("shim")))
    yield process
    process.close()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Stores to copy."""
    return Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(params=["zarr", "tiff"])
def format(request: pytest.FixtureRequest) -> str:
    """Each way of keeping pixels on disk."""
    return request.param
