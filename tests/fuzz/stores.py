"""Small stores with something of every kind in them, and what each of their arrays must show."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from event_model import compose_run
from foreign_runs import datum_run, stream_run, uri_of
from numpy.typing import NDArray
from PIL import Image

from gently_bluesky import LazyArray, Store
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

EVENTS = 3
SHAPE = (2, 12, 16)
FOREIGN = (24, 16)
TABLE = {"n": [1, 2, 3], "mean": 0.5}
NPY_POINTS = [{"index": number} for number in range(EVENTS)]
JPEG = "multipart/related;type=image/jpeg"


class Kept(NamedTuple):
    """What a store was given under a uid: arrays by data key, or a value."""

    uid: str
    arrays: dict[str, Any]
    value: Any = None
    is_ours: bool = True
    ended: bool = True


def frame(run: str, key: str, event: int, shape: tuple[int, ...] = SHAPE, dtype: str = "<u2") -> NDArray[Any]:
    return encoded_frame(shape, dtype, run=run, key=key, event=event)


def acquire(
    root: Path, name: str, *, shape: tuple[int, ...] = SHAPE, copy_to: Path | None = None, **how: Any
) -> Kept:
    """Store a run of two arrays and a number in each event; or copy the store while the run is open."""
    with Store(root) as store:
        run = HandMadeRun(fuzz=name, session="fuzz")
        keys = {"view_a": {"dims": ["z", "y", "x"][-len(shape) :]}, "view_b": {}}
        descriptor = run.descriptor(**keys, n={"dtype": "integer"})
        with store.writer(min_free_bytes=0, **how) as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            for number in range(EVENTS):
                data = {key: frame(name, key, number, shape) for key in keys}
                writer("event", run.event(descriptor, **data, n=number))
            if copy_to is None:
                writer("stop", run.stop())
            else:
                store[run.uid].wait("primary", "view_a", EVENTS)
                shutil.copytree(root, copy_to)
    arrays = {key: np.stack([frame(name, key, number, shape) for number in range(EVENTS)]) for key in keys}
    return Kept(run.uid, {**arrays, "n": np.arange(EVENTS)}, ended=copy_to is None)


def put(root: Path, parent: str) -> list[Kept]:
    with Store(root) as store:
        table = store.put(TABLE, data_type="table", parents=[parent], operation="count")
        mip = frame("mip", "mip", 0, SHAPE[1:])
        image = store.put(mip, data_type="projection", parents=[parent], operation="max_z")
        return [Kept(table.uid, {}, TABLE), Kept(image.uid, {}, mip)]


def record(root: Path) -> Kept:
    """Have a device write by itself, and a run announce what it wrote."""
    with Store(root) as store:
        recording = store.recorder(min_free_bytes=0).record("camera")
        key = {
            "source": "x",
            "dtype": "array",
            "shape": list(SHAPE),
            "dtype_numpy": "<u2",
            "dims": ["z", "y", "x"],
        }
        run = compose_run(metadata={"fuzz": "device"})
        declared = {**key, "external": "FILESTORE:"}
        stream = run.compose_descriptor(name="primary", data_keys={"view_a": declared})
        documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
        for number in range(EVENTS):
            about = {"data_keys": {"view_a": key}}
            written = recording.write({"view_a": frame("device", "view_a", number)}, about, 1.0)
            written.stored.result(10)
            asset, index = written.places["view_a"]
            if number == 0:
                documents.append(asset.introduction())
            name, datum = asset.datum(index)
            event = stream.compose_event(
                data={"view_a": datum["datum_id"]}, timestamps={"view_a": 1.0}, filled={"view_a": False}
            )
            documents += [(name, datum), ("event", event)]
        recording.close()
        _send(store, [*documents, ("stop", run.compose_stop())])
        frames = [frame("device", "view_a", number) for number in range(EVENTS)]
        return Kept(run.start_doc["uid"], {"view_a": np.stack(frames)})


def _send(store: Store, documents: list[tuple[str, Any]], **how: Any) -> None:
    with store.writer(min_free_bytes=0, **how) as writer:
        for name, doc in documents:
            writer(name, doc)


def foreign(root: Path) -> list[Kept]:
    """Store runs of others' files: HDF5 and JPEG that are adopted, npy files that stay in ``incoming``."""
    Store(root).close()
    incoming = root / "incoming" / "ioc"
    incoming.mkdir(parents=True)
    frames = np.stack([frame("foreign", "image", number, FOREIGN) for number in range(EVENTS)])
    (incoming / "jpegs").mkdir()
    with h5py.File(incoming / "scan.h5", "w") as file:
        file.create_dataset("/entry/data/data", data=frames, chunks=(1, *FOREIGN))
    for number, pixels in enumerate(frames):
        np.save(incoming / f"x_{number}.npy", pixels)
        Image.fromarray((pixels % 251).astype("u1")).save(incoming / "jpegs" / f"img_{number:06d}.jpg")
    decoded = np.stack([np.asarray(Image.open(file)) for file in sorted(incoming.rglob("*.jpg"))])
    points = [{"point_number": number} for number in range(EVENTS)]
    jpegs = {"template": "img_{:06d}.jpg"}, ((0, 1), (1, 2), (2, 3)), (1, *FOREIGN)
    kept: list[Kept] = []
    with Store(root) as store:
        for documents, adopt, pixels in (
            (datum_run("AD_HDF5", incoming, "scan.h5", {}, points, (1, *FOREIGN)), "move", frames[:, None]),
            (datum_run("NPY_SEQ", "", "incoming/ioc/x", {}, NPY_POINTS, FOREIGN), "reference", frames),
            (stream_run(JPEG, f"{uri_of(incoming / 'jpegs')}/", *jpegs), "move", decoded[:, None]),
        ):
            _send(store, documents, adopt=adopt)
            kept.append(Kept(documents[0][1]["uid"], {"image": pixels}, is_ours=False))
    return kept


def left_open(root: Path, **how: Any) -> Kept:
    """Store a run that has no end, its process gone."""
    live = root.with_name(f"{root.name}-live")
    kept = acquire(live, "open", copy_to=root, **how)
    shutil.rmtree(live)
    return kept


def derived(root: Path) -> list[Kept]:
    """Store a run, and what was made of it."""
    run = acquire(root, "parent", format="zarr", shape=SHAPE[1:])
    return [run, *put(root, run.uid)]


def verified(root: Path) -> list[Kept]:
    """Store two runs, one of them dead and torn; have what is torn put away, and all verified."""
    dead = left_open(root, format="zarr")
    with next(root.glob("runs/**/0/c/1/0/0/0")).open("r+b") as file:
        file.truncate(70)
    with Store(root) as store:
        assert store.verify().findings
    assert list(root.glob("quarantine/**/0"))
    whole = acquire(root, "verified", format="tiff")
    with Store(root) as store:
        assert store.verify(whole.uid).ok
    return [dead, whole]


STORES: dict[str, Callable[[Path], list[Kept]]] = {
    "zarr": lambda root: [acquire(root, "zarr", format="zarr", levels=2)],
    "zarr stream": lambda root: [
        acquire(root, "zs", format="zarr", assets="stream", shape=SHAPE[1:], chunks=(6, 16))
    ],
    "tiff": lambda root: [acquire(root, "tiff", format="tiff")],
    "tiff stream": lambda root: [acquire(root, "ts", format="tiff", assets="stream", shape=SHAPE[1:])],
    "device": lambda root: [record(root)],
    "derived": derived,
    "foreign": foreign,
    "open zarr": lambda root: [left_open(root, format="zarr")],
    "open tiff": lambda root: [left_open(root, format="tiff", assets="stream")],
    "verified and quarantined": verified,
}
"""Stores of one kind of thing each, by name."""


# -- reading all of it -----------------------------------------------------------------------------------------


class Read(NamedTuple):
    """One thing that was read, or tried to be."""

    what: str
    of: Kept
    error: Exception | None
    got: Any
    want: Any


def ways(store: Store, kept: Kept) -> Iterator[tuple[str, Callable[[], Any], Any]]:
    """Yield the ways of reading what a store was given, and what each must show."""
    if not kept.arrays:
        is_array = isinstance(kept.value, np.ndarray)
        yield "get", lambda: np.asarray(store.get(kept.uid)) if is_array else store.get(kept.uid), kept.value
        return
    for key, pixels in kept.arrays.items():
        yield f"{key}", lambda key=key: store[kept.uid]["primary"][key].compute(), pixels
        if pixels.ndim > 1:
            yield f"part of {key}", lambda key=key: store[kept.uid][key][..., 3:9].compute(), pixels[..., 3:9]
            yield f"datum of {key}", lambda key=key: _first_datum(store, store[kept.uid][key]), pixels[:1]
    yield "documents", lambda: [name for name, _ in store[kept.uid].documents()], None
    yield "events", lambda: len(store[kept.uid]["primary"]), None


def _first_datum(store: Store, array: LazyArray) -> Any:
    return np.array([store.array(array[0].uid).compute()]) if len(array) else array.compute()


def read_all(root: Path, mode: str, kept: list[Kept]) -> Iterator[Read]:
    """Open a store and read everything that was put into it."""
    with Store(root, mode=mode) as store:
        for one in kept:
            for what, read, want in ways(store, one):
                try:
                    got, error = read(), None
                except Exception as raised:
                    got, error = None, raised
                yield Read(what, one, error, got, want)
        for what, ask in (("query", lambda: _asked(store)), ("stats", store.stats)):
            try:
                ask()
            except Exception as raised:
                yield Read(what, kept[0], raised, None, None)


def _asked(store: Store) -> None:
    for kind in ("run", "asset", "datum"):
        for found in store.query(kind=kind):
            store.lineage(found.uid)
            store.children(found.uid)
