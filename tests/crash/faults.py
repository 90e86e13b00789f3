"""What may happen to a disk: each fault takes the root of a store and lets nothing, or little, be written there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zygote import remount_read_only

HALF_A_FRAME = 18432


def fill(root: Path) -> None:
    """Leave not a byte of a small disk."""
    with (root.parent / "filler").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass


def fill_but_for_pages(root: Path) -> None:
    """Leave room for a folder and a lock, but not for what a writer sets aside."""
    fill(root)
    with (root.parent / "filler").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - (1 << 17))


def fill_and_rob(root: Path) -> None:
    """Leave not a byte, not even what the writer had set aside."""
    for reserve in root.glob("runs/*/*/*/*/.reserve"):
        reserve.unlink()
    fill(root)


def limit_files(root: Path) -> None:
    """Refuse files as large as a frame, but not a longer journal."""
    _limit(resource.RLIMIT_FSIZE, HALF_A_FRAME)


def limit_all_files(root: Path) -> None:
    """Refuse every byte that makes a file longer."""
    _limit(resource.RLIMIT_FSIZE, 1)


def exhaust_descriptors(root: Path) -> None:
    """Let no further file be opened."""
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    _limit(resource.RLIMIT_NOFILE, lowest_free)


def forbid(root: Path) -> None:
    """Take away the permission to write into any folder of any asset."""
    for folder, _, _ in os.walk(root / "runs"):
        if ".ome.zarr" in folder or "view_a" in folder:
            Path(folder).chmod(0o555)


def freeze(root: Path) -> None:
    """Mount the disk read-only."""
    remount_read_only(root.parent)


def _limit(kind: int, soft: int) -> None:
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


@contextmanager
def limits_restored() -> Iterator[None]:
    kinds = [resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE]
    before = [resource.getrlimit(kind) for kind in kinds]
    try:
        yield
    finally:
        for kind, limits in zip(kinds, before, strict=True):
            resource.setrlimit(kind, limits)


def forbid_runs(root: Path) -> None:
    """Take away the permission to write into any folder of the store."""
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o555)
