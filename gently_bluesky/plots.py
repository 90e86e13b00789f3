"""Figures of matplotlib: a picture with its words, a run at a glance, a lineage. Importing it needs matplotlib.

A figure needs no pyplot. Where pyplot is in use and opens windows, as after ``%matplotlib`` in IPython, it opens one
for the figure too; a notebook shows it below its cell; anywhere else it is for ``savefig``.
"""

from __future__ import annotations

import sys
from io import BytesIO
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

from gently_bluesky.errors import InvalidSetting, MissingExtra
from gently_bluesky.files import storage_error
from gently_bluesky.pictures import DARK
from gently_bluesky.previews import Sheet
from gently_bluesky.wording import printable

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise MissingExtra(
        "figures need matplotlib, which is not installed; nothing was read; it comes with the extra 'profile': "
        "python -m pip install 'gently-bluesky[profile]'"
    ) from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Drawing", "Page", "kept", "sheet_figure"]

DPI = 100
LIGHT = "#dddddd"
SIZE_PT, STRONG_PT = 8.5, 11.0


class Drawing(Figure):
    """A figure that notebooks show whether or not pyplot was imported."""

    title = "figure"

    def _repr_png_(self) -> bytes:
        """Return what notebooks show."""
        return self.png()

    def png(self) -> bytes:
        """Return it as a PNG file, a pixel for a pixel."""
        out = BytesIO()
        self.savefig(out, format="png", dpi=self.dpi)
        return out.getvalue()

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        return (
            f"<Drawing {width} x {height}: {self.title}; .savefig(path) keeps it, %matplotlib opens windows>"
        )


class Page:
    """A drawing that is laid out in pixels, from its upper left corner.

    Parameters
    ----------
    title
        What it shows, for its window and its repr.
    """

    def __init__(self, title: str, width: float, height: float, *, window: bool) -> None:
        self.width, self.height = width, height
        size = (width / DPI, height / DPI)
        pyplot = _pyplot_with_windows() if window else None
        if pyplot is None:
            self.figure = Drawing(figsize=size, dpi=DPI)
        else:
            self.figure = cast("Drawing", pyplot.figure(FigureClass=Drawing, figsize=size, dpi=DPI))
            pyplot.get_current_fig_manager().set_window_title(printable(title))
        self.figure.title = printable(title)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes that fill a box."""
        box = (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(box)

    def text(self, x: float, y: float, text: str, **more: Any) -> None:
        """Write a line that ends above ``y``; nothing in it is taken for mathematics."""
        self.figure.text(
            x / self.width, 1 - y / self.height, printable(text), parse_math=False, va="baseline", **more
        )

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, strong: bool, dashed: bool
    ) -> None:
        """Draw a box around a point."""
        corner = (x - width / 2) / self.width, 1 - (y + height / 2) / self.height
        self.figure.add_artist(
            Rectangle(
                corner,
                width / self.width,
                height / self.height,
                facecolor=fill,
                edgecolor="#333333" if strong else "#999999",
                linewidth=1.8 if strong else 0.8,
                linestyle="--" if dashed else "-",
                transform=self.figure.transFigure,
            )
        )

    def picture(self, sheet: Sheet, y: float = 0.0) -> None:
        """Draw a sheet, a pixel of it for one of the page, with its words."""
        height = sheet.pixels.shape[0]
        axes = self.axes(0, y, self.width, height)
        axes.set(xticks=[], yticks=[], facecolor=(DARK / 255,) * 3)
        axes.spines[:].set_visible(False)
        axes.imshow(sheet.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        axes.set_xlim(-0.5, self.width - 0.5)
        for label in sheet.labels:
            axes.text(
                label.x,
                label.y,
                printable(label.text),
                ha=label.align,
                va="baseline",
                color="white" if label.strong else LIGHT,
                fontsize=STRONG_PT if label.strong else SIZE_PT,
                parse_math=False,
                clip_on=True,
            )


def _pyplot_with_windows() -> Any:
    """Return pyplot where it is in use and shows figures in windows, else None."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return None
    from matplotlib.backends.registry import (
        BackendFilter,
        backend_registry,
    )

    windows = {*backend_registry.list_builtin(BackendFilter.INTERACTIVE)} - {"nbagg", "webagg"}
    return pyplot if pyplot.get_backend().lower() in windows else None


def kept(figure: Drawing, path: str | PathLike[str] | None) -> Drawing:
    """Write a figure, over what is at ``path``, in the format that the path's ending says; return it.

    Raises
    ------
    InvalidSetting
        matplotlib writes no such format.
    StorageError
        It cannot be written there.
    """
    if path is not None:
        try:
            figure.savefig(fspath(path), dpi=figure.dpi)
        except ValueError as error:
            raise InvalidSetting(f"{fspath(path)}: {error}; nothing was written") from error
        except OSError as error:
            raise storage_error(error, f"{fspath(path)} cannot be written") from error
    return figure


def sheet_figure(sheet: Sheet, title: str, *, window: bool = True) -> Drawing:
    """Return a picture with its words, pixel for pixel."""
    height, width = sheet.pixels.shape[:2]
    page = Page(title, width, height, window=window)
    page.picture(sheet)
    return page.figure
