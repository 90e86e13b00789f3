"""What all runs of one writer share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.index_feed import IndexFeed
from gently_bluesky.documents.pipeline import Pipeline
from gently_bluesky.documents.place import Place
from gently_bluesky.documents.relief import Relief
from gently_bluesky.documents.tally import Tally
from gently_bluesky.index.index import Index
from gently_bluesky.settings import Settings

if TYPE_CHECKING:
    from gently_bluesky.backends.hot import HotPool

__all__ = ["Desk", "Subscriber"]

Subscriber = Callable[[str, dict[str, Any]], object]


@dataclass(slots=True)
class Desk:
    """What all runs of one writer share.

    ``second`` is where they go on if ``place`` fails, ``relief`` makes room there.
    """

    place: Place
    index: Index
    backend: Backend
    settings: Settings
    pipeline: Pipeline
    subscribers: dict[int, Subscriber] = field(default_factory=dict[int, Subscriber])
    on_failure: Callable[[Exception], object] | None = None
    tally: Tally = field(default_factory=Tally)
    pool: HotPool | None = None
    second: Place | None = None
    relief: Relief | None = None
    journals: Journals = field(init=False)
    feed: IndexFeed = field(init=False)

    @property
    def root(self) -> Path:
        """Of the store."""
        return self.place.root

    @property
    def overflow(self) -> Path | None:
        """The store's second place, if runs may go on there."""
        return None if self.second is None else self.second.root

    def __post_init__(self) -> None:
        self.journals = Journals(self.root, self.overflow)
        self.feed = IndexFeed(self.journals, self.index, self.settings.stall_timeout_s)
