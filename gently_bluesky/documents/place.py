"""A place where runs are kept, and whether the disk that is there now is still the one that was opened.

A disk may be taken away between two runs, or mounted late, and leaves an empty folder: what is written into that is
found by nobody once the disk is back. So nothing begins in a place that does not say whose it is.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import orjson

from gently_bluesky.errors import StorageError
from gently_bluesky.files import read_plain, storage_error

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A store's root, or its overflow.

    Attributes
    ----------
    marker
        Name of the file in it that says of which store it is.
    """

    root: Path
    marker: str
    store_uid: str

    def require(self) -> None:
        """Read the marker: one small file.

        Raises
        ------
        StorageError
            It is not there (``ENOENT``), as where another disk, or none, is mounted; or it cannot be read.
        """
        path = self.root / self.marker
        try:
            found = orjson.loads(read_plain(path))["store_uid"]
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise storage_error(error, f"{path} cannot be read; nothing was written there") from error
        except (ValueError, KeyError, TypeError):
            found = "something else"
        if found != self.store_uid:
            there = "nothing" if found is None else f"{found!r:.80}"
            raise StorageError(
                errno.ENOENT,
                f"expected {path} to name the store {self.store_uid}, which was opened, found {there}: its disk is "
                "not there, or somebody removed the file; nothing was written there; bring it back",
            )
