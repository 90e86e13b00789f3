"""Handlers of all kinds, by spec: ours, those of installed packages, and the user's.

Packages are imported when their handler is first used, so that one that is broken or heavy costs others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

from gently_bluesky.documents.handlers import asset_array, own_handlers
from gently_bluesky.errors import InvalidDocument, InvalidSetting, LookupFailed
from gently_bluesky.foreign.kinds import TOLD_BY_DATUMS, ForeignAsset, foreign_dims, open_foreign
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.rows import datum_parameters
from gently_bluesky.index.rows import point_number as number_in
from gently_bluesky.lazy import LazyArray
from gently_bluesky.packages import offered

__all__ = [
    "AreaDetectorHdf5Handler",
    "AreaDetectorHdf5StreamHandler",
    "AreaDetectorTiffHandler",
    "ForeignHandler",
    "Handler",
    "InstalledHandler",
    "NumpySequenceHandler",
    "checked_handlers",
    "handler_registry",
    "installed_handler",
]

GROUP = "databroker.handlers"

Handler = Callable[..., Callable[..., Any]]


def handler_registry(handlers: Mapping[str, Handler] | None = None) -> dict[str, Handler]:
    """Return handlers by spec, for ``event_model.Filler`` and whoever else asks for them.

    Each is called with a path and ``resource_kwargs``, and what it returns with ``datum_kwargs``. Ours give lazy
    arrays, and so do those for what ophyd.sim and area detectors write (``NPY_SEQ``, ``AD_TIFF``, ``AD_HDF5``). Those
    of installed packages (entry points ``databroker.handlers``) stand in for kinds that we do not know; a package
    is imported when its handler is first used.

    Parameters
    ----------
    handlers
        By spec. They win over all others.

    Raises
    ------
    InvalidSetting
        ``handlers`` are not callables by spec.
    """
    given = checked_handlers(handlers, "no registry was made")
    return {**_loading(offered(GROUP)), **_FOREIGN, **own_handlers(), **given}


def checked_handlers(handlers: Mapping[str, Handler] | None, otherwise: str) -> dict[str, Handler]:
    """Return a user's handlers by spec. Raises InvalidSetting, which says what happened ``otherwise``."""
    given = {} if handlers is None else handlers
    wrong: object = None if isinstance(given, Mapping) else given  # pyright: ignore[reportUnnecessaryIsInstance] # of a user
    for spec, handler in given.items() if wrong is None else ():
        if not isinstance(spec, str) or not callable(handler):  # pyright: ignore[reportUnnecessaryIsInstance] # of a user
            wrong = {spec: handler}
    if wrong is not None:
        raise InvalidSetting(
            f"expected handlers as a mapping of specs to handler classes, got {wrong!r:.160}; {otherwise}"
        )
    return dict(given)


def installed_handler(spec: str) -> Handler | None:
    """Return the handler of an installed package for a spec, imported when it is used; None if there is none."""
    return _loading(point for point in offered(GROUP) if point.name == spec).get(spec)


class ForeignHandler:
    """Opens one asset of another writer; called with ``datum_kwargs`` it returns one event's array, lazily.

    Holds nothing open between reads. Files that a file names are followed within its folder only.

    Parameters
    ----------
    path
        ``root`` and ``resource_path`` of the resource document, joined.
    **resource_kwargs
        Of the resource document.
    """

    kind: ClassVar[str]

    def __init__(self, path: str, /, **resource_kwargs: Any) -> None:
        self._path = Path(path).absolute()
        self._kwargs = resource_kwargs
        self._array: LazyArray | None = None
        self._more: Mapping[str, Any] = {}

    def __call__(self, point_number: int | None = None, **datum_kwargs: Any) -> LazyArray:
        """Return the array of one event, without the event axis. Reads no pixels.

        Raises
        ------
        InvalidDocument
            ``datum_kwargs`` do not say which.
        AssetMissing, AssetDamaged, StorageError
            It is not there, or not what was announced. As an OSError it makes Filler try again for a while.
        MissingExtra
            The library that reads it is not installed.
        """
        event = number_in(datum_kwargs) if point_number is None else point_number
        if event is None or event < 0:
            raise InvalidDocument(
                f"{self._path}: expected datum_kwargs with the number of an event, got {datum_kwargs!r:.100}; nothing "
                "was read"
            )
        more = datum_parameters(datum_kwargs) if self.kind in TOLD_BY_DATUMS else {}
        if self._array is None or event >= len(self._array) or more != self._more:
            self._array, self._more = self._open(event + 1, more), more
        return self._array[event]

    def _open(self, count: int, more: Mapping[str, Any]) -> LazyArray:
        folder = self._path if self._path.is_dir() else self._path.parent
        roots = Roots((folder, self._path.resolve().parent))
        kwargs = {**self._kwargs, **more}
        source = open_foreign(self.kind, ForeignAsset(self._path, kwargs, count, roots=roots))
        return asset_array(source, {"dims": foreign_dims(source)})

    def close(self) -> None:
        """Nothing is held open between reads."""


class NumpySequenceHandler(ForeignHandler):
    """Handler of ``NPY_SEQ``, as ophyd.sim writes it: a file of ``numpy.save`` for each event.

    Returns a `LazyArray` with the axes and the dtype of the file, in this machine's byte order.
    """

    kind = "NPY_SEQ"


class AreaDetectorTiffHandler(ForeignHandler):
    """Handler of ``AD_TIFF``: TIFF files of an area detector, ``frame_per_point`` for each event.

    Returns a `LazyArray` ``(frame, y, x)`` with the dtype of the files, in this machine's byte order.
    """

    kind = "AD_TIFF"


class AreaDetectorHdf5Handler(ForeignHandler):
    """Handler of ``AD_HDF5`` and ``AD_HDF5_SWMR``: ``/entry/data/data``, ``frame_per_point`` rows for each event.

    Returns a `LazyArray` ``(frame, y, x)`` with the dtype of the dataset, in this machine's byte order. The file may
    still be being written. Needs the extra ``hdf5``.
    """

    kind = "AD_HDF5"


class AreaDetectorHdf5StreamHandler(ForeignHandler):
    """Handler of ``AD_HDF5_SWMR_STREAM``: the ``dataset`` that the resource or its datums name.

    Returns a `LazyArray` ``(frame, y, x)`` with the dtype of the dataset, in this machine's byte order, of
    ``frame_per_point`` or ``multiplier`` rows, by default one. Needs the extra ``hdf5``.
    """

    kind = "AD_HDF5_SWMR_STREAM"


_FOREIGN: dict[str, Handler] = {
    "NPY_SEQ": NumpySequenceHandler,
    "AD_TIFF": AreaDetectorTiffHandler,
    "AD_HDF5": AreaDetectorHdf5Handler,
    "AD_HDF5_SWMR": AreaDetectorHdf5Handler,
    "AD_HDF5_SWMR_STREAM": AreaDetectorHdf5StreamHandler,
}


class InstalledHandler:
    """A handler of an installed package, which is imported when this one is made.

    Raises
    ------
    LookupFailed
        The package cannot be imported, or several claim the spec.
    """

    spec: ClassVar[str]
    entries: ClassVar[Sequence[EntryPoint]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._handler = self._loaded()(*args, **kwargs)

    @classmethod
    def _loaded(cls) -> Handler:
        if len(cls.entries) > 1:
            raise LookupFailed(
                f"{cls.spec!r} is claimed by several packages: {', '.join(map(_origin, cls.entries))}; nothing was "
                f"read; say which: handler_registry({{{cls.spec!r}: ...}})"
            )
        (entry,) = cls.entries
        try:
            return entry.load()
        except Exception as error:
            raise LookupFailed(
                f"the handler of {cls.spec!r}, {_origin(entry)}, could not be imported: {error!r}; nothing was read; "
                f"repair that package, or give another one: handler_registry({{{cls.spec!r}: ...}})"
            ) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the package's handler returns."""
        return self._handler(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_handler":
            raise AttributeError(name)
        return getattr(self._handler, name)


def _loading(found: Iterable[EntryPoint]) -> dict[str, Handler]:
    """Return what loads each of these when it is called."""
    entries: dict[str, dict[str, EntryPoint]] = {}
    for entry in found:
        entries.setdefault(entry.name, {})[entry.value] = entry
    return {
        spec: type("InstalledHandler", (InstalledHandler,), {"spec": spec, "entries": tuple(of.values())})
        for spec, of in entries.items()
    }


def _origin(entry: EntryPoint) -> str:
    return entry.value if entry.dist is None else f"{entry.value} of {entry.dist.name} {entry.dist.version}"
