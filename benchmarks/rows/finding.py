"""The index: a record among a million, a long lineage, records coming in, and all of it built again."""

from __future__ import annotations

import json
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.journals import derived_chain, write_pattern
from benchmarks.worker import Place, Sampler

__all__ = ["rebuild_row", "row"]

EVENTS = 100
DEPTH = 1000
LOOKUPS = 1000
LINEAGES = 9
ADDED_RUNS = 100
OURS, SQLITE = "gently-bluesky", "SQLite alone"


# -- a large index -------------------------------------------------------------------------------------------


def row(*, quick: bool) -> Row:
    """Return the row of a large index."""
    records = 20_000 if quick else 1_000_000
    return Row(
        name="index",
        title=f"An index of {records:,} records",
        text=(
            f"Runs of {EVENTS} events with a frame each, copied from the journal of one that was really stored, and a "
            f"chain of {DEPTH:,} derived results. A new process opens the index, asks for {LOOKUPS:,} records by "
            "uid, runs, assets and datums at random, then for the lineage of the end of the chain, several times, "
            f"and adds {ADDED_RUNS} more runs, each in a transaction of its own."
        ),
        metrics=(
            Metric("record_ms", "record, ms", 3, "less"),
            Metric("record_p99_ms", "record, p99 ms", 3, "less"),
            Metric("lineage_ms", "lineage, ms", 1, "less"),
            Metric("records_per_s", "records/s in", 0),
        ),
        contenders=(
            Contender(OURS, "finding.ours"),
            Contender(
                SQLITE,
                "finding.sqlite_alone",
                "floor",
                note="one table of uid and document, Python's own sqlite3",
            ),
        ),
        goals=(
            Goal(f"a record by uid among {records:,}", "≤ 0.2 ms", "record_ms", OURS, at_most=0.2, unit="ms"),
            Goal(f"lineage of depth {DEPTH:,}", "≤ 10 ms", "lineage_ms", OURS, at_most=10.0, unit="ms"),
            Goal(
                "records into the index",
                "≥ 10,000 records/s",
                "records_per_s",
                OURS,
                at_least=10_000.0,
                unit="records/s",
            ),
        ),
        rounds=3 if quick else 5,
        fresh=True,
        prepare=Contender(
            f"indexing {records:,} records", "finding.large_index", options={"records": records}
        ),
    )


@contextmanager
def large_index(place: Place, records: int) -> Iterator[Sampler]:
    """Build the index, and SQLite's bare table of the same uids; say where they are and whom to ask for."""
    from gently_bluesky.index.index import Index

    pattern = write_pattern(place, EVENTS)
    chance = random.Random(1)  # which records are asked for

    def sample(folder: Path) -> dict[str, Any]:
        asked: list[str] = []
        with (
            closing(Index(f"sqlite:///{folder / 'index.sqlite'}")) as index,
            closing(_table(folder)) as table,
        ):
            for number in range(records // pattern.records):
                uid, journal, text = pattern.copy()
                lines = _lines(text)
                index.add(journal, lines, len(text), begin=0)
                uids = [uid, *(line.doc["datum_id"] for line in lines if line.name == "datum")]
                uids.append(uids[1].partition("/")[0])
                with table:
                    table.executemany("INSERT INTO known VALUES (?, ?)", ((uid, text[:400]) for uid in uids))
                if number < LOOKUPS or chance.random() < 0.1:
                    asked += chance.sample(uids, 3) + uids[:1]
            for uid, journal, raw in derived_chain(DEPTH):
                index.add(journal, _lines("\n".join(map(json.dumps, raw))), 1, begin=0)
                last = uid
        return {"folder": str(folder), "asked": chance.sample(asked, LOOKUPS), "last": last}

    yield sample


def _lines(text: str) -> list[Any]:
    from gently_bluesky.model import JournalLine

    return [JournalLine(**json.loads(line)) for line in text.splitlines()]


def _table(folder: Path) -> sqlite3.Connection:
    table = sqlite3.connect(folder / "alone.sqlite")
    table.execute("PRAGMA journal_mode = WAL")
    table.execute("PRAGMA synchronous = NORMAL")
    table.execute("CREATE TABLE IF NOT EXISTS known (uid TEXT PRIMARY KEY, document TEXT) WITHOUT ROWID")
    return table


def _times_ms(ask: Callable[[str], object], asked: list[str]) -> dict[str, float]:
    taken: list[float] = []
    for uid in asked:
        begun_s = time.perf_counter()
        found = ask(uid)
        taken.append(1e3 * (time.perf_counter() - begun_s))
        assert found
    return {"record_ms": median(taken), "record_p99_ms": quantiles(taken, n=100, method="inclusive")[-1]}


@contextmanager
def ours(place: Place, folder: str, asked: list[str], last: str) -> Iterator[Sampler]:
    """Ask our index."""
    from gently_bluesky.index.index import Index
    from gently_bluesky.index.lineage import ancestors

    pattern = write_pattern(place, EVENTS)
    added = [
        (journal, _lines(text), len(text)) for _, journal, text in (pattern.copy() for _ in range(ADDED_RUNS))
    ]

    def sample(_: Path) -> dict[str, Any]:
        with closing(Index(f"sqlite:///{folder}/index.sqlite")) as index:
            figures = _times_ms(index.record, asked)
            lineage = _times_ms(lambda uid: ancestors(index, uid).depth == DEPTH, [last] * LINEAGES)
            begun_s = time.perf_counter()
            for journal, lines, end in added:
                index.add(journal, lines, end, begin=0)
            added_s = time.perf_counter() - begun_s
        rate = ADDED_RUNS * pattern.records / added_s
        return {**figures, "lineage_ms": lineage["record_ms"], "records_per_s": rate}

    yield sample


@contextmanager
def sqlite_alone(place: Place, folder: str, asked: list[str], last: str) -> Iterator[Sampler]:
    """Ask a bare table."""

    added = [[(str(uuid.uuid4()), "x" * 400) for _ in range(2 + EVENTS)] for _ in range(ADDED_RUNS)]

    def sample(_: Path) -> dict[str, Any]:
        with closing(_table(Path(folder))) as table:
            question = "SELECT uid, document FROM known WHERE uid = ?"
            figures = _times_ms(lambda uid: table.execute(question, (uid,)).fetchone(), asked)
            begun_s = time.perf_counter()
            for made in added:
                with table:
                    table.executemany("INSERT INTO known VALUES (?, ?)", made)
            rate = ADDED_RUNS * (2 + EVENTS) / (time.perf_counter() - begun_s)
        return {**figures, "records_per_s": rate}

    yield sample


# -- built again ---------------------------------------------------------------------------------------------


def rebuild_row(*, quick: bool) -> Row:
    """Return the row of an index that is built from the files."""
    runs = 100 if quick else 2000
    return Row(
        name="rebuild",
        title=f"Index rebuilt from the files of {runs:,} runs",
        text=(
            f"Runs of {EVENTS} events with a frame each; `index.sqlite` is deleted, and the time is that of opening "
            "the store. The floor reads the same journals and parses their lines."
        ),
        metrics=(Metric("runs_per_s", "runs/s", 0), Metric("opening_s", "s", 2, "less")),
        contenders=(
            Contender(OURS, "finding.rebuilt"),
            Contender(
                "journals read and parsed", "finding.parsed", "floor", note="orjson.loads of each line"
            ),
        ),
        goals=(
            Goal(
                f"index rebuilt from files, runs of {EVENTS} events",
                "≥ 200 runs/s",
                "runs_per_s",
                OURS,
                at_least=200.0,
                unit="runs/s",
            ),
        ),
        rounds=3 if quick else 5,
        fresh=True,
        prepare=Contender(f"writing {runs:,} runs", "finding.many_runs", options={"runs": runs}),
    )


@contextmanager
def many_runs(place: Place, runs: int) -> Iterator[Sampler]:
    """Write the journals of many runs into a store."""
    from gently_bluesky import Store

    pattern = write_pattern(place, EVENTS)

    def sample(folder: Path) -> dict[str, Any]:
        root = folder / "store"
        Store(root).close()
        for _ in range(runs):
            _, journal, text = pattern.copy()
            (root / journal).parent.mkdir(parents=True)
            (root / journal).write_text(text, "utf-8")
        return {"root": str(root), "runs": runs}

    yield sample


@contextmanager
def rebuilt(place: Place, root: str, runs: int) -> Iterator[Sampler]:
    """Open the store without its index."""
    from gently_bluesky import Store

    def sample(_: Path) -> dict[str, Any]:
        for file in Path(root).glob("index.sqlite*"):
            file.unlink()
        begun_s = time.perf_counter()
        with Store(root) as store:
            opening_s = time.perf_counter() - begun_s
            assert sum(1 for _ in store.query()) == runs
        return {"runs_per_s": runs / opening_s, "opening_s": opening_s}

    yield sample


@contextmanager
def parsed(place: Place, root: str, runs: int) -> Iterator[Sampler]:
    """Read what an index is made from, and make none."""
    import orjson

    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        for journal in Path(root).rglob("documents.jsonl"):
            for line in journal.read_bytes().splitlines():
                orjson.loads(line)
        opening_s = time.perf_counter() - begun_s
        return {"runs_per_s": runs / opening_s, "opening_s": opening_s}

    yield sample
