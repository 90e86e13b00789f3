"""Replay: what a store recorded, sent to callbacks again, and copied into other stores."""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.callbacks import LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.callbacks.json_writer import JSONLinesWriter
from bluesky.utils import FailedStatus, RunEngineInterrupted
from equal_stores import assert_equal, comparable, copied, filled_documents, lines_of, records_of, said
from event_model import DocumentNames, compose_resource, schema_validators
from ophyd.sim import SynSignal, det1, motor

from gently_bluesky import LazyArray, Store, replay
from gently_bluesky.documents.filling import filled_lines
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.documents.replay import read_documents
from gently_bluesky.errors import (
    AssetDamaged,
    AssetMissing,
    FrameMismatch,
    InvalidDocument,
    JournalDamaged,
    RunExists,
    SubscriberError,
)
from gently_bluesky.model import JournalLine
from gently_bluesky.sim import Rudeness, SimulatedDiSPIM, acquire_volume, focus_sweep
from gently_bluesky.testing.documents import HandMadeRun

SESSION = "2026-11-21"


# -- a store with everything in it -------------------------------------------------------------------------


class Reading(SynSignal):
    """A signal that does not repeat its value in its configuration."""

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}


def signals():
    """Signals of each kind that is kept in a way of its own; each reading is another one."""
    count = iter(range(10_000))

    def made(make):
        return lambda: make(next(count))

    of = {
        "volume": lambda n: np.arange(24, dtype=np.uint16).reshape(2, 3, 4) + n,
        "views": lambda n: np.full((2, 2, 3, 4), n, np.uint8),
        "five": lambda n: np.full((1, 2, 2, 3, 4), n, np.int16),
        "mask": lambda n: np.indices((4, 5)).sum(0) % 2 == n % 2,
        "depth": lambda n: np.where(np.eye(3) == 1, np.nan, n).astype(np.float32),
        "phase": lambda n: np.arange(5) * (1 + 1j * n),
        "long": lambda n: np.arange(6 * n, 6 * n + 6, dtype=np.int64).reshape(2, 3) + 2**40,
        "trace": lambda n: np.arange(5000, dtype=np.float64) + n,
        "levels": lambda n: (np.arange(9000) + n).astype(np.uint8),
        "few": lambda n: np.array([0.1, np.nan, n], np.float32),
        "none": lambda n: np.empty((0, 3), np.int32),
        "words": lambda n: ["some", "words", str(n)],
        "ragged": lambda n: [[1, 2], [n]],
        "number": lambda n: float(n) / 3,
        "nothing": lambda n: float("nan"),
        "endless": lambda n: float("-inf"),
        "whole": lambda n: 2**70 + n,
        "word": lambda n: f"word {n}",
        "truth": lambda n: n % 2 == 0,
    }
    return [Reading(func=made(make), name=name) for name, make in of.items()]


@bpp.set_run_key_decorator("inner")
@bpp.run_decorator(md={"session": SESSION, "data_type": "inner"})
def inner_run(devices):
    yield from bps.trigger_and_read(devices)
    yield from bps.trigger_and_read(devices)


def interleaved(scope, few):
    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator(md={"session": SESSION, "data_type": "outer"})
    def outer():
        yield from bps.stage(scope.light_sheet)
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from inner_run(few)
        yield from bps.trigger_and_read([scope.light_sheet], name="after")
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from bps.unstage(scope.light_sheet)

    yield from outer()


def rewound(scope):
    """Two volumes, the second one taken twice, for the run is paused and resumed behind it."""

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator(md={"session": SESSION, "data_type": "rewound"})
    def plan():
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([scope.light_sheet, motor])
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([scope.light_sheet, motor])
        yield from bps.pause()
        yield from bps.trigger_and_read([scope.light_sheet, motor])

    yield from plan()


@bpp.run_decorator(md={"session": SESSION, "data_type": "reshaped"})
def reshaped(scope):
    """A stream whose volumes change their shape, as a new descriptor says, and change it back."""
    yield from bps.stage(scope.light_sheet)
    for n_slices in (4, 2, 4):
        yield from bps.configure(scope.light_sheet, {"n_slices": n_slices})
        yield from bps.trigger_and_read([scope.light_sheet])
    yield from bps.unstage(scope.light_sheet)


def record_everything(root, assets):
    """Fill a store with runs of every kind and every end."""
    engine = RunEngine({}, call_returns_result=False)
    with Store(root) as store:
        engine.subscribe(store.writer())
        scope = SimulatedDiSPIM(size=32, n_slices=4)
        first, second = (
            engine(acquire_volume(scope, num=2, session=SESSION)),
            engine(focus_sweep(scope, steps=3)),
        )
        engine(bpp.baseline_wrapper(bp.count(signals(), num=3, md={"session": SESSION}), [motor, det1]))
        engine(interleaved(scope, [motor, signals()[0]]))
        engine(reshaped(scope))
        engine(bps.configure(scope.light_sheet, {"n_slices": 4}))
        with pytest.raises(RunEngineInterrupted):
            engine(rewound(scope))
        engine.resume()
        with pytest.raises(RunEngineInterrupted):
            engine(rewound(scope))
        engine.abort("that is enough")
        rude = SimulatedDiSPIM(name="rude", size=32, n_slices=4, rude=Rudeness(fail_at_trigger=1))
        with pytest.raises(FailedStatus):
            engine(acquire_volume(rude, num=3, session=SESSION))
        lossy = SimulatedDiSPIM(
            name="lossy", size=32, n_slices=4, rude=Rudeness(drop_frames=1, drop_at_trigger=2)
        )
        with pytest.raises(FrameMismatch, match="event 3 came as an array"):
            engine(acquire_volume(lossy, num=4, session=SESSION))
        engine(bps.null())
        record_foreign_assets(store, assets)
        derive(store, first[0], second[0])
        leave_unfinished(store)
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()


def derive(store, run_uid, sweep_uid):
    volume = store[run_uid]["view_a"]
    mip = store.put(volume[0].max(axis=0), data_type="projection", parents=[volume[0].uid], operation="max_z")
    store.put({"n": 3, "at": [1.5, float("nan")]}, data_type="nuclei", parents=[mip, sweep_uid])
    store.put(
        np.array([(1, 0.5), (2, np.nan)], dtype=[("id", "i4"), ("mean", "f4")]),
        data_type="table",
        parents=[mip],
    )
    store.put(41.5, data_type="threshold", parents=[mip.uid], operation="otsu", parameters={"bins": 64})


def record_foreign_assets(store, folder):
    """A run with an asset that another writer made, beside an array of ours."""
    writer = store.writer()
    start = {"uid": str(uuid.uuid4()), "time": 1e9, "data_type": "foreign"}
    resource = compose_resource(
        start=start, spec="NPY_SEQ", root=str(folder), resource_path="img", resource_kwargs={}
    )
    datum = resource.compose_datum(datum_kwargs={"index": 0})
    writer("start", start)
    writer("descriptor", descriptor(start, theirs={"external": "FILESTORE:"}, ours={}))
    writer("resource", resource.resource_doc)
    writer("datum", datum)
    writer("event", event(start, theirs=datum["datum_id"], ours=np.ones((2, 3)), filled={"theirs": False}))
    writer("stop", stop(start))


def leave_unfinished(store):
    """A run whose stop never comes: the store's closing ends it as incomplete."""
    start = {"uid": str(uuid.uuid4()), "time": 2e9, "data_type": "unfinished"}
    writer = store.writer()
    writer("start", start)
    writer("descriptor", descriptor(start, frame={}))
    writer("event", event(start, frame=np.eye(3)))
    writer("descriptor", {**descriptor(start, frame={}), "uid": f"late of {start['uid']}", "name": "late"})


def descriptor(start, **keys):
    declared = {
        key: {"source": "s", "dtype": "array", "shape": [2, 3], **known} for key, known in keys.items()
    }
    return {
        "uid": f"descriptor of {start['uid']}",
        "run_start": start["uid"],
        "time": start["time"],
        "name": "primary",
        "data_keys": declared,
    }


def event(start, *, seq_num=1, filled=None, **data):
    return {
        "uid": str(uuid.uuid4()),
        "descriptor": f"descriptor of {start['uid']}",
        "time": start["time"],
        "seq_num": seq_num,
        "data": data,
        "timestamps": dict.fromkeys(data, start["time"]),
        "filled": filled or {},
    }


def stop(start):
    return {
        "uid": str(uuid.uuid4()),
        "run_start": start["uid"],
        "time": start["time"],
        "exit_status": "success",
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The root of a store with everything in it, closed."""
    folder = tmp_path_factory.mktemp("recorded")
    record_everything(folder / "original", folder)
    return folder / "original"


# -- what makes two stores equal ---------------------------------------------------------------------------


def filled(documents, root):
    """Return documents as they came in, of documents that stand in no journal."""
    lines = (JournalLine(name, doc) for name, doc in documents)
    return [(line.name, dict(line.doc)) for line in filled_lines(lines, root)]


# -- the tests ---------------------------------------------------------------------------------------------


def test_the_original_has_runs_of_every_end(original):
    with Store(original, mode="r") as store:
        ends = {record.status for record in store.query()}
        assert ends == {"complete", "failed", "aborted", "incomplete"}
        assert len(list(store.query(derived=True))) == 4


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_a_store_replayed_into_another_is_equal_but_for_resources_however_its_runs_ended(
    original, root, kind
):
    uids = copied(original, root, format=kind)
    with Store(original, mode="r") as store:
        assert sorted(uids) == sorted(record.uid for record in store.query())
        assert any(record.lost for record in store.query())
    assert_equal(original, root, same_format=kind == "zarr")


@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_a_store_replayed_into_the_other_family_of_documents_and_back_is_equal(
    original, root, tmp_path, kind
):
    copied(original, tmp_path / "stream", assets="stream", format=kind)
    with Store(original, mode="r") as first, Store(tmp_path / "stream", mode="r") as second:
        assert records_of(first) == records_of(second)
        assert filled_documents(first) == filled_documents(second)
    copied(tmp_path / "stream", root)
    assert_equal(original, root, same_format=True)


def test_filled_documents_are_those_that_the_runengine_made(RE, store):
    came = []
    RE.subscribe(store.writer())
    RE.subscribe(lambda name, doc: came.append((name, comparable(doc))))
    scope = SimulatedDiSPIM(size=32, n_slices=4)
    few = [
        device
        for device in signals()
        if device.name in {"trace", "levels", "few", "none", "nothing", "words"}
    ]
    (uid,) = RE(bp.count([scope.light_sheet, motor, *few], num=3))
    back = [(name, comparable(as_it_came(doc))) for name, doc in store[uid].documents(fill=True)]
    assert [name for name, _ in back] == [name for name, _ in came]
    told = {"shape", "dtype_numpy", "dims", "dtype"}
    for (name, was), (_, doc) in zip(came, back, strict=True):
        if name == "descriptor":
            was["data_keys"], doc["data_keys"] = (
                {
                    key: {k: v for k, v in known.items() if k not in told}
                    for key, known in of["data_keys"].items()
                }
                for of in (was, doc)
            )
        assert doc == was


def as_it_came(doc):
    """Return a document with numpy's arrays in the place of lazy ones."""
    data = doc.get("data", {})
    arrays = {
        key: np.asarray(value) if isinstance(value, LazyArray) else value for key, value in data.items()
    }
    return {**doc, "data": arrays} if data else doc


def test_replayed_documents_are_valid_and_come_after_what_they_name(original):
    met = set()
    names = []
    for name, doc in read_documents(original):
        names.append(name)
        schema_validators[DocumentNames[name]].validate(json.loads(json.dumps(doc, default=repr)))
        for reference in ("run_start", "descriptor", "resource"):
            assert doc.get(reference, "") in {"", *met}
        met.add(doc.get("uid") or doc.get("datum_id"))
    assert {"start", "descriptor", "resource", "datum", "event", "stop"} == set(names)


def test_runs_are_replayed_in_the_order_in_which_they_were_started(original):
    times = [doc["time"] for name, doc in read_documents(original) if name == "start"]
    assert times == sorted(times)
    assert len(times) > 10


def test_each_callback_has_documents_of_its_own(original):
    def vandal(name, doc):
        doc.get("data", {}).clear()
        doc.get("data_keys", {}).clear()
        for key in list(doc):
            del doc[key]

    def first(name, doc):
        one.append((name, comparable(doc)))
        if name == "event" and isinstance(doc["data"].get("few"), np.ndarray):
            doc["data"]["few"][:] = -1

    one, other = [], []
    replay(original, first, vandal, lambda name, doc: other.append((name, comparable(doc))))
    assert one == other


def test_a_replay_without_filling_hands_on_what_was_announced(original):
    path = min(original.rglob("*acquire-volume*/documents.jsonl"))
    seen = []
    replay(path, lambda name, doc: seen.append((name, doc)), fill=False)
    assert seen == [(line.name, line.doc) for line in read_journal(path)]
    assert {name for name, _ in seen} >= {"resource", "datum"}


def test_a_copy_that_refers_to_the_original_knows_the_runs_and_leaves_the_pixels(original, root):
    with Store(root) as copy, Store(original, mode="r") as store:
        replay(original, copy.writer(), fill=False)
        uid = store.latest(data_type="volume", status="complete").uid
        assert copy[uid].status == "complete"
        assert list((root / copy.record(uid).path).parent.iterdir()) == [root / copy.record(uid).path]
        kept = [[said(named) for named in place[uid].documents()] for place in (copy, store)]
        assert sorted(kept[0]) == sorted(kept[1])
        flags = [doc["filled"] for name, doc in copy[uid].documents(fill=True) if name == "event"]
        assert {flag for held in flags for flag in held.values()} == {False}


def test_a_replay_drives_tables_and_best_effort_as_a_live_run_does(RE, store, capsys):
    RE.subscribe(store.writer())
    live = LiveTable(["motor", "det1"], stream_name="primary")
    (uid,) = RE(bp.scan([det1], motor, -1, 1, 5), live)
    assert uid[:8] in capsys.readouterr().out
    again = LiveTable(["motor", "det1"], stream_name="primary")
    best = BestEffortCallback()
    best.disable_plots()
    replay(store.root, again, best)
    said = capsys.readouterr().out
    assert again._rows == live._rows
    assert len([row for row in again._rows if "motor" not in row]) >= 5
    assert uid in said


def test_lazy_arrays_and_references_do_not_disturb_best_effort(original, capsys):
    best = BestEffortCallback()
    best.disable_plots()
    runs = replay(original, best)
    replay(original, best, fill=False)
    said = capsys.readouterr().out
    assert all(uid in said for uid in runs)


def test_what_blueskys_own_writer_recorded_gives_the_store_that_the_live_run_gave(RE, root, tmp_path):
    recorder = JSONLinesWriter(str(tmp_path), "recorded.jsonl")
    with Store(root) as live:
        RE.subscribe(recorder)
        RE.subscribe(live.writer())
        RE(bpp.baseline_wrapper(bp.scan([det1], motor, -1, 1, 5), [det1]))
        RE(bp.count([motor], num=2))
    with Store(tmp_path / "copy") as copy:
        uids = replay(tmp_path / "recorded.jsonl", copy.writer())
    assert len(uids) == 2
    one, other = (lines_of(place, same_format=True) for place in (root, tmp_path / "copy"))
    assert one.keys() == other.keys()
    for uid, lines in one.items():
        # JSON has numbers, and nothing to say which of numpy's they were
        assert [line.replace('"dtype_numpy": "<f8", ', "") for line in lines] == other[uid]


def test_interleaved_runs_of_one_recording_are_replayed_interleaved_as_they_were(RE, root, tmp_path):
    came = []
    RE.subscribe(JSONLinesWriter(str(tmp_path), "recorded.jsonl"))
    RE.subscribe(lambda name, doc: came.append((name, comparable(doc))))

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer():
        yield from bps.trigger_and_read([motor])
        yield from inner_run([motor])
        yield from bps.trigger_and_read([motor])

    RE(outer())
    seen = []
    replay(tmp_path / "recorded.jsonl", lambda name, doc: seen.append((name, comparable(doc))))
    assert seen == came
    assert [name for name, _ in seen[:4]] == ["start", "descriptor", "event", "start"]


def test_the_end_of_one_run_leaves_the_descriptors_of_others_waiting(tmp_path):
    one, other = ({"uid": uid, "time": 1.0} for uid in ("one", "other"))
    declared = {"external": "FILESTORE:"}
    documents = [
        ("start", one),
        ("start", other),
        ("descriptor", descriptor(one, frame=declared)),
        ("descriptor", descriptor(other, frame=declared)),
        ("stream_datum", {"uid": "s", "descriptor": "descriptor of other"}),
        ("stop", stop(one)),
        ("event", event(other, frame="datum", filled={"frame": False})),
    ]
    back = list(filled(documents, None))
    names = ["start", "start", "descriptor", "stop", "descriptor", "stream_datum", "event"]
    assert [name for name, _ in back] == names
    assert [doc for _, doc in back] == [documents[n][1] for n in (0, 1, 2, 5, 3, 4, 6)]
    assert list(filled(documents[:5], None))[2:] == documents[2:5]


def test_a_small_array_that_its_descriptor_does_not_describe_stays_the_list_it_is():
    start = {"uid": "r", "time": 1.0}
    declared = {
        "cut": {"dtype_numpy": "<i2", "shape": [2]},
        "folded": {"dtype_numpy": "<i2", "shape": [2, 1]},
        "records": {"dtype_numpy": [["x", "<i2"]], "shape": [2]},
        "strange": {"dtype_numpy": "no such", "shape": [2]},
        "whole": {"dtype_numpy": "<i2", "shape": [2]},
    }
    values = {"cut": [1.5, 2.0], "folded": [1, 2], "records": [[1], [2]], "strange": [1, 2], "whole": [1, 2]}
    documents = [
        ("start", start),
        ("descriptor", descriptor(start, **declared)),
        ("event", event(start, **values)),
    ]
    data = list(filled(documents, None))[2][1]["data"]
    assert {key: type(value) for key, value in data.items()} == {
        **dict.fromkeys(("cut", "folded", "records", "strange"), list),
        "whole": np.ndarray,
    }
    assert data["whole"].dtype == np.int16


def test_pages_of_our_datums_are_filled_too(RE, store):
    RE.subscribe(store.writer())
    (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=2), num=2))
    documents = list(store[uid].documents())
    page = event_page_of([doc for name, doc in documents if name == "event"])
    rest = [named for named in documents if named[0] not in {"event", "stop"}]
    events = [
        doc
        for name, doc in filled([*rest, ("event_page", page), documents[-1]], store.root)
        if name == "event"
    ]
    assert [comparable(doc["data"]) for doc in events] == [
        comparable(doc["data"]) for name, doc in store[uid].documents(fill=True) if name == "event"
    ]


def event_page_of(events):
    columns = {key: [doc[key] for doc in events] for key in ("uid", "time", "seq_num")}
    nested = {
        name: {key: [doc[name][key] for doc in events] for key in events[0][name]}
        for name in ("data", "timestamps", "filled")
    }
    return {"descriptor": events[0]["descriptor"], **columns, **nested}


# -- what goes wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def small(RE, root):
    """The root of a store that holds one run."""
    with Store(root) as store:
        RE.subscribe(store.writer())
        RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=2)))
    return root


def test_a_store_that_was_moved_is_replayed_from_where_it_is(small, tmp_path):
    moved = small.rename(tmp_path / "moved")
    copied(moved, tmp_path / "copy")
    assert_equal(moved, tmp_path / "copy", same_format=True)


def test_one_run_is_replayed_from_its_folder_or_its_journal(small, tmp_path):
    (journal,) = small.rglob("documents.jsonl")
    copied(journal, tmp_path / "of file")
    copied(journal.parent, tmp_path / "of folder")
    assert_equal(small, tmp_path / "of file", same_format=True)
    assert_equal(small, tmp_path / "of folder", same_format=True)


def test_a_store_is_not_replayed_into_itself(small):
    with pytest.raises(RunExists, match="replay into another store"), Store(small) as store:
        replay(small, store.writer())


def test_a_replay_whose_pixels_are_gone_says_so_and_references_are_replayed_all_the_same(small):
    shutil.rmtree(next(small.rglob("*view_a.ome.zarr")))
    with pytest.raises(AssetMissing, match="view_a"):
        replay(small)
    assert len(replay(small, fill=False)) == 1


def test_pixels_that_changed_on_disk_are_not_copied_as_if_they_were_right(RE, root, tmp_path):
    with Store(root) as store:
        RE.subscribe(store.writer(format="tiff"))
        RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=2)))
    path = next(root.rglob("*view_b/*.tif"))
    with tifffile.TiffFile(path) as file:
        first_pixel = file.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[first_pixel] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(AssetDamaged, match="view_b"), Store(tmp_path / "copy") as copy:
        replay(root, copy.writer())
    with Store(tmp_path / "copy", mode="r") as copy:
        assert [(record.status, record.stored) for record in copy.query()] == [("failed", 0)]


def test_what_a_callback_raises_ends_the_replay(small):
    seen = []

    def choosy(name, doc):
        seen.append(name)
        if name == "descriptor":
            raise SubscriberError("no descriptors, please")

    with pytest.raises(SubscriberError, match="no descriptors"):
        replay(small, choosy)
    assert seen == ["start", "descriptor"]


def test_a_place_without_recorded_documents_is_refused(tmp_path):
    with pytest.raises(AssetMissing, match="is not there; nothing was replayed"):
        replay(tmp_path / "nowhere")
    with pytest.raises(AssetMissing, match="holds no recorded runs"):
        replay(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\x80\x04\x95"])
def test_a_file_that_is_no_recording_is_refused(tmp_path, content):
    (tmp_path / "some.file").write_bytes(content)
    with pytest.raises(InvalidDocument, match="there are none"):
        replay(tmp_path / "some.file")


def test_damage_in_the_middle_is_told_behind_what_came_before_it(small):
    (journal,) = small.rglob("documents.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], lines[1][:9] + b"\n", *lines[2:]]))
    seen = []
    with pytest.raises(JournalDamaged, match="line 2"):
        replay(small, lambda name, doc: seen.append(name))
    assert seen == ["start"]


def test_a_document_that_lacks_what_it_must_have_is_told_by_its_name(tmp_path):
    (tmp_path / "recorded.jsonl").write_text('{"name": "event", "doc": {"data": {}}}\n')
    with pytest.raises(InvalidDocument, match="valid event document"):
        replay(tmp_path / "recorded.jsonl")


def test_a_resource_that_leads_out_of_the_store_is_not_read(small):
    (journal,) = small.rglob("documents.jsonl")
    text = journal.read_text()
    path, _ = sorted(
        doc["resource_path"] for name, doc in read_documents(journal, fill=False) if name == "resource"
    )
    text = re.sub(r',"crc32c":"\w+"\}$', "}", text, flags=re.MULTILINE)
    journal.write_text(text.replace(path, "../../elsewhere"))
    with pytest.raises(InvalidDocument, match="expected a path below"):
        replay(journal)


def test_a_run_that_goes_on_is_replayed_as_far_as_it_is_and_has_no_end(store):
    start = {"uid": str(uuid.uuid4()), "time": 1e9}
    writer, announced = store.writer(), threading.Event()
    writer.subscribe(lambda name, doc: announced.set() if name == "event" else None)
    writer("start", start)
    writer("descriptor", descriptor(start, frame={}))
    writer("event", event(start, frame=np.eye(3)))
    assert announced.wait(30)
    names = []
    replay(store.root, lambda name, doc: names.append(name))
    assert names == ["start", "descriptor", "event"]
    writer("stop", stop(start))


@pytest.mark.parametrize("assets", ["datum", "stream"])
def test_a_list_that_is_empty_leaves_the_descriptor_its_shape(store, tmp_path, assets):
    run, writer = HandMadeRun(), store.writer(assets=assets)
    described = run.descriptor(none={"shape": [0, 3], "dtype_numpy": "<i4"}, one={"shape": [2, 0]}, other={})
    writer("start", run.start)
    writer("descriptor", described)
    writer("event", run.event(described, none=np.empty((0, 3), "<i4"), one=[[], []], other=[]))
    writer("stop", run.stop())
    with Store(tmp_path / "copy") as copy:
        replay(store.root, copy.writer(), fill=False)
        for place in (store, copy):
            keys = next(doc["data_keys"] for name, doc in place[run.uid].documents() if name == "descriptor")
            assert [keys[key]["shape"] for key in ("none", "one", "other")] == [[0, 3], [2, 0], [0]]


def test_small_arrays_come_back_as_arrays_whatever_their_numbers_are(store):
    """JSON spells a float32 in another way than the float64 that it is read as."""
    run, writer = HandMadeRun(), store.writer()
    few = np.array([-4.5643213e15, 1e9, 1e-6, np.nan], np.float32)
    described = run.descriptor(
        few={"shape": [4], "dtype_numpy": "<f4"}, some={"shape": [3], "dtype_numpy": "<f4"}
    )
    writer("start", run.start)
    writer("descriptor", described)
    writer("event", run.event(described, few=few, some=few[:3]))
    writer("stop", run.stop())
    (event,) = (doc for name, doc in store[run.uid].documents(fill=True) if name == "event")
    for key, array in (("few", few), ("some", few[:3])):
        assert isinstance(event["data"][key], np.ndarray)
        assert (event["data"][key].dtype, event["data"][key].tobytes()) == (array.dtype, array.tobytes())
