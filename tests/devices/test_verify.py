"""Arrays that devices wrote by themselves are verified with the digests that lie beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from cameras import CAMERAS

from gently_bluesky import Store


@pytest.mark.parametrize("adopt", ["reference", "move"])
def test_what_a_device_recorded_is_compared_with_its_own_digests(
    store: Store, RE: Any, format: str, family: str, adopt: str
) -> None:
    camera = CAMERAS[family](store.recorder(format=format))
    RE.subscribe(store.writer(adopt=adopt))

    @bpp.run_decorator()
    @bpp.stage_decorator([camera])
    def plan() -> Iterator[Any]:
        for _ in range(3):
            yield from bps.trigger_and_read([camera])

    (uid,) = RE(plan())
    report = store.verify(progress=False)
    assert report.ok, report
    assert (report.runs, report.assets, report.events, report.without_digest) == (1, 2, 6, 0)

    top = store.root if adopt == "reference" else (store.root / store.record(uid).path).parent
    (folder,) = top.glob("incoming/*/*/*/*")
    first, second = sorted(
        (folder / "view_a.ome.zarr/0/c").glob("*/0/0/0") if format == "zarr" else folder.glob("view_a/*")
    )[:2]
    second.write_bytes(first.read_bytes())
    (finding,) = store.verify(progress=False).findings
    assert (finding.kind, finding.data_key, finding.event) == ("corrupted", "view_a", 1)
    assert finding.datum == store.array(finding.asset)[1].uid
    assert store.verify(f"{finding.asset}/0", progress=False).ok

    (folder / "documents.jsonl").unlink()
    report = store.verify(progress=False)
    assert {(finding.kind, Path(finding.path).name) for finding in report.findings} == {
        ("missing", "documents.jsonl")
    }
    assert report.without_digest == report.events == 6
