"""Runs whose arrays other writers keep: documents as event-model composes them, and files as writers make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from event_model import compose_run

from gently_bluesky import Store
from gently_bluesky.testing.frames import encoded_frame

SHAPE = (6, 8)
Named = tuple[str, dict[str, Any]]


def frame(number: int, shape: tuple[int, ...] = SHAPE, dtype: str = "u2") -> np.ndarray:
    return encoded_frame(shape, dtype, run="foreign", event=number)


def frames(count: int) -> np.ndarray:
    return np.stack([frame(number) for number in range(count)])


def write_tiffs(folder: Path, count: int, name: str = "img_{:06d}.tiff") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        tifffile.imwrite(folder / name.format(number), frame(number))


def write_hdf5(path: Path, count: int, dataset: str = "/entry/data/data", **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_dataset(dataset, data=frames(count), **{"chunks": (1, *SHAPE), **how})


def datum_run(
    spec: str,
    root: Path | str,
    resource_path: str,
    resource_kwargs: Mapping[str, Any],
    datums: Sequence[Mapping[str, Any]],
    shape: Sequence[int] = (1, *SHAPE),
) -> list[Named]:
    """Return a run with one event for each of these ``datum_kwargs``."""
    run = compose_run()
    resource = run.compose_resource(
        spec=spec,
        root=str(root),
        resource_path=resource_path,
        resource_kwargs=dict(resource_kwargs),
        path_semantics="posix",
    )
    key = {"source": "ioc", "dtype": "array", "shape": list(shape), "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    documents: list[Named] = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("resource", resource.resource_doc),
    ]
    for kwargs in datums:
        datum = resource.compose_datum(datum_kwargs=dict(kwargs))
        event = stream.compose_event(
            data={"image": datum["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False}
        )
        documents += [("datum", datum), ("event", event)]
    return [*documents, ("stop", run.compose_stop())]


def stream_run(
    mimetype: str,
    uri: str,
    parameters: Mapping[str, Any],
    ranges: Sequence[tuple[int, int]] = ((0, 1), (1, 3)),
    shape: Sequence[int] = (1, *SHAPE),
) -> list[Named]:
    """Return a run with a stream_datum for each of these ranges."""
    run = compose_run()
    key = {
        "source": "ioc",
        "dtype": "array",
        "shape": list(shape),
        "dtype_numpy": "<u2",
        "external": "STREAM:",
    }
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    resource, compose_datum = run.compose_stream_resource(
        mimetype=mimetype, uri=uri, data_key="image", parameters=dict(parameters)
    )
    documents: list[Named] = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", resource),
    ]
    for start, stop in ranges:
        datum = compose_datum(
            indices={"start": start, "stop": stop},
            seq_nums={"start": start + 1, "stop": stop + 1},
            descriptor=stream.descriptor_doc,
        )
        documents.append(("stream_datum", datum))
    return [*documents, ("stop", run.compose_stop())]


def send(store: Store, documents: Sequence[Named]) -> str:
    """Put a run into a store; return its uid."""
    with store.writer() as writer:
        for name, doc in documents:
            writer(name, doc)
    return documents[0][1]["uid"]


def uri_of(path: Path) -> str:
    return f"file://localhost{path.as_posix()}"


def install(folder: Path, name: str, entries: Mapping[str, str], code: str) -> None:
    """Put a package on the path as pip would: a module, and its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{spec} = {name}:{attribute}" for spec, attribute in entries.items())
    (info / "entry_points.txt").write_text(f"[databroker.handlers]\n{lines}\n")
