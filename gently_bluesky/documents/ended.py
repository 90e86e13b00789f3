"""What a writer remembers of runs that have ended, so that it can tell a repetition from a contradiction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.jsontext import digest_of

__all__ = ["REMEMBERED_RESOURCES", "EndedRuns"]

REMEMBERED_RUNS = 1000
REMEMBERED_RESOURCES = 1000


class EndedRuns:
    """What is remembered of runs that have ended: their stops, and the uids of theirs that documents may name."""

    def __init__(self) -> None:
        self._stops: OrderedDict[str, bytes] = OrderedDict()
        self._run_of: dict[str, str] = {}
        self._resources: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._refused: OrderedDict[str, InvalidDocument] = OrderedDict()

    def add(
        self,
        run_uid: str,
        stop: Mapping[str, Any] | None,
        references: Sequence[str],
        resources: Mapping[str, dict[str, Any]],
    ) -> None:
        """Remember a run; the oldest ones are forgotten."""
        self._stops[run_uid] = digest_of(stop)
        self._run_of.update(dict.fromkeys([run_uid, *references], run_uid))
        while len(self._stops) > REMEMBERED_RUNS:
            oldest, _ = self._stops.popitem(last=False)
            self._run_of = {uid: run for uid, run in self._run_of.items() if run != oldest}
        self._resources.update(resources)
        while len(self._resources) > REMEMBERED_RESOURCES:
            self._resources.popitem(last=False)

    def refuse(self, run_uid: str, error: InvalidDocument) -> None:
        """Remember why a run was never begun."""
        self._refused[run_uid] = error
        while len(self._refused) > REMEMBERED_RUNS:
            self._refused.popitem(last=False)

    def refuse_with(self, run_uid: object, uid: object) -> None:
        """Remember the same of what belongs to a run that was never begun, and is named by others."""
        if isinstance(run_uid, str) and isinstance(uid, str) and run_uid in self._refused:
            self.refuse(uid, self._refused[run_uid])

    def raise_if_refused(self, run_uid: object) -> None:
        """Raise why a run was never begun, the same object as then."""
        if isinstance(run_uid, str) and run_uid in self._refused:
            raise self._refused[run_uid]

    def run_of(self, uid: object) -> str | None:
        """Return the run that ``uid`` belonged to."""
        return self._run_of.get(uid) if isinstance(uid, str) else None

    def resource(self, uid: object) -> dict[str, Any] | None:
        """Return a resource document that came from another writer for one of them."""
        return self._resources.get(uid) if isinstance(uid, str) else None

    def stop_of(self, run_uid: str) -> bytes | None:
        """Return the digest of a run's stop document."""
        return self._stops.get(run_uid)
