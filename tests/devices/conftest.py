"""What the tests of devices that write for themselves share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted

sys.path.insert(0, str(Path(__file__).parent))

from cameras import FLYERS, KEYS, frame

from gently_bluesky import Store
from gently_bluesky.run import Run

collect_ignore = ["cameras.py"]


@pytest.fixture(params=["datum", "stream"])
def family(request: pytest.FixtureRequest) -> str:
    """Each family of documents."""
    return request.param


@pytest.fixture(params=["zarr", "tiff"])
def format(request: pytest.FixtureRequest) -> str:
    """Each way of keeping pixels on disk."""
    return request.param


@pytest.fixture
def flyer(store: Store, format: str, family: str) -> Any:
    """A device that writes for itself while it flies."""
    return FLYERS[family](store.recorder(format=format))


@pytest.fixture
def interrupted(RE: Any) -> Callable[[Any], None]:
    """Runs a plan that is paused on its way."""

    def run(plan: Any) -> None:
        with pytest.raises(RunEngineInterrupted):
            RE(plan)
        assert RE.state == "paused"

    return run


@pytest.fixture
def shows() -> Callable[[Run, list[int]], None]:
    """Checks that a run shows these events of encoded frames, bit for bit, and nothing else."""

    def check(run: Run, numbers: list[int]) -> None:
        for key in KEYS:
            array = run["primary"][key]
            assert array.dims == ("t", "z", "y", "x")
            np.testing.assert_array_equal(array, np.stack([frame(number, key) for number in numbers]))
            for place, number in enumerate(numbers):
                np.testing.assert_array_equal(array[place, 1], frame(number, key)[1])

    return check


@pytest.fixture
def newest(store: Store) -> Callable[[], Run]:
    """The newest run of the store."""
    return lambda: store[-1]
