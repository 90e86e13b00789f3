"""What the tests of verification share: stores with a night in them, made once and copied, as a copy costs little."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nights import acquire

from gently_bluesky import Store


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, str], str]:
    """Copy a store with an acquired run, a projection of it and a number to a folder; return the run's uid."""
    folder = tmp_path_factory.mktemp("nights")
    uids: dict[str, str] = {}

    def copy(root: Path, format: str, assets: str) -> str:
        name = f"{format}-{assets}"
        if name not in uids:
            with Store(folder / name) as store:
                uids[name] = uid = acquire(store, format, assets)
                view = np.asarray(store[uid]["view_a"][0])
                store.put(view.max(axis=0), data_type="projection", parents=[uid], format=format)
                store.put({"nuclei": 12}, data_type="count", parents=[uid])
        shutil.copytree(folder / name, root)
        return uids[name]

    return copy
