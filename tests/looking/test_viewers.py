"""What is handed over to napari and ndv.

Neither is a dependency, and both need a screen: modules that stand in for them keep what they are given. That the
real ones take it was tried by hand with napari 0.9 and ndv 0.5.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gently_bluesky import LazyArray
from gently_bluesky.errors import MissingExtra
from gently_bluesky.sources import InlineSource


class Viewer:
    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.steps: dict[int, int] = {}
        self.dims = SimpleNamespace(ndim=0, set_current_step=self.steps.__setitem__)

    def add_image(self, data: Any, **more: Any) -> None:
        self.layers.append({"data": data, **more})
        self.dims.ndim = max(self.dims.ndim, data.ndim)


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("napari")
    module.viewers = []

    def new() -> Viewer:
        module.viewers.append(Viewer())
        return module.viewers[-1]

    module.Viewer = new
    module.current_viewer = lambda: module.viewers[-1] if module.viewers else None
    monkeypatch.setitem(sys.modules, "napari", module)
    return module


@pytest.fixture
def no_napari(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)


def test_napari_is_given_the_array_itself_with_its_steps_and_where_to_look(night, napari):
    array = night.store[night.volumes]["view_a"]
    viewer = array.view()
    (layer,) = viewer.layers
    assert layer["data"] is array
    assert layer["name"] == "view_a"
    assert layer["scale"] == array.scale
    assert layer["units"] == ("pixel", "micrometer", "micrometer", "micrometer")
    assert layer["axis_labels"] == ("t", "z", "y", "x")
    assert layer["multiscale"] is False
    assert layer["rgb"] is False
    low, high = layer["contrast_limits"]
    assert array.min() <= low < high <= array.max()
    assert viewer.steps == {0: 1, 1: 4}


def test_a_second_array_joins_the_window_that_is_open(night, napari):
    run = night.store[night.volumes]
    assert run["view_b"].view() is run["view_a"].view()
    assert [layer["name"] for layer in napari.viewers[0].layers] == ["view_b", "view_a"]
    run["view_a"][0].view()
    assert napari.viewers[0].steps == {0: 1, 1: 4}


def test_views_are_layers_of_their_own_still_in_storage(night, napari):
    (key,) = (
        key for key, said in night.store[night.stacked]["primary"].declared.items() if "external" in said
    )
    array = night.store[night.stacked][key]
    layers = array.view().layers
    assert [layer["name"] for layer in layers] == [f"{key} {name}" for name in array.channels]
    assert [layer["colormap"] for layer in layers] == ["green", "magenta"]
    assert all(isinstance(layer["data"], LazyArray) for layer in layers)
    np.testing.assert_array_equal(layers[1]["data"], np.asarray(array)[:, 1])


def test_colours_are_one_layer(napari):
    array = LazyArray(InlineSource(np.zeros((4, 5, 3), "u1")), dims=("y", "x", "c"))
    (layer,) = array.view().layers
    assert layer["rgb"] is True


def test_numbers_are_handed_over_without_limits(napari):
    array = LazyArray(InlineSource(np.zeros(4)), dims=("t",))
    assert array.view().layers[0]["contrast_limits"] is None


def test_ndv_is_asked_where_there_is_no_napari(night, no_napari, monkeypatch):
    ndv = ModuleType("ndv")
    ndv.imshow = lambda data, **more: (data, more)
    monkeypatch.setitem(sys.modules, "ndv", ndv)
    array = night.store[night.volumes]["view_a"]
    data, more = array.view()
    assert data is array
    assert more["scales"] == dict(zip("tzyx", array.scale, strict=True))
    assert more["current_index"] == {"t": 1, "z": 4}
    assert more["default_lut"]["clims"][0] < more["default_lut"]["clims"][1]
    _, more = night.store.get(night.pair.uid).view()
    assert (more["channel_axis"], more["channel_mode"]) == ("v", "composite")


def test_without_either_the_error_names_both(night, no_napari, monkeypatch):
    monkeypatch.setitem(sys.modules, "ndv", None)
    with pytest.raises(
        MissingExtra, match=r"napari or ndv.*pip install 'napari\[all\]'.*'ndv\[qt\]'.*preview"
    ):
        night.store[night.volumes]["view_a"].view()
