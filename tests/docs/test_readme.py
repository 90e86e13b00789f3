"""The README is true: its code runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text("utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def without_what_changes(text: str) -> str:
    """Uids and times differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{8}\b", "<uid>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "<time>", text)


def test_main_road_prints_what_the_readme_shows(tmp_path: Path) -> None:
    code, *_ = blocks("python")
    (shown,) = blocks("text")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert without_what_changes(done.stdout) == without_what_changes(shown)


def test_main_road_is_short() -> None:
    code, *_ = blocks("python")
    assert len(code.splitlines()) < 40


def test_readme_holds_the_two_commands_on_a_line_each() -> None:
    lines = README.splitlines()
    assert 'python -m pip install -e ".[dev]" && python -m pytest' in lines
    assert "python -m pip install . && gently-bluesky demo" in lines


def test_links_lead_somewhere() -> None:
    pages = [HERE / "README.md", *(HERE / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_code_in_the_format_page_reads_a_store_without_this_package(tmp_path: Path) -> None:
    acquire = """
import sys
from bluesky import RunEngine
from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

for format in ("zarr", "tiff"):
    with Store(format) as store:
        RE = RunEngine()
        RE.subscribe(store.writer(format=format))
        (uid,) = RE(acquire_volume(SimulatedDiSPIM(size=64, n_slices=20)))
        print((store.root / store.record(uid).path).parent)
"""
    command = [sys.executable, "-W", "error", "-c", acquire]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folders = done.stdout.split()
    codes = blocks("python", (HERE / "docs" / "format.md").read_text("utf-8"))
    assert len(codes) == len(folders) == 2
    for code, folder in zip(codes, folders, strict=True):
        check = "import sys\nassert plane.shape == (64, 64) and plane.any()\nassert 'gently_bluesky' not in sys.modules"
        check = f"{code}\n{check}"
        subprocess.run([sys.executable, "-c", check], cwd=folder, check=True)
