"""What people, documents and files may say to do harm: one clear error, or stored and given back as it came."""

from __future__ import annotations

import ast
import json
import shutil
import unicodedata
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from foreign_runs import stream_run, uri_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import SHAPE, acquire, frame
from zygote import Zygote

import gently_bluesky
from gently_bluesky import Store
from gently_bluesky.errors import AssetMissing, GentlyError, InvalidDocument, PathNotAllowed, StoreUnusable
from gently_bluesky.testing.documents import HandMadeRun

DEEP = 100_000
NAMES = {
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "up": "../../../etc/passwd",
    "a root": "/etc/passwd",
    "a drive": "C:\\Windows\\x",
    "a share": "\\\\server\\share\\x",
    "reserved": "CON",
    "reserved with an ending": "nul.txt",
    "a stream of a file": "a:b",
    "a trailing dot": "a. ",
    "a NUL": "a\0b",
    "control characters": "a\r\n\x1b[2J\x7f",
    "right to left": "\u202egnp.exe",
    "composed": unicodedata.normalize("NFC", "é"),
    "decomposed": unicodedata.normalize("NFD", "é"),
    "very long": "x" * 10_000,
    "half a character": "\ud800",
    "no character": "\uffff\U0010ffff",
    "SQL": "'; DROP TABLE records; --",
    "wildcards": "%_*?[a-z]",
    "a template": "{0.__class__}%s%n",
    "HTML": "<script>alert(1)</script>",
}


def put_run(store: Store, run: HandMadeRun, stream: str, key: str) -> None:
    descriptor = run.descriptor(stream, **{key: {}})
    with store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, **{key: frame("r", "k", 1)}))
        writer("stop", run.stop())


@pytest.mark.parametrize("where", ["stream", "key", "plan_name", "session", "uid"])
def test_any_name_is_refused_or_comes_back_and_nothing_is_written_outside(tmp_path: Path, where: str) -> None:
    (tmp_path / "beside").write_text("mine")
    kept: list[str] = []
    with Store(tmp_path / "store") as store:
        for name in NAMES.values():
            run = HandMadeRun(**({where: name} if where in {"plan_name", "session", "uid"} else {}))
            stream, key = name if where == "stream" else "primary", name if where == "key" else "image"
            try:
                put_run(store, run, stream, key)
            except GentlyError:
                continue
            kept.append(run.uid)
            assert np.array_equal(store[run.uid][stream][key][0], frame("r", "k", 1))
            if where == "session":
                assert [found.uid for found in store.query(session=name)] == [run.uid]
            repr(store[run.uid])
            assert "<script>" not in store[run.uid]._repr_html_()
    assert {path.name for path in tmp_path.iterdir()} == {"beside", "store"}
    assert all(path.resolve().is_relative_to(tmp_path / "store") for path in (tmp_path / "store").rglob("*"))
    (tmp_path / "store" / "index.sqlite").unlink()
    with Store(tmp_path / "store") as store:
        assert sorted(record.uid for record in store.query(status="complete")) == sorted(kept)
        assert len(kept) >= len(NAMES) // 2
        assert all(np.array_equal(np.asarray(store.array(uid))[0], frame("r", "k", 1)) for uid in kept)


def test_names_that_differ_in_form_or_case_alone_keep_arrays_of_their_own(store: Store) -> None:
    keys = [NAMES["composed"], NAMES["decomposed"], "e", "E", "a-b", "a=2db", "con", "CON"]
    run = HandMadeRun()
    descriptor = run.descriptor(**{key: {} for key in keys})
    with store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        frames = {key: frame("r", key, number) for number, key in enumerate(keys)}
        writer("event", run.event(descriptor, **frames))
        writer("stop", run.stop())
    for key in keys:
        assert np.array_equal(store[run.uid][key][0], frames[key])
    folded = {path.name.casefold() for path in (store.root / store.record(run.uid).path).parent.iterdir()}
    assert len(folded) == len(keys) + 1


# -- values anywhere in a stream of documents ------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: dict[str, Any] = {
    **{repr(value): value for value in (None, True, False, 0, -1, 2**62, 2**63, 2**64, -(2**70), 1e308)},
    "10**400": 10**400,
    "NaN": float("nan"),
    "infinity": float("inf"),
    **{
        repr(value)[:20]: value
        for value in ("", "..", "/etc/passwd", "a\0b", "\ud800", "x" * 10_000, "primary")
    },
    **{repr(value): value for value in (b"bytes", {1, 2}, [], {}, [[]], {"": {}}, {"uid": "x"}, {1: 2})},
    "an object": object(),
    "a type": type,
    "an array": np.array([[1, 2]]),
    "an array of objects": np.array([object()]),
    "an empty array": np.zeros((0, 5)),
    "numpy's NaN": np.float64("nan"),
    "numpy's now": np.datetime64("2026-01-01T00:00:00"),
    "numpy's 3": np.int64(3),
    "deep lists": nested(500),
}
DRAWN = st.one_of(
    st.sampled_from(list(HOSTILE.values())),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document where another value could stand."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places_in(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    first, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[first] = replaced(value[first], tuple(rest), by)
    return copy


Named = tuple[str, Any]


def recorded(family: str, folder: Path) -> list[Named]:
    """A whole run with arrays in its events, or with a stream of somebody else's files."""
    if family == "foreign":
        return stream_run(
            "application/x-hdf5", uri_of(folder / "x.h5"), {"dataset": "/data"}, [(0, 1), (1, 2)]
        )
    run = HandMadeRun(sample={"age_h": 3, "tags": ["a", "b"]}, lineage={"parents": ["x"], "operation": "o"})
    descriptor = run.descriptor(image={"dims": ["z", "y", "x"], "shape": list(SHAPE)}, n={"dtype": "integer"})
    events = [
        ("event", run.event(descriptor, image=frame("r", "k", number), n=number)) for number in range(2)
    ]
    return [("start", run.start), ("descriptor", descriptor), *events, ("stop", run.stop())]


def drawn(family: str, folder: Path, data: st.DataObject) -> list[Named]:
    """Return a stream of documents in which one value is another than it was."""
    documents = recorded(family, folder)
    number = data.draw(st.integers(0, len(documents) - 1))
    name, doc = documents[number]
    documents[number] = name, replaced(doc, data.draw(st.sampled_from(replaceable(doc))), data.draw(DRAWN))
    return documents


def replaceable(doc: Any) -> list[tuple[Any, ...]]:
    """Every place but the document's uid, by which the others are judged."""
    return [path for path in places_in(doc) if path != ("uid",)]


def survives(folder: Path, documents: list[Named]) -> None:
    """Write documents with one hostile value; what is beside it goes on, and what was taken is given back."""
    beside, third = HandMadeRun(), HandMadeRun()
    raised: list[Exception] = []
    descriptor = beside.descriptor(image={})
    with Store(folder / "store") as store:
        try:
            with store.writer(min_free_bytes=0) as writer:
                # with one run open alone, a document that names nothing known would be that run's failure
                for named in [("start", third.start), ("start", beside.start), ("descriptor", descriptor)]:
                    writer(*named)
                writer("event", beside.event(descriptor, image=frame("b", "k", 0)))
                for name_, doc_ in documents:
                    try:
                        writer(name_, doc_)
                    except GentlyError as error:
                        raised.append(error)
                writer("event", beside.event(descriptor, image=frame("b", "k", 1)))
                writer("stop", beside.stop())
                writer("stop", third.stop())
        except GentlyError as error:
            assert raised, "only closing failed"
            raised.append(error)
        look(store, beside.uid, documents, raised)
    (folder / "store" / "index.sqlite").unlink()
    with Store(folder / "store") as store:
        look(store, beside.uid, documents, raised)


def look(store: Store, beside: str, documents: list[Named], raised: list[Exception]) -> None:
    assert store[beside].status == "complete"
    assert np.array_equal(store[beside]["image"], [frame("b", "k", 0), frame("b", "k", 1)])
    for record in store.query():
        run = store[record.uid]
        kept = list(run.documents())
        for stream in run.streams:
            for key in run[stream].data_keys:
                try:
                    run[stream][key].compute()
                except GentlyError:
                    continue
        if record.uid == beside or raised or not run.streams:
            continue
        for (name, now), (_, then) in zip(
            [pair for pair in kept if pair[0] in {"start", "stop"}],
            [pair for pair in documents if pair[0] in {"start", "stop"}],
            strict=True,
        ):
            assert text_of(now) == text_of(then), name


def text_of(value: Any) -> str:
    """The JSON of a value, NaN equal to NaN."""
    return json.dumps(value, sort_keys=True, default=_said)


def _said(held: Any) -> Any:
    return held.isoformat() if isinstance(held, datetime) else held.tolist()


@pytest.mark.parametrize("family", ["arrays", "foreign"])
@settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
@given(data=st.data())
def test_a_hostile_value_anywhere_is_its_run_s_failure_or_comes_back(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    survives(folder, drawn(family, folder, data))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", ["arrays", "foreign"])
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_hostile_values_by_the_thousand_are_their_runs_failures_or_come_back(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    survives(folder, drawn(family, folder, data))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("family", ["arrays", "foreign"])
def test_each_hostile_value_in_each_place_is_its_run_s_failure_or_comes_back(
    tmp_path: Path, family: str, value: Any
) -> None:
    for number, (_, doc) in enumerate(recorded(family, tmp_path)):
        for place in replaceable(doc):
            folder = tmp_path / "-".join(map(str, (number, *place)))
            documents = recorded(family, folder)
            name, whole = documents[number]
            documents[number] = name, replaced(whole, place, value)
            try:
                survives(folder, documents)
            except BaseException as error:
                error.add_note(f"in document {number}, at {place}")
                raise
            shutil.rmtree(folder)


# -- nesting, numbers, text ------------------------------------------------------------------------------------

VALUES = {
    "deep lists": lambda: nested(DEEP),
    "deep mappings": lambda: json.loads('{"a":' * 400 + "1" + "}" * 400),
    "a huge integer": lambda: 10**5000,
    "NaN": lambda: float("nan"),
    "infinity": lambda: [float("inf"), -float("inf")],
    "half a character": lambda: "\udfff",
    "a large text": lambda: "x" * 2**22,
    "many keys": lambda: {str(number): number for number in range(2000)},
    "bytes": lambda: b"\xff",
    "a circle": lambda: circle(),
}


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_metadata_of_any_make_are_refused_or_come_back(store: Store, value: Any) -> None:
    given_ = value()
    try:
        record = store.put({"n": 1}, data_type="t", parameters={"value": given_}, mark=given_)
    except GentlyError as error:
        said = str(error)
        assert "was not stored" in said or "nothing was stored" in said  # or none is raised
        assert list(store.query()) == []
    else:
        with Store(store.root, mode="r") as reader:
            found = reader.record(record.uid).metadata
        assert text_of([found["mark"], found["lineage"]["parameters"]["value"]]) == text_of([given_, given_])
    assert store.get(store.put({"n": 2}, data_type="t").uid) == {"n": 2}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_data_of_any_make_are_refused_or_come_back(store: Store, value: Any) -> None:
    given_ = value()
    try:
        record = store.put({"value": given_}, data_type="t")
    except GentlyError as error:
        assert "stored" in str(error)  # noqa: PT017 # or none is raised
    else:
        assert text_of(store.get(record.uid)) == text_of({"value": given_})


FILES = {
    "deep": b"[" * DEEP + b"]" * DEEP,
    "deep mappings": b'{"name":' * DEEP + b"1" + b"}" * DEEP,
    "a huge number": b'{"name":"start","doc":{"uid":"u","time":' + b"9" * 100_000 + b"}}",
    "no UTF-8": b'{"name":"start","doc":{"uid":"\xff\xfe","time":1}}',
    "half a character": b'{"name":"start","doc":{"uid":"\\ud800","time":1}}',
    "keys twice": b'{"name":"start","name":"stop","doc":{"uid":"u","uid":"v","time":1},"doc":{}}',
    "NaN": b'{"name":"start","doc":{"uid":"u","time":NaN}}',
    "a bare word": b"null",
    "an unknown document": b'{"name":"__init__","doc":{}}',
}


@pytest.mark.parametrize(
    ("place", "content"),
    [("a journal", content) for content in FILES]
    + [
        (place, content)
        for place in ("a journal of results", "the marker", "an array", "a group")
        for content in ("deep", "a bare word")
    ],
)
def test_files_of_hostile_json_are_left_alone_and_said_to_be_damaged(
    children: Zygote, tmp_path: Path, place: str, content: str
) -> None:
    """In a child: a parser that recurses without end ends its process."""
    (tmp_path / "content").write_bytes(FILES[content])
    said = children.call("meet_json", folder=str(tmp_path), place=place)
    assert said["beside"]
    assert said["error"] or place in {"a group", "a journal of results"}


# -- links and places ------------------------------------------------------------------------------------------

WARNED = {"a run", "a journal", "results", "a day", "a lock"}


@pytest.mark.parametrize("what", ["a run", "a journal", "an asset", "an event", "results", "a lock", "a day"])
def test_a_link_out_of_the_store_is_not_followed_and_what_it_leads_to_is_not_changed(
    tmp_path: Path, what: str
) -> None:
    """A store from somebody else, in which one thing is a link to a file or folder of ours."""
    root, secret = tmp_path / "store", tmp_path / "secret"
    kept = acquire(root, "r", format="tiff")
    with Store(root) as store:
        folder = (root / store.record(kept.uid).path).parent
    place = {
        "a run": folder,
        "a journal": folder / "documents.jsonl",
        "an asset": folder / "primary-view_a",
        "an event": folder / "primary-view_a" / "000001.ome.tif",
        "results": folder.parent / "derived-00000000.jsonl",
        "a lock": folder / ".live",
        "a day": folder.parent,
    }[what]
    if place.exists():
        place.rename(secret)
    else:
        secret.write_text("one line that is no document")
    place.symlink_to(secret)
    (root / "index.sqlite").unlink()
    before = contents(secret)
    for mode in ("r", "a"):
        warned = pytest.warns(RuntimeWarning, match="left alone")
        is_warned = what in WARNED and (mode, what) != ("r", "a lock")
        with warned if is_warned else nullcontext(), Store(root, mode=mode) as store:
            reads = [
                lambda: store[kept.uid]["view_a"].compute(),
                lambda: store[kept.uid]["view_a"][1].compute(),
            ]
            for read in reads:
                if what in {"results", "a lock"}:
                    read()
                    continue
                with pytest.raises(GentlyError):
                    read()
        assert contents(secret) == before
    if what == "an asset":
        with Store(root, mode="r", allowed_roots=[secret]) as store:
            assert np.array_equal(store[kept.uid]["view_a"], kept.arrays["view_a"])


def contents(place: Path) -> dict[str, bytes]:
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def test_a_link_within_the_store_is_followed(tmp_path: Path) -> None:
    """Programs that keep versions of files put links in their place."""
    kept = [acquire(tmp_path / "store", format, format=format) for format in ("zarr", "tiff")]
    objects = tmp_path / "store" / ".objects"
    objects.mkdir()
    for number, file in enumerate(sorted((tmp_path / "store" / "runs").rglob("*"))):
        if file.is_file() and (file.suffix == ".tif" or "c" in file.parts):
            file.rename(objects / str(number))
            file.symlink_to(objects / str(number))
    with Store(tmp_path / "store", mode="r") as store:
        for one in kept:
            assert np.array_equal(store[one.uid]["view_a"], one.arrays["view_a"])


@pytest.mark.parametrize("place", ["0", "0/zarr.json", "0/c/1", "0/c/1/0/0/0"])
def test_no_part_of_an_array_is_read_by_a_link_out_of_the_store(tmp_path: Path, place: str) -> None:
    kept = acquire(tmp_path / "store", "r", format="zarr")
    (path,) = (tmp_path / "store" / "runs").rglob(f"primary-view_a.ome.zarr/{place}")
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with (
        Store(tmp_path / "store", mode="r") as store,
        pytest.raises(PathNotAllowed, match="nothing was read there"),
    ):
        store[kept.uid]["view_a"].compute()


URIS = [
    *("file:///C:/x", "file://C:/x", "file:///%43%3A/x", "file:////server/share/x", "file://server/share/x"),
    *("file:///%2e%2e/%2e%2e/etc/passwd", "file://localhost/..%2f..%2fetc", "file:///" + "x" * 100_000),
    *(
        "FILE:///etc/passwd",
        "file:///etc/passwd?x#y",
        "file:///a\nb",
        "file:///\ud800".encode("utf-8", "replace").decode(),
    ),
    *("data:,x", "javascript:1", "ftp://x/y", "//x/y", "file", ":", "file://[::1]/x", "file:///%ff%fe"),
]


@pytest.mark.parametrize("uri", URIS, ids=range(len(URIS)))
def test_uris_lead_nowhere_but_into_allowed_roots(store: Store, uri: str) -> None:
    documents = stream_run("application/x-hdf5", uri, {"dataset": "/data"})
    with store.writer(min_free_bytes=0) as writer:
        for name, doc in documents:
            writer(name, doc)
    with pytest.raises((InvalidDocument, AssetMissing), match=r"nothing was read|no pixels were returned"):
        store[documents[0][1]["uid"]]["image"].compute()


# -- sizes -----------------------------------------------------------------------------------------------------

CLAIMS = [
    *(
        "zarr shape",
        "zarr chunks",
        "zarr events",
        "tiff shape",
        "tiff events",
        "memory shape",
        "point_number",
    ),
    *("stream_datum", "descriptor", "hdf5 virtual", "foreign zarr"),
]
REFUSALS = {"AssetDamaged", "AssetMissing", "InvalidDocument", "LookupFailed"}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_is_claimed_is_checked_before_memory_is_taken(
    children: Zygote, tmp_path: Path, claim: str
) -> None:
    """In a child that may have 1 GB more than it has."""
    said = children.call("meet_claim", folder=str(tmp_path), claim=claim)
    assert set(said) <= REFUSALS | {"an array of 0"}
    assert said


@pytest.mark.parametrize("number", [2**62, 2**64, -1, -(2**70), True, 1.5, "0", None, [0], {}])
def test_a_point_number_that_is_none_is_refused_when_it_is_opened(store: Store, number: Any) -> None:
    kept = acquire(store.root, "r", format="zarr")
    asset = store[kept.uid]["view_a"].uid
    run = HandMadeRun()
    resource = next(doc for name, doc in store[kept.uid].documents() if name == "resource")
    descriptor = run.descriptor(image={"external": "FILESTORE:", "shape": list(SHAPE)})
    event = {**run.event(descriptor, image="again/0"), "filled": {"image": False}}
    with store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("resource", {**resource, "uid": "again", "run_start": run.uid})
        writer(
            "datum", {"datum_id": "again/0", "resource": "again", "datum_kwargs": {"point_number": number}}
        )
        writer("event", event)
        writer("stop", run.stop())
    for read in (lambda: store[run.uid]["image"].compute(), lambda: store.array("again/0").compute()):
        with pytest.raises(GentlyError, match=r"again|image|event|datum"):
            read()
    assert np.array_equal(store.array(asset), kept.arrays["view_a"])


# -- questions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_hostile_questions_get_no_answer_and_change_nothing(store: Store, name: str) -> None:
    record = store.put({"n": 1}, data_type="t", session="s")
    for ask in (
        lambda: store[name],
        lambda: store.record(name),
        lambda: store.array(name),
        lambda: store.get(name),
        lambda: store.lineage(name),
        lambda: store.children(name),
        lambda: store.latest(session=name),
        lambda: store.latest(since=name),
        lambda: store.latest(status=name),
        lambda: store.latest(kind=name),
        lambda: store.latest(**{name or "x": name}),
        lambda: store.latest(sample={name: {name: name}}),
        lambda: store[record.uid][name],
        lambda: store.put({"n": 1}, data_type="t", parents=[name]),
    ):
        with pytest.raises(GentlyError):
            ask()
    assert [found.uid for found in store.query()] == [record.uid]
    assert store.get(record.uid) == {"n": 1}


# -- nothing is run --------------------------------------------------------------------------------------------

LOADERS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "ruamel",
    "ruyaml",
}
CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_in_the_package_unpickles_or_loads_yaml() -> None:
    for path in Path(gently_bluesky.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & LOADERS, path
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                assert not (isinstance(node.func, ast.Name) and called in CALLS), f"{path}:{node.lineno}"
                assert not any(word.arg == "allow_pickle" for word in node.keywords), f"{path}:{node.lineno}"
                assert called not in {"load_npy", "read_pickle"}, f"{path}:{node.lineno}"


def test_a_marker_of_a_store_is_not_believed(root: Path) -> None:
    Store(root).close()
    marker = root / "gently-store.json"
    good = orjson.loads(marker.read_bytes())
    spoilt = ({"format_version": 10**400}, {"format_version": "1"}, {"store_uid": ["x"]}, {"store_uid": ""})
    for text in (*(json.dumps({**good, **bad}) for bad in spoilt), "[" * DEEP, "null", "\0" * 4096):
        marker.write_text(text)
        for mode in ("r", "a"):
            with pytest.raises(StoreUnusable, match=r"is not the marker of a store|upgrade"):
                Store(root, mode=mode)
