"""Hostile names of runs, streams and data keys stay in their folder and never meet."""

from __future__ import annotations

import numpy as np
import pytest
from opened_run import frame, opened, require_untouched

from gently_bluesky import Store
from gently_bluesky.errors import (
    InvalidDocument,
)
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import check_frame

NAMES = [
    *(
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "C:\\x",
        "CON",
        "nul.txt",
        "a/b",
        "a\\b",
        "a:b",
        "a*?<>|b",
        " ",
        "",
        "a\nb",
        "x\0y",
    ),
    *(
        "view_a",
        "View_a",
        "VIEW_A",
        "a-b",
        "a",
        "b-c",
        "c",
        "ü",
        "u\u0308",
        "\u202eabc",
        "日本",
        "\U0001f52c",
        "é" * 300,
    ),
    *("x" * 299, "x" * 300, "a-2", "0", "%2e", "=2e", "~a", "$HOME", "`id`"),
]


def test_hostile_names_of_streams_and_keys_stay_in_their_folder_and_never_meet(store: Store) -> None:
    writer, run = store.writer(), HandMadeRun()
    writer("start", run.start)
    keys = [name for name in NAMES if name and not set(name) & {".", "/"}]  # those event-model does not allow
    pairs = [
        *((name, "camera") for name in NAMES),
        *(("s", name) for name in keys),
        ("a-b", "c"),
        ("a", "b-c"),
    ]
    descriptors = {}
    for number, (stream, key) in enumerate(pairs):
        descriptors[number] = run.descriptor(f"{stream}" if stream != "s" else f"s{number}", **{key: {}})
        writer("descriptor", descriptors[number])
        writer("event", run.event(descriptors[number], 1, **{key: frame(number)}))
    writer("stop", run.stop())

    found = store[run.uid]
    for number, (_, key) in enumerate(pairs):
        check_frame(np.asarray(found[descriptors[number]["name"]][key][0]), event=number)
    folder = (store.root / found.record.path).parent
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == len({name.casefold() for name in names}) == len(pairs) + 1
    assert all(len(name.encode()) < 140 for name in names)
    assert set(store.root.rglob("*.ome.zarr")) == set(folder.glob("*.ome.zarr"))


@pytest.mark.parametrize("key", ["../x", "", "a.b"])
def test_a_data_key_that_event_model_does_not_allow(store: Store, key: str) -> None:
    writer, run, _ = opened(store)
    with pytest.raises(InvalidDocument, match=r"data_keys is not: .* does not match any of the regexes"):
        writer("descriptor", run.descriptor(**{key: {}}))
    with pytest.raises(InvalidDocument):
        writer("stop", run.stop("fail"))
    require_untouched(store, run)


@pytest.mark.parametrize(
    "uid", ["../../../x", "CON", "a/b", "x" * 5000, "\U0001f52c", "a", "%", "_", "' OR 1=1 --"]
)
def test_hostile_uids_of_runs_stay_in_their_folder(store: Store, uid: str) -> None:
    for run in (HandMadeRun(uid), HandMadeRun(f"{uid}2")):
        writer = store.writer()
        descriptor = run.descriptor(camera={})
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, camera=frame()))
        writer("stop", run.stop())
        check_frame(np.asarray(store[run.uid]["primary"]["camera"][0]))
        assert (store.root / store.record(run.uid).path).resolve().is_relative_to(store.root / "runs")
    assert sorted(path.name for path in store.root.parent.iterdir()) == [store.root.name]
