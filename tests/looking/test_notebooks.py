"""What notebooks show of a store, a run, a record and an array: enough, cheaply, safely, and whatever happens."""

from __future__ import annotations

import io
import pickle
import re
from base64 import b64decode
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gently_bluesky import LazyArray, Store
from gently_bluesky.errors import AssetDamaged
from gently_bluesky.glances import MOST_BYTES
from gently_bluesky.lazy import ArraySource
from gently_bluesky.testing.documents import HandMadeRun

ALLOWED = {
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("figure", "img", "figcaption", "pre", "p"),
}


class Reader(HTMLParser):
    """Collects text and pictures, and refuses what a page may not hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.images, self.open = "", list[dict[str, str | None]](), list[str]()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED
        assert {name for name, _ in attrs} <= {"style", "alt", "src"}
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


def seen(shown: object) -> Reader:
    return Reader(shown._repr_html_())


def pixels(image: dict[str, str | None]) -> np.ndarray:
    head, _, data = image["src"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(b64decode(data))) as picture:
        return np.asarray(picture)


def test_an_array_shows_its_axes_its_lineage_and_the_middle_of_its_newest_event(night):
    array = night.store[night.volumes]["view_a"]
    page = seen(array)
    for text in ("(2, 8, 64, 64)", "micrometer", "uint16", array.uid, f"of {night.volumes[:8]} (complete"):
        assert text in page.text
    (image,) = page.images
    assert "view_a[1] of 2 events, z 4 of 8" in image["alt"]
    shown = pixels(image)
    assert shown.shape == (192, 192)
    plane = np.asarray(array[1, 4], float)
    assert np.corrcoef(shown[: 64 * 2 : 3, ::3].ravel(), plane[:43].ravel())[0, 1] > 0.95


def test_a_result_shows_what_it_was_made_from_and_both_views(night):
    page = seen(night.store.get(night.pair.uid))
    assert night.mip.uid[:8] in page.text
    assert "primary/view_b" in page.text
    assert [image["alt"].split(", ")[1] for image in page.images] == ["v 0 of 2", "v 1 of 2"]


def test_a_run_shows_how_it_stands_what_it_holds_and_what_was_made_of_it(night):
    page = seen(night.store[night.volumes])
    for text in (
        *("acquire_volume", "complete, 4 of 4 frames stored", "first light", "embryo", "e1"),
        *("(t: 2, z: 8, y: 64, x: 64)", "dispim_galvo", "2 projection, 1 nuclei"),
    ):
        assert text in page.text
    assert len(page.images) == 2


def test_a_derived_run_shows_its_lineage(night):
    page = seen(night.store[night.nuclei.uid])
    assert "nuclei" in page.text
    assert "stack" in page.text
    assert page.images == []


def test_a_store_shows_how_much_it_holds_and_its_newest_runs(night):
    page = seen(night.store)
    for text in (
        str(night.root),
        "3 acquired, 4 derived results",
        "first light",
        night.volumes[:8],
        "focus_sweep",
    ):
        assert text in page.text
    assert len(page.images) == 2


def test_a_record_that_a_store_gave_shows_pixels_and_lineage_and_is_the_same_value(night):
    store = night.store
    array = store[night.volumes]["view_a"]
    for record in (store.record(array.uid), store.record(array[0].uid)):
        page = seen(record)
        assert record.uid in page.text
        assert "GENTLY_ZARR" in page.text or record.kind == "datum"
        assert re.search(r"size\s+(131\.1|65\.5) kB", page.text)
        assert len(page.images) == 1
        for copied in (pickle.loads(pickle.dumps(record)), deepcopy(record)):
            assert copied == record
            assert seen(copied).images == []
    assert len(seen(store.latest(data_type="pair")).images) == 2
    assert len(seen(store.children(night.mip.uid)[0]).images) == 2
    assert "view_a" in seen(store.record(night.mip.uid)).text


def test_names_from_documents_inject_nothing_and_move_nothing(store):
    hostile = "<script>alert(1)<b>\x1b[2J\u202e\"'&<img src=x onerror=y>"
    run = HandMadeRun(plan_name=hostile, session=hostile, **{hostile: hostile})
    descriptor = run.descriptor(**{hostile: {}})
    with store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, **{hostile: np.eye(40, dtype="u1")}))
        writer("stop", run.stop())
    shown = store[run.uid]
    array = shown[hostile]
    for one in (store, shown, array, store.record(array.uid), shown.record, store.lineage(array.uid)):
        html = one._repr_html_()
        Reader(html)
        assert "\x1b" not in html
        assert "\u202e" not in html
        assert "<script" not in html
        assert "http" not in html
    assert len(seen(array).images) == 1


class Costly(ArraySource):
    """A large array of nothing that notes what is read of it."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self._shape, self._chunks, self.reads = shape, chunks, list[tuple[int, ...]]()

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: np.dtype("u2"))
    chunks = property(lambda self: self._chunks)

    def read(self, selection):
        self.reads.append(
            tuple(len(range(length)[pick]) for pick, length in zip(selection, self._shape, strict=True))
        )
        return np.zeros(self.reads[-1], "u2")


@pytest.mark.parametrize(
    ("chunks", "read"),
    [
        ((1, 1, 512, 512), (1, 1, 2048, 2048)),
        ((1, 4, 256, 256), (1, 1, 1024, 1024)),
        ((1, 16, 128, 128), (1, 1, 512, 512)),
        ((1, 200, 2048, 2048), None),
    ],
)
def test_a_picture_of_a_large_volume_reads_what_is_cheap_to_read(chunks, read):
    source = Costly((100, 200, 2048, 2048), chunks)
    array = LazyArray(source, dims=("t", "z", "y", "x"), name="big")
    page = seen(array)
    assert source.reads == ([] if read is None else [read])
    if read is None:
        assert "no picture of big[99] of 100 events: a plane lies in chunks of 1.7 GB" in page.text
    else:
        assert np.prod(read) * 2 <= MOST_BYTES
        assert (f"the middle {read[2]} x {read[3]}" in page.text) == (read[2] < 2048)


def test_numbers_and_arrays_without_events_show_no_picture(night, store):
    assert seen(night.store[night.volumes]["dispim_piezo"]).images == []
    assert seen(night.store[night.volumes]["view_a"][:0]).images == []


def test_pixels_that_cannot_be_read_are_said_where_they_would_stand():
    class Damaged(Costly):
        def read(self, selection):
            raise AssetDamaged("a chunk <of it> is torn")

    class Surprising(Costly):
        def read(self, selection):
            raise RuntimeError("somebody else's reader")

    for source, words in ((Damaged, "a chunk <of it> is torn"), (Surprising, "somebody else's reader")):
        page = seen(LazyArray(source((4, 4), (4, 4)), dims=("y", "x"), name="a"))
        assert f"a cannot be shown: {words}" in page.text


def test_a_run_whose_files_are_gone_is_shown_with_the_reason(root, acquire_small):
    with Store(root) as store:
        uid = acquire_small(store)
        (asset,) = root.glob("runs/*/*/*/*/primary-camera*")
        asset.rename(asset.with_name("gone"))
        page = seen(store[uid])
    assert "cannot be opened" in page.text
    assert "complete" in page.text


def test_a_closed_store_is_still_a_page(root, acquire_small):
    with Store(root) as store:
        run = store[acquire_small(store)]
        array, record = run["camera"], run.record
    for one in (store, run, record, array):
        seen(one)
    assert "cannot be shown" in seen(store).text


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(root: Path):
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    with Store(root) as store, store.writer(min_free_bytes=0) as writer:
        writer("start", run.start)
        assert "running" in seen(store[run.uid]).text
        writer("descriptor", descriptor)
        for value in (1, 2):
            writer("event", run.event(descriptor, camera=np.full((50, 60), value, "u1")))
        with Store(root, mode="r") as reader:
            live = reader.wait_for_run()
            live.wait("primary", "camera", 2, timeout_s=60)
            page = seen(live)
            assert "(t: 2, y: 50, x: 60)" in page.text
            assert len(page.images) == 1
            seen(reader)
        writer("stop", run.stop())


@pytest.fixture
def acquire_small():
    def send(store: Store) -> str:
        run = HandMadeRun()
        descriptor = run.descriptor(camera={})
        with store.writer(min_free_bytes=0) as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            writer("event", run.event(descriptor, camera=np.eye(64, dtype="u1")))
            writer("stop", run.stop())
        return run.uid

    return send
