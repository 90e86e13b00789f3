"""gently-bluesky: the storage suite for Bluesky microscopes.

The public names, imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gently_bluesky.documents.handling import handler_registry
    from gently_bluesky.documents.record import record
    from gently_bluesky.documents.replay import replay
    from gently_bluesky.documents.resolver import StreamResolver
    from gently_bluesky.documents.writer import StoreWriter
    from gently_bluesky.ipython import configure
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
    "configure",
    "handler_registry",
    "record",
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
    "configure": "gently_bluesky.ipython",
    "handler_registry": "gently_bluesky.documents.handling",
    "record": "gently_bluesky.documents.record",
    "replay": "gently_bluesky.documents.replay",
}


_BESIDE = {"load_ipython_extension": "gently_bluesky.ipython"}
"""Names that programs look for, and nobody types: not public ones."""


def __getattr__(name: str) -> object:
    homes = _HOMES | _BESIDE
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(homes[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
