"""A store whose owner says what is kept: pins, deletion with a trash, and what stays of what was deleted."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cached_property

from gently_bluesky.elsewhere import place_of
from gently_bluesky.errors import InputError
from gently_bluesky.maintaining import MaintainedStore
from gently_bluesky.model import Pin, Record, Tombstone
from gently_bluesky.retention import Retention
from gently_bluesky.settings import seconds_kept
from gently_bluesky.wording import many

__all__ = ["DeletingStore"]


class DeletingStore(MaintainedStore):
    """What a `Store` is to its owner. Parameters as of `MaintainedStore`."""

    @cached_property
    def retention(self) -> Retention:
        """What may go by itself: its policy, plans, and doing what a plan says; off unless somebody asks."""
        return Retention(
            self.root,
            self.uid,
            self._index,
            lambda asset: place_of(self._places, self._index, asset),
            self._require_writable,
        )

    def pin(self, uid: str, *, reason: str) -> Pin:
        """Keep a run from being deleted, by whatever rule, until it is unpinned; *synced* on return. Any thread.

        Parameters
        ----------
        uid
            Of a run; an asset's or a datum's stands for its run.
        reason
            In words; it stays on record.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, or there are several.
        InvalidSetting
            There is no reason.
        StoreReadOnly, StorageError
            It could not be put on record.
        """
        from gently_bluesky.upkeep import deletion  # a store brings no backend

        self._require_writable()
        run = self._index.record(self._index.record(uid).run_uid)
        deletion.pin(self.root, self._index, run.uid, reason)
        return self._index.pins()[run.uid]

    def unpin(self, uid: str, *, reason: str = "") -> None:
        """Take the pin of a run away; *synced* on return. Any thread.

        Parameters
        ----------
        uid, reason
            As of `pin`; the reason may be left away.

        Raises
        ------
        InputError
            The run is not pinned.
        UnknownUid, AmbiguousUid, StoreReadOnly, StorageError
            As `pin`.
        """
        from gently_bluesky.upkeep import deletion

        self._require_writable()
        deletion.unpin(self.root, self._index, self._index.record(uid).run_uid, reason)

    def pins(self) -> list[Pin]:
        """Return what is pinned, oldest pin first."""
        return [*self._index.pins().values()]

    def delete(
        self, uid: str, *, reason: str, keep_days: float = 7.0, although: Collection[str] = ()
    ) -> list[Tombstone]:
        """Put the pixels of a run, or of one of its assets, into the store's trash; *synced* on return. Any thread.

        Its documents, its values and its lineage stay, and a tombstone says when and why. `restore` brings the pixels
        back until `purge` removes them. Reading them raises AssetDeleted meanwhile, and AssetPurged afterwards; an
        array that is open raises it too. On Windows, where files that somebody has open cannot be moved, nothing is
        deleted then.

        Parameters
        ----------
        uid
            Of a run that has ended, or of an asset.
        reason
            In words; it stays on record.
        keep_days
            `purge` leaves it in the trash for so long.
        although
            What protects a run, and shall not now: ``"children"`` (results made from it are there), ``"incomplete"``
            (it is incomplete or failed), ``"unverified"`` (nobody verified it since it was written) or ``"damaged"``
            (the last verification found something).

        Returns
        -------
        list of Tombstone
            Of the assets.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several.
        Protected
            It is pinned, or protected by one of the above.
        InputError
            It is being written; or nothing of it is ours and on disk.
        InvalidSetting
            A setting is out of range.
        StoreReadOnly, StorageError
            It could not be put on record or moved. Nothing was deleted then, unless the message says that it was.
        ClockJumped
            The clock of this machine is behind what is on record; nothing was deleted.
        """
        from gently_bluesky.upkeep.deletion import Deletion, delete
        from gently_bluesky.upkeep.recovery import follow_journals
        from gently_bluesky.upkeep.stamps import Stamps

        self._require_writable()
        wanted = Deletion(reason, seconds_kept(keep_days), although)
        follow_journals(self.root, self._index)  # a result that others put protects what it was made from
        record = self._index.record(uid)
        if record.kind == "datum":
            raise InputError(
                f"expected the uid of a run or an asset, {uid!r} is that of one event; nothing was deleted"
            )
        stamps = Stamps(self.root, writes=False)
        stamps.read()
        self.retention.require_no_earlier(stamps.newest)
        return delete(
            self.root,
            self._index,
            stamps,
            record,
            lambda asset: place_of(self._places, self._index, asset),
            wanted,
        )

    def restore(self, uid: str) -> list[Record]:
        """Bring back from the trash what was deleted of a run, or an asset; *synced* on return. Any thread.

        Returns
        -------
        list of Record
            Of the assets that are back.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several.
        InputError
            Nothing of it is in the trash, or it is an event.
        StoreReadOnly, StorageError
            It could not be put on record or moved.
        """
        from gently_bluesky.upkeep.deletion import restore

        self._require_writable()
        record = self._index.record(uid)
        if record.kind == "datum":
            raise InputError(
                f"expected the uid of a run or an asset, {uid!r} is that of one event; nothing was changed"
            )
        return [self._index.record(uid) for uid in restore(self.root, self._index, record)]

    def trash(self) -> list[Tombstone]:
        """Return what is in the trash, oldest first; an asset each, or what one was before it was converted."""
        return [one for one in self._index.tombstones() if one.purged is None]

    def tombstone(self, uid: str) -> Tombstone | None:
        """Return what stays of a run or an asset whose pixels were deleted; None where they were not.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several.
        """
        return self._index.tombstone(self._index.record(uid).uid)

    def purge(self, uid: str | None = None, *, now: bool = False) -> list[Tombstone]:
        """Remove for good what has been in the trash for as long as it was to be kept. Any thread.

        Parameters
        ----------
        uid
            Of a run or an asset; None is everything in the trash.
        now
            Do not wait for the time that it was to be kept.

        Returns
        -------
        list of Tombstone
            Of what was removed.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several.
        InputError
            Somebody else has some of their runs, or pinned them meanwhile; all others were purged.
        ClockJumped
            The clock of this machine cannot be right; `now` asks for no clock.
        StoreReadOnly, StorageError
            Something could not be put on record or removed; the next opening tries again.
        """
        from gently_bluesky.upkeep.purging import due, purge
        from gently_bluesky.upkeep.trash import follow

        self._require_writable()
        record = None if uid is None else self._index.record(uid)
        follow(self.root, self._index)  # what other processes restored and pinned
        until = math.inf if now else self.retention.now()
        found = due(self._index, until, None if record is None else [record.uid])
        left = purge(self.root, self._index, found)
        gone = [one for one in map(self._index.tombstone, (old.uid for old in found)) if one is not None]
        removed = [one for one in gone if one.purged is not None]
        if left:
            raise InputError(
                f"{many(len(left), 'run')} could not be purged: {'; '.join(left.values())}; of what else was due "
                f"{many(len(removed), 'asset')} were removed"
            )
        return removed
