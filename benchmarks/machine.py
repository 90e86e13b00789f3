"""What the figures were taken on: machine, file system, and the versions of all that took part."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe_machine", "file_system", "load", "versions"]

PACKAGES = (
    "gently-bluesky",
    "bluesky",
    "ophyd",
    "event-model",
    "numpy",
    "zarr",
    "tensorstore",
    "tifffile",
    "orjson",
    "crc32c",
    "sqlalchemy",
    "suitcase-tiff",
    "ome-writers",
    "yaozarrs",
    "bluesky-tiled-plugins",
    "tiled",
    "databroker",
    "dask",
    "psutil",
)


def describe_machine(root: Path) -> dict[str, Any]:
    """Return what is known about this machine and the file system below ``root``."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(root),
        "python": platform.python_version(),
    }


def load() -> float | None:
    """Return how many processes wanted a core in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Return the versions of everything that is installed of what takes part."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def file_system(path: Path) -> str:
    """Return the type of the file system a folder is on, as the system calls it; empty where unknown."""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return ""
    found = ""
    longest = -1
    for line in mounts:
        _, where, kind, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) > longest:
            found, longest = kind, len(where)
    return found


def _cpu() -> str:
    with suppress(OSError):
        if found := re.search(
            r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE
        ):
            return found[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    with suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    return None
