from __future__ import annotations

from pathlib import Path

import pytest

from gently_bluesky import Store, configured
from gently_bluesky.configured import Place, default_place
from gently_bluesky.errors import InvalidSetting


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a configuration file, in a home and a folder that have nothing to do with this machine's."""
    path = tmp_path / "config.toml"
    monkeypatch.setattr(configured, "config_file", lambda: path)
    monkeypatch.delenv("GENTLY_STORE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return path


def toml(path: Path) -> str:
    return path.as_posix()  # which Windows takes, and TOML needs no escapes for


def test_each_way_of_naming_a_store_wins_over_the_next(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_place() == Place(tmp_path / "home" / "dispim", "default")
    config.write_text(f'store = "{toml(tmp_path / "theirs")}"')
    assert default_place() == Place(tmp_path / "theirs", str(config))
    Store(tmp_path / "here").close()
    (tmp_path / "here" / "runs").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here" / "runs")
    assert default_place() == Place(tmp_path / "here", "the current folder")
    monkeypatch.setenv("GENTLY_STORE", "~/night")
    assert default_place() == Place(tmp_path / "home" / "night", "$GENTLY_STORE")
    assert default_place(Path("given")) == Place(tmp_path / "here" / "runs" / "given", "you")


def test_what_is_configured_goes_with_its_store_alone(config: Path, tmp_path: Path) -> None:
    config.write_text(
        f'store = "{toml(tmp_path / "a")}"\noverflow = "~/more"\nindex = "sqlite:///x"\n'
        f'allowed_roots = ["{toml(tmp_path / "ioc")}"]\n'
    )
    whole = Place(tmp_path / "a", str(config), tmp_path / "home" / "more", "sqlite:///x", (tmp_path / "ioc",))
    assert default_place() == whole
    assert default_place(tmp_path / "a") == whole
    assert default_place(tmp_path / "b") == Place(tmp_path / "b", "you")


@pytest.mark.parametrize(
    "text",
    [
        "store = 3",
        'store = "a"\nstores = "b"',
        'overflow = "b"',
        'store = "a"\nallowed_roots = [1]',
        'store = "a"\nallowed_roots = "b"',
        "store = ",
        b"\xff",
    ],
)
def test_a_configuration_that_says_something_else_is_refused(config: Path, text: str | bytes) -> None:
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidSetting, match=r"config.toml"):
        default_place()


def test_the_configuration_file_lies_where_the_system_keeps_those_of_programs() -> None:
    assert configured.config_file().name == "config.toml"
    assert "gently" in configured.config_file().parent.name.lower()
