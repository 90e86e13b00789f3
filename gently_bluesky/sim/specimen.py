"""The specimen: C. elegans embryos whose nuclei divide, as positions and sizes in micrometres.

An embryo is a pure function of its seed and its age: nothing here keeps time, draws pixels or knows a device.
Coordinates are those of the stage, relative to the embryo's centre: x, y in the plane of the stage, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import InvalidSetting

__all__ = ["Blobs", "Embryo", "lay_embryos"]

SEMI_AXES_UM = (25.0, 15.0, 15.0)
"""Semi-axes of the eggshell: 50 x 30 x 30 um, as in C. elegans."""

GENERATIONS = 10
"""Generations of nuclei: 1, 2, 4 ... 512 (a worm hatches with 558)."""

FIRST_DIVISION_MIN = 40.0
SECOND_CYCLE_MIN = 15.0
CYCLE_GROWTH = 1.2
"""Each cell cycle is this much longer than the one before (15 min at two cells, an hour at 256)."""

SEPARATION_MIN = 6.0
"""How long two daughters take to move apart."""

CONDENSATION_MIN = 4.0
"""How long before its division a nucleus shrinks and brightens."""

NUCLEUS_SIGMA_UM = 2.6
NUCLEUS_SHRINKAGE = 0.91
"""A nucleus of generation g is a Gaussian blob of ``NUCLEUS_SIGMA_UM * NUCLEUS_SHRINKAGE**g``."""

CYTOPLASM_BLOBS = 64
CYTOPLASM_SIGMA_UM = 3.5
CYTOPLASM_BRIGHTNESS = 0.035

EMBRYOS_PER_ROW = 4
EMBRYO_SPACING_UM = 600.0
EMBRYO_JITTER_UM = 60.0
MOST_EMBRYOS = 64


@dataclass(frozen=True)
class Blobs:
    """Gaussian blobs of fluorescence.

    Attributes
    ----------
    positions_um
        Centres, shape (n, 3), columns x, y, z in um.
    sigma_um
        Standard deviations, shape (n,), in um.
    brightness
        Peak brightness, shape (n,); a nucleus between divisions has 1.
    """

    positions_um: NDArray[np.float64]
    sigma_um: NDArray[np.float64]
    brightness: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sigma_um)

    def __add__(self, other: Blobs) -> Blobs:
        return Blobs(
            np.concatenate([self.positions_um, other.positions_um]),
            np.concatenate([self.sigma_um, other.sigma_um]),
            np.concatenate([self.brightness, other.brightness]),
        )


@dataclass(frozen=True)
class _Generation:
    """The nuclei of one generation: when each is born and divides, where it comes from and settles."""

    birth_min: NDArray[np.float64]
    division_min: NDArray[np.float64]
    origin_um: NDArray[np.float64]
    home_um: NDArray[np.float64]
    sigma_um: float

    def alive(self, age_min: float) -> Blobs:
        """Return the nuclei of this generation that exist at an age."""
        living = (self.birth_min <= age_min) & (age_min < self.division_min)
        apart = _smooth_step((age_min - self.birth_min[living]) / SEPARATION_MIN)
        ripe = 1.0 - _smooth_step((self.division_min[living] - age_min) / CONDENSATION_MIN)
        origin, home = self.origin_um[living], self.home_um[living]
        condensed = np.maximum(ripe, 1.0 - apart)
        return Blobs(
            positions_um=origin + (home - origin) * apart[:, None],
            sigma_um=self.sigma_um * (1.0 - 0.3 * condensed),
            # A condensed nucleus is half as bright again, and its light is shared by its two daughters.
            brightness=np.asarray((1.0 + 0.5 * ripe) * (0.75 + 0.25 * apart)),
        )


@dataclass(frozen=True)
class Embryo:
    """One embryo in its eggshell, lying somewhere on the stage.

    Attributes
    ----------
    name
        ``e1``, ``e2`` ...
    position_um
        Where the stage (x, y) has to stand to centre the embryo, in um.
    start_age_min
        Minutes since fertilisation when the experiment begins.
    seed
        Two embryos with one seed are the same embryo.
    """

    name: str
    position_um: tuple[float, float]
    start_age_min: float
    seed: tuple[int, ...]

    def nuclei(self, age_min: float) -> Blobs:
        """Return the nuclei at an age.

        Parameters
        ----------
        age_min
            Minutes since fertilisation, zero or more.

        Raises
        ------
        InvalidSetting
            When the age is negative or not a number.
        """
        if not age_min >= 0:
            raise InvalidSetting(f"{self.name}: an age is zero or more minutes, not {age_min!r}")
        generations = [generation.alive(age_min) for generation in self._generations]
        return Blobs(
            np.concatenate([blobs.positions_um for blobs in generations]),
            np.concatenate([blobs.sigma_um for blobs in generations]),
            np.concatenate([blobs.brightness for blobs in generations]),
        )

    @cached_property
    def cytoplasm(self) -> Blobs:
        """The faint glow that fills the eggshell."""
        homes = self._points_um.reshape(CYTOPLASM_BLOBS, -1, 3).mean(axis=1)
        return Blobs(
            homes,
            np.full(CYTOPLASM_BLOBS, CYTOPLASM_SIGMA_UM),
            np.full(CYTOPLASM_BLOBS, CYTOPLASM_BRIGHTNESS),
        )

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """The directions of the embryo's long, second and third axis in stage coordinates; rows, (3, 3).

        Embryos are laid down with the long axis along y, which both views have in common, and never quite so.
        """
        rng = np.random.default_rng([*self.seed, 0])
        lean, tilt = np.radians(rng.uniform(-20.0, 20.0)), np.radians(rng.uniform(-8.0, 8.0))
        long = np.array([np.sin(lean) * np.cos(tilt), np.cos(lean) * np.cos(tilt), np.sin(tilt)])
        second = np.cross(long, [0.0, 0.0, 1.0])
        second /= np.linalg.norm(second)
        return np.stack([long, second, np.cross(long, second)])

    @cached_property
    def _points_um(self) -> NDArray[np.float64]:
        """Where the last generation settles: (512, 3), ordered so that cousins are neighbours."""
        rng = np.random.default_rng([*self.seed, 1])
        directions = rng.normal(size=(2 ** (GENERATIONS - 1), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        radius = rng.uniform(size=(len(directions), 1)) ** (1 / 3)
        # Nuclei keep off the eggshell: 0.85 of it.
        points = directions * radius * np.array(SEMI_AXES_UM) * 0.85
        return _split_in_halves(points) @ self.axes

    @cached_property
    def _generations(self) -> tuple[_Generation, ...]:
        rng = np.random.default_rng([*self.seed, 2])
        birth = np.array([0.0])
        origin = np.zeros((1, 3))
        generations: list[_Generation] = []
        for number in range(GENERATIONS):
            cycle = FIRST_DIVISION_MIN if number == 0 else SECOND_CYCLE_MIN * CYCLE_GROWTH ** (number - 1)
            division = birth + cycle * rng.uniform(0.88, 1.12, size=len(birth))
            if number == GENERATIONS - 1:
                division = np.full(len(birth), np.inf)
            home = self._points_um.reshape(len(birth), -1, 3).mean(axis=1)
            sigma = NUCLEUS_SIGMA_UM * NUCLEUS_SHRINKAGE**number
            generations.append(_Generation(birth, division, origin, home, sigma))
            birth, origin = np.repeat(division, 2), np.repeat(home, 2, axis=0)
        return tuple(generations)


def lay_embryos(count: int, *, seed: int) -> dict[str, Embryo]:
    """Lay embryos out on the stage, in rows of four, 0.6 mm apart and never quite in line.

    Parameters
    ----------
    count
        How many, 1 to 64.
    seed
        The same seed lays down the same embryos; fewer embryos are the first of more.

    Returns
    -------
    dict of str to Embryo
        ``e1``, ``e2`` ... in order.

    Raises
    ------
    InvalidSetting
        When the count is out of range or the seed negative.
    """
    if not 1 <= count <= MOST_EMBRYOS:
        raise InvalidSetting(f"embryos must be 1 to {MOST_EMBRYOS}, not {count!r}")
    if seed < 0:
        raise InvalidSetting(f"a seed is zero or more, not {seed!r}")
    embryos: dict[str, Embryo] = {}
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        row, column = divmod(index, EMBRYOS_PER_ROW)
        x_um, y_um = (
            round(place * EMBRYO_SPACING_UM + float(rng.uniform(-EMBRYO_JITTER_UM, EMBRYO_JITTER_UM)), 1)
            for place in (column, row)
        )
        age = round(float(rng.uniform(60.0, 120.0)), 1)
        name = f"e{index + 1}"
        embryos[name] = Embryo(name, (x_um, y_um), age, (seed, index))
    return embryos


def _smooth_step(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Go from 0 to 1 without a kink, and stay outside that range."""
    clipped = np.clip(fraction, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped))


def _split_in_halves(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Order points so that each half, quarter, eighth ... of the list is a compact part of the whole.

    The mean of such a part is where the common ancestor of its nuclei sat. Splits are along the longest side.
    """
    if len(points) < 2:
        return points
    longest = int(np.argmax(np.ptp(points, axis=0)))
    ordered = points[np.argsort(points[:, longest], kind="stable")]
    middle = len(ordered) // 2
    return np.concatenate([_split_in_halves(ordered[:middle]), _split_in_halves(ordered[middle:])])
