"""Jobs of children whose runs leave the root, or fail to be synced where they were: see `test_leaving`."""

from __future__ import annotations

import errno
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shim
from overflowing import keep_disk, vanish
from shim import Act, Kind
from zygote import Channel, obey_permissions

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import GatedBackend
from gently_bluesky.testing.frames import encoded_frame

__all__ = ["be_stopped", "end_unsynced", "lose_disk_between_runs", "lose_root_with_points_to_come"]

SHAPE = (8, 9)


class _Acquired:
    """A run of one frame in the stream ``baseline`` and some in ``primary``; what it raised and what was told."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store = store
        self.raised: list[Exception] = []
        self.failures: list[Exception] = []
        self._announced = threading.Semaphore(0)
        self._writer = store.writer(on_failure=self.failures.append, **{"min_free_bytes": 0, **settings})
        self._writer.subscribe(lambda name, _: self._announced.release() if name == "event" else None)

    def begin(self, **metadata: Any) -> None:
        self.run = HandMadeRun(**metadata)
        self.send("start", self.run.start)
        self._descriptors = {
            name: self.run.descriptor(name, **{name: {}}) for name in ("baseline", "primary")
        }
        for descriptor in self._descriptors.values():
            self.send("descriptor", descriptor)
        self.event("baseline")

    def event(self, stream: str = "primary") -> None:
        """Take an event, and wait until it is announced."""
        number = self.run.num_events[stream]
        frame = encoded_frame(SHAPE, "u2", key=stream, event=number)
        if self.send("event", self.run.event(self._descriptors[stream], **{stream: frame})):
            assert self._announced.acquire(timeout=30)

    def end(self) -> None:
        self.send("stop", self.run.stop())

    def send(self, name: str, doc: Any) -> bool:
        try:
            self._writer(name, doc)
        except GentlyError as error:
            self.raised.append(error)
            return False
        return True

    @property
    def folder(self) -> Path:
        (folder,) = self.store.root.glob(f"runs/*/*/*/*{self.run.uid[:8]}")
        return folder

    def report(self) -> dict[str, Any]:
        return {
            "raised": [
                [type(error).__name__, getattr(error, "errno", None), str(error)] for error in self.raised
            ],
            "told": [type(error).__name__ for error in self.failures],
            "overflowed": self._writer.stats()["overflowed"],
        }


def end_unsynced(
    channel: Channel, root: str, overflow: str, format: str, failing: str, leaves: bool
) -> dict[str, Any]:
    """Store a run that is synced at its end, where these syncs in the root fail; ``leaves``: it went on elsewhere."""
    with warnings.catch_warnings(), Store(root, overflow=overflow) as store:
        warnings.simplefilter("ignore")
        acquired = _Acquired(store, format=format, sync="run")
        acquired.begin()
        acquired.event()
        if leaves:
            (asset,) = acquired.folder.glob("primary-*")
            kinds = Kind.WRITE | Kind.CREATE | Kind.MKDIR
            shim.arm(asset, 1, Act.FAIL, kinds, until=shim.FOREVER, error=errno.ENOSPC)
            acquired.event()
        (place,) = acquired.folder.glob(failing)
        shim.arm(place, 1, Act.FAIL, Kind.SYNC, until=1, error=errno.EIO)
        acquired.end()
        shim.disarm()
        run = store[acquired.run.uid]
        return {**acquired.report(), "status": run.status, "events": len(run["primary"].events)}


def lose_disk_between_runs(channel: Channel, root: str, overflow: str, format: str) -> dict[str, Any]:
    """Store a run and a result; then the root's disk is not mounted any more, and another run and result come."""
    keep_disk(Path(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = Store(root, overflow=overflow or None)
        acquired = _Acquired(store, format=format)
        acquired.begin()
        acquired.end()
        store.put(1.0, data_type="number")
        vanish(Path(root))
        acquired.begin()
        acquired.end()
        put = _raised_by(lambda: store.put(2.0, data_type="number"))
        report = {
            **acquired.report(),
            "put": put,
            "bare": [str(path) for path in Path(root).parent.rglob("*")],
        }
        _raised_by(store.close)  # the index is gone too
    return report


def lose_root_with_points_to_come(channel: Channel, root: str, overflow: str, format: str) -> dict[str, Any]:
    """Begin a run that says how many points it will have, in a root that can then not even be looked at."""
    obey_permissions()
    place = Path(root).parent
    index = f"sqlite:///{place.parent / 'elsewhere.sqlite'}"
    with warnings.catch_warnings(), Store(root, overflow=overflow, index=index) as store:
        warnings.simplefilter("ignore")
        acquired = _Acquired(store, format=format, min_free_bytes=1)
        acquired.begin(num_points=3)
        try:
            place.chmod(0)
            for _ in range(3):
                acquired.event()
            acquired.end()
        finally:
            place.chmod(0o755)
        return {**acquired.report(), "status": store[acquired.run.uid].status}


def be_stopped(channel: Channel, root: str) -> list[str]:
    """Wait for a disk that is about to answer; say so, and be stopped meanwhile."""
    gated = GatedBackend()
    with Store(root) as store:
        acquired = _Acquired(store, stall_timeout_s=2.0)
        acquired._writer._desk.backend = gated
        run = HandMadeRun()
        descriptor = run.descriptor(camera={})
        documents = [
            ("start", run.start),
            ("descriptor", descriptor),
            ("event", run.event(descriptor, camera=encoded_frame(SHAPE, "u2"))),
        ]
        for name, doc in documents:
            acquired.send(name, doc)
        assert gated.waiting.wait(30)
        threading.Thread(target=_open_when_told, args=(channel, acquired, gated), daemon=True).start()
        acquired.send("stop", run.stop())
        return [str(error) for error in acquired.raised]


def _open_when_told(channel: Channel, acquired: _Acquired, gated: GatedBackend) -> None:
    pipeline = acquired._writer._desk.pipeline
    while pipeline._hurry < 2:  # the stop is in it, and somebody waits for that
        threading.Event().wait(0.001)
    channel.tell({"waiting": True})
    channel.hear()
    gated.gate.set()


def _raised_by(call: Callable[[], object]) -> list[Any] | None:
    try:
        call()
    except (GentlyError, OSError) as error:
        return [type(error).__name__, getattr(error, "errno", None), str(error)]
    return None
