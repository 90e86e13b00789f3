"""A writer in another process, behind bluesky's 0MQ proxy in a third one, gives the store that one here gives."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.callbacks.zmq import Publisher
from ophyd.sim import det1, motor

from gently_bluesky import Store
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.errors import MessageTooLarge
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.frames import check_frame
from gently_bluesky.wire import lossless, pack

PROXY = """
from bluesky.callbacks.zmq import Proxy
from gently_bluesky.wire import lossless

proxy = lossless(Proxy("127.0.0.1", "127.0.0.1"))
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""

WRITER = """
import json, sys
from bluesky.callbacks.zmq import RemoteDispatcher
from gently_bluesky import Store
from gently_bluesky.wire import lossless, unpack

root, address, settings = sys.argv[1:]
with Store(root) as store:
    writer = store.writer(**json.loads(settings))

    def take(name, doc):
        if "hello" in doc:
            print("hello", doc["hello"], flush=True)
            return
        writer(name, doc)
        if name == "stop":
            print("stored", doc["run_start"], flush=True)

    dispatcher = lossless(RemoteDispatcher(address, deserializer=unpack, strict=True))
    dispatcher.subscribe(take)
    print("listening", flush=True)
    dispatcher.start()
"""


class Process:
    """A Python process that says what it does, a line each."""

    def __init__(self, code: str, *arguments: str) -> None:
        command = [sys.executable, "-W", "error::UserWarning", "-u", "-c", code, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def says_something(self, within_s: float) -> bool:
        return bool(self._selector.select(within_s))

    def hear(self) -> list[str]:
        return self._process.stdout.readline().split()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._selector.close()
        self._process.stdout.close()


class Transport:
    """A proxy, a writer behind it, and a publisher that they hear."""

    def __init__(self, root: Path, serializer: Any = pack, **settings: Any) -> None:
        self._processes = [Process(PROXY)]
        self.address, out = self._processes[0].hear()
        self.writer = Process(WRITER, str(root), out, json.dumps(settings))
        self._processes.append(self.writer)
        self.publisher = lossless(Publisher(self.address, serializer=serializer))
        assert self.writer.hear() == ["listening"]
        greetings = 0
        while not self.writer.says_something(0.05):  # whoever is not connected yet hears nothing
            self.publisher("start", {"hello": greetings})
            greetings += 1
        self.publisher("start", {"hello": "last"})
        while self.writer.hear() != ["hello", "last"]:
            pass

    def close(self) -> None:
        self.publisher.close()
        for process in reversed(self._processes):
            process.end()


@pytest.fixture
def make(root: Path) -> Iterator[Any]:
    """What makes a transport to a store in `root`."""
    made: list[Transport] = []

    def transport(**settings: Any) -> Transport:
        made.append(Transport(root, **settings))
        return made[-1]

    yield transport
    for one in made:
        one.close()


def lines_of(store: Store, uid: str) -> list[str]:
    """Return a run's journal without the uids and the root of its assets, and without how fast it was."""
    numbers: dict[str, str] = {}
    lines: list[str] = []
    for line in read_journal(store.root / store.record(uid).path):
        doc = dict(line.doc)
        if line.name in {"resource", "stream_resource"}:
            numbers[doc["uid"]] = f"resource {len(numbers)}"
        text = json.dumps([line.name, doc, line.digest, line.outcome, line.timestamps], sort_keys=True)
        text = text.replace(str(store.root), "")
        for known, number in numbers.items():
            text = text.replace(known, number)
        lines.append(text)
    return lines


def plans(scope: SimulatedDiSPIM) -> Any:
    """Volumes, a scan with a baseline, and two runs that are interleaved."""
    yield from acquire_volume(scope, num=3, session="over the wire")
    yield from bpp.baseline_wrapper(bp.scan([det1], motor, -1, 1, 4), [motor])

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.trigger_and_read([det1])

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer() -> Any:
        yield from bps.stage(scope.light_sheet)
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from inner()
        yield from bps.trigger_and_read([scope.light_sheet])
        yield from bps.unstage(scope.light_sheet)

    yield from outer()


@pytest.mark.parametrize(
    "settings", [{}, {"format": "tiff", "assets": "stream"}], ids=["zarr, datum", "tiff, stream"]
)
def test_writer_in_another_process_gives_the_store_that_one_here_gives(
    RE: Any, tmp_path: Path, root: Path, make: Any, settings: dict[str, Any]
) -> None:
    transport = make(**settings)
    with Store(tmp_path / "here") as here:
        RE.subscribe(here.writer(**settings))
        RE.subscribe(transport.publisher)
        uids = RE(plans(SimulatedDiSPIM(size=64, n_slices=6)))
        assert {transport.writer.hear()[1] for _ in uids} == set(uids)
        with Store(root, mode="r") as there:
            for uid in uids:
                assert lines_of(there, uid) == lines_of(here, uid)
                assert there[uid].status == "complete"
            for key in ("view_a", "view_b"):
                volumes = np.asarray(there[uids[0]]["primary"][key])
                assert volumes.shape == (3, 6, 64, 64)
                assert np.array_equal(volumes, here[uids[0]]["primary"][key])


def test_publisher_waits_for_a_slow_store_and_no_frame_is_lost(RE: Any, root: Path, make: Any) -> None:
    transport = make(max_pending_bytes=2**21)
    RE.subscribe(transport.publisher)
    (uid,) = RE(
        bp.count([EncodedCamera("camera", (512, 1024), "u2")], num=200)
    )  # 100 x what the writer holds
    assert transport.writer.hear() == ["stored", uid]
    with Store(root, mode="r") as store:
        assert (store[uid].status, store.record(uid).stored) == ("complete", 200)
        for event, frame in enumerate(store[uid]["camera"]):
            check_frame(np.asarray(frame), key="camera", event=event)


def test_message_too_large_is_refused_before_it_is_sent_and_the_run_says_so(
    RE: Any, root: Path, make: Any
) -> None:
    transport = make(serializer=partial(pack, max_bytes=100_000))
    RE.subscribe(transport.publisher)
    camera = EncodedCamera("camera", (128, 128), "u2")
    with pytest.raises(MessageTooLarge, match=r"at most 100000 bytes, .* it was not sent"):
        RE(growing(camera))
    _, failed = transport.writer.hear()
    (uid,) = RE(bp.count([EncodedCamera("camera", (128, 128), "u2")], num=2))
    assert transport.writer.hear() == ["stored", uid]
    with Store(root, mode="r") as store:
        assert (store[uid].status, store[failed].status) == ("complete", "failed")
        check_frame(np.asarray(store[failed]["camera"][0]), key="camera", event=0)
        assert store[failed].stop["exit_status"] == "fail"


@bpp.run_decorator()
def growing(camera: EncodedCamera) -> Any:
    """Take a frame that a message holds, and one that it does not."""
    yield from bps.trigger_and_read([camera])
    yield from bps.configure(camera, {"shape": (512, 512)})
    yield from bps.trigger_and_read([camera])
