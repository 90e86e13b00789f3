"""The examples are true: each runs as a program, in an empty folder, and prints what its docstring says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def said(script: Path) -> str:
    """What an example says of itself, without what it prints."""
    return parts(script)[0]


def parts(script: Path) -> tuple[str, str]:
    docstring = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert docstring
    about, prints = docstring.split("\nPrints:\n\n")
    return about, "".join(line.removeprefix("    ") for line in prints.splitlines(keepends=True)) + "\n"


def without_what_changes(text: str) -> str:
    """Uids, times and the folder differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{8}\b", "<uid>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "<time>", text)
    text = re.sub(r"\d\d:\d\d:\d\d\.\d", "<time>", text)
    return re.sub(r"\d+ ms", "<time>", text)


def run(script: Path, folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", str(script), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example_prints_what_it_says(script: Path, tmp_path: Path) -> None:
    assert without_what_changes(run(script, tmp_path)) == without_what_changes(parts(script)[1])


def test_examples_are_short_and_use_public_names_only() -> None:
    for script in SCRIPTS:
        code = script.read_text("utf-8").partition('\n"""\n')[2]
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 60, f"{script.name} has {len(lines)} lines"
        private = re.findall(r"(?<![\w\"'])_[a-z]\w*", code)
        assert not private, f"{script.name} uses {private}"


def test_the_list_of_examples_is_complete_and_in_order() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    assert re.findall(r"^- \[(\d\d_\w+\.py)\]\(\1\): ", text, re.MULTILINE) == [s.name for s in SCRIPTS]
    assert all("\n\nNeeds: " in said(script) for script in SCRIPTS)
