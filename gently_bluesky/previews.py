"""Pictures of images and volumes: projections laid out beside each other, contrast stretched, with a scale bar.

What comes out is pixels and the words that belong beside them (`Sheet`): ``pictures`` writes the pixels as they are,
``plots`` puts the words on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.pictures import DARK, ScaleBar, contrast, draw_scale_bar, stretched
from gently_bluesky.projections import Grid, Panel, project

__all__ = ["Label", "Sheet", "Tile", "compose", "tile"]

LONGEST = 960
"""Pixels of a panel's longer side, about."""
NARROWEST = 320
"""Pixels of the picture that a panel has at least, for its words."""
ACROSS = 3
GAP = 6
BETWEEN = 18
TITLE = 44
"""Rows above a panel that its words stand in."""
LETTER, STRONG_LETTER = 7.0, 9.0
"""Pixels that a letter is wide, about."""


@dataclass(frozen=True, slots=True)
class Label:
    """Words of a picture, and where they begin, end (``"right"``) or have their middle; in its pixels."""

    x: float
    y: float
    text: str
    align: str = "left"
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture to be.

    Attributes
    ----------
    pixels
        8 bit, (y, x) grey or (y, x, 3) red, green and blue.
    labels
        What is to be written into it.
    bar_um
        What its scale bars stand for; 0 where there are none.
    pixel_um
        What its pixels stand for; 0 where that is not known.
    limits
        Which values of each panel are black and white.
    captions
        What each panel is, in a line.
    """

    pixels: NDArray[np.uint8]
    labels: tuple[Label, ...]
    bar_um: int
    pixel_um: float
    limits: tuple[tuple[float, float], ...]
    captions: tuple[str, ...]


def compose(shown: Sequence[Panel], heading: str = "", longest: int = LONGEST) -> Sheet:
    """Return panels side by side: each from three sides in true proportions, contrast stretched, a scale bar.

    A maximum along z, and of volumes below it along y, and beside it along x. All panels with known steps have
    pixels of one size. Reads every pixel of the panels once; takes memory for some 64 MiB of it, or for one chunk,
    and for the picture.

    Raises
    ------
    AssetMissing, AssetDamaged
        The pixels are not there, or not what was stored.
    """
    kinds = {panel.has_steps for panel in shown}
    grids = {kind: Grid.for_all([one for one in shown if one.has_steps is kind], longest) for kind in kinds}
    tiles = [tile(panel, grids[panel.has_steps]) for panel in shown]
    across = min(ACROSS, len(tiles))
    width = max(NARROWEST, *(one.pixels.shape[1] for one in tiles))
    rows = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    heights = [TITLE + max(one.pixels.shape[0] for one in row) for row in rows]
    top = TITLE // 2 if heading else 0
    shape = top + sum(heights) + GAP * len(rows), across * (width + BETWEEN) - BETWEEN + 2 * GAP
    coloured = any(one.pixels.ndim > 2 for one in tiles)
    canvas = np.full((*shape, 3) if coloured else shape, DARK, np.uint8)
    labels = (
        [Label(GAP, top * 0.75, _fitted(heading, shape[1], STRONG_LETTER), strong=True)] if heading else []
    )
    y = top
    for row, height in zip(rows, heights, strict=True):
        for x, one in zip(range(GAP, shape[1], width + BETWEEN), row, strict=False):
            one.draw_at(canvas, y + TITLE, x)
            labels += one.labels_at(y + TITLE, x, width)
        y += height + GAP
    captions = tuple(f"{one.panel.title}: {one.words}" for one in tiles)
    bar_um = max(one.bar.um if one.bar else 0 for one in tiles)
    pixel_um = grids[True].pixel if True in grids else 0.0
    return Sheet(canvas, tuple(labels), bar_um, pixel_um, tuple(one.limits for one in tiles), captions)


@dataclass(frozen=True, slots=True)
class Tile:
    """One panel as pixels.

    Attributes
    ----------
    pixels
        Its projections, laid out.
    sides
        Name of each, and its upper left corner.
    limits
        Which of its values are black and white.
    """

    panel: Panel
    pixels: NDArray[np.uint8]
    sides: tuple[tuple[str, int, int], ...]
    bar: ScaleBar | None
    limits: tuple[float, float]

    @property
    def words(self) -> str:
        """What is shown of it."""
        array = self.panel.array
        axes = [f"{dim} {length}" for dim, length in zip(array.dims, array.shape, strict=True)]
        return f"{', '.join(axes)}, {array.dtype}, shown {self.limits[0]:.4g} to {self.limits[1]:.4g}"

    def draw_at(self, canvas: NDArray[np.uint8], y: int, x: int) -> None:
        """Put it into a picture, its upper left corner at y and x."""
        height, width = self.pixels.shape[:2]
        place = canvas[y : y + height, x : x + width]
        place[...] = self.pixels[..., np.newaxis] if place.ndim > self.pixels.ndim else self.pixels

    def labels_at(self, y: int, x: int, width: int) -> list[Label]:
        """Return the words of it: a title above it that is no wider than this, and what is written into it."""
        labels = [
            Label(x, y - 25, _fitted(self.panel.title, width, STRONG_LETTER), strong=True),
            Label(x, y - 8, _fitted(self.words, width, LETTER)),
        ]
        labels += [Label(x + left + 5, y + above + 14, name) for name, above, left in self.sides]
        if self.bar is not None:
            place = x + self.bar.column, y + self.bar.row - 5
            labels.append(Label(*place, f"{self.bar.um} \u00b5m", align="center"))
        return labels


def tile(panel: Panel, grid: Grid) -> Tile:
    """Read a panel; return it with its projections laid out. Raises as `compose`."""
    found = project(panel, grid)
    as_it_is = "c" in panel.axes and panel.array.dtype == np.uint8
    limits = (0.0, 255.0) if as_it_is else contrast(found.all)
    xy, *others = [stretched(image, limits=limits, gamma=1.0) for image in found.all]
    bar = draw_scale_bar(xy, grid.pixel) if panel.has_steps else None
    if not others:
        return Tile(panel, xy, (), bar, limits)
    xz, zy = others
    height, width = xy.shape[:2]
    deep = len(xz)
    pixels = np.full((height + GAP + deep, width + GAP + deep, *xy.shape[2:]), DARK, np.uint8)
    pixels[:height, :width] = xy
    pixels[height + GAP :, :width] = xz
    pixels[:height, width + GAP :] = zy
    named = (("xy", 0, 0), ("xz", height + GAP, 0), ("zy", 0, width + GAP))
    return Tile(panel, pixels, named if deep > 20 else named[:1], bar, limits)


def _fitted(text: str, width: float, letter: float) -> str:
    """Return as much of a line as has room."""
    most = max(8, int(width / letter))
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"
