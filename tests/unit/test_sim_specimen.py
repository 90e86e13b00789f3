"""The simulated embryo and its light sheet: biology and optics, without a device."""

from __future__ import annotations

import numpy as np
import pytest

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim.optics import Exposure, PixelGrid, Scene, Sensor, SheetView, to_view
from gently_bluesky.sim.specimen import SEMI_AXES_UM, Blobs, lay_embryos

EMBRYO = lay_embryos(1, seed=1)["e1"]
GRID = PixelGrid(sensor_size=64, sensor_pixel_um=1.3, roi=(0, 0, 64, 64), binning=1)


def draw_volume(view: str, *, centre_um=(0.0, 0.0, 0.0), age_min: float = 100.0) -> np.ndarray:
    """Photons of a volume with cubic voxels, (z, y, x), without noise."""
    scene = Scene(EMBRYO, age_min, centre_um, 1.0)
    seen = SheetView(scene.blobs(view), GRID, photons=300.0, defocus_um=0.0)
    volume = np.zeros((48, 64, 64))
    for number, plane in enumerate(volume):
        plane[seen.box] = seen.plane((number - 23.5) * 1.3)
    return volume


def test_nuclei_only_ever_become_more():
    counts = [len(EMBRYO.nuclei(age)) for age in np.arange(0.0, 450.0, 2.5)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == 512


def test_every_division_makes_two_of_one():
    counts = [len(EMBRYO.nuclei(age)) for age in np.arange(30.0, 80.0, 0.01)]
    assert set(range(1, 9)) <= set(counts)


def test_daughters_begin_where_their_mother_was_and_move_apart_without_a_jump():
    division = next(age for age in np.arange(30.0, 60.0, 0.001) if len(EMBRYO.nuclei(age)) == 2)
    mother, daughters = EMBRYO.nuclei(division - 0.001), EMBRYO.nuclei(division)
    np.testing.assert_allclose(daughters.positions_um, np.repeat(mother.positions_um, 2, axis=0), atol=0.01)
    distances = [np.ptp(EMBRYO.nuclei(division + t).positions_um, axis=0).max() for t in (1.0, 3.0, 6.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 5


def test_light_does_not_jump_at_a_division():
    ages = np.arange(35.0, 60.0, 0.01)
    light = np.array([EMBRYO.nuclei(age).brightness.sum() for age in ages])
    assert np.abs(np.diff(light)).max() < 0.02


@pytest.mark.parametrize("age_min", [0.0, 80.0, 200.0, 500.0])
def test_nuclei_stay_inside_the_eggshell(age_min):
    along_axes = EMBRYO.nuclei(age_min).positions_um @ EMBRYO.axes.T
    assert ((along_axes / SEMI_AXES_UM) ** 2).sum(axis=1).max() <= 1.0


def test_a_seed_lays_down_the_same_embryos_every_time():
    one, two, other = (lay_embryos(6, seed=seed) for seed in (4, 4, 5))
    assert one == two
    assert one["e6"].position_um != other["e6"].position_um
    np.testing.assert_array_equal(one["e3"].nuclei(150).positions_um, two["e3"].nuclei(150).positions_um)
    assert not np.array_equal(one["e3"].nuclei(60).positions_um, one["e4"].nuclei(60).positions_um)
    assert {name: one[name] for name in ("e1", "e2")} == lay_embryos(2, seed=4)


def test_embryos_lie_further_apart_than_a_field_of_view():
    places = np.array([embryo.position_um for embryo in lay_embryos(64, seed=2).values()])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert distances[~np.eye(64, dtype=bool)].min() > 333


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (65, 1), (3, -1)])
def test_impossible_specimens_are_refused(count, seed):
    with pytest.raises(InvalidSetting, match="not"):
        lay_embryos(count, seed=seed)


@pytest.mark.parametrize("age_min", [-1.0, float("nan")])
def test_ages_before_fertilisation_are_refused(age_min):
    with pytest.raises(InvalidSetting, match="age"):
        EMBRYO.nuclei(age_min)


def test_view_b_is_view_a_turned_by_90_degrees_about_y():
    points = np.random.default_rng(0).normal(size=(50, 3))
    a, b = to_view(points, "a"), to_view(points, "b")
    turn = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    np.testing.assert_allclose(b, a @ turn.T, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(points, axis=1))


def test_pixels_of_view_b_show_from_the_side_what_view_a_shows_from_the_front():
    a, b = draw_volume("a"), draw_volume("b")
    front_b = b.sum(axis=0)[:, 8:56]
    side_a, front_a = a.sum(axis=2).T, a.sum(axis=0)[:, 8:56]
    unlike = [
        1 - np.corrcoef(front_b.ravel(), other.ravel())[0, 1] for other in (side_a, side_a[:, ::-1], front_a)
    ]
    assert unlike[0] < 0.015
    assert unlike[0] < min(unlike[1:]) / 3


def test_axial_resolution_is_worse_than_lateral_resolution():
    bead = Blobs(np.zeros((1, 3)), np.array([0.2]), np.ones(1))
    grid = PixelGrid(65, 0.1625, (0, 0, 65, 65), 1)
    seen = SheetView(bead, grid, photons=1000.0, defocus_um=0.0)
    lateral = seen.plane(0.0)[:, seen.plane(0.0).shape[1] // 2]
    axial = np.array([seen.plane(z).max() for z in np.arange(-5, 5, 0.1625)])
    assert (axial > axial.max() / 2).sum() > 3 * (lateral > lateral.max() / 2).sum()


def test_light_out_of_focus_is_spread_and_not_lost():
    blob = Blobs(np.zeros((1, 3)), np.array([1.0]), np.ones(1))
    grid = PixelGrid(256, 0.1625, (0, 0, 256, 256), 1)
    sharp, blurred = (SheetView(blob, grid, photons=500.0, defocus_um=d).plane(0.0) for d in (0.0, 8.0))
    assert blurred.max() < sharp.max() / 3
    assert blurred.sum() == pytest.approx(sharp.sum(), rel=0.01)


def test_binning_and_roi_show_the_same_place():
    whole = draw_volume("a")[24]
    scene = Scene(EMBRYO, 100.0, (0.0, 0.0, 0.0), 1.0)
    grid = PixelGrid(64, 1.3, (20, 12, 32, 40), 1)
    assert grid.shape_yx == (40, 32)
    seen = SheetView(scene.blobs("a"), grid, photons=300.0, defocus_um=0.0)
    part = np.zeros(grid.shape_yx)
    part[seen.box] = seen.plane(0.65)
    np.testing.assert_allclose(part, whole[12:52, 20:52], atol=0.2)
    assert PixelGrid(64, 1.3, (0, 0, 64, 64), 4).pixel_size_um == pytest.approx(5.2)


def test_counts_have_an_offset_shot_noise_and_read_noise():
    sensor = Sensor(256, seed=(1,))
    dim = Exposure.of(GRID, dose=0.0, exposure_s=0.01)
    bright = Exposure.of(GRID, dose=20.0, exposure_s=0.01)
    frames = {}
    for name, exposure in (("dim", dim), ("bright", bright)):
        frames[name] = np.empty((256, 256), np.uint16)
        nothing = (slice(0, 0), slice(0, 0))
        counts = exposure.counts(np.empty((0, 0), np.float32))
        sensor.expose(frames[name], exposure, frame_number=0, box=nothing, counts=counts)
        photons = exposure.background_photons
        assert frames[name].mean() == pytest.approx(100 + 2.2 * photons, rel=0.01)
        assert frames[name].var() == pytest.approx(2.2**2 * (photons + 1.1**2), rel=0.05)


def test_no_two_of_four_thousand_frames_have_the_same_noise():
    sensor, exposure = Sensor(16, seed=(3,)), Exposure.of(GRID, dose=1.0, exposure_s=0.01)
    counts, frames = exposure.counts(np.empty((0, 0), np.float32)), set()
    for number in range(4096):
        frame = np.empty((16, 16), np.uint16)
        sensor.expose(frame, exposure, frame_number=number, box=(slice(0, 0), slice(0, 0)), counts=counts)
        frames.add(frame.tobytes())
    assert len(frames) == 4096


def test_too_bright_a_pixel_saturates_and_does_not_wrap_round():
    sensor, exposure = Sensor(16, seed=(3,)), Exposure.of(GRID, dose=1.0, exposure_s=0.01)
    frame = np.empty((16, 16), ">u2")
    counts = exposure.counts(np.full((16, 16), 1e7, np.float32))
    sensor.expose(frame, exposure, frame_number=0, box=(slice(0, 16), slice(0, 16)), counts=counts)
    assert (frame == 65535).all()
