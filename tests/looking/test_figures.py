"""What matplotlib draws: pictures with their words, windows only where there are any, no pyplot of its own."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gently_bluesky.errors import InvalidSetting, StorageError
from gently_bluesky.testing.documents import HandMadeRun


def words(figure: Figure) -> list[str]:
    """All text of a figure, wherever it stands."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_title(loc="left"), axes.get_xlabel()]
    return [text for text in found if text]


def test_a_preview_is_the_picture_with_its_words_pixel_for_pixel(night, tmp_path):
    path = tmp_path / "volume.png"
    figure = night.store[night.volumes]["view_a"].preview(path, event=0)
    assert words(figure)[0] == "view_a[0] of 2 events"
    assert "20 \u00b5m" in words(figure)
    assert {"xy", "xz", "zy"} < set(words(figure))
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("L"))
    (image,) = figure.axes[0].images
    expected = image.get_array()
    assert shown.shape == expected.shape
    assert (np.abs(shown.astype(int) - expected) <= 1).mean() > 0.95  # the rest is words
    with Image.open(BytesIO(figure._repr_png_())) as picture:
        assert picture.size == shown.shape[::-1]


def test_a_stacked_dual_view_is_two_panels_under_their_names(night):
    (key,) = (
        key for key, said in night.store[night.stacked]["primary"].declared.items() if "external" in said
    )
    array = night.store[night.stacked][key]
    figure = array.preview()
    titles = [text for text in words(figure) if text.startswith(key)]
    assert titles == [f"{key}, {name}" for name in array.channels]
    assert len(titles) == 2


def test_a_picture_that_cannot_be_kept_is_refused(night, tmp_path):
    array = night.store[night.sweep]["camera_a"]
    with pytest.raises(InvalidSetting, match=r"tiffle.*nothing was written"):
        array.preview(tmp_path / "a.tiffle")
    with pytest.raises(StorageError, match="cannot be written"):
        array.preview(tmp_path / "none" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_drawn_with_its_numbers_over_time_and_its_arrays(night, tmp_path):
    figure = night.store[night.sweep].plot(tmp_path / "run.pdf")
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")
    found = words(figure)
    assert found[0] == f"focus_sweep {night.sweep[:8]}: complete, 3 of 3 frames stored"
    assert "session first light" in found[1]
    assert "camera_a[2] of 3 events" in found
    (line,) = (line for axes in figure.axes for line in axes.lines)
    assert line.get_ydata().tolist() == [-10.0, 0.0, 10.0]
    times_s = [event["time"] for event in night.store[night.sweep]["primary"].events]
    start_s = night.store[night.sweep].start["time"]
    np.testing.assert_allclose(line.get_xdata(), np.array(times_s) - start_s)


def test_numbers_that_stay_the_same_are_said_in_a_line(night):
    found = words(night.store[night.volumes].plot())
    (line,) = (text for text in found if text.startswith("constant: "))
    assert "dispim_galvo = 0" in line
    assert not any("_setpoint" in text for text in found)


def test_runs_of_any_kind_are_drawn(night, store):
    run = HandMadeRun(plan_name="$\\frac{", session="$x^")
    descriptor = run.descriptor(**{f"n{number}": {} for number in range(15)}, camera={}, word={})
    with store.writer(min_free_bytes=0) as writer:
        empty = HandMadeRun()
        writer("start", empty.start)
        writer("stop", empty.stop())
        writer("start", run.start)
        writer("descriptor", descriptor)
        for event in range(2):
            numbers = {f"n{number}": event * number + 0.5 for number in range(15)}
            numbers["n3"] = float("nan")
            writer("event", run.event(descriptor, **numbers, camera=np.eye(20), word="$\\x"))
        writer("stop", run.stop())
    assert "no numbers and no images" in words(store[empty.uid].plot())
    figure = store[run.uid].plot()
    figure.savefig(store.root / "run.png")
    found = words(figure)
    assert found[0].startswith("$\\frac{ ")
    assert "and 1 more data keys with numbers: run.table() has all" in found
    assert "constant: n0 = 0.5" in found
    assert "nuclei" in words(night.store[night.nuclei.uid].plot())[0]
    (asset,) = store.root.glob("runs/*/*/*/*/primary-camera*")
    asset.rename(asset.with_name("gone"))
    assert any(text.startswith("camera cannot be opened: ") for text in words(store[run.uid].plot()))


def test_a_lineage_is_drawn_in_layers_each_record_once(night, tmp_path):
    lineage = night.store.lineage(night.nuclei.uid)
    figure = lineage.plot(tmp_path / "lineage.png")
    found = words(figure)
    assert found.count("primary/view_a") == 1
    assert found.count("projection max_z") == 2
    height = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert (
        height["primary/view_b"] > height["projection max_z"] > height["pair stack"] > height["nuclei count"]
    )
    arrows = [text for text in figure.axes[0].texts if text.arrow_patch is not None]
    heads = [one for one in arrows if one.arrowprops["arrowstyle"] == "-|>"]
    assert len(heads) == 6  # two to the projections, two to the pair, two to the count


def test_a_lineage_that_is_long_or_not_all_there_is_drawn_as_far_as_it_is(store):
    parent = HandMadeRun(lineage={"parents": ["not-here-at-all"], "operation": "guess"})
    with store.writer(min_free_bytes=0) as writer:
        writer("start", parent.start)
        writer("stop", parent.stop())
        for _ in range(61):
            child = HandMadeRun(data_type="$step", lineage={"parents": [parent.uid], "operation": "step"})
            writer("start", child.start)
            writer("stop", child.stop())
            parent = child
    found = words(store.lineage(parent.uid).plot())
    assert any(text == "and 3 more: print(lineage) has all" for text in found)
    first = next(iter(store.query(operation="guess")))
    assert "not in this store" in words(store.lineage(first.uid).plot())


IN_A_PROCESS = """
import sys
from gently_bluesky import Store

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

with Store(sys.argv[1], mode="r") as store:
    run = store[sys.argv[2]]
    array = run["view_a"]
    sys.meta_path.insert(0, Missing())
    for draw in (array.preview, run.plot, store.lineage(array.uid).plot):
        try:
            draw()
        except ImportError as error:
            print(error.code, "gently-bluesky[profile]" in str(error))
    print(len(array._repr_html_()) > 1000)
    del sys.meta_path[0]
    print(array.preview(), "matplotlib.pyplot" in sys.modules)
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    array.preview()
    print(plt.get_fignums())
"""


def test_pictures_need_no_pyplot_and_without_matplotlib_the_error_names_the_extra(night):
    command = [sys.executable, "-c", IN_A_PROCESS, str(night.root), night.volumes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    *missing, html, picture, figures = done.stdout.splitlines()
    assert missing == ["missing-extra True"] * 3
    assert html == "True"
    assert picture.endswith(".savefig(path) keeps it, %matplotlib opens windows> False")
    assert figures == "[]"


def test_a_window_is_asked_for_where_pyplot_opens_windows(night, monkeypatch, tmp_path):
    """There is no screen here: pyplot draws into memory, and says that it has windows."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(plt, "get_current_fig_manager", lambda: type("M", (), {"set_window_title": print})())
    try:
        figure = night.store[night.volumes]["view_a"].preview()
        assert plt.figure(plt.get_fignums()[0]) is figure
        night.store[night.volumes]["view_a"].preview(tmp_path / "a.png")
        assert len(plt.get_fignums()) == 1
    finally:
        plt.close("all")
