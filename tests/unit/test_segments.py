"""Segments of shared memory: who may sweep them, and what happens to who makes one meanwhile."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gently_bluesky import segments
from gently_bluesky.files import remove_tree
from gently_bluesky.segments import (
    LOCK,
    MARKER,
    Owner,
    Segment,
    abandoned_segments,
    create_segment,
    names_of,
    owner_of,
    random_name,
    remove_segment,
    shared_folder,
    tag_of,
)


@pytest.fixture
def tag() -> Iterator[str]:
    """Of a store that is only a name; what is in memory of it goes after the test."""
    found = tag_of(str(uuid.uuid4()))
    yield found
    for name in names_of(found):
        remove_tree(shared_folder() / name)


@pytest.fixture
def make(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Segment]]:
    """Make segments of that store."""
    (tmp_path / MARKER).write_text('{"store_uid": "a store"}')
    monkeypatch.setattr(segments, "tag_of", lambda _: tag)
    made: list[Segment] = []

    def one() -> Segment:
        made.append(create_segment(tmp_path / "run" / "a.memory"))
        return made[-1]

    yield one
    for segment in made:
        segment.let_go()


def swept(tag: str) -> list[tuple[str, Owner]]:
    return list(abandoned_segments(tag))


def test_segment_is_abandoned_when_its_maker_lets_go_of_it(tag, make, tmp_path):
    first, second = make(), make()
    assert swept(tag) == []
    first.let_go()
    first.let_go()
    assert swept(tag) == [(first.name, Owner(str(tmp_path), "run/a.memory"))]
    assert owner_of(second.name) == Owner(str(tmp_path), "run/a.memory")
    remove_segment(first.name)
    remove_segment(first.name)
    assert names_of(tag) == [second.name]


@pytest.mark.parametrize(
    "before", ["make_locked", "wait_for_lock"], ids=["it has a lock file", "it is locked"]
)
def test_segment_that_is_swept_while_it_is_made_is_made_again(tag, make, monkeypatch, before):
    """By a process that opens the store at that very moment."""
    went_on, seen = getattr(segments, before), list[list[str]]()

    def sweep_first(argument: object) -> object:
        monkeypatch.setattr(segments, before, went_on)
        seen.append(names_of(tag))
        assert swept(tag) == []
        return went_on(argument)

    monkeypatch.setattr(segments, before, sweep_first)
    segment = make()
    assert seen != [[]]
    assert names_of(tag) == [segment.name] != seen[0]
    assert (segment.folder / LOCK).exists()
    assert swept(tag) == []


@pytest.mark.parametrize("died", ["at once", "before it said what it is for"])
def test_segment_whose_maker_died_while_making_it_is_removed(tag, died):
    folder = shared_folder() / random_name(tag)
    folder.mkdir()
    if died != "at once":
        (folder / LOCK).touch()
    assert swept(tag) == []
    assert not folder.exists()


def test_pixels_stay_when_the_lock_file_is_lost(tag, make):
    segment = make()
    (segment.folder / "000000.raw").write_bytes(b"pixels")
    (segment.folder / LOCK).unlink()
    assert swept(tag) == []
    assert (segment.folder / "000000.raw").read_bytes() == b"pixels"


def test_link_that_is_named_like_a_segment_is_left_alone(tag, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "file").write_text("mine")
    link = shared_folder() / random_name(tag)
    try:
        link.symlink_to(target)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    try:
        assert swept(tag) == []
        assert owner_of(link.name) is None
        remove_segment(link.name)
        assert [file.name for file in target.iterdir()] == ["file"]
        assert link.is_symlink()
    finally:
        link.unlink()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, who may give files away"
)
def test_folder_of_another_user_is_left_alone(tag, make):
    """Whatever it says it is for."""
    segment = make()
    segment.let_go()
    os.chown(segment.folder, 12345, 12345)
    assert swept(tag) == []
    assert owner_of(segment.name) is None
    remove_segment(segment.name)
    assert (segment.folder / LOCK).exists()
