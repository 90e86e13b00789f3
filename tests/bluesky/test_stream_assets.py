"""Arrays announced by stream_resource and stream_datum: what the documents say, and what opens them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
import zarr
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators

from gently_bluesky import Store, StreamResolver
from gently_bluesky.errors import (
    AssetMissing,
    ConflictingDocument,
    InvalidDocument,
    InvalidSetting,
    LookupFailed,
    StorageError,
    UnknownReference,
)
from gently_bluesky.run import Run
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (3, 8, 10)
FORMATS = pytest.mark.parametrize("format", ["zarr", "tiff"])
Named = tuple[str, dict[str, Any]]


def frame(event: int, key: str = "camera") -> np.ndarray:
    return encoded_frame(SHAPE, "u2", run="stream", key=key, event=event)


def store_events(store: Store, events: int = 3, *, seq_nums: Any = None, **settings: Any) -> HandMadeRun:
    """Store a run with frames and a number in each event."""
    run, writer = HandMadeRun(), store.writer(assets="stream", **settings)
    descriptor = run.descriptor(camera={}, number={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for n in range(events):
        seq_num = None if seq_nums is None else seq_nums[n]
        writer("event", run.event(descriptor, seq_num, camera=frame(n), number=n))
    writer("stop", run.stop())
    return run


def documents(store: Store, run: HandMadeRun | Run, name: str) -> list[dict[str, Any]]:
    return [doc for kind, doc in store[run.uid].documents() if kind == name]


def place(uri: str) -> Path:
    """Return what a uri of a file here names, as a stranger reads it."""
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("file", "localhost")
    return Path(unquote(parts.path))


def open_as_a_stranger(resource: dict[str, Any]) -> np.ndarray:
    """Return all of an asset, by nothing but its stream_resource."""
    path, parameters = place(resource["uri"]), resource["parameters"]
    if resource["mimetype"] == "application/x-zarr":
        array = zarr.open_array(path, mode="r")
        assert list(array.chunks) == parameters["chunk_shape"]
        return array[:]
    assert resource["mimetype"] == "multipart/related;type=image/tiff"
    files = sorted(path.iterdir())
    assert files == [path / parameters["template"].format(n) for n in range(len(files))]
    read = np.stack([tifffile.imread(file) for file in files])
    assert [1, *read.shape[1:]] == parameters["chunk_shape"]
    return read


@FORMATS
def test_each_document_is_valid_and_says_exactly_what_is_stored(store: Store, format: str) -> None:
    run = store_events(store, format=format)
    named = list(store[run.uid].documents())
    for name, doc in named:
        schema_validators[DocumentNames[name]].validate(doc)
    assert [name for name, _ in named] == [
        *("start", "descriptor", "stream_resource"),
        *(("stream_datum", "event") * 3),
        "stop",
    ]
    (descriptor,), (resource,) = documents(store, run, "descriptor"), documents(store, run, "stream_resource")
    declared = descriptor["data_keys"]["camera"]
    assert (declared["external"], declared["shape"], declared["dtype_numpy"]) == ("STREAM:", [*SHAPE], "<u2")
    assert (resource["data_key"], resource["run_start"]) == ("camera", run.uid)
    assert resource["parameters"]["join_method"] == "stack"
    for n, datum in enumerate(documents(store, run, "stream_datum")):
        assert datum["uid"] == f"{resource['uid']}/{n}"
        assert datum["descriptor"] == descriptor["uid"]
        assert (datum["indices"], datum["seq_nums"]) == (
            {"start": n, "stop": n + 1},
            {"start": n + 1, "stop": n + 2},
        )
    for n, event in enumerate(documents(store, run, "event")):
        assert (event["data"], [*event["timestamps"]], event["filled"]) == ({"number": n}, ["number"], {})
    assert np.array_equal(open_as_a_stranger(resource), [frame(n) for n in range(3)])


@FORMATS
def test_arrays_are_those_of_the_other_family(store: Store, format: str) -> None:
    run = store_events(store, format=format)
    array = store[run.uid]["primary"]["camera"]
    assert array.dims == ("t", "z", "y", "x")
    assert np.array_equal(array, [frame(n) for n in range(3)])
    assert array[1].uid == f"{array.uid}/1"
    assert np.array_equal(store.array(array[1].uid), frame(1))
    assert np.array_equal(store.array(array.uid)[2, 1], frame(2)[1])
    mip = store.put(array[0].max(axis=0), data_type="projection", parents=[array[0].uid])
    assert [record.uid for record in store.children(array[0].uid)] == [mip.uid]
    record = store.record(array.uid)
    assert (record.format, record.shape) == (f"GENTLY_{format.upper()}", (3, *SHAPE))


def test_table_and_dataset_show_what_events_do_not_name(store: Store) -> None:
    run = store[store_events(store, 4, seq_nums=[1, 2, 2, 3]).uid]
    array = run["camera"]
    table = run.table()
    assert table["camera"].tolist() == [array[n].uid for n in range(3)]
    assert table["camera"].tolist() == [f"{array.uid}/{n}" for n in (0, 2, 3)]
    assert np.array_equal(store.array(table["camera"][2]), frame(2))
    assert table["number"].tolist() == [0, 2, 3]
    dataset = run.to_xarray()
    assert dataset["seq_num"].values.tolist() == [1, 2, 3]
    assert np.array_equal(dataset["camera"], [frame(n) for n in (0, 2, 3)])


@FORMATS
def test_resolver_opens_what_each_stream_datum_announces(store: Store, root: Path, format: str) -> None:
    run = store_events(store, format=format)
    resolver = StreamResolver()
    for name, doc in store[run.uid].documents():
        resolver(name, doc)
    for n, datum in enumerate(documents(store, run, "stream_datum")):
        assert np.array_equal(resolver.array(datum), [frame(n)])
    several = {**datum, "indices": {"start": 0, "stop": 3}}
    assert np.array_equal(resolver.array(several)[1:, 0], [frame(n)[0] for n in (1, 2)])


def test_resolver_says_what_is_missing(store: Store) -> None:
    run = store_events(store, 1)
    (resource,), (datum,) = (documents(store, run, name) for name in ("stream_resource", "stream_datum"))
    resolver = StreamResolver()
    with pytest.raises(UnknownReference, match="has not come"):
        resolver.array(datum)
    resolver("stream_resource", {**resource, "parameters": {}, "mimetype": "text/x-odd"})
    with pytest.raises(LookupFailed, match=r"no spec .*and no mimetype"):
        resolver.array(datum)


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (1, 0), ("0", 1), (0, None)])
def test_resolver_refuses_indices_that_are_none(store: Store, start: Any, stop: Any) -> None:
    run, resolver = store_events(store, 2), StreamResolver()
    for name, doc in store[run.uid].documents():
        resolver(name, doc)
    datum = {**documents(store, run, "stream_datum")[0], "indices": {"start": start, "stop": stop}}
    with pytest.raises(InvalidDocument, match="expected indices from a start, 0 or more"):
        resolver.array(datum)
    with pytest.raises(AssetMissing, match="event 2 is not there"):
        resolver.array({**datum, "indices": {"start": 0, "stop": 3}})
    assert resolver.array({**datum, "indices": {"start": 2, "stop": 2}}).shape == (0, *SHAPE)


@FORMATS
@pytest.mark.parametrize(
    ("uri", "error", "match"),
    [
        ("s3://bucket/key", InvalidDocument, "expected the uri of a file here"),
        ("file://elsewhere/data", InvalidDocument, "expected the uri of a file here"),
        ("file:relative", InvalidDocument, "expected the uri of a file here"),
        ("file:///", InvalidDocument, "expected the uri of a file here"),
        ("file://localhost/a%00b", InvalidDocument, "expected the uri of a file here"),
        ("file://LOCALHOST/nothing/there", StorageError, "/nothing/there"),
        ("file://localhost/" + "x" * 5000, StorageError, "too long"),
        ("file://localhost/x/%2e%2e/%2e%2e/nothing", StorageError, "nothing"),
    ],
)
def test_resolver_says_what_is_wrong_with_a_uri(
    store: Store, format: str, uri: str, error: type[Exception], match: str
) -> None:
    run = store_events(store, 1, format=format)
    (resource,), (datum,) = (documents(store, run, name) for name in ("stream_resource", "stream_datum"))
    resolver = StreamResolver()
    resolver("stream_resource", {**resource, "uri": uri})
    with pytest.raises(error, match=match):
        resolver.array(datum)
    resolver("stream_resource", resource)
    assert np.array_equal(resolver.array(datum), [frame(0)])


@FORMATS
def test_moved_store_says_where_its_assets_are_now(tmp_path: Path, format: str) -> None:
    before = tmp_path / "Nähe #1 100%?"
    with Store(before) as store:
        run = store_events(store, format=format)
        (said,) = documents(store, run, "stream_resource")
        open_as_a_stranger(said)
        datums = documents(store, run, "stream_datum")
    now = before.rename(tmp_path / "moved")
    asset = place(said["uri"]).parent if format == "zarr" else place(said["uri"])
    there = str(now / asset.relative_to(before))
    elsewhere = {str(before.parent): "/nowhere", f"{before}x": "/nowhere"}
    for root_map in ({str(before): str(now)}, {**elsewhere, f"{before}/": f"{now}/"}, {str(asset): there}):
        resolver = StreamResolver(root_map)
        resolver("stream_resource", said)
        assert np.array_equal(resolver.array(datums[1]), [frame(1)])
    with Store(now, mode="r") as store:
        (resource,) = documents(store, run, "stream_resource")
        assert place(resource["uri"]).is_relative_to(now)
        assert np.array_equal(open_as_a_stranger(resource), [frame(n) for n in range(3)])
        assert np.array_equal(store[run.uid]["camera"], [frame(n) for n in range(3)])
        events = [doc for name, doc in store[run.uid].documents(fill=True) if name == "event"]
        assert all(np.array_equal(event["data"]["camera"], frame(n)) for n, event in enumerate(events))


def test_rewind_repeats_seq_nums_and_the_last_frame_of_each_is_shown(RE: Any, store: Store) -> None:
    scope = SimulatedDiSPIM(size=32, n_slices=2)
    acquired: list[np.ndarray] = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            acquired.append(np.array(doc["data"]["view_a"]))

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from bps.pause()
        yield from bps.trigger_and_read([scope.light_sheet])

    RE.subscribe(store.writer(assets="stream"))
    RE.subscribe(keep)
    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    RE.resume()
    run = store[-1]
    datums = [doc for name, doc in run.documents() if name == "stream_datum"]
    of_one_key = [doc for doc in datums if doc["stream_resource"] == run["primary"]["view_a"].uid]
    assert [doc["indices"]["start"] for doc in of_one_key] == [0, 1, 2, 3]
    assert [doc["seq_nums"]["start"] for doc in of_one_key] == [1, 2, 2, 3]
    shown = run["primary"]["view_a"]
    assert np.array_equal(shown, [acquired[0], acquired[2], acquired[3]])
    assert np.array_equal(store.array(shown.uid), acquired)


@FORMATS
@pytest.mark.parametrize(
    ("how", "status", "seq_nums"),
    [("resume", "complete", [1, 2, 2, 3]), ("abort", "aborted", [1, 2]), ("stop", "complete", [1, 2])],
)
def test_interleaved_runs_that_are_paused_keep_what_came_however_they_go_on(
    RE: Any, store: Store, format: str, how: str, status: str, seq_nums: list[int]
) -> None:
    one, both = (
        [EncodedCamera("one", (5, 6))],
        [EncodedCamera("one", (5, 6)), EncodedCamera("two", (2, 3, 4))],
    )
    came: list[Named] = []

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator()
    def inner() -> Any:
        for pause in (False, True):
            yield from bps.trigger_and_read(one)
            if pause:
                yield from bps.pause()
            yield from bps.checkpoint()
        yield from bps.trigger_and_read(one)

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer() -> Any:
        yield from bps.trigger_and_read(both)
        yield from bps.checkpoint()
        yield from inner()
        yield from bps.trigger_and_read(both)

    RE.subscribe(lambda name, doc: came.append((name, doc)))
    RE.subscribe(store.writer(format=format, assets="stream"))
    with pytest.raises(RunEngineInterrupted):
        RE(outer())
    getattr(RE, how)()
    stream_of = {doc["uid"]: doc["run_start"] for name, doc in came if name == "descriptor"}
    for uid in (doc["uid"] for name, doc in came if name == "start"):
        events = [doc for name, doc in came if name == "event" and stream_of[doc["descriptor"]] == uid]
        assert store[uid].status == status
        for key in events[0]["data"]:
            last = {event["seq_num"]: event["data"][key] for event in events}
            shown = store[uid]["primary"][key]
            assert np.array_equal(shown, [last[number] for number in sorted(last)])
            datums = documents(store, store[uid], "stream_datum")
            mine = [datum for datum in datums if datum["stream_resource"] == shown.uid]
            assert [datum["indices"]["start"] for datum in mine] == [*range(len(events))]
            assert [datum["seq_nums"]["start"] for datum in mine] == [event["seq_num"] for event in events]
    assert [event["seq_num"] for event in events] == seq_nums, "of the inner run, which came last"


@FORMATS
def test_simulated_microscope_is_stored_whole_and_found_again_without_an_index(
    RE: Any, root: Path, format: str
) -> None:
    acquired: list[dict[str, Any]] = []
    with Store(root) as store:
        RE.subscribe(store.writer(format=format, assets="stream"))
        RE.subscribe(lambda name, doc: acquired.append(doc["data"]) if name == "event" else None)
        RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=3), num=2))
    (root / "index.sqlite").unlink()
    with Store(root) as store:
        run = store[-1]
        for key in (key for key, value in acquired[0].items() if np.ndim(value) > 1):
            assert np.array_equal(run[key], [data[key] for data in acquired])


def test_event_that_comes_twice_is_known_again_by_its_pixels(store: Store) -> None:
    run, writer = HandMadeRun(), store.writer(assets="stream")
    descriptor = run.descriptor(camera={})
    event = run.event(descriptor, camera=frame(0))
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", event)
    writer("event", event)
    writer("event", {**event, "data": {"camera": frame(1)}})
    with pytest.raises(ConflictingDocument):
        writer("stop", run.stop())
    assert len(store[run.uid]["camera"]) == 1


def test_new_shape_opens_an_asset_of_its_own(store: Store) -> None:
    run, writer = HandMadeRun(), store.writer(assets="stream")
    writer("start", run.start)
    for size in (4, 6, 4):
        descriptor = run.descriptor(camera={})
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=np.full((size, size), size, np.uint8)))
    writer("stop", run.stop())
    resources = documents(store, run, "stream_resource")
    assert [open_as_a_stranger(resource).shape for resource in resources] == [(2, 4, 4), (1, 6, 6)]
    indices = [
        (doc["stream_resource"], doc["indices"]["start"]) for doc in documents(store, run, "stream_datum")
    ]
    assert indices == [(resources[0]["uid"], 0), (resources[1]["uid"], 0), (resources[0]["uid"], 1)]


def test_run_given_up_in_the_middle_names_no_frame_that_is_not_there(store: Store) -> None:
    run, writer = HandMadeRun(), store.writer(assets="stream")
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=frame(0)))
    writer.close()
    assert store[run.uid].status == "incomplete"
    assert store[run.uid].stop["num_events"] == {"primary": 1}
    assert np.array_equal(store[run.uid]["camera"], [frame(0)])


@pytest.mark.parametrize(
    "settings", [{"assets": "streams"}, {"assets": None}, {"assets": "stream", "format": "memory"}]
)
def test_family_that_there_is_not_is_refused_before_anything_is_written(
    store: Store, root: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidSetting, match="nothing was written"):
        store.writer(**settings)
    assert not (root / "runs").exists()
