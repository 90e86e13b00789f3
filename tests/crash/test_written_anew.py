"""A sync that fails once is survived by writing anew, and never by syncing again; one that fails again ends the run."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zygote import Zygote

FILES = {
    "zarr": "*/0/c/1/*.__lock",
    "tiff": "*/.000001.ome.tif.partial",
}
SHAPE = "*/0/.zarr.json.*.tmp"
JOURNAL = "*/documents.jsonl"


@pytest.fixture(scope="module")
def ailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """A process whose children have a disk that fails to sync what they say."""
    library = tmp_path_factory.mktemp("ailing") / "ailing.so"
    source = Path(__file__).with_name("ailing.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"], check=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        process = Zygote()
    yield process
    process.close()


def write(ailing: Zygote, folder: Path, failing: str, count: int, **how: Any) -> dict[str, Any]:
    job = {"format": "zarr", "sync": "event", "error": errno.EIO, "by": "writer", **how}
    job |= {"root": str(folder / "store"), "notes": str(folder / "notes"), "failing": failing, "count": count}
    return ailing.call("write_on_ailing_disk", **job)


def fate(told: dict[str, Any]) -> list[str]:
    """Return what became of the file whose sync failed first."""
    failed = next(path for what, path in told["notes"] if what == "failed")
    return [what for what, path in told["notes"] if path == failed]


@pytest.mark.parametrize(("format", "by"), [("zarr", "writer"), ("tiff", "writer"), ("zarr", "recorder")])
def test_frame_whose_sync_failed_is_written_anew_to_another_file(
    ailing: Zygote, tmp_path: Path, format: str, by: str
) -> None:
    told = write(ailing, tmp_path, FILES[format], 1, format=format, by=by)
    assert told["raised"] == []
    assert fate(told) == ["failed", "removed", "synced"]
    (warned,) = told["warned"]
    assert "1 frames failed to reach the disk" in warned
    if by == "writer":
        assert (told["status"], told["events"], told["storing"]["written_anew"]) == ("complete", 3, 1)


@pytest.mark.parametrize(
    ("format", "failing", "count", "error"),
    [
        ("zarr", FILES["zarr"], 2, errno.EIO),
        ("tiff", FILES["tiff"], 2, errno.EIO),
        ("tiff", FILES["tiff"], 1, errno.ENOSPC),
        ("zarr", JOURNAL, 3, errno.EIO),  # of the lines, and twice of their being cut off
        ("zarr", SHAPE, 2, errno.EIO),
        ("tiff", "*/primary-view_a", 1, errno.EIO),  # names have nothing that could be written anew
    ],
)
def test_sync_that_fails_again_or_for_good_ends_the_run_and_leaves_what_was_announced(
    ailing: Zygote, tmp_path: Path, format: str, failing: str, count: int, error: int
) -> None:
    told = write(ailing, tmp_path, failing, count, format=format, error=error)
    assert told["raised"]
    assert {(kind, number) for kind, number, _ in told["raised"]} == {
        ("StorageFull" if error == errno.ENOSPC else "StorageError", error)
    }
    assert (told["status"], told["events"], told["warned"]) == ("failed", 1, [])
    assert [what for what, _ in told["notes"]].count("failed") == count


@pytest.mark.parametrize("failing", [JOURNAL, SHAPE])
def test_journal_and_shape_whose_sync_failed_are_written_anew(
    ailing: Zygote, tmp_path: Path, failing: str
) -> None:
    told = write(ailing, tmp_path, failing, 1)
    assert (told["raised"], told["status"], told["events"], told["warned"]) == ([], "complete", 3, [])
    once_more = ["removed", "synced"] if failing == SHAPE else ["synced", "synced"]
    assert fate(told)[:3] == [
        "failed",
        *once_more,
    ]  # of the journal the lines are cut off, and that is synced


def test_sync_that_fails_at_the_end_of_a_run_fails_the_run(
    ailing: Zygote, tmp_path: Path, format: str
) -> None:
    """What was never synced cannot be told to be there, or written anew: the pixels are gone from memory."""
    at_rest = {"zarr": "*/0/c/1/*/0", "tiff": "*/000001.ome.tif"}[format]
    told = write(ailing, tmp_path, at_rest, 1, format=format, sync="run")
    ((kind, number, message),) = told["raised"]
    assert (kind, number) == ("StorageError", errno.EIO)
    assert "could not be synced" in message
    assert (told["status"], told["events"]) == ("failed", 3)
