"""Which backends there are: those built in, named in one table, and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from itertools import chain

from gently_bluesky.backends.base import Backend
from gently_bluesky.errors import InvalidSetting

__all__ = ["BUILTIN", "backend_for_spec", "backend_names", "get_backend"]

BUILTIN = {
    "zarr": ("gently_bluesky.backends.zarr", "ZarrBackend"),
    "tiff": ("gently_bluesky.backends.tiff", "TiffBackend"),
    "memory": ("gently_bluesky.backends.memory", "MemoryBackend"),
}
ENTRY_POINT_GROUP = "gently_bluesky.backends"


def get_backend(name: str) -> Backend:
    """Return the backend of this name, built in or from an installed package.

    Raises
    ------
    InvalidSetting
        There is none; the message names those there are.
    """
    if name in BUILTIN:
        module, attribute = BUILTIN[name]
        return getattr(import_module(module), attribute)()
    for found in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return found.load()()
    raise InvalidSetting(
        f"expected a format among {', '.join(backend_names())}, got {name!r}; nothing was written; "
        f"a package adds its own through the entry-point group {ENTRY_POINT_GROUP!r}"
    )


def backend_names() -> Sequence[str]:
    """Return the names of all backends, built in first."""
    return [*BUILTIN, *_installed_names()]


def _installed_names() -> Iterator[str]:
    yield from sorted({found.name for found in entry_points(group=ENTRY_POINT_GROUP)} - set(BUILTIN))


def backend_for_spec(spec: str) -> Backend | None:
    """Return the backend that wrote assets of this ``spec``, or None if none is installed."""
    for name in chain(BUILTIN, _installed_names()):  # to look for packages takes longer than to open an asset
        backend = get_backend(name)
        if backend.spec == spec:
            return backend
    return None
