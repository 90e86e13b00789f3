"""What devices wrote by themselves, once it is old: deleted and brought back with its run, converted where adopted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from cameras import CAMERAS, PLANS

from gently_bluesky import Store
from gently_bluesky.errors import AssetDamaged, AssetDeleted, InputError
from gently_bluesky.run import Run
from gently_bluesky.upkeep.retention import Policy, Rule

Shows = Callable[[Run, list[int]], None]


def test_what_a_run_adopted_is_converted_as_what_it_wrote_itself(
    store: Store, RE: Any, flyer: Any, family: str, format: str, shows: Shows
) -> None:
    RE.subscribe(store.writer(adopt="move"))
    (uid,) = RE(PLANS[family](flyer))
    to = {"zarr": "tiff", "tiff": "zarr"}[format]
    assert store.convert(uid, format=to, progress=False).ok
    shows(store[uid], [1, 2, 3, 4])
    assert store.verify(uid, progress=False).ok


def test_a_copy_of_what_a_device_wrote_is_compared_with_what_the_device_put_on_record(
    store: Store, RE: Any, flyer: Any, family: str, format: str, shows: Shows
) -> None:
    RE.subscribe(store.writer(adopt="move"))
    (uid,) = RE(PLANS[family](flyer))
    (record,) = store.root.glob("runs/*/*/*/*/incoming/**/documents.jsonl")
    how = {"format": {"zarr": "tiff", "tiff": "zarr"}[format], "progress": False}
    lines = record.read_bytes()
    record.write_bytes(lines.replace(b"crc32c:", b"crc32c:0", 1))
    with pytest.raises(AssetDamaged, match="on record of its pixels is damaged"):
        store.convert(uid, **how)
    record.write_bytes(lines)
    name = "view_a.ome.zarr/0/c/{}/0/0/0" if format == "zarr" else "view_a/{:06d}.ome.tif"
    first, second = (record.parent / name.format(event) for event in range(2))
    pixels = second.read_bytes()
    second.write_bytes(first.read_bytes())  # whole, and not what was announced
    with pytest.raises(AssetDamaged, match=r"expected pixels of crc32c:.* for event 1"):
        store.convert(uid, **how)
    second.write_bytes(pixels)
    shows(store[uid], [1, 2, 3, 4])
    assert store.convert(uid, **how).ok


@pytest.mark.parametrize("adopt", ["reference", "move"])
def test_what_devices_wrote_goes_and_comes_back_with_its_run(
    store: Store, RE: Any, flyer: Any, family: str, shows: Shows, adopt: str
) -> None:
    RE.subscribe(store.writer(adopt=adopt))
    (uid,) = RE(PLANS[family](flyer))
    assert store.verify(progress=False).ok
    plan = store.retention.plan(Policy(rules=[Rule(max_size=1)]))
    assert [one.uid for one in plan.goes] == [uid]
    assert store.retention.apply(plan).left == {}
    with pytest.raises(AssetDeleted):
        np.asarray(store[uid]["view_a"])
    assert store.verify(progress=False).ok
    found = store.reconcile()
    assert not found.changes, str(found)
    assert not found.needs_attention, str(found)
    store.restore(uid)
    shows(store[uid], [1, 2, 3, 4])
    assert store.verify(uid, progress=False).ok


def test_what_is_still_written_by_its_device_or_announced_by_two_runs_stays(
    store: Store, RE: Any, shows: Shows
) -> None:
    camera = CAMERAS["datum"](store.recorder())

    @bpp.stage_decorator([camera])
    def plan() -> Any:
        for _ in range(2):
            yield from bpp.run_wrapper(bps.trigger_and_read([camera]))
            with pytest.raises(InputError, match="nothing was deleted"):
                store.delete(store[-1].uid, reason="x", although=["unverified"])

    writer = store.writer()
    RE.subscribe(writer)
    first, second = RE(plan())
    assert {one.path for one in store.assets(first)} & {one.path for one in store.assets(second)}
    for uid, number in ((first, 1), (second, 2)):
        with pytest.raises(InputError, match="nothing was deleted"):
            store.delete(uid, reason="x", although=["unverified"])
        shows(store[uid], [number])
