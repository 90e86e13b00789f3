"""Opening a run, and looking at it, costs no more for many events than for a few, and is no less right.

Costs are counted, not timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_left import clear
from sqlalchemy import Engine, event

from gently_bluesky import Store
from gently_bluesky.index.index import Extent, Index, Point
from gently_bluesky.model import JournalLine
from gently_bluesky.testing.assets import bytes_read
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

FEW, MANY = 10, 2000
SHAPE = (4, 6)

LOOKS: dict[str, Callable[[Store, str, str], Any]] = {
    "the run by its uid": lambda store, run, asset: store[run],
    "the latest run": lambda store, run, asset: store[-1],
    "the run's array": lambda store, run, asset: store[run]["primary"]["camera"],
    "one event of it": lambda store, run, asset: store[run]["camera"][-1],
    "the run's status": lambda store, run, asset: store[run].status,
    "the run's streams": lambda store, run, asset: store[run].streams,
    "how the run ended": lambda store, run, asset: store[run].stop,
    "what storing it took": lambda store, run, asset: store[run].storing,
    "the run in a line": lambda store, run, asset: repr(store[run]),
    "the asset": lambda store, run, asset: store.array(asset),
    "a datum": lambda store, run, asset: store.array(f"{asset}/7"),
    "the only array of the run": lambda store, run, asset: store.array(run),
    "the array with all there is now": lambda store, run, asset: store[run]["camera"].wait(FEW),
    "what is beyond the array": lambda store, run, asset: refused(store[run]["camera"]),
}


def refused(array: Any) -> None:
    with pytest.raises(IndexError):
        array[MANY]


@pytest.fixture(scope="module", params=["zarr", "tiff", "memory"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Stores with one run each, one of few events and one of many."""
    roots: dict[int, tuple[Path, str]] = {}
    for events in (FEW, MANY):
        root = tmp_path_factory.mktemp("cost") / f"{events:04d}"
        run = HandMadeRun()
        descriptor = run.descriptor(camera={"shape": list(SHAPE)})
        with Store(root) as store, store.writer(format=request.param) as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            for number in range(events):
                frame = encoded_frame(SHAPE, "u2", event=number)
                writer("event", run.event(descriptor, camera=frame))
            writer("stop", run.stop())
        roots[events] = root, run.uid
    yield roots
    for root, _ in roots.values():
        clear(root)


def counted(root: Path, uid: str, mode: Any, look: Callable[[Store, str, str], Any]) -> Counter[str]:
    """Return what looking takes: statements and rows of the index, bytes of files."""
    counts: Counter[str] = Counter()
    with Store(root, mode=mode) as store:
        index, asset = store._index, store[uid]["camera"].uid
        rows = index.rows

        def count_rows(*statement: Any, **parameters: Any) -> Any:
            found = rows(*statement, **parameters)
            counts["rows"] += len(found)
            return found

        def count_statement(*about: Any) -> None:
            counts["statements"] += 1

        look(store, uid, asset)  # whatever is done once is done
        index.rows = count_rows  # type: ignore[method-assign]
        event.listen(Engine, "before_cursor_execute", count_statement)
        try:
            before = bytes_read()
            own = bytes_read() - before
            before = bytes_read()
            look(store, uid, asset)
            counts["bytes"] = bytes_read() - before - own
        finally:
            event.remove(Engine, "before_cursor_execute", count_statement)
    return counts


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looking_at_a_run_costs_the_same_for_any_number_of_events(
    stored: Any, look: Callable[[Store, str, str], Any], mode: str
) -> None:
    few, many = (counted(*stored[events], mode, look) for events in (FEW, MANY))
    assert few["statements"] > 0
    assert (many["statements"], many["rows"]) == (few["statements"], few["rows"])
    # a deeper tree of the database's pages, and numbers with more digits
    assert many["bytes"] <= few["bytes"] + 20_000


def test_all_of_many_events_are_there(stored: Any) -> None:
    root, uid = stored[MANY]
    with Store(root, mode="r") as store:
        view = store[uid]["camera"]
        assert view.shape == (MANY, *SHAPE)
        for number in (0, 1, 777, MANY - 1):
            check_frame(np.asarray(view[number]), event=number)
            assert view[number].uid == f"{view.uid}/{number}"


@pytest.mark.parametrize("letters", [10, 5000, 20_000])
@pytest.mark.parametrize("torn", [b"", b'{"name": "sto'])
def test_the_end_of_a_run_is_found_however_long_it_is_and_whatever_is_torn_behind_it(
    store: Store, letters: int, torn: bytes
) -> None:
    run = HandMadeRun()
    descriptor = run.descriptor(n={"dtype": "integer"})
    with store.writer() as writer:
        writer("start", run.start)
        known = store[run.uid]
        assert known.stop is None
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, n=1))
        assert known.stop is None
        writer("stop", stop := run.stop() | {"reason": "x" * letters})
    with (store.root / known.record.path).open("ab") as journal:
        journal.write(torn)
    assert known.stop == stop


# -- what is summed up is what the events say ------------------------------------------------------------------


@st.composite
def announced(draw: st.DrawFn) -> list[list[JournalLine]]:
    """The lines of a run of two cameras with three assets, in batches: rewinds, gaps, ranges, odd places."""
    run = HandMadeRun()
    declared = {"shape": [2, 3], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    descriptor = run.descriptor(a=declared, b=declared)
    asset = {"run_start": run.uid, "root": "/s", "resource_path": "x", "resource_kwargs": {}, "spec": "X"}
    stream = {"run_start": run.uid, "uri": "file://localhost/x", "parameters": {}, "mimetype": "x"}
    lines = [JournalLine("start", run.start), JournalLine("descriptor", descriptor)]
    lines += [JournalLine("resource", {**asset, "uid": uid}) for uid in "pq"]
    lines.append(JournalLine("stream_resource", {**stream, "uid": "s", "data_key": "b"}))
    places = dict.fromkeys("pqs", 0)
    seq_num = 0
    for number in range(draw(st.integers(0, 12))):
        key, uid = draw(st.sampled_from([("a", "p"), ("a", "q"), ("b", "p"), ("b", "s")]))
        odd = draw(st.integers(0, 9))
        place, seq_num = places[uid] + (odd == 1), max(1, seq_num + 1 - 2 * (odd == 2))
        span = draw(st.integers(0, 3)) if uid == "s" else 1
        places[uid] = place + span
        doc = {"uid": f"{uid}/{number}", "descriptor": descriptor["uid"], "time": float(number)}
        if uid == "s":
            ranges = {"indices": {"start": place, "stop": place + span}}
            ranges["seq_nums"] = {"start": seq_num, "stop": seq_num + span}
            lines.append(JournalLine("stream_datum", {**doc, "stream_resource": uid, **ranges}))
            continue
        datum = {"datum_id": doc["uid"], "resource": uid, "datum_kwargs": {"point_number": place}}
        named = {"seq_num": seq_num, "data": {key: doc["uid"]}, "filled": {key: False}, "timestamps": {}}
        lines += [JournalLine("datum", datum), JournalLine("event", {**doc, "uid": f"e{number}", **named})]
    cuts = sorted(draw(st.sets(st.integers(1, len(lines)), max_size=4)))
    return [lines[i:j] for i, j in zip([0, *cuts], [*cuts, len(lines)], strict=True) if i < j]


@settings(max_examples=200, deadline=None)
@given(announced(), st.booleans())
def test_what_is_summed_up_is_what_the_events_say(batches: list[list[JournalLine]], forgets: bool) -> None:
    index = Index("sqlite://")
    for end, lines in enumerate(batches, 1):
        if forgets:
            index._states.clear()  # as another process finds it
        index.add("j", lines, end)
    run_uid = batches[0][0].doc["uid"]
    for key in "ab":
        of_key = index.points(run_uid, "primary", key)
        assert index.extents(run_uid, "primary", key) == summed(of_key)
    for uid in "pqs":
        events = sum(extent.events for extent in index.extents_of_asset(uid))
        assert events == len(index.points_of_asset(uid))
    index.close()


def summed(points: list[Point]) -> list[Extent]:
    found: list[Extent] = []
    for uid in dict.fromkeys(point.asset_uid for point in points):
        mine = [point for point in points if point.asset_uid == uid]
        seq_nums = [point.seq_num for point in mine]
        in_place = [point.point_number for point in mine] == list(range(len(mine)))
        in_turn = seq_nums == sorted(set(seq_nums))
        found.append(Extent(uid, len(mine), in_place, in_turn, mine[-1].position))
    return found
