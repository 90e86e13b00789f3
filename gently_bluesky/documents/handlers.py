"""Handlers: from a resource and a datum back to pixels, as Filler and databroker ask for them.

Ours hold nothing open between reads: to open an asset again costs less than a frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import get_backend, installed_backend_names
from gently_bluesky.documents.converted import open_asset
from gently_bluesky.errors import AssetDamaged, AssetMissing, InputError, InvalidDocument
from gently_bluesky.lazy import ArraySource, LazyArray
from gently_bluesky.wrapped import Explain, ExplainedSource, MovingSource

__all__ = [
    "AssetHandler",
    "MemoryHandler",
    "TiffHandler",
    "ZarrHandler",
    "asset_array",
    "own_handlers",
]


def asset_array(
    source: ArraySource,
    resource_kwargs: Mapping[str, Any],
    *,
    uid: str = "",
    name: str = "",
    datum_uids: Sequence[str] | None = None,
) -> LazyArray:
    """Return a whole asset as a lazy array ``(t, ...)``, with the axes that its ``resource_kwargs`` tell of.

    Its events are datums with these uids, by default those that we give.

    Raises
    ------
    AssetDamaged
        They tell of no axes that it can have.
    """
    ndim = len(source.shape) - 1
    dims = resource_kwargs.get("dims") or [f"dim_{axis}" for axis in range(ndim)]
    scale = resource_kwargs.get("scale") or [1.0] * ndim
    units = resource_kwargs.get("units") or [None] * ndim
    channels = [str(name) for name in resource_kwargs.get("channel_names") or ()]
    if channels == [str(number) for number in range(len(channels))]:
        channels = []  # nobody named them

    def datum_uid(index: int) -> str:
        return f"{uid}/{index}" if datum_uids is None else datum_uids[index]

    try:
        return LazyArray(
            source,
            dims=("t", *dims),
            scale=(1.0, *scale),
            units=(None, *units),
            uid=uid,
            event_uid=datum_uid if uid else None,
            name=name,
            channels=tuple(channels),
        )
    except (InputError, TypeError) as error:
        raise AssetDamaged(
            f"asset {uid or name!r}: expected dims, scale and units of {ndim} axes in its resource_kwargs, "
            f"got {dims!r:.80}, {scale!r:.80}, {units!r:.80}; nothing was read"
        ) from error


class AssetHandler:
    """Opens one asset, also where it was converted since; called with ``datum_kwargs`` it returns one event's array.

    Parameters
    ----------
    path
        ``root`` and ``resource_path`` of the resource document, joined; or what says where the asset lies now, and is
        asked again when it is not there any more.
    explain
        Says where what is missing is; by default nobody does.
    **resource_kwargs
        Of the resource document.

    Raises
    ------
    AssetMissing
        Nothing is there; as an OSError it makes Filler try again for a while.
    AssetDamaged
        What is there is not what ``resource_kwargs`` say.
    InvalidDocument
        It is no path.
    """

    backend: ClassVar[str]

    def __init__(
        self, path: str | Callable[[], Path], explain: Explain | None = None, /, **resource_kwargs: Any
    ) -> None:
        self._where = _fixed(path) if isinstance(path, str) else path
        self._explain = _as_it_is if explain is None else explain
        self._kwargs = resource_kwargs
        self._array = self._open()

    def _open(self) -> LazyArray:
        backend = get_backend(self.backend)

        def opened() -> ArraySource:
            return MovingSource.following(self._where, lambda path: open_asset(backend, path, self._kwargs))

        return asset_array(ExplainedSource.opened(opened, self._explain), self._kwargs)

    def __call__(self, point_number: int) -> LazyArray:
        """Return the array of event ``point_number``, without the event axis. Reads no pixels."""
        if point_number >= self._array.shape[0]:
            self._array = self._open()  # the run goes on: look again
        if not 0 <= point_number < self._array.shape[0]:
            raise AssetMissing(
                f"{self._where()}: event {point_number} is not there, the asset holds {self._array.shape[0]}; "
                "nothing was read; if the run is still going on, try again"
            )
        return self._array[point_number]

    def events(self, start: int, stop: int) -> LazyArray:
        """Return the arrays of events ``start`` to ``stop`` - 1, with the event axis in front. Reads no pixels.

        Raises
        ------
        AssetMissing
            They are not all there.
        """
        if start < stop:
            self(stop - 1)
        return self._array[start:stop]

    def close(self) -> None:
        """Nothing is held open between reads."""


def _fixed(path: str) -> Callable[[], Path]:
    if "\0" in path:
        raise InvalidDocument(f"expected the path of an asset, got {path!r:.200}; nothing was read there")
    return lambda: Path(path)


def _as_it_is(error: AssetMissing) -> AssetMissing:
    return error


class ZarrHandler(AssetHandler):
    """Handler of ``GENTLY_ZARR``: OME-Zarr, and plain Zarr of what is no image.

    Returns a `LazyArray` of one event, ``(z, y, x)`` or whichever axes the device delivered, named in ``dims``;
    its dtype is the device's, little-endian. Chunks are read as they are needed.
    """

    backend = "zarr"


class TiffHandler(AssetHandler):
    """Handler of ``GENTLY_TIFF``: one OME-TIFF file for each event.

    Returns a `LazyArray` of one event, ``(z, y, x)`` or whichever axes the device delivered, named in ``dims``;
    its dtype is the device's, little-endian. Rows are read as they are needed.
    """

    backend = "tiff"


class MemoryHandler(AssetHandler):
    """Handler of ``GENTLY_MEMORY``: shared memory of this machine.

    Returns a `LazyArray` of one event, ``(z, y, x)`` or whichever axes the device delivered, named in ``dims``;
    its dtype is the device's, little-endian.
    """

    backend = "memory"


_BUILTIN: dict[str, type[AssetHandler]] = {
    "GENTLY_ZARR": ZarrHandler,
    "GENTLY_TIFF": TiffHandler,
    "GENTLY_MEMORY": MemoryHandler,
}


def own_handlers() -> dict[str, type[AssetHandler]]:
    """Return the handlers of all backends, by spec. A backend of a package that is broken is warned of."""
    found = dict(_BUILTIN)
    for name in installed_backend_names():
        try:
            backend = get_backend(name)
        except Exception as error:  # noqa: BLE001 # anything may be wrong with somebody else's package
            warnings.warn(
                f"the backend {name!r} of an installed package could not be loaded ({error!r}): what it wrote is "
                "not opened; repair or remove that package",
                RuntimeWarning,
                stacklevel=3,
            )
            continue
        found.setdefault(backend.spec, _handler_of(backend))
    return found


def _handler_of(backend: Backend) -> type[AssetHandler]:
    return type(f"{backend.name.title()}Handler", (AssetHandler,), {"backend": backend.name})
