"""Every kind of file, spoilt at random: never wrong pixels, never an unclear error, no hang and no crash."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from stores import STORES
from zygote import Zygote

from gently_bluesky.backends.registry import get_backend
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.testing.assets import array_spec, full, write_asset

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


@pytest.mark.parametrize("shape", [(12, 16), (300,)])
def test_no_flipped_bit_beside_the_pixels_of_a_tiff_file_shows_other_pixels(
    tmp_path: Path, shape: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # tifffile tells of each
    backend, selection = get_backend("tiff"), full((1, *shape))
    kwargs = write_asset(backend, tmp_path / "a", array_spec(shape), [0])
    pixels = backend.open(tmp_path / "a", kwargs, 1).read(selection)
    (file,) = (tmp_path / "a").iterdir()
    content = file.read_bytes()
    first = content.index(pixels.tobytes())
    for place in (*range(first), *range(first + pixels.nbytes, len(content))):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with suppress(AssetDamaged):
            assert np.array_equal(backend.open(tmp_path / "a", kwargs, 1).read(selection), pixels)


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
