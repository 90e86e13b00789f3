"""The public surface is what it says it is, no more and no less, and prints as people read it."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points

import numpy as np
import pytest
from event_model import Filler

import gently_bluesky
from gently_bluesky import LazyArray, Run, Store, handler_registry, record, replay
from gently_bluesky.backends.registry import backend_names, get_backend
from gently_bluesky.documents.handlers import TiffHandler, ZarrHandler
from gently_bluesky.errors import LookupFailed

FORMATS = ["zarr", "tiff"]


def public(owner: object) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def test_the_public_names_are_those_of_all():
    assert sorted(gently_bluesky.__all__) == gently_bluesky.__all__
    assert public(gently_bluesky) == set(gently_bluesky.__all__)
    for name in gently_bluesky.__all__:
        assert getattr(gently_bluesky, name).__name__ == name


def test_a_star_import_brings_the_public_names():
    names: dict[str, object] = {}
    exec("from gently_bluesky import *", names)
    assert {name for name in names if not name.startswith("_")} == set(gently_bluesky.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'gently_bluesky' has no attribute 'Stor'"):
        gently_bluesky.Stor  # noqa: B018
    with pytest.raises(ImportError, match="Stor"):
        from gently_bluesky import Stor  # noqa: F401


def test_a_store_has_the_methods_of_the_design_and_none_that_do_nothing_yet():
    assert public(Store) == {
        *(
            "writer",
            "recorder",
            "run",
            "array",
            "put",
            "get",
            "record",
            "query",
            "latest",
            "lineage",
            "children",
        ),
        *(
            "stats",
            "close",
            "closed",
            "wait_for_run",
            "materialize",
            "reconcile",
            "verify",
            "assets",
            "export",
            "component_names",
            "retention",
            "convert",
            "import_",
        ),
        *(
            "delete",
            "restore",
            "trash",
            "purge",
            "tombstone",
            "pin",
            "unpin",
            "pins",
        ),
    }
    assert {"__getitem__", "__enter__", "__exit__"} <= set(dir(Store))


def test_a_writer_is_made_with_the_settings_that_there_are():
    parameters = list(inspect.signature(Store.writer).parameters)[1:]
    assert parameters == [
        *("format", "chunks", "compression", "levels", "assets", "adopt", "sync", "copy", "hot_bytes"),
        *("max_pending_bytes", "stall_timeout_s", "min_free_bytes", "on_failure"),
    ]
    assert all(
        parameter.kind is parameter.KEYWORD_ONLY
        for parameter in list(inspect.signature(Store.writer).parameters.values())[1:]
    )


def test_a_run_and_an_array_have_the_members_of_the_design():
    of_run = {"uid", "record", "start", "stop", "status", "streams", "table", "documents", "to_xarray"}
    of_run |= {"storing", "wait", "plot"}
    assert public(Run) == of_run
    assert {
        "shape",
        "dtype",
        "ndim",
        "dims",
        "scale",
        "units",
        "uid",
        "nbytes",
        "chunks",
        "compute",
    } <= public(LazyArray)
    assert {"read_async", "max", "min", "mean", "std", "to_dask", "to_zarr", "wait", "follow"} <= public(
        LazyArray
    )
    assert {"preview", "view", "channels", "touched_chunks", "touched_nbytes"} <= public(LazyArray)


def test_every_public_callable_says_what_it_does():
    for owner in (Store, Run, LazyArray, gently_bluesky):
        for name in public(owner):
            assert inspect.getdoc(getattr(owner, name)), f"{owner.__name__}.{name}"


def test_an_unknown_setting_or_format_is_refused(store):
    with pytest.raises(TypeError, match="fromat"):
        store.writer(fromat="zarr")
    with pytest.raises(gently_bluesky.store.InvalidSetting, match=r"zarr, tiff.*got 'hdf5'"):
        store.writer(format="hdf5")


# -- handlers ------------------------------------------------------------------------------------------


def test_handlers_are_found_through_the_entry_points_that_databroker_reads():
    found = {point.name: point.load() for point in entry_points(group="databroker.handlers")}
    assert found["GENTLY_ZARR"] is ZarrHandler
    assert found["GENTLY_TIFF"] is TiffHandler


def test_the_handler_registry_covers_every_backend():
    assert set(handler_registry()) >= {get_backend(name).spec for name in backend_names()}


@pytest.mark.parametrize("backend", FORMATS)
def test_filler_fills_the_documents_of_a_run(store, acquire, backend):
    volumes = [np.full((2, 8, 9), number, "<u2") for number in range(3)]
    run = store[acquire(store, [{"view": volume, "x": 1.5} for volume in volumes], backend=backend)]
    found = {point.name: point.load() for point in entry_points(group="databroker.handlers")}
    with Filler(found, inplace=False) as filler:
        events = [doc for name, doc in (filler(*named) for named in run.documents()) if name == "event"]
    assert [event["data"]["x"] for event in events] == [1.5] * 3
    for event, volume in zip(events, volumes, strict=True):
        np.testing.assert_array_equal(np.asarray(event["data"]["view"]), volume)


def test_replay_is_public_and_sends_what_was_recorded(store, acquire):
    uid = acquire(store, [{"x": 1}])
    seen = []
    assert replay(store.root, lambda name, doc: seen.append(name)) == (uid,)
    assert seen == ["start", "descriptor", "event", "stop"]


def test_record_is_public_and_writes_what_is_replayed(store, acquire, tmp_path):
    uid, seen = acquire(store, [{"x": 1}]), []
    with store.writer() as writer, record(writer, tmp_path / "run.jsonl") as recording:
        replay(store.root, recording)
    assert replay(tmp_path / "run.jsonl", lambda name, doc: seen.append(name)) == (uid,)
    assert seen == ["start", "descriptor", "event", "stop"]


# -- in print ------------------------------------------------------------------------------------------


def test_a_store_a_run_a_stream_and_a_record_print_in_one_line_each(store, acquire):
    run = store[acquire(store, [{"view": np.zeros((2, 8, 9), "<u2")}], start={"session": "night 1"})]
    asset = store.record(run["view"].uid)
    datum = store.record(run["view"][0].uid)
    result = store.put({"n": 3}, data_type="nuclei", parents=[run["view"][0]], operation="count")
    short = run.uid[:8]
    assert repr(store) == f"<Store {store.root} (read and write)>"
    assert repr(run) == f"<Run {short} count complete: primary: view>"
    assert repr(run["primary"]) == f"<Stream primary of run {short}: view>"
    numbers = {f"motor_{number:02}": number for number in range(20)}
    wide = store[acquire(store, [{**numbers, "view": np.zeros((8, 9), "<u2")}])]
    first = f"view, {', '.join(list(numbers)[:11])} and 9 more"
    assert repr(wide) == f"<Run {wide.uid[:8]} count complete: primary: {first}>"
    with pytest.raises(LookupFailed, match=rf"it has primary: {first}"):
        wide["veiw"]
    assert repr(run.record) == f"<Record run {run.uid} session night 1 complete>"
    assert repr(asset) == (
        f"<Record asset {asset.uid} primary/view (t: 1, z: 2, y: 8, x: 9) <u2 GENTLY_ZARR session night 1 "
        "complete>"
    )
    assert repr(datum) == (
        f"<Record datum {datum.uid} primary/view (z: 2, y: 8, x: 9) <u2 session night 1 complete>"
    )
    assert repr(result) == (
        f"<Record run {result.uid} nuclei by count from 1 parent session night 1 complete>"
    )
    assert repr(store.lineage(result.uid)) == f"<Lineage of {result.uid}: 2 records, depth 1>"
    tree = str(store.lineage(result.uid)).splitlines()
    assert tree[0].startswith(f"nuclei {result.uid[:8]} count (complete, ")
    assert tree[1].startswith(f"└─ primary/view {asset.uid[:8]}/0 of {short} (complete, ")


def test_what_is_shown_in_a_notebook_is_escaped(store, acquire):
    run = store[acquire(store, [{"view<b>": np.zeros((8, 9), "<u2")}], start={"session": "<script>\x1b[2J"})]
    for shown in (run, run.record, run["view<b>"], store.lineage(run.uid)):
        html = shown._repr_html_()
        assert "<script>" not in html
        assert "<b>" not in html.replace("<b>Run", "")
    assert "\x1b" not in repr(run.record)


def test_a_closed_or_read_only_store_says_so_in_print(root):
    with Store(root) as store:
        pass
    assert repr(store) == f"<Store {root} (closed)>"
    with Store(root, mode="r") as reader:
        assert repr(reader) == f"<Store {root} (read only)>"
