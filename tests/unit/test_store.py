"""The front door: opening, finding, and saying no."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gently_bluesky import Store
from gently_bluesky.errors import (
    AmbiguousUid,
    AssetMissing,
    GentlyError,
    InvalidSetting,
    LookupFailed,
    NotAStore,
    StoreReadOnly,
    StoreTooNew,
    StoreUnusable,
    UnknownUid,
    WriterClosed,
)

NOON = datetime(2026, 3, 21, 12).timestamp()


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything there is in a folder: kinds, times of change, contents."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (about.st_mode, about.st_mtime_ns, data)
    return found


def fill(store: Store, acquire) -> None:
    """A night's work: two embryos, two formats, interrupted and derived, a graph with several parents."""
    views = {"view_a": np.full((3, 8, 9), 7, "<u2"), "view_b": np.full((3, 8, 9), 8, "<u2")}
    fused = []
    for number, backend in enumerate(["zarr", "tiff"]):
        start = {
            "session": f"night {number}",
            "data_type": "volume",
            "embryo": f"e{number}",
            "sample": {"strain": "BV24", "age_h": 3 + number},
            "time": NOON + number,
        }
        events = {"primary": [{**views, "laser": 0.5}] * 2, "monitor": [{"temperature": 20.0}]}
        run = store[acquire(store, events, backend=backend, start=start)]
        parents = [run["view_a"][1], run["view_b"][1]]
        fused.append(
            store.put(
                np.asarray(parents[0]) + np.asarray(parents[1]),
                data_type="fused",
                parents=parents,
                operation="fuse",
                parameters={"sigma": 2.5},
                format=backend,
            )
        )
    counts = [store.put({"n": n}, data_type="nuclei", parents=[result]) for n, result in enumerate(fused)]
    store.put(np.arange(3), data_type="track", parents=[*counts, fused[0]], operation="link")
    acquire(store, [{"x": 1}], start={"embryo": "e1"}, stop=False)


def answers(store: Store) -> dict[str, Any]:
    """Everything that a store can be asked."""
    found: dict[str, Any] = {}
    for kind in ("run", "asset", "datum"):
        found[kind] = list(store.query(kind=kind))
    for record in itertools.chain(*found.copy().values()):
        uid = record.uid
        found[uid] = (store.record(uid), store.lineage(uid), str(store.lineage(uid)), store.children(uid))
        if record.kind == "run":
            run = store[uid]
            found[f"run {uid}"] = (
                list(run.documents()),
                run.status,
                run.stop,
                run.start,
                run.record,
                {stream: tuple(run[stream]) for stream in run.streams},
                repr(run),
            )
        else:
            array = store.array(uid)
            found[f"array {uid}"] = (array.uid, array.dims, array.scale, array.compute().tolist())
    for name, conditions in QUERIES.items():
        found[name] = list(store.query(**conditions))
    found["stats"] = {**store.stats(), "free_bytes": None, "root": None}
    found["latest"] = [store.latest(data_type=name) for name in ("fused", "nuclei", "track")]
    found["-n"] = [store[-number].uid for number in (1, 2, 3)]
    return found


QUERIES: dict[str, dict[str, Any]] = {
    "derived": {"derived": True},
    "acquired": {"derived": False},
    "type": {"data_type": "fused"},
    "session": {"session": "night 1"},
    "stream": {"stream": "monitor"},
    "key": {"data_key": "view_b"},
    "nested": {"sample": {"age_h": 3}},
    "metadata": {"embryo": "e1"},
    "operation": {"operation": "fuse"},
    "time": {"since": NOON - 1, "until": NOON + 0.5},
    "status": {"status": "incomplete"},
    "assets": {"kind": "asset", "embryo": "e0"},
    "datums": {"kind": "datum", "data_key": "view_a"},
}


# -- finding -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(acquire, tmp_path_factory) -> Path:
    """A store of a night's work, to be copied."""
    root = tmp_path_factory.mktemp("night") / "store"
    with Store(root) as store:
        fill(store, acquire)
    return root


@pytest.fixture
def night(filled, root) -> Iterator[Store]:
    shutil.copytree(filled, root)
    with Store(root) as store:
        yield store


def test_everything_is_found_by_its_uid_and_by_any_unique_beginning_of_it(night):
    records = [record for kind in ("run", "asset", "datum") for record in night.query(kind=kind)]
    assert {record.kind for record in records} == {"run", "asset", "datum"}
    uids = [record.uid for record in records]
    for record in records:
        assert night.record(record.uid) == record
        prefix = next(
            record.uid[:length]
            for length in range(1, 99)
            if not any(other.startswith(record.uid[:length]) for other in uids if other != record.uid)
            or (record.kind == "asset" and length == 18)
        )
        assert night.record(prefix) == record
        if record.kind == "run":
            assert night[prefix].uid == night.run(record.uid).uid == record.uid


def test_an_ambiguous_beginning_lists_what_it_may_mean(store, acquire):
    for last in "ab":
        acquire(store, [{"x": 1}], start={"uid": f"12345678-000{last}"})
    with pytest.raises(AmbiguousUid, match=r"12345678-000a, 12345678-000b; give more characters"):
        store["1234"]
    assert store["12345678-000b"].uid == "12345678-000b"


def test_an_unknown_uid_is_said_to_be_unknown(night):
    for ask in (night.record, night.run, night.array, night.get, night.lineage, night.children):
        with pytest.raises(UnknownUid, match="no run, asset or datum has the uid 'zzz'"):
            ask("zzz")
    with pytest.raises(UnknownUid):
        night.record("")
    with pytest.raises(GentlyError, match="uid as text"):
        night.record(3)


def test_the_uid_of_an_asset_is_no_run_and_the_message_says_what_to_ask_for(night):
    asset = next(night.query(kind="asset"))
    with pytest.raises(UnknownUid, match=rf"ask for store.array\('{asset.uid}'\)"):
        night[asset.uid]


def test_minus_one_is_the_run_that_was_acquired_last_and_results_do_not_count(store, acquire):
    uids = [acquire(store, [{"x": number}], start={"time": NOON + number}) for number in range(3)]
    store.put(1, data_type="n")
    assert [store[-1].uid, store[-2].uid, store[np.int64(-3)].uid] == uids[::-1]
    with pytest.raises(UnknownUid, match=r"at least 4 acquired runs in .*, there are fewer"):
        store[-4]
    with pytest.raises(UnknownUid, match="-1 for the latest run, got 0"):
        store[0]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"data_type": "volume"}, ["volume e1", "volume e0"]),
        ({"data_type": "fused"}, ["fused e1", "fused e0"]),
        ({"session": "night 0"}, ["nuclei e0", "fused e0", "volume e0"]),
        ({"stream": "monitor"}, ["volume e1", "volume e0"]),
        ({"stream": "primary", "data_key": "view_b", "embryo": "e0"}, ["volume e0"]),
        ({"stream": "monitor", "data_key": "view_b"}, []),
        ({"data_key": "temperature", "session": "night 1"}, ["volume e1"]),
        ({"sample": {"age_h": 4}, "derived": False}, ["volume e1"]),
        ({"sample": {"age_h": 4, "strain": "N2"}}, []),
        ({"sample.age_h": 3.0, "data_type": "volume"}, ["volume e0"]),
        ({"embryo": "e0", "derived": True}, ["nuclei e0", "fused e0"]),
        ({"operation": "link"}, ["track None"]),
        ({"since": NOON + 0.5, "until": "2026-03-21T13:00", "derived": False}, ["volume e1"]),
        ({"until": datetime.fromtimestamp(NOON + 0.5)}, ["volume e0"]),
        ({"status": "incomplete"}, ["None e1"]),
        ({"embryo": "e9"}, []),
    ],
)
def test_a_query_answers_newest_first(night, conditions, expected):
    found = list(night.query(**conditions))
    assert [f"{record.data_type} {record.metadata.get('embryo')}" for record in found] == expected
    times = [record.time for record in found]
    assert times == sorted(times, reverse=True)


def test_assets_and_datums_are_queried_like_runs(night):
    assert [record.data_key for record in night.query(kind="asset", data_type="volume", embryo="e0")].count(
        "view_a"
    ) == 1
    datums = list(night.query(kind="datum", data_key="view_a", session="night 1"))
    assert [record.seq_num for record in datums] == [2, 1]
    assert all(record.dims == ("z", "y", "x") and record.shape == (3, 8, 9) for record in datums)


def test_a_query_reads_as_much_as_is_taken_of_it(store, monkeypatch):
    monkeypatch.setattr("gently_bluesky.index.index.PAGE", 16)
    for number in range(40):
        store.put(number, data_type="n")
    statements = []
    rows = store._index.rows
    store._index.rows = lambda *args, **kwargs: statements.append(1) or rows(*args, **kwargs)
    query = store.query(data_type="n")
    assert next(query).data_type == "n"
    assert len(statements) <= 2
    assert 1 + sum(1 for _ in query) == 40
    assert len(statements) >= 3


@pytest.mark.parametrize(
    "conditions",
    [{"kind": "frame"}, {"status": "done"}, {"since": "yesterday"}, {"session": 3}, {"x": object()}],
)
def test_a_condition_that_cannot_hold_is_refused_at_once(store, conditions):
    with pytest.raises(InvalidSetting, match="nothing was looked for"):
        store.query(**conditions)


def test_lineage_and_children_go_over_a_graph_with_several_parents(night):
    track = night.latest(data_type="track")
    lineage = night.lineage(track.uid)
    assert sorted(record.data_type for record in lineage if record.kind == "run") == [
        "fused",
        "fused",
        "nuclei",
        "nuclei",
        "track",
    ]
    assert sum(record.kind == "datum" for record in lineage) == 4
    assert lineage.depth == 3
    assert [parent.record.data_type for parent in lineage.parents] == ["nuclei", "nuclei", "fused"]
    assert "shown elsewhere" in str(lineage)
    first = next(night.query(data_type="volume", embryo="e0"))
    assert [record.data_type for record in night.children(first.uid)] == ["fused"]
    datum = next(night.query(kind="datum", data_key="view_a", embryo="e0"))
    assert [record.data_type for record in night.children(datum.uid)] == ["fused"]
    assert night.children(night.array(datum.uid[:36]).uid) == night.children(datum.uid)
    fused = next(night.query(data_type="fused", embryo="e0"))
    assert [record.data_type for record in night.children(fused.uid)] == ["nuclei", "track"]
    assert night.children(track.uid) == []


def test_latest_is_the_newest_that_answers_and_says_so_when_none_does(night):
    assert night.latest(derived=False).uid == night[-1].uid
    assert night.latest(data_type="fused").metadata["embryo"] == "e1"
    with pytest.raises(LookupFailed, match=r"nothing in .* answers \{'embryo': 'e9'\}"):
        night.latest(embryo="e9")


def test_stats_count_what_is_there(night):
    stats = night.stats()
    assert stats["runs"] == {"complete": 7, "incomplete": 1}
    assert (stats["assets"], stats["datums"], stats["derived"]) == (6, 10, 5)
    assert stats["nbytes"] == 10 * 3 * 8 * 9 * 2
    assert stats["sessions"] == ["night 0", "night 1"]
    assert stats["uid"] == night.uid
    assert stats["free_bytes"] > 0


def test_array_is_that_of_an_asset_a_datum_or_a_run_with_one(store, acquire):
    volumes = [np.full((2, 8, 9), number, "<u2") for number in range(3)]
    one = acquire(store, [{"view": volume, "x": 1} for volume in volumes])
    two = acquire(store, [{"view_a": volumes[0], "view_b": volumes[1]}])
    none = acquire(store, [{"x": 1}])
    whole = store[one]["view"]
    np.testing.assert_array_equal(store.array(one), np.stack(volumes))
    np.testing.assert_array_equal(store.array(whole.uid), np.stack(volumes))
    np.testing.assert_array_equal(store.array(whole[2].uid), volumes[2])
    assert store.array(whole[2].uid).uid == store.get(whole[2].uid).uid == whole[2].uid
    with pytest.raises(LookupFailed, match="holds 2 arrays; ask for one: "):
        store.array(two)
    with pytest.raises(LookupFailed, match="holds 0 arrays; it has only values"):
        store.array(none)
    assert store.get(one).uid == one


# -- the index is a cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["inside", "elsewhere"])
@pytest.mark.parametrize("loss", ["deleted", "only the main file", "damaged", "of another version"])
def test_an_index_that_is_lost_is_built_again_equal_in_every_answer(root, tmp_path, acquire, place, loss):
    url = None if place == "inside" else f"sqlite:///{tmp_path / 'x.sqlite'}"
    file = root / "index.sqlite" if place == "inside" else tmp_path / "x.sqlite"
    with Store(root, index=url) as store:
        fill(store, acquire)
        before = answers(store)
    if place == "elsewhere":
        assert not (root / "index.sqlite").exists()
    if loss == "damaged":
        file.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    elif loss == "of another version":
        import sqlite3

        connection = sqlite3.connect(file)
        connection.execute("UPDATE gently_index SET version = 99")
        connection.commit()
        connection.close()
    else:
        file.unlink()
    if place == "elsewhere" and loss in {"damaged", "of another version"}:
        with pytest.raises(StoreUnusable, match="delete it: it is built anew"):
            Store(root, index=url)
        file.unlink()
    with Store(root, index=url) as store:
        assert answers(store) == before
    with Store(root, mode="r", index=url) as reader:
        assert answers(reader) == before


def test_an_index_elsewhere_that_is_another_program_s_database_is_left_alone(root, tmp_path):
    import sqlite3

    path = tmp_path / "photos.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnusable, match=r"photos.sqlite"):
        Store(root, index=f"sqlite:///{path}")
    with Store(root, mode="r", index=f"sqlite:///{path}") as reader:
        assert list(reader.query()) == []
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]
    connection.close()


@pytest.mark.parametrize("mode", ["a", "r"])
def test_an_index_at_no_url_is_refused(root, mode):
    Store(root).close()
    with pytest.raises(InvalidSetting, match="expected the URL of"):
        Store(root, mode=mode, index="/local/x.sqlite")


def test_a_reader_with_an_index_of_its_own_in_memory_follows_the_writer(root, tmp_path, acquire):
    with (
        Store(root, index=f"sqlite:///{tmp_path / 'local.sqlite'}") as store,
        Store(root, mode="r") as reader,
    ):
        fill(store, acquire)
        last = store.put(1, data_type="last").uid
        deadline_s = time.monotonic() + 10
        while reader.stats()["derived"] < store.stats()["derived"]:
            assert time.monotonic() < deadline_s
        assert reader.record(last) == store.record(last)
        assert answers(reader) == answers(store)
        shutil.rmtree(next(root.glob("runs/*/*/*/*count*")))
        while len(list(reader.query(derived=False))) == 3:
            assert time.monotonic() < deadline_s


def test_a_run_taken_out_of_the_store_by_hand_is_forgotten(root, acquire):
    with Store(root) as store:
        fill(store, acquire)
        gone = store[-2].uid
        folder = (root / store[gone].record.path).parent
    shutil.rmtree(folder)
    for mode in ("r", "a", "r"):
        with Store(root, mode=mode) as opened, pytest.raises(UnknownUid):
            opened.record(gone)


# -- reading only --------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["there", "gone", "damaged"])
def test_reading_changes_nothing_whatever_is_asked(root, acquire, index):
    with Store(root) as store:
        fill(store, acquire)
        before = answers(store)
    if index == "gone":
        (root / "index.sqlite").unlink()
    elif index == "damaged":
        (root / "index.sqlite").write_bytes(b"nonsense" * 1000)
    files = tree(root)
    with Store(root, mode="r") as reader:
        assert answers(reader) == before
        for write in (
            lambda: reader.writer(),
            lambda: reader.put(1, data_type="n"),
            lambda: reader.put(np.zeros((2, 2)), data_type="n"),
        ):
            with pytest.raises(StoreReadOnly, match="mode='r'; nothing was written; open it with mode='a'"):
                write()
    assert tree(root) == files


def test_a_reader_leaves_a_dead_run_to_the_next_writer(root, acquire, in_process):
    in_process(DIE_IN_MID_RUN, root, expect=1)
    with Store(root, mode="r") as before_recovery:
        files = tree(root)
        (record,) = before_recovery.query()
        run = before_recovery[-1]
        assert record.status == "running"
        assert run.status == "incomplete"
        assert run.stop is None
        np.testing.assert_array_equal(run["view"], np.ones((1, 4, 5), "<u2"))
        assert tree(root) == files
        with Store(root) as writer:
            assert writer[-1].status == "incomplete"
            assert writer[-1].stop["exit_status"] == "abort"
        assert run.stop["exit_status"] == "abort"


DIE_IN_MID_RUN = """
from event_model import compose_run
store = Store(sys.argv[1])
writer = store.writer()
run = compose_run()
bundle = run.compose_descriptor(
    name="primary", data_keys={"view": {"source": "x", "dtype": "array", "shape": [4, 5]}}
)
stored = []
writer.subscribe(lambda name, doc: stored.append(name))
writer("start", run.start_doc)
writer("descriptor", bundle.descriptor_doc)
writer("event", bundle.compose_event(
    data={"view": np.ones((4, 5), "<u2")}, timestamps={"view": 0.0}, validate=False))
while "event" not in stored:
    pass
os._exit(1)
"""


@pytest.mark.parametrize("index", ["there", "gone"])
@pytest.mark.skipif(os.name == "nt", reason="users and modes are POSIX's")
def test_another_user_reads_a_store_that_nobody_can_write(open_root, acquire, in_process, index):
    with Store(open_root) as store:
        fill(store, acquire)
        expected = store.stats()["nbytes"]
    if index == "gone":
        (open_root / "index.sqlite").unlink()
    for path in [*open_root.rglob("*"), open_root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    files = tree(open_root)
    script = """
try:
    Store(sys.argv[1])
except StoreReadOnly as error:
    assert "mode='r'" in str(error), error
else:
    sys.exit("it was opened for writing")
with Store(sys.argv[1], mode="r") as store:
    assert [r.metadata["embryo"] for r in store.query(data_type="fused")] == ["e1", "e0"]
    for asset in store.query(kind="asset"):
        store.array(asset.uid).compute()
    store[-1].status
    store.lineage(store.latest(data_type="track").uid)
    print(store.stats()["nbytes"])
"""
    assert in_process(script, open_root, unprivileged=True) == str(expected)
    assert tree(open_root) == files


def test_a_store_that_another_user_may_not_look_into_is_one_error(open_root, in_process):
    Store(open_root).close()
    open_root.chmod(0o700)
    script = """
for mode in "ra":
    try:
        Store(sys.argv[1], mode=mode)
    except StoreUnusable as error:
        print(type(error).__name__, "nothing was written" in str(error))
"""
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    assert in_process(script, open_root, unprivileged=True).splitlines() == ["StoreUnusable True"] * 2


# -- roots that will not do ----------------------------------------------------------------------------


def test_a_store_is_made_with_the_folders_above_it_and_opened_again(tmp_path):
    root = tmp_path / "a" / "b" / "store"
    with Store(root) as store:
        uid = store.uid
    with Store(str(root)) as store:
        assert store.uid == uid
    assert json.loads((root / "gently-store.json").read_bytes())["format_version"] == 1


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with Store("~/dispim") as store:
        assert store.root == tmp_path.resolve() / "dispim"


@pytest.mark.parametrize("name", ["with space", "ümlaut", "a?b=c", "50%20", "#1", "sqlite:", "a&b"])
def test_a_root_may_have_any_name(tmp_path, acquire, name):
    root = tmp_path / name
    with Store(root) as store:
        uid = acquire(store, [{"view": np.ones((2, 3), "<u2")}])
    assert (root / "index.sqlite").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Store(root, mode="r") as reader:
        assert reader[uid]["view"].compute().sum() == 6


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_file_is_no_root(tmp_path, mode):
    file = tmp_path / "file"
    file.write_text("mine")
    for root in (file, file / "below"):
        with pytest.raises(StoreUnusable, match="nothing was written"):
            Store(root, mode=mode)
    with pytest.raises(NotAStore, match="is a file; nothing was written; give another root"):
        Store(file, mode=mode)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path, mode):
    (tmp_path / "thesis.txt").write_text("mine")
    files = tree(tmp_path)
    match = r"not empty \(thesis.txt, ...\); nothing was written" if mode == "a" else "there is no store"
    with pytest.raises(NotAStore, match=match):
        Store(tmp_path, mode=mode)
    assert tree(tmp_path) == files


def test_an_empty_folder_or_one_with_hidden_files_becomes_a_store(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    Store(tmp_path).close()
    assert (tmp_path / "gently-store.json").is_file()


def test_there_is_nothing_to_read_where_there_is_nothing(tmp_path):
    with pytest.raises(
        NotAStore, match=r"there is no store at .*missing; .* or make one here: Store\('.*missing'\)"
    ):
        Store(tmp_path / "missing", mode="r")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize(
    "marker",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": 1}',
        b'{"format_version": "1", "store_uid": "u"}',
        b'{"format_version": true, "store_uid": "u"}',
        b'{"format_version": 1, "store_uid": 3}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_marker_is_said_and_left(root, marker, mode):
    Store(root).close()
    (root / "gently-store.json").write_bytes(marker)
    files = tree(root)
    with pytest.raises(NotAStore, match=r"is not the marker of a store .*; nothing was written"):
        Store(root, mode=mode)
    assert tree(root) == files


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_store_of_a_newer_format_is_not_touched(root, mode):
    Store(root).close()
    marker = root / "gently-store.json"
    marker.write_text(json.dumps({**json.loads(marker.read_bytes()), "format_version": 2}))
    files = tree(root)
    with pytest.raises(StoreTooNew, match=r"format 2, .* up to 1; nothing was written; upgrade"):
        Store(root, mode=mode)
    assert tree(root) == files


def test_a_marker_that_is_a_folder_is_one_error_of_ours(root):
    (root / "gently-store.json").mkdir(parents=True)
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        Store(root)


def test_a_store_without_its_marker_is_told_to_put_it_back(root):
    Store(root).close()
    (root / "gently-store.json").unlink()
    with pytest.raises(NotAStore, match=r"if it was a store, put its gently-store.json back"):
        Store(root)


@pytest.mark.skipif(os.name == "nt", reason="users and modes are POSIX's")
def test_a_root_that_cannot_be_written_is_one_error(open_root, in_process):
    open_root.mkdir()
    script = """
for root in (sys.argv[1], sys.argv[1] + "/below/store"):
    try:
        Store(root)
    except StoreReadOnly as error:
        print("nothing was written" in str(error))
"""
    open_root.chmod(0o555)
    assert in_process(script, open_root, unprivileged=True).split() == ["True", "True"]
    assert list(open_root.iterdir()) == []


def test_an_unknown_mode_is_refused(root):
    with pytest.raises(InvalidSetting, match="mode 'a' or 'r', got 'w'; nothing was opened"):
        Store(root, mode="w")
    assert not root.exists()


def test_several_threads_may_make_the_same_store(root):
    barrier = threading.Barrier(8)
    uids, errors = [], []

    def make():
        barrier.wait()
        try:
            with Store(root) as store:
                uids.append(store.uid)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(uids)) == 1
    assert not [path.name for path in root.iterdir() if path.name.endswith(".tmp")]


# -- the end -------------------------------------------------------------------------------------------


def test_close_ends_what_is_open_and_may_be_called_again(root, acquire):
    store = Store(root)
    uid = acquire(store, [{"x": 1}])
    writer = store.writer()
    store.close()
    store.close()
    assert writer.closed
    for ask in (lambda: store[uid], store.stats, lambda: list(store.query())):
        with pytest.raises(StoreUnusable, match="closed"):
            ask()
    for write in (store.writer, lambda: store.put(1, data_type="n")):
        with pytest.raises(WriterClosed, match="was closed; nothing was written; open it again"):
            write()


def test_an_array_goes_on_reading_after_its_store_is_closed(root, acquire):
    with Store(root) as store:
        view = store[acquire(store, [{"view": np.full((4, 5), 3, "<u2")}])]["view"]
    assert view.compute().sum() == 60


def test_a_store_goes_on_working_beside_another_one_of_the_same_root(root, acquire):
    with Store(root) as first, Store(root) as second, Store(root, mode="r") as reader:
        uids = [acquire(store, [{"x": 1}]) for store in (first, second)]
        result = second.put({"n": 1}, data_type="n", parents=uids)
        for store in (first, second, reader):
            assert {record.uid for record in store.query()} == {*uids, result.uid}
            assert len(store.lineage(result.uid)) == 3
            assert store.get(result.uid) == {"n": 1}


def test_old_days_are_found_by_their_dates(store, acquire):
    day = datetime(2020, 2, 29, 23, 59)
    uid = acquire(store, [{"x": 1}], start={"time": day.timestamp()})
    assert store[uid].record.path.startswith("runs/2020/02/29/235900_count_")
    assert [record.uid for record in store.query(until="2020-02-29")] == [uid]
    assert list(store.query(since=day + timedelta(minutes=1), until="2021-01-01")) == []


def test_a_query_of_a_damaged_asset_still_answers_and_reading_it_says_what_is_wrong(store, acquire):
    run = store[acquire(store, [{"view": np.zeros((4, 5), "<u2")}] * 2, backend="tiff")]
    asset = store.record(run["view"].uid)
    (store.root / asset.path / "000001.ome.tif").unlink()
    assert store.record(asset.uid) == asset
    for view in (run["view"], store.array(asset.uid)):
        with pytest.raises(AssetMissing, match=r"000001\.ome\.tif is gone; no pixels were returned"):
            view[1].compute()
        assert view[0].compute().shape == (4, 5)
    assert store.array(f"{asset.uid}/0").shape == (4, 5)


def test_an_asset_that_holds_fewer_events_than_were_announced_says_so(store, acquire):
    run = store[acquire(store, [{"view": np.zeros((4, 5), "<u2")}] * 2)]
    asset = store.record(run["view"].uid)
    metadata = store.root / asset.path / "0" / "zarr.json"
    array = json.loads(metadata.read_text())
    array["shape"][0] = 1
    metadata.write_text(json.dumps(array))
    for read in (lambda: run["view"], lambda: store.array(asset.uid), lambda: store.array(f"{asset.uid}/1")):
        with pytest.raises(AssetMissing, match=r"event 1 was announced, the files hold 1 events; .* restore"):
            read()
    assert store.array(f"{asset.uid}/0").shape == (4, 5)


def test_stores_that_were_closed_are_not_held_in_memory(tmp_path):
    held = []
    for mode in ("a", "r"):
        with Store(tmp_path / "store", mode=mode) as store:
            held.append(weakref.ref(store._index._database))
    del store
    gc.collect()
    assert [database() for database in held] == [None, None]
