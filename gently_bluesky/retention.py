"""What of a store may go by itself: its policy, the plan that is made by it, and doing what the plan says."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from gently_bluesky.errors import ClockJumped, InputError, InvalidSetting, StalePlan, StorageError
from gently_bluesky.files import storage_error
from gently_bluesky.index.index import Index
from gently_bluesky.model import Record, Tombstone
from gently_bluesky.settings import DAY_S
from gently_bluesky.wording import clock

if TYPE_CHECKING:
    from gently_bluesky.upkeep.applied import Applied
    from gently_bluesky.upkeep.holdings import Holdings
    from gently_bluesky.upkeep.planned import Going, Plan
    from gently_bluesky.upkeep.retention import Policy
    from gently_bluesky.upkeep.stamps import Stamps
    from gently_bluesky.upkeep.usage import Usage

__all__ = ["Retention"]

DRIFT_S = 60.0
"""By so much a clock may be set while a store is open."""
BEHIND_S = 3600.0
AHEAD_S = 180 * DAY_S
RELIEF_TRIES = 3


class Retention:
    """What of a store may go by itself; ``store.retention``. Nothing goes unless `apply` is called. Any thread.

    Parameters
    ----------
    root, uid, index
        Of the store.
    where
        Tells where an asset lies.
    require_writable
        Raises where nothing may be written.
    """

    def __init__(
        self,
        root: Path,
        uid: str,
        index: Index,
        where: Callable[[Record], Path],
        require_writable: Callable[[], None],
    ) -> None:
        self._root = root
        self._uid = uid
        self._index = index
        self._where = where
        self._require_writable = require_writable
        self._began = _ticks(), time.time()

    @property
    def policy(self) -> Policy | None:
        """The store's own policy, read from ``<root>/retention.toml`` now; None where there is none.

        Raises
        ------
        InvalidSetting
            It is not TOML, has a key that is none, or says what is contradictory or absurd.
        StorageError
            It cannot be read.
        """
        from gently_bluesky.upkeep.retention import POLICY_FILE, Policy  # nothing of this is for most stores

        path = self._root / POLICY_FILE
        return Policy.from_toml(path) if path.exists() else None

    def plan(self, policy: Policy | None = None) -> Plan:
        """Return what would go by a policy and why, and what stays and why. Changes nothing.

        Sizes are those of the files on disk, whose folders are walked; documents are not counted, and stay. What
        somebody has to look at first never goes: what is unverified, incomplete, failed or damaged. Nor does what is
        pinned, being written, outside the store, or of another writer; nor what derived results were made from that
        are there, unless a rule says that they suffice. What derived results were made from that go by the same plan
        goes by the next one.

        Parameters
        ----------
        policy
            By default the store's own.

        Raises
        ------
        InvalidSetting
            There is no policy, or it asks for what cannot be here.
        ClockJumped
            The clock of this machine cannot be right.
        JournalDamaged, StorageError
            The logbook, the index or the policy cannot be read.
        """
        from gently_bluesky.upkeep.retention import Policy

        policy = self.policy if policy is None else policy
        if not isinstance(policy, Policy | None):  # pyright: ignore[reportUnnecessaryIsInstance] # people type it
            raise InvalidSetting(f"expected a Policy, got {policy!r:.200}; nothing was deleted")
        if policy is None:
            raise InvalidSetting(
                f"expected a policy in {self._root / 'retention.toml'}, or one that is given: there is none; nothing "
                "was deleted"
            )
        return self._plan(policy)

    def apply(self, plan: Plan) -> Applied:
        """Put what a plan says into the trash, and purge what has been there for long enough; *synced* on return.

        What turns out to be protected when it is looked at exactly is left alone.

        Returns
        -------
        Applied
            What was done, and what was left alone and why.

        Raises
        ------
        StalePlan
            Something that the plan was made from has changed, or the plan was applied; nothing was deleted.
        ClockJumped
            The clock was set since the plan was made; nothing was deleted.
        StoreReadOnly, StorageError
            Something could not be put on record, moved or removed; what was done before that is on record.
        """
        from gently_bluesky.upkeep.planned import Plan

        if not isinstance(plan, Plan):  # pyright: ignore[reportUnnecessaryIsInstance] # people type it
            raise InvalidSetting(
                f"expected a plan, as plan() returns it, got {plan!r:.200}; nothing was deleted"
            )
        self._require_writable()
        return self._apply(plan)

    def _apply(self, plan: Plan) -> Applied:
        from gently_bluesky.upkeep.applied import Applied
        from gently_bluesky.upkeep.recovery import follow_journals
        from gently_bluesky.upkeep.stamps import Stamps
        from gently_bluesky.upkeep.trash import follow

        follow(self._root, self._index)  # what other processes pinned, deleted and restored
        follow_journals(self._root, self._index)
        again = self._plan(plan.policy)
        self._require_same_clock(plan.ticks, plan.made)
        if again.fingerprint != plan.fingerprint or not plan.uids <= again.uids:
            raise StalePlan(
                f"the plan of {clock(plan.made)} does not fit the store any more: runs, results, pins, verifications "
                "or the trash have changed since, or it was applied; nothing was deleted; make another one"
            )
        left: dict[str, str] = {}
        deleted: list[Tombstone] = []
        try:
            stamps = Stamps(self._root, writes=False)
            for one in plan.goes:
                self._delete(one, stamps, plan.policy, deleted, left)
            purged = self._purge({one.uid for one in (*plan.purges, *deleted)}, left)
        except StorageError as error:
            error.add_note(
                f"{len({one.run_uid for one in deleted})} of {len(plan.goes)} runs were deleted before that"
            )
            raise
        return Applied(tuple(deleted), tuple(purged), left)

    def relieve(self) -> str:
        """Do what the store's own policy says, and say what was done; nothing where there is no policy.

        A store that is being closed waits for it.

        Raises
        ------
        GentlyError
            As `plan` and `apply`.
        """
        if self.policy is None:
            return ""
        for _ in range(RELIEF_TRIES):
            try:
                done = self._apply(self.plan())
            except StalePlan:  # a result came meanwhile
                continue
            if done.deleted or done.purged or done.left:
                return str(done)
            return "its policy lets nothing go: store.retention.plan() says why"
        return "runs and results came so fast that no plan stood; nothing was deleted"

    def now(self) -> float:
        """Return the time, in seconds since the epoch, if the clock of this machine can be right.

        Raises
        ------
        ClockJumped
            It was set since the store was opened, or does not fit what is on record.
        JournalDamaged, StorageError
            The logbook cannot be read.
        """
        from gently_bluesky.upkeep.stamps import Stamps

        stamps = Stamps(self._root, writes=False)
        stamps.read()
        return self._now(stamps.newest)

    def usage(self, by: str = "session") -> Usage:
        """Return what the files of a store take on the disk. Changes nothing.

        Sizes are those of the files on disk, whose folders are walked; documents, and what others wrote elsewhere,
        are not counted.

        Parameters
        ----------
        by
            ``"session"``, ``"data_type"``, ``"age"``, or any key of start documents, such as ``"embryo"``, dotted for
            what is nested.

        Raises
        ------
        JournalDamaged, StorageError
            The logbook or the index cannot be read.
        """
        from gently_bluesky.upkeep.usage import usage_of

        return usage_of(self._holdings(), by, time.time(), self._in_trash(), self._disk().free)

    # -- what a plan is made from ----------------------------------------------------------------------------

    def _plan(self, policy: Policy) -> Plan:
        from gently_bluesky.upkeep.purging import due
        from gently_bluesky.upkeep.retention_plan import Place, plan_of

        disk = self._disk()
        for rule in policy.rules:
            if (rule.min_free_nbytes or 0) >= disk.total:
                raise InvalidSetting(
                    f"rule ({rule}) wants more to be free than the disk of {self._root} holds, {disk.total} bytes; "
                    "nothing was deleted; ask for less"
                )
        held = self._holdings()
        now = self._now(held.newest)
        return plan_of(
            policy,
            Place(
                self._uid,
                now,
                _ticks(),
                held,
                self._kept(policy, held),
                self._in_trash(),
                due(self._index, math.inf),
                disk.free,
            ),
        )

    def _disk(self) -> shutil._ntuple_diskusage:  # pyright: ignore[reportPrivateUsage] # it has no other name
        try:
            return shutil.disk_usage(self._root)
        except OSError as error:
            raise storage_error(error, f"{self._root} cannot be looked at; nothing was deleted") from error

    def _holdings(self) -> Holdings:
        from gently_bluesky.upkeep.holdings import holdings

        return holdings(self._root, self._index, self._where)

    def _in_trash(self) -> list[Tombstone]:
        return [one for one in self._index.tombstones() if one.purged is None]

    def _kept(self, policy: Policy, held: Holdings) -> dict[str, str]:
        """Return the runs that stay by a keep of the policy, and which. Raises InvalidSetting."""
        from gently_bluesky.upkeep.policy_values import among

        found: dict[str, str] = {}
        for keep in policy.keep:
            answering = {one.uid for one in self._index.query(**keep.query)} if keep.query else None
            for one in held.runs:
                if (
                    (answering is None or one.uid in answering)
                    and among(one.run.session, keep.session)
                    and (
                        keep.children is None
                        or any(among(it.data_type, keep.children) for it in one.children)
                    )
                ):
                    found.setdefault(one.uid, f"the policy keeps it: {keep}")
        return found

    # -- the clock -------------------------------------------------------------------------------------------

    def _now(self, newest: float) -> float:
        """Return the time, if that can be right: ``newest`` is when the logbook was last written."""
        self.require_no_earlier(newest)
        now = time.time()
        if newest and now > newest + AHEAD_S:
            raise ClockJumped(
                f"the clock of this machine says {clock(now)}, and nothing was put on record since {clock(newest)}; "
                "nothing was deleted; set the clock right, or, if it is, verify the store first"
            )
        return now

    def require_no_earlier(self, newest: float) -> None:
        """Return if it is no earlier than when the logbook was last written. Raises ClockJumped."""
        self._require_same_clock(*self._began)
        now = time.time()
        if now < newest - BEHIND_S:
            raise ClockJumped(
                f"the clock of this machine says {clock(now)}, and something was put on record at {clock(newest)}; "
                "nothing was deleted; set the clock right, or, if it is, verify the store first"
            )

    def _require_same_clock(self, ticks: float, then: float) -> None:
        now = time.time()
        drift = (now - then) - (_ticks() - ticks)
        if abs(drift) > DRIFT_S:
            raise ClockJumped(
                f"the clock of this machine was set by {drift:+.0f} s since {clock(then)}, and now says {clock(now)}; "
                "nothing was deleted; open the store again when it is right"
            )

    # -- doing it --------------------------------------------------------------------------------------------

    def _delete(
        self, one: Going, stamps: Stamps, policy: Policy, deleted: list[Tombstone], left: dict[str, str]
    ) -> None:
        from gently_bluesky.upkeep.deletion import Deletion, delete

        deletion = Deletion("; ".join(one.why), policy.keep_days * DAY_S, one.although, policy.name)
        try:
            deleted += delete(self._root, self._index, stamps, one.run, self._where, deletion)
        except InputError as error:
            left[one.uid] = str(error)

    def _purge(self, uids: Collection[str], left: dict[str, str]) -> list[Tombstone]:
        """Remove for good what of these has been in the trash for long enough; return the tombstones."""
        from gently_bluesky.upkeep.purging import due, purge

        found = [one for one in due(self._index, time.time()) if one.uid in uids]
        left |= purge(self._root, self._index, found)
        now = [self._index.tombstone(one.uid) for one in found]
        return [one for one in now if one is not None and one.purged is not None]


def _ticks() -> float:
    """Return seconds that nobody sets, and that go on while the machine sleeps where the system has such."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
