"""``gently-bluesky demo`` as newcomers run it: the installed command, over a pipe and in a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pexpect
import pytest
from PIL import Image

from gently_bluesky import Store
from gently_bluesky.pictures import cut_out, draw_scale_bar, grid, png_bytes, stretched, write_png

COMMAND = str(Path(sys.executable).with_name("gently-bluesky"))
SMALL = ("--size", "64", "--embryos", "2", "--timepoints", "2")
TIMEOUT_S = 120


def run(*arguments, cwd, code=0):
    done = subprocess.run([COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder of a demo that was run with a pipe for a terminal, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run("demo", *SMALL, cwd=folder).stdout


def test_what_a_pipe_gets_is_plain_text(shown):
    _, said = shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", said)
    assert "8/8 volumes" in said


def test_the_demo_stores_every_volume_and_its_projections(shown):
    folder, said = shown
    with Store(folder / "gently-demo", mode="r") as store:
        runs = list(store.query(derived=False))
        assert len(runs) == 4
        assert {(record.status, record.received, record.stored) for record in runs} == {("complete", 2, 2)}
        assert all(record.uid[:8] in said for record in runs)
        assert {record.metadata["embryo"] for record in runs} == {"e1", "e2"}
        assert len(list(store.query(data_type="projection"))) == 8
        for mip in store.query(data_type="projection"):
            (parent,) = mip.parents
            expected = np.asarray(store.array(parent)).max(axis=0)
            np.testing.assert_array_equal(np.asarray(store.get(mip.uid)), expected)
        pair = store.latest(data_type="projections")
        assert str(store.lineage(pair.uid)).splitlines()[-1] in said
        assert len(list(store.lineage(pair.uid))) == 5


def test_the_three_lines_it_prints_open_the_store_again(shown):
    _, said = shown
    lines = [line.strip() for line in said.splitlines() if re.match(r"\s+(from|store =|plane =)", line)]
    assert len(lines) == 3
    names = {}
    exec("\n".join(lines), names)
    with names["store"] as store:
        expected = np.asarray(store[-1]["primary"]["view_a"])[0, 16]
        np.testing.assert_array_equal(names["plane"], expected)


def test_the_excerpt_in_the_readme_is_what_it_says(shown):
    _, said = shown
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (excerpt,) = (
        block
        for block in re.findall(r"^```text\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
        if "costs" in block
    )

    def masked(text):
        text = re.sub(r"\b[0-9a-f]{8}\b", "<uid>", text)
        return [re.sub(r"[\d.]+( [kM]?B)?", "<n>", line).strip() for line in text.splitlines()]

    assert [line for line in masked(excerpt) if line not in masked(said)] == []


def test_the_picture_shows_both_views_of_each_embryo(shown):
    folder, said = shown
    path = folder / "gently-demo.png"
    assert str(path) in said
    with Image.open(path) as image:
        image.load()
        pixels = np.asarray(image)
    assert pixels.shape == (64 + 4 + 64, 64 + 4 + 64, 3)
    for y in (0, 68):
        for x in (0, 68):
            assert pixels[y : y + 60, x : x + 64].max() == 255
    assert (pixels[64:68] == pixels[64, 64]).all()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="nothing here tells what a process has read")
def test_it_measures_that_a_plane_costs_about_a_plane(tmp_path):
    said = run("demo", "--size", "512", "--embryos", "1", "--timepoints", "1", cwd=tmp_path).stdout
    share = re.search(r"read in \d+ ms: ([\d.]+)% of a volume of 16.8 MB, for a plane of 524.3 kB", said)
    assert share is not None
    assert 0 < float(share[1]) < 1.2 * 100 / 32


def test_a_second_demo_adds_to_the_store_and_may_use_another_format(shown):
    folder, _ = shown
    with Store(folder / "gently-demo", mode="r") as store:
        before = {record.uid for record in store.query()}
    said = run(
        "demo", "--size", "32", "--embryos", "1", "--timepoints", "1", "--format", "tiff", cwd=folder
    ).stdout
    assert "OME-TIFF" in said
    with Store(folder / "gently-demo", mode="r") as store:
        after = {record.uid for record in store.query()}
        assert before < after
        assert len(after - before) == 1 + 3
        formats = {record.format for record in store.query(kind="asset")}
        assert formats == {"GENTLY_ZARR", "GENTLY_TIFF"}


def test_what_cannot_be_done_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("here already")
    done = run("demo", *SMALL, "--store", "file", cwd=tmp_path, code=1)
    assert done.stderr.startswith("error: expected a folder")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "here already"


def test_a_demo_that_will_not_fit_is_refused_before_anything_is_written(tmp_path):
    done = run("demo", "--size", "4096", "--timepoints", "100000", "--store", "new", cwd=tmp_path, code=1)
    assert "nothing was written; make room" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of file sizes to be had")
def test_a_disk_that_refuses_a_volume_is_told_in_one_line_and_the_run_is_on_record_as_failed(tmp_path):
    import resource

    done = subprocess.run(
        [COMMAND, "demo", "--store", str(tmp_path / "new"), "--embryos", "1"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*File too large.*\n", done.stderr)
    with Store(tmp_path / "new", mode="r") as store:
        assert [(record.status, record.stored) for record in store.query()] == [("failed", 0)]


def test_settings_out_of_range_are_refused_by_name(tmp_path):
    assert "--size" in run("demo", "--size", "5", cwd=tmp_path, code=2).stderr
    assert "--format" in run("demo", "--format", "hdf5", cwd=tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_records_the_run_as_aborted_and_closes_the_store(root):
    arguments = ["demo", "--size", "2048", "--embryos", "1", "--timepoints", "2", "--store", str(root)]
    child = pexpect.spawn(COMMAND, arguments, encoding="utf-8", timeout=TIMEOUT_S, dimensions=(50, 120))
    try:
        child.expect("e1, time point 1")
        child.sendintr()
        child.expect("interrupted: a run that was going on is recorded as aborted")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 130
    finally:
        child.close(force=True)
    assert not list(root.rglob(".live"))
    with Store(root, mode="r") as store:
        assert [(record.status, record.lost) for record in store.query()] == [("aborted", 0)]


WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"matplotlib", "PIL", "IPython", "dask", "xarray", "pandas"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from gently_bluesky.cli import app
app(["demo", "--size", "32", "--embryos", "1", "--timepoints", "1", "--store", sys.argv[1]])
"""


def test_the_demo_needs_none_of_the_extras(tmp_path):
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new.png").exists()


def test_help_and_version_come_quickly(tmp_path):
    assert "gently-bluesky demo --timepoints 2" in run("demo", "--help", cwd=tmp_path).stdout
    assert re.fullmatch(r"gently-bluesky \d+\.\d+\.\d+\S*\n", run("--version", cwd=tmp_path).stdout)
    program = (
        "import sys\nfrom gently_bluesky.cli import app\n"
        "try:\n    app(['demo', '--help'])\n"
        "finally:\n    print(sorted({'numpy', 'bluesky', 'zarr', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (1, 1)])
def test_an_independent_reader_sees_the_pixels_of_our_png(tmp_path, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    write_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as seen:
        seen.verify()
    with Image.open(tmp_path / "a.png") as seen:
        np.testing.assert_array_equal(np.asarray(seen), image)
    assert (tmp_path / "a.png").read_bytes() == png_bytes(image)


def test_contrast_reaches_from_the_background_to_what_is_bright():
    image = np.full((20, 20), 100, np.uint16)
    image[5:8, 5:8] = 900
    assert stretched(image).min() == 0
    assert stretched(image).max() == 255
    assert stretched(np.full((4, 4), 7, np.uint16)).max() == 0
    assert tuple(stretched(image, colour=(0, 255, 51))[6, 6]) == (0, 255, 51)


def test_what_is_cut_out_is_around_what_is_bright():
    image = np.zeros((100, 80), np.uint16)
    image[88:92, 2:6] = 5
    assert cut_out(image, 20).shape == (20, 20)
    assert cut_out(image, 20).max() == 5
    np.testing.assert_array_equal(cut_out(image, 200), image)


def test_a_scale_bar_is_as_long_as_it_says():
    image = np.zeros((96, 512), np.uint8)
    bar = draw_scale_bar(image, 0.1625)
    assert bar.um == 20
    assert image.any(axis=0).sum() == round(20 / 0.1625)
    assert image[bar.row, bar.column] == 255
    assert draw_scale_bar(np.zeros((4, 4), np.uint8), 0.1) is None


def test_tiles_of_a_grid_stand_where_they_belong():
    a, b, c = (np.full((2, 3), value, np.uint8) for value in (1, 2, 3))
    canvas = grid([[a, b], [c]], gap=1)
    assert canvas.shape == (5, 7)
    assert [canvas[0, 0], canvas[0, 4], canvas[3, 0]] == [1, 2, 3]
