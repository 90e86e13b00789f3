"""Sources of pixels that are asked through another one: what moves while it is open, and what says where it went."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import AssetMissing
from gently_bluesky.sources import ArraySource, Selection

__all__ = ["Explain", "ExplainedSource", "MovingSource", "WrappedSource"]


class WrappedSource(ArraySource):
    """A source that is asked through another, which reads otherwise. Any thread."""

    def __init__(self, source: ArraySource) -> None:
        self._source: ArraySource = source

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the source."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the source."""
        return self._source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of the source."""
        return self._source.chunks

    @property
    def has_colours(self) -> bool:
        """The last axis is that of colours, as sources of what others wrote may say."""
        return getattr(self._source, "has_colours", False)

    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:
        """Ask the source."""
        return self._source.coarser(most)


Explain = Callable[[AssetMissing], AssetMissing]
"""Returns the error that says where what is missing is, or the one given."""


class ExplainedSource(WrappedSource):
    """A source of which what is missing is told with where it is: in the trash, or in quarantine. Any thread."""

    def __init__(self, source: ArraySource, explain: Explain) -> None:
        super().__init__(source)
        self._explain = explain

    @classmethod
    def opened(cls, open_it: Callable[[], ArraySource], explain: Explain) -> ExplainedSource:
        """Open it. Raises as ``open_it``, what is missing explained."""
        with _explained(explain):
            return cls(open_it(), explain)

    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:
        """Ask the source."""
        found = self._source.coarser(most)
        return None if found is None else (ExplainedSource(found[0], self._explain), found[1])

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read. Raises as the source, what is missing explained."""
        with _explained(self._explain):
            return self._source.read(selection)


@contextmanager
def _explained(explain: Explain) -> Generator[None]:
    try:
        yield
    except AssetMissing as error:
        found = explain(error)
        if found is error:
            raise
        raise found from error


class MovingSource(WrappedSource):
    """A source whose files may be moved, or kept otherwise, while it is open. Any thread.

    Parameters
    ----------
    source, path
        As it is, and where.
    opened_now
        Opens what was at a path where it is by now, and says where that is; None where it is there still.
    """

    def __init__(
        self,
        source: ArraySource,
        path: Path,
        opened_now: Callable[[Path], tuple[ArraySource, Path] | None],
    ) -> None:
        super().__init__(source)
        self._shape: tuple[int, ...] = source.shape
        self._path: Path = path
        self._opened_now = opened_now
        self._moving = threading.Lock()

    @classmethod
    def at(
        cls,
        path: Path,
        open_at: Callable[[Path], ArraySource],
        opened_now: Callable[[Path], tuple[ArraySource, Path] | None],
    ) -> MovingSource:
        """Open what is at ``path``, or where it is by now. Raises as ``open_at``."""
        try:
            return cls(open_at(path), path, opened_now)
        except AssetMissing:
            found = opened_now(path)
            if found is None:
                raise
            return cls(*found, opened_now)

    @classmethod
    def following(cls, where: Callable[[], Path], open_at: Callable[[Path], ArraySource]) -> MovingSource:
        """Open what is where ``where`` says, and, when it is not there any more, where it says then.

        Raises as either.
        """

        def opened_now(was: Path) -> tuple[ArraySource, Path] | None:
            now = where()
            return None if now == was else (open_at(now), now)

        return cls.at(where(), open_at, opened_now)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, of when it was opened."""
        return self._shape

    def read(self, selection: Selection) -> NDArray[Any]:
        """Read, from where it is by now. Raises as the source."""
        while True:
            with self._moving:
                path, source = self._path, self._source
            try:
                return source.read(selection)
            except AssetMissing:
                found = self._opened_now(path)
                if found is None:
                    raise
                with self._moving:
                    self._source, self._path = found

    def coarser(self, most: Sequence[int]) -> tuple[ArraySource, tuple[int, ...]] | None:
        """Ask the source; what it gives is looked for anew in the same way, where it is kept still."""
        with self._moving:
            path, source = self._path, self._source
        found = source.coarser(most)
        if found is None:
            return None
        level, factors = found

        def level_now(was: Path) -> tuple[ArraySource, Path] | None:
            now = self._opened_now(was)
            if now is None:
                return None
            again = now[0].coarser(factors)
            if again is None or again[1] != factors:
                raise AssetMissing(
                    f"{was} was converted, and {now[1]} does not keep the resolution of 1 in {factors}; no pixels were "
                    "returned; ask the array for a coarser one again"
                )
            return again[0], now[1]

        return MovingSource(level, path, level_now), factors
