"""Which store a command is about: its options, and how it is opened to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gently_bluesky.configured import Place
    from gently_bluesky.store import Store

__all__ = ["AllowOption", "IndexOption", "JsonOption", "OverflowOption", "StoreOption", "opened", "place_of"]

STORE_HELP = (
    "Folder of the store. By default [bold]$GENTLY_STORE[/bold], or the store that the current folder lies in, "
    "or that of the configuration file, or ~/dispim."
)

StoreOption = Annotated[Path | None, typer.Option("--store", "-s", help=STORE_HELP)]
IndexOption = Annotated[str | None, typer.Option(help="URL of the index, if it is not in the store.")]
OverflowOption = Annotated[
    Path | None, typer.Option(help="The store's second place, where runs went on when its disk failed.")
]
AllowOption = Annotated[
    list[Path] | None, typer.Option(help="Folder where other writers put their files; may be given again.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def place_of(
    store: Path | None,
    index: str | None = None,
    overflow: Path | None = None,
    allow: list[Path] | None = None,
) -> Place:
    """Return the place that the options name, filled up from what is configured.

    Raises
    ------
    NotAStore
        There is no second place where one was named: opening would make one where a path was mistyped.
    InvalidSetting
        The configuration file is not as it should be.
    """
    from gently_bluesky.configured import default_place
    from gently_bluesky.documents.overflow import OVERFLOW_MARKER
    from gently_bluesky.errors import NotAStore

    place = default_place(store)
    second = overflow or place.overflow
    if second is not None and not (second.expanduser() / OVERFLOW_MARKER).is_file():
        if overflow is not None:
            raise NotAStore(
                f"there is no second place of a store at {overflow} (expected {OVERFLOW_MARKER} in it); nothing "
                "was changed; is its disk mounted?"
            )
        second = None  # one that is configured, and was not needed yet
    return replace(
        place,
        index=index or place.index,
        overflow=second,
        allowed_roots=tuple(allow or place.allowed_roots),
    )


def opened(place: Place, *, writes: bool = False) -> Store:
    """Open a store that is there, to read, or also to change it.

    Raises
    ------
    NotAStore, StoreReadOnly
        There is none, or it may not be changed.
    """
    from gently_bluesky.opening import open_root
    from gently_bluesky.store import Store

    open_root(place.root, "r")  # to write, one would be made where a path was mistyped
    return Store(
        place.root,
        mode="a" if writes else "r",
        index=place.index,
        overflow=place.overflow,
        allowed_roots=place.allowed_roots,
    )
