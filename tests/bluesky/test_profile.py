"""The IPython profile, as people start it: a real IPython in a pseudo-terminal."""

from __future__ import annotations

import os
import shutil
import sys
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
    assert "(0 runs so far" in child.before
    assert "Error" not in ask(child, '(uid,) = RE(acquire_volume(scope, embryo="e2", session="tonight"))')
    assert "complete" in ask(child, "store[uid]")
    assert "(512, 512)" in ask(child, 'store[uid]["view_a"][0, 16].compute().shape')
    assert "uint16" in ask(child, "store[-1]['view_b']")
    said = ask(child, "print('sum', np.asarray(store[uid]['view_a'][0, 16]).sum(dtype=int))")
    leave(child)
    with Store(root, mode="r") as store:
        record = store.latest(session="tonight", embryo="e2")
        assert (record.status, record.received, record.stored, record.lost) == ("complete", 2, 2, 0)
        assert f"sum {np.asarray(store[record.uid]['view_a'][0, 16]).sum(dtype=int)}" in said
    assert not list(root.rglob(".live"))


def test_the_store_hears_of_a_document_before_anybody_else(session, root):
    child = session(root)
    child.expect(PROMPT)
    ask(child, "RE.subscribe(lambda name, doc: print('by then', store[doc['run_start']].status), 'stop')")
    assert "by then complete" in ask(child, "RE(bp.count([piezo]))")
    leave(child)


def test_a_run_that_a_session_leaves_paused_is_on_record_as_incomplete(session, root):
    child = session(root)
    child.expect(PROMPT)
    ask(child, "from bluesky.preprocessors import run_wrapper")
    assert "RunEngineInterrupted" in ask(child, "RE(run_wrapper(bps.pause()))")
    assert "Traceback" not in leave(child)
    with Store(root) as store:
        assert [record.status for record in store.query()] == ["incomplete"]
    assert not list(root.rglob(".live"))


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
