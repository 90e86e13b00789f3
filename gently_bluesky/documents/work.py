"""What goes through the pipeline, and whose it is. The pipeline knows no more of it than this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gently_bluesky.backends.base import Pending

__all__ = ["Owner", "Task"]


class Task:
    """Something to be stored, in its turn."""

    __slots__ = ("nbytes", "owner", "pendings")

    is_patient = False
    """May be committed a moment later, together with others."""

    def __init__(self, owner: Owner, nbytes: int = 0) -> None:
        self.owner = owner
        self.nbytes = nbytes
        self.pendings: list[Pending] = []

    def is_to_begin_anew(self) -> bool:
        """Say, once, that the writes have failed by an error that may pass: the task is begun again."""
        return False

    def let_go_stored(self) -> None:
        """Drop what is large: the task's writes have ended, well or badly, and its bytes are given back."""

    def let_go(self) -> None:
        """Drop everything: the task is committed."""


class Owner(ABC):
    """Whoever tasks belong to. Its methods raise nothing; all but `stall` are called on the pipeline's thread."""

    @abstractmethod
    def begin(self, task: Task) -> None:
        """Start the task's writes and leave them in ``task.pendings``."""

    @abstractmethod
    def commit(self, tasks: Sequence[Task]) -> None:
        """Take tasks whose writes have ended, well or badly, in the order they were put."""

    @abstractmethod
    def stall(self, tasks: Sequence[Task], error: Exception) -> None:
        """Take it that these tasks hang: nobody has to wait for them any longer, though they may end yet.

        Called as soon as nothing has moved for ``stall_timeout_s``, and again as long as nothing does, on a
        thread that waits for nothing. ``error`` is a StorageStalled.
        """
