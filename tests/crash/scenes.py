"""What children of the zygote do: acquire through a real RunEngine, on disks that break, and look at what is left.

The pixels of every frame follow from the run's ``night`` (in its start document), the event's ``number`` and
the plane, so that `looking.examine` needs nobody's word for what should be there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import faults
import numpy as np
import shim
from bluesky import RunEngine
from busy import look_around, put_again_and_again, work
from deleting import delete_and_more, purge_on_full_disk, put_away_on_another_disk
from durable import write_and_tell, write_on_ailing_disk
from enduring import endure
from faults import fill, limit_all_files, limits_restored
from faulty_calls import count_calls, meet_faults
from frozen import look_where_nothing_can_be_written
from halting import acquire_beside, acquire_without_locks, halt_inside_transaction
from leaving import be_stopped, end_unsynced, lose_disk_between_runs, lose_root_with_points_to_come
from looking import examine, open_as_user, told_answers
from ophyd import Signal
from ophyd.sim import SynAxis
from ophyd.status import Status
from overflowing import (
    acquire_into_overflow,
    come_home,
    leave_room,
    look,
    look_beside_frozen,
    open_among_others,
)
from readers import follow_next_run, wait_for_more
from recorders import acquire_by_device, numbers_shown
from verifying import verify_and_tell
from zygote import Channel, call_in_child, last_words_of_child, mount_small_disk, obey_permissions

from gently_bluesky import Store
from gently_bluesky.backends.hot import DATA_OFFSET, HotPool
from gently_bluesky.errors import GentlyError
from gently_bluesky.testing.frames import encoded_frame

IMPORTED_BY_EACH = (
    "gently_bluesky.backends.tiff",
    "gently_bluesky.backends.zarr",
    "numpy.ma",
    "ophyd_async",
    "zarr",
)
for module in IMPORTED_BY_EACH:  # else each child would at a cost, and one without descriptors could not
    import_module(module)

__all__ = [
    "acquire_beside",
    "acquire_by_device",
    "acquire_into_overflow",
    "acquire_without_locks",
    "be_stopped",
    "come_home",
    "count_calls",
    "delete_and_more",
    "end_unsynced",
    "endure",
    "examine",
    "follow_next_run",
    "halt_inside_transaction",
    "leave_room",
    "look",
    "look_around",
    "look_beside_frozen",
    "look_where_nothing_can_be_written",
    "lose_disk_between_runs",
    "lose_root_with_points_to_come",
    "meet_faults",
    "numbers_shown",
    "open_among_others",
    "open_as_user",
    "purge_on_full_disk",
    "put_again_and_again",
    "put_away_on_another_disk",
    "told_answers",
    "verify_and_tell",
    "wait_for_more",
    "work",
    "write_and_tell",
    "write_on_ailing_disk",
]

SHAPE = (3, 64, 96)


class Camera:
    """A detector of rude habits: it says nothing of its shape, and delivers a frame and its number."""

    name = "view_a"
    parent = None

    def __init__(self, night: str, shape: tuple[int, ...] = SHAPE) -> None:
        self._night = night
        self._shape = shape
        self.number = 0

    def trigger(self) -> Status:
        self.number += 1
        status = Status()
        status.set_finished()
        return status

    def frame(self, number: int) -> np.ndarray:
        return encoded_frame(self._shape, "uint16", run=self._night, key="view_a", event=number)

    def read(self) -> dict[str, Any]:
        values = {"view_a": self.frame(self.number), "number": self.number}
        return {key: {"value": value, "timestamp": time.time()} for key, value in values.items()}

    def describe(self) -> dict[str, Any]:
        return {
            "view_a": {"source": "sim", "dtype": "array", "shape": []},
            "number": {"source": "sim", "dtype": "integer", "shape": []},
        }

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class FrameSignal(Signal):
    """A real ophyd signal, but for its configuration: there a plain one repeats its value, pixels and all."""

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class Watched:
    """A writer between the RunEngine and us: what it raises is kept, with the name of the document."""

    def __init__(self, writer: Callable[[str, Any], None]) -> None:
        self._writer = writer
        self.raised: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, doc: Any) -> None:
        try:
            self._writer(str(name), doc)
        except BaseException as error:
            self.raised.append((str(name), error))
            raise


@contextmanager
def run_engine() -> Iterator[RunEngine]:
    RE = RunEngine({}, call_returns_result=False)
    try:
        yield RE
    finally:
        RE.loop.call_soon_threadsafe(RE.loop.stop)
        RE._th.join(10)
        RE.loop.close()


def acquisition(
    camera: Camera, events: int, before: Callable[[int], Any] = lambda number: ()
) -> Generator[Any, Any, None]:
    """A plan of so many events; ``before(number)`` is called ahead of each and may yield messages."""

    @bpp.run_decorator(md={"night": camera._night, "session": "crash"})
    def inner() -> Generator[Any, Any, None]:
        for number in range(1, events + 1):
            yield from before(number)
            yield from bps.trigger_and_read([camera])

    yield from inner()


def acquire(
    channel: Channel,
    root: str,
    format: str,
    night: str,
    events: int,
    pause_before: int = 0,
    die_at_call: int = 0,
    die_after_events: int = 0,
    shape: tuple[int, ...] = SHAPE,
    assets: str = "datum",
    sync: str = "event",
    log: str = "",
    torn: bool = False,
) -> dict[str, Any]:
    """Acquire a run and tell each announced document. ``pause_before`` an event: say so and wait.

    ``die_at_call``: just before a call that changes a file, or, ``torn``, in the middle of it. With a ``log`` each
    of these calls is noted there, and when a subscriber is told.
    """

    def before(number: int) -> Iterator[Any]:
        if number in (pause_before, die_after_events + 1):
            yield from writer.stored()
        if number == pause_before:
            channel.tell({"waiting": number})
            channel.hear()
        if number == die_after_events + 1 > 1:
            os._exit(9)

    shim.watch("/" if format == "memory" else root, die_at_call, torn=torn, log=log)
    with Store(root) as store, run_engine() as RE:
        opened = shim.counted()
        kept = {"format": format, "assets": assets, "sync": sync}
        writer = store.writer(min_free_bytes=0, max_pending_bytes=1 << 22, **kept)
        RE.subscribe(writer)
        writer.subscribe(lambda name, doc: tell_of(channel, name, doc))
        channel.tell({"ready": os.getpid()})
        (uid,) = RE(acquisition(Camera(night, tuple(shape)), events, before))
        ended = shim.counted()
    return {"uid": uid, "opened": opened, "ended": ended, "calls": shim.counted()}


def tell_of(channel: Channel, name: str, doc: Any) -> None:
    """Tell the test that a document was announced, and note when that was."""
    if name in ("start", "event", "stop"):
        shim.mark(json.dumps([name, doc["uid"], doc.get("data", {}).get("number")]))
    channel.tell({"name": name, "doc": doc})


def adopt(
    channel: Channel, root: str, documents: str, die_at_call: int = 0, other_disk: str = ""
) -> dict[str, Any]:
    """Store a recorded run whose files lie in ``incoming``, moving them, and die at a call while it ends.

    With ``other_disk`` these files are copied onto a disk of their own that is mounted there.
    """
    if other_disk:
        (Path(root) / "incoming").mkdir()
        mount_small_disk(Path(root) / "incoming", 1 << 20)
        shutil.copytree(other_disk, Path(root) / "incoming", dirs_exist_ok=True)
    recorded = json.loads(Path(documents).read_text())
    with warnings.catch_warnings(record=True) as caught, Store(root) as store:
        warnings.simplefilter("always")
        writer = store.writer(adopt="move", min_free_bytes=0)
        for name, doc in recorded[:-1]:
            writer(name, doc)
        store[recorded[0][1]["uid"]].wait("primary", "image", 3)
        channel.tell({"ready": os.getpid()})
        shim.watch(root, die_at_call)
        writer(*recorded[-1])
        made = shim.counted()
        run = store[recorded[0][1]["uid"]]
        sums = {key: int(np.asarray(run[key]).sum()) for key in run["primary"]}
    return {"calls": made, "sums": sums, "warned": [str(warning.message) for warning in caught]}


def acquire_on_failing_disk(
    channel: Channel, root: str, format: str, night: str, events: int, fault: str, when: str
) -> dict[str, Any]:
    """Acquire while ``fault`` happens ``when``.

    ``"waiting <k>"``: before event ``k``, and the plan waits until each event has met its fate.
    ``"going on <k>"``: before event ``k``, and the plan goes on when the failure is there. ``"stop"``: when
    the stop document comes, and all events but the first are in the buffer. ``"crowded"``: the disk is small.
    """
    if fault == "forbid":
        obey_permissions()
    moment, _, at = when.rpartition(" ") if when[-1].isdigit() else (when, "", "0")
    stop_came, failed, first_announced = threading.Event(), threading.Event(), threading.Event()
    failures: list[Exception] = []
    announced: list[list[Any]] = []

    def before(number: int) -> Iterator[Any]:
        if number <= int(at) or moment == "waiting":
            yield from writer.stored()
        if number == int(at):
            getattr(faults, fault)(Path(root))
        if moment == "going on" and number > int(at):
            assert failed.wait(30)
        if moment == "stop" and number == 2:
            assert first_announced.wait(30)

    def on_stop(name: str, doc: Any) -> None:
        if moment == "stop":
            getattr(faults, fault)(Path(root))
        stop_came.set()

    def on_failure(error: Exception) -> None:
        failures.append(error)
        failed.set()

    def note(name: str, doc: Any) -> None:
        if name == "event":
            announced.append([doc["uid"], doc["data"]["number"]])
            first_announced.set()
            if moment == "stop":
                assert stop_came.wait(30)

    with limits_restored(), Store(root) as store, run_engine() as RE:
        writer = store.writer(
            format=format, min_free_bytes=0, max_pending_bytes=1 << 22, on_failure=on_failure
        )
        watched = Watched(writer)
        RE.subscribe(on_stop, "stop")
        RE.subscribe(watched)
        writer.subscribe(note)
        error = _raised_by(lambda: RE(acquisition(Camera(night), events, before)))
        return {**_account(watched, failures, error), "announced": announced}


def accept_and_hang(channel: Channel, root: str, format: str, night: str, events: int) -> None:
    """Accept frames while the first announced event hangs in a subscriber; say when all are; never end."""
    first_announced = threading.Event()

    def hang(name: str, doc: Any) -> None:
        if name == "event":
            first_announced.set()
            threading.Event().wait()

    def before(number: int) -> Iterator[Any]:
        if number == 2:
            assert first_announced.wait(30)
        if number == events + 1:
            channel.tell({"accepted": events})
            threading.Event().wait()
        yield from ()

    with Store(root) as store, run_engine() as RE:
        writer = store.writer(format=format, min_free_bytes=0)
        RE.subscribe(writer)
        writer.subscribe(hang)
        RE(acquisition(Camera(night), events + 1, before))


def die_on_full_disk(channel: Channel, root: str, format: str, night: str) -> None:
    """Die in the middle of a run that has just filled the disk."""

    def before(number: int) -> Iterator[Any]:
        yield from writer.stored()
        if number == 3:
            fill(Path(root))
            channel.tell({"result": None})
            os._exit(9)

    with Store(root) as store, run_engine() as RE:
        writer = store.writer(format=format, min_free_bytes=0)
        RE.subscribe(writer)
        RE(acquisition(Camera(night), 6, before))


def open_for_writing_in_vain(channel: Channel, root: str) -> list[str]:
    """Open a store where no file may grow, with an index that needs none; return the warnings."""
    with limits_restored(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        limit_all_files(Path(root))
        Store(root, index="sqlite://").close()
    return [str(warning.message) for warning in warned]


def make_room_and_acquire(channel: Channel, root: str, **arguments: Any) -> dict[str, Any]:
    """Take away what filled the disk, and acquire again into the same store."""
    (Path(root).parent / "filler").unlink(missing_ok=True)
    return acquire(channel, root, **arguments)


def monitor_on_failing_disk(
    channel: Channel, root: str, format: str, night: str, fault: str, at: int
) -> dict[str, Any]:
    """Let a device's own thread bring the frames, of which the one at ``at`` meets the fault."""
    failures: list[Exception] = []
    announced: list[list[Any]] = []
    camera, signal = Camera(night), FrameSignal(name="view_a", value=np.zeros(SHAPE, "uint16"))
    motor = SynAxis(name="motor")

    def deliver(number: int) -> None:
        frame = camera.frame(number)
        signal.put(frame[:-1] if fault == "wrong_shape" and number == at else frame, timestamp=float(number))

    def plan() -> Generator[Any, Any, None]:
        yield from bps.open_run({"night": night})
        signal.put(camera.frame(0), timestamp=0.0)
        yield from bps.monitor(signal, name="live")
        for number in range(1, at + 1):
            if number == at and fault != "wrong_shape":
                yield from writer.stored()
                getattr(faults, fault)(Path(root))
            thread = threading.Thread(target=deliver, args=(number,))
            thread.start()
            thread.join()
        yield from _swallowing(writer.stored())
        yield from bps.trigger_and_read([motor])
        yield from bps.mv(motor, 1)
        yield from bps.close_run()

    def note(name: str, doc: Any) -> None:
        if name == "event":
            announced.append([doc["uid"], doc["timestamps"]["view_a"]])

    with limits_restored(), Store(root) as store, run_engine() as RE:
        writer = store.writer(format=format, min_free_bytes=0, on_failure=failures.append)
        watched = Watched(writer)
        RE.subscribe(watched)
        writer.subscribe(note)
        error = _raised_by(lambda: RE(plan()))
        return {**_account(watched, failures, error), "announced": announced, "moved": motor.position != 0}


def _swallowing(plan: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
    """Wait, and leave the failure to the next document."""
    with suppress(GentlyError):
        yield from plan


def start_on_failing_disk(
    channel: Channel, root: str, format: str, fault: str, min_free_bytes: int = 0
) -> dict[str, Any]:
    """Begin a run that cannot be opened, after one that could."""
    if fault == "forbid_runs":
        obey_permissions()
    failures: list[Exception] = []
    motor = SynAxis(name="motor")

    @bpp.run_decorator(md={"night": "never"})
    def plan() -> Generator[Any, Any, None]:
        yield from bps.mv(motor, 1)
        yield from bps.trigger_and_read([camera])

    camera = Camera("never")
    index = f"sqlite:///{Path(root).parent.parent / 'elsewhere.sqlite'}"
    with limits_restored(), Store(root, index=index) as store, run_engine() as RE:
        token = RE.subscribe(store.writer(format=format, min_free_bytes=0))
        RE(acquisition(Camera("before"), 1))
        RE.unsubscribe(token)
        writer = store.writer(format=format, min_free_bytes=min_free_bytes, on_failure=failures.append)
        watched = Watched(writer)
        RE.subscribe(watched)
        if fault:
            getattr(faults, fault)(Path(root))
        error = _raised_by(lambda: RE(plan()))
    folders = [folder.name for folder in Path(root).glob("runs/*/*/*/*")]
    account = _account(watched, failures, error)
    return {**account, "moved": motor.position != 0, "triggered": camera.number, "folders": folders}


def _raised_by(action: Callable[[], object]) -> BaseException | None:
    try:
        action()
    except BaseException as error:
        return error
    return None


def _account(watched: Watched, failures: list[Exception], error: BaseException | None) -> dict[str, Any]:
    """What was raised, where, and whether it was one and the same object."""
    objects = {
        id(error),
        *(id(failure) for failure in failures),
        *(id(raised) for _, raised in watched.raised),
    }
    return {
        "error": None if error is None else type(error).__name__,
        "errno": getattr(error, "errno", None),
        "message": str(error),
        "raised_at": [name for name, _ in watched.raised],
        "is_one_object": len(objects) == 1 and len(failures) == 1,
    }


def recover(channel: Channel, root: str, die_at_call: int, torn: bool = False) -> int:
    """Open a store for writing and die on the way; return how many calls that change a file it makes."""
    shim.watch(root, die_at_call, torn=torn)
    Store(root).close()
    return shim.counted()


def materialize(channel: Channel, root: str, format: str, die_at_call: int = 0) -> int:
    """Put on disk what the runs of a store keep in memory, and die on the way; return how many calls it takes."""
    with Store(root) as store:
        uids = [record.uid for record in store.query()]
        shim.watch("/", die_at_call)
        for uid in uids:
            store.materialize(uid, format=format)
        return shim.counted()


def convert(
    channel: Channel, root: str, how: dict[str, Any], die_at_call: int = 0, torn: bool = False
) -> int:
    """Convert the runs of a store, and die on the way; return how many calls it takes."""
    with Store(root) as store:
        uids = [record.uid for record in store.query()]
        shim.watch(root, die_at_call, torn=torn)
        store.convert(uids, **how, progress=False)
        return shim.counted()


def hold_hot_pool(channel: Channel, root: str, asset: str, night: str) -> None:
    """Keep the first frame of a run hot until told that it is enough, or killed."""
    with Store(root) as store:
        frame = Camera(night).frame(1)
        pool = HotPool.create(store.uid, DATA_OFFSET + (1 << 20))
        buffer = pool.take(frame.nbytes)
        assert buffer is not None
        buffer.view(frame.dtype).reshape(frame.shape)[...] = frame
        pool.keep(buffer, asset, 0)
        channel.tell({"pool": pool.path.name})
        channel.hear()
        pool.close()


def acquire_and_die(channel: Channel, **arguments: Any) -> int:
    """Have a process acquire and die; return how much it said."""
    return len(last_words_of_child(acquire, **arguments))


def on_small_disk(
    channel: Channel, folder: str, size: int, jobs: list[tuple[str, dict[str, Any]]]
) -> list[Any] | dict[str, str]:
    """Do jobs, each in a process of its own, where a disk of this size is mounted at ``folder``."""
    try:
        mount_small_disk(Path(folder), size)
    except OSError as error:
        return {"unavailable": str(error)}
    return [call_in_child(globals()[name], **arguments) for name, arguments in jobs]
