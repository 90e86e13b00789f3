"""A namespace made one for acquiring, without a shell, as a script or a worker of a queue server has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine

from gently_bluesky import Store, configure, ipython
from gently_bluesky.errors import GentlyError, InvalidSetting, NotAStore
from gently_bluesky.testing.devices import EncodedCamera
from gently_bluesky.testing.documents import HandMadeRun

TODAY = datetime.now().date().isoformat()


@pytest.fixture
def user_ns(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An empty namespace, for a store that nobody has named but the environment."""
    monkeypatch.setenv("GENTLY_STORE", str(root))
    namespace: dict[str, Any] = {}
    yield namespace
    if isinstance(namespace.get("store"), Store):
        namespace["store"].close()
    if isinstance(namespace.get("RE"), RunEngine) and not namespace["RE"].loop.is_closed():
        end(namespace["RE"])


def end(engine: RunEngine) -> None:
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()


def test_everything_that_is_acquired_goes_into_the_store_that_is_configured(
    user_ns: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = configure(user_ns)
    assert added == [
        *("store", "writer", "RE", "bec"),
        *("bp", "bps", "bpp", "np", "replay", "session", "with_parents"),
    ]
    assert set(added) == set(user_ns)
    assert user_ns["store"].root == root
    assert "Data go to" not in capsys.readouterr().out  # there is no shell, and nobody to read it
    (uid,) = user_ns["RE"](bp.count([EncodedCamera()], 2))
    run = user_ns["store"][uid]
    assert (run.status, run.record.stored, run.start["session"]) == ("complete", 2, TODAY)
    assert uid[:8] in capsys.readouterr().out  # the table of BestEffortCallback


def test_configuring_again_changes_nothing(user_ns: dict[str, Any]) -> None:
    added = configure(user_ns, banner=False)
    before = dict(user_ns)
    assert configure(user_ns) == added
    assert user_ns == before
    (uid,) = user_ns["RE"](bp.count([EncodedCamera()]))  # a second writer would refuse the run
    assert user_ns["store"][uid].status == "complete"


def test_a_namespace_that_acquires_into_one_store_is_not_told_that_it_is_another(
    user_ns: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    added = configure(user_ns)
    assert configure(user_ns, root) == configure(user_ns, user_ns["store"]) == added
    with pytest.raises(InvalidSetting, match=r"acquires already"):
        configure(user_ns, tmp_path / "another")
    assert user_ns["store"].root == root
    assert not (tmp_path / "another").exists()


def test_metadata_and_session_go_on_in_the_next_session(user_ns: dict[str, Any], root: Path) -> None:
    configure(user_ns)
    user_ns["RE"].md["sample"] = "e3"
    user_ns["RE"].md["session"] = "screen 3"
    user_ns["RE"](bp.count([EncodedCamera()]))
    user_ns["store"].close()
    end(user_ns["RE"])
    user_ns.clear()
    configure(user_ns)
    user_ns["RE"](bp.count([EncodedCamera()]))
    start = user_ns["store"][-1].start
    assert (start["scan_id"], start["sample"], start["session"]) == (2, "e3", "screen 3")


@pytest.mark.parametrize(
    ("named", "last_run_h", "expected"),
    [
        (None, None, TODAY),
        ("screen 3", None, "screen 3"),
        ("2026-01-01", None, TODAY),
        ("2026-01-01", 2.0, "2026-01-01"),
        ("2026-01-01", 30.0, TODAY),
        (TODAY, None, TODAY),
        (17, None, 17),
    ],
)
def test_a_session_is_named_by_its_date_unless_it_goes_on_or_was_named(
    store: Store, named: str | None, last_run_h: float | None, expected: str
) -> None:
    if last_run_h is not None:
        began = datetime.now() - timedelta(hours=last_run_h)
        run = HandMadeRun(session=named, time=began.timestamp())
        with store.writer() as writer:
            writer("start", run.start)
            writer("stop", run.stop())
    metadata: dict[str, Any] = {} if named is None else {"session": named}
    ipython._name_session(metadata, store)
    assert metadata["session"] == expected


def test_somebody_elses_run_engine_is_used_as_it_is(
    user_ns: dict[str, Any], root: Path, RE: RunEngine
) -> None:
    RE.md["beamline"] = "7"
    user_ns["RE"] = RE
    user_ns["np"] = "theirs"
    configure(user_ns, writer={"format": "tiff"}, best_effort=False)
    assert user_ns["RE"] is RE
    assert user_ns["np"] == "theirs"
    assert "bec" not in user_ns
    (uid,) = RE(bp.count([EncodedCamera()]))
    assert user_ns["store"][uid].start["beamline"] == "7"
    assert not (root / "metadata.json").exists()
    (asset,) = user_ns["store"].query(kind="asset")
    assert asset.format == "GENTLY_TIFF"


def test_callbacks_that_come_before_the_store_are_warned_of(user_ns: dict[str, Any], RE: RunEngine) -> None:
    RE.subscribe(lambda name, doc: None)
    user_ns["RE"] = RE
    with pytest.warns(RuntimeWarning, match=r"before the store"):
        configure(user_ns)


def test_where_that_warning_is_an_error_nothing_is_subscribed_and_the_store_is_closed(
    user_ns: dict[str, Any], root: Path, RE: RunEngine
) -> None:
    RE.subscribe(lambda name, doc: None)
    user_ns["RE"] = RE
    with pytest.raises(RuntimeWarning, match=r"before the store"):
        configure(user_ns)
    assert set(user_ns) == {"RE"}
    RE(bp.count([EncodedCamera()]))
    with Store(root) as store:
        assert list(store.query()) == []


def test_a_picture_that_fails_ends_no_plan(user_ns: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    configure(user_ns)

    def clumsy(*_: object) -> None:
        raise ValueError("no such axis")

    monkeypatch.setattr(type(user_ns["bec"]), "__call__", clumsy)
    with pytest.warns(RuntimeWarning, match=r"no such axis"):
        (uid,) = user_ns["RE"](bp.count([EncodedCamera()]))
    assert user_ns["store"][uid].status == "complete"


def test_a_failure_is_told_at_once(user_ns: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    configure(user_ns)
    camera = EncodedCamera()

    def plan() -> Any:
        import bluesky.plan_stubs as bps

        yield from bps.open_run()
        yield from bps.trigger_and_read([camera])
        camera.shape = (3, 3)
        yield from bps.trigger_and_read([camera])

    with pytest.raises(GentlyError) as caught:
        user_ns["RE"](plan())
    deadline_s = time.monotonic() + 60
    said = ""
    while str(caught.value) not in said and time.monotonic() < deadline_s:
        said += capsys.readouterr().err
    assert f"STORAGE: {caught.value}" in said


@pytest.mark.parametrize(
    ("there", "settings", "error"),
    [
        ({"store": "shop"}, {}, InvalidSetting),
        ({"writer": "Kafka"}, {}, InvalidSetting),
        ({}, {"writer": {"format": "jpeg"}}, InvalidSetting),
        ({}, {"writer": {"formt": "zarr"}}, InvalidSetting),
        ({}, {"store": __file__}, NotAStore),
    ],
)
def test_what_cannot_be_configured_adds_nothing(
    user_ns: dict[str, Any], there: dict[str, Any], settings: dict[str, Any], error: type[Exception]
) -> None:
    user_ns.update(there)
    with pytest.raises(error, match=r"nothing|expected"):
        configure(user_ns, **settings)
    assert user_ns == there


def test_a_plain_program_ends_as_it_should_and_its_store_is_closed(tmp_path: Path) -> None:
    code = """
from gently_bluesky import configure
from gently_bluesky.testing.devices import EncodedCamera
configure(globals(), "store")
RE.md["sample"] = {"age_h": 1}
RE.md["sample"]["age_h"] = 2
from bluesky.preprocessors import run_wrapper
try:
    RE(run_wrapper(bps.pause()))
except Exception as error:
    print(type(error).__name__)
import sys
print("IPython" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gently" not in done.stderr.lower()  # bluesky says there that a plan was left
    assert "RunEngineInterrupted\nFalse" in done.stdout
    assert not list((tmp_path / "store").rglob(".live"))
    with Store(tmp_path / "store", mode="r") as store:
        assert store[-1].status == "incomplete"
    assert '"age_h": 2' in (tmp_path / "store" / "metadata.json").read_text("utf-8")


QUEUE = """
import sys
from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace, load_profile_collection

namespace = load_profile_collection(sys.argv[1])
plans, devices, *_ = existing_plans_and_devices_from_nspace(nspace=namespace)
print(sorted(plans))
assert {"light_sheet", "camera_a"} <= set(devices), devices
assert not devices.get("store", {}).get("is_readable"), devices["store"]
(uid,) = namespace["RE"](namespace["acquire_volume"](namespace["scope"]))
print(namespace["store"][uid].status)
"""


def test_the_worker_of_a_queue_server_loads_the_profile(tmp_path: Path) -> None:
    startup = Path(__file__).parents[2] / "profiles" / "profile_dispim" / "startup"
    done = subprocess.run(
        [sys.executable, "-c", QUEUE, str(startup)],
        env={**os.environ, "GENTLY_STORE": str(tmp_path / "store")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "['acquire_volume', 'focus_sweep', 'timelapse']" in done.stdout
    assert done.stdout.splitlines()[-1] == "complete"


def test_an_extension_is_all_that_somebody_elses_shell_needs(tmp_path: Path) -> None:
    lines = [
        "%load_ext gently_bluesky",
        "from gently_bluesky.testing.devices import EncodedCamera",
        "_ = RE(bp.count([EncodedCamera()]))",
        "%load_ext gently_bluesky",
        "%runs",
        "print(sorted(record.status for record in store.query()))",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", "\n".join(lines)],
        env={**os.environ, "GENTLY_STORE": str(tmp_path / "store"), "IPYTHONDIR": str(tmp_path / "ipython")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Data go to {tmp_path / 'store'}" in done.stdout
    assert "count" in done.stdout
    assert done.stdout.splitlines()[-1] == "['complete']"
