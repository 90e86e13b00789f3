"""Reading TIFF files: what is believed of their directories, many files at once, and what opening looks at."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings

from gently_bluesky.backends import tiff, tiff_source
from gently_bluesky.backends.own_files import open_own
from gently_bluesky.backends.registry import get_backend
from gently_bluesky.backends.tiff_source import TiffSource
from gently_bluesky.errors import AssetDamaged, AssetMissing
from gently_bluesky.lazy import Selection
from gently_bluesky.testing.assets import (
    array_spec,
    check_events,
    full,
    numpy_answer,
    selections,
    write_asset,
)
from gently_bluesky.testing.frames import check_frame, encoded_frame

DIRECTORY_LINK = 4
TAG_NBYTES = 12
STRIP_OFFSETS = 273


def links_of(data: bytes) -> list[int]:
    """Return where in a classic TIFF each link to a directory stands."""
    links = [DIRECTORY_LINK]
    while offset := struct.unpack_from("<I", data, links[-1])[0]:
        links.append(offset + 2 + TAG_NBYTES * struct.unpack_from("<H", data, offset)[0])
    return links[:-1]


def directory_of(data: bytes, plane: int) -> int:
    return struct.unpack_from("<I", data, links_of(data)[plane])[0]


def value_of(data: bytes, plane: int, code: int) -> int:
    """Return where in a classic TIFF the value of a tag of a plane stands."""
    start = directory_of(data, plane)
    for number in range(struct.unpack_from("<H", data, start)[0]):
        tag = start + 2 + TAG_NBYTES * number
        if struct.unpack_from("<H", data, tag)[0] == code:
            return tag + 8
    raise LookupError(code)


def open_one(path: Path, shape: tuple[int, ...]) -> tuple[TiffSource, Path]:
    backend = get_backend("tiff")
    source = backend.open(path, write_asset(backend, path, array_spec(shape), [0]))
    assert isinstance(source, TiffSource)
    return source, next(path.iterdir())


# -- directories --


@pytest.mark.parametrize("planes", [1, 2, 3, 300])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_files_of_any_number_of_planes_are_read(
    tmp_path: Path, planes: int, big: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        monkeypatch.setattr(tiff, "BIGTIFF_NBYTES", 0)
    source, file = open_one(tmp_path / "a", (planes, 5, 7))
    with tifffile.TiffFile(file) as opened:
        assert opened.is_bigtiff == big
    check_events(source, 1)


@pytest.mark.parametrize("dtype", ["<u2", "<i8"], ids=["OME", "not OME"])
@pytest.mark.parametrize("shape", [(3, 1), (3, 4, 1), (3, 1, 1), (1, 4, 1), (2, 3, 4, 1), (2, 3, 1, 1)])
def test_pixels_in_a_row_of_one_come_back(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    backend = get_backend("tiff")
    resource_kwargs = write_asset(backend, tmp_path / "a", array_spec(shape, dtype))
    check_events(backend.open(tmp_path / "a", resource_kwargs), 3)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count calls")
def test_hundreds_of_directories_are_looked_at_at_once(tmp_path: Path) -> None:
    source, _ = open_one(tmp_path / "a", (300, 5, 7))
    before = calls()
    source.read((slice(0, 1, 1), slice(150, 151, 1), slice(0, 5, 1), slice(0, 7, 1)))
    assert calls() - before < 300


def calls() -> int:
    """Return how often this process has asked the system to read."""
    counters = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in counters)["syscr"])


def test_a_directory_that_was_moved_to_the_end_is_found(tmp_path: Path) -> None:
    source, file = open_one(tmp_path / "a", (9, 5, 7))
    data = bytearray(file.read_bytes())
    for plane in (8, 4, 1):  # each to a place of its own, as programs that edit a tag do
        start, link = directory_of(data, plane), links_of(data)[plane]
        end = start + 2 + TAG_NBYTES * struct.unpack_from("<H", data, start)[0] + 4
        struct.pack_into("<I", data, link, len(data) + len(data) % 2)
        data += bytes(len(data) % 2) + data[start:end]
    file.write_bytes(data)
    check_events(source, 1)


@pytest.mark.parametrize("plane", [0, 1, 4, 8])
@pytest.mark.parametrize(
    ("code", "value"),
    [(STRIP_OFFSETS, 8), (256, 5), (257, 7), (258, 8), (259, 5), (339, 2)],
    ids=["place", "width", "height", "bits", "compression", "kind of number"],
)
def test_a_plane_that_is_told_to_be_another_never_gives_wrong_pixels(
    tmp_path: Path, plane: int, code: int, value: int
) -> None:
    source, file = open_one(tmp_path / "a", (9, 5, 7))
    data = bytearray(file.read_bytes())
    try:
        at = value_of(data, plane, code)
    except LookupError:
        at = value_of(data, plane, 262)  # there is no such tag: lie about what colours mean
        value = 0
    struct.pack_into("<I", data, at, value)
    file.write_bytes(data)
    try:
        pixels = source.read(full(source.shape))
    except AssetDamaged:
        return
    check_frame(pixels[0], event=0)
    assert code != STRIP_OFFSETS


def test_swapped_planes_are_damaged(tmp_path: Path) -> None:
    source, file = open_one(tmp_path / "a", (9, 5, 7))
    data = bytearray(file.read_bytes())
    first, second = value_of(data, 4, STRIP_OFFSETS), value_of(data, 5, STRIP_OFFSETS)
    data[first : first + 4], data[second : second + 4] = data[second : second + 4], data[first : first + 4]
    file.write_bytes(data)
    with pytest.raises(AssetDamaged, match="one behind the other"):
        source.read(full(source.shape))


@pytest.mark.parametrize("planes", [4, 8, 10])
def test_another_number_of_planes_is_damaged(tmp_path: Path, planes: int) -> None:
    source, file = open_one(tmp_path / "a", (9, 5, 7))
    tifffile.imwrite(file, encoded_frame((planes, 5, 7), "<u2"), photometric="minisblack")
    with pytest.raises(AssetDamaged, match=rf"expected \(9, 5, 7\).*found \({planes}, 5, 7\)"):
        source.read(full(source.shape))


def test_directories_in_a_circle_are_damaged(tmp_path: Path) -> None:
    source, file = open_one(tmp_path / "a", (9, 5, 7))
    data = bytearray(file.read_bytes())
    start = directory_of(data, 8)
    end = start + 2 + TAG_NBYTES * struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, end, directory_of(data, 3))
    file.write_bytes(data)
    with pytest.raises(AssetDamaged, match=file.name):
        source.read(full(source.shape))


# -- many files, large ones --


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read is cut into small pieces and shared out."""
    monkeypatch.setattr(tiff_source, "SHARED_BYTES", 0)
    monkeypatch.setattr(tiff_source, "PIECE_BYTES", 4096)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("shape", [(23,), (9, 14), (5, 40, 50), (2, 5, 6, 7)])
def test_pieces_read_on_several_threads_make_what_numpy_selects(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    spec, backend = array_spec(shape), get_backend("tiff")
    source = backend.open(tmp_path / "a", write_asset(backend, tmp_path / "a", spec, range(20)))
    whole = np.stack([encoded_frame(spec.shape, spec.dtype, event=event) for event in range(20)])

    @settings(max_examples=60, deadline=None, database=None)
    @given(selection=selections(whole.shape))
    def reads_like_numpy(selection: Selection) -> None:
        assert np.array_equal(source.read(selection), numpy_answer(whole, selection))

    reads_like_numpy()
    check_events(source, 20)


@pytest.mark.usefixtures("shared")
def test_a_lost_file_among_many_is_named_and_no_thread_is_left(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    source = backend.open(path, write_asset(backend, path, array_spec((9, 11)), range(60)))
    (path / "000037.ome.tif").unlink()
    with pytest.raises(AssetMissing, match=r"000037\.ome\.tif"):
        source.read(full(source.shape))
    assert not [one for one in threading.enumerate() if one.name.startswith("gently-bluesky-read")]


@pytest.mark.usefixtures("shared")
def test_several_files_are_waited_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither file is opened before both are asked for."""
    monkeypatch.setattr(tiff_source, "SHARED_FILES", 1)
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((9, 11)), range(2))
    source = backend.open(path, resource_kwargs)
    both = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(tiff_source, "open_own", lambda file: (both.wait(), open_own(file))[1])
    assert source.read(full(source.shape)).shape == (2, 9, 11)


# -- opening --

SCRIPT = """
import json, sys
from pathlib import Path
from gently_bluesky.backends.registry import get_backend
looks = []
def note(event, arguments):
    if event in ("os.listdir", "os.scandir", "open"):
        looks.append(event)
path, count = Path(sys.argv[1]), json.loads(sys.argv[3])
backend = get_backend("tiff")
sys.addaudithook(note)
source = backend.open(path, json.loads(sys.argv[2]), count)
print(json.dumps([source.shape[0], looks]))
"""


def looks_at(path: Path, resource_kwargs: Any, count: int | None) -> list[Any]:
    arguments = [sys.executable, "-c", SCRIPT, str(path), json.dumps(resource_kwargs), json.dumps(count)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def test_opening_with_a_count_looks_at_no_file_and_lists_nothing(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((3, 4)), range(30))
    events, looks = looks_at(path, resource_kwargs, None)
    assert (events, len(looks)) == (30, 1)
    assert looks[0] in {"os.listdir", "os.scandir"}  # Python lists a folder by one or the other
    assert looks_at(path, resource_kwargs, 30) == [30, []]
    assert looks_at(path, resource_kwargs, 5) == [5, []]
    check_events(backend.open(path, resource_kwargs, 5), 5)


def test_a_count_of_events_that_are_lost_is_told_when_they_are_read(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((3, 4)), range(3))
    source = backend.open(path, resource_kwargs, 4)
    check_frame(source.read((slice(2, 3, 1), *full((3, 4))))[0], event=2)
    with pytest.raises(AssetMissing, match=r"000003\.ome\.tif"):
        source.read((slice(3, 4, 1), *full((3, 4))))


def test_opening_with_a_count_finds_that_the_folder_is_gone_or_none(tmp_path: Path) -> None:
    backend, path = get_backend("tiff"), tmp_path / "a"
    resource_kwargs = write_asset(backend, path, array_spec((3, 4)), range(3))
    with pytest.raises(AssetMissing, match="absent"):
        backend.open(tmp_path / "absent", resource_kwargs, 3)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(AssetDamaged, match="found a file"):
        backend.open(tmp_path / "file", resource_kwargs, 3)
