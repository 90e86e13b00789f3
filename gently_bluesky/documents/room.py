"""How much room a run will take, as far as that can be known, and whether there is so much. Arithmetic; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gently_bluesky.errors import StorageFull

__all__ = ["Forecast", "too_little_room"]


class Forecast:
    """What a run whose length is known will take.

    Its length is ``num_points`` of the start document: bluesky's plans put there how many events the stream
    ``primary`` will have. Other streams are not counted.

    Parameters
    ----------
    start
        The start document.
    min_free_bytes
        What has to be left free in the end; 0 is not to look at all.
    """

    def __init__(self, start: Mapping[str, Any], min_free_bytes: int) -> None:
        said = start.get("num_points")
        self._num_points = said if isinstance(said, int) and min_free_bytes else 0
        self._min_free_bytes = min_free_bytes
        self._run = str(start["uid"])[:8]

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to foretell, or it was not done yet."""
        return self._num_points > 0

    def fits(self, events: int, event_bytes: float, free: int) -> bool:
        """Say whether what is left of the run fits into so much free space, at so many bytes for each event."""
        return self._needed(events, event_bytes) <= free

    def _needed(self, events: int, event_bytes: float) -> int:
        left = max(self._num_points - events, 0)
        return round(left * event_bytes) + self._min_free_bytes

    def settle(self) -> None:
        """Foretell nothing more."""
        self._num_points = 0

    def refusal(self, events: int, event_bytes: float, free: int, where: str) -> StorageFull:
        """Return the error for a run that does not fit."""
        return StorageFull(
            f"run {self._run}: it is to have num_points={self._num_points} events of about {round(event_bytes)} bytes "
            f"as they are stored; with min_free_bytes={self._min_free_bytes} left over, what is to come needs "
            f"{self._needed(events, event_bytes)} bytes, and {where} has {free} free; the {events} that came are "
            "stored and announced; make room, or ask for fewer points; min_free_bytes=0 switches this off"
        )


def too_little_room(where: object, free: int, min_free_bytes: int) -> StorageFull:
    """Return the error for a disk that has become too full while a run is written."""
    return StorageFull(
        f"{where} has {free} bytes free, fewer than min_free_bytes={min_free_bytes}, which a run leaves so that what "
        "it has can still be put on record; what was announced is safe; make room"
    )
