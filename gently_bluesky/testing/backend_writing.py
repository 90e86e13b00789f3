"""The half of the conformance suite that is about writing: see ``gently_bluesky.testing.backends``."""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky.backends.base import Backend
from gently_bluesky.errors import AssetMissing, FrameMismatch, InputError, StorageError
from gently_bluesky.settings import SYNCS
from gently_bluesky.testing.assets import (
    DTYPES,
    SHAPES,
    START_S,
    Tested,
    array_spec,
    as_documented,
    begin,
    check_events,
    contents,
    full,
    no_file_larger_than,
    write_asset,
)
from gently_bluesky.testing.frames import encoded_frame

__all__ = ["WritingConformance"]


class WritingConformance(Tested):
    """What a sink promises."""

    # -- what is kept --------------------------------------------------------------------------------------

    def test_names_are_what_documents_can_carry(self, backend: Backend) -> None:
        """``name`` and ``spec`` are plain words, and capabilities are of kinds that can be stored."""
        assert backend.name.isidentifier()
        assert backend.spec.isidentifier()
        assert backend.spec == backend.spec.upper()
        assert "/" not in backend.suffix
        assert set(backend.capabilities.kinds) <= set(DTYPES)

    @pytest.mark.parametrize("ndim", SHAPES)
    @pytest.mark.parametrize("kind", DTYPES)
    def test_every_declared_kind_comes_back_as_it_was(
        self, backend: Backend, tmp_path: Path, kind: str, ndim: int
    ) -> None:
        """Events of each dtype and number of axes are read back through ``resource_kwargs`` alone."""
        if kind not in backend.capabilities.kinds or ndim > backend.capabilities.max_ndim:
            pytest.skip("not declared")
        for number, dtype in enumerate(DTYPES[kind]):
            spec, path = array_spec(SHAPES[ndim], dtype), tmp_path / f"{number}{backend.suffix}"
            source = backend.open(path, write_asset(backend, path, spec))
            assert source.dtype == spec.dtype
            assert source.shape == (3, *spec.shape)
            assert len(source.chunks) == len(source.shape)
            assert all(length >= 1 for length in source.chunks)
            check_events(source, 3)

    @pytest.mark.parametrize(
        "shape", [(1,), (1, 1), (1, 7), (1, 1, 5), (17, 64, 70), (35, 65, 3), (3, 600, 1030)]
    )
    def test_shapes_that_no_chunk_divides_come_back_whole(
        self, backend: Backend, path: Path, shape: tuple[int, ...]
    ) -> None:
        """Slabs, shards and chunks end where the frame does."""
        if len(shape) > backend.capabilities.max_ndim:
            pytest.skip("not declared")
        check_events(backend.open(path, write_asset(backend, path, array_spec(shape))), 3)

    @pytest.mark.parametrize("count", [0, 1, 2, 37])
    def test_any_number_of_events_comes_back(self, backend: Backend, path: Path, count: int) -> None:
        """No number of events is padded or cut."""
        spec = array_spec((9, 11))
        check_events(backend.open(path, write_asset(backend, path, spec, range(count))), count)

    def test_frames_of_zeros_are_kept_as_frames_of_zeros(self, backend: Backend, path: Path) -> None:
        """A dark frame is data: it is stored, and told from one that was lost."""
        spec = array_spec((5, 40, 30))
        sink = backend.create(path, spec)
        sink.write(0, np.zeros(spec.shape, spec.dtype), START_S).result()
        sink.publish(1)
        sink.close()
        source = backend.open(path, as_documented(sink))
        assert not source.read(full(source.shape)).any()

    # -- writing -------------------------------------------------------------------------------------------

    def test_frames_are_placed_by_index_in_any_order(self, backend: Backend, path: Path) -> None:
        """Nothing is appended."""
        spec = array_spec((6, 13, 11))
        check_events(backend.open(path, write_asset(backend, path, spec, [4, 1, 3, 0, 2])), 5)

    @pytest.mark.parametrize("published", [0, 3])
    def test_writing_an_index_again_replaces_the_frame(
        self, backend: Backend, path: Path, published: int
    ) -> None:
        """The last write stands, whether the first was published or not."""
        spec = array_spec((33, 47))
        sink = backend.create(path, spec)
        for index, event in [(0, 0), (1, 9), (2, 2)]:
            sink.write(index, encoded_frame(spec.shape, spec.dtype, event=event), START_S).result()
        sink.publish(published)
        wrong = sink.write(1, encoded_frame(spec.shape, spec.dtype, event=8), START_S)
        sink.write(1, encoded_frame(spec.shape, spec.dtype, event=1), START_S).result()
        wrong.result()
        sink.publish(3)
        sink.close()
        check_events(backend.open(path, as_documented(sink)), 3)

    def test_buffer_may_be_used_again_after_result(self, backend: Backend, path: Path) -> None:
        """One buffer, as cameras have it, serves all events."""
        spec = array_spec((64, 64))
        sink = backend.create(path, spec)
        buffer = np.empty(spec.shape, spec.dtype)
        for event in range(4):
            buffer[...] = encoded_frame(spec.shape, spec.dtype, event=event)
            sink.write(event, buffer, START_S + event).result()
        buffer[...] = 0
        sink.publish(4)
        sink.close()
        check_events(backend.open(path, as_documented(sink)), 4)

    def test_pending_write_tells_when_it_has_ended(self, backend: Backend, path: Path) -> None:
        """``done`` and the callbacks agree, also for a callback that comes late."""
        spec = array_spec((64, 64))
        sink = backend.create(path, spec)
        told, ended = list[object](), threading.Event()
        pending = sink.write(0, encoded_frame(spec.shape, spec.dtype), START_S)
        pending.add_done_callback(lambda given: (told.append(given), ended.set()))
        pending.result()
        assert pending.done()
        assert ended.wait(10)
        pending.add_done_callback(told.append)
        assert told == [pending, pending]
        sink.close()

    def test_pending_write_ends_without_anybody_waiting(self, backend: Backend, path: Path) -> None:
        """A write makes its own way: callbacks come although nobody calls ``result``."""
        spec = array_spec((64, 64))
        sink = backend.create(path, spec)
        ended = threading.Event()
        sink.write(0, encoded_frame(spec.shape, spec.dtype), START_S).add_done_callback(lambda _: ended.set())
        assert ended.wait(30)
        sink.close()

    def test_frames_that_do_not_fit_are_refused(self, backend: Backend, path: Path) -> None:
        """Shape, dtype, order and index are checked; what is stored stays as it is."""
        spec = array_spec((4, 6))
        sink = backend.create(path, spec)
        begin(sink, spec, [0])
        fitting = encoded_frame((4, 6), "<u2")
        refused = [
            fitting[0],
            fitting.T,
            fitting[:, :3],
            fitting.astype("<i4"),
            fitting.astype(">u2"),
            np.asfortranarray(fitting),
        ]
        for frame in refused:
            with pytest.raises(FrameMismatch, match="was not stored"):
                sink.write(0, frame, START_S)
        with pytest.raises(FrameMismatch, match="was not stored"):
            sink.write(-1, fitting, START_S)
        sink.publish(1)
        sink.close()
        check_events(backend.open(path, as_documented(sink)), 1)

    @pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
    def test_write_that_fails_says_so_and_can_be_repeated(self, backend: Backend, path: Path) -> None:
        """The system's error reaches the ``Pending``; earlier events stay; the frame can be written anew."""
        spec = array_spec((512, 512))
        sink = backend.create(path, spec)
        begin(sink, spec, [0])
        sink.publish(1)
        frame = encoded_frame(spec.shape, spec.dtype, event=1)
        with no_file_larger_than(4096), pytest.raises(StorageError, match="not stored") as caught:
            sink.write(1, frame, START_S).result()
        assert caught.value.errno is not None
        check_events(backend.open(path, as_documented(sink)), 1)
        sink.write(1, frame, START_S).result()
        sink.publish(2)
        sink.close()
        check_events(backend.open(path, as_documented(sink)), 2)

    def test_close_is_idempotent_and_waits_for_writes_under_way(self, backend: Backend, path: Path) -> None:
        """A second ``close`` does nothing; after the first nothing is outstanding."""
        spec = array_spec((300, 300))
        sink = backend.create(path, spec)
        begin(sink, spec, [0])
        sink.publish(1)
        pending = [
            sink.write(event, encoded_frame(spec.shape, spec.dtype, event=event), START_S) for event in (1, 2)
        ]
        sink.close()
        sink.close()
        assert all(one.done() for one in pending)
        check_events(backend.open(path, as_documented(sink)), 1)

    @pytest.mark.parametrize("sync", SYNCS)
    def test_every_way_of_syncing_keeps_what_is_written(
        self, backend: Backend, path: Path, sync: str
    ) -> None:
        """``sync`` changes nothing but when; it may be called at any time, and again after ``close``."""
        spec = array_spec((33, 47))
        sink = backend.create(path, spec, sync=sync)
        for event in range(3):
            begin(sink, spec, [event])
            sink.publish(event + 1)
            sink.sync()
        sink.close()
        sink.sync()
        resource_kwargs = as_documented(sink)
        assert resource_kwargs["sync"] in SYNCS
        check_events(backend.open(path, resource_kwargs), 3)

    # -- publishing ----------------------------------------------------------------------------------------

    def test_readers_see_published_events_only(self, backend: Backend, path: Path) -> None:
        """A second reader, while it is written, sees whole events up to ``publish`` and nothing else."""
        if not backend.capabilities.live:
            pytest.skip("not declared")
        spec = array_spec((4, 33, 47))
        sink = backend.create(path, spec)
        resource_kwargs = as_documented(sink)
        check_events(backend.open(path, resource_kwargs), 0)
        for event in range(5):
            begin(sink, spec, [event])
            check_events(backend.open(path, resource_kwargs), event)
            sink.publish(event + 1)
            check_events(backend.open(path, resource_kwargs), event + 1)
        sink.close()
        check_events(backend.open(path, resource_kwargs), 5)
        assert as_documented(sink) == resource_kwargs

    def test_source_opened_early_works_on_to_the_end(self, backend: Backend, path: Path) -> None:
        """A handle keeps its shape and its pixels while more is published, and after the sink is closed."""
        spec = array_spec((33, 47))
        sink = backend.create(path, spec)
        begin(sink, spec, [0, 1])
        sink.publish(2)
        source = backend.open(path, as_documented(sink))
        begin(sink, spec, [2])
        sink.publish(3)
        check_events(source, 2)
        sink.close()
        check_events(source, 2)

    def test_what_was_never_written_is_not_published(self, backend: Backend, path: Path) -> None:
        """A gap is refused, and so is taking back what is published; readers see what they saw."""
        spec = array_spec((9, 11))
        sink = backend.create(path, spec)
        begin(sink, spec, [0, 2])
        with pytest.raises(InputError, match="never"):
            sink.publish(3)
        sink.publish(1)
        with pytest.raises(InputError, match="published"):
            sink.publish(0)
        check_events(backend.open(path, as_documented(sink)), 1)
        sink.close()

    def test_recovery_publishes_what_was_announced_and_no_more(self, backend: Backend, path: Path) -> None:
        """What a dead writer published beyond the journal goes; doing it twice changes nothing."""
        spec = array_spec((33, 47))
        sink = backend.create(path, spec)
        begin(sink, spec, [0, 1, 2, 3])
        sink.publish(4)
        resource_kwargs = as_documented(sink)
        backend.recover(path, resource_kwargs, 4)
        check_events(backend.open(path, resource_kwargs), 4)
        for _ in range(2):
            backend.recover(path, resource_kwargs, 2)
            check_events(backend.open(path, resource_kwargs), 2)
        with pytest.raises(AssetMissing):
            backend.recover(path.with_name("absent"), resource_kwargs, 2)
        sink.close()

    # -- removing ------------------------------------------------------------------------------------------

    def test_asset_is_removed_with_all_of_its_pixels(self, backend: Backend, path: Path) -> None:
        """Wherever they lie; twice is as once; its neighbours stay, and its place is free again."""
        spec, neighbour = array_spec((33, 47)), path.with_name(f"neighbour{path.name}")
        kept = backend.open(neighbour, write_asset(backend, neighbour, spec))
        resource_kwargs = write_asset(backend, path, spec, range(2))
        files = backend.files(path, resource_kwargs)
        assert sum(file.stat().st_size for file in files) > spec.nbytes
        for _ in range(2):
            backend.remove(path, resource_kwargs)
            assert not any(file.exists() for file in files)
            assert not os.path.lexists(path)
            assert not backend.files(path, resource_kwargs)
        check_events(kept, 3)
        check_events(backend.open(path, write_asset(backend, path, spec)), 3)

    def test_asset_without_documents_is_removed_too(self, backend: Backend, path: Path) -> None:
        """What a dead writer never announced has no ``resource_kwargs``, and half of its files."""
        files = backend.files(path, write_asset(backend, path, array_spec((33, 47)), publish=False))
        backend.remove(path, {})
        assert not any(file.exists() for file in files)
        assert not os.path.lexists(path)
        backend.remove(path, {})

    @pytest.mark.parametrize("there", ["file", "folder", "asset"])
    def test_removing_follows_no_link(self, backend: Backend, path: Path, there: str) -> None:
        """A link in an asset's place goes, and what it leads to stays."""
        target, source = path.with_name(f"target{backend.suffix}"), None
        if there == "asset":
            source = backend.open(target, write_asset(backend, target, array_spec((9, 11))))
        elif there == "folder":
            target.mkdir()
            (target / "notes.txt").write_text("mine")
        else:
            target.write_text("mine")
        before = contents(target)
        try:
            path.symlink_to(target, target_is_directory=target.is_dir())
        except OSError as error:
            pytest.skip(f"this user may make no links: {error}")
        backend.remove(path, {})
        assert not os.path.lexists(path)
        assert contents(target) == before
        if source is not None:
            check_events(source, 3)
