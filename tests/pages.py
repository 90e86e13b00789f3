"""Runs a page of the documentation from top to bottom, as somebody who follows it does, in the current folder.

```` ```python ```` blocks run one after the other in one process. One that begins with ``# in a second terminal`` is a
program of its own; the next block waits for the first line that it prints, and the page ends when it has ended.
Of pages whose commands are to run (``--commands``), the lines of ```` ```sh ```` blocks run in a terminal of 80
columns; ```` ```ipython ```` is typed into what the block before it started. What each block printed goes to standard
output as JSON, by the number of the block on the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ELSEWHERE = "# in a second terminal"
NOT_RUN = ("python -m pip", "gently-bluesky demo")  # has tests of its own: test_demo.py
TIMEOUT_S = 120


class Block(NamedTuple):
    """A block of a page: its language, its text, and whether it shows what the block before it prints."""

    language: str
    text: str
    is_printed: bool


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page; after the word "prints" alone on a line one shows what the one before it prints."""
    found = re.finditer(
        r"^(prints\n\n)?```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [Block(each[2], each[3], each[1] is not None) for each in found]


def run_page(page: Path, *, commands: bool) -> dict[int, str]:
    """Run the blocks of a page; return what each of them printed."""
    names: dict[str, object] = {"__name__": "__main__"}
    printed: dict[int, str] = {}
    others: dict[int, tuple[subprocess.Popen[str], str]] = {}
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        if block.language == "python" and block.text.startswith(ELSEWHERE):
            others[number] = _start(block.text)
        elif block.language == "python":
            printed[number] = _run_python(block.text, f"<{page.name}, block {number}>", names)
        elif commands and block.language == "sh":
            typed = blocks[number + 1].text if blocks[number + 1].language == "ipython" else None
            printed[number if typed is None else number + 1] = _run_commands(block.text, typed)
    for number, (process, first) in others.items():
        rest, _ = process.communicate(timeout=TIMEOUT_S)
        if process.returncode:
            raise SystemExit(f"the second terminal of {page.name} ended with {process.returncode}")
        printed[number] = first + rest
    return printed


def _run_python(text: str, name: str, names: dict[str, object]) -> str:
    linecache.cache[name] = (
        len(text),
        None,
        text.splitlines(keepends=True),
        name,
    )  # for tracebacks, and hypothesis
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(text, name, "exec"), names)
    return said.getvalue()


def _start(text: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-W", "error", "-X", "utf8", "-u", "-c", text]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    return process, process.stdout.readline()


def _run_commands(text: str, typed: str | None) -> str:
    lines = [line.split("  #")[0] for line in text.splitlines() if line and not line.startswith(NOT_RUN)]
    return "".join(_in_terminal(line) if typed is None else _at_prompt(line, typed) for line in lines)


def _in_terminal(line: str) -> str:
    import pexpect

    program, *arguments = shlex.split(line, comments=True)
    said, code = pexpect.run(
        shlex.join([str(Path(sys.executable).with_name(program)), *arguments]),
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
        dimensions=(50, 80),
        timeout=TIMEOUT_S,
        withexitstatus=True,
        encoding="utf-8",
    )
    if code:
        raise SystemExit(f"{line} ended with {code}: {said}")
    return said.replace("\r\n", "\n")


def _at_prompt(line: str, typed: str) -> str:
    program, *arguments = shlex.split(line)
    plain = ["--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments, *plain],
        input=f"{typed}\nexit\n",
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=True,
    )
    if "Traceback" in done.stdout or "Error" in done.stdout:
        raise SystemExit(f"{line}: {done.stdout}")
    return done.stdout


if __name__ == "__main__":
    page, *asked = sys.argv[1:]
    json.dump(run_page(Path(page), commands="--commands" in asked), sys.stdout)
