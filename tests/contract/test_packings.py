"""Every way of cutting, compressing and coarsening, judged by zarr-python, ome-zarr-models and numpy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import bluesky.plans as bp
import numpy as np
import pytest
import tensorstore as ts
import zarr
from memory_left import clear
from ome_zarr_models.v05 import Image

from gently_bluesky import Store, handler_registry
from gently_bluesky.backends.base import DEFAULT_PACKING, Backend
from gently_bluesky.backends.registry import get_backend
from gently_bluesky.backends.zarr import ZarrBackend, ZarrSink
from gently_bluesky.errors import AssetDamaged, InvalidSetting, StorageError
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing
from gently_bluesky.testing.assets import (
    DTYPES,
    START_S,
    array_spec,
    as_documented,
    begin,
    bytes_read,
    check_events,
)
from gently_bluesky.testing.backends import BackendConformance
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

CHUNKS = ("planes", "blocks", "volume", "auto", "explicit")
ZSTD_5 = ({"name": "zstd", "configuration": {"level": 5}},)
COMPRESSIONS: tuple[Any, ...] = ("lz4", "zstd", "none", "auto", ZSTD_5)


# -- the conformance suite, whatever the packing --


class Packed(ZarrBackend):
    """Zarr with another default."""

    packing: ClassVar[Packing] = DEFAULT_PACKING

    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,
        sample: Any = None,
        *,
        sync: str = "event",
    ) -> ZarrSink:
        return super().create(path, spec, self.packing, sample, sync=sync)


class TestBlocksInZstd(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        class Blocks(Packed):
            packing = Packing("blocks", "zstd")

        return Blocks()


class TestLevelsUncompressed(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        class Levels(Packed):
            packing = Packing(compression="none", levels=3)

        return Levels()


# -- cutting and compressing --


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("shape", [(613, 1030), (11, 130, 67), (2, 9, 130, 67), (300_001,)], ids=str)
def test_every_packing_comes_back_as_it_was(
    tmp_path: Path, chunks: Any, compression: Any, shape: tuple[int, ...]
) -> None:
    if chunks == "explicit":
        chunks = (4, 3, 100, 60)[-len(shape) :] if len(shape) > 1 else (7000,)
    packing, spec, path = Packing(chunks, compression), array_spec(shape), tmp_path / "a.ome.zarr"
    backend = get_backend("zarr")
    backend.check_packing(packing)
    sink = backend.create(path, spec, packing, encoded_frame(shape, spec.dtype))
    begin(sink, spec, range(2))
    sink.publish(2)
    sink.close()

    array = zarr.open_array(path, path="0", mode="r")
    for event, frame in enumerate(array[:]):
        check_frame(frame, event=event)
    said = as_documented(sink)["packing"]
    assert list(array.chunks) == [1, *said["chunks"]]
    assert list(array.shards) == [1, *said["shards"]]
    codecs = [codec.to_dict() for codec in array.metadata.codecs[0].codecs]
    assert codecs[1:] == said["codecs"]
    assert codecs[-1]["name"] == "crc32c"
    assert zarr.open_group(path, mode="r").attrs["gently_bluesky"]["packing"] == said

    source = backend.open(path, as_documented(sink))
    check_events(source, 2)
    assert list(source.chunks) == [1, *said["chunks"]]
    handler = handler_registry()["GENTLY_ZARR"](str(path), **as_documented(sink))
    check_frame(np.asarray(handler(1)), event=1)


def test_what_the_format_page_shows_of_a_packing_is_true(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    sink = get_backend("zarr").create(tmp_path / "a", array_spec((200, 2048, 2048)), Packing("blocks"))
    sink.close()
    assert json.loads(shown) == as_documented(sink)["packing"]


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("kind", DTYPES)
def test_every_compression_takes_every_dtype(tmp_path: Path, kind: str, compression: Any) -> None:
    for number, dtype in enumerate(DTYPES[kind]):
        spec, path = array_spec((5, 33, 47), dtype), tmp_path / str(number)
        sample = encoded_frame(spec.shape, dtype)
        sink = get_backend("zarr").create(path, spec, Packing("auto", compression), sample)
        begin(sink, spec, [0])
        sink.publish(1)
        sink.close()
        check_events(get_backend("zarr").open(path, as_documented(sink)), 1)
        check_frame(zarr.open_array(path, path="0", mode="r")[0], event=0)


@pytest.mark.parametrize(
    ("chunks", "window", "most"),
    [
        # of 16 planes of 1024 x 1024: one plane, one column of planes, one corner
        ("planes", (slice(5, 6), slice(0, 1024), slice(0, 1024)), 1),
        ("planes", (slice(0, 16), slice(700, 701), slice(0, 1024)), 16 / 2),
        ("planes", (slice(3, 5), slice(0, 512), slice(0, 512)), 2 / 4),
        ("blocks", (slice(5, 6), slice(0, 1024), slice(0, 1024)), 4),
        ("blocks", (slice(0, 16), slice(700, 701), slice(0, 1024)), 16 / 4),
        ("blocks", (slice(4, 8), slice(256, 512), slice(0, 256)), 4 / 16),
        ("volume", (slice(5, 6), slice(0, 1), slice(0, 1)), 16),
    ],
)
def test_no_chunk_is_read_that_is_not_needed(
    tmp_path: Path, chunks: str, window: tuple[slice, ...], most: float
) -> None:
    """In units of one plane; without compression, so that a chunk has one size."""
    if not bytes_read():
        pytest.skip("the system does not count what is read")
    spec, path = array_spec((16, 1024, 1024)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing(chunks, "none"))
    begin(sink, spec, range(2))
    sink.publish(2)
    sink.close()
    source = get_backend("zarr").open(path, as_documented(sink), 2)
    selection = (slice(1, 2, 1), *(slice(axis.start, axis.stop, 1) for axis in window))
    before = bytes_read()
    pixels = source.read(selection)
    cost = bytes_read() - before
    assert np.array_equal(pixels[0], encoded_frame(spec.shape, spec.dtype, event=1)[window])
    wanted = most * 1024 * 1024 * 2
    assert wanted <= cost <= wanted + 64 * 2**10


def test_opening_with_a_count_looks_at_no_event(tmp_path: Path) -> None:
    """Whatever became of their files: the shape is what was published."""
    spec, path = array_spec((9, 11)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec)
    sink.close()
    metadata = json.loads((path / "0/zarr.json").read_text())
    metadata["shape"][0] = 10_000
    (path / "0/zarr.json").write_text(json.dumps(metadata))
    assert get_backend("zarr").open(path, as_documented(sink), 10_000).shape == (10_000, 9, 11)
    with pytest.raises(AssetDamaged, match="declares 10000 events, holds files of 0"):
        get_backend("zarr").open(path, as_documented(sink))


@pytest.mark.parametrize("packing", [Packing((5, 5)), Packing((2**20,) * 3)], ids=str)
def test_chunks_that_do_not_fit_an_array_leave_nothing(tmp_path: Path, packing: Packing) -> None:
    spec = array_spec((600, 2048, 2048))
    with pytest.raises(InvalidSetting, match="no pixels were written"):
        get_backend("zarr").create(tmp_path / "a.ome.zarr", spec, packing)
    assert list(tmp_path.iterdir()) == []


# -- levels --


def mean_of_blocks(frame: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Say with numpy what a level should hold: sums of what there is in each block, halves to even."""
    total, count = frame, np.ones((), np.int64)
    if frame.dtype.kind in "biu":
        total = frame.astype(object if frame.dtype.itemsize == 8 else np.int64)
    elif frame.dtype.kind == "f":
        total = frame.astype(np.float64)
    for axis, factor in enumerate(factors):
        starts = np.arange(0, frame.shape[axis], factor)
        total = np.add.reduceat(total, starts, axis)
        lengths = np.diff([*starts, frame.shape[axis]])
        count = count * lengths.reshape([-1 if other == axis else 1 for other in range(frame.ndim)])
    if frame.dtype.kind in "fc":
        return (total / count).astype(frame.dtype)
    floor, rest = total // count, total % count
    up = (2 * rest > count) | ((2 * rest == count) & (floor % 2 == 1))
    return (floor + up).astype(frame.dtype)


def factors_of(group: zarr.Group) -> list[tuple[int, ...]]:
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    scales = [np.array(dataset["coordinateTransformations"][0]["scale"]) for dataset in datasets]
    return [tuple(int(factor) for factor in np.rint(scale / scales[0])[1:]) for scale in scales]


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", [dtype for kind in DTYPES for dtype in DTYPES[kind]])
@pytest.mark.parametrize("shape", [(33, 47), (7, 33, 46), (2, 5, 20, 31)], ids=str)
def test_levels_hold_means_of_the_full_resolution(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    spec, path = array_spec(shape, dtype), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing(levels=4))
    begin(sink, spec, range(2))
    sink.publish(2)
    sink.close()
    check_events(get_backend("zarr").open(path, as_documented(sink)), 2)
    group = zarr.open_group(path, mode="r")
    factors = factors_of(group)
    assert len(factors) == 4
    assert as_documented(sink)["packing"]["levels"] == 4
    for level, covered in enumerate(factors):
        for event, pixels in enumerate(group[str(level)][:]):
            expected = mean_of_blocks(encoded_frame(shape, dtype, event=event), covered)
            if spec.dtype.kind in "fc":
                assert np.allclose(pixels, expected, rtol=2e-3 if spec.dtype.itemsize == 2 else 1e-6)
            else:
                assert np.array_equal(pixels, expected)
            assert pixels.dtype == spec.dtype


@pytest.mark.parametrize("dtype", ["|u1", "<u8", "|i1", "<i8"])
def test_means_of_the_largest_integers_do_not_overflow(tmp_path: Path, dtype: str) -> None:
    spec, path = array_spec((4, 8), dtype), tmp_path / "a.ome.zarr"
    limits = np.iinfo(dtype)
    frame = np.full((4, 8), limits.max, dtype)
    frame[:, 4:] = limits.min
    sink = get_backend("zarr").create(path, spec, Packing(levels=3))
    sink.write(0, frame, START_S).result()
    sink.publish(1)
    sink.close()
    coarse = zarr.open_group(path, mode="r")["2"][0]
    assert coarse.tolist() == [[limits.max, limits.min]]


def test_levels_are_valid_ome_zarr_and_lie_over_each_other(tmp_path: Path) -> None:
    spec, path = array_spec((2, 7, 96, 130)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing("blocks", levels=4))
    begin(sink, spec, range(3))
    sink.publish(3)
    sink.close()
    group = zarr.open_group(path, mode="r")
    multiscale = Image.from_zarr(group).ome_attributes.multiscales[0]
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2", "3"]
    assert multiscale.type == "mean"
    # steps of 1 um along z and 0.1625 um along y and x: z is halved when the others have come close to it
    assert [group[str(level)].shape for level in range(4)] == [
        (3, 2, 7, 96, 130),
        (3, 2, 7, 48, 65),
        (3, 2, 7, 24, 33),
        (3, 2, 4, 12, 17),
    ]
    for dataset in multiscale.datasets[1:]:
        scale, translation = dataset.coordinateTransformations
        full_scale = multiscale.datasets[0].coordinateTransformations[0].scale
        # the corner of the first pixel is where that of the full resolution is
        assert np.allclose(
            np.array(translation.translation) - np.array(scale.scale) / 2, -np.array(full_scale) / 2
        )
    arrays = [group[str(level)] for level in range(4)]
    assert {array.metadata.dimension_names for array in arrays} == {("t", "c", "z", "y", "x")}
    assert all(array.metadata.codecs[0].codecs[-1].to_dict()["name"] == "crc32c" for array in arrays)


@pytest.mark.parametrize(
    ("shape", "levels"), [((1000,), 1), ((2, 3, 4, 9, 11), 1), ((3, 5), 4), ((1, 1), 1), ((1, 9), 5)]
)
def test_what_cannot_be_halved_has_fewer_levels(tmp_path: Path, shape: tuple[int, ...], levels: int) -> None:
    spec, path = array_spec(shape), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing(levels=9))
    begin(sink, spec, [0])
    sink.publish(1)
    sink.close()
    assert as_documented(sink)["packing"]["levels"] == levels
    assert sorted(zarr.open_group(path, mode="r").array_keys()) == [str(level) for level in range(levels)]


def test_levels_of_a_volume_are_made_shard_by_shard(tmp_path: Path) -> None:
    """Of several shards in each level, in every direction."""
    spec, path = array_spec((6, 400, 500)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing((6, 10, 10), levels=3))
    begin(sink, spec, [0])
    sink.publish(1)
    sink.close()
    group = zarr.open_group(path, mode="r")
    for level, covered in enumerate(factors_of(group)):
        shards = [file for file in (path / str(level) / "c/0").rglob("*") if file.is_file()]
        assert len(shards) > 1 or level == 2
        expected = mean_of_blocks(encoded_frame(spec.shape, spec.dtype), covered)
        assert np.array_equal(group[str(level)][0], expected)


def test_outside_reader_never_sees_an_event_that_a_coarser_level_lacks(tmp_path: Path) -> None:
    spec, path = array_spec((64, 64)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing(levels=3))
    ended, seen, wrong = threading.Event(), set[int](), list[str]()

    def look() -> None:
        while not ended.is_set():
            counts = [
                json.loads((path / str(level) / "zarr.json").read_text())["shape"][0] for level in range(3)
            ]
            seen.add(counts[0])
            if sorted(counts) != counts:
                wrong.append(str(counts))
            if counts[0]:
                coarse = zarr.open_array(path, path="2", mode="r")[counts[0] - 1]
                expected = mean_of_blocks(encoded_frame((64, 64), "<u2", event=counts[0] - 1), (4, 4))
                if not np.array_equal(coarse, expected):
                    wrong.append(f"event {counts[0] - 1}")

    reader = threading.Thread(target=look)
    reader.start()
    for event in range(60):
        begin(sink, spec, [event])
        sink.publish(event + 1)
    ended.set()
    reader.join()
    sink.close()
    assert wrong == []
    assert seen


def test_plan_goes_on_while_levels_are_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are accepted, and the full resolution is stored; none is announced before its levels are."""
    made, begun, gate, by = ts.downsample, threading.Event(), threading.Event(), set[str]()

    def downsample(*arguments: Any) -> Any:
        by.add(threading.current_thread().name)
        begun.set()
        assert gate.wait(60)
        return made(*arguments)

    monkeypatch.setattr(ts, "downsample", downsample)
    writer, run = store.writer(levels=3), HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for event in range(4):
        writer("event", run.event(descriptor, camera=encoded_frame((64, 64), "<u2", event=event)))
    assert begun.wait(60)
    assert (writer.stats()["accepted"], writer.stats()["announced"]) == (4, 0)
    gate.set()
    writer("stop", run.stop())
    assert by == {"gently-bluesky-levels"}
    assert store[run.uid].status == "complete"
    check_frame(np.asarray(store[run.uid]["camera"][3]), event=3)


@pytest.mark.parametrize("in_the_way", ["of a folder", "of a shard"])
def test_level_that_cannot_be_written_fails_the_event(tmp_path: Path, in_the_way: str) -> None:
    spec, path = array_spec((64, 64)), tmp_path / "a.ome.zarr"
    sink = get_backend("zarr").create(path, spec, Packing(levels=3))
    begin(sink, spec, [0])
    sink.publish(1)
    frame, obstacle = encoded_frame(spec.shape, spec.dtype, event=1), path / "2/c/1"
    if in_the_way == "of a folder":
        obstacle.write_text("a file")
    else:
        obstacle = obstacle / "0/0"
        (obstacle / "full").mkdir(parents=True)
    with pytest.raises(StorageError, match="event 1 was not stored") as caught:
        sink.write(1, frame, START_S).result()
    assert caught.value.errno is not None
    with pytest.raises(StorageError, match="event 1 was not stored"):
        sink.publish(2)
    assert [zarr.open_array(path, path=str(level), mode="r").shape[0] for level in range(3)] == [1, 1, 1]
    if in_the_way == "of a folder":
        obstacle.unlink()
    else:
        (obstacle / "full").rmdir()
        obstacle.rmdir()
    sink.write(1, frame, START_S).result()
    sink.publish(2)
    sink.close()
    check_events(get_backend("zarr").open(path, as_documented(sink)), 2)
    assert np.array_equal(zarr.open_array(path, path="2", mode="r")[1], mean_of_blocks(frame, (4, 4)))


# -- recovery --


@pytest.mark.parametrize("counts", [(3, 3, 3), (2, 3, 3), (2, 2, 3), (1, 1, 1), (0, 0, 2)])
@pytest.mark.parametrize("announced", [1, 2, 3])
def test_recovery_gives_all_levels_the_same_events(
    tmp_path: Path, counts: tuple[int, ...], announced: int
) -> None:
    """Wherever between the levels the writer died."""
    spec, path, backend = array_spec((64, 64)), tmp_path / "a.ome.zarr", get_backend("zarr")
    sink = backend.create(path, spec, Packing(levels=3))
    begin(sink, spec, range(3))
    sink.publish(3)
    kwargs = as_documented(sink)
    for level, count in enumerate(counts):
        file = path / str(level) / "zarr.json"
        metadata = json.loads(file.read_text())
        metadata["shape"][0] = count
        file.write_text(json.dumps(metadata))
    for _ in range(2):
        backend.recover(path, kwargs, announced)
        group = zarr.open_group(path, mode="r")
        assert [group[str(level)].shape[0] for level in range(3)] == [announced] * 3
        check_events(backend.open(path, kwargs), announced)
    sink.close()


def test_damaged_level_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    spec, path, backend = array_spec((64, 64)), tmp_path / "a.ome.zarr", get_backend("zarr")
    sink = backend.create(path, spec, Packing(levels=2))
    begin(sink, spec, range(2))
    sink.publish(2)
    sink.close()
    (path / "1/zarr.json").write_text("{")
    with pytest.raises(AssetDamaged, match=r"1/zarr\.json.*nothing was changed"):
        backend.recover(path, as_documented(sink), 1)
    check_events(backend.open(path, as_documented(sink)), 2)


WRITER = """
import json, sys
from itertools import count
from pathlib import Path
from gently_bluesky.backends.zarr import ZarrBackend
from gently_bluesky.settings import Packing
from gently_bluesky.testing.assets import array_spec
from gently_bluesky.testing.frames import encoded_frame

spec = array_spec((12, 200, 300))
sink = ZarrBackend().create(Path(sys.argv[1]), spec, Packing("blocks", levels=3))
print(json.dumps(dict(sink.resource_kwargs)), flush=True)
pending = []
for event in count():
    pending.append(sink.write(event, encoded_frame(spec.shape, spec.dtype, event=event), 0.0))
    if event >= 3:
        pending[event - 3].result()
        sink.publish(event - 2)
        print(event - 2, flush=True)
"""


@pytest.mark.parametrize("announced", [1, 4, 9])
def test_killed_writer_leaves_all_levels_of_what_was_announced(tmp_path: Path, announced: int) -> None:
    path, backend = tmp_path / "a.ome.zarr", get_backend("zarr")
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        kwargs = json.loads(writer.stdout.readline())
        while int(writer.stdout.readline()) < announced:
            pass
        writer.kill()
    for _ in range(2):
        backend.recover(path, kwargs, announced)
        check_events(backend.open(path, kwargs), announced)
        group = zarr.open_group(path, mode="r")
        for level, covered in enumerate(factors_of(group)):
            pixels = group[str(level)][:]
            assert len(pixels) == announced
            for event, frame in enumerate(pixels):
                whole = encoded_frame((12, 200, 300), "<u2", event=event)
                assert np.array_equal(frame, mean_of_blocks(whole, covered))
        assert {file.name for file in path.rglob("*") if file.is_file() and not file.name.isdigit()} == {
            "zarr.json"
        }


# -- through the front door --


@pytest.mark.parametrize(
    "settings",
    [
        {"chunks": "pages"},
        {"chunks": (0, 5)},
        {"chunks": ()},
        {"chunks": {"camera": (True, 5)}},
        {"chunks": {"camera": "pages"}},
        {"chunks": {3: "planes"}},
        {"compression": "lzma"},
        {"compression": [{"name": "numcodecs.lz4", "configuration": {}}]},
        {"compression": {"camera": [{"name": "zstd", "configuration": {"level": 99}}]}},
        {"levels": 0},
        {"levels": {"camera": True}},
        {"max_pending_bytes": -1},
        {"max_pending_bytes": 2.5},
        {"hot_bytes": 1 << 60},
        {"format": "memory", "chunks": "planes"},
        {"format": "memory", "compression": "lz4"},
        {"format": "memory", "levels": {"camera": 2}},
        {"format": "tiff", "chunks": "planes"},
        {"format": "tiff", "compression": "lz4"},
        {"format": "tiff", "compression": {"camera": "zstd"}},
        {"format": "tiff", "levels": 2},
    ],
    ids=str,
)
def test_writer_refuses_what_cannot_be_before_anything_is_written(
    store: Store, settings: dict[str, Any]
) -> None:
    before = sorted(store.root.rglob("*"))
    with pytest.raises(InvalidSetting, match="nothing was written"):
        store.writer(**settings)
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize("format", ["tiff", "memory"])
def test_format_that_does_not_compress_takes_what_it_does_anyway(store: Store, RE: Any, format: str) -> None:
    RE.subscribe(store.writer(format=format, compression="none", chunks={}, levels=1))
    (uid,) = RE(bp.count([EncodedCamera("camera")]))
    check_frame(np.asarray(store[uid]["camera"][0]), key="camera")
    clear(store.root)


def test_each_data_key_is_packed_as_it_says(store: Store, RE: Any) -> None:
    writer = store.writer(
        chunks={"a": "blocks", "b": (2, 16, 48), "c": "auto"},
        compression={"b": "none", "c": "auto"},
        levels={"a": 2},
    )
    RE.subscribe(writer)
    cameras = [EncodedCamera(name, (9, 32, 48)) for name in "abc"]
    (uid,) = RE(bp.count(cameras, num=3))
    said = {name: store.record(store[uid]["primary"][name].uid).metadata["packing"] for name in "abc"}
    assert said["a"]["why"] == "chunks: blocks, as asked for; compression: lz4, by default"
    assert said["b"]["chunks"] == [2, 16, 48]
    assert [codec["name"] for codec in said["b"]["codecs"]] == ["crc32c"]
    assert "compression: none, as asked for" in said["b"]["why"]
    little = f"volume, chosen because an event is {9 * 32 * 48 * 2} bytes, little for one chunk"
    assert said["c"]["why"].startswith(f"chunks: {little}; compression: ")
    assert "chosen because a sample shrank" in said["c"]["why"]
    assert [said[name]["levels"] for name in "abc"] == [2, 1, 1]
    for name in "abc":
        for event in range(3):
            check_frame(np.asarray(store[uid]["primary"][name][event]), key=name, event=event)


@pytest.mark.parametrize(
    ("chunks", "match"),
    [((4, 16, 16), r"each of the 2 axes.*\(4, 16, 16\)"), ((1, 1), r"\(1, 1\), which would make 16384")],
    ids=str,
)
def test_chunks_that_do_not_fit_are_refused_with_the_first_event_before_any_pixel_is_written(
    store: Store, chunks: tuple[int, ...], match: str
) -> None:
    """The other data key's chunks fit: nothing of it is written either."""
    writer, run = store.writer(chunks={"b": chunks}), HandMadeRun()
    descriptor = run.descriptor(a={}, b={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    frames = {key: np.zeros((2048, 2048), "<u2") for key in "ab"}
    with pytest.raises(InvalidSetting, match=match) as first:
        writer("event", run.event(descriptor, **frames))
    assert "no pixels were written" in str(first.value)
    with pytest.raises(InvalidSetting) as last:
        writer("stop", run.stop())
    assert last.value is first.value
    assert (store[run.uid].status, store[run.uid].record.lost) == ("failed", 2)
    assert "InvalidSetting" in store[run.uid].stop["reason"]
    (journal,) = store.root.glob("runs/*/*/*/*/*")
    assert [json.loads(line)["name"] for line in journal.read_text().splitlines()] == ["start", "stop"]


def test_chunks_that_do_not_fit_stop_the_plan_at_its_first_frame(store: Store, RE: Any) -> None:
    RE.subscribe(store.writer(chunks=(4, 16, 16)))
    camera = EncodedCamera("camera")
    with pytest.raises(InvalidSetting, match="no pixels were written"):
        RE(bp.count([camera], num=3))
    assert camera.triggers == 1
    assert store[-1].status == "failed"
