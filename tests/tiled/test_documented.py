"""What the page on Tiled says is true: its configuration and its code, with a server of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "tiled.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


def test_page_serves_a_run_by_tiled(tmp_path: Path, serve: Any) -> None:
    (tmp_path / "dispim").mkdir()
    config = tmp_path / "tiled.yml"
    config.write_text(block("yaml").replace("/data/", f"{tmp_path.as_posix()}/"))
    server = serve(config)
    assert "TILED_SINGLE_USER_API_KEY=secret tiled serve config tiled.yml" in block("sh")
    code = block("python").replace("/data/", f"{tmp_path.as_posix()}/")
    assert "http://127.0.0.1:8000" in code
    code = code.replace("http://127.0.0.1:8000", server.url)
    check = "assert plane.shape == (512, 512) and np.array_equal(plane, store[uid]['view_a'][0, 16])"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], cwd=tmp_path, check=True)
