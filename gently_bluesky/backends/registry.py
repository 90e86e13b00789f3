"""Which backends there are: those built in, named in one table, and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import chain

from gently_bluesky.backends.base import Backend
from gently_bluesky.errors import InvalidSetting, LookupFailed
from gently_bluesky.packages import offered

__all__ = ["BUILTIN", "backend_for_spec", "backend_names", "get_backend", "installed_backend_names"]

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
    if isinstance(name, str) and name in BUILTIN:  # pyright: ignore[reportUnnecessaryIsInstance] # people type it
        module, attribute = BUILTIN[name]
        return getattr(import_module(module), attribute)()
    for found in offered(ENTRY_POINT_GROUP):
        if found.name == name:
            return found.load()()
    raise InvalidSetting(
        f"expected a format among {', '.join(backend_names())}, got {name!r}; nothing was written; "
        f"a package adds its own through the entry-point group {ENTRY_POINT_GROUP!r}"
    )


def backend_names() -> Sequence[str]:
    """Return the names of all backends, built in first."""
    return [*BUILTIN, *installed_backend_names()]


def installed_backend_names() -> Iterator[str]:
    """Yield the names of the backends of installed packages."""
    yield from sorted({found.name for found in offered(ENTRY_POINT_GROUP)} - set(BUILTIN))


def backend_for_spec(spec: str) -> Backend | None:
    """Return the backend that wrote assets of this ``spec``, or None if none is installed.

    Raises
    ------
    LookupFailed
        There is none that works, and one that cannot be imported, which may be the one.
    """
    broken: dict[str, Exception] = {}
    for name in chain(BUILTIN, installed_backend_names()):
        try:
            backend = get_backend(name)
        except Exception as error:  # noqa: BLE001 # somebody else's package must not stand in the way of others
            broken[name] = error
            continue
        if backend.spec == spec:
            return backend
    if broken:
        raise LookupFailed(
            f"nothing that works here opens assets of the kind {spec!r}, and what might could not be loaded: "
            f"{broken!r}; nothing was read; repair or remove that package"
        ) from next(iter(broken.values()))
    return None
