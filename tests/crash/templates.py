"""Stores that several tests start from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


class Templates:
    """Stores that are made once and copied: a copy costs a twentieth of an acquisition."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, name: str, root: Path, make: Callable[[Path], object]) -> None:
        """Copy the store of this name to ``root``; the first time ``make`` makes it."""
        template = self._folder / name
        if not template.exists():
            make(template)
        shutil.copytree(template, root)
