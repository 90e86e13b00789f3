"""What a RunEngine puts into every start document, kept from one session to the next: ``RE.md``.

A file of JSON in the store's root, for people to read and mend. (bluesky's own PersistentDict keeps msgpack that
may hold pickles, and no store of ours unpickles anything.)
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator, MutableMapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from gently_bluesky.errors import InvalidDocument
from gently_bluesky.files import storage_error, write_atomic
from gently_bluesky.jsontext import plain

__all__ = ["LastingMetadata"]


class LastingMetadata(MutableMapping[str, Any]):
    """A mapping of names to JSON values that is written down at each change: ``RunEngine(LastingMetadata(path))``.

    What is changed inside of a value (``md["sample"]["age_h"] = 3``) is written with the next change, or by
    `save`. Two sessions on one file do not see each other's changes, and the last to change something wins. Any thread.

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
        self._written = b""
        self._lock = threading.RLock()
        try:
            text = self.path.read_bytes()
            said = json.loads(text)
            if not isinstance(said, dict):
                raise ValueError(f"a {type(said).__name__}")
            self._held, self._written = said, text
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
        with self._lock:
            before = dict(self._held)
            self._held[key] = plain(value)
            try:
                self.save()
            except InvalidDocument:
                self._held = before
                raise

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value that is kept under a key, which the default becomes where there is none."""
        with self._lock:
            if key not in self._held:
                self[key] = default
            return self._held[key]  # not what was given: a copy of it is kept

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._held[key]
            self.save()

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def save(self) -> None:
        """Write all of it down, if anything has changed; *synced* on return.

        Raises
        ------
        InvalidDocument
            Something that was put into a value is not of JSON's types; nothing was written.
        StorageError
            The file cannot be written.
        """
        with self._lock:
            text = self._text()
            if text == self._written:
                return  # another session may have written since
            try:
                write_atomic(self.path, text)
            except OSError as error:
                raise storage_error(
                    error, f"{self.path} cannot be written: what RE.md holds is kept for this session alone"
                ) from error
            self._written = text

    def _text(self) -> bytes:
        try:
            return f"{json.dumps(plain(self._held), indent=2, ensure_ascii=False)}\n".encode()
        except InvalidDocument as error:
            raise InvalidDocument(f"RE.md was not written into {self.path}: {error}") from error
        except UnicodeEncodeError as error:
            half = error.object[max(error.start - 9, 0) : error.end]
            raise InvalidDocument(
                f"expected RE.md of Unicode text, got half a character in {half!a}; {self.path} was not changed"
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return what it holds, as a dict: bluesky copies it for each run, and copies are written nowhere."""
        with self._lock:
            return deepcopy(self._held, memo)

    def __repr__(self) -> str:
        return repr(self._held)
