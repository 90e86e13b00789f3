"""What the RunEngine's thread is spared, and what the buffer holds:

no file-system calls, one copy, a bound.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import ForgetfulBackend, GatedBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame

FRAME = (1024, 1024)
FRAME_NBYTES = 2 * 1024 * 1024
SYSTEM = {
    "posix",
    "nt",
    "io",
    "_io",
    "mmap",
    "fcntl",
    "msvcrt",
    "sqlite3",
    "_sqlite3",
    "_tensorstore",
    "select",
}
"""Modules whose C functions call the system; locks and the random numbers of uids are not looked for."""


def writer_onto(store: Store, backend: Backend, **settings: Any) -> StoreWriter:
    """Return a writer whose pixels go to this backend."""
    writer = store.writer(**settings)
    writer._desk.backend = backend
    return writer


@pytest.fixture
def gated() -> Iterator[GatedBackend]:
    """A backend that waits until its gate is set, at the latest when the test has ended."""
    backend = GatedBackend()
    yield backend
    backend.gate.set()


def watched(call: Callable[..., object], found: list[str]) -> Callable[..., None]:
    """Return a callable that notes every C function of the system's modules that its own thread calls."""

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            module = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
            if module.partition(".")[0] in SYSTEM and called.__name__ not in {"urandom", "fspath"}:
                found.append(f"{module}.{called.__qualname__}")

    def watching(*arguments: Any) -> None:
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            call(*arguments)
        finally:
            sys.setprofile(before)

    return watching


def test_between_start_and_stop_the_run_engines_thread_calls_no_function_of_the_system(
    store: Store, RE: RunEngine, tmp_path: Path
) -> None:
    calls: dict[str, list[str]] = {}
    writer = store.writer()

    def tell(name: str, doc: dict[str, Any]) -> None:
        watched(writer, calls.setdefault(name, []))(name, doc)

    RE.subscribe(tell)
    image = EncodedCamera("volume", (4, 64, 64))
    (uid,) = RE(bp.count([EncodedCamera(), image], num=20))

    assert {name: calls[name] for name in ("descriptor", "event")} == {"descriptor": [], "event": []}
    assert len(store[uid]["primary"]["volume"]) == 20
    control: list[str] = []
    watched(lambda: (tmp_path / "control").write_bytes(b"x"), control)()
    assert any("write" in call for call in control)  # what is looked for would be found
    watched(lambda: np.asarray(store[uid]["primary"]["camera"][0]), control)()
    assert any("stat" in call or "open" in call for call in control)


SCENE = """
import os, sys
from bluesky import RunEngine
import bluesky.plans as bp
from gently_bluesky import Store
from gently_bluesky.testing.devices import EncodedCamera
store = Store(sys.argv[1])
writer = store.writer()
def marked(name, doc):
    mark = name in ("descriptor", "event")
    if mark:
        os.access("/MARK-begin", os.F_OK)
    writer(name, doc)
    if mark:
        os.access("/MARK-end", os.F_OK)
RE = RunEngine({})
RE.subscribe(marked)
RE(bp.count([EncodedCamera(shape=(256, 256))], num=20))
store.close()
"""
HARMLESS = re.compile(
    r"^(futex|mmap|munmap|madvise|mprotect|brk|mremap|sched_yield|getrandom|rt_sig\w+|clock_\w+|gettid)\("
)


def test_no_system_call_but_for_memory_and_locks_is_made_while_the_writer_takes_a_document(
    tmp_path: Path,
) -> None:
    if shutil.which("strace") is None:
        found: list[str] = []
        with Store(tmp_path / "store") as store:
            writer, run = store.writer(), HandMadeRun()
            writer("start", run.start)
            descriptor = run.descriptor(camera={})
            watched(writer, found)("descriptor", descriptor)
            watched(writer, found)("event", run.event(descriptor, camera=encoded_frame((256, 256), "u2")))
            writer("stop", run.stop())
        assert found == []
        return
    log = tmp_path / "strace"
    command = ["strace", "-f", "-qq", "-o", str(log), sys.executable, "-c", SCENE, str(tmp_path / "store")]
    subprocess.run(command, check=True, timeout=240, env=dict(os.environ))
    lines = [line.split(None, 1) for line in log.read_text(errors="replace").splitlines()]
    (thread,) = {pid for pid, call in lines if "/MARK-begin" in call}
    inside, begun, made = False, 0, []
    for pid, call in lines:
        if pid != thread:
            continue
        if "/MARK-" in call:
            inside = "/MARK-begin" in call
            begun += inside
        elif inside and not HARMLESS.match(call) and not call.startswith(("<...", "---", "+++")):
            made.append(call)
    assert begun == 21
    assert made == []


@pytest.mark.parametrize(
    "layout",
    [
        np.asarray,
        np.asfortranarray,
        lambda frame: frame.astype(">u2"),
        lambda frame: np.repeat(frame, 2, 1)[:, ::2],
    ],
    ids=["C", "Fortran", "big-endian", "every other"],
)
def test_a_frame_is_copied_just_once(
    store: Store, gated: GatedBackend, layout: Callable[..., np.ndarray]
) -> None:
    writer = writer_onto(store, gated)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=layout(encoded_frame(FRAME, "u2"))))
    assert gated.waiting.wait(30)
    event = run.event(descriptor, camera=layout(encoded_frame(FRAME, "u2", event=1)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        writer("event", event)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert FRAME_NBYTES <= after - before <= peak - before < 1.2 * FRAME_NBYTES
    gated.gate.set()
    writer("stop", run.stop())
    check_frame(np.asarray(store[run.uid]["primary"]["camera"][1]), event=1)


def test_the_buffers_bound_is_one_of_memory(store: Store, gated: GatedBackend) -> None:
    frames = 12
    writer = writer_onto(store, gated, max_pending_bytes=4 * FRAME_NBYTES)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    gated.gate.set()
    event = run.event(descriptor, camera=encoded_frame(FRAME, "u2"))
    tracemalloc.start()
    try:
        for n in range(frames):
            writer("event", {**event, "uid": f"{run.uid}-{n}", "seq_num": n + 1})
        _, peak = tracemalloc.get_traced_memory()
        writer("stop", run.stop())
        between, _ = tracemalloc.get_traced_memory()
        writer.close()
        rest, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5.2 * FRAME_NBYTES  # the buffer, and what a sink holds of the frame it ends with
    assert between < 4.2 * FRAME_NBYTES  # the next run begins with the same memory
    assert rest < FRAME_NBYTES


def test_ten_thousand_events_take_no_memory_but_a_few_bytes_each(store: Store) -> None:
    writer = writer_onto(store, ForgetfulBackend(), max_pending_bytes=2**20)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={}, n={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    frame = np.zeros((128, 128), "u2")
    reached = threading.Semaphore(0)
    writer.subscribe(lambda name, doc: reached.release() if doc.get("seq_num") in {2000, 10000} else None)
    tracemalloc.start()
    try:
        held: list[int] = []
        for last in (2000, 10000):
            while run.num_events["primary"] < last:
                writer("event", run.event(descriptor, camera=frame, n=1))
            assert reached.acquire(timeout=120)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert (held[1] - held[0]) / 8000 < 1000
    writer("stop", run.stop())
    assert store[run.uid].record.stored == 10000
