"""Recordings in every form that the field writes, and ours: what was emitted comes back, and damage is told."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from itertools import accumulate

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import msgpack
import msgpack_numpy
import numpy as np
import pytest
import suitcase.jsonl
import suitcase.msgpack
from bluesky import RunEngine
from bluesky.callbacks.json_writer import JSONLinesWriter, JSONWriter
from equal_stores import assert_equal, comparable
from ophyd.sim import det1, motor

from gently_bluesky import LazyArray, Store, record, replay
from gently_bluesky.documents.record import Recording
from gently_bluesky.errors import (
    AssetMissing,
    InvalidDocument,
    InvalidSetting,
    JournalDamaged,
    StorageError,
    WriterClosed,
)
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.documents import HandMadeRun

OURS = ["ours.jsonl", "ours.jsonl.gz", "ours.msgpack", "ours.msgpack.gz"]
THEIRS = ["suitcase.jsonl", "suitcase.msgpack"]
BLUESKYS = ["lines.jsonl", "array.json"]


def collect(source, **settings):
    seen = []
    replay(source, lambda name, doc: seen.append((name, doc)), **settings)
    return seen


def said(documents):
    return [(name, comparable(doc)) for name, doc in documents]


# -- what was emitted comes back ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A folder with two runs, each in a folder of its own, in all forms; and what was emitted."""
    folder = tmp_path_factory.mktemp("night")
    engine = RunEngine({}, call_returns_result=False)
    emitted = {"volume": [], "scan": []}
    plans = {
        "volume": acquire_volume(SimulatedDiSPIM(size=16, n_slices=2), num=2),
        "scan": bpp.baseline_wrapper(bp.scan([det1], motor, -1, 1, 3), [motor]),
    }
    for kind, plan in plans.items():
        place = folder / kind
        place.mkdir()
        writers = [
            suitcase.jsonl.Serializer(place, "suitcase"),
            suitcase.msgpack.Serializer(place, "suitcase"),
        ]
        if kind == "scan":  # bluesky's own break on arrays
            writers += [JSONLinesWriter(str(place), "lines.jsonl"), JSONWriter(str(place), "array.json")]
        recordings = [record(engine, place / name) for name in OURS]
        tokens = [engine.subscribe(one) for one in writers]
        tokens.append(engine.subscribe(lambda name, doc, of=emitted[kind]: of.append((name, doc))))
        engine(plan)
        for token in tokens:
            engine.unsubscribe(token)
        for recording in recordings:
            recording.close()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
    return folder, emitted


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("volume", name) for name in OURS + THEIRS), *(("scan", name) for name in OURS + THEIRS + BLUESKYS)],
)
def test_what_was_recorded_comes_back_as_it_was_emitted_arrays_and_all(night, kind, name):
    folder, emitted = night
    assert said(collect(folder / kind / name)) == said(emitted[kind])


@pytest.mark.parametrize("name", OURS[1:3])
def test_a_recording_stored_later_gives_the_store_that_the_live_run_would_have_given(night, tmp_path, name):
    folder, emitted = night
    with Store(tmp_path / "live") as live:
        writer = live.writer()
        for document in emitted["volume"]:
            writer(*document)
    with Store(tmp_path / "later") as later:
        replay(folder / "volume" / name, later.writer())
    assert_equal(tmp_path / "live", tmp_path / "later", same_format=True)


def test_the_form_is_what_a_file_begins_with_not_how_it_is_called(night, tmp_path):
    folder, emitted = night
    for number, name in enumerate(OURS + THEIRS):
        disguised = tmp_path / f"{number}.json"
        disguised.write_bytes((folder / "volume" / name).read_bytes())
        assert said(collect(disguised)) == said(emitted["volume"])
    bare = (folder / "scan" / "lines.jsonl").read_text("utf-8")
    (tmp_path / "marked").write_text("\n" + bare.replace("\n", "\r\n\r\n"), "utf-8-sig")
    assert said(collect(tmp_path / "marked")) == said(emitted["scan"])


def test_what_tiled_exports_is_replayed(night, tmp_path):
    """In the frames of its exporter to json-seq."""
    _, emitted = night
    text = "".join(f"\x1e{json.dumps({'name': name, 'doc': doc})}\n" for name, doc in emitted["scan"])
    (tmp_path / "run.json-seq").write_text(text)
    pretty = "".join(f"\x1e{json.dumps([name, doc], indent=1)}\n" for name, doc in emitted["scan"])
    (tmp_path / "pretty").write_text(pretty)
    for name in ("run.json-seq", "pretty"):
        assert said(collect(tmp_path / name)) == said(emitted["scan"])


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_in_one_line_or_in_many_is_read_piece_by_piece(tmp_path, indent):
    run = HandMadeRun(devices=[{"name": "start", "doc": {}}], text='"]}, {"name": "stop", "doc": {\\')
    described = run.descriptor(motor={})
    events = [run.event(described, motor=float(n), text="µm" * 200) for n in range(2000)]
    documents = [("start", run.start), ("descriptor", described), *(("event", doc) for doc in events)]
    text = json.dumps([{"name": name, "doc": doc} for name, doc in documents], indent=indent)
    (tmp_path / "run.json").write_text(text, "utf-8")
    assert (tmp_path / "run.json").stat().st_size > 2**20
    assert collect(tmp_path / "run.json", fill=False) == documents


def test_arrays_come_back_exactly_whatever_their_descriptor_says(RE, tmp_path):
    arrays = {
        "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "half": np.array([0.1, np.nan, np.inf], np.float16),
        "single": np.array([[0.1], [1e-40]], np.float32),
        "none": np.empty((0, 3), np.int32),
        "one": np.array(3, np.int64),
        "truth": np.eye(2) == 1,
        "words": np.array(["µm", "s"]),
        "swapped": np.arange(3, dtype=">u2"),
        "number": np.float32(0.1),
        "count": np.int64(3),
    }
    run = HandMadeRun()
    described = run.descriptor(**{key: {} for key in arrays})
    for name in OURS:
        with Recording(tmp_path / name) as recording:
            recording("start", run.start)
            recording("descriptor", described)
            recording("event", run.event(described, **arrays))
        (event,) = (doc for name, doc in collect(recording.path) if name == "event")
        assert comparable(event["data"]) == comparable(arrays)
        assert [*map(type, event["data"].values())] == [*map(type, arrays.values())]
    numbers = {"phase": np.array([1 + 2j]), "both": (1, [np.float64(0.5)]), "complex": 1 - 1j, "raw": b"\0"}
    with Recording(tmp_path / "more.msgpack") as recording:
        recording("start", run.start)
        recording("descriptor", described)
        recording("event", run.event(described, **numbers))
    data = collect(recording.path)[2][1]["data"]
    assert data["phase"].tolist() == [1 + 2j]
    assert (data["both"], type(data["both"][1][0])) == ([1, [0.5]], np.float64)
    assert (data["complex"], data["raw"]) == (1 - 1j, b"\0")


def test_pairs_a_run_and_an_open_file_are_replayed_too(RE, store, tmp_path):
    RE.subscribe(store.writer())
    with record(RE, tmp_path / "run.jsonl") as recording:
        (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=16, n_slices=2), num=2))
    came = said(collect(recording.path))
    run = store[uid]
    data_of = [
        [doc["data"]["view_a"] for name, doc in collect(source) if name == "event"]
        for source in (run, run.documents(), list(run.documents()), list(run.documents(fill=True)))
    ]
    for arrays in data_of:
        assert all(isinstance(array, LazyArray) for array in arrays)
        assert np.array_equal(arrays, run["view_a"])
    with recording.path.open("rb") as file:
        assert said(collect(file)) == came
    with pytest.raises(InvalidSetting, match="expected a path, a run, or pairs"):
        replay(7)
    with pytest.raises(InvalidDocument, match="what was handed in: document 1"):
        replay(["start"])


def test_documents_that_were_handed_in_stay_as_they_are(tmp_path):
    run = HandMadeRun()
    described = run.descriptor(motor={})
    documents = [("start", run.start), ("descriptor", described), ("event", run.event(described, motor=[1]))]
    before = json.dumps(documents)

    def vandal(name, doc):
        doc.get("data", {}).clear()
        doc.clear()

    replay(documents, vandal, fill=False)
    replay(documents, vandal)
    assert json.dumps(documents) == before


# -- a folder ----------------------------------------------------------------------------------------------


@bpp.set_run_key_decorator("inner")
@bpp.run_decorator(md={"kind": "inner"})
def inner():
    for _ in range(2):
        yield from bps.trigger_and_read([motor])


@bpp.set_run_key_decorator("outer")
@bpp.run_decorator(md={"kind": "outer"})
def outer():
    for _ in range(2):
        yield from bps.trigger_and_read([motor])
        yield from inner()


class FilePerRun:
    """Records each run into a file of its own, as suitcases do, in a form that goes by turns."""

    def __init__(self, folder):
        self.recordings = {}
        self._folder = folder
        self._runs = {}

    def __call__(self, name, doc):
        if name == "start":
            number = len(self.recordings)
            place = (
                self._folder / f"{'ab'[number % 2]}" / f"{doc['uid']}{['.jsonl', '.msgpack.gz'][number % 2]}"
            )
            self.recordings[doc["uid"]] = Recording(place)
        run = self._runs.get(doc.get("descriptor"), doc.get("run_start", doc["uid"]))
        if name == "descriptor":
            self._runs[doc["uid"]] = run
        self.recordings[run](name, doc)
        if name == "stop":
            self.recordings[run].close()


def test_runs_in_files_of_their_own_are_replayed_interleaved_as_they_happened(RE, root, tmp_path):
    came, per_run = [], FilePerRun(tmp_path / "night")
    RE.subscribe(lambda name, doc: came.append((name, doc)))
    RE.subscribe(per_run)
    with Store(root) as store:
        RE.subscribe(store.writer())
        RE(outer())
        RE(outer())
    (tmp_path / "night" / "settings.json").write_text('{"exposure_s": 0.1}')
    (tmp_path / "night" / "notes.txt").write_text("[a cold night]")
    assert len(per_run.recordings) == 6
    assert said(collect(tmp_path / "night")) == said(came)
    uids = [(name, doc["uid"]) for name, doc in came]
    assert [(name, doc["uid"]) for name, doc in collect(root)] == uids, "of a store's journals too"
    with Store(tmp_path / "copy") as copy:
        replay(tmp_path / "night", copy.writer())
    assert_equal(root, tmp_path / "copy", same_format=True)


def test_what_says_no_time_stays_with_what_is_before_it_in_its_file(tmp_path):
    first, second = HandMadeRun("first"), HandMadeRun("second")
    files = {
        "a": [(1, "start", first), (None, "resource", first), (4, "stop", first)],
        "b": [(2, "start", second), (None, "resource", second), (3, "stop", second)],
    }
    for file, documents in files.items():
        with Recording(tmp_path / f"{file}.jsonl") as recording:
            for time, name, run in documents:
                doc = (
                    {"uid": run.uid}
                    if name == "start"
                    else {"uid": f"{name} {run.uid}", "run_start": run.uid}
                )
                recording(name, doc if time is None else {**doc, "time": time})
    assert [(name, doc["uid"]) for name, doc in collect(tmp_path, fill=False)] == [
        ("start", "first"), ("resource", "resource first"), ("start", "second"),
        ("resource", "resource second"), ("stop", "stop second"), ("stop", "stop first"),
    ]  # fmt: skip


def test_a_run_that_is_in_a_folder_twice_is_replayed_once_or_not_at_all(night, tmp_path):
    folder, emitted = night
    for name in ("ours.jsonl", "suitcase.msgpack"):
        (tmp_path / name).write_bytes((folder / "scan" / name).read_bytes())
    with pytest.raises(InvalidDocument, match=r"is in .*ours.jsonl too: move one of them away"):
        replay(tmp_path)
    bad = []
    assert said(collect(tmp_path, skip_bad=bad.append)) == said(emitted["scan"])
    assert [one.source for one in bad] == [str(tmp_path / "suitcase.msgpack")]


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(night, tmp_path, monkeypatch):
    folder, emitted = night
    (tmp_path / "closed").mkdir()
    (tmp_path / "ours.jsonl").write_bytes((folder / "scan" / "ours.jsonl").read_bytes())
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"closed: its files: cannot be listed .*Permission denied"):
        replay(tmp_path)
    bad = []
    assert said(collect(tmp_path, skip_bad=bad.append)) == said(emitted["scan"])
    assert [one.source for one in bad] == [str(tmp_path / "closed")]


def test_progress_moves_where_damage_is_passed_over_too(RE, root):
    with Store(root) as store:
        RE.subscribe(store.writer())
        RE(bp.count([motor], num=3))
    (journal,) = root.rglob("documents.jsonl")
    told = []
    replay(journal, progress=told.append, skip_bad=True)
    assert told[-1].nbytes == told[-1].total_nbytes == journal.stat().st_size


def test_a_recording_that_is_damaged_where_it_begins_is_not_taken_for_something_else(night, tmp_path):
    folder, emitted = night
    content = (folder / "scan" / "ours.jsonl").read_bytes()
    (tmp_path / "a.jsonl").write_bytes(b"\0\0" + content)
    (tmp_path / "b.jsonl").write_bytes((folder / "volume" / "ours.jsonl").read_bytes())
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InvalidDocument, match=r"a\.jsonl: its beginning: expected recorded documents"):
        replay(tmp_path)
    assert said(collect(tmp_path, skip_bad=lambda bad: None)) == said(emitted["volume"])


# -- what goes wrong ---------------------------------------------------------------------------------------


def small_documents():
    run = HandMadeRun("r")
    described = run.descriptor(m={})
    events = [run.event(described, m=n) for n in range(2)]
    for doc in (run.start, described, *events):
        doc["time"] = 1.0
    return [
        ("start", run.start), ("descriptor", described), *(("event", doc) for doc in events), ("stop", run.stop()),
    ]  # fmt: skip


FORMS = {
    "lines": lambda name, doc: json.dumps({"name": name, "doc": doc}).encode() + b"\n",
    "pairs": lambda name, doc: json.dumps([name, doc]).encode() + b"\n",
    "sequence": lambda name, doc: b"\x1e" + json.dumps({"name": name, "doc": doc}).encode() + b"\n",
    "packed": lambda name, doc: msgpack.packb([name, doc]),
}


STEPS = pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.long)])


def cuts(content, ends, step):
    """Where a file is cut: between and around its documents, and within them."""
    around = {end + off for end in ends for off in range(-4, 5)}
    return sorted(cut for cut in {*range(1, len(content), step), *around} if 0 < cut < len(content))


@STEPS
@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_at_any_byte_gives_the_documents_before_it_and_then_one_clear_error(tmp_path, form, step):
    documents = small_documents()
    pieces = [FORMS[form](*document) for document in documents]
    ends = list(accumulate(map(len, pieces)))
    content, path = b"".join(pieces), tmp_path / "cut"
    newline = len(pieces[0]) - len(pieces[0].rstrip(b"\n"))
    for cut in cuts(content, ends, step):
        path.write_bytes(content[:cut])
        whole = sum(end - newline <= cut for end in ends)
        is_between = any(end - newline <= cut <= end + (form == "sequence") for end in ends)
        seen, bad = [], []
        replay(path, lambda name, doc, to=seen: to.append((name, doc)), fill=False, skip_bad=bad.append)
        assert (seen, len(bad)) == (documents[:whole], 0 if is_between or cut == (form == "sequence") else 1)
        if bad:
            with pytest.raises(JournalDamaged, match=re.escape(f"{path}: {bad[0].place}: {bad[0].reason}")):
                replay(path, fill=False)
            assert re.fullmatch(rf"(line|document) {whole + 1}", bad[0].place)


@STEPS
def test_an_array_cut_at_any_byte_gives_the_documents_before_it_and_then_one_clear_error(tmp_path, step):
    documents, path = small_documents(), tmp_path / "cut"
    writer = JSONWriter(str(tmp_path), "cut")
    for document in documents:
        writer(*document)
    content = path.read_bytes()
    ends = [found.end() for found in re.finditer(rb"}(?=,?\n[{\]])", content)]
    assert len(ends) == len(documents)
    for cut in cuts(content, ends, step):
        path.write_bytes(content[:cut])
        seen, bad = [], []
        replay(path, lambda name, doc, to=seen: to.append((name, doc)), fill=False, skip_bad=bad.append)
        assert seen == documents[: len(seen)]
        assert len(seen) == sum(end <= cut for end in ends)
        assert len(bad) == 1
    with pytest.raises(JournalDamaged, match="the file ends before its array does"):
        replay(path)


@STEPS
def test_a_compressed_recording_whose_process_was_killed_holds_all_that_was_recorded(tmp_path, step):
    documents = small_documents()
    with Recording(tmp_path / "run.jsonl.gz") as recording:
        for number, document in enumerate(documents):
            recording(*document)
            killed = tmp_path / f"killed.{number}"
            killed.write_bytes(recording.path.read_bytes())
            seen, bad = [], []
            replay(killed, lambda name, doc, to=seen: to.append((name, doc)), fill=False, skip_bad=bad.append)
            assert (seen, len(bad)) == (documents[: number + 1], 1)
            with pytest.raises(JournalDamaged, match=f"line {number + 2}: the compressed data end here"):
                replay(killed)
    content = recording.path.read_bytes()
    for cut in range(3, len(content), step):
        killed.write_bytes(content[:cut])
        seen, bad = [], []
        replay(killed, lambda name, doc, to=seen: to.append((name, doc)), fill=False, skip_bad=bad.append)
        assert (seen, len(bad) > 0) == (documents[: len(seen)], True)


def test_with_skip_bad_what_refers_to_what_is_bad_is_passed_over_too_and_the_rest_goes_on(tmp_path):
    one, other = HandMadeRun("one"), HandMadeRun("other")
    lost, kept = one.descriptor("lost", m={}), one.descriptor("kept", m={})
    theirs = other.descriptor(m={})
    lines = [
        ("start", one.start), ("descriptor", lost), ("descriptor", kept), ("event", one.event(lost, m=1)),
        ("event", one.event(kept, m=2)), ("start", other.start), ("descriptor", theirs),
        ("event", other.event(theirs, m=3)), ("events", {"uid": "u"}), ("stop", one.stop()), ("stop", other.stop()),
    ]  # fmt: skip
    text = [FORMS["lines"](*line) for line in lines]
    text[1] = text[1][:40] + b"#" + text[1][41:].replace(b'"', b"'")
    text[6] = text[6].replace(b'"run_start": "other"', b'"run_start": "nobody"')
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"".join(text))
    bad = []
    seen = collect(path, fill=False, skip_bad=bad.append)
    assert [name for name, _ in seen] == ["start", "descriptor", "event", "start", "stop", "stop"]
    assert [(one.place, one.name) for one in bad] == [
        ("line 2", ""), ("line 4", "event"), ("line 7", "descriptor"), ("line 8", "event"), ("line 9", ""),
    ]  # fmt: skip
    assert "did not come before it" in bad[1].reason
    with pytest.warns(RuntimeWarning, match=r"5 documents were not replayed: .*broken.jsonl: line 2.*2 more"):
        collect(path, fill=False, skip_bad=True)
    with pytest.raises(JournalDamaged, match=r"broken\.jsonl: line 2: it is no document"):
        collect(path)
    path.write_bytes(b"".join([*text[:1], *text[2:]]))
    with pytest.raises(
        InvalidDocument, match=r"line 3 \(event\): it is no valid event document: its descriptor"
    ):
        collect(path)


def refused_by_a_store():
    """A run of which a store refuses the descriptor, and one as it should be; they take turns."""
    one, other = HandMadeRun("one"), HandMadeRun("other")
    described, theirs = one.descriptor(m={}), other.descriptor(m={})
    documents = [
        ("start", one.start), ("descriptor", described), ("start", other.start), ("descriptor", theirs),
        ("event", one.event(described, m=1)), ("event", other.event(theirs, m=2)),
        ("stop", one.stop()), ("stop", other.stop()),
    ]  # fmt: skip
    for number, (_, doc) in enumerate(documents):
        doc["time"] = 1e9 + number
    described["time"] = "soon"
    return documents


def test_what_a_store_refuses_is_told_with_its_place_and_can_be_passed_over(root, tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(FORMS["lines"](*document) for document in refused_by_a_store()))
    with (
        pytest.raises(InvalidDocument, match=r"run\.jsonl: line 2 \(descriptor\): .*skip_bad"),
        Store(root) as store,
    ):
        replay(path, store.writer())
    bad = []
    with Store(tmp_path / "other") as store:
        replay(path, store.writer(), skip_bad=bad.append)
        assert [(one.place, one.name) for one in bad] == [
            ("line 2", "descriptor"),
            ("line 5", "event"),
            ("line 7", "stop"),
        ]
        assert [store[uid].status for uid in ("one", "other")] == ["failed", "complete"]


def test_of_files_that_are_interleaved_the_one_that_a_store_refuses_is_named(root, tmp_path):
    files = {"one": tmp_path / "a.jsonl", "other": tmp_path / "b.jsonl"}
    for number, (name, doc) in enumerate(refused_by_a_store()):
        of = "one" if number in {0, 1, 4, 6} else "other"
        with files[of].open("ab") as file:
            file.write(FORMS["lines"](name, doc))
    bad = []
    with Store(root) as store:
        replay(tmp_path, store.writer(), skip_bad=bad.append)
    assert [(one.source, one.place) for one in bad] == [
        (str(files["one"]), place) for place in ("line 2", "line 3", "line 4")
    ]


@pytest.mark.parametrize(("name", "key"), [("descriptor", "data_keys"), ("event", "data")])
@pytest.mark.parametrize("value", [None, 3, [1]])
def test_what_everybody_looks_into_is_looked_at_before_it_is_sent(tmp_path, name, key, value):
    documents = small_documents()
    number = next(n for n, (kind, _) in enumerate(documents) if kind == name)
    documents[number][1][key] = value
    (tmp_path / "run").write_bytes(b"".join(FORMS["lines"](*document) for document in documents))
    for fill in (True, False):
        with pytest.raises(
            InvalidDocument, match=rf"run: line {number + 1} \({name}\): .*its {key} is .*no map"
        ):
            replay(tmp_path / "run", fill=fill)


def test_with_skip_bad_an_asset_that_is_gone_takes_its_events_with_it_and_no_others(RE, store, tmp_path):
    RE.subscribe(store.writer())
    (uid,) = RE(bpp.baseline_wrapper(acquire_volume(SimulatedDiSPIM(size=16, n_slices=2), num=2), [motor]))
    documents = list(store[uid].documents())
    gone = next(doc["uid"] for name, doc in documents if name == "resource")
    text = [FORMS["lines"](*named) for named in documents]
    number = next(n for n, (name, doc) in enumerate(documents) if doc.get("uid") == gone)
    text[number] = b"{" + text[number]
    (tmp_path / "run.jsonl").write_bytes(b"".join(text))
    bad = []
    seen = collect(tmp_path / "run.jsonl", skip_bad=bad.append)
    names = [name for name, _ in seen]
    assert (names.count("event"), names.count("descriptor"), names[-1]) == (2, 2, "stop")  # the baseline's
    assert [one.name for one in bad].count("event") == 2
    assert bad[0].place == f"line {number + 1}"


def test_a_damaged_journal_of_a_store_goes_on_behind_the_damage_where_that_is_asked_for(RE, root):
    with Store(root) as store:
        RE.subscribe(store.writer())
        RE(bp.scan([det1], motor, -1, 1, 4))
        RE(bp.count([motor]))
        for value in (1, 2, 3):
            store.put(value, data_type="n")
    (journal,) = root.rglob("*scan*/documents.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"det1", b"det2", 1)
    journal.write_bytes(b"".join([*lines, b'{"name":"ev']))
    (derived,) = root.rglob("derived-*.jsonl")
    lines = derived.read_bytes().splitlines(keepends=True)
    derived.write_bytes(b"".join([*lines[:5], b"#" + lines[5], *lines[6:]]))
    bad = []
    names = [name for name, _ in collect(root, fill=False, skip_bad=bad.append)]
    assert (names.count("start"), names.count("stop"), len(bad)) == (5, 5, 3)
    assert "its checksum is that of other bytes" in bad[0].reason
    with pytest.raises(JournalDamaged, match="line"):
        replay(root)


class Exploding:
    """What unpickling would do."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_nothing_is_ever_unpickled(tmp_path):
    documents = small_documents()
    pickled = np.empty(1, object)
    pickled[0] = Exploding()
    documents[2][1]["data"]["m"] = pickled
    path = tmp_path / "night.msgpack"
    path.write_bytes(b"".join(msgpack.packb(pair, default=msgpack_numpy.encode) for pair in documents))
    with pytest.raises(
        JournalDamaged, match=r"document 3: .*an array of objects is a pickle, and nothing is ever"
    ):
        replay(path)
    bad = []
    assert [name for name, _ in collect(path, skip_bad=bad.append)] == [
        "start",
        "descriptor",
        "event",
        "stop",
    ]
    path.write_bytes(pickle.dumps(("start", Exploding())))
    with pytest.raises(InvalidDocument, match="expected recorded documents"):
        replay(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"shape": [2**40]}, "needs others"),
        ({b"shape": [-1]}, "a shape of"),
        ({b"shape": 4}, "a shape of"),
        ({b"type": "O"}, "a dtype of"),
        ({b"type": [["a", "O"]], b"kind": b"V"}, "a dtype of"),
        ({b"type": "|V4"}, "a dtype of"),
        ({b"type": "|b1"}, "neither 0 nor 1"),
        ({b"type": "<U1", b"shape": [1]}, "characters"),
        ({b"data": b""}, "0 bytes"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused_before_memory_is_taken(tmp_path, change, reason):
    array = {b"nd": True, b"type": "|u1", b"kind": b"", b"shape": [4], b"data": b"\xff" * 4, **change}
    packed = msgpack.packb(["start", {"uid": "r", "time": 1.0, "image": array}])
    (tmp_path / "run.msgpack").write_bytes(packed)
    with pytest.raises(JournalDamaged, match=reason):
        replay(tmp_path / "run.msgpack")


def test_structured_arrays_that_suitcase_packed_come_back(tmp_path):
    table = np.array([(1, [0.5, 1.5]), (2, [2.5, 3.5])], [("id", "<i4"), ("at", "<f8", (2,))])
    documents = [("start", {"uid": "r", "time": 1.0, "table": table})]
    (tmp_path / "run").write_bytes(
        b"".join(msgpack.packb(one, default=msgpack_numpy.encode) for one in documents)
    )
    ((_, doc),) = collect(tmp_path / "run")
    assert doc["table"].dtype == table.dtype
    assert np.array_equal(doc["table"], table)


# -- recording ---------------------------------------------------------------------------------------------


def test_a_recording_ends_when_it_is_closed_and_overwrites_nothing(RE, tmp_path):
    with record(RE, tmp_path / "new" / "run.jsonl") as recording:
        RE(bp.count([motor]))
        assert len(collect(recording.path)) == 4, "it is there while it goes on"
        assert repr(recording) == f"<Recording {recording.path} (open, 4 documents)>"
    RE(bp.count([motor]))
    recording.close()
    assert recording.documents == len(collect(recording.path)) == 4
    with pytest.raises(FileExistsError, match=r"run.jsonl is there already; nothing was recorded"):
        record(RE, recording.path)
    assert len(collect(recording.path)) == 4
    with pytest.raises(WriterClosed, match="a stop was not recorded"):
        recording("stop", {})
    with pytest.raises(InvalidSetting, match="expected a RunEngine"):
        record(print, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_of_a_writer_what_it_announced_is_recorded(RE, store, tmp_path):
    writer = store.writer()
    RE.subscribe(writer)
    with record(writer, tmp_path / "announced.jsonl"):
        (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=16, n_slices=2)))
    assert said(collect(tmp_path / "announced.jsonl", fill=False)) == said(store[uid].documents())
    filled = [doc for name, doc in collect(tmp_path / "announced.jsonl") if name == "event"]
    assert np.array_equal(filled[0]["data"]["view_a"], store[uid]["view_a"][0])


@pytest.mark.parametrize("name", ["r.jsonl", "r.msgpack"])
def test_what_cannot_be_recorded_fails_the_plan_and_leaves_the_file_whole(RE, tmp_path, name):
    with record(RE, tmp_path / name) as recording:
        with pytest.raises(InvalidDocument, match=r"a start (that )?cannot be (recorded|written)"):
            RE(bp.count([motor]), strange=np.array([object()]))
        RE(bp.count([motor]))
    names = [name for name, _ in collect(recording.path, skip_bad=lambda bad: None)]
    assert names == ["start", "descriptor", "event", "stop"]


def test_a_full_disk_fails_the_plan_and_leaves_whole_documents(tmp_path):
    resource = pytest.importorskip("resource")
    import signal

    documents = small_documents()
    recording = Recording(tmp_path / "run.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        recording(*documents[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (recording.path.stat().st_size + 20, limits[1]))
        for document in documents[1:3]:
            with pytest.raises(
                OSError, match=r"a descriptor could not be recorded, and nothing is any more; the 1"
            ):
                recording(*document)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
        recording.close()
    assert collect(recording.path) == documents[:1]


def test_a_place_where_nothing_is_says_so(tmp_path):
    with pytest.raises(AssetMissing, match="is not there; nothing was replayed"):
        replay(tmp_path / "nowhere.jsonl")
