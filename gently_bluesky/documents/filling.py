"""Recorded documents with this store's arrays put back in the place of the references to them, lazily.

It turns announced documents back into documents as devices make them. It reads no pixels and no journals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from event_model import unpack_datum_page, unpack_event_page
from numpy.typing import NDArray

from gently_bluesky.documents.assets import EXTERNAL
from gently_bluesky.documents.handlers import AssetHandler, own_handlers
from gently_bluesky.documents.resources import AnnouncedAsset, announced_asset, moved
from gently_bluesky.dtypes import known_dtype
from gently_bluesky.errors import AssetMissing, GentlyError, InvalidDocument
from gently_bluesky.files import inside, is_there
from gently_bluesky.jsontext import encode, plain
from gently_bluesky.lazy import LazyArray
from gently_bluesky.model import JournalLine

__all__ = ["filled_lines", "rooted"]

Named = tuple[str, dict[str, Any]]


def rooted(documents: Iterable[Named], root: Path) -> Iterator[Named]:
    """Yield documents whose resources of our kinds name ``root``, where the store is now."""
    ours = own_handlers()
    for name, doc in documents:
        asset = announced_asset(name, doc)
        if asset is not None and asset.spec in ours and _is_in(root, asset.path):
            yield name, moved(name, doc, asset, root)
        else:
            yield name, doc


def _is_in(root: Path, relative: str) -> bool:
    try:
        return is_there(inside(root, relative))
    except InvalidDocument:
        return False


def filled_lines(
    lines: Iterable[JournalLine],
    root: Path | None,
    overflow: Path | None = None,
    refuse: Callable[[JournalLine, GentlyError], object] | None = None,
    explain: Callable[[str, AssetMissing], AssetMissing] | None = None,
) -> Iterator[JournalLine]:
    """Yield lines whose documents are as they came in: arrays in the events, nothing that announced them.

    Stored arrays are lazy; small ones, which the journal holds as lists, are numpy's. A descriptor with
    external keys is yielded just before its first event, which tells what stands in for those keys; what else
    names the descriptor waits with it. Everything else keeps its place. Assets that are not this store's stay
    referred to.

    Parameters
    ----------
    lines
        In the order in which they were announced; runs may be interleaved. Their documents are not changed.
    root
        Of the store they come from, wherever it was moved to; None to believe the resource documents.
    overflow
        Its second place, if it has one.
    explain
        Returns, for the uid of an asset, the error that says where what is missing of it is, or the one given.
    refuse
        Called with a line that cannot be followed, and why, instead of raising that; the line is left out.

    Raises
    ------
    AssetMissing, AssetDamaged
        The files of an announced asset are not there, or not what was announced.
    InvalidDocument
        A resource's path leads out of its root, or a document lacks what event-model demands.
    """
    filling = _Filling(root, overflow, explain)
    for line in lines:
        try:
            yield from filling.take(line)
        except (KeyError, TypeError, AttributeError, GentlyError) as error:
            found = error if isinstance(error, GentlyError) else _invalid(line.name, error)
            if refuse is None:
                raise found from error.__cause__ if found is error else error
            refuse(line, found)
    yield from filling.release_all()


def _invalid(name: str, error: Exception) -> InvalidDocument:
    return InvalidDocument(
        f"expected a valid {name} document, got one that cannot be followed ({error!r}); what came before it was read"
    )


class _Filling:
    """Takes lines one by one, and knows what the next ones may refer to."""

    def __init__(
        self,
        root: Path | None,
        overflow: Path | None,
        explain: Callable[[str, AssetMissing], AssetMissing] | None,
    ) -> None:
        self._root = root
        self._overflow = overflow
        self._explain = explain
        self._kinds = own_handlers()
        self._handlers: dict[str, AssetHandler] = {}
        self._datums: dict[str, tuple[str, dict[str, Any]]] = {}
        self._stream_keys: dict[str, str] = {}
        self._stream_datums: dict[str, list[Mapping[str, Any]]] = {}
        """By descriptor, until the last event that they are for has come."""
        self._held: dict[str, list[JournalLine]] = {}
        self._small: dict[str, dict[str, _Small]] = {}

    def take(self, line: JournalLine) -> Iterator[JournalLine]:
        name, doc = line.name, line.doc
        if name == "descriptor":
            yield from self._descriptor(line)
        elif name in {"resource", "stream_resource"} and self._open(name, doc):
            pass
        elif name == "stream_datum" and doc.get("stream_resource") in self._handlers:
            self._stream_datums.setdefault(doc["descriptor"], []).append(doc)
        elif name == "datum" and doc["resource"] in self._handlers:
            self._datums[doc["datum_id"]] = doc["resource"], doc["datum_kwargs"]
        elif name == "event":
            yield from self._event(line)
        elif name == "datum_page" and doc["resource"] in self._handlers:
            for datum in unpack_datum_page(dict(doc)):  # pyright: ignore[reportArgumentType] # a page, by its name
                yield from self.take(JournalLine("datum", dict(datum)))
        elif name == "event_page" and doc["descriptor"] in self._held:
            for event in unpack_event_page(dict(doc)):  # pyright: ignore[reportArgumentType] # as above
                yield from self.take(JournalLine("event", dict(event)))
        elif name == "stream_datum" and doc.get("descriptor") in self._held:
            self._held[doc["descriptor"]].append(line)
        else:
            if name == "stop":
                yield from self.release_all(doc["run_start"])
            elif name == "stream_resource":
                yield from self._release_of_others(doc["data_key"])
            yield line

    def release_all(self, run_uid: str | None = None) -> Iterator[JournalLine]:
        """Yield what waits for a first event that will not come: of one run, or of all."""
        for uid, (descriptor, *waiting) in list(self._held.items()):
            if run_uid in (None, descriptor.doc.get("run_start")):
                del self._held[uid]
                yield descriptor
                yield from waiting

    def _release_of_others(self, data_key: str) -> Iterator[JournalLine]:
        """Yield descriptors that only wait for arrays which another writer announces."""
        for uid, (descriptor, *waiting) in list(self._held.items()):
            data_keys = descriptor.doc["data_keys"]
            external = {known.get("external") for known in data_keys.values()} - {None, ""}
            if data_key in data_keys and external == {EXTERNAL["stream"]}:
                del self._held[uid]
                yield descriptor
                yield from waiting

    def _open(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Open an asset if it is this store's; another one's stays a reference."""
        asset = announced_asset(name, doc)
        if asset is None or asset.spec not in self._kinds or (path := self._path_here(asset)) is None:
            return False
        explain = None if self._explain is None else partial(self._explain, asset.uid)
        handler = self._kinds[asset.spec]
        self._handlers[asset.uid] = handler(lambda: self._path_here(asset) or path, explain, **asset.kwargs)
        if name == "stream_resource":
            self._stream_keys[asset.uid] = doc["data_key"]
        return True

    def _path_here(self, asset: AnnouncedAsset) -> Path | None:
        said = Path(asset.root)
        if self._root is None:
            return inside(said, asset.path)
        path = inside(self._root, asset.path)
        if self._overflow is not None and not is_there(path):
            second = inside(self._overflow, asset.path)
            if is_there(second):
                return second
        elsewhere = said != self._root and not is_there(path) and is_there(said / asset.path)
        return None if elsewhere and not self._is_put_away(asset.uid) else path

    def _is_put_away(self, uid: str) -> bool:
        """Say whether an asset was deleted: what its document says may be the place of another copy of the store."""
        gone = AssetMissing(uid)
        return self._explain is not None and self._explain(uid, gone) is not gone

    def _unnamed(self, event: Mapping[str, Any]) -> dict[str, LazyArray]:
        """Return the arrays that stream_datums announced for an event; after a rewind the later one stands."""
        waiting = self._stream_datums.get(event["descriptor"], [])
        arrays: dict[str, LazyArray] = {}
        rest: list[Mapping[str, Any]] = []
        for datum in waiting:
            uid, seq_nums = datum["stream_resource"], datum["seq_nums"]
            step = event["seq_num"] - seq_nums["start"]
            if 0 <= step < seq_nums["stop"] - seq_nums["start"]:
                arrays[self._stream_keys[uid]] = self._handlers[uid](datum["indices"]["start"] + step)
            if event["seq_num"] < seq_nums["stop"] - 1:
                rest.append(datum)
        if waiting:
            self._stream_datums[event["descriptor"]] = rest
        return arrays

    def _descriptor(self, line: JournalLine) -> Iterator[JournalLine]:
        uid, data_keys = line.doc["uid"], line.doc["data_keys"]
        small = {key: _Small.of(declared) for key, declared in data_keys.items()}
        self._small[uid] = {key: known for key, known in small.items() if known is not None}
        if any(declared.get("external") in EXTERNAL.values() for declared in data_keys.values()):
            self._held[uid] = [line]
        else:
            yield line

    def _event(self, line: JournalLine) -> Iterator[JournalLine]:
        event = line.doc
        flags = event.get("filled", {})
        arrays: dict[str, LazyArray] = {}
        for key, is_filled in flags.items():
            value = event["data"][key]
            if not is_filled and isinstance(value, str) and value in self._datums:
                resource, datum_kwargs = self._datums.pop(value)
                arrays[key] = self._handlers[resource](**datum_kwargs)
        unnamed = self._unnamed(event)
        arrays.update(unnamed)
        waiting = self._held.pop(event["descriptor"], None)
        if waiting is not None:
            yield replace(waiting[0], doc=_without_references(waiting[0].doc, arrays))
            yield from waiting[1:]
        data = {**event["data"], **arrays}
        for key, small in self._small.get(event["descriptor"], {}).items():
            if key in data:
                data[key] = small.restored(data[key])
        rest = {key: value for key, value in flags.items() if key not in arrays}
        said = line.timestamps or {}
        timestamps = {**event["timestamps"], **{key: said.get(key, event["time"]) for key in unnamed}}
        doc = {**event, "data": data, "timestamps": timestamps, "filled": rest}
        yield replace(line, doc=doc, timestamps=None)


class _Small:
    """What a descriptor says of an array that stands in the events themselves, as a list."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._shape = shape

    @classmethod
    def of(cls, declared: Mapping[str, Any]) -> _Small | None:
        """Return what a data key declares, or None where it declares no such array."""
        known, shape = known_dtype(declared.get("dtype_numpy")), declared.get("shape")
        if declared.get("external") or declared.get("dtype") != "array" or not shape or known is None:
            return None
        return cls(known, tuple(shape)) if known.kind in "biufU" else None

    def restored(self, value: object) -> object:
        """Return a list as the array it was; as it is where that would not say exactly the same."""
        if not isinstance(value, list):
            return value
        try:
            array: NDArray[Any] = np.asarray(value, self._dtype)
        except (ValueError, TypeError, OverflowError):
            return value
        if array.size == 0 == np.prod(self._shape):
            array = array.reshape(self._shape)
        return array if array.ndim == len(self._shape) and _says(array, value) else value


def _says(array: NDArray[Any], value: list[Any]) -> bool:
    said: object = array.reshape(-1) if array.size == 0 else array
    # the text of a float32 is not that of the float64 it is read as
    return encode(plain(said)) == encode(value)


def _without_references(descriptor: Mapping[str, Any], arrays: Mapping[str, LazyArray]) -> dict[str, Any]:
    data_keys = {key: dict(known) for key, known in descriptor["data_keys"].items()}
    for key in arrays:
        if data_keys[key].get("external") in EXTERNAL.values():
            del data_keys[key]["external"]
    return {**descriptor, "data_keys": data_keys}
