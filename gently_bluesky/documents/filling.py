"""Recorded documents with this store's arrays put back in the place of the references to them, lazily."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gently_bluesky.documents.assets import EXTERNAL
from gently_bluesky.documents.handlers import AssetHandler, handler_registry
from gently_bluesky.errors import UnknownReference
from gently_bluesky.files import inside
from gently_bluesky.lazy import LazyArray

__all__ = ["filled", "rooted"]

Named = tuple[str, dict[str, Any]]


def rooted(documents: Iterable[Named], root: Path) -> Iterator[Named]:
    """Yield documents whose resources of our kinds name ``root``, where the store is now."""
    ours = handler_registry()
    for name, doc in documents:
        if name == "resource" and doc["spec"] in ours and (root / doc["resource_path"]).exists():
            yield name, {**doc, "root": str(root)}
        else:
            yield name, doc


def filled(documents: Iterable[Named], root: Path | None) -> Iterator[Named]:
    """Yield documents as they came in: events hold lazy arrays, and what announced those arrays is left out.

    Assets of other writers stay referred to. A descriptor is yielded just before its first event, which tells which
    of its keys are filled.

    Parameters
    ----------
    documents
        In the order in which they were announced, dicts of the caller's own.
    root
        Of the store they come from; None to believe the resource documents.

    Raises
    ------
    AssetMissing, AssetDamaged
        The files of an announced asset are not there, or not what was announced.
    InvalidDocument
        A resource's path leads out of its root.
    """
    filling = _Filling(root)
    for name, doc in documents:
        yield from filling.take(name, doc)


class _Filling:
    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._kinds = handler_registry()
        self._handlers: dict[str, AssetHandler] = {}
        self._datums: dict[str, tuple[str, dict[str, Any]]] = {}
        self._descriptors: dict[str, dict[str, Any]] = {}

    def take(self, name: str, doc: dict[str, Any]) -> Iterator[Named]:
        if name == "descriptor":
            self._descriptors[doc["uid"]] = doc
        elif name == "resource" and doc["spec"] in self._kinds:
            root = self._root or Path(doc["root"])
            path = inside(root, doc["resource_path"])
            self._handlers[doc["uid"]] = self._kinds[doc["spec"]](str(path), **doc["resource_kwargs"])
        elif name == "datum" and doc["resource"] in self._handlers:
            self._datums[doc["datum_id"]] = doc["resource"], doc["datum_kwargs"]
        elif name == "event":
            yield from self._event(doc)
        else:
            if name == "stop":
                yield from (("descriptor", held) for held in self._descriptors.values())
                self._descriptors.clear()
            yield name, doc

    def _event(self, event: dict[str, Any]) -> Iterator[Named]:
        keys = [key for key, is_filled in event.get("filled", {}).items() if not is_filled]
        arrays = {key: self._array(event["data"][key]) for key in keys if event["data"][key] in self._datums}
        descriptor = self._descriptors.pop(event["descriptor"], None)
        if descriptor is not None:
            yield "descriptor", _without_references(descriptor, arrays)
        rest = {key: value for key, value in event.get("filled", {}).items() if key not in arrays}
        yield "event", {**event, "data": {**event["data"], **arrays}, "filled": rest}

    def _array(self, datum_id: str) -> LazyArray:
        resource, datum_kwargs = self._datums.pop(datum_id)
        if resource not in self._handlers:
            raise UnknownReference(f"datum {datum_id} names resource {resource}, which did not come before it")
        return self._handlers[resource](**datum_kwargs)


def _without_references(descriptor: dict[str, Any], arrays: dict[str, LazyArray]) -> dict[str, Any]:
    data_keys = {key: dict(known) for key, known in descriptor["data_keys"].items()}
    for key in arrays:
        if data_keys[key].get("external") == EXTERNAL:
            del data_keys[key]["external"]
    return {**descriptor, "data_keys": data_keys}
