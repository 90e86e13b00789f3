"""The examples are true: each runs as a program, in an empty folder, and prints what its docstring says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gently_bluesky import Store

needs_micromanager = pytest.mark.skipif(
    importlib.util.find_spec("mm_test_adapters") is None, reason="there is no Micro-Manager for this machine"
)
HERE = Path(__file__).parents[2]
SCRIPTS = sorted((HERE / "examples").glob("*.py"))


def parts(script: Path) -> tuple[str, str]:
    """What an example says of itself, and what it prints."""
    docstring = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert docstring
    about, prints = docstring.split("\nPrints:\n\n")
    return about, "".join(line.removeprefix("    ") for line in prints.splitlines(keepends=True)) + "\n"


def code_of(name: str) -> str:
    return (HERE / "examples" / name).read_text("utf-8").partition('\n"""\n')[2]


def without_what_changes(text: str) -> str:
    """Uids, times and speeds differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{8}\b", "<uid>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d|\d\d:\d\d:\d\d\.\d", "<time>", text)
    return re.sub(r"in \d+\.\d s \(.+?/s\)", "in <time>", text)


def run(*command: str | Path, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    without_display = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", *map(str, command)],
        cwd=folder,
        env={**without_display, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def install_documented_backend(folder: Path) -> None:
    """Lay the package of docs/backends.md where Python finds it, as pip would."""
    text = (HERE / "docs" / "backends.md").read_text("utf-8")
    module = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    (entry,) = re.findall(r'^npy = "(gently_npy:\w+)"$', text, re.MULTILINE)
    told = folder / "gently_npy-1.0.dist-info"
    told.mkdir(parents=True)
    (folder / "gently_npy.py").write_text(module, "utf-8")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: gently-npy\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[gently_bluesky.backends]\nnpy = {entry}\n")


def parameter(script: Path) -> Any:
    marks = [needs_micromanager] if "mm_test_adapters" in script.read_text("utf-8") else []
    if script.stem == "10_tiled":
        marks.append(pytest.mark.long)  # tests/tiled does as much, beside a server that is there already
    return pytest.param(script, id=script.stem, marks=marks)


@pytest.mark.parametrize("script", [parameter(script) for script in SCRIPTS])
def test_example_prints_what_it_says(script: Path, tmp_path: Path) -> None:
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    folder.mkdir()
    if "docs/backends.md" in parts(script)[0]:
        install_documented_backend(installed)
    done = run(script, folder=folder, path=str(installed))
    assert (done.returncode, done.stderr) == (0, "")
    assert without_what_changes(done.stdout) == without_what_changes(parts(script)[1])
    check = CHECKS.get(script.stem)
    if check is not None:
        check(folder)


def the_window_showed_the_last_volume(folder: Path) -> None:
    """What the display drew last looks like the last volume that is stored, more than like those before it."""
    with Image.open(folder / "live.png") as image:
        grey = np.asarray(image.convert("L"), float)
    rows, columns = (
        np.flatnonzero((grey < 100).sum(axis=axis) > 150) for axis in (1, 0)
    )  # the picture is dark
    with Store(folder / "dispim", mode="r") as store:
        volumes = np.asarray(store[-1]["view_a"], float)
    size = volumes.shape[-1]
    at_rows, at_columns = (
        np.linspace(along[0], along[-1], 2 * size + 1)[1::2].round().astype(int) for along in (rows, columns)
    )
    drawn = grey[np.ix_(at_rows, at_columns)]
    likeness = [np.corrcoef(drawn.ravel(), volume.max(axis=0).ravel())[0, 1] for volume in volumes]
    assert likeness[-1] == max(likeness) > 0.9, likeness


def both_stores_hold_the_night(folder: Path) -> None:
    with Store(folder / "night", mode="r") as store, Store(folder / "night-as-tiff", mode="r") as copy:
        assert [record.uid for record in copy.query()] == [record.uid for record in store.query()]
        for record in store.query():
            for key in {"camera_a", "view_a", "view_b"} & set(store[record.uid]["primary"]):
                np.testing.assert_array_equal(copy[record.uid][key], store[record.uid][key])


CHECKS = {"05_live_display": the_window_showed_the_last_volume, "06_replay": both_stores_hold_the_night}


@needs_micromanager
def test_a_sequence_of_which_a_frame_is_missing_fails_the_plan_and_keeps_the_volumes_before_it(
    tmp_path: Path,
) -> None:
    taken_by_somebody_else = """
from itertools import count
pop, calls = core.popNextImageAndMD, count()
def pop_all_but_one():
    if next(calls) == 25:
        while core.getRemainingImageCount() < 2:
            pass
        pop()
    return pop()
core.popNextImageAndMD = pop_all_but_one
"""
    code = code_of("13_camera_sequence.py").replace("\nstore = ", f"{taken_by_somebody_else}\nstore = ", 1)
    done = run("-c", code, folder=tmp_path)
    assert done.returncode == 1
    assert "frame 25 is missing: the camera went on with 26" in done.stderr
    with Store(tmp_path / "dispim", mode="r") as store:
        run_of_it = store[-1]
        assert run_of_it.status == "failed"
        assert run_of_it["volume"].shape == (1, 20, 96, 128)
        assert store.verify(progress=False).ok


def test_examples_are_short_and_use_public_names_only() -> None:
    for script in SCRIPTS:
        code = code_of(script.name)
        lines = [line for line in code.splitlines() if line.strip()]
        assert 15 < len(lines) <= 60, f"{script.name} has {len(lines)} lines"
        private = re.findall(r"(?<![\w\"'])_[a-z]\w*", code)
        assert not private, f"{script.name} uses {private}"


def test_the_list_of_examples_is_complete_and_in_order() -> None:
    text = (HERE / "examples" / "README.md").read_text("utf-8")
    listed = re.findall(r"^- \[(\d\d_\w+\.py)\]\(\1\): ", text, re.MULTILINE)
    assert listed == [script.name for script in SCRIPTS]
    assert all("\n\nNeeds: " in parts(script)[0] for script in SCRIPTS)
