"""What a RunEngine puts into every start document, kept from one session to the next: ``RE.md``.

A file of JSON in the store's root, for people to read and mend. (bluesky's own PersistentDict keeps msgpack that
may hold pickles, and no store of ours unpickles anything.)
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.files import storage_error, write_atomic
from gently_bluesky.jsontext import plain

__all__ = ["LastingMetadata"]


class LastingMetadata(MutableMapping[str, Any]):
    """A mapping of names to JSON values that is written down at each change: ``RunEngine(LastingMetadata(path))``.

    What is changed inside of a value (``md["sample"]["age_h"] = 3``) is written with the next change, or by
    `save`. Two sessions on one file do not see each other's changes, and the last to write wins. Any thread.

    Parameters
    ----------
    path
        Of the file, made by the first change. One that holds no JSON object is set aside, with a RuntimeWarning.

    Raises
    ------
    StorageError
        The file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held: dict[str, Any] = {}
        try:
            said = json.loads(self.path.read_bytes())
            if not isinstance(said, dict):
                raise ValueError(f"a {type(said).__name__}")
            self._held = said
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError) as error:
            self._set_aside(error)
        except OSError as error:
            raise storage_error(
                error, f"{self.path}, where RE.md is kept, cannot be read; it is not changed"
            ) from error

    def _set_aside(self, error: Exception) -> None:
        aside = next(
            path
            for number in range(1, 1000)
            if not (path := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists()
        )
        try:
            os.rename(self.path, aside)  # noqa: PTH104 # as everywhere
        except OSError as failed:
            raise storage_error(failed, f"{self.path} is damaged and cannot be set aside") from failed
        warnings.warn(
            f"{self.path}: expected an object of JSON, got {error}; it was set aside as {aside.name}, and RE.md "
            "begins anew; copy what is to be kept back by hand",
            RuntimeWarning,
            stacklevel=3,
        )

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep a value; *synced* on return.

        Raises
        ------
        InvalidDocument
            JSON cannot hold it, or the key is no text; nothing was changed.
        StorageError
            The file cannot be written; the value holds for this session alone.
        """
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] # typed in by people
            raise InvalidDocument(f"expected a text as key of RE.md, got {key!r}; nothing was changed")
        before = dict(self._held)
        self._held[key] = plain(value)
        try:
            self.save()
        except UnicodeEncodeError as error:
            self._held = before
            raise InvalidDocument(
                f"expected RE.md[{key!r}] of Unicode text, got half a character in {error.object[:80]!a}; nothing "
                "was changed"
            ) from error

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value that is kept under a key, which the default becomes where there is none."""
        if key not in self._held:
            self[key] = default
        return self._held[key]  # not what was given: a copy of it is kept

    def __delitem__(self, key: str) -> None:
        del self._held[key]
        self.save()

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def save(self) -> None:
        """Write all of it down; *synced* on return. Raises StorageError."""
        text = json.dumps(self._held, indent=2, ensure_ascii=False)
        try:
            write_atomic(self.path, f"{text}\n".encode())
        except OSError as error:
            raise storage_error(
                error, f"{self.path} cannot be written: what RE.md holds is kept for this session alone"
            ) from error

    def __repr__(self) -> str:
        return repr(self._held)
