"""The backend in docs/backends.md, as somebody would copy it: packaged, installed, found, and conformant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import gently_bluesky.backends

REPOSITORY = Path(__file__).parents[2]
PACKAGE_ROOT = Path(gently_bluesky.backends.__file__).parents[2]


def blocks(language: str) -> list[str]:
    text = (REPOSITORY / "docs" / "backends.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(*arguments: str | Path, folder: Path, path: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_backend_in_the_documentation_is_complete(tmp_path: Path) -> None:
    module, suite = blocks("python")
    (pyproject,) = blocks("toml")
    package, installed, tests = (tmp_path / name for name in ("package", "installed", "tests"))
    for folder in (package, tests):
        folder.mkdir()
    (package / "gently_npy.py").write_text(module)
    (package / "pyproject.toml").write_text(pyproject)
    (tests / "test_npy.py").write_text(suite)

    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    run("-m", "pip", "install", *options, "--target", installed, package, folder=tmp_path, path="")

    path = os.pathsep.join([str(installed), str(PACKAGE_ROOT)])
    names = (
        "from gently_bluesky.backends.registry import *; "
        "print(*backend_names(), backend_for_spec('EXAMPLE_NPY').name)"
    )
    assert run("-c", names, folder=tests, path=path).split() == ["zarr", "tiff", "memory", "npy", "npy"]
    how = ["-q", "-p", "no:cacheprovider", "-W", "error", "--basetemp", tmp_path / "temporary"]
    told = run("-m", "pytest", *how, "test_npy.py", folder=tests, path=path)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    assert int(passed[1]) > 70, told
