"""The page about sessions and plans is true: its code runs, and what it says of the configuration is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gently_bluesky import Store

PAGE = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text("utf-8")


def test_the_plan_of_the_page_takes_its_volume_where_the_sweep_was_sharpest(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with Store(tmp_path / "dispim", mode="r") as store:
        taken, sweep = store[-1], store[-2]
        assert (taken.start["plan_name"], sweep.start["plan_name"]) == ("acquire_volume", "focus_sweep")
        (parent,) = taken.start["lineage"]["parents"]
        assert store.record(parent).run_uid == sweep.uid
        assert f"volume {taken.uid[:8]} autofocus" in done.stdout
        assert sweep.uid[:8] in done.stdout
