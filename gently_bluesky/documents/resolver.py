"""Stream documents resolved: from a stream_datum back to pixels, which nobody else does without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gently_bluesky.documents.handlers import AssetHandler, asset_array, own_handlers
from gently_bluesky.documents.resources import announced_path
from gently_bluesky.errors import InvalidDocument, LookupFailed, UnknownReference
from gently_bluesky.foreign.kinds import KINDS, ForeignAsset, foreign_dims, open_foreign
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.lazy import LazyArray

__all__ = ["StreamResolver"]


class StreamResolver:
    """Opens what stream_datum documents announce, which ``event_model.Filler`` leaves as it is.

    What this package wrote, and what other writers put into HDF5 and TIFF files. A callback: it takes any
    documents and keeps what it needs. One thread. It trusts the documents that it is given, as Filler does.

    Parameters
    ----------
    root_map
        Folders, or files, that were moved: what lies at or below one of the keys is looked for at its value.
        Of several such keys the longest counts.
    """

    def __init__(self, root_map: Mapping[str, str] | None = None) -> None:
        self._root_map = sorted((root_map or {}).items(), key=lambda entry: -len(entry[0]))
        self._kinds = own_handlers()
        self._resources: dict[str, Mapping[str, Any]] = {}
        self._data_keys: dict[str, Mapping[str, Any]] = {}
        self._handlers: dict[str, AssetHandler] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Note what a stream_resource or a descriptor says; other documents are none of its business."""
        if name == "descriptor":
            self._data_keys[doc["uid"]] = doc["data_keys"]
        elif name == "stream_resource":
            self._resources[doc["uid"]] = doc

    def array(self, stream_datum: Mapping[str, Any]) -> LazyArray:
        """Return the arrays that a stream_datum announces, ``(t, ...)``. Reads no pixels.

        Raises
        ------
        UnknownReference
            Its stream_resource has not come.
        LookupFailed
            Nothing installed here opens it.
        InvalidDocument
            Its stream_resource names no file, or its indices are none.
        AssetMissing, AssetDamaged
            The files are not what was announced.
        """
        uid, (start, stop) = stream_datum["stream_resource"], _indices(stream_datum)
        resource = self._resources.get(uid)
        if resource is None:
            raise UnknownReference(
                f"stream_resource {uid} has not come; nothing was read; call the resolver with the documents "
                "of the run before it is asked"
            )
        parameters, mimetype = resource["parameters"], resource["mimetype"]
        spec = parameters.get("spec")
        if isinstance(spec, str) and spec in self._kinds:
            if uid not in self._handlers:
                path = self._moved(announced_path(resource).as_posix())
                self._handlers[uid] = self._kinds[spec](path, **parameters)
            return self._handlers[uid].events(start, stop)
        if mimetype not in KINDS:
            raise LookupFailed(
                f"stream_resource {uid} names no spec ({spec!r:.80}) and no mimetype ({mimetype!r:.80}) that something "
                "installed here opens; nothing was read"
            )
        return self._foreign(resource, stream_datum)[start:stop]

    def _foreign(self, resource: Mapping[str, Any], datum: Mapping[str, Any]) -> LazyArray:
        path = Path(self._moved(announced_path(resource).as_posix()))
        shape = self._data_keys.get(datum["descriptor"], {}).get(resource["data_key"], {}).get("shape")
        asset = ForeignAsset(
            path,
            resource["parameters"],
            datum["indices"]["stop"],
            None if shape is None else tuple(shape),
            Roots((path.parent, path.resolve().parent)),
        )
        source = open_foreign(resource["mimetype"], asset)
        return asset_array(source, {"dims": foreign_dims(source)}, name=resource["data_key"])

    def _moved(self, path: str) -> str:
        for before, now in self._root_map:
            folder = before.rstrip("/")
            if path == folder or path.startswith(f"{folder}/"):
                return f"{now.rstrip('/')}{path[len(folder) :]}"
        return path


def _indices(stream_datum: Mapping[str, Any]) -> tuple[int, int]:
    indices = stream_datum["indices"]
    start, stop = indices.get("start"), indices.get("stop")
    if not isinstance(start, int) or not isinstance(stop, int) or not 0 <= start <= stop:
        raise InvalidDocument(
            f"stream_datum {stream_datum['uid']}: expected indices from a start, 0 or more, to a stop not below it, "
            f"got {indices!r:.100}; nothing was read"
        )
    return start, stop
