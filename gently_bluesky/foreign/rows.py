"""How an array that many events were appended to is cut into events: by what was declared, where that fits."""

from __future__ import annotations

from typing import NamedTuple

from gently_bluesky.errors import AssetDiffers, AssetMissing, LookupFailed
from gently_bluesky.foreign.base import count_of, fitted
from gently_bluesky.foreign.kinds import ForeignAsset

__all__ = ["Cut", "cut_as_declared", "cut_by_rows", "name_of_dataset"]

NOT_APPLIED = ("slice", "squeeze")


class Cut(NamedTuple):
    """Events of an array: ``rows`` of it for each of them, one without an axis of its own where None.

    ``stored`` is the shape of an event as it lies there, ``shape`` as it was declared.
    """

    events: int
    rows: int | None
    stored: tuple[int, ...]
    shape: tuple[int, ...]


def name_of_dataset(asset: ForeignAsset) -> object:
    """Return what names the array within a file or group, for whoever opens it to check; older writers call it path.

    Raises
    ------
    LookupFailed
        Only a part of it is asked for.
    """
    for name in NOT_APPLIED:
        if asset.kwargs.get(name):
            raise LookupFailed(
                f"{asset.path}: what announced it asks for a {name} ({asset.kwargs[name]!r:.80}), which is not "
                "applied here; nothing was read; open the file by itself"
            )
    return asset.kwargs.get("path", asset.kwargs.get("dataset"))


def cut_by_rows(asset: ForeignAsset, name: str, lengths: tuple[int, ...], rows: int | None) -> Cut:
    """Cut an array of these ``lengths`` into events of so many rows.

    Raises
    ------
    AssetMissing
        It holds fewer than were announced.
    """
    if (rows or 1) * asset.count > lengths[0]:
        raise AssetMissing(
            f"{asset.path}: {asset.count} events were announced, {name} has {lengths[0]} rows; no pixels were "
            "returned; if its writer is still at it, try again"
        )
    stored = lengths[1:] if rows is None else (rows, *lengths[1:])
    return Cut(lengths[0] // (rows or 1), rows, stored, fitted(asset.shape, stored))


def cut_as_declared(asset: ForeignAsset, name: str, lengths: tuple[int, ...]) -> Cut:
    """Cut an array as stream documents say: by ``join_method``, and by the shape of an event.

    Raises
    ------
    AssetMissing
        It holds fewer than were announced.
    AssetDamaged, AssetDiffers
        It cannot be cut so.
    """
    if asset.kwargs.get("join_method", "concat") == "stack":
        return cut_by_rows(asset, name, lengths, None)
    declared = asset.shape or ()
    rows: int | None = count_of(asset, "multiplier", declared[0] if declared else 1)
    if asset.shape is not None and len(declared) == len(lengths) - 1:
        rows = None  # older writers declare one frame, and append one for each event
    cut = cut_by_rows(asset, name, lengths, rows)
    if asset.shape is not None and cut.shape != asset.shape:
        raise AssetDiffers(
            f"{asset.path}: expected events of {asset.shape} in {name}, as declared, found {lengths}; no pixels were "
            "returned"
        )
    return cut
