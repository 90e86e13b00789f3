"""The half of the conformance suite that is about reading: see ``gently_bluesky.testing.backends``."""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from gently_bluesky.backends.base import Backend
from gently_bluesky.errors import AssetDamaged, AssetMissing
from gently_bluesky.lazy import Selection
from gently_bluesky.testing.assets import (
    Tested,
    array_spec,
    bytes_read,
    check_events,
    contents,
    damage_is_found,
    full,
    numpy_answer,
    open_below,
    pixel_files,
    read_all,
    selections,
    tolerate,
    write_asset,
)
from gently_bluesky.testing.frames import encoded_frame

__all__ = ["ReadingConformance"]


class ReadingConformance(Tested):
    """What a source promises, and what a backend refuses."""

    # -- reading -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("shape", [(23,), (9, 14), (5, 9, 14), (2, 5, 6, 7)])
    def test_selections_mean_what_numpy_means(
        self, backend: Backend, path: Path, shape: tuple[int, ...]
    ) -> None:
        """Any valid selection gives numpy's answer, in memory of the caller's own."""
        if len(shape) > backend.capabilities.max_ndim:
            pytest.skip("not declared")
        spec = array_spec(shape)
        source = backend.open(path, write_asset(backend, path, spec, range(4)))
        whole = np.stack([encoded_frame(spec.shape, spec.dtype, event=event) for event in range(4)])

        @settings(max_examples=150, deadline=None, database=None)
        @given(selection=selections(whole.shape))
        def reads_like_numpy(selection: Selection) -> None:
            expected = numpy_answer(whole, selection)
            got = source.read(selection)
            assert got.shape == expected.shape
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)
            assert got.flags.writeable

        reads_like_numpy()

    def test_plane_costs_about_a_plane(self, backend: Backend, path: Path) -> None:
        """One plane of a volume does not read the volume."""
        if not backend.capabilities.partial_reads:
            pytest.skip("not declared")
        spec = array_spec((64, 256, 256))
        source = backend.open(path, write_asset(backend, path, spec, [0]))
        before = bytes_read()
        plane = source.read((slice(0, 1, 1), slice(40, 41, 1), slice(0, 256, 1), slice(0, 256, 1)))
        cost = bytes_read() - before
        assert np.array_equal(plane[0, 0], encoded_frame(spec.shape, spec.dtype)[40])
        assert cost < 4 * plane.nbytes

    def test_source_is_safe_from_several_threads(self, backend: Backend, path: Path) -> None:
        """Threads that read at once get each its own pixels."""
        spec = array_spec((8, 65, 67))
        source = backend.open(path, write_asset(backend, path, spec, range(6)))
        whole = np.stack([encoded_frame(spec.shape, spec.dtype, event=event) for event in range(6)])

        def read(number: int) -> bool:
            event, plane = number % 6, number % 8
            selection = (slice(event, event + 1, 1), slice(plane, plane + 1, 1), *full(spec.shape[1:]))
            return np.array_equal(source.read(selection)[0, 0], whole[event, plane])

        with ThreadPoolExecutor(8) as readers:
            assert all(readers.map(read, range(200)))

    def test_nothing_is_left_open(self, backend: Backend, path: Path) -> None:
        """Neither a closed sink nor a source that is read from, or let go of, holds files or threads."""
        spec = array_spec((65, 67))
        write_asset(backend, path.with_name(f"warm-up{backend.suffix}"), spec)
        threads = {thread.name for thread in threading.enumerate()}
        resource_kwargs = write_asset(backend, path, spec)
        source = backend.open(path, resource_kwargs)
        check_events(source, 3)
        del source
        assert open_below(path, *(file.parent for file in backend.files(path, resource_kwargs))) == []
        assert {thread.name for thread in threading.enumerate()} <= threads

    # -- refusing ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", ["file", "folder", "asset"])
    def test_what_exists_is_never_overwritten(self, backend: Backend, path: Path, what: str) -> None:
        """``create`` refuses any path where something is, and does not touch it."""
        spec = array_spec((9, 11))
        if what == "asset":
            write_asset(backend, path, spec)
        elif what == "folder":
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        else:
            path.write_text("mine")
        before = contents(path)
        with pytest.raises(FileExistsError):
            backend.create(path, spec)
        assert contents(path) == before

    @pytest.mark.parametrize("parent", ["absent", "file"])
    def test_place_that_cannot_hold_an_asset_is_an_error_at_create(
        self, backend: Backend, path: Path, parent: str
    ) -> None:
        """Before the first frame, not after."""
        if parent == "file":
            (path.parent / parent).write_text("a file")
        with pytest.raises(OSError, match=r"nothing was written|[Nn]ot a directory|No such file"):
            backend.create(path.parent / parent / path.name, array_spec((9, 11)))

    @pytest.mark.skipif(sys.platform == "win32", reason="permissions of folders are POSIX")
    def test_unwritable_folder_is_an_error_at_create(self, backend: Backend, tmp_path: Path) -> None:
        """Before the first frame, not after."""
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with _not_as_root(), pytest.raises(OSError, match=r"nothing was written|ermission denied") as raised:
            backend.create(locked / f"a{backend.suffix}", array_spec((9, 11)))
        assert raised.value.errno == errno.EACCES
        assert not list(locked.iterdir())

    def test_asset_that_is_not_there_is_missing(self, backend: Backend, path: Path) -> None:
        """Missing files say so, at ``open`` or, if they went since, at ``read``; they never read as zeros."""
        resource_kwargs = write_asset(backend, path, array_spec((9, 11)))
        with pytest.raises(AssetMissing, match="absent"):
            backend.open(path.with_name("absent"), resource_kwargs)
        source = backend.open(path, resource_kwargs)
        backend.remove(path, resource_kwargs)
        with pytest.raises(AssetMissing, match=path.name):
            source.read(full(source.shape))
        with pytest.raises(AssetMissing, match=path.name):
            backend.open(path, resource_kwargs)

    @pytest.mark.parametrize(
        "lie",
        [
            {"frame_shape": [9, 12]},
            {"frame_shape": [11, 9]},
            {"frame_shape": [9]},
            {"frame_shape": [3, 3, 11]},
            {"frame_shape": [2**40, 2**40]},
            {"frame_shape": [-9, -11]},
            {"frame_shape": "9x11"},
            {"frame_shape": [9.5, 11]},
            {"frame_shape": [1] * 70},
            {"frame_shape": None},
            {"dtype": "<i2"},
            {"dtype": "<u4"},
            {"dtype": "O"},
            {"dtype": "V99999999999"},
            {"dtype": "not a dtype"},
            {"dtype": None},
        ],
        ids=str,
    )
    def test_asset_that_is_not_what_documents_say_is_damaged(
        self, backend: Backend, path: Path, lie: dict[str, Any]
    ) -> None:
        """Documents and files that contradict each other give an error, not pixels."""
        resource_kwargs = {**write_asset(backend, path, array_spec((9, 11))), **lie}
        with pytest.raises(AssetDamaged):
            read_all(backend, path, resource_kwargs)

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_truncated_file_is_damaged(self, backend: Backend, path: Path, kept: float) -> None:
        """Whatever file was cut short, the pixels read are right or there is an error."""
        spec = array_spec((20, 40, 50))
        resource_kwargs = write_asset(backend, path, spec, range(2))
        found = 0
        for file in pixel_files(backend, path, resource_kwargs, spec):
            data = file.read_bytes()
            file.write_bytes(data[: int(len(data) * kept)])
            found += damage_is_found(backend, path, resource_kwargs, spec, 2)
            file.write_bytes(data)
        # A sliver cut off may have been padding; half a file never is.
        assert found >= 2 or kept > 0.9
        check_events(backend.open(path, resource_kwargs), 2)

    def test_flipped_bit_never_gives_wrong_pixels(self, backend: Backend, path: Path) -> None:
        """One wrong bit, in any file, is an error or harmless; without checksums it is at least no crash."""
        spec = array_spec((4, 20, 30))
        resource_kwargs = write_asset(backend, path, spec, range(2))
        rng = np.random.default_rng(0)
        for file in backend.files(path, resource_kwargs):
            data = file.read_bytes()
            for position in rng.integers(0, len(data), 60):
                flipped = bytearray(data)
                flipped[position] ^= 1 << int(rng.integers(0, 8))
                file.write_bytes(flipped)
                if backend.capabilities.checksums:
                    damage_is_found(backend, path, resource_kwargs, spec, 2)
                else:
                    tolerate(backend, path, resource_kwargs)
            file.write_bytes(data)
        check_events(backend.open(path, resource_kwargs), 2)


@contextmanager
def _not_as_root() -> Generator[None]:
    """Act as nobody where the tests run as root, who may write everywhere."""
    if sys.platform == "win32" or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
