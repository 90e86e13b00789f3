"""How the site is built, with no network: ``python -m sphinx -W --keep-going -b html docs docs/_build``."""

from __future__ import annotations

from importlib.metadata import version as installed_version

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

COMMANDS = "reference/commands"


def _say_commands(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put what each command says of itself behind the page of commands."""
    if page == COMMANDS:
        source[0] += "".join(f"\n## {name}\n\n```text\n{said}\n```\n" for name, said in _helps())


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
    """Have the page of commands filled."""
    app.connect("source-read", _say_commands)
