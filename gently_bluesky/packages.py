"""What installed packages offer, asked once: to look through all of them takes longer than to open an asset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

__all__ = ["offered"]


def offered(group: str) -> Sequence[EntryPoint]:
    """Return the entry points of a group, as they were when it was first asked for with this ``sys.path``."""
    return _offered(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _offered(group: str, _path: tuple[str, ...]) -> Sequence[EntryPoint]:
    return tuple(entry_points(group=group))
