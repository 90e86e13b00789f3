"""Backends for tests that wait, fail or keep nothing when they are told to; pixels go to Zarr otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.backends.base import (
    DEFAULT_PACKING,
    Backend,
    Capabilities,
    Pending,
    Sink,
)
from gently_bluesky.backends.frames import frame_kwargs
from gently_bluesky.backends.inspecting import Fault
from gently_bluesky.backends.zarr import ZarrBackend
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

__all__ = ["FailingBackend", "ForgetfulBackend", "GatedBackend"]

LONGEST_S = 60.0
"""For how long a gate stays shut at most, so that a test that has failed ends."""


class _Onto(Backend):
    """Zarr, with a sink of another kind in front."""

    name = "zarr"
    spec = "GENTLY_ZARR"
    suffix = ".ome.zarr"
    capabilities = Capabilities()

    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,
        sample: NDArray[Any] | None = None,
        *,
        sync: str = "event",
    ) -> Sink:
        return self.wrapped(ZarrBackend().create(path, spec, packing, sample, sync=sync))

    def wrapped(self, sink: Sink) -> Sink:
        """Return what stands in front of a Zarr sink."""
        return sink

    def open(self, path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> ArraySource:
        return ZarrBackend().open(path, resource_kwargs, count)

    def inspect(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterable[Fault]:
        return ZarrBackend().inspect(path, resource_kwargs, count)


class _Front(Sink):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        return self.sink.resource_kwargs

    def write(self, index: int, frame: NDArray[Any], time: float) -> Pending:
        return self.sink.write(index, frame, time)

    def publish(self, count: int) -> None:
        self.sink.publish(count)

    def close(self) -> None:
        self.sink.close()

    def sync(self) -> None:
        self.sink.sync()


class GatedBackend(_Onto):
    """Begins no write before ``gate`` is set; ``waiting`` is set once one would have begun."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def wrapped(self, sink: Sink) -> Sink:
        """Return a sink behind the gate."""
        return _GatedSink(sink, self)


class _GatedSink(_Front):
    def __init__(self, sink: Sink, gated: GatedBackend) -> None:
        super().__init__(sink)
        self._gated = gated
        self._pool = ThreadPoolExecutor(1, "gated")

    def write(self, index: int, frame: NDArray[Any], time: float) -> Future[object]:
        return self._pool.submit(self._write, index, frame, time)

    def _write(self, index: int, frame: NDArray[Any], time: float) -> object:
        self._gated.waiting.set()
        self._gated.gate.wait(LONGEST_S)
        return self.sink.write(index, frame, time).result()

    def close(self) -> None:
        self._pool.shutdown()
        super().close()


class FailingBackend(_Onto):
    """Fails with ``error`` from the write of frame ``at`` of each asset on.

    ``by`` says how: ``"write"`` and ``"publish"`` raise at once, ``"result"`` when the write should have
    ended.
    """

    def __init__(self, error: Exception, at: int = 0, by: str = "result") -> None:
        self.error = error
        self.at = at
        self.by = by

    def wrapped(self, sink: Sink) -> Sink:
        """Return a sink that fails."""
        return _FailingSink(sink, self)


class _FailingSink(_Front):
    def __init__(self, sink: Sink, failing: FailingBackend) -> None:
        super().__init__(sink)
        self._failing = failing

    def write(self, index: int, frame: NDArray[Any], time: float) -> Pending:
        if index < self._failing.at or self._failing.by == "publish":
            return super().write(index, frame, time)
        if self._failing.by == "write":
            raise self._failing.error
        failed: Future[object] = Future()
        failed.set_exception(self._failing.error)
        return failed

    def publish(self, count: int) -> None:
        if count > self._failing.at and self._failing.by == "publish":
            raise self._failing.error
        super().publish(count)


class ForgetfulBackend(_Onto):
    """Says that every frame is stored, at once, and keeps none: for measuring everything else."""

    def create(
        self,
        path: Path,  # noqa: ARG002 # nothing is made there
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,  # noqa: ARG002
        sample: NDArray[Any] | None = None,  # noqa: ARG002
        *,
        sync: str = "event",  # noqa: ARG002
    ) -> Sink:
        """Return a sink that keeps nothing."""
        return _ForgetfulSink(spec)


class _ForgetfulSink(Sink):
    def __init__(self, spec: ArraySpec) -> None:
        self._spec = spec

    @property
    def resource_kwargs(self) -> Mapping[str, Any]:
        return frame_kwargs(self._spec)

    def write(self, index: int, frame: NDArray[Any], time: float) -> Pending:  # noqa: ARG002 # as it says
        done: Future[object] = Future()
        done.set_result(None)
        return done

    def publish(self, count: int) -> None:
        pass

    def close(self) -> None:
        pass
