"""The page about devices that write for themselves is true: its code runs as it stands there, from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gently_bluesky import Store

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "devices.md").read_text("utf-8")
README = (HERE / "README.md").read_text("utf-8")


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_the_page_stores_what_it_shows(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
    shown = [
        line.split(") ")[0] for line in run(code, tmp_path).splitlines() if line.startswith("<LazyArray")
    ]
    assert shown == [
        "<LazyArray image (t: 3, y: 64, x: 64",
        "<LazyArray volume (t: 5, z: 8, y: 64, x: 64",
        "<LazyArray view_a (t: 3, z: 32, y: 512, x: 512",
        "<LazyArray sheet-view_a (t: 2, z: 32, y: 512, x: 512",
    ]
    with Store(tmp_path / "dispim", mode="r") as store:
        assert [record.status for record in store.query()] == ["complete"] * 4
        assert store[-4]["image"].scale == (1.0, 0.1625, 0.1625)


def test_the_lines_of_the_readme_store_volumes(tmp_path: Path) -> None:
    (section,) = re.findall(r"^## Devices that write.*?^```py\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    before = (
        "from bluesky import RunEngine, plans as bp\nfrom gently_bluesky import Store\n"
        "from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume\nstore = Store('dispim')\nRE = RunEngine()\n"
    )
    run(before + section, tmp_path)
    with Store(tmp_path / "dispim", mode="r") as store:
        assert [store[record.uid]["view_b"].shape[0] for record in store.query()] == [1, 3]
