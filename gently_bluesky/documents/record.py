"""Recording: documents written into one file as they come, to be replayed later. It stores no pixels elsewhere."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from gently_bluesky.documents.journal import sealed
from gently_bluesky.documents.packed import pack_document, told_arrays
from gently_bluesky.errors import GentlyError, InvalidDocument, InvalidSetting, WriterClosed
from gently_bluesky.files import storage_error, write_all

__all__ = ["Recording", "record"]

LEVEL = 1
"""Of gzip: more costs more than it saves while a run goes on."""


class Emits(Protocol):
    """What documents come from: a RunEngine, or a writer of a store."""

    def subscribe(self, callback: Callable[[str, dict[str, Any]], object], /) -> int:
        """Have a callback called with each document's name and the document; return a token."""
        ...

    def unsubscribe(self, token: int, /) -> object:
        """Undo it."""
        ...


def record(target: Emits, path: str | Path) -> Recording:
    """Write every document that a RunEngine emits into a file, for `replay`, until the recording is closed::

        with record(RE, "tonight.jsonl.gz"):
            RE(plan)

    Each document is *stored* when the RunEngine goes on: it survives the death of the process. `Recording.close`
    makes the file *synced*. Nothing is recorded that comes before.

    Parameters
    ----------
    target
        A RunEngine, or what has ``subscribe`` as it has: of ``store.writer()`` come references to arrays, of
        the RunEngine the arrays themselves.
    path
        A new file. Lines of JSON, ``{"name", "doc", ...}``, which bluesky's tools read too; where it ends in
        ``.msgpack``, MessagePack as suitcase-msgpack writes it; compressed with gzip where it ends in ``.gz``.
        Arrays come back exactly in both. In JSON each number is spelt out, which takes a second or more for a
        large frame: record frames in MessagePack.

    Raises
    ------
    FileExistsError
        Something is at ``path``; it is not touched.
    StorageError
        The file cannot be made.
    InvalidSetting
        The target has no documents to subscribe to.
    """
    if not hasattr(target, "subscribe"):
        raise InvalidSetting(
            f"expected a RunEngine, or a writer of a store, got {type(target).__name__}; nothing is recorded"
        )
    recording = Recording(path)
    recording.begin(target)
    return recording


class Recording:
    """A file that documents are written into: a callback, and a context manager. Any thread.

    Made by `record`; by itself, ``Recording(path)`` takes the documents of a `replay`.

    Attributes
    ----------
    path
        Of the file.
    documents
        How many are in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()
        self.documents = 0
        self._entry = threading.RLock()
        self._end = 0
        self._failure: Exception | None = None
        self._leave: Callable[[], object] | None = None
        is_compressed = self.path.suffix == ".gz"
        kind = Path(self.path.stem if is_compressed else self.path.name).suffix
        self._encode = _packed if kind == ".msgpack" else _line
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
            self._fd = os.open(self.path, flags, 0o644)
        except FileExistsError:
            raise FileExistsError(
                f"{self.path} is there already; nothing was recorded; give a new path"
            ) from None
        except OSError as error:
            raise storage_error(error, f"{self.path} cannot be made; nothing is recorded") from error
        self._file = os.fdopen(self._fd, "wb", buffering=0)
        self._zip = (
            gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=LEVEL) if is_compressed else None
        )

    def begin(self, target: Emits) -> None:
        """Subscribe to a RunEngine, or to a writer, until this is closed."""
        token = target.subscribe(self)
        self._leave = lambda: target.unsubscribe(token)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Write a document; it is *stored* on return.

        What cannot be written fails the plan: nothing is left out in silence. After a failure of the disk nothing
        more is written, and each call raises it again.

        Raises
        ------
        InvalidDocument
            Something in the document cannot be written in this form; the next ones can.
        StorageError
            The disk failed; the documents before this one are in the file.
        WriterClosed
            The recording was closed.
        """
        with self._entry:
            if self._file.closed:
                raise WriterClosed(f"{self.path}: the recording was closed; a {name} was not recorded")
            if self._failure is not None:
                raise self._failure
            data = self._encode(name, doc)
            try:
                self._write(data)
            except OSError as error:
                self._failure = storage_error(
                    error,
                    f"{self.path}: a {name} could not be recorded, and nothing is any more; the {self.documents} "
                    "documents before it are in the file",
                )
                raise self._failure from error
            self.documents += 1

    def _write(self, data: bytes) -> None:
        if self._zip is not None:
            self._zip.write(data)
            self._zip.flush()
            return
        try:
            write_all(self._fd, data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)

    def close(self) -> None:
        """Unsubscribe, and close the file, which is *synced* then. Idempotent.

        Raises
        ------
        StorageError
            The end could not be written, or be synced.
        """
        with self._entry:
            leave, self._leave = self._leave, None
            if leave is not None:
                leave()
            if self._file.closed:
                return
            try:
                with self._file:
                    if self._zip is not None:
                        self._zip.close()
                    os.fsync(self._fd)
            except OSError as error:
                raise storage_error(error, f"{self.path} could not be closed whole") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "open"
        return f"<Recording {self.path} ({state}, {self.documents} documents)>"


def _line(name: str, doc: Mapping[str, Any]) -> bytes:
    envelope: dict[str, Any] = {"name": name, "doc": doc}
    arrays = told_arrays(name, doc)
    if arrays:
        envelope["arrays"] = arrays
    try:
        return sealed(envelope)
    except GentlyError as error:
        raise InvalidDocument(f"a {name} cannot be recorded as JSON: {error}") from error


def _packed(name: str, doc: Mapping[str, Any]) -> bytes:
    return pack_document(name, doc)
