"""One stream of a run: its events, and the array of each data key."""

# A stream is a part of its run, which it asks by what only its parts may ask.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gently_bluesky.errors import LookupFailed

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray
    from gently_bluesky.run import Run

__all__ = ["Stream"]


class Stream:
    """One stream of a run: ``stream[data_key]`` is the array ``(t, ...)`` of what its events hold."""

    def __init__(self, run: Run, name: str, data_keys: Sequence[str]) -> None:
        self.run = run
        self.name = name
        self.data_keys = tuple(data_keys)
        self._events: Sequence[Mapping[str, Any]] | None = None

    def __getitem__(self, data_key: str) -> LazyArray:
        """Return the array of a data key; reads no pixels. Raises LookupFailed, AmbiguousArray."""
        if data_key not in self.data_keys:
            raise LookupFailed(
                f"stream {self.name!r} of run {self.run.uid[:8]} has no data key {data_key!r}; "
                f"it has {', '.join(self.data_keys)}"
            )
        return self.run._array(self.name, data_key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.data_keys)

    @property
    def run_uid(self) -> str:
        """Of its run."""
        return self.run.uid

    @property
    def start_s(self) -> float:
        """When its run began, in seconds since the epoch."""
        return self.run._record.time

    @property
    def declared(self) -> Mapping[str, Mapping[str, Any]]:
        """What the descriptors say of each data key, the last one of each: its ``shape``, ``dtype_numpy``, ``dims``,
        and ``external`` where its arrays are stored, each as far as it is given.
        """
        return self.run._declared(self.name)

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """The event documents, the last one of each ``seq_num``; as of when they are first asked for."""
        if self._events is None:
            self._events = self.run._events(self.name)
        return self._events

    @property
    def unnamed(self) -> Mapping[str, Mapping[int, str]]:
        """Of data keys that no event names, the uid of the stream_datum for each ``seq_num``, the last one."""
        return self.run._unnamed(self.name)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"<Stream {self.name} of run {self.run.uid[:8]}: {', '.join(self.data_keys)}>"
