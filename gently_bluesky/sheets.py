"""The picture of whatever a uid stands for, and the file that it is kept in, with matplotlib or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gently_bluesky.errors import GentlyError, InputError, LookupFailed, MissingExtra
from gently_bluesky.files import storage_error
from gently_bluesky.model import is_derived
from gently_bluesky.pages import status_text
from gently_bluesky.pictures import png_bytes
from gently_bluesky.previews import Sheet, compose
from gently_bluesky.projections import MOST_PANELS, Panel, panels
from gently_bluesky.reading import StoreView
from gently_bluesky.wording import TO_THE_SECOND, clock

if TYPE_CHECKING:
    from gently_bluesky.model import Record
    from gently_bluesky.run import Run
    from gently_bluesky.streams import Stream

__all__ = ["Subject", "new_file", "subject_of", "write_sheet"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a picture is of.

    Attributes
    ----------
    uid
        Of the run, array or event.
    heading
        What it is, in a line.
    panels
        Its images; none of them is read yet.
    left_out
        Why some are not among them.
    """

    uid: str
    heading: str
    panels: tuple[Panel, ...]
    left_out: tuple[str, ...]

    def sheet(self) -> Sheet:
        """Read it. Raises as `compose`."""
        return compose(self.panels, self.heading)


def subject_of(store: StoreView, record: Record, event: int = -1) -> Subject:
    """Return what there is to see of a run, a derived result, an array or an event.

    Parameters
    ----------
    event
        Which one of each array that has several, the last by default.

    Raises
    ------
    InputError, LookupFailed
        It has no images, or no such event.
    AssetMissing, AssetDamaged
        The files are not there, or not what was stored.
    """
    run = store[record.run_uid]
    if record.kind == "run":
        shown, left_out = _of_run(run, event)
    else:
        name = "/".join(filter(None, (record.stream, record.data_key)))
        shown, left_out = panels(store.array(record.uid), event, name), []
    if len(shown) > MOST_PANELS:
        left_out.append(f"and {len(shown) - MOST_PANELS} more images")
    return Subject(record.uid, _heading(run.record), tuple(shown[:MOST_PANELS]), tuple(left_out))


def _heading(run: Record) -> str:
    kind = run.data_type if is_derived(run.metadata) else run.metadata.get("plan_name")
    words = [str(kind or "run"), run.uid[:8]]
    more = [status_text(run), clock(run.time, TO_THE_SECOND)]
    more += [f"{key} {run.metadata[key]}" for key in ("session", "embryo") if run.metadata.get(key)]
    return ", ".join([" ".join(words), *more])


def _of_run(run: Run, event: int) -> tuple[list[Panel], list[str]]:
    """Return the images of all stored arrays, and why others are left out; what fails for all is raised."""
    streams = [cast("Stream", run[name]) for name in run.streams]
    shown: list[Panel] = []
    left_out: list[str] = []
    first: GentlyError | None = None
    for of in streams:
        for key in (key for key, said in of.declared.items() if said.get("external")):
            name = f"{of.name}/{key}" if len(streams) > 1 else key
            try:
                shown += panels(of[key], event, name)
            except GentlyError as error:
                left_out.append(f"{name}: {error}")
                first = first or error
    if not shown:
        raise first or InputError(
            f"expected a run with images, run {run.uid} ({run.status}) has "
            f"{', '.join(key for of in streams for key in of) or 'no streams'}; nothing was read; run.plot() shows "
            "numbers"
        )
    return shown, left_out


def new_file(asked_for: Path | None, subject: Subject, event: int, *, replace: bool) -> Path:
    """Return where a picture goes: by default into the current folder, named by what it shows.

    Raises
    ------
    InputError
        Something is there and is not to be replaced, or it is no name of a PNG file.
    LookupFailed
        There is no such folder.
    """
    head, _, tail = subject.uid.partition("/")
    short = "-".join(filter(None, (head[:8], tail, "" if event == -1 else f"event{event}")))
    name = f"preview-{''.join(one if one.isalnum() or one == '-' else '_' for one in short)}.png"
    path = Path(name) if asked_for is None else asked_for.expanduser()
    path = path / name if path.is_dir() else path
    if path.suffix.lower() != ".png":
        raise InputError(
            f"expected the name of a PNG file, got {path}; nothing was written; end it with .png"
        )
    if not path.parent.is_dir():
        raise LookupFailed(f"expected a folder at {path.parent}, there is none; nothing was written")
    if path.exists() and not replace:
        raise InputError(
            f"{path} is there already; nothing was written; give another --output, or --force to replace it"
        )
    return path


def write_sheet(sheet: Sheet, path: Path, *, replace: bool) -> bool:
    """Write a picture; say whether its words are in it, which takes matplotlib.

    Raises
    ------
    InputError
        Something came to be there meanwhile, and is not to be replaced.
    StorageError
        It cannot be written.
    """
    try:
        from gently_bluesky.plots import sheet_figure

        png = sheet_figure(sheet, path.stem, window=False).png()
        has_words = True
    except MissingExtra:
        png, has_words = png_bytes(sheet.pixels), False
    try:
        with path.open("wb" if replace else "xb") as file:
            file.write(png)
    except FileExistsError as error:
        raise InputError(f"{path} is there already; nothing was written") from error
    except OSError as error:
        raise storage_error(error, f"{path} cannot be written") from error
    return has_words
