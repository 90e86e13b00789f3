"""An interpreter that exits in the middle of a run stores what it had accepted, and does not hang."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from looking import examine

from gently_bluesky import Store

SCRIPT = """
import atexit, logging, os, sys, threading
sys.path.insert(0, {here!r})
from scenes import Camera, RunEngine, Store, acquisition, bps
logging.disable()
root, format, how = sys.argv[1:]
first_announced, may_go_on = threading.Event(), threading.Event()

def hold_back(name, doc):
    if name == "event":
        first_announced.set()
        assert may_go_on.wait(60)

def before(number):
    if number == 2:
        assert first_announced.wait(60)
    if number == 6:
        # called before the writer's own, which was registered at the start of the run
        atexit.register(may_go_on.set)
        print("five accepted", flush=True)
        while True:
            yield from bps.checkpoint()
            yield from bps.sleep(0.01)

store = Store(root)
writer = store.writer(format=format, min_free_bytes=0)
writer.subscribe(hold_back)
RE = RunEngine({{}}, call_returns_result=False)
RE.subscribe(writer)
if how == "documents":
    documents = []
    other = RunEngine({{}}, call_returns_result=False)
    other.subscribe(lambda name, doc: documents.append((name, doc)))
    other(acquisition(Camera("n"), 5))
    for number, (name, doc) in enumerate(documents[:-1]):
        writer(name, doc)
        if number == 2:
            assert first_announced.wait(60)
    atexit.register(may_go_on.set)
    print("five accepted", flush=True)
    sys.exit(7)
try:
    RE(acquisition(Camera("n"), 6, before))
except BaseException as error:
    print(type(error).__name__, flush=True)
    sys.exit(7)
"""


@pytest.mark.parametrize(
    ("format", "how"),
    [
        ("zarr", "interrupt"),
        ("tiff", "documents"),
        pytest.param("zarr", "documents", marks=pytest.mark.long),
        pytest.param("tiff", "interrupt", marks=pytest.mark.long),
    ],
)
def test_interpreter_that_exits_in_mid_run_stores_what_it_accepted(root: Path, format: str, how: str) -> None:
    script = SCRIPT.format(here=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(root), format, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "five accepted" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        if how == "interrupt":
            process.send_signal(signal.SIGINT)  # the RunEngine pauses at the next checkpoint
        said += process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 7, errors
    if how == "interrupt":
        assert "RunEngineInterrupted" in said
    run = examine(None, str(root), mode="a")["n"]
    assert (run["status"], run["received"], run["stored"], run["lost"]) == ("incomplete", 5, 5, 0)
    assert [number for _, number in run["events"]] == [1, 2, 3, 4, 5]


CLOSING_LATE = """
import atexit, sys
from gently_bluesky import Store

store = Store(sys.argv[1])
atexit.register(store.close)  # before the run, and so called after the writer's own
writer = store.writer()
writer("start", {"uid": "left-open", "time": 1.0})
sys.exit(7)
"""


def test_store_that_a_profile_closes_at_exit_ends_its_runs_as_incomplete(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSING_LATE, str(root)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")
    with Store(root, mode="r") as store:
        assert store["left-open"].status == "incomplete"
        assert store["left-open"].stop["reason"] == "the writer was closed before a stop document came"
