"""Jobs of children that meet files which would end or fill a process that believed them."""

from __future__ import annotations

import json
import re
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import orjson
import zarr
from foreign_runs import datum_run, stream_run, uri_of
from memory_left import clear
from stores import EVENTS, acquire, put
from zygote import Channel

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError
from gently_bluesky.testing.documents import HandMadeRun

HUGE = [2**10, 2**20, 2**20]
ROOM = 2**30


def meet_json(channel: Channel | None, folder: str, place: str) -> dict[str, Any]:
    """Put hostile JSON in the place of a file; return whether what is beside it is whole, and what was raised."""
    root = Path(folder) / "store"
    spoilt, beside = acquire(root, "spoilt", format="zarr"), acquire(root, "beside", format="tiff")
    put(root, beside.uid)
    with Store(root) as store:
        run = (root / store.record(spoilt.uid).path).parent
    path = {
        "a journal": run / "documents.jsonl",
        "a journal of results": next(root.rglob("derived-*.jsonl")),
        "the marker": root / "gently-store.json",
        "an array": run / "primary-view_a.ome.zarr" / "0" / "zarr.json",
        "a group": run / "primary-view_a.ome.zarr" / "zarr.json",
    }[place]
    path.write_bytes((Path(folder) / "content").read_bytes() + b"\n")
    (root / "index.sqlite").unlink()
    whole, raised = True, ""
    for mode in ("r", "a"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with Store(root, mode=mode) as store:
                    whole &= np.array_equal(store[beside.uid]["view_a"], beside.arrays["view_a"])
                    raised = _raised(lambda store=store: store[spoilt.uid]["view_a"].compute())
                    _raised(lambda store=store: [*map(repr, store.query()), store.stats()])
            except GentlyError as error:
                if place != "the marker":
                    raise
                raised = type(error).__name__
            assert all("left alone" in str(warning.message) for warning in caught)
    return {"beside": whole, "error": raised}


def _raised(call: Callable[[], object]) -> str:
    try:
        call()
    except GentlyError as error:
        return type(error).__name__
    return ""


def meet_claim(channel: Channel | None, folder: str, claim: str) -> list[str]:
    """Make a store in which something is claimed to be huge; return what is raised by those who read it."""
    root = Path(folder) / "store"
    uid, key = CLAIMS[claim](root)
    (root / "index.sqlite").unlink()
    _limit_memory()
    names: list[str] = []
    with Store(root, mode="r") as store:
        for read in (
            lambda: store[uid][key].compute(),
            lambda: store[uid][key][0].compute(),
            lambda: store[uid][key][-1, ..., 0].compute(),
            lambda: store[uid][key][..., :7, ::2].compute(),
            *([lambda: store[uid][key].max()] if claim == "memory shape" else []),  # its blocks are many
        ):
            try:
                names.append(f"an array of {read().size}")
            except (
                IndexError,
                ValueError,
            ) as error:  # of the caller: there is no such event, no maximum of none
                if isinstance(error, GentlyError):
                    names.append(type(error).__name__)
                continue
            except GentlyError as error:
                names.append(type(error).__name__)
    if claim == "memory shape":
        clear(root)
    return names


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text()
    has = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (has + ROOM, has + ROOM))


def _rewrite(root: Path, uid: str, change: Callable[[str, dict[str, Any]], object]) -> Path:
    """Change documents of a journal; return the folder of its run."""
    with Store(root, mode="r") as store:
        path = root / store.record(uid).path
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        line.pop("crc32c")
        change(line["name"], line["doc"])
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path.parent


def _of_frame(name: str, doc: dict[str, Any]) -> None:
    if name == "resource":
        doc["resource_kwargs"]["frame_shape"] = HUGE


def _last_number(name: str, doc: dict[str, Any], number: int = 2**40) -> None:
    if name == "datum" and doc["datum_kwargs"]["point_number"] == EVENTS - 1:
        doc["datum_kwargs"]["point_number"] = number


def _zarr(root: Path, of_frame: bool, change: Callable[[dict[str, Any]], object]) -> tuple[str, str]:
    uid = acquire(root, "r", format="zarr").uid
    folder = _rewrite(root, uid, _of_frame if of_frame else _last_number)
    for file in folder.rglob("0/zarr.json"):
        metadata = json.loads(file.read_bytes())
        change(metadata)
        file.write_text(json.dumps(metadata))
    return uid, "view_a"


def _huge_frames(metadata: dict[str, Any]) -> None:
    metadata["shape"][1:] = HUGE


def _huge_chunks(metadata: dict[str, Any]) -> None:
    metadata["shape"][1:] = HUGE
    metadata["chunk_grid"]["configuration"]["chunk_shape"][1:] = HUGE
    metadata["codecs"][0]["configuration"]["chunk_shape"][1:] = HUGE


def _many_events(metadata: dict[str, Any]) -> None:
    metadata["shape"][0] = 2**40 + 1


def _tiff(root: Path, change: Callable[[str, dict[str, Any]], object], **how: Any) -> tuple[str, str]:
    uid = acquire(root, "r", format="tiff", **how).uid
    _rewrite(root, uid, change)
    return uid, "view_a"


def _memory(root: Path) -> tuple[str, str]:
    uid = acquire(root, "r", format="memory").uid
    folder = _rewrite(root, uid, _of_frame)
    for file in folder.glob("*.memory"):
        said = json.loads(file.read_bytes())
        file.write_text(json.dumps({**said, "frame_shape": HUGE}))
    return uid, "view_a"


def _last_range(name: str, doc: dict[str, Any]) -> None:
    if name == "stream_datum" and doc["indices"]["start"] == EVENTS - 1:
        doc["indices"]["stop"] = doc["seq_nums"]["stop"] = 2**62


def _descriptor(root: Path) -> tuple[str, str]:
    run = HandMadeRun()
    shape = [2**62, 2**62, 2**62]
    descriptor = run.descriptor(image={"shape": shape, "external": "STREAM:", "dtype_numpy": "<u2"})
    with Store(root) as store, store.writer(min_free_bytes=0) as writer:
        for named in (("start", run.start), ("descriptor", descriptor), ("stop", run.stop())):
            writer(*named)
    return run.uid, "image"


def _sent(root: Path, documents: list[tuple[str, Any]]) -> tuple[str, str]:
    with Store(root) as store, store.writer(min_free_bytes=0) as writer:
        for name, doc in documents:
            writer(name, doc)
    return documents[0][1]["uid"], "image"


def _hdf5(root: Path) -> tuple[str, str]:
    Store(root).close()
    with h5py.File(root / "x.h5", "w") as file:
        file["few"] = np.zeros(3, "u2")
        layout = h5py.VirtualLayout((3, 2**30, 2**30), "u2")
        layout[:, 0, 0] = h5py.VirtualSource(".", "few", (3,))
        file.create_group("entry/data").create_virtual_dataset("data", layout)
    points = [{"point_number": number} for number in range(3)]
    return _sent(root, datum_run("AD_HDF5", "", "x.h5", {}, points, (1, 2**30, 2**30)))


def _foreign_zarr(root: Path) -> tuple[str, str]:
    Store(root).close()
    array = zarr.create_array(root / "x.zarr", shape=(3, 2**31, 2**31), chunks=(1, 64, 64), dtype="u2")
    array[0, 0, 0] = 1
    return _sent(root, stream_run("application/x-zarr", uri_of(root / "x.zarr"), {}, shape=(2**31, 2**31)))


CLAIMS: dict[str, Callable[[Path], tuple[str, str]]] = {
    "zarr shape": lambda root: _zarr(root, True, _huge_frames),
    "zarr chunks": lambda root: _zarr(root, True, _huge_chunks),
    "zarr events": lambda root: _zarr(root, False, _many_events),
    "tiff shape": lambda root: _tiff(root, _of_frame),
    "tiff events": lambda root: _tiff(root, _last_number),
    "memory shape": _memory,
    "point_number": lambda root: _tiff(root, lambda name, doc: _last_number(name, doc, 2**62)),
    "stream_datum": lambda root: _tiff(root, _last_range, assets="stream"),
    "descriptor": _descriptor,
    "hdf5 virtual": _hdf5,
    "foreign zarr": _foreign_zarr,
}
