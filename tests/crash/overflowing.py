"""Jobs of children whose store has a second place: runs that go on there, and come home."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import bluesky.preprocessors as bpp
import faults
import numpy as np
import shim
from zygote import Channel, obey_permissions, remount_read_only

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame

BIND, RECURSIVE, DETACH = 4096, 16384, 2


def keep_disk(root: Path) -> None:
    """Mount a disk in a second place too, so that it can vanish and come back."""
    kept = root.parent.parent / "kept"
    kept.mkdir(exist_ok=True)
    _mount(root.parent, kept)


def vanish(root: Path) -> None:
    """Take the disk away, as if its cable was pulled."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.umount2(os.fsencode(root.parent), DETACH) == 0, os.strerror(ctypes.get_errno())


def come_back(root: Path) -> None:
    """Undo whatever was done to the disk."""
    (root.parent / "filler").unlink(missing_ok=True)
    kept = root.parent.parent / "kept"
    if kept.exists() and not os.path.ismount(root.parent):
        _mount(kept, root.parent)
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o755)


def _mount(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.mount(os.fsencode(source), os.fsencode(target), None, BIND | RECURSIVE, None)
    assert made == 0, os.strerror(ctypes.get_errno())


FAULTS: dict[str, Callable[[Path], None]] = {
    "fill": faults.fill,
    "fill_and_rob": faults.fill_and_rob,
    "forbid": faults.forbid,
    "forbid_runs": faults.forbid_runs,
    "freeze": faults.freeze,
    "vanish": vanish,
    "nothing": lambda root: None,
}


def acquire_into_overflow(
    channel: Channel,
    root: str,
    overflow: str,
    format: str,
    night: str,
    events: int,
    fault: str,
    at: int,
    assets: str = "datum",
    pause_before: int = 0,
    min_free_bytes: int = 0,
    going_on: bool = False,
    index: str | None = None,
    num_points: int | None = None,
) -> dict[str, Any]:
    """Acquire a run and tell what is announced; the root meets its fault before event ``at``; 0 is before the start.

    ``going_on``: the frames before it are still in the buffer. ``pause_before`` an event: say so and wait.
    """
    from scenes import Camera, Watched, acquisition, run_engine

    if fault.startswith("forbid"):
        obey_permissions()
    if fault == "vanish":
        keep_disk(Path(root))
    failures: list[str] = []
    told = threading.Event()

    def on_failure(error: Exception) -> None:
        failures.append(type(error).__name__)
        told.set()

    def before(number: int) -> Iterator[Any]:
        if not going_on or number == pause_before:
            yield from writer.stored()
        if number == at:
            FAULTS[fault](Path(root))
        if number == pause_before:
            channel.tell({"waiting": number})
            channel.hear()
        yield from ()

    def told_to(name: str, doc: Any) -> None:
        channel.tell({"name": name, "doc": doc})
        if name == "event":
            announced.append([doc["uid"], doc["data"]["number"]])

    announced: list[list[Any]] = []
    report: dict[str, Any] = {"announced": announced, "failures": failures, "error": None, "uid": None}
    with (
        warnings.catch_warnings(record=True) as warned,
        Store(root, overflow=overflow or None, index=index) as store,
        run_engine() as RE,
    ):
        warnings.simplefilter("always")
        writer = store.writer(
            format=format,
            assets=assets,
            min_free_bytes=min_free_bytes,
            max_pending_bytes=1 << 22,
            on_failure=on_failure,
        )
        watched = Watched(writer)
        RE.subscribe(watched)
        writer.subscribe(told_to)
        if at == 0:
            FAULTS[fault](Path(root))
        plan = acquisition(Camera(night), events, before)
        if num_points is not None:
            plan = bpp.inject_md_wrapper(plan, {"num_points": num_points})
        try:
            (report["uid"],) = RE(plan)
        except Exception as error:
            report["error"] = [type(error).__name__, str(error), *getattr(error, "__notes__", ())]
        report["raised_at"] = [name for name, _ in watched.raised]
        report["overflowed"] = writer.stats()["overflowed"]
        if failures:
            assert told.wait(30)
        if report["error"] is None and fault != "vanish":
            report["seen"] = _looked_at(store)
    report["warned"] = [str(one.message) for one in warned if one.category is RuntimeWarning]
    return report


def look(
    channel: Channel, root: str, overflow: str = "", mode: str = "r", heal: bool = False, held: bool = False
) -> dict[str, Any]:
    """Look at every run of a store as somebody else would: each document and each pixel.

    ``heal``: the disk is whole again before. ``held``: arrays that a reader opened before stay readable.
    """
    if heal:
        come_back(Path(root))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if held:
            with Store(root, mode="r", overflow=overflow) as reader:
                opened = {record.metadata["night"]: reader[record.uid]["view_a"] for record in reader.query()}
                Store(root, overflow=overflow).close()
                for night, array in opened.items():
                    for place in range(len(array)):
                        check_frame(array[place].compute(), run=night, key="view_a", event=place + 1)
            return {"held": {night: len(array) for night, array in opened.items()}}
        with Store(root, mode=mode, overflow=overflow or None) as store:
            found = _looked_at(store)
    return {"runs": found, "warned": [str(one.message) for one in warned]}


def _looked_at(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in list(store.query()):
        run = store[record.uid]
        record = run.record  # as of now
        documents = list(run.documents())
        filled = [doc for name, doc in run.documents(fill=True) if name == "event"]
        seen: dict[str, Any] = {
            "uid": run.uid,
            "status": run.status,
            "counts": [record.received, record.stored, record.lost],
            "stop": run.stop,
            "names": [name for name, _ in documents],
            "uids": sorted(doc.get("uid") or doc["datum_id"] for _, doc in documents),
            "events": [],
            "frames": 0,
        }
        if "primary" in run.streams:
            seen["frames"] = len(array := run["primary"]["view_a"])
            seen["rows"] = len(run.table())
            assert len(run["primary"].events) == len(array) == len(filled)
            for place, event in enumerate(run["primary"].events):
                number = event["data"]["number"]
                expected = {"run": run.start["night"], "key": "view_a", "event": number}
                check_frame(array[place].compute(), **expected)
                check_frame(np.asarray(filled[place]["data"]["view_a"]), **expected)
                if (named := event["data"].get("view_a")) is not None:
                    check_frame(store.array(named).compute(), **expected)
                seen["events"].append([event["uid"], number])
            if len(array) > 1:
                np.testing.assert_array_equal(array[::-1].compute()[::-1], array.compute())
        found[run.start["night"]] = seen
    return found


def come_home(
    channel: Channel, root: str, overflow: str, die_at_call: int = 0, log: str = "", refused: str = ""
) -> int:
    """Open a store whose root is whole again, and die at a call that changes a file; return how many there are.

    ``log``: note each call. ``refused``: a folder that takes no byte.
    """
    if refused:
        shim.arm(refused, 1, shim.Act.FAIL, shim.Kind.WRITE, until=shim.FOREVER, error=errno.ENOSPC)
    else:
        shim.watch(os.path.commonpath([root, overflow]), die_at_call, log=log)
    with warnings.catch_warnings(), suppress(KeyboardInterrupt):
        warnings.simplefilter("ignore")
        Store(root, overflow=overflow).close()
    return shim.counted()


def open_among_others(channel: Channel, root: str, overflow: str) -> dict[str, Any]:
    """Open a store with one run, and read its array."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with Store(root, overflow=overflow) as store:
            run = store[-1]
            array = run["view_a"]
            for place in range(len(array)):
                check_frame(array[place].compute(), run=run.start["night"], key="view_a", event=place + 1)
    return {"frames": len(array), "warned": [str(one.message) for one in warned]}


def look_beside_frozen(channel: Channel, root: str, overflow: str) -> dict[str, Any]:
    """Look at a store whose second place is mounted read-only, with something in it that is to be removed."""
    come_back(Path(root))
    trash = Path(overflow, ".came-home", "run")
    trash.mkdir(parents=True)
    (trash / "pixels").touch()
    remount_read_only(Path(overflow).parent)
    return look(channel, root, overflow, mode="a")


def leave_room(channel: Channel, root: str, overflow: str, but_for: str) -> None:
    """Leave just as much room on a full disk as a run needs that waits, if nothing is counted that need not be.

    ``but_for``: half a copy that is in the way, or an array that was brought already.
    """
    (there,) = Path(overflow).glob("runs/*/*/*/*")
    (array,) = (path for path in there.iterdir() if path.is_dir())
    here = Path(root) / there.relative_to(overflow)
    nbytes = sum(path.stat().st_size + 4096 for path in there.rglob("*") if path.is_file())
    filler = Path(root).parent / "filler"
    os.truncate(filler, filler.stat().st_size - (4 << 20))
    if but_for == "half":
        (here / f".{array.name}.coming-home").write_bytes(bytes(1 << 20))
        wanted = nbytes - (1 << 19)
    else:
        shutil.copytree(array, here / array.name)
        wanted = nbytes // 2
    disk = shutil.disk_usage(root)
    with filler.open("ab") as file:
        file.write(bytes(disk.free - disk.total // 16 - wanted))
