"""RunEngines that hear Ctrl-C: for a prompt, and for commands, whose run it aborts at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from types import FrameType, TracebackType
from typing import Any, Self

from bluesky import RunEngine
from bluesky.run_engine import (
    TransitionError,  # pyright: ignore[reportPrivateImportUsage] # a part of request_pause, exported nowhere
)
from bluesky.utils import DefaultDuringTask, DuringTask, RunEngineInterrupted

__all__ = ["InTurns", "run_engine"]

TURN_S = 0.1


class InTurns(DefaultDuringTask):
    """Waits for a RunEngine in short turns, as its ``during_task``, with Qt's windows alive as bluesky keeps them.

    Python runs a signal's handler when the main thread gets to it. Where the system hands Ctrl-C to another
    thread, or it comes just before the main one begins to wait for ever, that would be when the plan has ended.
    """

    def block(self, blocking_event: threading.Event) -> None:
        """Wait until the RunEngine is idle or paused."""
        super().block(_Turns(blocking_event))


class _Turns(threading.Event):
    """An event waited for in turns."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the event."""
        if timeout is not None:
            return self._event.wait(timeout)
        while not self._event.wait(TURN_S):
            pass
        return True


class _CtrlC(DuringTask):
    """Lets Ctrl-C pause a RunEngine at once, so that its run can be aborted and the detectors left in peace."""

    def __init__(self) -> None:
        self.asked = False
        self.run_engine: Any = None
        self._before: Any = None
        self._told = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 # a signal handler's arguments
        self.asked = True

    def block(self, blocking_event: threading.Event) -> None:
        """Wait for the RunEngine on the main thread, in turns as `InTurns` does."""
        while not blocking_event.wait(TURN_S):
            if self.asked and not self._told:
                self._told = True
                with suppress(TransitionError), redirect_stdout(StringIO()):  # it may just have ended
                    self.run_engine.request_pause()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


@contextmanager
def run_engine(before_abort: Callable[[], object] = lambda: None) -> Generator[Any]:
    """Make a RunEngine whose run is aborted at Ctrl-C, and end its thread; KeyboardInterrupt tells of it."""
    with _CtrlC() as ctrl_c:
        engine: Any = RunEngine({}, context_managers=[], during_task=ctrl_c, call_returns_result=False)
        ctrl_c.run_engine = engine
        logging.getLogger("bluesky").addHandler(logging.NullHandler())  # what it logs it also raises
        try:
            yield engine
        except RunEngineInterrupted:
            before_abort()
            with redirect_stdout(StringIO()):
                engine.abort("interrupted from the keyboard")
        finally:
            engine.loop.call_soon_threadsafe(engine.loop.stop)
            engine._th.join()  # bluesky ends neither by itself
            engine.loop.close()
    if ctrl_c.asked:
        raise KeyboardInterrupt
