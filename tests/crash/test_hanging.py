"""A call to the disk that neither ends nor fails: a file of the second event is a pipe, which nobody reads yet."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from recorders import DatumCamera, StreamCamera

from gently_bluesky import Store
from gently_bluesky.errors import StorageStalled
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (8, 16)
FAR_TOO_LONG_S = 30
PATIENCE_S = 1.0
"""What is stored before anything hangs takes a hundredth of it, and more where much else is going on."""


class Pipe:
    """Where an array's second event will be written: whoever opens it waits until `release`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = Path()
        self._end = -1

    def lay(self) -> None:
        (chunks,) = self._root.glob("**/*.ome.zarr/0/c")
        self._path = chunks / "1" / "0" / "0.__lock"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(self._path)

    def release(self) -> None:
        if self._end < 0 and self._path.exists():
            self._end = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        if self._end >= 0:
            os.close(self._end)


@pytest.fixture
def pipe(root: Path) -> Iterator[Pipe]:
    pipe = Pipe(root)
    yield pipe
    pipe.release()
    pipe.close()


@pytest.fixture
def store(root: Path, pipe: Pipe) -> Iterator[Store]:
    """A store that the disk lets go of before it is closed."""
    with Store(root) as opened:
        yield opened
        pipe.release()


def test_write_that_hangs_is_told_though_no_document_comes(store: Store, pipe: Pipe) -> None:
    told: queue.Queue[Exception] = queue.Queue()
    writer, run = store.writer(stall_timeout_s=PATIENCE_S, on_failure=told.put), HandMadeRun()
    descriptor = run.descriptor(camera={})
    announced: queue.Queue[str] = queue.Queue()
    writer.subscribe(lambda name, _: announced.put(name))
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=encoded_frame(SHAPE, "u2")))
    while announced.get(timeout=FAR_TOO_LONG_S) != "event":
        pass
    pipe.lay()
    writer("event", run.event(descriptor, camera=encoded_frame(SHAPE, "u2", event=1)))
    first = told.get(timeout=FAR_TOO_LONG_S)
    assert isinstance(first, StorageStalled)
    assert "look at the disk" in str(first)
    pipe.release()
    with pytest.raises(StorageStalled) as caught:
        writer("stop", run.stop())
    assert caught.value is first
    assert (store[run.uid].status, len(store[run.uid]["camera"])) == ("failed", 1)


@pytest.mark.parametrize("camera", [DatumCamera, StreamCamera])
def test_trigger_that_waits_for_a_hanging_disk_fails(
    store: Store, pipe: Pipe, RE: RunEngine, camera: Callable[..., Any]
) -> None:
    RE.subscribe(store.writer())
    device = camera("n", SHAPE, recorder=store.recorder(stall_timeout_s=PATIENCE_S))

    raised: list[BaseException | None] = []

    @bpp.stage_decorator([device])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([device])
        pipe.lay()
        try:
            yield from bps.trigger(device, group="second")
            yield from bps.wait("second", timeout=FAR_TOO_LONG_S)
        except FailedStatus as error:
            raised.append(error.__cause__)
            raise
        finally:
            pipe.release()

    with pytest.raises((FailedStatus, StorageStalled)):
        RE(plan())
    assert isinstance(raised[0], StorageStalled)
    assert len(store[-1]["view_a"]) == 1
    assert store[-1].stop["num_events"] == {"primary": 1}
