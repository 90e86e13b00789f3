"""``gently-bluesky preview`` as people run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gently_bluesky import Store
from gently_bluesky.cli import app


@pytest.fixture
def preview(night, tmp_path, monkeypatch):
    """Run the command in a folder of its own, on the store that the variable names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENTLY_STORE", str(night.root))

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, ["preview", *arguments])
        assert done.exit_code == code, done.output
        return done

    return run


def test_the_latest_run_is_drawn_into_the_current_folder(night, preview, tmp_path):
    said = preview().stdout
    path = tmp_path / f"preview-{night.volumes[:8]}.png"
    with Image.open(path) as picture:
        picture.load()
        width, height = picture.size
    assert said.splitlines()[0] == f"{path.name} ({width} x {height})"
    assert f"acquire_volume {night.volumes[:8]}, complete, 4 of 4 frames stored" in said
    for view in ("view_a", "view_b"):
        assert re.search(rf"{view}\[1\] of 2 events: z 8, y 64, x 64, uint16, shown \d+", said)
    assert "a bar is 20 um" in said
    assert not re.search(r"\x1b", said)


def test_an_older_run_an_event_an_array_and_a_result_are_drawn(night, preview, tmp_path):
    asset = night.store[night.volumes]["view_b"].uid
    preview("-2", "--event", "0", "-o", "old.png")
    preview(asset, "--event", "0")
    preview(f"{asset}/1")
    preview(night.pair.uid[:13])
    assert {path.name for path in tmp_path.iterdir()} == {
        "old.png",
        f"preview-{asset[:8]}-event0.png",
        f"preview-{asset[:8]}-1.png",
        f"preview-{night.pair.uid[:8]}.png",
    }


def test_json_says_what_is_where_for_programs(night, preview, tmp_path):
    said = json.loads(preview(night.volumes, "--json", "--output", str(tmp_path)).stdout)
    assert said["path"] == str(tmp_path / f"preview-{night.volumes[:8]}.png")
    assert said["uid"] == night.volumes
    assert [image["uid"] for image in said["images"]] == [
        night.store[night.volumes][key][1].uid for key in ("view_a", "view_b")
    ]
    assert said["images"][0]["shape"] == [8, 64, 64]
    assert said["bar_um"] == 20
    assert said["left_out"] == []


def test_a_file_that_is_there_is_kept_unless_it_may_go(preview, tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    said = preview("-o", "mine.png", code=1).stderr
    assert "mine.png is there already; nothing was written; give another --output, or --force" in said
    assert (tmp_path / "mine.png").read_text() == "mine"
    preview("-o", "mine.png", "--force")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no run, asset or datum has the uid 'nothing'"),
        (["-9"], "expected at least 9 acquired runs"),
        (["--event", "7"], "expected an event from 0 to 1"),
        (["-o", "a.jpg"], "expected the name of a PNG file"),
        (["-o", "none/a.png"], "expected a folder at none"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(preview, tmp_path, arguments, words):
    said = preview(*arguments, code=1).stderr
    assert said.startswith("error: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_numbers_alone_says_so(night, preview):
    said = preview(night.nuclei.uid, code=1).stderr
    assert "expected a run with images" in said
    assert "has n;" in said


def test_a_view_that_is_lost_does_not_hide_the_other(night, tmp_path, monkeypatch):
    from shutil import copytree

    copytree(night.root, tmp_path / "copy")
    (lost,) = tmp_path.glob(f"copy/runs/*/*/*/*{night.volumes[:8]}/primary-view*b.ome.zarr")
    lost.rename(lost.with_name("lost"))
    done = CliRunner().invoke(
        app, ["preview", night.volumes, "-s", str(tmp_path / "copy"), "-o", str(tmp_path / "a.png")]
    )
    assert done.exit_code == 0
    assert "view_a[1]" in done.stdout
    assert "left out: view_b: " in done.stderr


WITHOUT_MATPLOTLIB = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"matplotlib", "PIL", "IPython", "dask", "xarray", "pandas"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from gently_bluesky.cli import app
app(["preview", "-s", sys.argv[1], "-o", "bare.png"])
"""


def test_without_matplotlib_there_is_a_picture_with_a_bar_and_the_words_are_printed(night, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MATPLOTLIB, str(night.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "the picture has no words" in done.stderr
    assert "view_b[1] of 2 events" in done.stdout
    with Image.open(tmp_path / "bare.png") as picture:
        bare = np.asarray(picture)
    assert bare.ndim == 2
    assert 255 in bare
    with Store(night.root, mode="r") as store:
        figure = store[night.volumes]["view_a"].preview()
    (image,) = figure.axes[0].images
    shown = image.get_array()
    first = bare[-shown.shape[0] + 60 : -20, : shown.shape[1] - 20]
    np.testing.assert_array_equal(first, shown[60:-20, :-20])  # one composition, with words or without


def test_help_shows_examples():
    said = CliRunner().invoke(app, ["preview", "--help"]).stdout
    assert "gently-bluesky preview -2 --open" in said
