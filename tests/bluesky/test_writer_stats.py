"""What a writer says of itself, the line about it on record, and frames that are taken without a copy."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import bluesky.plans as bp
import numpy as np
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.faults import GatedBackend
from gently_bluesky.testing.frames import check_frame, encoded_frame

FRAME = (64, 64)
NBYTES = 64 * 64 * 2


def stop_line(store: Store, uid: str) -> dict[str, Any]:
    """Return the last line of a run's journal."""
    return json.loads((store.root / store.record(uid).path).read_text().splitlines()[-1])


def test_the_figures_follow_frames_from_accepted_to_announced(store: Store) -> None:
    gated = GatedBackend()
    writer = store.writer(max_pending_bytes=3 * NBYTES)
    writer._desk.backend = gated
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for n in range(3):
        writer("event", run.event(descriptor, camera=encoded_frame(FRAME, "u2", event=n)))
    waiting = writer.stats()
    assert (waiting["accepted"], waiting["stored"], waiting["announced"]) == (3, 0, 0)
    assert (
        waiting["accepted_bytes"] == waiting["pending_bytes"] == waiting["peak_pending_bytes"] == 3 * NBYTES
    )
    assert waiting["waited_s"] == 0 == waiting["announced_bytes"]
    assert waiting["pending_documents"] >= 3

    held_s = time.monotonic()
    opening = threading.Timer(0.2, gated.gate.set)
    opening.start()
    writer("event", run.event(descriptor, camera=encoded_frame(FRAME, "u2", event=3)))  # waits for room
    held_s = time.monotonic() - held_s
    opening.join()
    writer("stop", run.stop())
    ended = writer.stats()
    assert (ended["accepted"], ended["stored"], ended["announced"]) == (4, 4, 4)
    assert ended["accepted_bytes"] == ended["announced_bytes"] == 4 * NBYTES
    assert ended["pending_bytes"] == ended["pending_documents"] == 0
    assert 0 < ended["waited_s"] <= held_s
    assert 0 < ended["bytes_per_s"] < 4 * NBYTES / ended["waited_s"]

    said = stop_line(store, run.uid)["storing"]
    assert (said["frames"], said["bytes"]) == (4, 4 * NBYTES)
    assert said["peak_pending_bytes"] == 3 * NBYTES
    assert said["waited_s"] == round(ended["waited_s"], 3)
    assert said == store[run.uid].storing


def test_the_line_on_record_is_of_its_run_alone(store: Store, RE: RunEngine) -> None:
    writer = store.writer()
    RE.subscribe(writer)
    uids = [RE(bp.count([EncodedCamera(shape=FRAME)], n))[0] for n in (2, 5)]
    assert [stop_line(store, uid)["storing"]["frames"] for uid in uids] == [2, 5]
    assert writer.stats()["announced"] == 7


def test_a_run_without_frames_says_nothing_of_them(store: Store, RE: RunEngine) -> None:
    from ophyd.sim import motor

    RE.subscribe(store.writer())
    (uid,) = RE(bp.count([motor], 3))
    assert "storing" not in stop_line(store, uid)
    assert store[uid].storing is None


def test_a_buffer_that_is_given_away_is_stored_without_a_copy(store: Store) -> None:
    gated = GatedBackend()
    writer = store.writer(copy=False)
    writer._desk.backend = gated
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    given = encoded_frame(FRAME, "u2")
    writer("start", run.start)
    writer("descriptor", descriptor)
    writer("event", run.event(descriptor, camera=given))
    assert gated.waiting.wait(30)
    given[:] = encoded_frame(FRAME, "u2", event=7)  # which is why nobody must do this
    gated.gate.set()
    writer("stop", run.stop())
    check_frame(np.asarray(store[run.uid]["camera"][0]), event=7)


def test_what_is_not_laid_out_as_it_is_stored_is_copied_all_the_same(store: Store) -> None:
    writer = store.writer(copy=False)
    run = HandMadeRun()
    descriptor = run.descriptor(camera={})
    writer("start", run.start)
    writer("descriptor", descriptor)
    for n, layout in enumerate([np.asfortranarray, lambda frame: frame.astype(">u2"), lambda frame: frame]):
        writer("event", run.event(descriptor, camera=layout(encoded_frame(FRAME, "u2", event=n))))
    writer("stop", run.stop())
    for n in range(3):
        check_frame(np.asarray(store[run.uid]["camera"][n]), event=n)
