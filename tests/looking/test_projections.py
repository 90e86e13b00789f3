"""Which images there are in an array, how they look from three sides, and what reading them costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gently_bluesky import LazyArray
from gently_bluesky.errors import InputError, LookupFailed
from gently_bluesky.lazy import ArraySource, Selection
from gently_bluesky.pictures import contrast, stretched
from gently_bluesky.previews import compose
from gently_bluesky.projections import BLOCK_BYTES, Grid, panels, project
from gently_bluesky.testing.frames import encoded_frame

STEPS = {"t": 1.0, "v": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}


class Counting(ArraySource):
    """An array in memory that notes how much is read of it at once."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, ...]) -> None:
        self.array, self.reads = array, list[int]()
        self._chunks = chunks

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    chunks = property(lambda self: self._chunks)

    def read(self, selection: Selection) -> np.ndarray:
        block = self.array[
            np.ix_(
                *(np.arange(length)[pick] for pick, length in zip(selection, self.array.shape, strict=True))
            )
        ]
        self.reads.append(block.nbytes)
        return block


def lazy(
    array: np.ndarray, dims: str, *, chunks: tuple[int, ...] | None = None, units: bool = True, **more: Any
) -> tuple[LazyArray, Counting]:
    source = Counting(array, chunks or (1,) * (array.ndim - 2) + array.shape[-2:])
    known = tuple("micrometer" if units and dim in "zyx" else None for dim in dims)
    scale = tuple(STEPS[dim] for dim in dims)
    made = LazyArray(source, dims=tuple(dims), scale=scale, units=known, name="volume", uid="u", **more)
    return made, source


def test_a_volume_is_projected_along_each_axis_and_read_once():
    volume = encoded_frame((6, 40, 50), "<u2")
    array, source = lazy(volume, "zyx")
    (panel,) = panels(array)
    found = project(panel, Grid(0.5))
    np.testing.assert_array_equal(found.xy, volume.max(axis=0))
    np.testing.assert_array_equal(found.xz, np.repeat(volume.max(axis=1), 4, axis=0))
    np.testing.assert_array_equal(found.zy, np.repeat(volume.max(axis=2).T, 4, axis=1))
    assert sum(source.reads) == volume.nbytes


def test_axes_in_another_order_are_shown_as_they_are_named():
    volume = encoded_frame((6, 40, 50), "<u2")
    array, _ = lazy(np.ascontiguousarray(volume.transpose(2, 0, 1)), "xzy")
    np.testing.assert_array_equal(project(panels(array)[0], Grid(0.5)).xy, volume.max(axis=0))


def test_a_coarser_picture_is_that_of_a_coarser_volume_up_to_the_last_row():
    volume = encoded_frame((3, 41, 50), "<u2").astype("f8")
    array, _ = lazy(volume, "zyx")
    found = project(panels(array)[0], Grid(1.0))
    whole = np.concatenate([volume[:, :40].reshape(3, 20, 2, 50).mean(axis=2), volume[:, 40:]], axis=1)
    coarse = whole.reshape(3, 21, 25, 2).mean(axis=3)
    assert found.xy.shape == (20, 25)  # 20.5 um are 20 pixels
    np.testing.assert_allclose(found.xz[::2], coarse.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.xy[:-2], coarse.max(axis=0)[:18], rtol=1e-5)


@pytest.mark.parametrize("chunks", [(16, 128, 128), (1, 1, 2048)])
def test_a_large_volume_is_read_in_blocks_and_only_once(chunks):
    volume = np.zeros((18, 1536, 2048), "<u2")
    volume[7, 1500, 3] = 4000
    array, source = lazy(volume, "zyx", chunks=chunks)
    sheet = compose(panels(array))
    assert sum(source.reads) == volume.nbytes
    assert max(source.reads) <= BLOCK_BYTES
    assert max(sheet.pixels.shape) < 1200


def test_the_event_is_chosen_and_views_stand_side_by_side_under_their_names():
    frames = encoded_frame((3, 2, 4, 10, 12), "<u2")
    array, source = lazy(frames, "tvzyx", channels=("left", "right"))
    assert [panel.title for panel in panels(array)] == [
        "volume[2] of 3 events, left",
        "volume[2] of 3 events, right",
    ]
    assert source.reads == []
    for view, panel in enumerate(panels(array, event=1)):
        np.testing.assert_array_equal(project(panel, Grid(0.5)).xy, frames[1, view].max(axis=0))
    assert panels(array[:, 1:])[0].title.endswith(", right")


@pytest.mark.parametrize("event", [3, -4])
def test_an_event_that_is_not_there_is_answered_with_those_that_are(event):
    array, _ = lazy(np.zeros((3, 4, 5), "u1"), "tyx")
    with pytest.raises(
        LookupFailed, match=rf"an event from 0 to 2.* down to -3, got {event}.*nothing was read"
    ):
        panels(array, event)
    with pytest.raises(LookupFailed, match="has no event to show yet"):
        panels(array[:0])


@pytest.mark.parametrize("dims", ["t", "ty", "x"])
def test_numbers_are_no_image_and_the_error_says_what_shows_them(dims):
    array, _ = lazy(np.zeros((3, 4)[: len(dims)], "u1"), dims, chunks=(1,) * len(dims))
    with pytest.raises(InputError, match=r"expected an image.*run\.plot\(\)"):
        panels(array)


def test_words_are_no_image():
    from gently_bluesky.sources import InlineSource

    array = LazyArray(InlineSource(np.array([["a"], ["b"]], dtype=object)), dims=("y", "x"))
    with pytest.raises(InputError, match="expected an array of numbers"):
        panels(array)


def test_axes_without_names_and_further_axes_show_their_beginning():
    array = LazyArray(
        Counting(np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5), (1, 1, 4, 5)),
        dims=("t", "dim_0", "dim_1", "dim_2"),
        name="odd",
    )
    (panel,) = panels(array)
    assert panel.title == "odd[1] of 2 events, dim_0 0 of 3"
    np.testing.assert_array_equal(project(panel, Grid(1.0)).xy, np.asarray(array)[1, 0])


def test_colours_are_shown_as_they_are():
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    array, _ = lazy(picture, "yxc", chunks=(20, 30, 3))
    sheet = compose(panels(array), longest=30)
    assert sheet.limits == ((0.0, 255.0),)
    found = np.argwhere(
        (sheet.pixels[..., 0] == picture[0, 0, 0]) & (sheet.pixels[..., 1] == picture[0, 0, 1])
    )
    y, x = found[0]
    shown = sheet.pixels[y : y + 10, x : x + 15]  # above the scale bar
    np.testing.assert_array_equal(shown, picture[:10, :15])


@pytest.mark.parametrize("dtype", ["bool", "u1", "<i8", "f2", "<f4", "<c8"])
def test_every_kind_of_number_is_shown(dtype):
    image = np.zeros((20, 30))
    image[5:15, 5:15] = 1
    array, _ = lazy(image.astype(dtype), "yx")
    sheet = compose(panels(array))
    assert sheet.limits == ((0.0, 1.0),)
    assert {0, 255} <= set(np.unique(sheet.pixels))


def test_what_is_not_a_number_is_black_and_spoils_nothing():
    image = np.full((20, 30), np.nan, "<f4")
    image[:, :15] = np.linspace(1, 2, 15)
    image[0, 0] = np.inf
    array, _ = lazy(image, "yx", units=False)
    with np.errstate(all="raise"):
        sheet = compose(panels(array), longest=30)
    assert 1.0 <= sheet.limits[0][0] < sheet.limits[0][1] <= 2.0
    assert contrast([np.full((3, 3), np.nan)]) == (0.0, 1.0)
    assert stretched(np.full((2, 2), np.nan), limits=(0, 1)).max() == 0


def test_proportions_are_true_and_the_bar_is_as_long_as_it_says():
    array, _ = lazy(encoded_frame((10, 40, 100), "<u2"), "zyx")  # 20 x 20 x 50 um
    sheet = compose(panels(array), longest=140)
    assert (sheet.pixel_um, sheet.bar_um) == (0.5, 10)
    sides = {label.text: (label.x, label.y) for label in sheet.labels}
    assert sides["zy"][0] - sides["xy"][0] == 100 + 6
    assert sides["xz"][1] - sides["xy"][1] == 40 + 6
    white = (sheet.pixels == 255).sum(axis=1)
    assert 20 in white  # 10 um
    assert "10 \u00b5m" in sides


def test_where_steps_are_not_known_there_is_no_bar():
    array, _ = lazy(encoded_frame((10, 40, 100), "<u2"), "zyx", units=False)
    sheet = compose(panels(array))
    assert (sheet.bar_um, sheet.pixel_um) == (0, 0.0)


def test_arrays_of_known_and_unknown_steps_stand_in_one_picture():
    known, _ = lazy(encoded_frame((10, 40), "<u2"), "yx")
    unknown, _ = lazy(encoded_frame((1000, 4000), "<u2"), "yx", units=False)
    sheet = compose([*panels(known), *panels(unknown)])
    assert sheet.pixel_um > 0
    assert max(sheet.pixels.shape) < 2500


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (1, 1, 1), (500, 2, 2), (2, 2, 4000)])
def test_any_shape_makes_a_picture_of_bounded_size(shape):
    array, _ = lazy(encoded_frame(shape, "<u2"), "zyx"[-len(shape) :])
    height, width = compose(panels(array)).pixels.shape
    assert height < 1300
    assert width < 1400


def test_no_more_than_eight_views_are_shown():
    array, _ = lazy(encoded_frame((20, 10, 10), "<u2"), "cyx")
    assert len(panels(array)) == 8
    assert panels(array)[7].title == "volume, c 7 of 20"
    compose(panels(array))


def test_touched_bytes_are_those_of_the_chunks_that_are_read():
    array, _ = lazy(np.zeros((4, 8, 16, 16), "<u2"), "tzyx", chunks=(1, 4, 16, 8))
    assert array.touched_nbytes == array.nbytes
    assert array[0, 3].touched_nbytes == 4 * 16 * 16 * 2
    assert array[0, 3, :, 0].touched_nbytes == 4 * 16 * 8 * 2
    assert array[0, 3:5, ::4, [0, 9]].touched_nbytes == 8 * 16 * 16 * 2
    assert array[:0].touched_nbytes == 0
    assert array[0, 3].touched_chunks == 2


def test_channels_follow_their_axis_through_slices():
    array, _ = lazy(np.zeros((2, 3, 4, 5), "u1"), "tvyx", channels=("a", "b", "c"))
    assert array.channels == ("a", "b", "c")
    assert array[:, ::-2].channels == ("c", "a")
    assert array[0, [2, 0]].channels == ("c", "a")
    assert array[:, 1].channels == ()
    assert array[np.ones((2, 3), bool)].channels == ()
