"""Small assets for tests: writing them, checking them, damaging them, and watching what that costs."""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend, Sink
from gently_bluesky.errors import AssetDamaged, AssetMissing, StorageError
from gently_bluesky.lazy import ArraySource, Selection
from gently_bluesky.model import ArraySpec
from gently_bluesky.testing.frames import check_frame, encoded_frame

__all__ = [
    "DIMS",
    "DTYPES",
    "SHAPES",
    "START_S",
    "Tested",
    "array_spec",
    "as_documented",
    "begin",
    "bytes_read",
    "check_events",
    "contents",
    "damage_is_found",
    "full",
    "no_file_larger_than",
    "numpy_answer",
    "open_below",
    "pixel_files",
    "read_all",
    "selections",
    "tolerate",
    "write_asset",
]

LONGEST_CLOSING_S = 10.0

DTYPES = {
    "b": ("|b1",),
    "i": ("|i1", "<i2", "<i4", "<i8"),
    "u": ("|u1", "<u2", "<u4", "<u8"),
    "f": ("<f2", "<f4", "<f8"),
    "c": ("<c8", "<c16"),
}
SHAPES = {1: (1000,), 2: (33, 47), 3: (7, 33, 47), 4: (2, 5, 20, 31), 5: (2, 3, 4, 9, 11)}
DIMS = {
    1: ("sample",),
    2: ("y", "x"),
    3: ("z", "y", "x"),
    4: ("v", "z", "y", "x"),
    5: ("p", "v", "z", "y", "x"),
}
START_S = 1_764_000_000.0


def array_spec(shape: tuple[int, ...], dtype: str = "<u2") -> ArraySpec:
    """Return what a microscope would declare of frames of this shape."""
    dims = DIMS[len(shape)]
    steps_um = {"z": 1.0, "y": 0.1625, "x": 0.1625}
    return ArraySpec(
        name="camera",
        shape=shape,
        dtype=np.dtype(dtype),
        dims=dims,
        scale=tuple(steps_um.get(dim, 1.0) for dim in dims),
        units=tuple("micrometer" if dim in steps_um else None for dim in dims),
        channel_names=("view_a", "view_b")[: shape[dims.index("v")]] if "v" in dims else (),
        origin={"run": "run", "stream": "primary", "data_key": "camera", "time": START_S},
    )


def write_asset(
    backend: Backend, path: Path, spec: ArraySpec, events: Sequence[int] = range(3), publish: bool = True
) -> Mapping[str, Any]:
    """Write these events, several at once, and close; return ``resource_kwargs`` as a document has them."""
    sink = backend.create(path, spec)
    try:
        begin(sink, spec, events)
        if publish:
            sink.publish(max(events) + 1 if events else 0)
    finally:
        sink.close()
    return as_documented(sink)


def begin(sink: Sink, spec: ArraySpec, events: Sequence[int]) -> None:
    """Write these events and wait for all of them."""
    pending = [
        sink.write(event, encoded_frame(spec.shape, spec.dtype, event=event), START_S + event)
        for event in events
    ]
    for one in pending:
        one.result()


def as_documented(sink: Sink) -> Mapping[str, Any]:
    """Return ``resource_kwargs`` after a way through JSON."""
    return json.loads(json.dumps(dict(sink.resource_kwargs), allow_nan=False))


def full(shape: Sequence[int]) -> Selection:
    """Select everything."""
    return tuple(slice(0, length, 1) for length in shape)


def check_events(source: ArraySource, events: int) -> None:
    """Check that a source holds just the events 0 ... events - 1, whole."""
    assert source.shape[0] == events
    pixels = source.read(full(source.shape))
    assert pixels.dtype == source.dtype
    assert pixels.shape == source.shape
    for event in range(events):
        check_frame(pixels[event], event=event)


@st.composite
def selections(draw: st.DrawFn, shape: tuple[int, ...]) -> Selection:
    """Draw what ``ArraySource.read`` must take: a normalised slice or any indices for each axis."""
    chosen: list[slice | NDArray[np.intp]] = []
    for length in shape:
        if draw(st.booleans()):
            start = draw(st.integers(0, length))
            chosen.append(slice(start, draw(st.integers(start, length)), draw(st.integers(1, length + 2))))
        else:
            indices = draw(st.lists(st.integers(0, length - 1), max_size=6)) if length else []
            chosen.append(np.array(indices, dtype=np.intp))
    return tuple(chosen)


def numpy_answer(array: NDArray[Any], selection: Selection) -> NDArray[Any]:
    """Select from an array in memory, axis by axis."""
    for axis, entry in enumerate(selection):
        array = array[(slice(None),) * axis + (entry,)]
    return array


def read_all(backend: Backend, path: Path, resource_kwargs: Mapping[str, Any]) -> NDArray[Any]:
    """Open an asset and read all of it."""
    source = backend.open(path, resource_kwargs)
    return source.read(full(source.shape))


def damage_is_found(
    backend: Backend, path: Path, resource_kwargs: Mapping[str, Any], spec: ArraySpec, events: int
) -> bool:
    """Say whether reading is refused; if not, check that all that comes is right."""
    try:
        pixels = read_all(backend, path, resource_kwargs)
    except (AssetDamaged, AssetMissing):
        return True
    assert len(pixels) <= events
    for event, frame in enumerate(pixels):
        assert np.array_equal(frame, encoded_frame(spec.shape, spec.dtype, event=event)), (
            "wrong pixels were returned"
        )
    return False


def tolerate(backend: Backend, path: Path, resource_kwargs: Mapping[str, Any]) -> None:
    """Read, and take pixels or an error of ours for an answer, and nothing else."""
    try:
        read_all(backend, path, resource_kwargs)
    except StorageError:
        return


def pixel_files(
    backend: Backend, path: Path, resource_kwargs: Mapping[str, Any], spec: ArraySpec
) -> list[Path]:
    """Return the files of an asset, wherever they lie, that are large enough to hold pixels."""
    files = backend.files(path, resource_kwargs)
    return [file for file in files if file.stat().st_size > spec.nbytes // 4]


def contents(*paths: Path) -> dict[str, bytes]:
    """Return all files at or below these paths with their contents."""
    below = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return {str(file): file.read_bytes() for file in sorted(below) if file.is_file()}


def bytes_read() -> int:
    """Return how many bytes this process has read by system calls; 0 where the system does not say."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return int(dict(line.split(": ") for line in counters.read_text().splitlines())["rchar"])


def open_below(*paths: Path) -> list[str]:
    """Return what this process holds open or mapped below paths; nothing where the system does not say.

    A library's own thread may close a file a moment after it has said that all is read: it is waited for.
    """
    give_up_s = time.monotonic() + LONGEST_CLOSING_S
    while (found := _open_now(paths)) and time.monotonic() < give_up_s:
        time.sleep(0.01)
    return found


def _open_now(paths: Sequence[Path]) -> list[str]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return []
    found: list[str] = []
    for descriptor in descriptors.iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    found += Path("/proc/self/maps").read_text().splitlines()
    return [name for name in found if any(str(path) in name for path in paths)]


@contextmanager
def no_file_larger_than(nbytes: int) -> Generator[None]:
    """Let the system refuse larger files for a while, as a full disk would."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Tested:
    """What every test of the suite is given: the backend, which the author's class says, and a place."""

    @pytest.fixture
    def backend(self) -> Backend:
        """Return the backend that is tested."""
        pytest.fail("give the class a fixture `backend` that returns the backend to test")

    @pytest.fixture
    def path(self, backend: Backend, tmp_path: Path) -> Path:
        """Return where the asset of a test goes."""
        return tmp_path / f"primary-camera{backend.suffix}"

    @pytest.fixture(autouse=True)
    def no_pixels_elsewhere(self, backend: Backend, tmp_path: Path) -> Iterator[None]:
        """Remove what a test made, whose pixels need not lie where the system's temporary files are swept."""
        yield
        for made in tmp_path.iterdir():
            backend.remove(made, {})
