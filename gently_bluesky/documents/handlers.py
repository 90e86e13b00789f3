"""Handlers: from a resource and a datum back to pixels, as Filler and databroker ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gently_bluesky.backends.base import Backend
from gently_bluesky.backends.registry import backend_names, get_backend
from gently_bluesky.documents.resources import AnnouncedAsset, announced_asset
from gently_bluesky.errors import AssetDamaged, AssetMissing, InputError, LookupFailed, UnknownReference
from gently_bluesky.lazy import ArraySource, LazyArray

__all__ = [
    "AssetHandler",
    "MemoryHandler",
    "StreamResolver",
    "TiffHandler",
    "ZarrHandler",
    "asset_array",
    "handler_registry",
]


def asset_array(
    source: ArraySource, resource_kwargs: Mapping[str, Any], *, uid: str = "", name: str = ""
) -> LazyArray:
    """Return a whole asset as a lazy array ``(t, ...)``, with the axes that its ``resource_kwargs`` tell of.

    Raises
    ------
    AssetDamaged
        They tell of no axes that it can have.
    """
    ndim = len(source.shape) - 1
    dims = resource_kwargs.get("dims") or [f"dim_{axis}" for axis in range(ndim)]
    scale = resource_kwargs.get("scale") or [1.0] * ndim
    units = resource_kwargs.get("units") or [None] * ndim
    try:
        return LazyArray(
            source,
            dims=("t", *dims),
            scale=(1.0, *scale),
            units=(None, *units),
            uid=uid,
            event_uid=(lambda index: f"{uid}/{index}") if uid else None,
            name=name,
        )
    except (InputError, TypeError) as error:
        raise AssetDamaged(
            f"asset {uid or name!r}: expected dims, scale and units of {ndim} axes in its resource_kwargs, "
            f"got {dims!r:.80}, {scale!r:.80}, {units!r:.80}; nothing was read"
        ) from error


class AssetHandler:
    """Opens one asset; called with ``datum_kwargs`` it returns one event's array, lazily.

    Parameters
    ----------
    path
        ``root`` and ``resource_path`` of the resource document, joined.
    **resource_kwargs
        Of the resource document.

    Raises
    ------
    AssetMissing
        Nothing is there; as an OSError it makes Filler try again for a while.
    """

    backend: ClassVar[str]

    def __init__(self, path: str, **resource_kwargs: Any) -> None:
        self._path = Path(path)
        self._kwargs = resource_kwargs
        self._array = self._open()

    def _open(self) -> LazyArray:
        backend = get_backend(self.backend)
        return asset_array(backend.open(self._path, self._kwargs), self._kwargs)

    def __call__(self, point_number: int) -> LazyArray:
        """Return the array of event ``point_number``, without the event axis. Reads no pixels."""
        if point_number >= self._array.shape[0]:
            self._array = self._open()  # the run goes on: look again
        if not 0 <= point_number < self._array.shape[0]:
            raise AssetMissing(
                f"{self._path}: event {point_number} is not there, the asset holds {self._array.shape[0]}; "
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


class ZarrHandler(AssetHandler):
    """Handler of ``GENTLY_ZARR``."""

    backend = "zarr"


class TiffHandler(AssetHandler):
    """Handler of ``GENTLY_TIFF``."""

    backend = "tiff"


class MemoryHandler(AssetHandler):
    """Handler of ``GENTLY_MEMORY``; what was materialised since is opened where it is now."""

    backend = "memory"


class StreamResolver:
    """Opens what stream_datum documents announce, which ``event_model.Filler`` leaves as it is.

    A callback: it takes any documents and keeps what it needs. One thread.

    Parameters
    ----------
    root_map
        Folders that were moved: a path that begins with one of the keys is looked for below its value.
    """

    def __init__(self, root_map: Mapping[str, str] | None = None) -> None:
        self._root_map = dict(root_map or {})
        self._kinds = handler_registry()
        self._assets: dict[str, AnnouncedAsset | None] = {}
        self._handlers: dict[str, AssetHandler] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Note what a stream_resource says; other documents are none of its business."""
        if name == "stream_resource":
            self._assets[doc["uid"]] = announced_asset(name, doc)

    def array(self, stream_datum: Mapping[str, Any]) -> LazyArray:
        """Return the arrays that a stream_datum announces, ``(t, ...)``. Reads no pixels.

        Raises
        ------
        UnknownReference
            Its stream_resource has not come.
        LookupFailed
            Nothing installed here opens it.
        AssetMissing, AssetDamaged
            The files are not what was announced.
        """
        uid = stream_datum["stream_resource"]
        if uid not in self._handlers:
            self._handlers[uid] = self._open(uid)
        indices = stream_datum["indices"]
        return self._handlers[uid].events(indices["start"], indices["stop"])

    def _open(self, uid: str) -> AssetHandler:
        if uid not in self._assets:
            raise UnknownReference(
                f"stream_resource {uid} has not come; nothing was read; call the resolver with the documents "
                "of the run before it is asked"
            )
        asset = self._assets[uid]
        if asset is None or asset.spec not in self._kinds:
            raise LookupFailed(
                f"stream_resource {uid} names no file of this machine, or no spec that something installed here "
                "opens; nothing was read"
            )
        path = f"{asset.root.rstrip('/')}/{asset.path}"
        for before, now in self._root_map.items():
            if path.startswith(f"{before.rstrip('/')}/"):
                path = f"{now.rstrip('/')}{path[len(before.rstrip('/')) :]}"
                break
        return self._kinds[asset.spec](path, **asset.kwargs)


def handler_registry() -> dict[str, type[AssetHandler]]:
    """Return the handlers of all backends, by spec, for ``event_model.Filler``."""
    found: dict[str, type[AssetHandler]] = {}
    for name in backend_names():
        backend = get_backend(name)
        found[backend.spec] = _BUILTIN.get(name) or _handler_of(backend)
    return found


_BUILTIN: dict[str, type[AssetHandler]] = {
    "zarr": ZarrHandler,
    "tiff": TiffHandler,
    "memory": MemoryHandler,
}


def _handler_of(backend: Backend) -> type[AssetHandler]:
    return type(f"{backend.name.title()}Handler", (AssetHandler,), {"backend": backend.name})
