"""An event of an array, and a run, at a glance: what is read for a figure, and where it stands in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from os import PathLike
from typing import TYPE_CHECKING, cast

from gently_bluesky.errors import GentlyError, InputError, LookupFailed
from gently_bluesky.model import is_derived
from gently_bluesky.pages import status_text
from gently_bluesky.plots import Drawing, Page, kept, sheet_figure
from gently_bluesky.previews import Sheet, compose
from gently_bluesky.projections import Panel, panels
from gently_bluesky.wording import TO_THE_SECOND, clock

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray
    from gently_bluesky.run import Run
    from gently_bluesky.streams import Stream

__all__ = ["array_figure", "run_figure"]

LONGEST = 640
MOST_ARRAYS, MOST_SERIES = 4, 12
WIDTH, MARGIN, HEAD, LINE, ROW = 1000, 16, 58, 18, 150
"""Pixels: of the page, around it, of its heading, of a line of text, of a row of numbers."""


def array_figure(array: LazyArray, path: str | PathLike[str] | None, event: int) -> Drawing:
    """Return the picture of one event of an array, and write it where that is asked for."""
    shown = panels(array, event)
    return kept(sheet_figure(compose(shown), shown[0].title, window=path is None), path)


@dataclass(frozen=True, slots=True)
class _Series:
    """The numbers of a data key: when, in seconds from the run's start, and what."""

    name: str
    times_s: list[float]
    values: list[float]

    @property
    def is_constant(self) -> bool:
        return len(self.values) > 1 and min(self.values) == max(self.values)


def run_figure(run: Run, path: str | PathLike[str] | None) -> Drawing:
    """Return a page: how the run stands, its last stored arrays, and numbers over time; write it if asked to."""
    streams = [cast("Stream", run[name]) for name in run.streams]
    sheet, notes = _sheet(streams)
    found = [series for stream in streams for series in _series(run, stream, many=len(streams) > 1)]
    moving = [series for series in found if not series.is_constant]
    resting = [f"{series.name} = {series.values[0]:g}" for series in found if series.is_constant]
    if len(moving) > MOST_SERIES:
        notes.append(f"and {len(moving) - MOST_SERIES} more data keys with numbers: run.table() has all")
    notes += _wrapped("constant: ", resting)
    if not found and sheet is None:
        notes.append("no numbers and no images")
    moving = moving[:MOST_SERIES]
    height, width = (0, 0) if sheet is None else sheet.pixels.shape[:2]
    columns = 2 if len(moving) > 1 else 1
    deep = ROW * -(-len(moving) // columns)
    width = max(WIDTH, width)
    page = Page(
        f"run {run.uid[:8]}",
        width,
        HEAD + height + deep + LINE * len(notes) + 2 * MARGIN,
        window=path is None,
    )
    _head(page, run)
    if sheet is not None:
        page.picture(sheet, HEAD)
    _numbers(page, moving, HEAD + height, columns)
    for number, note in enumerate(notes):
        page.text(
            MARGIN, HEAD + height + deep + MARGIN + LINE * (number + 0.8), note, fontsize=8.5, color="#555555"
        )
    return kept(page.figure, path)


def _head(page: Page, run: Run) -> None:
    record, start = run.record, run.start
    words = [str(start.get("plan_name") or record.data_type or "run"), run.uid[:8], status_text(record)]
    page.text(MARGIN, 26, f"{words[0]} {words[1]}: {words[2]}", fontsize=12, fontweight="bold")
    more = [clock(record.time, TO_THE_SECOND)]
    more += [f"{key} {start[key]}" for key in ("session", "embryo", "sample", "operation") if start.get(key)]
    if run.stop is not None and not is_derived(start):
        more.append(f"took {run.stop['time'] - record.time:.3g} s")
    page.text(MARGIN, 46, ", ".join(more)[:160], fontsize=9, color="#555555")


def _sheet(streams: Sequence[Stream]) -> tuple[Sheet | None, list[str]]:
    """Return the last stored arrays as a picture, and what is to be said of those that are not in it."""
    shown: list[Panel] = []
    notes: list[str] = []
    stored = [(of, key) for of in streams for key, said in of.declared.items() if said.get("external")]
    for of, key in stored[:MOST_ARRAYS]:
        try:
            shown += panels(of[key], name=f"{of.name}/{key}" if len(streams) > 1 else key)
        except (InputError, LookupFailed):
            continue  # no images, or no event yet
        except GentlyError as error:
            notes.append(f"{key} cannot be opened: {error}"[:160])
    if len(stored) > MOST_ARRAYS:
        notes.append(f"and {len(stored) - MOST_ARRAYS} more data keys with arrays")
    try:
        return (compose(shown, longest=LONGEST) if shown else None), notes
    except GentlyError as error:
        return None, [*notes, f"the arrays cannot be read: {error}"[:160]]


def _series(run: Run, stream: Stream, *, many: bool) -> Iterator[_Series]:
    begin_s = run.record.time
    for key, said in stream.declared.items():
        if said.get("external") or said.get("shape"):
            continue
        if key.endswith("_setpoint") and key.removesuffix("_setpoint") in stream.declared:
            continue  # ophyd's word for where a motor was sent, beside where it was
        times_s: list[float] = []
        values: list[float] = []
        for event in stream.events:
            value = event["data"].get(key)
            if isinstance(value, int | float) and isfinite(value):
                times_s.append(event["time"] - begin_s)
                values.append(float(value))
        if values:
            yield _Series(f"{stream.name}/{key}" if many else key, times_s, values)


def _numbers(page: Page, series: Sequence[_Series], top: float, columns: int) -> None:
    width = page.width / columns
    for place, one in enumerate(series):
        row, column = divmod(place, columns)
        axes = page.axes(column * width + 70, top + row * ROW + 34, width - 100, ROW - 72)
        axes.plot(one.times_s, one.values, marker="." if len(one.values) <= 100 else None, linewidth=1.0)
        axes.set_title(one.name, fontsize=9, loc="left", parse_math=False)
        axes.tick_params(labelsize=8)
        axes.ticklabel_format(useOffset=False)
        axes.spines[["top", "right"]].set_visible(False)
        if place >= len(series) - columns:
            axes.set_xlabel("seconds from the run's start", fontsize=8)


def _wrapped(first: str, words: Sequence[str], longest: int = 150) -> list[str]:
    lines: list[str] = []
    for word in words:
        if not lines or len(lines[-1]) + len(word) > longest:
            lines.append(word if lines else f"{first}{word}")
        else:
            lines[-1] += f", {word}"
    return lines[:6]
