"""Light sheet and cameras: from blobs of fluorescence to the counts of a sensor.

Two views look at the stage from 45 degrees on either side of the vertical, so that view b sees what view a
sees turned by 90 degrees about y. Pixels follow from what is seen, the seed and the number of the frame.
This module knows no device and keeps no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.sim.specimen import Blobs, Embryo

__all__ = ["Exposure", "PixelGrid", "Scene", "Sensor", "SheetView", "View", "to_view"]

View = Literal["a", "b"]

Box = tuple[slice, slice]

PSF_SIGMA_UM = 0.25
"""Lateral blur of a 40x / 0.8 NA water objective and its tube lens."""

SHEET_SIGMA_UM = 1.4
"""Half the thickness of the light sheet, which makes the axial resolution: far worse than the lateral one."""

DEFOCUS_BLUR = 0.35
"""Lateral blur in um for each um between the light sheet and the focal plane."""

ATTENUATION_UM = 45.0
"""Depth at which scattering in the embryo leaves 1/e of the light."""

REACH_SIGMA = 3.5
"""How far from its centre a blob is drawn."""

OFFSET_COUNTS = 100.0
COUNTS_PER_PHOTON = 2.2
READ_NOISE_PHOTONS = 1.1
"""An sCMOS camera: offset 100, 0.46 electrons a count, about one electron of read noise."""

PEAK_PHOTONS = 320.0
"""Photons from the middle of a nucleus at the default exposure and laser power."""

BACKGROUND_PHOTONS = 5.0
DARK_PHOTONS = 0.5
DEFAULT_EXPOSURE_S = 0.01

NOISE_SHIFTS = 64
"""The noise of a frame is one of 64 x 64 windows of a larger field of noise ..."""

NOISE_STRIDE = 1657
"""... taken in steps coprime to 64 x 64, so that 4096 consecutive frames have different noise."""


def to_view(positions_um: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """Turn stage coordinates into those of a view.

    Parameters
    ----------
    positions_um
        Shape (n, 3), columns x, y, z of the stage, in um.
    view
        In view ``a`` z points 45 degrees to the right of the vertical, in view ``b`` 45 degrees to the left:
        ``x_b = z_a``, ``z_b = -x_a``, ``y_b = y_a``.

    Returns
    -------
    numpy.ndarray
        Shape (n, 3): x and y on the sensor and z along the optical axis, away from the objective, in um.
    """
    x, y, z = positions_um.T
    across, along = (x - z) / np.sqrt(2.0), (x + z) / np.sqrt(2.0)
    columns = (across, y, along) if view == "a" else (along, y, -across)
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class PixelGrid:
    """The pixels that a camera delivers: a region of its sensor, binned.

    Attributes
    ----------
    sensor_size
        Pixels along each side of the square sensor.
    sensor_pixel_um
        Size of one sensor pixel in the specimen.
    roi
        x, y, width, height in sensor pixels.
    binning
        Sensor pixels along each side of a delivered pixel.
    """

    sensor_size: int
    sensor_pixel_um: float
    roi: tuple[int, int, int, int]
    binning: int

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.roi[3] // self.binning, self.roi[2] // self.binning

    @property
    def pixel_size_um(self) -> float:
        """Size of a delivered pixel in the specimen."""
        return self.sensor_pixel_um * self.binning

    def centres_um(self, axis: Literal["x", "y"]) -> NDArray[np.float64]:
        """Return where the pixels of a column or row are, in um from the optical axis."""
        first, count = (self.roi[0], self.shape_yx[1]) if axis == "x" else (self.roi[1], self.shape_yx[0])
        pixels = first + (np.arange(count) + 0.5) * self.binning
        return np.asarray((pixels - self.sensor_size / 2) * self.sensor_pixel_um, np.float64)


@dataclass(frozen=True)
class Scene:
    """What lies under the objectives at one moment.

    Attributes
    ----------
    embryo
        The embryo in view, or None.
    age_min
        Its age in minutes.
    centre_um
        Where its centre lies from where the optical axes cross: x, y, z of the stage in um.
    dose
        Light on the specimen: 1 at the default laser power.
    """

    embryo: Embryo | None
    age_min: float
    centre_um: tuple[float, float, float]
    dose: float

    def blobs(self, view: View) -> Blobs:
        """Return everything that fluoresces, in coordinates of a view, less the light lost on the way out."""
        if self.embryo is None:
            return Blobs(np.empty((0, 3)), np.empty(0), np.empty(0))
        blobs = self.embryo.nuclei(self.age_min) + self.embryo.cytoplasm
        centre = to_view(np.array([self.centre_um]), view)
        in_embryo = to_view(blobs.positions_um, view)
        return Blobs(
            in_embryo + centre, blobs.sigma_um, blobs.brightness * np.exp(-in_embryo[:, 2] / ATTENUATION_UM)
        )


class SheetView:
    """What one camera sees of a scene as the light sheet passes through it.

    A blob that the sheet passes at a distance is dim; light from a sheet out of the focal plane is blurred.

    Parameters
    ----------
    blobs
        What fluoresces, in the coordinates of the view.
    grid
        The pixels.
    photons
        Photons per delivered pixel for brightness 1.
    defocus_um
        Distance between the light sheet and the focal plane.
    """

    def __init__(self, blobs: Blobs, grid: PixelGrid, *, photons: float, defocus_um: float) -> None:
        blur_um = float(np.hypot(PSF_SIGMA_UM, DEFOCUS_BLUR * defocus_um))
        lateral = np.hypot(blobs.sigma_um, blur_um)
        axial = np.hypot(blobs.sigma_um, SHEET_SIGMA_UM)
        x, y, z = blobs.positions_um.T
        columns, along_x = _profiles(grid.centres_um("x"), x, lateral)
        rows, along_y = _profiles(grid.centres_um("y"), y, lateral)
        # Blurring spreads the light of a blob; it does not make more of it.
        peak = photons * blobs.brightness * blobs.sigma_um**3 / (lateral**2 * axial)
        self.box: Box = (rows, columns)
        """Rows and columns of the frame outside which nothing is seen."""
        self._along_x = along_x
        self._along_y = (along_y * peak[:, None]).astype(np.float32)
        self._z, self._axial = z, axial

    def plane(self, sheet_z_um: float) -> NDArray[np.float32]:
        """Return the photons in each pixel of the box, (y, x), with the sheet at a depth of the view."""
        along_z = np.exp(-0.5 * ((sheet_z_um - self._z) / self._axial) ** 2)
        near = np.flatnonzero(along_z > 1e-3)
        lit = self._along_y[near] * along_z[near, None].astype(np.float32)
        return np.asarray(lit.T @ self._along_x[near], dtype=np.float32)


@dataclass(frozen=True)
class Exposure:
    """How bright a frame is and how noisy.

    Attributes
    ----------
    signal_photons
        Photons per delivered pixel from the middle of a nucleus.
    background_photons
        Photons per delivered pixel where there is no specimen.
    read_noise_photons
        Read noise of a delivered pixel.
    """

    signal_photons: float
    background_photons: float
    read_noise_photons: float

    @classmethod
    def of(cls, grid: PixelGrid, *, dose: float, exposure_s: float) -> Exposure:
        """Work out what the pixels of a grid collect; a binned pixel collects more."""
        light, area = dose * exposure_s / DEFAULT_EXPOSURE_S, grid.binning**2
        return cls(
            signal_photons=PEAK_PHOTONS * light * area,
            background_photons=(DARK_PHOTONS + BACKGROUND_PHOTONS * light) * area,
            read_noise_photons=READ_NOISE_PHOTONS * grid.binning,
        )

    def counts(self, photons: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and deviation of the counts (shot noise, read noise) for a signal in photons."""
        collected = photons + np.float32(self.background_photons)
        deviation = np.sqrt(collected + np.float32(self.read_noise_photons**2))
        # Half a count, because turning counts into integers cuts off.
        mean = collected * np.float32(COUNTS_PER_PHOTON) + np.float32(OFFSET_COUNTS + 0.5)
        return mean, deviation * np.float32(COUNTS_PER_PHOTON)


class Sensor:
    """The noise of a camera, precomputed: a field of noise of which every frame is another window.

    Parameters
    ----------
    size
        Pixels along each side.
    seed
        The same seed gives the same noise.
    """

    def __init__(self, size: int, *, seed: tuple[int, ...]) -> None:
        self._size = size
        self._seed = seed
        self._backgrounds: dict[Exposure, NDArray[np.uint16]] = {}

    def expose(
        self,
        out: NDArray[np.uint16],
        exposure: Exposure,
        *,
        frame_number: int,
        box: Box,
        counts: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        """Fill a frame: background and noise everywhere, the signal inside its box.

        Parameters
        ----------
        out
            The frame to fill, (y, x), uint16 of either byte order and any strides.
        exposure
            Its background and noise.
        frame_number
            Counts the frames of one camera; 4096 consecutive numbers give different noise.
        box
            The part of the frame where there is signal.
        counts
            Mean and standard deviation of the counts in the box, from ``Exposure.counts``.
        """
        top, left = divmod((frame_number * NOISE_STRIDE) % NOISE_SHIFTS**2, NOISE_SHIFTS)
        height, width = out.shape
        out[...] = self._background_for(exposure)[top : top + height, left : left + width]
        mean, deviation = counts
        noise = self._noise[top : top + height, left : left + width][box]
        np.clip(mean + deviation * noise, 0, 65535, out=out[box], casting="unsafe")

    def _background_for(self, exposure: Exposure) -> NDArray[np.uint16]:
        field = self._backgrounds.get(exposure)
        if field is None:
            mean, deviation = exposure.counts(np.zeros(1, np.float32))
            field = np.clip(mean + deviation * self._noise, 0, 65535).astype(np.uint16)
            # The last two are enough: a camera and the light sheet take turns with a sensor.
            self._backgrounds = dict([*list(self._backgrounds.items())[-1:], (exposure, field)])
        return field

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        side = self._size + NOISE_SHIFTS - 1
        rng = np.random.default_rng(self._seed)
        return rng.standard_normal((side, side), dtype=np.float32)


def _profiles(
    centres_um: NDArray[np.float64], positions_um: NDArray[np.float64], sigma_um: NDArray[np.float64]
) -> tuple[slice, NDArray[np.float32]]:
    """Return the pixels that any blob reaches, and the profile of each blob over them: (blob, pixel)."""
    if not len(positions_um):
        return slice(0, 0), np.empty((0, 0), np.float32)
    low = np.min(positions_um - REACH_SIGMA * sigma_um)
    high = np.max(positions_um + REACH_SIGMA * sigma_um)
    reached = slice(int(np.searchsorted(centres_um, low)), int(np.searchsorted(centres_um, high)))
    distance = (centres_um[None, reached] - positions_um[:, None]) / sigma_um[:, None]
    return reached, np.exp(-0.5 * distance**2).astype(np.float32)
