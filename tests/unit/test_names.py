"""Whatever people call things, a file's name is one plain component, and two things never meet on one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gently_bluesky.documents.names import asset_name, day_folder, escape, run_folder, unescape
from gently_bluesky.errors import InvalidDocument

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
SUFFIXES = st.sampled_from(["", ".ome.zarr", ".zarr"])
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³")}
FORBIDDEN = re.compile(r'[<>:"/\\|?*\0-\x1f\x7f-\U0010ffff]')
HOSTILE = [
    "../../etc",
    "..",
    ".",
    "",
    "/",
    "CON",
    "nul.txt",
    "a:b",
    "a\0b",
    "ü" * 500,
    " ",
    "a ",
    "-",
    "~",
    "=",
    "x" * 9000,
]


def assert_plain(component: str) -> None:
    """One path component that every file system takes, and that means the same where case is folded."""
    assert component
    assert not FORBIDDEN.search(component)
    assert component == component.lower()
    assert not component.startswith((".", " "))
    assert not component.endswith((".", " "))
    assert component.split(".")[0] not in RESERVED
    assert len(component) <= 140


@given(ANY_TEXT)
@settings(deadline=None, max_examples=500)
@example("\u0130\u0131\u017f\u212a")  # letters that case folding turns into others
def test_escape_is_reversible_and_stays_small_and_plain(name: str) -> None:
    escaped = escape(name)
    assert unescape(escaped) == name
    assert re.fullmatch(r"[a-z0-9_~=]*", escaped)


@given(
    st.tuples(ANY_TEXT, ANY_TEXT),
    st.tuples(ANY_TEXT, ANY_TEXT),
    st.integers(1, 12),
    st.integers(1, 12),
    SUFFIXES,
)
@settings(deadline=None, max_examples=500)
@example(("a-b", "c"), ("a", "b-c"), 1, 1, "")
@example(("a", "b-2"), ("a", "b"), 1, 2, "")
@example(("a", "b"), ("A", "b"), 1, 1, ".zarr")
@example(("a", "~b"), ("a", "B"), 1, 1, "")
@example(("", "a"), ("a", ""), 1, 1, "")
@example(("x" * 90, "a"), ("x" * 90, "b"), 1, 1, "")
@example(("x" * 78, "y" * 30), ("x" * 78, "y" * 31), 1, 1, "")
def test_two_assets_never_meet_on_one_name(
    one: tuple[str, str], other: tuple[str, str], first: int, second: int, suffix: str
) -> None:
    names = asset_name(*one, first, suffix), asset_name(*other, second, suffix)
    assert (names[0].casefold() == names[1].casefold()) == ((one, first) == (other, second))
    for name in names:
        assert_plain(name)


@pytest.mark.parametrize("stream", HOSTILE)
@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_names_make_plain_ones(tmp_path: Path, stream: str, key: str) -> None:
    name = asset_name(stream, key, 3, ".ome.zarr")
    assert_plain(name)
    (tmp_path / name).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@given(
    ANY_TEXT | st.none() | st.integers() | st.sampled_from(HOSTILE),
    ANY_TEXT.filter(bool),
    st.floats(0, 4e9),
)
@settings(deadline=None, max_examples=300)
def test_folder_of_a_run_is_four_plain_components_below_runs(plan: Any, uid: str, time_s: float) -> None:
    folder = run_folder({"time": time_s, "plan_name": plan, "uid": uid})
    parts = folder.split("/")
    assert re.fullmatch(r"runs/\d{4}/\d\d/\d\d", "/".join(parts[:4]))
    assert len(parts) == 5
    assert re.fullmatch(r"\d{6}_[a-z0-9]+(-[a-z0-9]+)*_[a-z0-9]{8}", parts[4])
    assert_plain(parts[4])


def test_folder_of_a_run_says_when_what_and_which() -> None:
    moment = time.mktime((2026, 11, 21, 14, 30, 5, 0, 0, -1))
    start = {"time": moment, "plan_name": "acquire_volume", "uid": "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"}
    assert run_folder(start) == "runs/2026/11/21/143005_acquire-volume_1b9d6bcd"
    assert run_folder({**start, "plan_name": None, "data_type": "Fused Volume"}).endswith(
        "_fused-volume_1b9d6bcd"
    )


@pytest.mark.parametrize("time_s", [1e300, -1e300, float("inf"), float("nan"), 1e18])
def test_time_that_no_calendar_has_is_refused(time_s: float) -> None:
    with pytest.raises(InvalidDocument, match="seconds since 1970"):
        day_folder(time_s)
