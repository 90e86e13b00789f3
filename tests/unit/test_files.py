"""File operations: whole or not at all, never outside, and errors that say what was not done."""

from __future__ import annotations

import errno
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from gently_bluesky.errors import InvalidDocument, StorageError, StorageFull
from gently_bluesky.files import (
    create_file,
    inside,
    is_leftover,
    make_folders,
    replace_file,
    side_by_side,
    storage_error,
    sync_file,
    sync_folder,
    sync_tree,
    try_lock,
    unlock,
    wait_for_lock,
    write_atomic,
)

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions of POSIX")


# -- where documents may point -------------------------------------------------------------------------------


def test_path_below_the_root_is_returned_resolved(tmp_path: Path) -> None:
    assert inside(tmp_path, "runs/./a/../b") == tmp_path.resolve() / "runs" / "b"
    assert inside(tmp_path, "") == tmp_path.resolve()


@pytest.mark.parametrize(
    "relative",
    ["..", "../x", "a/../../x", "/etc/passwd", "a/\0b", "~/../../../../../../etc/passwd"],
)
def test_path_that_leads_out_of_the_root_or_nowhere_is_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(InvalidDocument, match="expected a path below"):
        inside(tmp_path / "root", relative)


@posix_only
def test_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    (root / "within").symlink_to(root / "runs")
    for relative in ("out", "out/secret.txt"):
        with pytest.raises(InvalidDocument, match="nothing was read or written there"):
            inside(root, relative)
    assert inside(root, "within/a") == root.resolve() / "runs" / "a"
    # a circle leads nowhere: where it is not refused here, opening it fails
    try:
        circle = inside(root, "circle/a")
    except InvalidDocument:
        return
    with pytest.raises(OSError, match="circle"):
        circle.read_bytes()


@posix_only
def test_root_that_is_a_link_itself_is_a_root_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert inside(tmp_path / "root", "a") == (tmp_path / "disk" / "a").resolve()


def test_name_that_begins_like_the_root_s_is_outside(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="expected a path below"):
        inside(tmp_path / "root", "../root-of-others/a")


# -- whole or not at all -------------------------------------------------------------------------------------


def test_atomic_write_puts_new_bytes_in_the_place_of_old_ones_and_leaves_nothing(tmp_path: Path) -> None:
    for content in (b"", b"one", b"two" * 100_000):
        write_atomic(tmp_path / "a.json", content)
        assert (tmp_path / "a.json").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_atomic_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    import resource

    write_atomic(tmp_path / "a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            write_atomic(tmp_path / "a", b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_atomic_write_over_a_folder_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_atomic(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_reader_of_a_file_that_is_written_anew_again_and_again_always_finds_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"0" * 4096)
    done = threading.Event()

    def write(letter: bytes) -> None:
        while not done.is_set():
            write_atomic(path, letter * 4096)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"1", b"2")]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            content = path.read_bytes()
            assert len(content) == 4096
            assert len(set(content)) == 1
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_atomic_writes_are_known_by_their_names_and_nothing_else_is() -> None:
    for name in (f".zarr.json.{os.getpid()}-{threading.get_native_id()}.tmp", ".zarr.json.4711.tmp"):
        assert is_leftover(name)
    for name in (
        "zarr.json",
        ".zarr.json",
        "a.4711.tmp",
        ".tmp",
        ".4711.tmp",
        ".notes.tmp",
        ".a.4711.tmp.txt",
    ):
        assert not is_leftover(name), name


def test_new_file_is_refused_where_there_is_one(tmp_path: Path) -> None:
    create_file(tmp_path / "a", b"mine")
    with pytest.raises(FileExistsError, match="a"):
        create_file(tmp_path / "a", b"yours")
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_file_is_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    replace_file(tmp_path / "a", tmp_path / "b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"new"}
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "a", tmp_path / "b")


# -- folders -------------------------------------------------------------------------------------------------


def test_folders_are_made_with_their_parents_and_may_be_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folders(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    sync_folder(tmp_path / "a")


def test_folder_is_refused_where_there_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OSError, match="a"):
            make_folders(path)
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_folders_may_be_made_by_many_threads_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    errors: list[Exception] = []

    def make() -> None:
        barrier.wait()
        try:
            make_folders(tmp_path / "a" / "b" / "c" / "d")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageError),
        (None, StorageError),
    ],
)
def test_errors_of_the_system_say_what_was_not_done_and_keep_their_number(
    number: int | None, kind: type[StorageError]
) -> None:
    original = OSError("strange") if number is None else OSError(number, os.strerror(number))
    error = storage_error(original, "event 7 was not stored")
    assert type(error) is kind
    assert error.errno == number
    assert "event 7 was not stored: " in str(error)


def test_errors_of_ours_stay_what_they_are() -> None:
    error = StorageFull("no room")
    assert storage_error(error, "anything") is error


# -- locks ---------------------------------------------------------------------------------------------------


def test_exclusive_lock_is_refused_to_all_others_and_a_shared_one_only_to_exclusive_ones(
    tmp_path: Path,
) -> None:
    """Each open file is a holder of its own, be it in this process or in another."""
    path = tmp_path / "a"
    path.write_bytes(b"")
    with path.open("r+b") as file, path.open("rb") as others:
        mine, other = file.fileno(), others.fileno()
        assert try_lock(mine)
        assert not try_lock(other)
        assert not try_lock(other, shared=True)
        unlock(mine)
        assert try_lock(other)
        unlock(other)
        if sys.platform != "win32":
            assert try_lock(mine, shared=True)
            assert try_lock(other, shared=True)
            unlock(other)
            assert not try_lock(other)
            unlock(mine)
        wait_for_lock(mine)
        assert not try_lock(other)


def test_lock_is_waited_for_until_its_holder_closes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    with path.open("r+b") as others:
        holder = path.open("r+b")
        assert try_lock(holder.fileno())
        waiting, has_it = threading.Event(), threading.Event()

        def wait() -> None:
            waiting.set()
            wait_for_lock(others.fileno())
            has_it.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(10)
        assert not has_it.is_set()
        holder.close()
        assert has_it.wait(10)
        thread.join()


def test_a_tree_is_synced_with_every_file_and_folder_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "store" / "asset"
    for number in range(300):
        folder = tree / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(b"pixels")
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd))[1])
    sync_tree(tree)
    there = [path.stat().st_ino for path in [tree.parent, tree, *tree.rglob("*")] if sync_is_known(path)]
    assert sorted(synced) == sorted(there)


def sync_is_known(path: Path) -> bool:
    """Say whether the system has a call to sync a path: Windows has none for folders."""
    return sys.platform != "win32" or path.is_file()


def test_what_is_gone_or_cannot_be_looked_at_is_told_apart_when_a_tree_is_synced(tmp_path: Path) -> None:
    sync_file(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        sync_tree(tmp_path / "gone" / "asset")


# -- side by side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack_bytes", [0, 1 << 46], ids=["with threads", "where none can be started"])
def test_calls_side_by_side_are_all_made_and_no_exception_of_theirs_is_lost(stack_bytes: int) -> None:
    made: list[int] = []

    def call(number: int) -> None:
        made.append(number)
        if number in (2, 3):
            raise (ValueError if number == 2 else OSError)(f"of call {number}")

    before = threading.stack_size(stack_bytes)
    try:
        with pytest.raises((ValueError, OSError), match="of call") as caught:
            side_by_side([partial(call, number) for number in range(4)])
        side_by_side([partial(call, number) for number in range(4, 9) if number != 6])
    finally:
        threading.stack_size(before)
    assert sorted(made) == [0, 1, 2, 3, 4, 5, 7, 8]
    (beside,) = caught.value.__notes__
    assert "of call" in beside
    assert beside != f"And beside it: {caught.value!r}"
