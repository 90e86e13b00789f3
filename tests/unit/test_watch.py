"""Who watches for what hangs: tells once patience is gone, and nobody who was only stopped for a while."""

from __future__ import annotations

import threading

from gently_bluesky.documents.hanging import Watch

PATIENCE_S = 0.001


class Patience:
    """Says, look by look, how much patience is left; ``seen`` is set after the last look."""

    def __init__(self, *left_s: float | None) -> None:
        self._left_s = list(left_s)
        self.seen = threading.Event()
        self.told: list[int] = []
        self.looks = 0

    def left_s(self) -> float | None:
        self.looks += 1
        if self._left_s:
            return self._left_s.pop(0)
        self.seen.set()
        return None

    def tell(self) -> None:
        self.told.append(self.looks)


def watched(*left_s: float | None) -> list[int]:
    """Return after which looks it was told, when all have been taken."""
    patience = Patience(*left_s)
    watch = Watch(patience.left_s, patience.tell, PATIENCE_S)
    assert patience.seen.wait(30)
    watch.end()
    return patience.told


def test_what_hangs_is_told_at_the_second_look_and_again_while_it_does() -> None:
    assert watched(-1.0, -1.0) == [2]
    assert watched(None, 0.001, -1.0, -1.0, -1.0, -1.0, None) == [4, 6]


def test_what_was_only_stopped_and_goes_on_is_not_told() -> None:
    """A process that was stopped, as a laptop that sleeps, is out of patience at its first look."""
    assert watched(-1.0, 0.001, -1.0, None, 0.0, 0.001) == []


def test_an_end_is_not_waited_for() -> None:
    watch = Watch(lambda: None, lambda: None, float("inf"))
    watch.end()
    watch.end()
