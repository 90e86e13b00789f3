"""What protects a run from being deleted: pins, what is wrong with it, what nobody has looked at, and what needs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from gently_bluesky.errors import Protected
from gently_bluesky.index.index import Index
from gently_bluesky.index.lineage import children
from gently_bluesky.model import Record
from gently_bluesky.upkeep.accounts import Account
from gently_bluesky.upkeep.stamps import Stamps
from gently_bluesky.wording import clock, many, printable, short_uid

__all__ = ["ALTHOUGH", "require_unprotected"]

ALTHOUGH: Final = ("children", "damaged", "incomplete", "unverified")
"""What protects a run, and can be waived."""
LACKING: Final = ("failed", "incomplete")
"""How a run ended that does not hold all that was measured."""
MOST_NAMED: Final = 3


def require_unprotected(
    root: Path, index: Index, run: Record, account: Account, although: Collection[str]
) -> None:
    """Return if the pixels of a run may be deleted, although what is waived. Raises Protected."""
    pinned = index.pins().get(run.uid)
    if pinned is not None:
        raise Protected(
            f"run {run.uid} was pinned {clock(pinned.time)}: {printable(pinned.reason)}; nothing was deleted; unpin it "
            "first, if that is over"
        )
    found = {name: why for name, why in _protections(root, index, run, account) if name not in although}
    if found:
        raise Protected(
            f"run {run.uid} is protected: {'; '.join(found.values())}; nothing was deleted; mend that, or say "
            f"although={[*found]!r} (--although {' --although '.join(found)})"
        )


def _protections(root: Path, index: Index, run: Record, account: Account) -> Iterator[tuple[str, str]]:
    if run.status in LACKING:
        yield "incomplete", f"it is {run.status}, and what there is of it may be all that is left"
    stamps = Stamps(root, writes=False)
    stamps.read()
    stamp = stamps.of(run.uid)
    if stamp.get("findings") or account.findings:
        yield "damaged", "what is wrong with it was found when it was verified, and nobody looked into it"
    elif not stamps.is_verified(run.uid, account.part, 0.0):
        yield "unverified", "it was not verified since it was written (store.verify(uid) does)"
    needing = [one for one in children(index, run.uid) if one.deleted is None and one.run_uid != run.uid]
    if needing:
        named = ", ".join(short_uid(one.uid) for one in needing[:MOST_NAMED])
        are = "is" if len(needing) == 1 else "are"
        yield "children", f"{many(len(needing), 'result')} made from it {are} there ({named})"
