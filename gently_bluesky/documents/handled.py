"""Assets that are opened by a handler of somebody else's: called datum by datum, and closed when nobody needs it.

A handler is code that its owner trusts. What a document has it read is not: of files that a handler names before
it reads them, all must lie where reading is allowed.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.documents.handling import Handler
from gently_bluesky.errors import AssetDamaged, AssetMissing, GentlyError
from gently_bluesky.files import storage_error
from gently_bluesky.foreign.base import KINDS_OF_NUMBERS, EventSource, Places, box_around, fitted
from gently_bluesky.foreign.kinds import ForeignAsset
from gently_bluesky.foreign.roots import Roots

__all__ = ["HandledSource"]

ARRAY = ("shape", "dtype", "__getitem__")


class HandledSource(EventSource):
    """The arrays that a handler gives for datums, one for each; it is never called by two threads at once.

    An array that the handler gives lazily is read as far as it is asked for, any other one whole.

    Parameters
    ----------
    spec
        What the handler is for.
    handler
        Called with the path and the keywords of the asset, then with those of a datum.
    asset
        As it was announced; its path is allowed.
    datums
        ``datum_kwargs`` of each event; one at least.

    Raises
    ------
    AssetMissing, AssetDamaged, StorageError
        The handler could not open the asset, or gave no array of numbers for the first datum.
    PathNotAllowed
        It would read where that is not allowed.
    """

    def __init__(
        self, spec: str, handler: Handler, asset: ForeignAsset, datums: Sequence[Mapping[str, Any]]
    ) -> None:
        self._what: str = f"{asset.path}: the handler of {spec!r}"
        self._roots: Roots = asset.roots
        self._datums: Sequence[Mapping[str, Any]] = datums
        self._turn: threading.Lock = threading.Lock()
        with self._asked():
            self._opened: Callable[..., Any] = handler(str(asset.path), **asset.kwargs)
        letting_go = weakref.finalize(self, _close, self._opened, self._what)
        try:
            first = self._array(0)
        except BaseException:
            letting_go()
            raise
        self._is_lazy: bool = not isinstance(first, np.ndarray)
        super().__init__(
            len(datums), tuple(first.shape), np.dtype(first.dtype), fitted(asset.shape, tuple(first.shape))
        )

    @property
    def stored_chunks(self) -> tuple[int, ...]:
        """One plane where the handler is lazy, otherwise a whole event."""
        return super().stored_chunks if self._is_lazy else (1, *(max(1, length) for length in self._stored))

    def read_events(self, events: NDArray[np.intp], inner: Places, out: NDArray[Any]) -> None:
        """Ask for one event after the other."""
        boxes = [box_around(along) for along in inner]
        with self._turn:
            for number, event in enumerate(events):
                array = self._array(int(event))
                if (tuple(array.shape), np.dtype(array.dtype)) != (self._stored, self._dtype):
                    raise AssetDamaged(
                        f"{self._what} gave {array.shape} of {array.dtype} for {dict(self._datums[event])!r:.100}, "
                        f"expected {self._stored} of {self._dtype}, as for the first datum; no pixels were returned"
                    )
                with self._asked():
                    block = np.asarray(array[tuple(box for box, _ in boxes)])
                for axis, (_, kept) in enumerate(boxes):
                    block = block[(slice(None),) * axis + (kept,)]
                out[number] = block

    def _array(self, event: int) -> Any:
        """Return what the handler gives for an event: an array, lazy or not."""
        datum = self._datums[event]
        for file in self._files(datum):
            self._roots.allowed(file, f"a file that the handler would read, {file.name!r:.80},")
        with self._asked():
            array = self._opened(**datum)
            if not all(hasattr(array, name) for name in ARRAY):
                array = np.asarray(array)
            if np.dtype(array.dtype).kind not in KINDS_OF_NUMBERS:
                raise ValueError(f"it gave {array.dtype}, not numbers")
        return array

    def _files(self, datum: Mapping[str, Any]) -> list[Path]:
        """Return the files that the handler says it reads for a datum; none where it cannot say."""
        named = getattr(self._opened, "get_file_list", None)
        try:
            return [] if named is None else [Path(file).absolute() for file in named([dict(datum)])]
        except Exception:  # noqa: BLE001 # it is an offer, which many handlers make without keeping it
            return []

    @contextmanager
    def _asked(self) -> Generator[None]:
        try:
            yield
        except (GentlyError, MemoryError):
            raise
        except OSError as error:
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise AssetMissing(
                    f"{self._what} found nothing: {error}; no pixels were returned; if its writer is still at it, try "
                    "again"
                ) from error
            raise storage_error(error, f"{self._what} could not read") from error
        except (
            Exception
        ) as error:  # anything may be wrong with somebody else's code, or with what it is given
            raise AssetDamaged(f"{self._what} failed: {error!r}; no pixels were returned") from error


def _close(opened: object, what: str) -> None:
    close = getattr(opened, "close", None)
    if not callable(close):
        return
    try:
        close()
    except Exception as error:  # noqa: BLE001 # nobody waits for the end of an array that was let go
        warnings.warn(f"{what} could not be closed: {error!r}", RuntimeWarning, stacklevel=2)
