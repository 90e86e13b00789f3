"""Child processes as the parent sees them: started, asked for samples, watched, and always ended."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

__all__ = ["PROGRESS", "SampleFailed", "Worker", "own_memory_mb"]

TOP = Path(__file__).parents[1]
WATCH_INTERVAL_S = 0.05
PATIENCE_S = 900.0
PROGRESS = "progress.u64"
"""A worker that is watched counts its events in this file of its folder."""


class SampleFailed(Exception):
    """A worker could not take a sample; the message is its own last line."""

    def __init__(self, summary: str, details: str) -> None:
        super().__init__(summary)
        self.details = details


class Worker:
    """One process with one task set up in it.

    Parameters
    ----------
    task, options
        See ``worker.py``.
    bank, scratch
        Its `Place`.
    """

    def __init__(self, task: str, options: Mapping[str, Any], *, bank: Path, scratch: Path) -> None:
        scratch.mkdir(parents=True)
        self._log = (scratch / "stderr.txt").open("wb")
        alone = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            cwd=TOP,
            **alone,  # Ctrl-C is for the parent, which ends its children
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._scratch = scratch
        self._tell(task=task, options=dict(options), bank=str(bank), scratch=str(scratch))

    def wait_ready(self) -> None:
        """Wait until the task is set up."""
        self._answer()

    def sample(self, folder: Path, *, watch: bool = False) -> dict[str, Any]:
        """Return one sample taken in this new folder; ``watch`` adds the memory of the process meanwhile."""
        folder.mkdir(parents=True)
        before_mb = own_memory_mb(self.process.pid) if watch else 0.0
        self._tell(folder=str(folder))
        if not watch:
            return self._answer()["sample"]
        seen: list[tuple[int, float]] = []
        answered = self._answer(lambda: self._look(folder, seen))
        return {**answered["sample"], **_memory_figures(seen, before_mb)}

    def _look(self, folder: Path, seen: list[tuple[int, float]]) -> None:
        events = 0
        with suppress(OSError):
            events = int.from_bytes((folder / PROGRESS).read_bytes()[:8], sys.byteorder)
        with suppress(OSError, ValueError):  # it may end just now
            seen.append((events, own_memory_mb(self.process.pid)))

    def _tell(self, **said: Any) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; what it said last is read below
            self.process.stdin.write(json.dumps(said) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, meanwhile: Any = None) -> dict[str, Any]:
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._answers.get(timeout=WATCH_INTERVAL_S if meanwhile else 1.0)
                break
            except queue.Empty:
                if time.monotonic() > until_s:
                    raise SampleFailed(f"no answer within {PATIENCE_S:g} s", self._said()) from None
                if meanwhile:
                    meanwhile()
        if not line:
            code = self.process.wait()
            raise SampleFailed(f"its process ended with {code}", self._said())
        answer = json.loads(line)
        if "error" in answer:
            raise SampleFailed(answer["error"].strip().splitlines()[-1], f"{answer['error']}{self._said()}")
        return answer

    def _said(self) -> str:
        return (self._scratch / "stderr.txt").read_text("utf-8", "replace")[-4000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process: gently where all is well, with all it started where not."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(0.0 if kind else 30.0)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()


def _memory_figures(seen: list[tuple[int, float]], before_mb: float) -> dict[str, Any]:
    """Return the peak over what was taken before, and how far a line through the last nine tenths rises."""
    if not seen:
        return {}
    curve = [[events, memory_mb - before_mb] for events, memory_mb in seen]
    figures: dict[str, Any] = {"peak_mb": max(memory_mb for _, memory_mb in curve)}
    most = max(events for events, _ in curve)
    late = np.array([point for point in curve if point[0] > most / 10]).reshape(-1, 2)
    if len(np.unique(late[:, :1])) > 1:
        slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
        figures.update(growth_mb=float(slope) * 0.9 * most, curve=curve)
    return figures


def own_memory_mb(pid: int) -> float:
    """Return the memory a process takes, in MB, shared memory included.

    Mapped files, the bank of frames and the libraries, are the page cache's and are left out where the system
    tells them apart.
    """
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        parts = [line.split() for line in status.read_text("ascii", "replace").splitlines()]
        return sum(int(part[1]) for part in parts if part[0] in {"RssAnon:", "RssShmem:"}) * 1024 / 1e6
    import psutil

    try:
        return psutil.Process(pid).memory_info().rss / 1e6
    except psutil.Error as error:
        raise OSError(f"the memory of process {pid} cannot be read: {error}") from error
