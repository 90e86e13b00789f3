"""What would go by a policy, and why; what stays, and why. Arithmetic over what a store holds; no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gently_bluesky.jsontext import encode
from gently_bluesky.labels import bytes_text
from gently_bluesky.model import Tombstone
from gently_bluesky.upkeep.holdings import Holding, Holdings, value_of
from gently_bluesky.upkeep.planned import MOST_NAMED, Going, Plan, Staying
from gently_bluesky.upkeep.policy_values import among, said
from gently_bluesky.upkeep.retention import Policy, Rule
from gently_bluesky.wording import many, short_uid

__all__ = ["Place", "plan_of"]

CHILDREN: Final = "children"
"""What protects a run unless a rule says that derived data suffice."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a plan is made for: a store as it is now.

    Attributes
    ----------
    store_uid
        Which.
    now, ticks
        When, in seconds since the epoch, and by a clock that nobody sets.
    holdings
        What it holds.
    kept
        Runs that stay by a keep of the policy, and which.
    trash, purgeable
        What lies in the trash, and what of it may be purged once it has been there for long enough.
    free_bytes
        Of its disk.
    """

    store_uid: str
    now: float
    ticks: float
    holdings: Holdings
    kept: Mapping[str, str] = field(default_factory=dict[str, str])
    trash: Sequence[Tombstone] = ()
    purgeable: Sequence[Tombstone] = ()
    free_bytes: int = 0


def plan_of(policy: Policy, place: Place) -> Plan:
    """Return what would go by a policy, and what stays."""
    planning = _Planning(policy, place)
    planning.take_what_is_asked_for()
    planning.give_back_what_leaves_nothing()
    while True:
        planning.take_for_sizes()
        if not planning.give_back_what_leaves_nothing():  # of what sizes took the results
            return planning.plan()


class _Planning:
    """One plan on its way: what goes by now, and why."""

    def __init__(self, policy: Policy, place: Place) -> None:
        self.policy = policy
        self.place = place
        held = place.holdings
        self.views = [_View(rule, held.runs, held.gone, place.now) for rule in policy.rules]
        self._goes: dict[str, list[str]] = {}
        self._nbytes = 0
        self._remarks: list[str] = []

    def take_what_is_asked_for(self) -> None:
        """Take what is over a limit of age, number or time points."""
        for view in self.views:
            for one in view.runs:
                if one.uid in view.asked and self._may_go(one, view):
                    self._take(one, view.asked[one.uid])

    def take_for_sizes(self) -> None:
        """Take the oldest, as long as what stays is over a limit of size."""
        self._remarks.clear()
        for view in self.views:
            self._take_for_sizes(view)

    def _take_for_sizes(self, view: _View) -> None:
        for limit, most, group in view.sizes():
            held = sum(one.nbytes for one in group if one.uid not in self._goes)
            self._take_oldest(view, group, limit, held - most)
        if (least := view.rule.min_free_nbytes) is not None:
            free = self.place.free_bytes + sum(one.nbytes for one in self.place.purgeable) + self._nbytes
            self._take_oldest(view, view.runs, f"min_free {bytes_text(least)}", least - free)

    def give_back_what_leaves_nothing(self) -> bool:
        """Leave time points between of which no result stays, and say whether some were to go."""
        went = len(self._goes)
        for one in self.place.holdings.runs:
            thinning = [view for view in self.views if one.uid in view.thinned]
            is_only_thinned = {*self._goes.get(one.uid, ())} <= {view.asked[one.uid] for view in thinning}
            stay = [child for child in one.children if child.suffices and child.uid not in self._goes]
            if thinning and is_only_thinned and not stay:
                if self._goes.pop(one.uid, None) is not None:
                    self._nbytes -= one.nbytes
                for view in thinning:
                    view.leave(one)
        return len(self._goes) < went

    def _take_oldest(self, view: _View, runs: Sequence[Holding], limit: str, over: int) -> None:
        for one in runs:
            if over > 0 and one.nbytes and one.uid not in self._goes and self._may_go(one, view):
                self._take(one, limit)
                over -= one.nbytes
        if over > 0:
            self._remarks.append(
                f"{limit} wants {bytes_text(over)} more to go, and all that is left has to stay"
            )

    def _take(self, one: Holding, why: str) -> None:
        if one.uid not in self._goes:
            self._nbytes += one.nbytes
        self._goes.setdefault(one.uid, []).append(why)

    def _may_go(self, one: Holding, view: _View) -> bool:
        """Say whether a run may go by a rule that asks for it."""
        waived = {CHILDREN} if view.rule.derived_suffice else set[str]()
        others = (other.why_kept(one) for other in self.views if other is not view)
        return (
            not one.protected.keys() - waived
            and one.uid not in self.place.kept
            and one.uid not in view.last
            and not any(others)
        )

    def _remark_on_what_is_left_of_others(self) -> None:
        """Say how many results would go that are all that is left of what they were made from."""
        kept = {
            child.uid
            for one in self.place.holdings.runs
            if one.uid not in self._goes
            for child in one.children
        }
        last = [
            one for one in self.place.holdings.runs if one.is_derived and one.uid in self._goes.keys() - kept
        ]
        if last:
            self._remarks.append(
                f"{many(len(last), 'result')} would go of which nothing else stays that they were made from: "
                f"{', '.join(short_uid(one.uid) for one in last[:MOST_NAMED])}; derived = false keeps results"
            )

    def _remark_on_what_is_nowhere(self) -> None:
        """Say which keeps hold nothing, and which rules speak of nothing: a word may be misspelt."""
        for keep in self.policy.keep:
            if not any(str(keep) in why for why in self.place.kept.values()):
                self._remarks.append(f"keep ({keep}) holds no run that has pixels")
        self._remarks += [
            f"rule ({view.rule}) speaks of no run that has pixels" for view in self.views if not view.runs
        ]

    def plan(self) -> Plan:
        """Return it."""
        self._remark_on_what_is_left_of_others()
        self._remark_on_what_is_nowhere()
        going: list[Going] = []
        staying: list[Staying] = []
        for one in self.place.holdings.runs:
            if one.uid in self._goes:
                although = (CHILDREN,) if CHILDREN in one.protected else ()
                going.append(Going(one.run, one.nbytes, tuple(self._goes[one.uid]), although, one.assets))
            else:
                asked = tuple(view.asked[one.uid] for view in self.views if one.uid in view.asked)
                staying.append(Staying(one.run, one.nbytes, self._reasons(one), asked))
        return Plan(
            policy=self.policy,
            made=self.place.now,
            ticks=self.place.ticks,
            goes=tuple(going),
            stays=tuple(staying),
            purges=tuple(one for one in self.place.purgeable if one.keep_until <= self.place.now),
            in_trash_nbytes=sum(one.nbytes for one in self.place.trash),
            free_bytes=self.place.free_bytes,
            remarks=tuple(self._remarks),
            fingerprint=_fingerprint(self.policy, self.place),
        )

    def _reasons(self, one: Holding) -> Mapping[str, str]:
        """Return why a run stays: what protects it, what keeps it, or that nothing asks for it."""
        found = dict(one.protected)
        rules = [view.rule for view in self.views if view.speaks_of(one)]
        if rules and all(rule.derived_suffice for rule in rules):
            found.pop(CHILDREN, None)
        if one.uid in self.place.kept:
            found["keep"] = self.place.kept[one.uid]
        by_rule = next(filter(None, (view.why_kept(one) for view in self.views)), None)
        if by_rule is not None:
            found["rule"] = by_rule
        return found or {"within": "it is within all limits"}


def _fingerprint(policy: Policy, place: Place) -> str:
    facts = [one.facts for one in place.holdings.runs]
    trash = sorted(one.uid for one in place.trash)
    made_from = [place.store_uid, policy.to_dict(), facts, sorted(place.kept), trash]
    return hashlib.blake2b(encode(made_from), digest_size=16).hexdigest()


# -- what one rule says ------------------------------------------------------------------------------------


class _View:
    """What a rule says of each run that it speaks of, but for its limits of size."""

    def __init__(self, rule: Rule, every: Sequence[Holding], gone: Sequence[Holding], now: float) -> None:
        self.rule = rule
        self._gone = [one for one in gone if _speaks_of(rule, one)]
        self.runs = [one for one in every if _speaks_of(rule, one)]
        self.last = self._last()
        self._bare: set[str] = set()
        self.asked: dict[str, str] = {}
        """Runs that are over its limits, and how."""
        self.thinned: set[str] = set()
        """Time points between, asked for as such."""
        between = self._between()
        only_last = rule.keep_last is not None and not any(
            limit is not None for limit in (rule.max_age, rule.max_size, rule.min_free, rule.thin)
        )
        for one in self.runs:
            if one.uid in self.last:
                continue
            if now - one.run.time > rule.max_age_s:
                self.asked[one.uid] = f"older than {said(rule.to_dict()['max_age'])}"
            elif one.uid in between:
                self.thinned.add(one.uid)
                self.asked[one.uid] = f"not one of every {rule.thin} time points"
            elif only_last:
                self.asked[one.uid] = f"not among the last {rule.keep_last}"
        self._spoken_of = {one.uid for one in self.runs}

    def _last(self) -> set[str]:
        """Return the newest runs, so many as stay: of those acquired, and of results of each data type."""
        count = self.rule.keep_last
        if count is None:
            return set()
        kinds: dict[str | None, list[Holding]] = {}
        for one in self.runs:
            kinds.setdefault(f"derived {one.run.data_type}" if one.is_derived else None, []).append(one)
        return {
            one.uid
            for runs in kinds.values()
            for group in _groups(self.rule.per or ("session",), runs).values()
            for one in group[-count:]
        }

    def _between(self) -> set[str]:
        if self.rule.thin is None:
            return set()
        acquired = [one for one in (*self.runs, *self._gone) if not one.is_derived]
        acquired.sort(key=lambda one: (one.run.time, one.uid))  # what is gone keeps its place in the count
        keys = dict.fromkeys(["session", *(self.rule.per or ())])
        groups = _groups([*keys], acquired).values()
        return {one.uid for group in groups for n, one in enumerate(group) if n % self.rule.thin}

    def leave(self, one: Holding) -> None:
        """Have a time point stay, of which nothing else would."""
        self._bare.add(one.uid)
        self.thinned.discard(one.uid)
        del self.asked[one.uid]

    def speaks_of(self, one: Holding) -> bool:
        """Say whether a run is one of those that the rule is for."""
        return one.uid in self._spoken_of

    def why_kept(self, one: Holding) -> str | None:
        """Return why a run stays by this rule, whatever others ask for; None where it does not say so."""
        if not self.speaks_of(one):
            return None
        if one.uid in self.last:
            return f"a rule keeps the last {self.rule.keep_last}"
        if one.uid in self._bare and one.uid not in self.asked:
            return "it is a time point between, and there is no result, or none that stays, to keep instead"
        is_promised = self.rule.max_age is not None or self.rule.thin is not None
        return f"a rule keeps it: {self.rule}" if is_promised and one.uid not in self.asked else None

    def sizes(self) -> list[tuple[str, int, list[Holding]]]:
        """Return what ``max_size`` is a limit of: in words, how many bytes, and of which runs."""
        most = self.rule.max_nbytes
        if most is None:
            return []
        return [
            (f"max_size {bytes_text(most)}{_of(values)}", most, group)
            for values, group in _groups(self.rule.per or (), self.runs).items()
        ]


def _speaks_of(rule: Rule, one: Holding) -> bool:
    return (
        among(one.run.session, rule.session)
        and among(one.run.data_type, rule.data_type)
        and rule.derived in (None, one.is_derived)
    )


def _groups(keys: Sequence[str], runs: Sequence[Holding]) -> dict[tuple[str, ...], list[Holding]]:
    found: dict[tuple[str, ...], list[Holding]] = {}
    for one in runs:
        found.setdefault(tuple(value_of(one.run, key) for key in keys), []).append(one)
    return found


def _of(values: Sequence[str]) -> str:
    return f" of {', '.join(value or 'none' for value in values)}" if values else ""
