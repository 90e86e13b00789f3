"""The pages are true: whatever is a Python program on any of them runs, and prints what the page says."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from pages import blocks_of
from typer.main import get_command

from gently_bluesky.cli import app

HERE = Path(__file__).parents[2]
RUNNER = HERE / "tests" / "pages.py"
PAGES = [HERE / "README.md", HERE / "examples" / "README.md", *sorted((HERE / "docs").rglob("*.md"))]
ELSEWHERE = {  # pages whose code needs more than a folder, and the tests that run it
    "docs/backends.md": "tests/contract/test_documented_backend.py",
    "docs/format.md": "tests/docs/test_readme.py",
    "docs/tiled.md": "tests/tiled/test_documented.py",
    "docs/transport.md": "tests/docs/test_transport.py",
}
CHECKS = {  # what is so when the page has run, beside what it prints
    "docs/devices.md": """
assert [record.status for record in store.query()] == ["complete"] * 6
assert store[-6]["image"].scale == (1.0, 0.1625, 0.1625)
""",
    "docs/documents.md": """
assert plane.shape == (64, 64) and plane.any()
assert np.array_equal(volume, store[streamed]["view_b"][2]), "the last one that came"
""",
    "docs/sessions.md": """
taken, sweep = store[-1], store[-2]
assert (taken.start["plan_name"], sweep.start["plan_name"]) == ("acquire_volume", "focus_sweep")
(parent,) = taken.start["lineage"]["parents"]
assert store.record(parent).run_uid == sweep.uid
""",
}
FOR_THE_SITE = {"index.md", "examples.md"}
WITH_COMMANDS = {"docs/tutorial.md"}


def name_of(page: Path) -> str:
    return page.relative_to(HERE).as_posix()


def run_here() -> list[str]:
    pages = (page for page in PAGES if any(block.language == "python" for block in blocks_of(page)))
    return [name for page in pages if (name := name_of(page)) not in ELSEWHERE]


def without_what_changes(text: str, folder: Path | None = None) -> list[str]:
    """Uids, times and rates differ from run to run, and with their lengths the widths of columns."""
    text = text.replace(str(folder), "/home/me") if folder else text
    text = re.sub(r"\b[0-9a-f]{8}(/\d+)?\b", "<uid>", text)
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
            CHECKS.get(name, ""),
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


def test_fragments_are_python() -> None:
    for page in PAGES:
        for number, block in enumerate(blocks_of(page)):
            if block.language in {"py", "python"}:
                ast.parse(block.text, f"{page.name}, block {number}")


def test_pages_that_need_more_than_a_folder_are_run_by_the_tests_that_are_named() -> None:
    for name, test in ELSEWHERE.items():
        assert Path(name).name in (HERE / test).read_text("utf-8")
        assert any(block.language == "python" for block in blocks_of(HERE / name)), (
            f"{name} has nothing to run"
        )


def test_what_is_shown_as_printed_stands_behind_what_prints_it() -> None:
    for page in PAGES:
        blocks = blocks_of(page)
        for before, block in pairwise(blocks):
            if block.is_printed:
                assert before.language in (
                    {"python", "sh", "ipython"} if name_of(page) in WITH_COMMANDS else {"python"}
                )


def test_page_of_commands_names_all_there_are() -> None:
    told = (HERE / "docs" / "command-line.md").read_text("utf-8")
    named = re.findall(r"^\| `([a-z-]+)", told, re.MULTILINE)
    assert sorted(named) == sorted(command.name for command in app.registered_commands)


def test_commands_on_the_pages_are_those_that_there_are() -> None:
    commands = get_command(app).commands
    for page in PAGES:
        shells = "".join(block.text for block in blocks_of(page) if block.language == "sh")
        for typed in re.findall(r"gently-bluesky ([a-z].*?)(?:$| [|&#>] )", shells, re.MULTILINE):
            name, *words = typed.split("  #")[0].split()
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, f"{page.name}: {typed}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [HERE / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
            ahead += [(page.parent / link).resolve() for link in links]
    pages = {page for page in PAGES if "reference" not in page.parts and page.name not in FOR_THE_SITE}
    assert pages - reached == set()
