"""Which folders may be read: paths that documents or files name are followed into these and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gently_bluesky.errors import InvalidSetting, PathNotAllowed

__all__ = ["Roots"]


class Roots:
    """Folders below which files of other writers are read. Any thread.

    Parameters
    ----------
    folders
        ``~`` is the home folder. One that is not there allows nothing, until it is.

    Raises
    ------
    InvalidSetting
        One of them is no path of a folder, or a relative one.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        self._folders: tuple[Path, ...] = tuple(_absolute(folder) for folder in _several(folders))

    def __repr__(self) -> str:
        return ", ".join(map(str, self._folders))

    def beside(self, folder: Path) -> Roots:
        """Return these with one more."""
        return Roots((folder, *self._folders))

    def allowed(self, path: Path, what: str) -> Path:
        """Return a path with its links resolved, if that is one of the folders or below one.

        Parameters
        ----------
        path
            Absolute; nothing need be there.
        what
            Whose path it is, for the message.

        Raises
        ------
        PathNotAllowed
            It is not.
        """
        try:
            resolved = path.resolve()
            below = any(resolved.is_relative_to(folder.resolve()) for folder in self._folders)
        except (
            ValueError,
            OSError,
            RuntimeError,
        ) as error:  # a NUL in it, a name too long, links in a circle
            raise PathNotAllowed(
                f"{what}: expected the path of a file, got {str(path)!r:.200}, which is none: {error}; nothing "
                "was read there"
            ) from error
        if not below:
            raise PathNotAllowed(
                f"{what} lies at {str(resolved)!r:.200}, expected below {self}; nothing was read there; if it is "
                f"to be read, open the store with Store(root, allowed_roots=[{str(resolved.parent)!r:.200}])"
            )
        return resolved


def _several(folders: Iterable[str | Path]) -> Iterable[str | Path]:
    if isinstance(folders, str | Path):
        raise InvalidSetting(
            f"expected allowed_roots as a list of folders, got {str(folders)!r}; nothing was opened; give [...]"
        )
    return folders


def _absolute(folder: str | Path) -> Path:
    try:
        path = Path(folder).expanduser()
    except (TypeError, RuntimeError) as error:
        raise InvalidSetting(
            f"expected the path of a folder that may be read, got {folder!r:.200}; nothing was opened"
        ) from error
    if not path.is_absolute():
        raise InvalidSetting(
            f"expected the whole path of a folder that may be read, got {str(folder)!r:.200}; nothing was opened"
        )
    return path
