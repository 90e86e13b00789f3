"""What children of the zygote do to an index that others write too: halt inside a transaction, or be held up by one.

And on file systems without locks: a filter of the kernel's refuses them to this process.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import signal
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

from sqlalchemy import event, func, select
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError
from gently_bluesky.index.schema import records
from gently_bluesky.index.sqlite import PATIENCE_MS

__all__ = ["acquire_beside", "acquire_without_locks", "halt_inside_transaction"]


def halt_inside_transaction(
    channel: Channel, root: str, format: str, night: str, how: str, at: int | str = 1
) -> dict[str, Any]:
    """Acquire a run, and get a signal when the ``at``-th transaction has written all and committed nothing.

    ``"stop"`` is the one that has the run's end in it: how many come before it is for whoever is faster to settle.
    SQLite may keep nothing of it in memory meanwhile.
    """
    from scenes import Camera, acquisition, run_engine

    commits = 0

    def ended(connection: Any) -> int:
        found = select(func.count()).where(records.c.kind == "run", records.c.status == "complete")
        return int(connection.scalar(found))

    def spill(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA cache_size = 1")

    def halt(connection: Any) -> None:
        nonlocal commits
        commits += (is_ours := PATIENCE_MS in connection.get_execution_options())
        if commits == at or (at == "stop" and is_ours and ended(connection) > before):
            commits += 1
            channel.tell({"inside": at})
            signal.pthread_kill(threading.get_ident(), signal.Signals[how])  # not one instruction further

    with Store(root) as store, run_engine() as RE:
        engine = store._index._database._engine()
        with engine.connect() as connection:
            before = ended(connection)
        event.listen(engine, "begin", spill)
        event.listen(engine, "commit", halt)
        RE.subscribe(store.writer(format=format, min_free_bytes=0))
        (uid,) = RE(acquisition(Camera(night), 4, lambda number: ()))
        return {"uid": uid}


def acquire_beside(channel: Channel, root: str, format: str, nights: list[str]) -> dict[str, Any]:
    """Acquire runs and put a result after each, waiting to be told before each; say how it went."""
    from scenes import Camera, acquisition, run_engine

    announced: dict[str, list[list[Any]]] = {}

    def note(name: str, doc: Any) -> None:
        if name == "event":
            announced[night].append([doc["uid"], doc["data"]["number"]])

    with Store(root) as store, run_engine() as RE:
        writer = store.writer(format=format, min_free_bytes=0)
        RE.subscribe(writer)
        writer.subscribe(note)
        for night in nights:
            channel.hear()
            announced[night], put = [], None
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                RE(acquisition(Camera(night), 5, lambda number: ()))
                try:
                    store.put({"of": night}, data_type="nuclei")
                except GentlyError as error:
                    put = f"{type(error).__name__}: {error}"
            warned = [str(one.message) for one in caught]
            known = sorted(record.metadata["night"] for record in store.query(derived=False))
            channel.tell({"warned": warned, "put": put, "known": known, "announced": announced[night]})
    return announced


def acquire_without_locks(channel: Channel, root: str, number: int, night: str) -> dict[str, Any]:
    """Try to write a run where the file system answers every lock with this error, and look at what is there."""
    from scenes import Camera, _raised_by, acquisition, run_engine

    camera = Camera(night)
    _refuse_flock(number)
    with warnings.catch_warnings(record=True) as caught, run_engine() as RE:
        warnings.simplefilter("always")
        with Store(root) as store:
            RE.subscribe(store.writer(min_free_bytes=0))
            error = _raised_by(lambda: RE(acquisition(camera, 2, lambda number: ())))
        with Store(root, mode="r") as store:
            status = {record.metadata["night"]: store[record.uid].status for record in store.query()}
    return {
        "error": f"{type(error).__name__}: {error}",
        "errno": getattr(error, "errno", None),
        "triggered": camera.number,
        "warned": [str(one.message) for one in caught],
        "status": status,
        "folders": [folder.name for folder in Path(root).glob("runs/*/*/*/*")],
    }


def _refuse_flock(number: int) -> None:
    """Have the kernel answer ``flock`` with this error, to this thread and those it starts, for good: seccomp(2)."""
    architecture, call = {"x86_64": (0xC000003E, 73), "aarch64": (0xC00000B7, 32)}[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | number
    program = b"".join(
        struct.pack("<HBBI", *step)
        for step in (
            (load, 0, 0, 4),
            (equal, 0, 3, architecture),
            (load, 0, 0, 0),
            (equal, 0, 1, call),
            (answer, 0, 0, refuse),
            (answer, 0, 0, allow),
        )
    )
    kept = ctypes.create_string_buffer(program)
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, use_filter = 38, 22, 2
    for arguments in ((no_new_privileges, 1, 0, 0, 0), (set_seccomp, use_filter, header, 0, 0)):
        if libc.prctl(*arguments) != 0:
            failed = ctypes.get_errno()
            raise OSError(failed, f"no filter here: {errno.errorcode[failed]}")
