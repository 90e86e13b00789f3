"""Whatever valid stream of documents comes: out is in, with references for pixels; and a copy is equal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equal_stores import assert_equal, comparable, copied, is_ours, said
from event_model import unpack_datum_page, unpack_event_page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gently_bluesky import Store, StreamResolver, handler_registry, replay
from gently_bluesky.jsontext import digest_of, plain
from gently_bluesky.model import JournalLine
from gently_bluesky.testing.streams import document_streams

Named = tuple[str, dict[str, Any]]
FAMILIES = pytest.mark.parametrize("assets", ["datum", "stream"])
FORMATS = st.sampled_from(["zarr", "tiff"])
SAMPLE = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
FEW = settings(SAMPLE, max_examples=4)
MANY = settings(SAMPLE, max_examples=1500)
STORED_BYTES = 16 * 1024


# -- what has to come out ------------------------------------------------------------------------------------


def singly(documents: list[Named]) -> Iterator[Named]:
    """Yield documents without pages."""
    for name, doc in documents:
        if name == "event_page":
            yield from (("event", event) for event in unpack_event_page(doc))
        elif name == "datum_page":
            yield from (("datum", datum) for datum in unpack_datum_page(doc))
        else:
            yield name, doc


def uid_of(name: str, doc: dict[str, Any]) -> Any:
    """Return what a document is known by; of a page, a list."""
    return doc["datum_id" if name.startswith("datum") else "uid"]


def by_run(documents: list[Named]) -> dict[str, list[Named]]:
    """Return the documents of each run."""
    run_of: dict[str, str] = {}
    runs: dict[str, list[Named]] = {}
    for name, doc in documents:
        refers = next(
            (doc[key] for key in ("run_start", "descriptor", "resource", "stream_resource") if key in doc), ""
        )
        run = doc["uid"] if name == "start" else run_of.get(refers, refers)
        if isinstance(uid := uid_of(name, doc), str):
            run_of[uid] = run
        runs.setdefault(run, []).append((name, doc))
    return runs


def array_in(value: object, declared: dict[str, Any]) -> np.ndarray | None:
    """Return what of a value has to be stored: arrays of two axes or more, large or complex ones, little-endian."""
    if isinstance(value, list) and value and isinstance(value[0], list) and "dtype_numpy" in declared:
        value = np.array(value, declared["dtype_numpy"])
    if not isinstance(value, np.ndarray) or not value.size:
        return None
    if value.ndim < 2 and value.nbytes <= STORED_BYTES and value.dtype.kind != "c":
        return None
    return value.astype(value.dtype.newbyteorder("<"))


def expected(documents: list[Named]) -> list[Named]:
    """Return what one run's documents have to come out as, with pixels in the place of the references to them.

    A descriptor comes with its first event, or just before the stop; nothing comes twice.
    """
    met: set[str] = set()
    held: dict[str, list[Named]] = {}
    keys_of: dict[str, dict[str, Any]] = {}
    out: list[Named] = []
    for name, doc in singly(documents):
        if uid_of(name, doc) in met:
            continue
        met.add(uid_of(name, doc))
        if name == "descriptor":
            keys_of[doc["uid"]] = doc["data_keys"]
            held[doc["uid"]] = [(name, doc)]
            if all(key.get("external") == "STREAM:" for key in doc["data_keys"].values()):
                out += held.pop(doc["uid"])
        elif name == "stream_datum" and doc["descriptor"] in held:
            held[doc["descriptor"]].append((name, doc))
        elif name == "event":
            out += held.pop(doc["descriptor"], [])
            declared = keys_of[doc["descriptor"]]
            data = {key: array_in(value, declared[key]) for key, value in doc["data"].items()}
            rest = {key: plain(value) for key, value in doc["data"].items() if data[key] is None}
            out.append((name, {**doc, "data": {**data, **rest}}))
        elif name == "stop":
            for waiting in held.values():
                out += waiting
            held.clear()
            out.append((name, doc))
        else:
            out.append((name, doc))
    for waiting in held.values():
        out += waiting
    return out


def with_pixels(documents: list[Named]) -> list[Named]:
    """Return one run's announced documents with our references resolved, by nothing but themselves."""
    handlers, ours = handler_registry(), set[str]()
    datums: dict[str, dict[str, Any]] = {}
    resources: dict[str, dict[str, Any]] = {}
    unnamed: dict[str, np.ndarray] = {}
    resolver = StreamResolver()
    out: list[Named] = []
    for name, doc in documents:
        if is_ours(JournalLine(name, doc)):
            ours.add(doc["uid"])
            resources[doc["uid"]] = doc
            if name == "stream_resource":
                resolver(name, doc)
        elif name == "datum" and doc["resource"] in ours:
            datums[doc["datum_id"]] = doc
        elif name == "stream_datum" and doc["stream_resource"] in ours:
            (unnamed[resources[doc["stream_resource"]]["data_key"]],) = np.asarray(resolver.array(doc))
        elif name == "event":
            data, filled = dict(doc["data"]), dict(doc["filled"])
            for key, value in doc["data"].items():
                if isinstance(value, str) and value in datums and filled.get(key) is False:
                    datum = datums.pop(value)
                    said = resources[datum["resource"]]
                    path = f"{said['root']}/{said['resource_path']}"
                    data[key] = np.asarray(
                        handlers[said["spec"]](path, **said["resource_kwargs"])(**datum["datum_kwargs"])
                    )
                    del filled[key]
            out.append((name, {**doc, "data": {**data, **unnamed}, "filled": filled}))
            unnamed = {}
        else:
            out.append((name, doc))
    assert not datums, "datums that no event names"
    assert not unnamed, "stream_datums without their event"
    return out


def assert_same(came: list[Named], out: list[Named], *, timestamps: bool) -> None:
    """Check each document; a descriptor may say more than it did, an event of the stream family fewer timestamps."""
    assert [(name, uid_of(name, doc)) for name, doc in out] == [
        (name, uid_of(name, doc)) for name, doc in came
    ]
    for (name, was), (_, doc) in zip(came, out, strict=True):
        if name == "descriptor":
            assert_described(was, doc)
        elif name == "event" and not timestamps:
            assert comparable({**was, "timestamps": {}}) == comparable({**doc, "timestamps": {}})
            assert doc["timestamps"].items() <= was["timestamps"].items()
        else:
            assert comparable(doc) == comparable(plain(was) if name != "event" else was)


def assert_described(was: dict[str, Any], doc: dict[str, Any]) -> None:
    """Check a descriptor: what came stands, but for what the arrays of its first event put right."""
    for key, declared in was["data_keys"].items():
        said = dict(doc["data_keys"][key])
        if not declared.get("external"):
            assert said.pop("external", None) in {None, "FILESTORE:", "STREAM:"}
            said.pop("dims", None)
        if "dtype_numpy" not in declared:
            said.pop("dtype_numpy", None)
        assert comparable(said) == comparable(declared)
    data_keys = {key: doc["data_keys"][key] for key in was["data_keys"]}
    configuration = {
        device: {**said, "data_keys": was["configuration"][device]["data_keys"]}
        for device, said in doc["configuration"].items()
    }
    assert digest_of({**doc, "configuration": configuration}) == digest_of(
        {**plain(was), "data_keys": data_keys}
    )


def ended(documents: list[Named]) -> bool:
    return documents[-1][0] == "stop"


# -- the checks ------------------------------------------------------------------------------------------------


def check_out_is_in(documents: list[Named], assets: str, format: str) -> None:
    announced: list[Named] = []
    before = [comparable(doc) for _, doc in documents]
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        writer = store.writer(assets=assets, format=format)
        writer.subscribe(lambda name, doc: announced.append((name, doc)))
        for name, doc in documents:
            writer(name, doc)
        writer.close()
        runs = {uid: list(store[uid].documents()) for uid in by_run(documents)}
        filled = {uid: list(store[uid].documents(fill=True)) for uid in runs}
        assert [comparable(doc) for _, doc in documents] == before, "what came in was changed"
        assert {uid: comparable([*map(list, run)]) for uid, run in by_run(announced).items()} == {
            uid: comparable([*map(list, run)]) for uid, run in runs.items()
        }
        for uid, run in by_run(documents).items():
            wanted = expected(run)
            out, back = with_pixels(runs[uid]), filled[uid]
            assert store[uid].status == status_of(wanted)
            if not ended(wanted):
                assert out.pop()[0] == back.pop()[0] == "stop"
            assert_same(wanted, out, timestamps=assets == "datum")
            assert_filled(run, back)


def status_of(documents: list[Named]) -> str:
    how = documents[-1][1]["exit_status"] if ended(documents) else "none"
    return {"success": "complete", "abort": "aborted", "fail": "failed"}.get(how, "incomplete")


def assert_filled(documents: list[Named], back: list[Named]) -> None:
    """Check that filled events hold what the events held that came, arrays as arrays of their dtype."""
    events = {doc["uid"]: doc for name, doc in singly(documents) if name == "event"}
    keys_of = {doc["uid"]: doc["data_keys"] for name, doc in documents if name == "descriptor"}
    filled = {doc["uid"]: doc for name, doc in back if name == "event"}
    assert filled.keys() == events.keys()
    for uid, was in events.items():
        for key, value in was["data"].items():
            array = array_in(value, keys_of[was["descriptor"]][key])
            got = filled[uid]["data"][key]
            if array is None and isinstance(value, np.ndarray) and value.ndim:
                array = value
            if array is None:
                assert comparable(got) == comparable(plain(value))
            else:
                assert comparable(np.asarray(got)) == comparable(array)
        assert comparable(filled[uid]["timestamps"]) == comparable(was["timestamps"])
        assert filled[uid]["filled"] == was["filled"]


def settled(lines: list[str]) -> list[str]:
    """Return the lines of a run with those at the end that may come later in a copy than they did.

    Those are descriptors that name arrays of other writers, of which a replay cannot know that nothing of ours
    will stand in for them, and stream_datums that name such a descriptor.
    """
    later = [
        line
        for line in lines
        if line.startswith(('["descriptor"', '["stream_datum"')) and "resource " not in line
    ]
    return [line for line in lines if line not in later] + sorted(later)


def check_copies(documents: list[Named], assets: str, format: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store(folder / "original") as store:
            writer = store.writer(assets=assets, format=format)
            for named in documents:
                writer(*named)
        copied(folder / "original", folder / "copy", assets=assets, format=format)
        assert_equal(folder / "original", folder / "copy", same_format=True, settled=settled)
        other = "stream" if assets == "datum" else "datum"
        copied(folder / "original", folder / "other", assets=other)
        copied(folder / "other", folder / "back", assets=assets, format=format)
        assert_equal(folder / "original", folder / "back", same_format=True, settled=settled)
        check_references(folder / "original", folder / "references")


def check_references(original: Path, root: Path) -> None:
    """Replay without filling: the same documents, and no pixels beside the journals."""
    with Store(root) as copy, Store(original, mode="r") as store:
        replay(original, copy.writer(), fill=False)
        assert not [
            path for path in root.rglob("runs/**/*") if path.is_file() and path.name != "documents.jsonl"
        ]
        for record in store.query():
            kept = [sorted(map(said, place[record.uid].documents())) for place in (copy, store)]
            assert kept[0] == kept[1]
            assert copy[record.uid].status == record.status


# -- the tests -------------------------------------------------------------------------------------------------


@FAMILIES
@SAMPLE
@given(document_streams(), FORMATS)
def test_out_is_in_with_references_for_pixels(assets: str, documents: list[Named], format: str) -> None:
    check_out_is_in(documents, assets, format)


@FAMILIES
@FEW
@given(document_streams(), FORMATS)
def test_copy_of_any_stream_is_equal(assets: str, documents: list[Named], format: str) -> None:
    check_copies(documents, assets, format)


@pytest.mark.long
@pytest.mark.timeout(7200)
@FAMILIES
@MANY
@given(document_streams(max_runs=3), FORMATS)
def test_out_is_in_for_very_many_streams(assets: str, documents: list[Named], format: str) -> None:
    check_out_is_in(documents, assets, format)


@pytest.mark.long
@pytest.mark.timeout(7200)
@FAMILIES
@MANY
@given(document_streams(max_runs=3), FORMATS)
def test_copies_of_very_many_streams_are_equal(assets: str, documents: list[Named], format: str) -> None:
    check_copies(documents, assets, format)
