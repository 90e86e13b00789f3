"""What the store knows already: a run that comes to be stored must not bring it a second time."""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from gently_bluesky.errors import ConflictingDocument, LookupFailed, RunExists
from gently_bluesky.index.index import Index
from gently_bluesky.model import Record

__all__ = ["KnownUids"]


class KnownUids:
    """Looks for the uids of one run among those of all others.

    Attributes
    ----------
    index_failed
        The index could not be read, which was raised as a StorageError.
    """

    def __init__(self, run_uid: str, index: Index) -> None:
        self.index_failed = False
        self._run_uid = run_uid
        self._index = index

    def refuse_run(self) -> None:
        """Raise RunExists if the store has the run."""
        known = self._record(self._run_uid)
        if known is not None:
            what_to_do = (
                "another writer of this store was sent it too: subscribe one of them"
                if known.status == "running"
                else "replay into another store, or acquire under a new uid"
            )
            raise RunExists(
                f"run {self._run_uid} is in this store already ({known.status}, at {known.path}); nothing of it was "
                f"touched and nothing was stored; {what_to_do}"
            )

    def refuse(self, name: str, doc: Mapping[str, Any]) -> None:
        """Refuse a uid that another run brought: in the journal it would keep this run out of the index."""
        uid = doc["datum_id" if name == "datum" else "uid"]
        if name == "descriptor":
            with self._noting():
                known = self._index.has_descriptor(uid)
        else:
            known = name != "event" and self._record(uid) is not None
        if known:
            raise ConflictingDocument(
                f"run {self._run_uid[:8]}: {name} {uid} is in this store already, from another run, "
                "which was not touched; the second one was not stored; give every document a uid of its own"
            )

    def has_come_again(self, name: str, doc: Mapping[str, Any], stand_ins: Container[str]) -> bool:
        """Say whether a datum, of one of these resources, is one that the run which announced it first has."""
        if name != "datum" or doc["resource"] not in stand_ins:
            return False
        uid = doc["datum_id"]
        if self._record(uid) is None:
            return False
        with self._noting():
            return self._index.datum_document(uid).get("datum_kwargs") == doc["datum_kwargs"]

    def _record(self, uid: str) -> Record | None:
        with self._noting():
            try:
                found = self._index.record(uid)
            except LookupFailed:
                return None
        return found if found.uid == uid else None

    @contextmanager
    def _noting(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError:
            self.index_failed = True
            raise
