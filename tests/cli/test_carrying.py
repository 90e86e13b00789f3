"""``export`` and ``demo`` at the command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gently_bluesky import Store
from gently_bluesky.testing.frames import check_frame


def test_a_copy_is_named_for_its_run_and_put_where_people_are(command, made, tmp_path):
    said = command("export", made["rewound"], "--to", "npy").stdout
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d_\d{{6}}_.*_{made['rewound'][:8]}-npy", folder.name)
    assert str(folder) in said
    for event, frame in zip((1, 2, 3), np.load(folder / "primary-view_a.npy"), strict=True):
        check_frame(frame, key="view_a", event=event)


def test_an_event_goes_into_a_folder_that_is_there_or_under_a_name_that_is_not(command, made, tmp_path):
    (tmp_path / "stick").mkdir()
    event = f"{made['array'][:8]}/2"
    command("export", event, "--to", "npy", "--output", "stick", "--quiet")
    (folder,) = (tmp_path / "stick").iterdir()
    assert folder.name.endswith(f"_{made['rewound'][:8]}_view_a_2-npy")
    known = json.loads(command("export", event, "--to", "tiff", "-o", "named", "--json").stdout)
    assert known["path"] == str(tmp_path / "named")
    assert known["nbytes"] == 3 * 40 * 50 * 2
    assert (
        "something is there"
        in command("export", event, "--to", "npy", "-o", "named/arrays.json", code=1).stderr
    )


def test_nothing_is_put_into_a_copy(command, made, tmp_path):
    once = ("export", "-1", "--to", "npy", "-o", str(tmp_path / "night"), "--store", str(made.root))
    command(*once)
    before = sorted((tmp_path / "night").iterdir())
    assert "something is there" in command(*once, code=1).stderr
    assert sorted((tmp_path / "night").iterdir()) == before


def test_where_a_copy_went_is_said_without_the_ways_back(command, tmp_path):
    (tmp_path / "inside").mkdir()
    said = command("export", "-1", "--to", "npy", "--output", "inside/../mine").stdout
    assert said.rstrip().endswith(f"pixels are in {tmp_path.resolve() / 'mine'}")


def test_a_format_has_to_be_named(command):
    assert "--to" in command("export", "-1", code=2).stderr
    assert "--to" in command("export", "-1", "--to", "hdf5", code=2).stderr


@pytest.mark.usefixtures("made")
def test_the_demo_prints_json_and_nothing_else(command, tmp_path):
    arguments = ("--size", "32", "--embryos", "1", "--timepoints", "1", "--store", str(tmp_path / "demo"))
    made = json.loads(command("demo", "--json", *arguments).stdout)
    with Store(tmp_path / "demo", mode="r") as store:
        assert made["runs"] == [store[-1].uid]
        assert set(made["results"]) == {record.uid for record in store.query(derived=True)}
    assert made["store"] == str(tmp_path / "demo")
    assert (tmp_path / "demo.png").samefile(made["picture"])
