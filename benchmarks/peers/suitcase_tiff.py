"""suitcase-tiff's ``tiff_stack``, as its documentation shows it: one TIFF file, written on the plan's thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["suitcase_tiff"]


@contextmanager
def suitcase_tiff(folder: Path) -> Iterator[Any]:
    """Give its serializer, which writes to ``folder`` and closes its file at stop."""
    from suitcase.tiff_stack import Serializer

    with Serializer(folder, bigtiff=True) as serializer:
        yield serializer
