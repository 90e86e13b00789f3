"""The IPython profile, as people start it: a real IPython in a pseudo-terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pexpect
import pytest

from gently_bluesky import Store

PROFILES = Path(__file__).parents[2] / "profiles"
PROMPT = r"In \[\d+\]: "
TIMEOUT_S = 120


@pytest.fixture
def session(tmp_path):
    """Start IPython with a copy of the profile (it writes its history there) and a home of its own."""
    shutil.copytree(
        PROFILES, tmp_path / "profiles", ignore=shutil.ignore_patterns("__pycache__", "history*", "db")
    )
    started = []

    def start(store):
        home = tmp_path / "home"
        home.mkdir()
        environment = {**os.environ, "HOME": str(home), "TERM": "dumb", "GENTLY_STORE": str(store)}
        arguments = [
            f"--ipython-dir={tmp_path / 'profiles'}",
            "--profile=dispim",
            "--simple-prompt",
            "--no-banner",
        ]
        child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", *arguments, "--no-confirm-exit", "--colors=NoColor"],
            env=environment,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            dimensions=(50, 200),
            cwd=str(tmp_path),
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def ask(child, line):
    """Type a line; return what is said before the next prompt."""
    child.sendline(line)
    child.expect_exact(line)
    child.expect(PROMPT)
    return child.before


def leave(child):
    """Leave; return what is said on the way out."""
    child.sendline("exit")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0
    return child.before


def test_a_session_acquires_slices_and_leaves_a_store_that_is_complete(session, root):
    child = session(root)
    child.expect(PROMPT)
    assert f"Data go to {root}" in child.before
    assert "0 runs, 0 B of pixels" in child.before
    assert "the store is well" in child.before
    assert "Error" not in ask(child, '(uid,) = RE(acquire_volume(scope, embryo="e2", session="tonight"))')
    assert "complete" in ask(child, "store[uid]")
    assert "(512, 512)" in ask(child, 'store[uid]["view_a"][0, 16].compute().shape')
    assert "uint16" in ask(child, "store[-1]['view_b']")
    said = ask(child, "print('sum', np.asarray(store[uid]['view_a'][0, 16]).sum(dtype=int))")
    assert "complete" in ask(child, "%runs")
    assert "view_a" in ask(child, "%show -1")
    assert "acquire_volume" in ask(child, "%show -1")
    assert "(complete," in ask(child, "%lineage")
    ask(child, "RE.subscribe(lambda name, doc: print('by then', store[doc['run_start']].status), 'stop')")
    assert "by then complete" in ask(child, "RE(bp.count([piezo]))")
    assert "session screen 3" in ask(child, "%session screen 3")
    assert "UsageError: no run, asset or datum" in ask(child, "%show nobody")
    assert "UsageError: expected how many" in ask(child, "%runs many")
    leave(child)
    with Store(root, mode="r") as store:
        record = store.latest(session="tonight", embryo="e2")
        assert (record.status, record.received, record.stored, record.lost) == ("complete", 2, 2, 0)
        assert f"sum {np.asarray(store[record.uid]['view_a'][0, 16]).sum(dtype=int)}" in said
    assert not list(root.rglob(".live"))


def test_a_run_that_a_session_leaves_paused_is_on_record_as_incomplete(session, root):
    child = session(root)
    child.expect(PROMPT)
    ask(child, "from bluesky.preprocessors import run_wrapper")
    assert "RunEngineInterrupted" in ask(child, "RE(run_wrapper(bps.pause()))")
    assert "Traceback" not in leave(child)
    with Store(root) as store:
        assert [record.status for record in store.query()] == ["incomplete"]
    assert not list(root.rglob(".live"))


def interrupt(child):
    """Press Ctrl-C twice, as bluesky asks for to pause at once."""
    child.sendcontrol("c")
    child.expect("deferred pause")
    time.sleep(0.2)  # bluesky takes two that come closer for one
    child.sendcontrol("c")
    child.expect("RunEngineInterrupted")
    child.expect(PROMPT)


SLOW = "slow = SimulatedDiSPIM(name='slow', size=64, n_slices=10, realtime=True)"


def test_ctrl_c_in_the_middle_of_a_volume_pauses_and_nothing_is_lost(session, root):
    child = session(root)
    child.expect(PROMPT)
    ask(child, f"from gently_bluesky.sim import SimulatedDiSPIM; {SLOW}")
    ask(child, "_ = slow.light_sheet.exposure_s.set(0.1)")
    child.sendline("RE(acquire_volume(slow, num=3))")
    child.expect(r"\|\s+1 \|")  # the first event; the second volume is under way
    interrupt(child)
    assert "paused" in ask(child, "RE.state")
    assert "complete" in ask(child, "RE.resume(); store[-1]")
    child.sendline("RE(acquire_volume(slow, num=1000))")
    child.expect(r"\|\s+2 \|")
    interrupt(child)
    assert "abort" in ask(child, "RE.abort()")
    assert "aborted" in ask(child, "store[-1]")
    assert "idle" in ask(child, "RE.state")
    leave(child)
    with Store(root, mode="r") as store:
        assert [run.status for run in (store[-2], store[-1])] == ["complete", "aborted"]
        for run in (store[-2], store[-1]):
            record = run.record
            assert (record.received, record.lost) == (record.stored, 0)
            assert len(run["view_a"]) == len(run["primary"].events)
            assert np.asarray(run["view_a"]).any(axis=(1, 2, 3)).all()
        assert len(store[-2]["view_a"]) == 3
    with Store(root) as store:
        assert not store.last_reconciliation.changes


GATED = """
import threading, time
from pathlib import Path
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.faults import GatedBackend
camera, slow_disk = EncodedCamera(shape=(2048, 2048)), GatedBackend()
writer._desk.backend = slow_disk
def open_the_gate():
    while writer.stats()["pending_bytes"] < 16 * 2**23:
        time.sleep(0.01)
    print("the buffer is" + " full")
    while not Path("opened").exists():
        time.sleep(0.01)
    slow_disk.gate.set()
threading.Thread(target=open_the_gate, daemon=True).start()
print("rea" + "dy")
"""


def test_ctrl_c_while_the_buffer_is_full_pauses_once_storage_has_caught_up(session, root, tmp_path):
    (tmp_path / "gated.py").write_text(GATED)
    child = session(root)
    child.expect(PROMPT)
    assert "ready" in ask(child, "%run -i gated.py")
    child.sendline("RE(bp.count([camera], 40))")
    child.expect_exact("the buffer is full")
    child.sendcontrol("c")
    child.expect("deferred pause")
    time.sleep(0.2)  # as in `interrupt`
    child.sendcontrol("c")
    (tmp_path / "opened").touch()
    child.expect("RunEngineInterrupted")
    child.expect(PROMPT)
    assert "paused" in ask(child, "RE.state")
    assert "complete" in ask(child, "RE.resume(); store[-1]")
    leave(child)
    with Store(root, mode="r") as store:
        record = store[-1].record
        assert (record.received, record.stored, record.lost) == (40, 40, 0)
        assert store.verify(progress=False).ok


def test_without_storage_there_is_no_session(session, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("not a store")
    child = session(blocked)
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 1
    assert "no session without storage" in child.before
    assert "In [1]" not in child.before
    assert "Traceback" not in child.before
