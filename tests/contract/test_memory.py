"""What is peculiar to pixels in shared memory: where they lie, whose they are, and where they go."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_left import clear, segments_of

from gently_bluesky import Store, handler_registry
from gently_bluesky.backends.memory import MemoryBackend
from gently_bluesky.errors import AssetDamaged, AssetMissing, InvalidSetting, StorageError
from gently_bluesky.files import remove_tree, try_lock
from gently_bluesky.segments import shared_folder, store_uid_at, tag_of
from gently_bluesky.settings import Packing
from gently_bluesky.testing.assets import (
    array_spec,
    as_documented,
    begin,
    check_events,
    full,
    write_asset,
)

SPEC = array_spec((33, 47))


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def home(root: Path) -> Iterator[Path]:
    """The root of an empty store; what is in memory of it goes after the test."""
    Store(root).close()
    yield root
    clear(root)


@pytest.fixture
def path(home: Path) -> Path:
    return home / "primary-camera.memory"


def is_locked(segment: Path) -> bool:
    fd = os.open(segment / ".lock", os.O_RDWR)
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


# -- where they lie ----------------------------------------------------------------------------------------


def test_pixels_lie_in_a_folder_of_the_users_own_that_is_named_at_random(backend, home, path):
    for number in range(2):
        write_asset(backend, path.with_name(f"{number}.memory"), SPEC)
    first, second = segments_of(home)
    assert first.parent == second.parent == shared_folder()
    for segment in (first, second):
        assert segment.name.startswith(f"gently-{tag_of(str(store_uid_at(home)))}-")
        assert len(segment.name) == len("gently-00000000-0000000000000000")
    if sys.platform != "win32":
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in first.iterdir()} == {0o600}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a folder for temporary files")
def test_pixels_are_in_the_memory_file_system_and_not_on_disk(backend, path):
    write_asset(backend, path, SPEC)
    assert shared_folder() == Path("/dev/shm")
    assert path.stat().st_size < 300
    assert sum(file.stat().st_size for file in backend.files(path, {})) > 3 * SPEC.nbytes


def test_documents_say_that_a_loss_of_power_is_not_survived(backend, path):
    assert write_asset(backend, path, SPEC)["sync"] == "never"


def test_packing_is_refused(backend):
    backend.check_packing(Packing(compression="none"))
    with pytest.raises(InvalidSetting, match="in one way only"):
        backend.check_packing(Packing("planes"))


def test_writer_owns_its_segment_until_it_is_closed(backend, home, path):
    sink = backend.create(path, SPEC)
    (segment,) = segments_of(home)
    assert is_locked(segment)
    begin(sink, SPEC, [0])
    sink.publish(1)
    sink.close()
    assert not is_locked(segment)
    check_events(backend.open(path, as_documented(sink)), 1)


def test_asset_that_cannot_be_made_leaves_no_segment(backend, home, path):
    with pytest.raises(StorageError, match="nothing was written"):
        backend.create(home / "absent" / "a.memory", SPEC)
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        backend.create(path, SPEC)
    assert segments_of(home) == []


def test_handler_of_memory_is_registered():
    handler = handler_registry()["GENTLY_MEMORY"]
    assert handler.backend == "memory"


# -- whose they are ----------------------------------------------------------------------------------------


def test_pixels_that_went_with_a_restart_are_missing_and_the_message_says_why(backend, home, path):
    resource_kwargs = write_asset(backend, path, SPEC)
    source = backend.open(path, resource_kwargs)
    (segment,) = segments_of(home)
    remove_tree(segment)
    with pytest.raises(AssetMissing, match=r"memory only.*restarted"):
        source.read(full(source.shape))
    with pytest.raises(AssetMissing, match=r"memory only.*restarted"):
        backend.open(path, resource_kwargs)
    with pytest.raises(AssetMissing, match=r"memory only.*restarted"):
        backend.recover(path, resource_kwargs, 3)


def test_one_event_that_is_gone_does_not_close_the_others(backend, home, path):
    source = backend.open(path, write_asset(backend, path, SPEC))
    (segment,) = segments_of(home)
    (segment / "000001.raw").unlink()
    with pytest.raises(AssetMissing, match=r"000001\.raw"):
        source.read(full(source.shape))
    assert source.read((slice(2, 3, 1), *full(SPEC.shape))).any()


@pytest.mark.parametrize(
    "said",
    [
        {"segment": "../../etc"},
        {"segment": "gently-00000000-0000000000000000/.."},
        {"segment": None},
        {"segment": 7},
        {},
    ],
    ids=str,
)
def test_file_that_leads_elsewhere_is_damaged(backend, path, said: dict[str, Any]):
    resource_kwargs = write_asset(backend, path, SPEC)
    about = json.loads(path.read_bytes())
    name = about.pop("segment")
    path.write_text(json.dumps({**about, **said}))
    with pytest.raises(AssetDamaged, match="does not say where"):
        backend.open(path, resource_kwargs)
    path.write_text(json.dumps({**about, "segment": name}))
    check_events(backend.open(path, resource_kwargs), 3)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_link_in_the_place_of_a_segment_is_not_followed(backend, home, path, tmp_path):
    resource_kwargs = write_asset(backend, path, SPEC)
    (segment,) = segments_of(home)
    shutil.copytree(segment, tmp_path / "elsewhere")
    remove_tree(segment)
    segment.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AssetDamaged, match="not what its writer made"):
        backend.open(path, resource_kwargs)
    backend.remove(path, resource_kwargs)
    assert (tmp_path / "elsewhere" / "000000.raw").exists()


def test_name_that_invents_events_is_damaged(backend, home, path):
    resource_kwargs = write_asset(backend, path, SPEC)
    (segment,) = segments_of(home)
    (segment / "999999999999.raw").write_bytes(b"")
    with pytest.raises(AssetDamaged, match="holds 4 files"):
        backend.open(path, resource_kwargs)


def test_known_count_spares_looking_at_the_events(backend, home, path):
    resource_kwargs = write_asset(backend, path, SPEC)
    (segment,) = segments_of(home)
    (segment / "999999999999.raw").write_bytes(b"")
    check_events(backend.open(path, resource_kwargs, 3), 3)


def test_file_that_was_copied_does_not_take_the_originals_pixels_with_it(backend, home, path):
    """As of a store that is copied while it has assets in memory."""
    resource_kwargs = write_asset(backend, path, SPEC)
    copy = path.with_name("copied.memory")
    copy.write_bytes(path.read_bytes())
    check_events(backend.open(copy, resource_kwargs), 3)
    backend.remove(copy, resource_kwargs)
    assert not copy.exists()
    check_events(backend.open(path, resource_kwargs), 3)
    backend.remove(path, resource_kwargs)
    assert segments_of(home) == []


def test_file_that_was_moved_takes_its_pixels_with_it(backend, home, path):
    resource_kwargs = write_asset(backend, path, SPEC)
    moved = path.rename(path.with_name("moved.memory"))
    check_events(backend.open(moved, resource_kwargs), 3)
    backend.remove(moved, resource_kwargs)
    assert segments_of(home) == []
