"""How events are cut and compressed: the layouts, what "auto" comes to and why, and what is refused."""

from __future__ import annotations

import json
import re
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gently_bluesky.backends.chunks import (
    LAYOUT_NAMES,
    MAX_CHUNK_BYTES,
    MAX_SHARD_BYTES,
    choose_layout,
)
from gently_bluesky.backends.packing import check_fit, check_packing, choose
from gently_bluesky.backends.zarr_codecs import COMPRESSION_NAMES
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.settings import Packing, Settings
from gently_bluesky.testing.assets import array_spec

NUMBERS = np.random.default_rng(0)


# -- layouts --


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks", "inner", "shard"),
    [
        ((2048, 2048), 2, "planes", (512, 512), (2048, 2048)),
        ((200, 2048, 2048), 2, "planes", (1, 512, 512), (8, 2048, 2048)),
        ((2, 200, 2048, 2048), 2, "planes", (1, 1, 512, 512), (1, 8, 2048, 2048)),
        ((200, 2048, 2048), 2, "blocks", (4, 256, 256), (8, 2048, 2048)),
        ((200, 2048, 2048), 2, (16, 128, 128), (16, 128, 128), (16, 1024, 2048)),
        ((2304, 2304), 2, "planes", (461, 461), (2305, 2305)),
        ((17, 2048, 2048), 2, "planes", (1, 512, 512), (6, 2048, 2048)),
        ((64, 4096, 4096), 2, "planes", (1, 512, 512), (2, 4096, 4096)),
        ((50, 64, 64), 2, "planes", (8, 64, 64), (56, 64, 64)),
        ((10_000,), 8, "planes", (10_000,), (10_000,)),
        ((3, 2, 4, 10, 10), 2, "planes", (3, 2, 4, 10, 10), (3, 2, 4, 10, 10)),
        ((), 2, "planes", (), ()),
        ((40_000, 40_000), 1, "planes", (507, 507), (8112, 8112)),
        ((2048, 2048), 2, "volume", (2048, 2048), (2048, 2048)),
        ((8, 2048, 2048), 2, "volume", (8, 2048, 2048), (8, 2048, 2048)),
        ((9, 2048, 2048), 2, "volume", (5, 2048, 2048), (5, 2048, 2048)),
        ((200, 2048, 2048), 2, "volume", (8, 2048, 2048), (8, 2048, 2048)),
        ((2, 200, 512, 512), 2, "volume", (1, 100, 512, 512), (1, 100, 512, 512)),
        ((3, 20_000, 20_000), 2, "volume", (1, 1667, 20_000), (1, 1667, 20_000)),
    ],
)
def test_layouts(
    shape: tuple[int, ...], itemsize: int, chunks: Any, inner: tuple[int, ...], shard: tuple[int, ...]
) -> None:
    layout = choose_layout(shape, itemsize, chunks)
    assert layout.inner == inner
    assert layout.shard == shard


SHAPES = st.lists(
    st.one_of(st.integers(0, 20), st.integers(1, 5000), st.integers(1, 10**6)), min_size=1, max_size=5
).map(tuple)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], int, Any]:
    shape = draw(SHAPES)
    explicit = st.tuples(*(st.integers(1, 300) for _ in shape))
    return shape, draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from(LAYOUT_NAMES) | explicit)


@settings(max_examples=500, deadline=None)
@given(cut=cuts())
def test_shards_are_whole_chunks_and_keep_within_the_limits(
    cut: tuple[tuple[int, ...], int, Any],
) -> None:
    shape, itemsize, chunks = cut
    try:
        layout = choose_layout(shape, itemsize, chunks)
    except InvalidSetting as error:
        refusal = str(error)
        assert prod(chunks) * itemsize > MAX_CHUNK_BYTES or "larger chunks" in refusal
        return
    for length, shard, inner in zip(shape, layout.shard, layout.inner, strict=True):
        assert shard % inner == 0
        assert 1 <= inner <= max(1, length)
        pieces = -(-length // shard)
        assert pieces * shard - length < max(1, pieces) * inner or length == 0
    chunk_bytes, shard_bytes = (prod(lengths) * itemsize for lengths in (layout.inner, layout.shard))
    assert shard_bytes <= max(MAX_SHARD_BYTES, chunk_bytes)
    if isinstance(chunks, str):
        assert chunk_bytes <= MAX_SHARD_BYTES


@settings(max_examples=200, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(0, 40), max_size=4).map(tuple))
def test_every_layout_covers_every_element_once(data: st.DataObject, shape: tuple[int, ...]) -> None:
    explicit = st.tuples(*(st.integers(1, 50) for _ in shape))
    chunks = data.draw(st.sampled_from(LAYOUT_NAMES) | explicit)
    covered = np.zeros(shape, np.uint8)
    for box in choose_layout(shape, 2, chunks).boxes(shape):
        assert covered[box].size
        covered[box] += 1
    assert (covered == 1).all()


# -- what "auto" comes to --


def noise(shape: tuple[int, ...], dtype: str = "<u2") -> np.ndarray:
    return NUMBERS.integers(0, 65536, shape, dtype)


def camera(shape: tuple[int, ...]) -> np.ndarray:
    return (100 + NUMBERS.poisson(30, shape)).astype("<u2")


def labels(shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(NUMBERS.integers(0, 200, (*shape[:-1], shape[-1] // 32)), 32, axis=-1).astype("<u2")


@pytest.mark.parametrize(
    ("sample", "chunks", "codec", "why"),
    [
        (camera((600, 700)), "planes", "lz4", "2 axes.*lz4, chosen because a sample shrank to 0"),
        (noise((600, 700)), "planes", None, r"none, chosen because a sample shrank to 1\.0"),
        (labels((600, 704)), "planes", "zstd", "zstd, chosen because .* with lz4 to 0"),
        (camera((20, 64, 64)), "volume", "lz4", "little for one chunk"),
        (camera((5, 1024, 1024)), "planes", "lz4", "there are 5 of them"),
        (camera((10, 512, 512)), "blocks", "lz4", "10 planes to cut through, and a sample shrank to 0"),
        (noise((10, 512, 512)), "planes", None, "blocks read four planes for one"),
        (np.zeros((10, 512, 512), "<u2"), "blocks", "lz4|zstd", "chosen because"),
        (np.zeros((10, 0, 512), "<u2"), "volume", "lz4", "nothing to look at"),
        (np.zeros((100_000,), "<f8"), "planes", "lz4|zstd", "1 axes|an event has 1"),
    ],
    ids=lambda value: getattr(value, "shape", None) and str(value.shape),
)
def test_auto_chooses_and_says_why(sample: np.ndarray, chunks: str, codec: str | None, why: str) -> None:

    spec = array_spec(sample.shape, sample.dtype.str)
    choice = choose(Packing("auto", "auto"), spec, sample)
    assert choice.chunks == chunks
    found = choice.codecs[0]["configuration"]["cname"] if choice.codecs else None
    assert (found in codec.split("|")) if codec else found is None
    assert re.search(why, choice.why), choice.why


def test_auto_without_a_sample_takes_what_suits_most() -> None:
    choice = choose(Packing("auto", "auto"), array_spec((10, 512, 512)), None)
    assert choice.chunks == "planes"
    assert choice.codecs[0]["configuration"]["cname"] == "lz4"
    assert "nothing to look at" in choice.why


def test_auto_looks_at_all_of_a_volume_and_not_at_its_first_plane() -> None:
    """Planes before the specimen are dark; the noise behind them decides."""
    sample = np.zeros((16, 512, 512), "<u2")
    sample[4:] = noise((12, 512, 512))
    assert choose(Packing("auto", "auto"), array_spec(sample.shape), sample).chunks == "planes"


def test_what_was_chosen_is_recorded_in_json() -> None:
    choice = choose(Packing((3, 100, 100), [{"name": "zstd", "configuration": {"level": 5}}]), SPEC, None)
    said = json.loads(json.dumps(choice.kwargs(levels=2)))
    assert said == {
        "chunks": [3, 100, 100],
        "shards": [6, 600, 1000],
        "codecs": [
            {"name": "zstd", "configuration": {"level": 5, "checksum": False}},
            {"name": "crc32c"},
        ],
        "levels": 2,
        "why": "chunks: as asked for; compression: as asked for",
    }


SPEC = array_spec((10, 600, 1000))


# -- what is refused --


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        [],
        (0, 5),
        (-1, 5),
        (True, 5),
        (2.0, 5),
        ("2", 5),
        7,
        True,
        0,
        {1, 2},
        b"planes",
        (None, 2),
    ],
    ids=repr,
)
def test_chunks_that_nothing_could_take_are_refused(chunks: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"chunks must be .* nothing was written"):
        Packing(chunks=chunks)
    with pytest.raises(InvalidSetting, match="nothing was written"):
        Settings(chunks={"camera": chunks})


@pytest.mark.parametrize(
    "compression",
    [(), [], 3, ("lz4",), [{}], [{"name": 3}], [{"configuration": {}}], {"name": "zstd"}, b"lz4"],
    ids=repr,
)
def test_compressions_that_nothing_could_take_are_refused(compression: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"compression must be .* nothing was written"):
        Packing(compression=compression)


@pytest.mark.parametrize("levels", [0, -1, True, 1.5, "2", None])
def test_levels_that_are_no_number_of_resolutions_are_refused(levels: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"levels must be .* nothing was written"):
        Packing(levels=levels)
    with pytest.raises(InvalidSetting, match="nothing was written"):
        Settings(levels={"camera": levels})


@pytest.mark.parametrize("setting", ["chunks", "compression", "levels"])
def test_data_keys_are_text(setting: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"{setting} by data key .* nothing was written"):
        Settings(**{setting: {1: 1 if setting == "levels" else "planes"}})


def test_data_keys_that_are_not_named_get_the_default() -> None:
    made = Settings(chunks={"a": [4, 4]}, compression={"b": "zstd"}, levels={"a": np.int64(3)})
    assert made.packing("a") == Packing(chunks=(4, 4), levels=3)
    assert made.packing("b") == Packing(compression="zstd")
    assert made.packing("c") == Packing()
    assert made.packings() == [Packing(), made.packing("a"), made.packing("b")]
    assert Settings(chunks="blocks").packing("any") == Packing("blocks")


@pytest.mark.parametrize(
    ("packing", "match"),
    [
        (Packing(chunks="pages"), "planes, blocks, volume, auto.*'pages'"),
        (Packing(compression="lzma"), "lz4, zstd, none, auto.*'lzma'"),
        (Packing(compression=""), "got ''"),
        (Packing(compression=({"name": "lz4"},)), "blosc, gzip, zstd.*lz4"),
        (Packing(compression=({"name": "numcodecs.lz4", "configuration": {}},)), "numcodecs"),
        (Packing(compression=({"name": "bytes"},)), "bytes"),
        (
            Packing(compression=({"name": "zstd", "configuration": {"level": 500}},)),
            "less than or equal to 22",
        ),
        (Packing(compression=({"name": "zstd", "configuration": {"strength": 5}},)), "strength"),
        (Packing(compression=({"name": "zstd"},)), "configuration"),
        (Packing(compression=({"name": "zstd", "configuration": 5},)), "cannot be used"),
        (Packing(compression=({"name": "gzip", "configuration": {"level": "5"}},)), "cannot be used"),
        (Packing(compression=({"name": "blosc", "configuration": {"cname": "best"}},)), "best"),
        # zarr-python takes this one, TensorStore does not
        (Packing(compression=({"name": "blosc", "configuration": {"clevel": 30}},)), "cannot be used"),
    ],
    ids=str,
)
def test_names_and_codecs_that_are_unknown_are_refused(packing: Packing, match: str) -> None:
    with pytest.raises(InvalidSetting, match=match) as caught:
        check_packing(packing)
    assert "nothing was written" in str(caught.value)


@pytest.mark.parametrize(
    "packing",
    [
        *(Packing(chunks=name) for name in (*LAYOUT_NAMES, "auto", (3, 5))),
        *(Packing(compression=name) for name in (*COMPRESSION_NAMES, "auto")),
        Packing(compression=({"name": "zstd", "configuration": {"level": 5}},)),
        Packing(compression=({"name": "gzip", "configuration": {"level": 1}},)),
        Packing(compression=({"name": "blosc", "configuration": {"cname": "lz4hc", "clevel": 5}},)),
        Packing(levels=5),
    ],
    ids=str,
)
def test_what_is_known_is_taken(packing: Packing) -> None:
    check_packing(packing)


@pytest.mark.parametrize(
    ("chunks", "match"),
    [
        ((5, 5), r"3 axes.*\(5, 5\)"),
        ((1, 1, 5, 5), "3 axes"),
        ((10, 600, 1000), None),
        ((10**6, 10**6, 10**6), None),
    ],
)
def test_lengths_have_to_fit_the_axes(chunks: tuple[int, ...], match: str | None) -> None:
    if match is None:
        assert choose_layout((10, 600, 1000), 2, chunks).inner == (10, 600, 1000)
        return
    with pytest.raises(InvalidSetting, match=match) as caught:
        check_fit(Packing(chunks), array_spec((10, 600, 1000)))
    assert "no pixels were written" in str(caught.value)


def test_words_fit_every_array() -> None:
    for chunks in (*LAYOUT_NAMES, "auto", None):
        for shape in ((0, 5), (7,), (3, 2, 4, 10, 10), (40_000, 40_000)):
            check_fit(Packing(chunks), array_spec(shape))


def test_chunk_that_blosc_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"no pixels were written.*smaller chunks"):
        choose_layout((600, 2048, 2048), 2, (256, 2048, 2048))
    assert choose_layout((600, 2048, 2048), 2, (255, 2048, 2048)).inner == (255, 2048, 2048)


def test_chunks_so_small_that_an_event_is_thousands_of_files_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"16384; no pixels were written.*larger chunks"):
        choose_layout((2048, 2048), 2, (1, 1))
    assert choose_layout((2048, 2048), 2, (2, 2)).inner == (2, 2)
