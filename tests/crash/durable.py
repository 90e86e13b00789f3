"""What children of the zygote do while somebody traces them: they write at a level of durability, step by step."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame, encoded_frame

__all__ = ["write_and_tell", "write_on_ailing_disk"]

SHAPE = (18, 32, 48)
"""Of two shards."""
EVENTS = 3
FURTHER = 12
"""That come all at once, so that folders of a Zarr array are made ahead of them."""
SAID = {"source": "test", "dtype": "array", "shape": list(SHAPE), "dtype_numpy": "<u2"}


def let_anybody_trace() -> None:
    """Where only descendants may be traced, let a test trace the zygote's children."""
    set_ptracer, anybody = 0x59616D61, -1
    ctypes.CDLL(None).prctl(set_ptracer, ctypes.c_ulong(anybody), 0, 0, 0)


def write_and_tell(channel: Channel, root: str, told: str, format: str, sync: str) -> dict[str, Any]:
    """Acquire a run, record a device's events, and keep a result; note in a file each time something is announced.

    Each of the first events comes when the one before it is announced, so that all that was written before its note
    belongs to what is announced by then.
    """
    let_anybody_trace()
    channel.tell({"ready": True})
    channel.hear()
    notes = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str) -> None:
        os.write(notes, f"{what}\n".encode())

    with Store(root) as store:
        note("opened")
        settings: dict[str, Any] = {"levels": 2} if format == "zarr" else {}
        _write_a_run(store.writer(format=format, sync=sync, **settings), note)
        _record_events(store.recorder(format=format, sync=sync, **settings), note)
        if sync == "event":
            store.put(1.5, data_type="number")
            store.put(np.arange(6).reshape(2, 3), data_type="table")
            note("put")
    os.close(notes)
    files = [os.path.relpath(place, root) for place in Path(root).rglob("*") if place.is_file()]
    return {"files": sorted(files)}


def _frame(number: int) -> Any:
    return encoded_frame(SHAPE, "u2", key="frame", event=number)


def _write_a_run(writer: Any, note: Any) -> None:
    announced = threading.Event()

    def tell(name: str, doc: dict[str, Any]) -> None:
        if doc.get("seq_num", 0) <= EVENTS and name != "datum":
            note(name)
        if name == "event":
            announced.set()

    run = HandMadeRun(data_type="volume")
    descriptor = run.descriptor(view_a={}, view_b={})
    with writer:
        writer.subscribe(tell)
        writer("start", run.start)
        writer("descriptor", descriptor)
        for number in range(EVENTS):
            announced.clear()
            frame = _frame(number)
            writer("event", run.event(descriptor, view_a=frame, view_b=frame[0]))
            assert announced.wait(30)
        for number in range(EVENTS, EVENTS + FURTHER):
            writer("event", run.event(descriptor, view_a=_frame(number), view_b=_frame(number)[0]))
        writer("stop", run.stop())


def _record_events(recorder: Any, note: Any) -> None:
    note("staging")
    recording = recorder.record("camera")
    note("staged")
    for number in range(EVENTS):
        stored: Future[None] = recording.write(
            {"view_a": _frame(number)}, {"data_keys": {"view_a": SAID}}
        ).stored
        stored.result(30)
        note("recorded")
    recording.close()
    note("unstaged")
    recorder.close()


def write_on_ailing_disk(
    channel: Channel,
    root: str,
    notes: str,
    format: str,
    sync: str,
    failing: str,
    count: int,
    error: int,
    by: str,
) -> dict[str, Any]:
    """Write three events, by a writer or by a device's recording; from the second on so many syncs fail."""
    fails = ctypes.CDLL(os.environ["LD_PRELOAD"]).fail_syncs
    raised: list[BaseException] = []
    with warnings.catch_warnings(record=True) as caught, Store(root) as store:
        warnings.simplefilter("always")
        write = _by_writer if by == "writer" else _by_recorder
        uid = write(
            store,
            {"format": format, "sync": sync},
            raised,
            lambda: fails(os.fsencode(failing), count, error, os.fsencode(notes)),
        )
        run = store[uid] if uid else None
        told = {
            "raised": [[type(one).__name__, getattr(one, "errno", None), str(one)] for one in raised],
            "warned": [str(warning.message) for warning in caught],
            "notes": [line.split(" ", 1) for line in Path(notes).read_text().splitlines()],
        }
        if run is None:
            return told
        for place, frame in enumerate(run["primary"]["view_a"]):
            check_frame(frame.compute(), key="frame", event=place)
        return {**told, "status": run.status, "events": len(run["primary"].events), "storing": run.storing}


def _by_writer(store: Store, settings: dict[str, Any], raised: list[BaseException], ail: Any) -> str:
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    announced = threading.Event()
    with store.writer(min_free_bytes=0, **settings) as writer:
        writer.subscribe(lambda name, _: announced.set() if name == "event" else None)
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, view_a=_frame(0)))
        assert announced.wait(30)
        ail()
        documents = [("event", run.event(descriptor, view_a=_frame(number))) for number in (1, 2)]
        for name, doc in [*documents, ("stop", run.stop())]:
            try:
                writer(name, doc)
            except Exception as error:
                raised.append(error)
    return run.uid


def _by_recorder(store: Store, settings: dict[str, Any], raised: list[BaseException], ail: Any) -> None:
    recorder = store.recorder(min_free_bytes=0, **settings)
    recording = recorder.record("camera")
    for number in range(3):
        recording.write({"view_a": _frame(number)}, {"data_keys": {"view_a": SAID}}).stored.result(30)
        if number == 0:
            ail()
    recording.close()
