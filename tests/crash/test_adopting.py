"""A process that dies while it moves files into a run's folder loses none; a disk that refuses fails no run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run
from foreign_runs import SHAPE, frames, write_hdf5, write_tiffs
from shim import one_of_each_stretch
from zygote import Child, Zygote

from gently_bluesky import Store

FILES = {
    "image": ("AD_HDF5", "scan.h5", {}),
    "left": ("AD_TIFF", "cams/left", {"template": "%s%s_%6.6d.tiff", "filename": "img"}),
    "right": ("NPY_SEQ", "cams/right/abc", {}),
}


def write_files(incoming: Path) -> None:
    write_hdf5(incoming / "scan.h5", 3)
    write_tiffs(incoming / "cams" / "left", 3)
    (incoming / "cams" / "right").mkdir()
    for number in range(3):
        np.save(incoming / "cams" / "right" / f"abc_{number}.npy", frames(3)[number][None])


def recorded_run(place: Path) -> str:
    """Write a run of three assets down; return its uid."""
    run = compose_run()
    keys = {
        key: {"source": "ioc", "dtype": "array", "shape": [1, *SHAPE], "external": "FILESTORE:"}
        for key in FILES
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    documents: list[Any] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    resources = {}
    for key, (spec, path, kwargs) in FILES.items():
        resources[key] = run.compose_resource(
            spec=spec, root="", resource_path=f"incoming/{path}", resource_kwargs=kwargs
        )
        documents.append(("resource", resources[key].resource_doc))
    for number in range(3):
        datums = {
            key: resource.compose_datum(datum_kwargs={"point_number": number})
            for key, resource in resources.items()
        }
        documents += [("datum", datum) for datum in datums.values()]
        data = {key: datum["datum_id"] for key, datum in datums.items()}
        event = stream.compose_event(
            data=data, timestamps=dict.fromkeys(data, 1.0), filled=dict.fromkeys(data, False)
        )
        documents.append(("event", event))
    documents.append(("stop", run.compose_stop()))
    place.write_text(json.dumps(documents))
    return str(run.start_doc["uid"])


def moved(root: Path) -> int:
    """Return how many of the three have been moved, and check that each is in one place, whole."""
    incoming, names = root / "incoming", ("scan.h5", "cams/left", "cams/right")
    folders = [incoming, *root.glob("runs/*/*/*/*/incoming")]
    assert [sum((folder / name).exists() for folder in folders) for name in names] == [1, 1, 1]
    return sum(not (incoming / name).exists() for name in names)


def assert_all_opens(root: Path, uid: str) -> None:
    with Store(root, mode="r") as reader:
        before = {key: np.asarray(reader[uid][key]) for key in FILES}
    with Store(root) as store:
        assert store[uid].status in {"complete", "incomplete"}
        for key in FILES:
            assert np.array_equal(store[uid][key][:, 0], frames(3)), key
            assert np.array_equal(before[key][:, 0], frames(3)), key
        left = [path.name for path in root.glob("runs/*/*/*/*/.*")]
        assert set(left) <= {".incoming-root"}


def dies_at_each_of(zygote: Zygote, tmp_path: Path, chosen: Callable[[int], Iterable[int]]) -> set[int]:
    """Die at each call that is chosen of so many; return how many files had been moved then."""
    documents = tmp_path / "documents.json"
    uid = recorded_run(documents)
    whole = killed(zygote, tmp_path / "whole", documents, 1 << 30).result()
    assert whole["warned"] == []
    assert moved(tmp_path / "whole") == 3
    seen: set[int] = set()
    for call in chosen(whole["calls"]):
        root = tmp_path / f"killed-{call}"
        killed(zygote, root, documents, call).dying_words(call)
        seen.add(moved(root))
        assert_all_opens(root, uid)
    return seen


def test_a_process_killed_between_its_moves_leaves_every_file_where_it_is_found(
    zygote: Zygote, tmp_path: Path
) -> None:
    seen = dies_at_each_of(zygote, tmp_path, lambda calls: one_of_each_stretch(calls, 10, "moves"))
    assert {1, 2} & seen, "it never died between the first move and the last"


@pytest.mark.long
def test_a_process_killed_at_any_call_leaves_every_file_where_it_is_found(
    zygote: Zygote, tmp_path: Path
) -> None:
    seen = dies_at_each_of(zygote, tmp_path, lambda calls: range(1, calls + 1))
    assert seen == {0, 1, 2, 3}


def killed(zygote: Zygote, root: Path, documents: Path, call: int) -> Child:
    """Start a process that dies at this call; in a new store, with files in its ``incoming``."""
    Store(root).close()
    write_files(root / "incoming")
    return zygote.start("adopt", root=str(root), documents=str(documents), die_at_call=call)


def test_files_on_another_disk_stay_there(zygote: Zygote, tmp_path: Path) -> None:
    recorded_run(tmp_path / "documents.json")
    write_files(tmp_path / "files")
    Store(tmp_path / "store").close()
    job = {"root": str(tmp_path / "store"), "documents": str(tmp_path / "documents.json")}
    try:
        done = zygote.call("adopt", other_disk=str(tmp_path / "files"), **job)
    except AssertionError as error:
        if "PermissionError" in str(error):
            pytest.skip(f"nothing can be mounted here: {error}")
        raise
    assert len(done["warned"]) == 3
    assert all("stays where it is, and is read there: [Errno 18]" in text for text in done["warned"])
    assert done["sums"] == dict.fromkeys(FILES, int(frames(3).sum()))
