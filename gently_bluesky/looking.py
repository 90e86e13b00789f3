"""The half of a lazy array that people look at: pictures, viewers, and what notebooks show."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from copy import copy
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from gently_bluesky.labels import one_line
from gently_bluesky.pages import array_page, page

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray
    from gently_bluesky.plots import Drawing

__all__ = ["Looking", "traced"]


class Looking(ABC):  # noqa: B024 # it is half of a class
    """What a `LazyArray` shows of itself. Any thread, but for windows: those are of the main thread."""

    _origin: Callable[[str], str] | None = None

    def preview(self, path: str | PathLike[str] | None = None, *, event: int = -1) -> Drawing:
        """Draw one event from three sides, in true proportions, each view or channel beside the other.

        Reads all of the event, in bounded memory. A notebook shows what is returned, and so do windows after
        ``%matplotlib``; elsewhere give a ``path``, e.g. ``"volume.png"``; what is there is replaced.

        Parameters
        ----------
        path
            Where to keep it; no window is opened then.
        event
            Which one of an array ``(t, ...)``, the last by default.

        Raises
        ------
        InputError, LookupFailed
            There are no images in it, or no such event.
        MissingExtra
            matplotlib is not installed: it comes with the extra ``profile``.
        InvalidSetting, StorageError
            The picture cannot be written at ``path``.
        AssetMissing, AssetDamaged
            The pixels are not there, or not what was stored.
        """
        from gently_bluesky.overviews import array_figure

        return array_figure(cast("LazyArray", self), path, event)

    def view(self) -> Any:
        """Open it in napari, or else in ndv, which read what they show; return the viewer.

        In IPython the window lives beside the prompt, where its event loop does: after ``%gui qt``, which both ask
        for by themselves. A script goes on with ``napari.run()``; ndv returns when its window is closed.

        Raises
        ------
        MissingExtra
            Neither is installed.
        """
        from gently_bluesky.viewers import opened_in_viewer

        return opened_in_viewer(cast("LazyArray", self))

    def __repr__(self) -> str:
        return one_line(cast("LazyArray", self))

    def _repr_html_(self) -> str:
        """Return a table for notebooks, with a small picture of the newest event, as `gently_bluesky.glances` says."""
        return page("LazyArray", lambda: array_page(cast("LazyArray", self), self._origin))


def traced(array: LazyArray, origin: Callable[[str], str]) -> LazyArray:
    """Return the array as one that can say, by ``origin(uid)``, what it was made from."""
    told = copy(array)
    told._origin = origin  # pyright: ignore[reportPrivateUsage] # of this module
    return told
