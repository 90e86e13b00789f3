"""The page about documents is true: its code runs from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "documents.md").read_text("utf-8")


def test_code_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    check = (
        "assert plane.shape == (64, 64) and plane.any()\n"
        "assert np.array_equal(volume, store[streamed]['view_b'][2]), 'the last one that came'\n"
    )
    code = "\n".join([*blocks, check])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
