"""What protects a run from being deleted: pins, what is wrong with it, what nobody has looked at, and what needs it.

Deletion asks exactly, of one run, whose journal it has read; a plan asks of all runs at once, by what the index and
the stamps say. What it comes to is decided in one place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.backends.registry import backend_for_spec
from gently_bluesky.documents.adopting import LIVE, RECORD
from gently_bluesky.documents.names import INCOMING, folder_of
from gently_bluesky.errors import InvalidDocument, LookupFailed, Protected
from gently_bluesky.files import inside
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import children
from gently_bluesky.model import Pin, Record
from gently_bluesky.upkeep.accounts import Account
from gently_bluesky.upkeep.stamps import Stamps
from gently_bluesky.wording import clock, many, printable, short_uid

__all__ = ["ALTHOUGH", "Where", "own_path", "protections", "require_unprotected"]

ALTHOUGH: Final = ("children", "damaged", "incomplete", "unverified")
"""What protects a run, and can be waived."""
LACKING: Final = ("failed", "incomplete")
"""How a run ended that does not hold all that was measured."""
MOST_NAMED: Final = 3

Where = Callable[[Record], Path]
"""Tells where an asset lies."""


def own_path(
    root: Path, run: Record, asset: Record, where: Where, shared: Callable[[], Collection[str]]
) -> str | None:
    """Return where the files of an asset lie, if they are this run's alone, and a writer of ours wrote them; else None.

    They are where they lie in the folder of the run, or in that of a recording by one of our devices, which has ended,
    and no other run announces them: ``shared`` tells what several do.
    """
    try:
        backend = backend_for_spec(asset.format or "")
        if backend is None or isinstance(backend, MemoryBackend):
            return None
        path = where(asset)
    except (LookupFailed, InvalidDocument):
        return None
    if asset.path and (root / asset.path).is_symlink():
        return None  # what it leads to is another's
    folder = inside(root, run.path).parent
    if not os.path.lexists(path) or asset.path in shared():
        return None
    if path != folder and path.is_relative_to(folder):
        return path.relative_to(root).as_posix()
    if not asset.path.startswith(f"{INCOMING}/") or path != inside(root, folder_of(asset.path)) / path.name:
        return None
    is_ended = (path.parent / RECORD).is_file() and not os.path.lexists(path.parent / LIVE)
    return asset.path if is_ended else None


def require_unprotected(
    index: Index, stamps: Stamps, run: Record, account: Account, although: Collection[str]
) -> None:
    """Return if the pixels of a run may be deleted, although what is waived. Raises Protected."""
    stamps.read()
    made = children(index, run.uid)
    needing = [(one.uid, one.status) for one in made if one.deleted is None and one.run_uid != run.uid]
    found = protections(
        run,
        index.pins().get(run.uid),
        is_damaged=bool(stamps.of(run.uid).get("findings") or account.findings),
        is_verified=stamps.is_verified(run.uid, account.part, 0.0),
        needing=needing,
    )
    for name, what in (("pinned", "unpin it first, if that is over"), ("used", "wait until that has ended")):
        if name in found:
            raise Protected(f"run {run.uid} is protected: {found[name]}; nothing was deleted; {what}")
    found = {name: why for name, why in found.items() if name not in although}
    if found:
        raise Protected(
            f"run {run.uid} is protected: {'; '.join(found.values())}; nothing was deleted; mend that, or say "
            f"although={[*found]!r} (--although {' --although '.join(found)})"
        )


def protections(
    run: Record,
    pin: Pin | None,
    *,
    is_damaged: bool,
    is_verified: bool,
    needing: Sequence[tuple[str, str | None]],
) -> Mapping[str, str]:
    """Return what protects a run, and a sentence for each: "pinned", "used", and what of `ALTHOUGH` is so.

    "used" is what a result is being made from just now.

    Parameters
    ----------
    is_damaged
        Something was found when it was verified.
    is_verified
        It was found well, as it is now.
    needing
        Results made from it, whose pixels, or values, are there, each with how its run ended.
    """
    found: dict[str, str] = {}
    if pin is not None:
        found["pinned"] = f"it was pinned {clock(pin.time)}: {printable(pin.reason)}"
    if run.status in LACKING:
        found["incomplete"] = f"it is {run.status}, and what there is of it may be all that is left"
    if is_damaged:
        found["damaged"] = "what is wrong with it was found when it was verified, and nobody looked into it"
    elif not is_verified:
        found["unverified"] = "it was not verified since it was written (store.verify(uid) does)"
    if needing:
        are = "is" if len(needing) == 1 else "are"
        named = ", ".join(short_uid(uid) for uid, _ in needing[:MOST_NAMED])
        found["children"] = f"{many(len(needing), 'result')} made from it {are} there ({named})"
    making = [short_uid(uid) for uid, status in needing if status == "running"]
    if making:
        found["used"] = f"a result is being made from it ({', '.join(making[:MOST_NAMED])})"
    return found
