"""What resource and stream_resource documents say of an asset, read alike; and URIs of files.

Nothing here looks at the disk, and nothing that a document says is believed to be so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.index.fields import below_a_root, path_of_uri, whole_asset

__all__ = ["AnnouncedAsset", "announced_asset", "announced_path", "file_uri", "moved"]

FROM_THEIR_ROOT = ("AD_HDF5_SWMR_STREAM",)
"""Specs whose paths go on from their root though there is a slash in front, as bluesky reads them."""


class AnnouncedAsset(NamedTuple):
    """What opens an asset, as its document says: the ``spec`` of its backend, a root, a path below it, and more."""

    uid: str
    spec: str
    root: str
    path: str
    kwargs: Mapping[str, Any]


def announced_asset(name: str, doc: Mapping[str, Any]) -> AnnouncedAsset | None:
    """Return what a document announces; None if it is no resource, or names no ``spec`` or no file of this machine."""
    if name == "resource":
        return AnnouncedAsset(
            doc["uid"], doc["spec"], doc["root"], doc["resource_path"], doc["resource_kwargs"]
        )
    spec = doc["parameters"].get("spec") if name == "stream_resource" else None
    if not isinstance(spec, str):
        return None
    path = path_of_uri(doc["uri"])
    if path is None:
        return None
    path = whole_asset(path, doc["parameters"])
    below = below_a_root(path) or path.rpartition("/")[2]
    return AnnouncedAsset(doc["uid"], spec, path[: -len(below) - 1] or "/", below, doc["parameters"])


def announced_path(doc: Mapping[str, Any]) -> Path:
    """Return the path of the asset that a resource or stream_resource announces, as it stands there.

    Raises
    ------
    InvalidDocument
        It names no file of this machine.
    """
    if "resource_path" in doc:
        root, path = doc.get("root", ""), doc["resource_path"]
        return Path(root, path.lstrip("/") if root and doc.get("spec") in FROM_THEIR_ROOT else path)
    path = path_of_uri(doc["uri"])
    if path is None:
        raise InvalidDocument(
            f"expected the uri of a file here, like file://localhost/data/run/camera, got {doc['uri']!r:.200}; "
            "nothing was read or written there"
        )
    return Path(whole_asset(path, doc.get("parameters")))


def moved(name: str, doc: Mapping[str, Any], asset: AnnouncedAsset, root: Path) -> dict[str, Any]:
    """Return the document of an asset that lies below ``root`` now."""
    if name == "resource":
        return {**doc, "root": str(root)}
    uri: str = doc["uri"]
    rest = (path_of_uri(uri) or "")[len(asset.root.rstrip("/")) + 1 :]
    return {**doc, "uri": file_uri(root / rest, is_folder=uri.endswith("/"))}


def file_uri(path: Path, *, is_folder: bool = False) -> str:
    """Return the URI of a file, or of a folder: with a slash at the end, for names that are appended to it."""
    text = path.as_posix()
    return f"file://localhost{'' if text.startswith('/') else '/'}{quote(text)}{'/' if is_folder else ''}"
