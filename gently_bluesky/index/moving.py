"""An index that goes on in a private copy when the place where it is kept takes no more rows, or cannot be read.

An index is derived from the journals: what is in the copy alone is in the journals too, and the index in its place
follows them when the store is next opened. The copy has no name on disk and goes with its process.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import URL, Engine, Executable

from gently_bluesky.errors import StorageError, StorageStalled, StoreReadOnly
from gently_bluesky.index.database import Database
from gently_bluesky.index.index import Index
from gently_bluesky.index.schema import AnyRow
from gently_bluesky.index.sqlite import sqlite_engine
from gently_bluesky.model import JournalLine

__all__ = ["PRIVATE_INDEX", "MovingIndex"]

PRIVATE_INDEX = ".index-*.sqlite"
"""Names of copies, for as long as they have one: of dead processes, where an open file keeps its name."""

PLACE_FAILED = (StorageError, StoreReadOnly)


class MovingIndex(Index):
    """An index with a second place for a copy of it.

    Parameters
    ----------
    url
        As of `Index`.
    spare
        Folder for the copy; it need not be there before it is needed.

    Attributes
    ----------
    spare
        Folder for the copy.
    moved_by
        Why it is in a copy now; None while it is where it should be.
    """

    def __init__(self, url: URL, spare: Path) -> None:
        self.moved_by: Exception | None = None
        self._news: Exception | None = None
        self.spare = spare
        self._from = url
        self._moving = threading.RLock()
        super().__init__(url)

    def add(
        self,
        journal: str,
        lines: Sequence[JournalLine],
        end: int,
        *,
        begin: int | None = None,
        anew: bool = False,
        patience_s: float | None = None,
    ) -> None:
        """Index lines; in a copy if need be. Raises as `Index.add`."""
        try:
            super().add(journal, lines, end, begin=begin, anew=anew, patience_s=patience_s)
        except PLACE_FAILED as error:
            self._move(error)
            super().add(journal, lines, end, begin=begin, anew=anew, patience_s=patience_s)

    def forget(self, journal: str) -> None:
        """Forget a journal; in a copy if need be. Raises as `Index.forget`."""
        try:
            super().forget(journal)
        except PLACE_FAILED as error:
            self._move(error)
            super().forget(journal)

    def rows(self, statement: Executable, **parameters: object) -> Sequence[AnyRow]:
        """Return the rows that a statement reads; from a copy if need be."""
        try:
            return super().rows(statement, **parameters)
        except PLACE_FAILED as error:
            self._move(error)
            return super().rows(statement, **parameters)

    def news(self) -> Exception | None:
        """Return why it has moved, the first time that this is asked."""
        news, self._news = self._news, None
        return news

    def _move(self, error: Exception) -> None:
        """Go on in a copy of what can still be read; raise ``error`` if that was done before, or cannot be."""
        with self._moving, self._states_lock:
            is_possible = self._from.get_backend_name() == "sqlite" and bool(self._from.database)
            if self.moved_by is not None or not is_possible or isinstance(error, StorageStalled):
                raise error
            try:
                database = _PrivateDatabase(Path(self._from.database or ""), self.spare)
            except (OSError, sqlite3.Error) as second:
                error.add_note(f"A copy in {self.spare} could not be made either: {second}")
                raise error from second
            self._database.close()
            self._database = database
            self._states.clear()
            self.moved_by = self._news = error


class _PrivateDatabase(Database):
    """A copy of a database, in a file without a name; without rows where nothing could be copied."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._connection = _copy(source, folder / PRIVATE_INDEX.replace("*", uuid.uuid4().hex))
        super().__init__(URL.create("sqlite"), read_only=False)

    def _open(self, *, is_sqlite: bool) -> Engine:  # noqa: ARG002 # it is
        # said to be read only, so that no log is made beside a file that has no name
        return sqlite_engine(URL.create("sqlite"), read_only=True, connection=self._connection)


def _copy(source: Path, path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(path, check_same_thread=False)
    try:
        with suppress(sqlite3.Error):  # what cannot be read is added again from the journals
            quoted = source.absolute().as_uri()
            with closing(sqlite3.connect(f"{quoted}?mode=ro", uri=True)) as known:
                known.backup(made)
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF"):
            made.execute(f"PRAGMA {pragma}")
        if sys.platform != "win32":
            path.unlink(missing_ok=True)  # its file goes with the connection; others may have swept its name
    except BaseException:
        made.close()
        path.unlink(missing_ok=True)
        raise
    return made
