"""The index is a cache: lost, damaged, behind or ahead, it is built again and answers the same."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import answers, snapshot
from zygote import Zygote

from gently_bluesky import Store


@pytest.fixture
def store_of_all(zygote: Zygote, templates: Any, root: Path) -> Path:
    """A store of whole, dead and derived runs of both formats, with lineage across them."""
    templates.copy("all", root, lambda at: make_all(zygote, at))
    return root


def make_all(zygote: Zygote, root: Path) -> None:
    for format, night, dies in (("zarr", "one", 0), ("tiff", "two", 3), ("zarr", "three", 0)):
        job = {"format": format, "night": night, "events": 4, "die_after_events": dies}
        zygote.start("acquire", root=str(root), **job).last_words()
    with Store(root) as store:
        parents = [store.run(record.uid)["view_a"] for record in store.query(derived=False)]
        mip = store.put(
            parents[0][0].max(axis=0), data_type="projection", parents=[parents[0][0].uid], operation="max_z"
        )
        fused = store.put(
            np.ones((2, 30, 40), "uint16"),
            data_type="fused",
            parents=[parents[0], parents[1]],
            operation="fuse",
            parameters={"iterations": 3},
        )
        store.put({"n": 3, "nan": float("nan")}, data_type="nuclei", parents=[mip, fused])


def delete(index: Path) -> None:
    for path in index.parent.glob("index.sqlite*"):
        path.unlink()


def cut_short(index: Path) -> None:
    index.write_bytes(index.read_bytes()[:5000])


def overwrite_beginning(index: Path) -> None:
    index.write_bytes(b"not a database at all" + index.read_bytes()[21:])


def overwrite_middle(index: Path) -> None:
    content = bytearray(index.read_bytes())
    content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    index.write_bytes(bytes(content))


def empty(index: Path) -> None:
    index.write_bytes(b"")


def of_another_version(index: Path) -> None:
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("ALTER TABLE records RENAME TO things")
        connection.commit()


def of_something_else(index: Path) -> None:
    index.unlink()
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


LOSSES = [
    delete,
    cut_short,
    overwrite_beginning,
    overwrite_middle,
    empty,
    of_another_version,
    of_something_else,
]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_lost_index_is_built_again_and_gives_equal_answers(
    store_of_all: Path, lose: Callable[[Path], None]
) -> None:
    said = answers(store_of_all, "a")
    assert len(said) > 100
    files = snapshot(store_of_all, index=False)
    lose(store_of_all / "index.sqlite")
    assert answers(store_of_all, "r") == said
    assert answers(store_of_all, "a") == said
    assert answers(store_of_all, "r") == said
    assert snapshot(store_of_all, index=False) == files


def test_index_that_is_behind_catches_up(zygote: Zygote, store_of_all: Path) -> None:
    old = (store_of_all / "index.sqlite").read_bytes()
    zygote.call("acquire", root=str(store_of_all), format="zarr", night="later", events=2)
    with Store(store_of_all) as store:
        store.put({"n": 4}, data_type="nuclei")
    said = answers(store_of_all, "a")
    delete(store_of_all / "index.sqlite")
    (store_of_all / "index.sqlite").write_bytes(old)
    assert answers(store_of_all, "r") == said
    assert answers(store_of_all, "a") == said
    assert answers(store_of_all, "r") == said


def test_index_that_is_ahead_forgets_what_is_gone(zygote: Zygote, store_of_all: Path, tmp_path: Path) -> None:
    said = answers(store_of_all, "a")
    zygote.call("acquire", root=str(store_of_all), format="zarr", night="later", events=2)
    with Store(store_of_all, mode="r") as store:
        journal = store_of_all / store[-1].record.path
    shutil.move(journal.parent, tmp_path / "taken_away")
    assert answers(store_of_all, "r") == said
    assert answers(store_of_all, "a") == said
    assert answers(store_of_all, "r") == said


def test_index_of_a_journal_that_is_shorter_now_is_built_again(zygote: Zygote, root: Path) -> None:
    zygote.start(
        "acquire", root=str(root), format="zarr", night="n", events=9, die_after_events=3
    ).last_words()
    journal = next(root.glob("runs/*/*/*/*/documents.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-2]))
    with Store(root) as store:
        run = store[-1]
        assert (store.record(run.uid).stored, run["view_a"].shape[0]) == (2, 2)
        assert len(list(store.query(kind="datum"))) == 2
    said = answers(root, "a")
    delete(root / "index.sqlite")
    assert answers(root, "a") == said


def test_index_elsewhere_gives_the_same_answers(store_of_all: Path, tmp_path: Path) -> None:
    said = answers(store_of_all, "a")
    url = f"sqlite:///{tmp_path / 'local' / 'x.sqlite'}"
    (tmp_path / "local").mkdir()
    assert answers(store_of_all, "a", index=url) == said
    assert answers(store_of_all, "r", index=url) == said
    assert answers(store_of_all, "a", index="sqlite://") == said
