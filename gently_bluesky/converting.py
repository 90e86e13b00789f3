"""Many runs and assets converted, one run after the other, and what that came to.

How one of them is converted is in ``upkeep``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from math import prod

from gently_bluesky.elsewhere import Places, place_of
from gently_bluesky.errors import AssetDamaged, AssetMissing, InputError, JournalDamaged, LookupFailed
from gently_bluesky.index.fields import itemsize
from gently_bluesky.index.index import Index
from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Record
from gently_bluesky.upkeep.conversion import convert_run
from gently_bluesky.upkeep.conversions import Conversion, Converted, LeftOut, Wish

__all__ = ["convert", "wanted_of"]

Wanted = str | Record
MENDED_ELSEWHERE = (AssetMissing, AssetDamaged, JournalDamaged, InputError, LookupFailed)
"""What is wrong with one run, and keeps no other from being converted."""


def wanted_of(index: Index, what: Wanted | Iterable[Wanted]) -> tuple[Sequence[Record], bool]:
    """Return the runs and assets that are named, each once, and whether it was one alone.

    Raises
    ------
    UnknownUid, AmbiguousUid
        There is no such run or asset, or there are several.
    InputError
        One of them is an event.
    """
    is_one = isinstance(what, Wanted)
    try:
        named = [what] if isinstance(what, Wanted) else [*what]
    except TypeError as error:
        raise InputError(
            f"expected the uid of a run or an asset, or several, got {what!r:.200}; nothing was converted"
        ) from error
    found: dict[str, Record] = {}
    for one in named:
        record = index.record(one.uid if isinstance(one, Record) else one)
        if record.kind == "datum":
            raise InputError(
                f"expected the uid of a run or an asset, {record.uid} is that of one event; nothing was converted"
            )
        found[record.uid] = record
    kept = [record for record in found.values() if record.kind == "run" or record.run_uid not in found]
    return kept, is_one


def convert(
    places: Places,
    index: Index,
    wanted: Sequence[Record],
    wish: Wish,
    tell: Callable[[int, int, str], object],
    *,
    is_one: bool,
) -> Conversion:
    """Convert runs and assets; what is done is done, whatever comes after.

    ``tell`` is called with the bytes that were copied and read back, of how many, and a word of what. Raises as
    `Store.convert`.
    """
    total = 2 * sum(_nbytes(index, record) for record in wanted)
    done = 0

    def step(nbytes: int, what: str) -> None:
        nonlocal done
        done += nbytes
        tell(done, max(total, done), f"{what} {bytes_text(done)} of {bytes_text(max(total, done))}")

    converted: list[Converted] = []
    left: list[LeftOut] = []
    failed: list[LeftOut] = []
    for record in wanted:
        work = convert_run(
            places.root, index, record, lambda asset: place_of(places, index, asset), wish, step
        )
        try:
            with closing(work):
                for one in work:
                    if isinstance(one, Converted):
                        converted.append(one)
                        continue
                    if is_one and record.kind == "asset" and not one.is_so:
                        raise InputError(f"asset {one.uid} {one.why}; nothing was converted")
                    left.append(one)
        except MENDED_ELSEWHERE as error:
            if is_one:
                raise
            failed.append(LeftOut(record.uid, record.run_uid, str(error)))
    return Conversion(tuple(converted), tuple(left), tuple(failed))


def _nbytes(index: Index, record: Record) -> int:
    """Return how many bytes of pixels a run, or an asset, announces."""
    uids = {extent.asset_uid for extent in index.extents_of_run(record.run_uid)}
    assets = [record] if record.kind == "asset" else [index.record(uid) for uid in uids]
    return sum(prod(asset.shape or (0,)) * (itemsize(asset.dtype or "") or 1) for asset in assets)
