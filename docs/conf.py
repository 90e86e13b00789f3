"""How the site is built, with no network: ``python -m sphinx -W --keep-going -b html docs docs/_build``."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

project = "gently-bluesky"
version = release = installed_version(project)
html_title = f"{project} {version}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "class"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": []}
html_show_sourcelink = False

PROGRAMS = Path(__file__).parents[1] / "examples"


def _fill(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put what each command says behind the page of commands, and the programs where the site links to their folder."""
    if page == "reference/commands":
        source[0] += "".join(f"\n## {name}\n\n```text\n{said}\n```\n" for name, said in _helps())
    elif page == "examples":
        told = (PROGRAMS / "README.md").read_text("utf-8")
        source[0] = re.sub(r"\]\((\w+\.py)\)", r"](../examples/\1)", told) + "".join(map(_shown, _programs()))
    else:
        source[0] = source[0].replace("](../examples/README.md)", "](examples.md)")


def _programs() -> list[str]:
    return sorted(path.name for path in PROGRAMS.glob("[0-9]*.py"))


def _shown(name: str) -> str:
    return f"\n## {name}\n\n```{{literalinclude}} ../examples/{name}\n:language: python\n```\n"


def _helps() -> list[tuple[str, str]]:
    from typer.testing import CliRunner

    from gently_bluesky.cli import app as commands

    names = [command.name or command.callback.__name__ for command in commands.registered_commands]
    asked = [[], *([name] for name in names)]
    terminal = CliRunner(env={"COLUMNS": "92", "TERMINAL_WIDTH": "92", "NO_COLOR": "1", "TERM": "dumb"})
    said = (terminal.invoke(commands, [*words, "--help"], prog_name=project) for words in asked)
    return [
        (" ".join([project, *words]), "\n".join(line.rstrip() for line in one.stdout.strip().splitlines()))
        for words, one in zip(asked, said, strict=True)
    ]


def setup(app: Sphinx) -> None:
    """Have the pages filled that are made of something else."""
    app.connect("source-read", _fill)
