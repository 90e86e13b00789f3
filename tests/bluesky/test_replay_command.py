"""``gently-bluesky replay``, and the pace of a replay, as a person meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import bluesky.plans as bp
import numpy as np
import pexpect
import pytest
from equal_stores import assert_equal
from ophyd.sim import det1, motor
from typer.testing import CliRunner

from gently_bluesky import Store, record, replay
from gently_bluesky.cli import app
from gently_bluesky.documents.record import Recording
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume
from gently_bluesky.testing.documents import HandMadeRun


def run(*arguments, **settings):
    return CliRunner().invoke(app, ["replay", *map(str, arguments)], **settings)


def timed_run(seconds):
    """The documents of a run whose events were made at these seconds of its life."""
    made = HandMadeRun()
    described = made.descriptor(m={"dtype": "number"})
    described["time"] = made.start["time"] = 1e9
    events = [{**made.event(described, m=n), "time": 1e9 + after} for n, after in enumerate(seconds)]
    return [("start", made.start), ("descriptor", described), *(("event", doc) for doc in events)]


# -- pace --------------------------------------------------------------------------------------------------


def arrivals(documents, **settings):
    begun = time.monotonic()
    times = []
    replay(documents, lambda name, doc: times.append(time.monotonic() - begun), **settings)
    return times[2:]


def test_documents_come_in_their_original_timing_or_faster_or_at_once():
    documents = timed_run([0.1, 0.15, 0.4])
    original = arrivals(documents, speed=1.0)
    assert all(came >= due for came, due in zip(original, [0.1, 0.15, 0.4], strict=True))
    assert original[0] < 0.4
    assert 0.08 <= arrivals(documents, speed=5)[-1] < 0.4
    assert arrivals(documents)[-1] < 0.1


def test_an_hours_pause_takes_no_longer_than_it_may_and_what_follows_keeps_its_distance():
    came = arrivals(timed_run([0.0, 3600.0, 3600.2]), speed=1.0, longest_wait_s=0.1)
    assert 0.1 <= came[1] < 10
    assert came[2] - came[1] >= 0.09


def test_a_callback_that_takes_long_delays_what_follows_no_more_than_it_must():
    times = []

    def slow(name, doc):
        times.append(time.monotonic())
        while len(times) == 3 and time.monotonic() - times[2] < 0.3:
            pass

    replay(timed_run([0.0, 0.1, 0.2, 0.4]), slow, speed=1.0)
    first, second, third, last = (came - times[2] for came in times[2:])
    assert first == 0
    assert third - second < 0.1, "both are late, and are sent at once"
    assert last >= 0.39


@pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan"), "fast"])
def test_a_speed_that_is_none_is_refused_before_anything_is_sent(speed):
    with pytest.raises(InvalidSetting, match="speed must be a number above 0"):
        replay(timed_run([0.0]), pytest.fail, speed=speed)


def test_progress_tells_of_documents_runs_bytes_and_waits(tmp_path):
    with Recording(tmp_path / "run.jsonl") as recording:
        for document in timed_run([0.0, 1.2]):
            recording(*document)
    told = []
    replay(recording.path, progress=told.append, speed=1.0)
    assert max(now.waiting_s for now in told) > 1
    last = told[-1]
    assert (last.documents, last.runs, last.skipped) == (4, 1, 0)
    assert last.nbytes == last.total_nbytes == recording.path.stat().st_size


# -- the command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A store with two runs and a result, and a recording of the runs."""
    from bluesky import RunEngine

    folder = tmp_path_factory.mktemp("night")
    engine = RunEngine({}, call_returns_result=False)
    with Store(folder / "store") as store, record(engine, folder / "runs.jsonl.gz"):
        engine.subscribe(store.writer())
        engine(acquire_volume(SimulatedDiSPIM(size=16, n_slices=2), num=2, session="2026-11-21"))
        engine(bp.scan([det1], motor, -1, 1, 3))
        store.put(41.5, data_type="threshold", parents=[store[-1].uid])
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
    return folder


def test_without_a_target_each_document_is_a_line(night):
    done = run(night / "store")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    names = [line[2] if line[0].count(":") == 2 else line[1] for line in lines]
    assert names[:4] == ["start", "descriptor", "resource", "datum"]
    assert [names.count(name) for name in ("start", "event", "stop")] == [3, 6, 3]
    assert "view_a (2, 16, 16)" in done.stdout
    assert "success  primary: 3 events" in done.stdout
    recorded = run(night / "runs.jsonl.gz").stdout
    assert recorded.count(" event ") == 5


def test_a_terminal_cuts_each_line_off_where_it_ends(night):
    child = pexpect.spawn(
        sys.executable, ["-c", "from gently_bluesky.cli import app; app()", "replay", str(night / "store")],
        dimensions=(24, 80), timeout=60, encoding="utf-8", env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    lines = child.read().splitlines()
    child.wait()
    child.close()
    assert max(map(len, lines)) == 80
    assert len(lines) == len(run(night / "store").stdout.splitlines())


def test_a_table_shows_the_numbers_of_each_run_that_has_some(night):
    done = run(night / "store", "--table")
    assert done.exit_code == 0, done.output
    assert "|         3 |" in done.stdout
    assert "generator scan" in done.stdout
    assert "threshold" in done.stdout


def test_json_is_read_again_from_a_pipe(night):
    done = run(night / "runs.jsonl.gz", "--json")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["name"] for one in documents].count("event") == 5
    script = "from gently_bluesky.cli import app; app()"
    again = subprocess.run(
        [sys.executable, "-c", script, "replay", "-", "--json"],
        input=done.stdout_bytes, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert again.stdout == done.stdout_bytes


def test_into_a_store_gives_an_equal_store_and_says_what_was_done(night, tmp_path):
    done = run(night / "store", "--into", tmp_path / "copy")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"3 runs, 15 documents replayed to {tmp_path / 'copy'} in ")
    assert_equal(night / "store", tmp_path / "copy", same_format=True)
    told = run(night / "runs.jsonl.gz", "--into", tmp_path / "other", "--json", "--speed", "100x")
    said = json.loads(told.stdout)
    assert (len(said["runs"]), said["documents"], said["skipped"]) == (2, 11, [])
    again = run(night / "store", "--into", tmp_path / "copy")
    assert again.exit_code == 1
    assert "is in this store already" in again.stderr


def test_what_is_bad_is_told_and_passed_over_where_that_is_asked_for(night, tmp_path):
    lines = run(night / "runs.jsonl.gz", "--json").stdout.splitlines()
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([*lines[:3], lines[3][:50], *lines[4:]]))
    refused = run(broken)
    assert refused.exit_code == 1
    assert f"{broken}: line 4: it is no document" in refused.stderr
    done = run(broken, "--skip-bad", "--into", tmp_path / "rescued")
    assert done.exit_code == 3
    assert f"passed over: {broken}: line 4: " in done.stderr
    assert "(stop): its run is stored without what was passed over" in done.stderr
    with Store(tmp_path / "rescued", mode="r") as store:
        assert sorted(record.status for record in store.query()) == ["complete", "incomplete"]


def test_no_store_is_made_where_there_is_nothing_to_replay(tmp_path):
    Store(tmp_path / "empty").close()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    for source, said in [
        ("empty", "holds no recorded runs"),
        ("picture.png", "picture.png: its beginning: expected "),
    ]:
        refused = run(tmp_path / source, "--into", tmp_path / "new")
        assert refused.exit_code == 1
        assert said in refused.stderr
        assert not (tmp_path / "new").exists()


def test_into_a_store_of_the_other_format(night, tmp_path):
    done = run(night / "runs.jsonl.gz", "--into", tmp_path / "copy", "--format", "tiff")
    assert done.exit_code == 0, done.output
    with Store(night / "store", mode="r") as store, Store(tmp_path / "copy", mode="r") as copy:
        uid = store.latest(data_type="volume").uid
        assert {one.format for one in copy.query(kind="asset")} == {"GENTLY_TIFF"}
        assert np.array_equal(copy[uid]["view_a"], store[uid]["view_a"])


def test_what_a_store_refuses_is_passed_over_and_the_run_beside_it_is_stored(tmp_path):
    documents = timed_run([0.0])
    documents[1][1]["time"] = "soon"  # and there is no stop
    whole = timed_run([1.0])
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(document) for document in [*documents, *whole]))
    refused = run(path, "--into", tmp_path / "strict")
    assert refused.exit_code == 1
    assert f"{path}: line 2 (descriptor): " in refused.stderr
    done = run(path, "--into", tmp_path / "rescued", "--skip-bad")
    assert done.exit_code == 3, done.output
    assert f"passed over: {path}: line 2 (descriptor): " in done.stderr
    with Store(tmp_path / "rescued", mode="r") as store:
        assert store[whole[0][1]["uid"]].status == "incomplete"


@pytest.mark.parametrize("arguments", [[], ["--table"]])
def test_documents_that_are_not_as_they_should_be_are_printed_all_the_same(tmp_path, arguments):
    start, descriptor, event = timed_run([0.0])
    start[1].update(time=1e300, session="a\x1b[2J night")
    descriptor[1].update(hints=3, time=float("nan"))
    event[1].update(filled=[], time=None, data={"m": "\x1b[2J"})
    path = tmp_path / "run.jsonl"
    stop = ("stop", {"uid": "s", "run_start": start[1]["uid"], "num_events": 7, "time": "now"})
    path.write_text("\n".join(json.dumps(document) for document in (start, descriptor, event, stop)))
    done = run(path, *arguments)
    assert (done.exit_code, done.exception) == (0, None), done.output
    assert "\x1b" not in done.stdout
    if not arguments:
        assert "session=a?[2J night" in done.stdout
        assert "(no valid stop document)" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
@pytest.mark.parametrize("how", ["", "--json", "--table"])
def test_a_pipe_that_is_closed_early_ends_a_replay_well(tmp_path, how):
    documents = [*timed_run(range(1, 20_000)), ("stop", {})]
    documents[-1][1].update(uid="s", run_start=documents[0][1]["uid"], time=2e9)
    with (tmp_path / "run.jsonl").open("w") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    script = "from gently_bluesky.cli import app; app()"
    line = f"set -o pipefail; {sys.executable} -c '{script}' replay run.jsonl {how} | head -c 100"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, timeout=120)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 100, b"")


def test_a_mistyped_source_makes_no_store(tmp_path):
    assert run(tmp_path / "typo", "--into", tmp_path / "new").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is nothing at nowhere"),
        ([".", "--speed", "fast"], "expected a number, 'original' or 'max'"),
        ([".", "--speed", "-1"], "speed must be a number above 0"),
        ([".", "--publish", "a", "--tiled", "b"], "give one of"),
        ([".", "--format", "tiff"], "--format says how --into stores"),
        ([".", "--table", "--json"], "two ways of printing"),
    ],
)
def test_what_cannot_be_replayed_is_told_in_a_line(arguments, said):
    done = run(*arguments)
    assert done.exit_code in {1, 2}
    assert said in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_control_c_ends_a_replay_that_waits(tmp_path):
    with Recording(tmp_path / "run.jsonl") as recording:
        for document in timed_run([0.0, 3600.0]):
            recording(*document)
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # in the background it is not
    script = f"{heeded}; from gently_bluesky.cli import app; app()"
    arguments = [sys.executable, "-u", "-c", script, "replay", str(recording.path), "--speed", "original"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(3):
                process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()  # or leaving this would wait for an hour
    assert (process.returncode, said) == (130, "interrupted: what was sent before is where it went\n")


RECEIVER = """
import sys
from bluesky.callbacks.zmq import Proxy, RemoteDispatcher
from gently_bluesky import Store
from gently_bluesky.wire import lossless, unpack

proxy = lossless(Proxy("127.0.0.1", "127.0.0.1"))
import threading
threading.Thread(target=proxy.start, daemon=True).start()
with Store(sys.argv[1]) as store:
    dispatcher = lossless(RemoteDispatcher(proxy.out_port, deserializer=unpack, strict=True))
    writer = store.writer()
    stops = []

    def take(name, doc):
        writer(name, doc)
        if name == "stop":
            stops.append(doc)
            print("stored", flush=True)

    dispatcher.subscribe(take)
    dispatcher.loop.call_later(1.0, lambda: print(proxy.in_port, flush=True))
    dispatcher.start()
"""


def test_what_is_published_arrives_as_a_whole_at_a_writer_in_another_process(night, tmp_path):
    arguments = [sys.executable, "-u", "-c", RECEIVER, str(tmp_path / "far")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        done = run(night / "store", "--publish", address)
        assert done.exit_code == 0, done.output
        assert [process.stdout.readline() for _ in range(3)] == ["stored\n"] * 3
        process.terminate()
    with Store(night / "store", mode="r") as near, Store(tmp_path / "far", mode="r") as far:
        uid = near.latest(data_type="volume").uid
        assert np.array_equal(far[uid]["view_a"], near[uid]["view_a"])


def test_nothing_is_published_where_nobody_listens(night, monkeypatch):
    monkeypatch.setattr("gently_bluesky.cli.publishing.PATIENCE_S", 0.1)
    done = run(night / "store", "--publish", "tcp://127.0.0.1:9")
    assert done.exit_code == 1
    assert "no proxy answers at tcp://127.0.0.1:9" in done.stderr
    assert "nothing was sent" in run(night / "store", "--publish", "nonsense").stderr
