"""Every kind of file, spoilt at random: never wrong pixels, never an unclear error, no hang and no crash."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from stores import STORES, acquire
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.backends.registry import get_backend
from gently_bluesky.errors import AssetDamaged, JournalDamaged
from gently_bluesky.testing.assets import array_spec, full, write_asset

MANY_SEEDS = 400


@pytest.fixture(scope="module")
def template(
    children: Zygote, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A store of a kind, to be copied."""
    root = tmp_path_factory.mktemp("templates") / request.param
    children.call("make_template", name=request.param, template=str(root))
    return root


@pytest.mark.parametrize("template", STORES, indirect=True)
def test_a_spoilt_file_costs_nothing_but_what_it_held(
    children: Zygote, template: Path, tmp_path: Path
) -> None:
    spoil(children, template, tmp_path)


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


def test_a_number_in_a_journal_that_was_flipped_is_not_read(tmp_path: Path) -> None:
    kept = acquire(tmp_path / "store", "flipped", format="tiff")
    (journal,) = tmp_path.glob("store/runs/*/*/*/*/documents.jsonl")
    flipped, found = re.subn(rb'("n":)1(?=[,}])', rb"\g<1>0", journal.read_bytes())
    assert found == 1
    journal.write_bytes(flipped)
    with (
        Store(tmp_path / "store", mode="r") as store,
        pytest.raises(JournalDamaged, match="its checksum is that of other bytes"),
    ):
        store[kept.uid]["primary"]["n"].compute()


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1000 + MANY_SEEDS, 10))
@pytest.mark.parametrize("template", STORES, indirect=True, scope="module")
def test_spoilt_files_by_the_thousand_cost_nothing_but_what_they_held(
    children: Zygote, template: Path, tmp_path: Path, first: int
) -> None:
    spoil(children, template, tmp_path, range(first, first + 10))


def spoil(children: Zygote, template: Path, scratch: Path, seeds: range | None = None) -> None:
    """Spoil files by chance, or, without seeds, each kind of file of the store, in turn, and one by chance."""
    how = {"scratch": str(scratch), "seeds": None if seeds is None else list(seeds)}
    said = children.call("spoil_and_read", name=template.name, template=str(template), **how)
    assert not said, "\n".join(said)
