"""gently-bluesky: the storage suite for Bluesky microscopes.

The public names, imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gently_bluesky.documents.handling import handler_registry
    from gently_bluesky.documents.replay import replay
    from gently_bluesky.documents.resolver import StreamResolver
    from gently_bluesky.documents.writer import StoreWriter
    from gently_bluesky.lazy import LazyArray
    from gently_bluesky.model import Record
    from gently_bluesky.run import Run
    from gently_bluesky.store import Store
    from gently_bluesky.streams import Stream

__all__ = [
    "LazyArray",
    "Record",
    "Run",
    "Store",
    "StoreWriter",
    "Stream",
    "StreamResolver",
    "handler_registry",
    "replay",
]

_HOMES = {
    "LazyArray": "gently_bluesky.lazy",
    "Record": "gently_bluesky.model",
    "Run": "gently_bluesky.run",
    "Store": "gently_bluesky.store",
    "StoreWriter": "gently_bluesky.documents.writer",
    "Stream": "gently_bluesky.streams",
    "StreamResolver": "gently_bluesky.documents.resolver",
    "handler_registry": "gently_bluesky.documents.handling",
    "replay": "gently_bluesky.documents.replay",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
