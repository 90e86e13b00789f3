"""Which store is meant where nobody names one: at the command line, and in an IPython session.

The first of these that there is: ``$GENTLY_STORE``; the store that the current folder lies in; the ``store`` of
the configuration file; ``~/dispim``. The configuration file is TOML, in the folder where the system keeps those
of programs (``~/.config/gently-bluesky/config.toml`` on Linux)::

    store = "/data/dispim"
    overflow = "/scratch/dispim-overflow"    # the rest goes with the store, see `Store`
    index = "sqlite:////local/dispim.sqlite"
    allowed_roots = ["/data/ioc"]
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.segments import MARKER

__all__ = ["Place", "config_file", "default_place"]

VARIABLE = "GENTLY_STORE"
USUAL = "~/dispim"
KEYS: dict[str, type] = {"store": str, "overflow": str, "index": str, "allowed_roots": list}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is, with what `Store` has to be told to open it.

    Attributes
    ----------
    root
        Whole path of its folder.
    named_by
        Who says so, for people.
    overflow, index, allowed_roots
        As for `Store`.
    """

    root: Path
    named_by: str
    overflow: Path | None = None
    index: str | None = None
    allowed_roots: tuple[Path, ...] = ()


def default_place(given: Path | None = None) -> Place:
    """Return the store that is meant, whether it is there or not.

    What the configuration file says beside ``store`` goes with that store alone, whoever names it.

    Raises
    ------
    InvalidSetting
        The configuration file cannot be read, or holds what it does not know.
    """
    configured = _configured()
    if given is not None:
        place = Place(_whole(given), "you")
    elif os.environ.get(VARIABLE):
        place = Place(_whole(os.environ[VARIABLE]), f"${VARIABLE}")
    elif (around := _store_around(Path.cwd())) is not None:
        place = Place(around, "the current folder")
    elif configured is not None:
        place = configured
    else:
        place = Place(_whole(USUAL), "default")
    return configured if configured is not None and configured.root == place.root else place


def config_file() -> Path:
    """Return where the configuration file is looked for, whether it is there or not."""
    import typer

    return Path(typer.get_app_dir("gently-bluesky"), "config.toml")


def _configured() -> Place | None:
    path = config_file()
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # a TOML error is a ValueError, as half a character is
        raise InvalidSetting(f"{path} cannot be read: {error}; mend it, or move it away") from error
    for key, value in said.items():
        if not isinstance(value, KEYS.get(key, ())) or (key == "allowed_roots" and not _are_texts(value)):
            raise InvalidSetting(
                f"{path}: expected the keys {', '.join(KEYS)} with text, or a list of texts for "
                f"allowed_roots, got {key} = {value!r:.80}; mend it, or move it away"
            )
    if "store" not in said:
        raise InvalidSetting(
            f"{path}: expected a store, got {', '.join(said) or 'nothing'}; add a line: store = ..."
        )
    return Place(
        root=_whole(said["store"]),
        named_by=str(path),
        overflow=_whole(said["overflow"]) if "overflow" in said else None,
        index=said.get("index"),
        allowed_roots=tuple(_whole(one) for one in said.get("allowed_roots", ())),
    )


def _are_texts(value: Any) -> bool:
    return all(isinstance(one, str) for one in value)


def _store_around(folder: Path) -> Path | None:
    return next((above for above in (folder, *folder.parents) if (above / MARKER).is_file()), None)


def _whole(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()
