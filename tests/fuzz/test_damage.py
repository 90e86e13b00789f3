"""Every kind of file, spoilt at random: never wrong pixels, never an unclear error, no hang and no crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import STORES
from zygote import Zygote

SEEDS = 5
MANY_SEEDS = 400


@pytest.fixture(scope="module")
def template(
    children: Zygote, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A store of a kind, to be copied."""
    root = tmp_path_factory.mktemp("templates") / "store"
    children.call("make_template", name=request.param, template=str(root))
    return root


@pytest.mark.parametrize("template", STORES, indirect=True)
def test_a_spoilt_file_costs_nothing_but_what_it_held(
    children: Zygote, template: Path, tmp_path: Path
) -> None:
    spoil(children, template, tmp_path, range(SEEDS))


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1000 + MANY_SEEDS, 10))
@pytest.mark.parametrize("template", STORES, indirect=True, scope="module")
def test_spoilt_files_by_the_thousand_cost_nothing_but_what_they_held(
    children: Zygote, template: Path, tmp_path: Path, first: int
) -> None:
    spoil(children, template, tmp_path, range(first, first + 10))


def spoil(children: Zygote, template: Path, scratch: Path, seeds: range) -> None:
    said = children.call("spoil_and_read", template=str(template), scratch=str(scratch), seeds=list(seeds))
    assert not said, "\n".join(said)
