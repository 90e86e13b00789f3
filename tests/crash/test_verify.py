"""Verification that is interrupted: by Ctrl-C, or by the death of its process. A pass goes on where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from nights import acquire, event_file
from zygote import Zygote

from gently_bluesky import Store
from gently_bluesky.upkeep.logbook import Logbook

RUNS = 6


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4000] ^= 1
    file.write_bytes(data)


@pytest.fixture
def uids(root: Path) -> list[str]:
    with Store(root) as store:
        for _ in range(RUNS):
            acquire(store, "tiff")
        return [record.uid for record in sorted(store.query(), key=lambda record: record.path)]


def test_a_pass_that_is_interrupted_goes_on_and_reads_nothing_twice(
    root: Path, zygote: Zygote, uids: list[str]
) -> None:
    child = zygote.start("verify_and_tell", root=str(root), stop_at=3)
    assert child.hear() == {"runs": 3}
    os.kill(child.pid, signal.SIGINT)
    assert child.result() == {"interrupted": 3}
    stamped = [entry["run"] for entry in Logbook(root).entries("verified")]
    assert stamped == uids[:3]
    with Store(root) as store:
        for uid in (uids[0], uids[4]):
            spoil(event_file(store, uid, 2))
        # interrupted once more: it stays the same pass
        child = zygote.start("verify_and_tell", root=str(root), stop_at=1, resume=True)
        assert child.hear() == {"runs": 1}
        os.kill(child.pid, signal.SIGINT)
        assert child.result() == {"interrupted": 1}
        report = store.verify(progress=False, resume=True)
        assert (report.skipped, report.runs) == (4, 2)
        assert [finding.run for finding in report.findings] == [uids[4]]
        # that pass has ended: the next one reads everything, also what was spoilt behind its back
        report = store.verify(progress=False, resume=True)
        assert (report.skipped, [finding.run for finding in report.findings]) == (0, [uids[0], uids[4]])


def test_a_pass_whose_process_was_killed_goes_on(root: Path, zygote: Zygote, uids: list[str]) -> None:
    child = zygote.start("verify_and_tell", root=str(root), stop_at=3)
    assert child.hear() == {"runs": 3}
    child.kill()
    stamped = [entry["run"] for entry in Logbook(root).entries("verified")]
    with Store(root) as store:
        report = store.verify(progress=False, resume=True)
        assert report.ok
        assert (report.skipped, report.runs) == (len(stamped), RUNS - len(stamped))
    assert {entry["run"] for entry in Logbook(root).entries("verified")} == set(uids)
