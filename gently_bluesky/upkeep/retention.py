"""Policies: what of a store may go by itself, and what stays; as frozen values, and as a small TOML file in the store.

They hold and check. What would go by one is said in ``retention_plan.py``, and what protects a run whatever a policy
says in ``protection.py``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.files import read_plain, storage_error
from gently_bluesky.upkeep.policy_values import (
    SO,
    age,
    count,
    days,
    flag,
    in_words,
    plain,
    query,
    said,
    size,
    texts,
    words,
)

__all__ = ["POLICY_FILE", "Keep", "Policy", "Rule"]

POLICY_FILE: Final = "retention.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy: which runs it speaks of, and which of their pixels may go.

    A run may go by a rule that asks for it, because it is over one of the limits of this rule, unless another rule that
    speaks of it keeps it: by its ``keep_last``, or because it is not over its ``max_age``, or is what its ``thin``
    leaves. So the most protective rule wins. Limits of size ask for no more than they need, the oldest first, and pass
    over what is protected.

    Attributes
    ----------
    session, data_type
        It speaks of runs of this session, of this data type; of one of several. None is all.
    derived
        It speaks of derived results alone (True) or of acquired runs alone (False).
    max_age
        What is older may go, by the time of its start document: ``"30 days"``, ``"12 h"`` or a timedelta.
    max_size
        What is over it may go, by the size of files on disk: ``"500 GB"`` or a number of bytes; of all that the rule
        speaks of, or of each group by ``per``. What lies in the trash is not counted.
    min_free
        When less of the disk is free, something may go. What lies in the trash counts as free.
    keep_last
        So many of the newest stay: acquired runs, and derived results of each data type, of each session or of each
        group by ``per``. In a rule with no limit all others may go.
    thin
        Of acquired runs in order of time, a time point each, every n-th stays, beginning with the first, and the others
        may go if something derived from them is there, and stays. Time points are counted in each session, and there in
        each group by ``per``. Time points within one run cannot be thinned. What stays of the others are derived
        results, so that ``derived_suffice`` has to be set.
    per
        Keys of start documents by whose values ``keep_last``, ``max_size`` and ``thin`` are counted:
        ``("session", "embryo")``.
    derived_suffice
        What derived results were made from may go, although they are there.

    Raises
    ------
    InvalidSetting
        It is contradictory or absurd.
    """

    session: str | Sequence[str] | None = None
    data_type: str | Sequence[str] | None = None
    derived: bool | None = None
    max_age: timedelta | str | None = None
    max_size: int | str | None = None
    min_free: int | str | None = None
    keep_last: int | None = None
    thin: int | None = None
    per: str | Sequence[str] | None = None
    derived_suffice: bool = False

    def __post_init__(self) -> None:
        _normalise(self, _RULE)
        if all(getattr(self, name) is None for name in LIMITS):
            raise InvalidSetting(
                f"expected a rule with at least one of {', '.join(LIMITS)}, got {self}; {SO}; a rule that only keeps "
                "is a keep"
            )
        if self.thin is not None and not self.derived_suffice:
            raise InvalidSetting(
                f"thin={self.thin} leaves derived results of the time points between, and derived_suffice is not "
                f"set; {SO}; set derived_suffice, or leave thin away"
            )
        if self.thin is not None and self.derived:
            raise InvalidSetting(
                f"thin={self.thin} thins acquired runs, and the rule is for derived results; {SO}; leave one away"
            )
        if self.per is not None and self.keep_last is self.max_size is self.thin is None:
            raise InvalidSetting(
                f"per={self.per!r} says how keep_last, max_size and thin are counted, and there is none of them; {SO}; "
                "give one, or leave per away"
            )

    @property
    def max_age_s(self) -> float:
        """Seconds; infinite where there is no such limit."""
        return self.max_age.total_seconds() if isinstance(self.max_age, timedelta) else math.inf

    @property
    def max_nbytes(self) -> int | None:
        """Bytes of ``max_size``."""
        return self.max_size if isinstance(self.max_size, int) else None

    @property
    def min_free_nbytes(self) -> int | None:
        """Bytes of ``min_free``."""
        return self.min_free if isinstance(self.min_free, int) else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as the file has it, without what is not set."""
        return _as_told(self)

    def __str__(self) -> str:
        return in_words(self.to_dict())


LIMITS: Final = ("max_age", "max_size", "min_free", "keep_last", "thin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What stays, whatever rules say: runs that answer all of its conditions.

    Attributes
    ----------
    session
        Runs of this session, or of one of several.
    query
        Runs that answer this query: conditions of `Store.query`.
    children
        Runs from which something of this data type was made that is still there.

    Raises
    ------
    InvalidSetting
        There is no condition, or it is none.
    """

    session: str | Sequence[str] | None = None
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    children: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        _normalise(self, _KEEP)
        if not self.to_dict():
            raise InvalidSetting(f"expected a keep with session, query or children, got none of them; {SO}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as the file has it, without what is not set."""
        return _as_told(self)

    def __str__(self) -> str:
        return in_words(self.to_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What of a store may go, and what stays.

    Attributes
    ----------
    rules
        At least one.
    keep
        What stays, whatever they say.
    keep_days
        What goes stays so long in the trash, from where `Store.restore` brings it back; 0 regains its room at once.
    name
        Stays on record with what goes.

    Raises
    ------
    InvalidSetting
        There is no rule, one speaks only of what a keep keeps, or something is out of range.
    """

    rules: Sequence[Rule]
    keep: Sequence[Keep] = ()
    keep_days: float = 7.0
    name: str = "retention"

    def __post_init__(self) -> None:
        for name, kind in (("rules", Rule), ("keep", Keep)):
            given = getattr(self, name)
            if not isinstance(given, list | tuple) or not all(isinstance(one, kind) for one in given):
                raise InvalidSetting(
                    f"expected {name} to be several {kind.__name__}, got {given!r:.200}; {SO}"
                )
            object.__setattr__(self, name, tuple(given))
        if not self.rules:
            raise InvalidSetting(f"expected a policy with at least one rule, got none; {SO}")
        _normalise(self, {"keep_days": days, "name": words})
        kept = {
            session
            for keep in self.keep
            if keep.session and not keep.query and not keep.children
            for session in keep.session
        }
        for rule in self.rules:
            if rule.session and kept.issuperset(rule.session):
                raise InvalidSetting(
                    f"rule ({rule}) is for what keep (session {said(rule.session)}) keeps whatever rules say; {SO}; "
                    "leave one away"
                )

    def together_with(self, other: Policy) -> Policy:
        """Return both as one: what either keeps stays, and in the trash for the longer of the two times.

        Raises InvalidSetting where one speaks only of what the other keeps.
        """
        return replace(
            self,
            rules=(*self.rules, *other.rules),
            keep=(*self.keep, *other.keep),
            keep_days=max(self.keep_days, other.keep_days),
            name=f"{self.name} and {other.name}",
        )

    @classmethod
    def from_toml(cls, path: Path) -> Policy:
        """Read one from a file, with tables ``[[rule]]`` and ``[[keep]]``.

        Raises
        ------
        InvalidSetting
            It is not TOML, has a key that is none, or says what is contradictory or absurd.
        StorageError
            It cannot be read.
        """
        try:
            told = tomllib.loads(read_plain(path).decode("utf-8-sig"))
            _require_known(told, {"rule", "keep", "keep_days", "name"}, "the policy")
            tables = {name: _tables(told.pop(name, []), name) for name in ("rule", "keep")}
            return cls(
                rules=[_made(Rule, one, "rule") for one in tables["rule"]],
                keep=[_made(Keep, one, "keep") for one in tables["keep"]],
                **told,
            )
        except OSError as error:
            raise storage_error(error, f"{path} cannot be read; {SO}") from error
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:  # a TOML error is a ValueError, as half a character is
            raise InvalidSetting(f"{path} is not TOML: {error}; {SO}; mend it, or move it away") from error

    def to_dict(self) -> dict[str, Any]:
        """Return it as the file has it."""
        return {
            "name": self.name,
            "keep_days": self.keep_days,
            "rule": [rule.to_dict() for rule in self.rules],
            "keep": [keep.to_dict() for keep in self.keep],
        }


# -- reading and checking ----------------------------------------------------------------------------------


def _tables(given: object, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise InvalidSetting(f"expected tables [[{name}]], got {name} = {given!r:.200}; {SO}")
    return given


def _made(kind: Callable[..., Any], told: Mapping[str, Any], name: str) -> Any:
    _require_known(told, {one.name for one in fields(kind)}, f"a {name}")  # pyright: ignore[reportArgumentType] # a dataclass
    return kind(**told)


def _require_known(told: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(told.keys() - known)
    if unknown:
        raise InvalidSetting(
            f"expected {what} to have some of the keys {', '.join(sorted(known))}, got {', '.join(unknown)}; {SO}"
        )


def _normalise(one: object, checks: Mapping[str, Callable[[str, object], object]]) -> None:
    for name, check in checks.items():
        if getattr(one, name) is not None:
            object.__setattr__(one, name, check(name, getattr(one, name)))


def _as_told(one: Any) -> dict[str, Any]:
    told = {each.name: getattr(one, each.name) for each in fields(one)}
    is_set = {
        name: value not in (None, {}) and (name, value) != ("derived_suffice", False)
        for name, value in told.items()
    }
    return {name: plain(value) for name, value in told.items() if is_set[name]}


_RULE: Final[Mapping[str, Callable[[str, object], object]]] = {
    "session": texts,
    "data_type": texts,
    "derived": flag,
    "max_age": age,
    "max_size": size,
    "min_free": size,
    "keep_last": count,
    "thin": count,
    "per": texts,
    "derived_suffice": flag,
}
_KEEP: Final[Mapping[str, Callable[[str, object], object]]] = {
    "session": texts,
    "query": query,
    "children": texts,
}
