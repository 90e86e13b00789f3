"""Passes of verification: what is stamped and left out, what people and programs are told, what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from memory_left import clear
from nights import acquire, event_file
from typer.testing import CliRunner

from gently_bluesky import Store
from gently_bluesky.cli import app
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.upkeep.logbook import LOGBOOK, Logbook
from gently_bluesky.upkeep.verification import Progress


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4000] ^= 16
    file.write_bytes(data)


def verified(store: Store, **settings: object):
    return store.verify(progress=False, **settings)


# -- stamps ------------------------------------------------------------------------------------------------


def test_a_run_is_stamped_with_what_was_read_of_it(root: Path, nights: Callable[..., str]) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        flip(event_file(store, uid, 1))
        (finding,) = verified(store).findings
        stamps = {entry["run"]: entry for entry in Logbook(root).entries("verified")}
        assert len(stamps) == 3
        stamp, journal = stamps[uid], root / store.record(uid).path
        assert (stamp["events"], stamp["bytes"], stamp["findings"]) == (8, 96000, [finding.to_dict()])
        assert stamp["journal"]["path"] == store.record(uid).path
        assert stamp["journal"]["bytes"] == journal.stat().st_size
        # an array or an event alone are not the run, but what is wrong with one is
        (other,) = {asset.uid for asset in store.assets(uid)} - {finding.asset}
        verified(store, uid=other)
        assert len(list(Logbook(root).entries("verified"))) == 3
        verified(store, uid=finding.asset)
        assert [entry["findings"] for entry in Logbook(root).entries("verified")][3:] == [[finding.to_dict()]]


def test_a_store_that_is_only_read_is_verified_and_not_stamped(
    root: Path, nights: Callable[..., str]
) -> None:
    nights(root, "zarr", "datum")
    with Store(root, mode="r") as store:
        assert verified(store).ok
    assert not (root / LOGBOOK).exists()


def test_runs_that_were_found_well_are_left_out_where_that_is_asked_for(
    root: Path, nights: Callable[..., str]
) -> None:
    uid = nights(root, "tiff", "datum")
    with Store(root) as store:
        flip(event_file(store, uid, 1))
        first = verified(store)
        assert (first.skipped, len(first.findings)) == (0, 1)
        when = min(entry["time"] for entry in Logbook(root).entries("verified"))
        # the run with a finding is read again, and so is all that was verified before that
        report = verified(store, unless_verified_since=when)
        assert (report.skipped, report.runs, len(report.findings)) == (2, 1, 1)
        assert "2 runs not read again: verified before" in str(report)
        assert verified(store, unless_verified_since="2100-01-01").skipped == 0
        assert verified(store, resume=True).skipped == 0, "the last pass had ended"
        acquire(store)
        assert verified(store, unless_verified_since=when).runs == 2


def test_a_run_that_went_on_after_it_was_verified_is_read_again(store: Store) -> None:
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    with store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, view_a=np.ones((4, 5), "u2")))
        store.wait_for_run(timeout_s=30).wait("primary", "view_a", timeout_s=30)
        assert verified(store).events == 1
        writer("event", run.event(descriptor, view_a=np.ones((4, 5), "u2")))
        writer("stop", run.stop())
    report = verified(store, unless_verified_since=0)
    assert (report.skipped, report.events) == (0, 2)


def test_a_damaged_logbook_is_a_finding_and_everything_is_read(
    root: Path, nights: Callable[..., str]
) -> None:
    nights(root, "tiff", "datum")
    with Store(root) as store:
        assert verified(store).ok
        data = (root / LOGBOOK).read_bytes()
        (root / LOGBOOK).write_bytes(b"}" + data)
        report = verified(store, unless_verified_since=0)
        assert [(finding.kind, finding.path) for finding in report.findings] == [("corrupted", LOGBOOK)]
        assert "line 1 is not an entry" in report.findings[0].reason
        assert report.skipped == 0


def test_a_logbook_that_cannot_be_written_is_remarked_on(root: Path, nights: Callable[..., str]) -> None:
    nights(root, "tiff", "datum")
    with Store(root) as store:
        (root / LOGBOOK).symlink_to(root / "nowhere" / LOGBOOK)
        report = verified(store)
        assert report.ok
        assert "could not be put on record" in str(report)


# -- progress, settings, and what people are told ----------------------------------------------------------


def test_progress_is_told_on_the_calling_thread_and_reaches_the_end(
    root: Path, nights: Callable[..., str]
) -> None:
    nights(root, "zarr", "stream")
    told: list[Progress] = []
    with Store(root) as store:
        report = store.verify(progress=told.append, workers=3)
    assert [now.nbytes for now in told] == sorted(now.nbytes for now in told)
    assert (told[-1].runs, told[-1].events, told[-1].nbytes) == (3, report.events, report.nbytes)
    assert {now.total_nbytes for now in told} == {report.nbytes}


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": True}, {"workers": 1000}])
def test_settings_that_cannot_be_are_refused(store: Store, settings: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting, match=r"from 1 to 64.*nothing was verified"):
        store.verify(**settings)
    with pytest.raises(InvalidSetting, match="leave uid away"):
        store.verify("0123", resume=True)
    with pytest.raises(InvalidSetting, match="unless_verified_since"):
        store.verify(unless_verified_since="yesterday")


def test_the_command_says_how_it_went_by_its_exit_code(
    root: Path, nights: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = nights(root, "tiff", "datum")
    run = CliRunner().invoke
    monkeypatch.chdir(root)
    well = run(app, ["verify"])
    assert (well.exit_code, well.stdout.splitlines()[-1]) == (0, "all is well")
    assert run(app, ["verify", "--quiet", "--store", str(root)]).output == ""
    with Store(root, mode="r") as store:
        array = store[uid]["view_a"].uid
        flip(event_file(store, uid, 1))
    found = run(app, ["verify", "--quiet"])
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (3, "1 finding; nothing was changed")
    report = json.loads(run(app, ["verify", array, f"{array}/0", "--json"]).stdout)
    assert (report["ok"], report["events"], report["findings"][0]["datum"]) == (False, 4, f"{array}/1")
    assert run(app, ["verify", f"{array}/0"]).exit_code == 0
    for wrong, says in ((["0123"], "no run"), (["--store", str(root / "no")], "there is no store")):
        failed = run(app, ["verify", *wrong])
        assert (failed.exit_code, says in failed.stderr) == (1, True)
    assert not (root / "no").exists()


# -- memory ------------------------------------------------------------------------------------------------


def test_arrays_in_memory_are_verified_and_missing_when_they_are_gone(root: Path) -> None:
    try:
        with Store(root) as store:
            uid = acquire(store, "memory")
            assert verified(store).ok
            store.materialize(store[uid]["view_a"].uid)
            assert verified(store).ok, "what was left in the place of the first one belongs there"
            clear(root)
            report = verified(store)
            assert [(finding.kind, finding.data_key) for finding in report.findings] == [
                ("missing", "view_b")
            ]
            assert "the machine was restarted" in report.findings[0].reason
            assert report.events == 4
    finally:
        clear(root)


MEASURE = """
import sys
from pathlib import Path
from gently_bluesky import Store

def kb(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

with Store(sys.argv[1], mode="r") as store:
    store.verify(sys.argv[2], progress=False)  # what is imported is no matter of size
    before = kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    report = store.verify(progress=False, workers=2)
    assert report.ok and report.nbytes > 300_000_000, report
    print((kb("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak of memory on this system")
@pytest.mark.parametrize("format", ["zarr", "tiff"])
def test_it_takes_memory_for_blocks_and_not_for_events(root: Path, format: str) -> None:
    volume = np.zeros((80, 1024, 1024), "u2")
    volume[:, ::7, ::5] = 1000
    run = HandMadeRun()
    descriptor = run.descriptor(view_a={})
    with Store(root) as store:
        with store.writer(format=format) as writer:
            writer("start", run.start)
            writer("descriptor", descriptor)
            for _ in range(2):
                writer("event", run.event(descriptor, view_a=volume))
            writer("stop", run.stop())
        small = store.put(np.ones((3, 4)), data_type="test", format=format)
    command = [sys.executable, "-c", MEASURE, str(root), small.uid]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.8 * volume.nbytes, (
        "two workers, each of which had an event of this size to read"
    )
