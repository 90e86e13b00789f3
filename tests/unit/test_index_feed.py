"""What a writer tells the index, while others hold it, and when it is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from gently_bluesky import Store
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.index_feed import IndexFeed
from gently_bluesky.index.index import Index
from gently_bluesky.model import JournalLine

FRAME = np.arange(12, dtype="u2").reshape(3, 4)


class Counting(Journals):
    """Journals that count how often one is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.scans = 0

    def scan(self, *args: Any, **options: Any) -> Iterator[tuple[JournalLine, int]]:
        self.scans += 1
        return super().scan(*args, **options)


def test_no_journal_is_read_for_an_index_that_somebody_holds(root: Path, acquire: Callable[..., str]) -> None:
    with Store(root) as store:
        path = store.record(acquire(store, [{"view": FRAME}] * 3)).path
    journals = Counting(root)
    parts = list(journals.scan(path))
    lines, ends = [line for line, _ in parts], [end for _, end in parts]
    index = Index(f"sqlite:///{root.parent}/x.sqlite")
    feed = IndexFeed(journals, index, stall_timeout_s=0.1)
    with closing(sqlite3.connect(root.parent / "x.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = journals.scans
        for number in range(1, len(lines)):
            feed.add(path, lines[number : number + 1], ends[number], ends[number - 1])
        assert "another process has held the index" in str(feed.why_behind(path))
        assert journals.scans == before
        other.execute("COMMIT")
    feed.add(path, lines[-1:], ends[-1], ends[-2], last=True)
    assert feed.why_behind(path) is None
    assert index.reach(path) == ends[-1]
    index.close()


@pytest.mark.parametrize("overflow", [False, True])
def test_an_index_that_is_damaged_in_the_middle_of_a_run_costs_no_frame(
    root: Path, tmp_path: Path, overflow: bool
) -> None:
    run = compose_run()
    bundle = run.compose_descriptor(
        name="primary", data_keys={"view": {"source": "x", "dtype": "array", "shape": [3, 4]}}
    )
    store = Store(root, overflow=tmp_path / "second" if overflow else None)
    writer = store.writer()
    writer("start", run.start_doc)
    writer("descriptor", bundle.descriptor_doc)
    for number in range(4):
        if number == 2:
            with closing(sqlite3.connect(root / "index.sqlite")) as other:
                other.execute("DROP TABLE points")
        event = bundle.compose_event(data={"view": FRAME + number}, timestamps={"view": 0.0})
        writer("event", event)
    with pytest.warns(RuntimeWarning, match="stored and on record, but the index does not know all of it"):
        writer("stop", run.compose_stop())
    writer.close()
    store.close()
    with Store(root) as store:
        assert store[-1].status == "complete"
        np.testing.assert_array_equal(store[-1]["view"], [FRAME + number for number in range(4)])
