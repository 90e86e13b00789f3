"""What is typed every day, as magics of IPython: ``%runs``, ``%show``, ``%lineage``, ``%session``."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from gently_bluesky.cli.facts import facts_of
from gently_bluesky.cli.lines import RUN_COLUMNS, run_row
from gently_bluesky.cli.showing import say_facts
from gently_bluesky.cli.tables import say_table
from gently_bluesky.cli.uids import record_of
from gently_bluesky.errors import GentlyError

if TYPE_CHECKING:
    from bluesky import RunEngine
    from IPython.core.interactiveshell import InteractiveShell

    from gently_bluesky.model import Record
    from gently_bluesky.store import Store

__all__ = ["GentlyMagics"]

NEWEST = 10


@magics_class
class GentlyMagics(Magics):
    """Magics about one store, and the RunEngine whose runs it keeps."""

    def __init__(self, shell: InteractiveShell, store: Store, run_engine: RunEngine) -> None:
        super().__init__(shell)
        self._store = store
        self._run_engine = run_engine

    @line_magic
    def runs(self, line: str) -> None:
        """List the newest runs: ``%runs``, or ``%runs 50``."""
        said = line.strip() or str(NEWEST)
        if not said.isdecimal():
            raise UsageError(f"expected how many runs, got {said!r}: %runs 50")
        found = list(islice(self._store.query(derived=False), int(said)))
        if found:
            say_table(RUN_COLUMNS, [run_row(self._store, record) for record in found])
        else:
            print("no runs so far")

    @line_magic
    def show(self, line: str) -> None:
        """Say all there is to say of a run, result, array or event: ``%show -1``, ``%show 1b9d6bcd``."""
        say_facts(facts_of(self._store, self._record(line)))

    @line_magic
    def lineage(self, line: str) -> None:
        """Draw what a result or run was made from: ``%lineage -1``, ``%lineage 1b9d6bcd``."""
        print(self._store.lineage(self._record(line).uid))

    @line_magic
    def session(self, line: str) -> None:
        """Say what the session is called, or name it: ``%session``, ``%session screen 3``."""
        metadata: Any = self._run_engine.md
        if line.strip():
            metadata["session"] = line.strip()
        print(f"session {metadata.get('session')}")

    def _record(self, line: str) -> Record:
        """Return what is meant: the latest run where nothing is said."""
        try:
            return record_of(self._store, line.strip() or "-1")
        except GentlyError as error:
            raise UsageError(str(error)) from None
