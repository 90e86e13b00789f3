"""What Tiled needs to serve stored arrays: consolidators for who writes its catalog, adapters for its server.

`register` is for the process of the RunEngine: a ``TiledWriter`` made in it understands documents of both
families. The adapters are for the server, named in its ``adapters_by_mimetype``; they read what a slice asks
for, and check it. What others wrote goes the way it went before.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.converted import open_asset
from gently_bluesky.documents.handlers import asset_array
from gently_bluesky.errors import AssetDamaged, InvalidDocument, MissingExtra

try:
    from bluesky_tiled_plugins.writing.consolidators import (
        CONSOLIDATOR_REGISTRY,
        BytesConsolidator,
        ConsolidatorBase,
        Patch,
        TIFFConsolidator,
    )
    from bluesky_tiled_plugins.writing.tiled_writer import MIMETYPE_LOOKUP
    from tiled.adapters.core import Adapter
    from tiled.adapters.tiff import TiffSequenceAdapter
    from tiled.adapters.zarr import ZarrAdapter
    from tiled.ndslice import NDSlice
    from tiled.structures.array import ArrayStructure
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import Asset, DataSource
    from tiled.utils import path_from_uri
except ImportError as error:
    raise MissingExtra(
        f"gently_bluesky.tiled needs Tiled and bluesky-tiled-plugins ({error}); nothing was registered; they come "
        "with the extra 'tiled': pip install 'gently-bluesky[tiled]'"
    ) from error

if TYPE_CHECKING:
    from tiled.ndslice import NDBlock

    from gently_bluesky.lazy import LazyArray

__all__ = ["StoredArray", "StoredTiffAdapter", "StoredZarrAdapter", "register"]

ANY, ZARR, TIFF = "application/octet-stream", "application/x-zarr", "multipart/related;type=image/tiff"
SPECS = {"GENTLY_ZARR": ZARR, "GENTLY_TIFF": TIFF}
KEPT = "gently_bluesky"
"""Where a data source of the catalog says how an asset of ours is opened."""
HERE = "file://localhost"


def register() -> None:
    """Let every ``TiledWriter`` of this process understand documents of ours. Idempotent.

    Call it before the first run. It adds a consolidator for Zarr, of which bluesky-tiled-plugins has none, and
    lets those for TIFF and for files of any kind, and the table of specs, know ours.

    Examples
    --------
    >>> register()
    """
    CONSOLIDATOR_REGISTRY.update({ZARR: ZarrConsolidator, TIFF: TiffConsolidator, ANY: FileConsolidator})
    MIMETYPE_LOOKUP.update(SPECS)


class OneAsset(ConsolidatorBase):
    """A node of Tiled's catalog that shows one asset of ours, from whichever family of documents.

    A node is one array, so that an asset of another make under the same data key (another shape, or another
    pixel size) has no place in it. Its frames are left out with a warning, and the node's metadata says so.
    """

    def __init__(self, stream_resource: Any, descriptor: Any) -> None:
        super().__init__(_completed(stream_resource), descriptor)
        self._left_out: set[str] = set()
        if _is_ours(stream_resource):  # the base class takes an array of one element for a number
            self.datum_shape = tuple(stream_resource["parameters"]["frame_shape"])

    def update_from_stream_resource(self, stream_resource: Any) -> None:
        """Take note of another document that announces this asset, or one that cannot be shown."""
        if not _is_ours(stream_resource):
            return super().update_from_stream_resource(stream_resource)
        uri = _completed(stream_resource)["uri"]
        if uri == self.uri:  # resource documents become one for each descriptor
            return None
        self._left_out.add(stream_resource["uid"])
        known = self.metadata.setdefault("left_out", [])
        if uri in known:
            return None
        known.append(uri)
        warnings.warn(
            f"{self.data_key}: its arrays changed their make during the run, and Tiled shows those of the first "
            f"make only; all are stored, the others at {uri}; begin a new run, or a new stream, for them",
            stacklevel=2,
        )
        return None

    def consume_stream_datum(self, doc: Any) -> Patch:
        """Take note of frames; return what becomes of the node's array."""
        if doc["stream_resource"] in self._left_out:
            rows, *frame = self.shape
            return Patch(offset=(rows, *(0 for _ in frame)), shape=(0, *frame))
        return super().consume_stream_datum(doc)

    def get_data_source(self) -> DataSource[Any]:
        """Return what the catalog is to keep, with what our adapters need to read it."""
        source = super().get_data_source()
        if _is_ours({"parameters": self._sres_parameters}):
            source.properties = {**source.properties, KEPT: self._sres_parameters}
        return source


class ZarrConsolidator(OneAsset):
    """A Zarr array, which the uri names itself."""

    supported_mimetypes: set[str] = {ZARR}  # noqa: RUF012 # as the base class declares it
    default_asset_role: str = "data_uri"

    def __init__(self, stream_resource: Any, descriptor: Any) -> None:
        super().__init__(stream_resource, descriptor)
        self.assets = [
            Asset(data_uri=self.uri, is_directory=True, parameter=self.default_asset_role, num=None)
        ]


class TiffConsolidator(OneAsset, TIFFConsolidator):
    """A folder with a TIFF file for each event."""


class FileConsolidator(BytesConsolidator):
    """Files of which nothing is known but their names, such as those that say where frames in memory are.

    The base class lists a file once for each event that it is named by, which Tiled's server refuses.
    """

    def consume_stream_datum(self, doc: Any) -> Patch:
        """Take note of the files of one or more events."""
        patch = super().consume_stream_datum(doc)
        if not self.template:
            del self.assets[1:]
        return patch


class StoredArray(Adapter[ArrayStructure]):
    """Serves one asset of ours: what a slice needs is read, and checked, and nothing else.

    Any thread. What cannot be read raises; pixels that were not stored are never made up.
    """

    structure_family = StructureFamily.array

    def __init__(self, events: LazyArray, structure: ArrayStructure, *, metadata: Any, specs: Any) -> None:
        super().__init__(structure, metadata=metadata, specs=specs)
        self._events = events

    def read(self, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: A002, B008 # as Tiled calls it
        """Return a part of the array, (t, ...).

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            The files are not what was announced, or cannot be read.
        """
        return np.asarray(self._events[tuple(slice)])

    def read_block(self, block: NDBlock, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: A002, B008
        """Return a part of one chunk of the array; raises as `read`."""
        return np.asarray(self._events[tuple(block.slice_from_chunks(self._structure.chunks))][tuple(slice)])


class StoredZarrAdapter(ZarrAdapter):
    """Opens Zarr arrays for Tiled's server: ours by our own reader, others as Tiled does."""

    @classmethod
    def from_catalog(cls, data_source: DataSource[Any], node: Any, /, **kwargs: Any) -> Any:
        """Return what serves a data source of the catalog. Reads no pixels.

        Raises
        ------
        AssetMissing, AssetDamaged, StorageError
            The files are not what was announced, or cannot be read.
        """
        return _stored_array(data_source, node, kwargs) or super().from_catalog(data_source, node, **kwargs)


class StoredTiffAdapter(TiffSequenceAdapter):
    """Opens sequences of TIFF files for Tiled's server: ours by our own reader, others as Tiled does."""

    @classmethod
    def from_catalog(cls, data_source: DataSource[Any], node: Any, /, **kwargs: Any) -> Any:
        """Return what serves a data source of the catalog; raises as that of `StoredZarrAdapter`."""
        return _stored_array(data_source, node, kwargs) or super().from_catalog(data_source, node, **kwargs)


def _stored_array(data_source: DataSource[Any], node: Any, kwargs: dict[str, Any]) -> StoredArray | None:
    """Return an adapter for an asset of ours, None if it is another's."""
    said = data_source.properties.get(KEPT, {})
    backend = backend_for_spec(said["spec"]) if _is_ours({"parameters": said}) else None
    if backend is None:
        return None
    path = _folder(data_source, kwargs)
    structure: ArrayStructure = data_source.structure
    events = asset_array(open_asset(backend, path, said, structure.shape[0]), said)[: structure.shape[0]]
    if events.shape != structure.shape:
        raise AssetDamaged(
            f"{path}: expected {structure.shape}, as the catalog says, found {events.shape}; nothing was read"
        )
    return StoredArray(events, structure, metadata=node.metadata_, specs=node.specs)


def _folder(data_source: DataSource[Any], kwargs: dict[str, Any]) -> Path:
    """Return where an asset of ours lies.

    Tiled lists either all files, or places for all, of which it has filled those that it needs. It has seen to
    it that they begin like a folder that it may read, and not where they lead from there.
    """
    uris = kwargs.get("data_uris") or [asset.data_uri for asset in data_source.assets if asset.parameter]
    path = path_from_uri(next(uri for uri in uris if uri)).parent
    if ".." in path.parts:
        raise InvalidDocument(f"expected a plain path, got {path}; nothing was read")
    return path


def _is_ours(stream_resource: Any) -> bool:
    return stream_resource["parameters"].get("spec") in SPECS


def _completed(stream_resource: Any) -> Any:
    """Return a document of ours as the stream family says it, with a uri as Tiled reads it; others as they are.

    What a resource document became names the asset's root and says nothing of chunks. Tiled does not decode
    uris, so that what is quoted in ours is plain in its own.
    """
    if not _is_ours(stream_resource):
        return stream_resource
    parameters = stream_resource["parameters"]
    backend = backend_for_spec(parameters["spec"])
    path = stream_resource["uri"].removeprefix(HERE)
    if backend is not None and "chunk_shape" not in parameters:
        parameters = {**parameters, **backend.stream_parameters(parameters)}
        path = f"{path}/{backend.part}"
    else:
        path = unquote(path)
    if urlparse(f"{HERE}{path}").path != path:
        raise InvalidDocument(
            f"expected a path without '#', '?' and ';', which Tiled cannot name, got {path!r}; the arrays are "
            "stored and Tiled does not show them; keep the store at another place"
        )
    return {**stream_resource, "uri": f"{HERE}{path}", "parameters": parameters}
