"""The README has what .ci/run runs, links lead somewhere, and the format is what its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text("utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


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
