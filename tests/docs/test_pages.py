"""The pages are true: whatever is a Python program on any of them runs, and prints what the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks_of

HERE = Path(__file__).parents[2]
RUNNER = HERE / "tests" / "pages.py"
PAGES = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))]
ELSEWHERE = {  # pages whose code needs more than a folder, and the tests that run it
    "docs/backends.md": "tests/contract/test_documented_backend.py",
    "docs/format.md": "tests/docs/test_readme.py",
    "docs/tiled.md": "tests/tiled/test_documented.py",
    "docs/transport.md": "tests/docs/test_transport.py",
}
WITH_COMMANDS = {"docs/tutorial.md"}


def name_of(page: Path) -> str:
    return page.relative_to(HERE).as_posix()


def run_here() -> list[str]:
    pages = (page for page in PAGES if any(block.language == "python" for block in blocks_of(page)))
    return [name for page in pages if (name := name_of(page)) not in ELSEWHERE]


def without_what_changes(text: str, folder: Path | None = None) -> list[str]:
    """Uids, times and rates differ from run to run, and with their lengths the widths of columns."""
    text = text.replace(str(folder), "/home/me") if folder else text
    text = re.sub(r"\b[0-9a-f]{8}\b", "<uid>", text)
    text = re.sub(r"(\d{4}-)?\d\d-\d\d \d\d:\d\d", "<time>", text)
    text = re.sub(r"in \d+\.\d s \([\d.]+ .B/s\)", "in <so long>", text)
    return [re.sub(r" +", " ", line).strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("name", run_here())
def test_code_of_the_page_prints_what_it_says(name: str, tmp_path: Path) -> None:
    page, folder = HERE / name, tmp_path / "folder"
    folder.mkdir()
    shutil.copytree(
        HERE / "profiles", folder / "profiles", ignore=shutil.ignore_patterns("history*", "__pycache__")
    )
    private = {"GENTLY_STORE": str(tmp_path / "at-the-prompt"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-X",
            "utf8",
            RUNNER,
            page,
            *["--commands"] * (name in WITH_COMMANDS),
        ],
        cwd=folder,
        env={**os.environ, **private},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    shown = [(number, block) for number, block in enumerate(blocks_of(page)) if block.is_printed]
    for number, block in shown:
        said, expected = (
            without_what_changes(each, folder) for each in (printed[str(number - 1)], block.text)
        )
        if blocks_of(page)[number - 1].language == "ipython":  # among what the RunEngine says of the run
            assert all(any(line in each for each in said) for line in expected), said
        else:
            assert said == expected
