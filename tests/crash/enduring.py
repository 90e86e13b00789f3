"""A process that does all that is done in a night, over and over, and counts what it holds after each time."""

from __future__ import annotations

import _sqlite3
import ctypes
import gc
import os
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import bluesky.preprocessors as bpp
import numpy as np
import psutil
from busy import KEY, SHAPE, put
from recorders import DatumCamera, StreamCamera, numbered
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.files import is_leftover
from gently_bluesky.segments import HOT, names_of, tag_of
from gently_bluesky.testing.frames import check_frame

__all__ = ["endure"]

WAYS = [
    {"format": "zarr"},
    {"format": "tiff", "assets": "stream"},
    {"format": "memory"},
    {"format": "zarr", "assets": "stream", "hot_bytes": 1 << 20},
]


def endure(channel: Channel, root: str, cycles: int, events: int, leak: str = "") -> list[dict[str, int]]:
    """Return what the process held after each cycle, in which it acquires two runs or three, and puts two results.

    It keeps one more descriptor each time, or one more kilobyte or document for each event, if it is to ``leak``.
    """
    from scenes import Camera, acquisition, run_engine

    tempfile.tempdir = str(Path(root).parent / "temporary")
    Path(tempfile.tempdir).mkdir()
    samples: list[dict[str, int]] = []
    leaked: list[Any] = []
    numbers, seen = count(), 0

    def note(name: str, doc: Any) -> None:
        nonlocal seen
        seen += name == "event"
        if name == "event" and leak in ("kilobyte", "document"):
            leaked.append(bytes(1024) if leak == "kilobyte" else doc)

    with Store(root) as store, run_engine() as RE:
        lasting = store.writer(min_free_bytes=0)
        lasting.subscribe(note)
        for cycle in range(cycles):
            with store.writer(**WAYS[cycle % len(WAYS)], min_free_bytes=0) as fresh:
                fresh.subscribe(note)
                for writer in (lasting, fresh):
                    night = f"{cycle}-{writer is fresh}"
                    token = RE.subscribe(writer)
                    (uid,) = RE(acquisition(Camera(night, SHAPE), events, lambda number: ()))
                    RE.unsubscribe(token)
                    _look(root, uid, night, events)
            if WAYS[cycle % len(WAYS)]["format"] == "memory":
                store.materialize(uid)
            if cycle % 2:
                night, kind = f"{cycle}-device", (DatumCamera, StreamCamera)[cycle % 4 // 2]
                recorder = store.recorder(min_free_bytes=0)
                camera = kind(night, SHAPE, recorder=recorder)
                plan = bpp.run_wrapper(numbered(camera, events), md={"night": night})
                token = RE.subscribe(lasting)
                RE(bpp.stage_wrapper(plan, [camera]))
                RE.unsubscribe(token)
                recorder.close()
            for _ in range(2):
                put(channel, store, "night", next(numbers), [uid])
            if leak == "descriptor":
                leaked.append(os.open(os.devnull, os.O_RDONLY))
            samples.append({"events": seen, **_held(store)})
    return samples


def _look(root: str, uid: str, night: str, events: int) -> None:
    """Come as a reader, look at the last event, and go."""
    with Store(root, mode="r") as store:
        array = store[uid][KEY]
        check_frame(np.asarray(array[events - 1]), run=night, key=KEY, event=events)


def _held(store: Store) -> dict[str, int]:
    gc.collect()
    process, tag = psutil.Process(), tag_of(store.uid)
    unfinished = [
        name
        for _, _, names in os.walk(store.root)
        for name in names
        if is_leftover(name) or name.endswith((".live", ".reserve", ".__lock", ".partial"))
    ]
    return {
        "threads": process.num_threads(),
        "descriptors": process.num_fds(),
        "segments": len([*names_of(tag), *names_of(tag, HOT)]),
        "files": len(unfinished) + len(os.listdir(tempfile.gettempdir())),  # noqa: PTH208 # a number is wanted
        "blocks": sys.getallocatedblocks(),
        "heap": _heap(),
        "rss": process.memory_info().rss,
    }


class _MallInfo(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _heap() -> int:
    """Bytes that were asked of the C library and not given back: large objects of Python's, and all of C++.

    But for what SQLite holds, which is pages of the index, up to 2 MiB a connection.
    """
    libc, sqlite = ctypes.CDLL(None), ctypes.CDLL(_sqlite3.__file__)
    libc.mallinfo2.restype = _MallInfo
    sqlite.sqlite3_memory_used.restype = ctypes.c_int64
    said = libc.mallinfo2()
    return said.uordblks + said.hblkhd - sqlite.sqlite3_memory_used()
