"""The part of the conformance suite that is about finding damaged files: see ``gently_bluesky.testing.backends``."""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.backends.base import Backend
from gently_bluesky.errors import AssetDamaged, AssetMissing
from gently_bluesky.model import ArraySpec
from gently_bluesky.testing.assets import (
    SHAPES,
    Tested,
    array_spec,
    bytes_read,
    check_events,
    contents,
    full,
    pixel_files,
    write_asset,
)
from gently_bluesky.testing.frames import check_frame

__all__ = ["InspectingConformance"]


class InspectingConformance(Tested):
    """What a look at the files of an asset promises."""

    @pytest.mark.parametrize("ndim", SHAPES)
    @pytest.mark.parametrize("count", [0, 3])
    def test_whole_asset_has_no_faults(self, backend: Backend, path: Path, ndim: int, count: int) -> None:
        """Of any number of axes and events."""
        if ndim > backend.capabilities.max_ndim:
            pytest.skip("not declared")
        resource_kwargs = write_asset(backend, path, array_spec(SHAPES[ndim]), range(count))
        assert list(backend.inspect(path, resource_kwargs, count)) == []

    def test_looking_reads_no_pixels(self, backend: Backend, path: Path) -> None:
        """It costs little beside them, and changes nothing."""
        spec = array_spec((64, 256, 256))
        resource_kwargs = write_asset(backend, path, spec, range(2))
        before, files = bytes_read(), contents(*backend.files(path, resource_kwargs))
        read = bytes_read() - before
        before = bytes_read()
        assert list(backend.inspect(path, resource_kwargs, 2)) == []
        assert bytes_read() - before <= read // 20
        assert contents(*backend.files(path, resource_kwargs)) == files

    @pytest.mark.parametrize("kept", [None, 0.0, 0.01, 0.6])
    def test_damaged_file_is_found_and_so_are_the_events_it_held(
        self, backend: Backend, path: Path, kept: float | None
    ) -> None:
        """A file that is gone is missing, one that was cut short is torn; all other events can be read."""
        spec = array_spec((20, 40, 50))
        resource_kwargs = write_asset(backend, path, spec)
        found = set[int]()
        for file in pixel_files(backend, path, resource_kwargs, spec):
            data = file.read_bytes()
            if kept is None:
                file.unlink()
            else:
                file.write_bytes(data[: int(len(data) * kept)])
            (fault,) = backend.inspect(path, resource_kwargs, 3)
            assert (fault.kind, fault.path) == ("missing" if kept is None else "torn", file)
            assert fault.why
            assert len(fault.events) <= 1  # none of what is made of other pixels
            _check_readable(backend, path, resource_kwargs, spec, fault.events)
            found |= set(fault.events)
            file.write_bytes(data)
        assert found == {0, 1, 2}

    def test_asset_that_is_gone_is_missing_with_all_of_its_events(self, backend: Backend, path: Path) -> None:
        """That is said and not raised."""
        resource_kwargs = write_asset(backend, path, array_spec((9, 11)))
        backend.remove(path, resource_kwargs)
        (fault,) = backend.inspect(path, resource_kwargs, 3)
        assert (fault.kind, fault.path, fault.events) == ("missing", path, range(3))

    def test_documents_that_say_something_else_are_a_fault_and_no_error(
        self, backend: Backend, path: Path
    ) -> None:
        """Nothing in them is trusted."""
        resource_kwargs = write_asset(backend, path, array_spec((9, 11)))
        lies: list[dict[str, Any]] = [{"dtype": "O"}, {"frame_shape": [2**40, 2**20]}, {"frame_shape": None}]
        for lie in lies:
            faults = list(backend.inspect(path, {**resource_kwargs, **lie}, 3))
            assert {event for fault in faults for event in fault.events} == {0, 1, 2}
        faults = list(backend.inspect(path, resource_kwargs, 10**12))
        assert len(faults) < 10_000
        assert max(fault.events.stop for fault in faults) == 10**12

    def test_events_beyond_those_announced_are_foreign_and_can_be_put_away(
        self, backend: Backend, path: Path, tmp_path: Path
    ) -> None:
        """Nobody announced them; without them the asset is whole."""
        spec = array_spec((33, 47))
        resource_kwargs = write_asset(backend, path, spec, range(5))
        before = set(backend.files(path, resource_kwargs))
        away = tmp_path / "away"
        away.mkdir()
        for number, fault in enumerate(list(backend.inspect(path, resource_kwargs, 3))):
            assert (fault.kind, fault.events) == ("foreign", range(0))
            shutil.move(fault.path, away / str(number))  # which may be another disk
        assert len(before - set(backend.files(path, resource_kwargs))) >= 2
        backend.recover(path, resource_kwargs, 3)
        assert list(backend.inspect(path, resource_kwargs, 3)) == []
        check_events(backend.open(path, resource_kwargs), 3)


def _check_readable(
    backend: Backend, path: Path, resource_kwargs: Mapping[str, Any], spec: ArraySpec, but: range
) -> None:
    """Check that every event can be read but for these, which cannot."""
    source = backend.open(path, resource_kwargs, 3)
    for event in range(3):
        selection = (slice(event, event + 1, 1), *full(spec.shape))
        if event not in but:
            check_frame(source.read(selection)[0], event=event)
            continue
        with pytest.raises((AssetMissing, AssetDamaged)):
            source.read(selection)
