"""Stored arrays served by a Tiled server: what TiledWriter announces slices over HTTP and is what was acquired."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from shutil import rmtree
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky.utils import RunEngineInterrupted
from bluesky_tiled_plugins import TiledWriter
from bluesky_tiled_plugins.writing.consolidators import CONSOLIDATOR_REGISTRY
from bluesky_tiled_plugins.writing.tiled_writer import MIMETYPE_LOOKUP
from typer.testing import CliRunner

from gently_bluesky import Store, replay
from gently_bluesky.cli import app
from gently_bluesky.errors import InvalidDocument, SubscriberError
from gently_bluesky.jsontext import encode
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame
from gently_bluesky.tiled import register

FORMATS = pytest.mark.parametrize("format", ["zarr", "tiff"])
FAMILIES = pytest.mark.parametrize("assets", ["datum", "stream"])
BATCHES = pytest.mark.parametrize("batch_size", [1, 10_000])
SHAPE = (5, 24, 40)


def frame(event: int, shape: tuple[int, ...] = SHAPE, dtype: str = "u2") -> np.ndarray:
    return encoded_frame(shape, dtype, run="tiled", key="camera", event=event)


def store_events(store: Store, subscriber: Any, frames: list[np.ndarray], **settings: Any) -> HandMadeRun:
    """Store a run with a frame and a number in each event, a descriptor for each make of frame."""
    run = HandMadeRun()
    with store.writer(**settings) as writer:
        writer.subscribe(subscriber)
        writer("start", run.start)
        made, descriptor = None, {}
        for n, pixels in enumerate(frames):
            if (pixels.shape, pixels.dtype) != made:
                made, descriptor = (
                    (pixels.shape, pixels.dtype),
                    run.descriptor(**{"my-camera": {}, "number": {}}),
                )
                writer("descriptor", descriptor)
            writer("event", run.event(descriptor, **{"my-camera": pixels, "number": n}))
        writer("stop", run.stop())
    return run


@FORMATS
@FAMILIES
@BATCHES
def test_served_array_slices_as_what_was_acquired(
    store: Store, server: Any, client: Any, format: str, assets: str, batch_size: int
) -> None:
    frames = [frame(n) for n in range(3)]
    run = store_events(
        store, TiledWriter(client, batch_size=batch_size), frames, format=format, assets=assets
    )
    node = client[run.uid]["primary"]["my-camera"]
    assert (node.shape, node.dtype, node.dims) == ((3, *SHAPE), np.uint16, ("time", "z", "y", "x"))
    assert node.metadata["spec"] == f"GENTLY_{format.upper()}"
    assert np.array_equal(node.read(), frames)
    for cut in ((1, 2), (-1,), np.s_[::-1, 2, 5:9, -3], np.s_[..., 7], np.s_[0:2, 1:5:2, ::3, 39:20:-2]):
        assert np.array_equal(node[cut], np.array(frames)[cut])
    assert np.array_equal(node.read_block((1, 0, 0, 0)), frames[1][None])
    assert np.array_equal(node.read_block((2, 0, 0, 0), np.s_[0, 3, 4:]), frames[2][3, 4:])
    path = f"{run.uid}/primary/my-camera"
    assert np.array_equal(server.part(path, "1,2", frames[1][2]), frames[1][2])
    picture = server.get(f"array/full/{path}", slice="1,2", format="image/png")
    assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
    assert client[run.uid]["primary"]["number"].read().tolist() == [0, 1, 2]
    assert client[run.uid].metadata["stop"]["exit_status"] == "success"


@FORMATS
@FAMILIES
def test_plan_sees_each_event_served_while_the_run_goes_on(
    RE: Any, store: Store, server: Any, client: Any, format: str, assets: str
) -> None:
    scope, acquired, seen = SimulatedDiSPIM(size=32, n_slices=3), [], []
    writer = store.writer(format=format, assets=assets)
    writer.subscribe(TiledWriter(client, batch_size=1))
    RE.subscribe(writer)
    RE.subscribe(lambda name, doc: acquired.append(np.array(doc["data"]["view_a"])), "event")

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        for n in range(3):
            yield from bps.trigger_and_read([scope.light_sheet])
            yield from writer.stored()
            run = client.values().last()
            assert "stop" not in run.metadata
            assert run["primary"]["view_a"].shape == (n + 1, 3, 32, 32)
            path = f"{run.metadata['start']['uid']}/primary/view_a"
            seen.append(server.part(path, f"{n}", acquired[n]))

    RE(plan())
    assert np.array_equal(seen, acquired)
    (uid,) = (run.metadata["start"]["uid"] for run in [client.values().last()])
    for key in ("view_a", "view_b"):
        assert np.array_equal(client[uid]["primary"][key].read(), store[uid][key])


@FORMATS
@FAMILIES
def test_rewound_run_is_served_with_a_row_for_each_event(
    RE: Any, store: Store, client: Any, format: str, assets: str
) -> None:
    scope, acquired = SimulatedDiSPIM(size=32, n_slices=2), []
    writer = store.writer(format=format, assets=assets)
    writer.subscribe(TiledWriter(client))
    RE.subscribe(writer)
    RE.subscribe(lambda name, doc: acquired.append(np.array(doc["data"]["view_a"])), "event")

    @bpp.stage_decorator([scope.light_sheet])
    @bpp.run_decorator()
    def plan() -> Any:
        for pause in (False, True):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([scope.light_sheet])
            if pause:
                yield from bps.pause()
        yield from bps.trigger_and_read([scope.light_sheet])

    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    RE.resume()
    primary = client[store[-1].uid]["primary"]
    assert primary["seq_num"].read().tolist() == [1, 2, 2, 3]
    assert np.array_equal(primary["view_a"].read(), acquired)


@FORMATS
@FAMILIES
@BATCHES
def test_second_descriptor_of_a_stream_goes_on_with_the_same_array(
    store: Store, client: Any, format: str, assets: str, batch_size: int
) -> None:
    run, frames = HandMadeRun(), [frame(n) for n in range(4)]
    with store.writer(format=format, assets=assets) as writer:
        writer.subscribe(TiledWriter(client, batch_size=batch_size))
        writer("start", run.start)
        for pair in (0, 2):
            descriptor = run.descriptor(camera={})
            writer("descriptor", descriptor)
            for n in (pair, pair + 1):
                writer("event", run.event(descriptor, camera=frames[n]))
        writer("stop", run.stop())
    assert np.array_equal(client[run.uid]["primary"]["camera"].read(), frames)


@FORMATS
@FAMILIES
@BATCHES
def test_arrays_of_another_make_are_left_out_with_a_word(
    store: Store, client: Any, format: str, assets: str, batch_size: int
) -> None:
    wide, narrow = [frame(0), frame(2)], frame(1, (5, 8, 8))
    writer = TiledWriter(client, batch_size=batch_size)
    with pytest.warns(UserWarning, match="those of the first make only; all are stored") as said:
        run = store_events(store, writer, [wide[0], narrow, wide[1]], format=format, assets=assets)
    assert np.array_equal(client[run.uid]["primary"]["my-camera"].read(), wide)
    (left_out,) = client[run.uid]["primary"]["my-camera"].metadata["left_out"]
    assert "primary-my=2dcamera-2" in left_out
    assert [left_out in str(warning.message) for warning in said] == [True]
    assert client[run.uid].metadata["stop"]["exit_status"] == "success"


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((24, 40), "u1"), ((2, 3, 8, 8), "f4"), ((9000,), "i8"), ((1, 1), "c16"), ((6, 7), "?"), ((1,), "c8")],
)
@FORMATS
def test_arrays_of_other_kinds_are_served(
    store: Store, client: Any, format: str, shape: tuple[int, ...], dtype: str
) -> None:
    frames = [frame(n, shape, dtype) for n in range(2)]
    run = store_events(store, TiledWriter(client), frames, format=format)
    node = client[run.uid]["primary"]["my-camera"]
    assert (node.shape, node.dtype) == ((2, *shape), np.dtype(dtype))
    assert np.array_equal(node.read(), frames)
    assert np.array_equal(node[1, 0], frames[1][0])


@FORMATS
@FAMILIES
def test_no_pixels_travel_in_documents(store: Store, client: Any, format: str, assets: str) -> None:
    frames = [np.random.default_rng(n).integers(0, 65536, (8, 64, 64), "u2") for n in range(3)]
    writer = TiledWriter(client, batch_size=1)
    documents, requests = [], []
    client.context.http_client.event_hooks["request"].append(
        lambda request: requests.append(int(request.headers.get("content-length", 0)))
    )

    def counting(name: str, doc: dict[str, Any]) -> None:
        documents.append(encode({"name": name, "doc": doc}))
        writer(name, doc)

    run = store_events(store, counting, frames, format=format, assets=assets)
    assert np.array_equal(client[run.uid]["primary"]["my-camera"].read(), frames)
    plane = frames[0][0].nbytes
    assert max(map(len, documents)) < plane
    assert 0 < max(requests) < plane
    assert sum(requests) < frames[0].nbytes


def test_several_writers_and_runs_are_told_apart(store: Store, client: Any) -> None:
    served = TiledWriter(client)
    runs = [HandMadeRun(), HandMadeRun()]
    with store.writer(format="zarr") as one, store.writer(format="tiff") as two:
        descriptors = [run.descriptor(camera={}) for run in runs]
        for writer, run, descriptor in zip((one, two), runs, descriptors, strict=True):
            writer.subscribe(served if writer is one else TiledWriter(client))
            writer("start", run.start)
            writer("descriptor", descriptor)
        for n in range(2):
            for place, writer in enumerate((one, two)):
                writer("event", runs[place].event(descriptors[place], camera=frame(10 * place + n)))
        for writer, run in zip((one, two), runs, strict=True):
            writer("stop", run.stop())
    for place, run in enumerate(runs):
        expected = [frame(10 * place + n) for n in range(2)]
        assert np.array_equal(client[run.uid]["primary"]["camera"].read(), expected)


def test_images_of_other_writers_are_served_as_before(store: Store, root: Path, client: Any) -> None:
    folder = root / "incoming"
    folder.mkdir(parents=True)
    frames = [frame(n, (24, 40)) for n in range(3)]
    for n, pixels in enumerate(frames):
        tifffile.imwrite(folder / f"img_{n:06d}.tif", pixels, compression="zlib")
    run, writer = HandMadeRun(), TiledWriter(client)
    declared = {"shape": [24, 40], "dtype_numpy": "<u2", "external": "FILESTORE:"}
    descriptor = run.descriptor(camera=declared)
    kwargs = {
        "template": "/%s_%06d.tif",
        "filename": "img",
        "chunk_shape": [1, 24, 40],
        "join_method": "stack",
    }
    resource = {
        "uid": f"resource-{run.uid}",
        "spec": "AD_TIFF",
        "root": str(folder.parent),
        "resource_path": "incoming",
        "resource_kwargs": kwargs,
        "path_semantics": "posix",
        "run_start": run.uid,
    }
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("resource", resource)
    for n in range(3):
        datum = {
            "datum_id": f"{resource['uid']}/{n}",
            "resource": resource["uid"],
            "datum_kwargs": {"point_number": n},
        }
        writer("datum", datum)
        writer("event", {**run.event(descriptor, camera=datum["datum_id"]), "filled": {"camera": False}})
    writer("stop", run.stop())
    assert np.array_equal(client[run.uid]["primary"]["camera"].read(), frames)


def test_simulated_microscope_is_served_and_its_plan_waits_for_no_server(
    RE: Any, store: Store, client: Any
) -> None:
    names = set()
    writer = store.writer()
    writer.subscribe(TiledWriter(client))
    writer.subscribe(lambda name, doc: names.add(threading.current_thread().name))
    RE.subscribe(writer)
    RE(acquire_volume(SimulatedDiSPIM(size=32, n_slices=3), num=2))
    run = store[-1]
    for key in ("view_a", "view_b"):
        assert np.array_equal(client[run.uid]["primary"][key].read(), run[key])
    assert "bluesky-run-engine" not in names


@FORMATS
def test_event_whose_file_is_gone_is_an_error_and_never_zeros(
    store: Store, server: Any, client: Any, format: str
) -> None:
    run = store_events(store, TiledWriter(client), [frame(n) for n in range(3)], format=format)
    asset = store.root / store.record(store[run.uid]["my-camera"].uid).path
    if format == "zarr":
        rmtree(asset / "0" / "c" / "1")
    else:
        (asset / "000001.ome.tif").unlink()
    path = f"{run.uid}/primary/my-camera"
    assert np.array_equal(server.part(path, "2,0", frame(2)[0]), frame(2)[0])
    assert server.get(f"array/full/{path}", slice="1,0").status_code == 500


def test_frames_kept_in_memory_disturb_nothing(store: Store, client: Any) -> None:
    run = store_events(store, TiledWriter(client), [frame(n) for n in range(2)], format="memory")
    assert client[run.uid]["primary"].base["my-camera"].structure_family == "bytes"
    assert client[run.uid]["primary"]["number"].read().tolist() == [0, 1]
    assert client[run.uid].metadata["stop"]["exit_status"] == "success"


@FAMILIES
def test_store_whose_path_tiled_cannot_name_is_said_so_and_stored_all_the_same(
    server: Any, client: Any, assets: str
) -> None:
    with Store(server.stores / f"odd#{assets}") as store:
        with pytest.raises(SubscriberError) as caught:
            store_events(store, TiledWriter(client, batch_size=1), [frame(0)], assets=assets)
        (said,) = caught.value.errors
        assert isinstance(said, InvalidDocument)
        assert "without '#'" in str(said)
        assert np.array_equal(store[-1]["my-camera"], [frame(0)])


@FORMATS
def test_path_that_leads_out_of_what_the_server_may_read_is_refused(
    server: Any, client: Any, tmp_path: Path, format: str
) -> None:
    with Store(tmp_path / "private") as store:
        run = store_events(store, TiledWriter(client), [frame(n) for n in range(2)], format=format)
        assert server.get(f"array/full/{run.uid}/primary/my-camera").status_code == 500
    (source,) = client[run.uid]["primary"].base["my-camera"].data_sources()
    up = "/".join([".."] * len(server.stores.parts[1:]))
    for asset in source.assets:
        path = asset.data_uri.removeprefix("file://localhost")
        assert Path(path).exists()
        asset.data_uri = f"file://localhost{server.stores}/{up}{path}"
        assert Path(asset.data_uri.removeprefix("file://localhost")).exists()
        asset.id = None
    source.id = None
    client.new("array", [source], key=f"escape-{format}")
    assert server.get(f"array/full/escape-{format}").status_code == 500


@FORMATS
@FAMILIES
def test_run_of_a_store_that_was_moved_is_shown_from_its_documents(
    root: Path, client: Any, format: str, assets: str
) -> None:
    with Store(root) as store:
        run = store_events(store, print, [frame(n) for n in range(2)], format=format, assets=assets)
    with Store(root.rename(root.with_name(f"{root.name}-moved")), mode="r") as store:
        shown = TiledWriter(client)
        for name, doc in store[run.uid].documents():
            shown(name, doc)
    assert np.array_equal(client[run.uid]["primary"]["my-camera"].read(), [frame(n) for n in range(2)])


def test_registering_again_changes_nothing() -> None:
    register()
    before = dict(CONSOLIDATOR_REGISTRY), dict(MIMETYPE_LOOKUP)
    register()
    assert before == (dict(CONSOLIDATOR_REGISTRY), dict(MIMETYPE_LOOKUP))


@pytest.mark.parametrize("missing", ["tiled", "bluesky_tiled_plugins"])
def test_what_is_not_installed_is_named_with_the_command_that_brings_it(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from gently_bluesky.errors import MissingExtra
try:
    import gently_bluesky.tiled
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert missing in done.stdout
    assert "pip install 'gently-bluesky[tiled]'" in done.stdout


def test_stored_run_is_replayed_into_tiled_and_what_tiled_exports_is_replayed(
    root: Path, server: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(root) as store:
        run = store_events(store, lambda name, doc: None, [frame(0), frame(1)])
    monkeypatch.setenv("TILED_API_KEY", "secret")
    done = CliRunner().invoke(app, ["replay", str(root), "--tiled", server.url, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"] == [run.uid]
    assert np.array_equal(client[run.uid]["primary"]["my-camera"].read(), [frame(0), frame(1)])

    exported = tmp_path / "run.json-seq"
    client[run.uid].export(str(exported), format="application/json-seq")
    assert exported.read_bytes().startswith(b"\x1e")
    seen: list[tuple[str, dict[str, Any]]] = []
    replay(exported, lambda name, doc: seen.append((name, doc)), fill=False)
    names = [name for name, _ in seen]
    assert (names[0], names[-1], names.count("event")) == ("start", "stop", 2)
    assert [doc["data"]["number"] for name, doc in seen if name == "event"] == [0, 1]
