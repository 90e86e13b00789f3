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
from gently_bluesky.errors import GentlyError, InvalidSetting, MissingExtra, NotAStore
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
    with pytest.raises(InvalidSetting, match=r"the store of this namespace"):
        configure(user_ns, tmp_path / "another")
    assert user_ns["store"].root == root
    assert not (tmp_path / "another").exists()


def test_a_run_engine_that_is_made_anew_is_subscribed_to(
    user_ns: dict[str, Any], RE: RunEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the cell of a notebook that makes it is run again."""
    added = configure(user_ns)
    store, writer, bec = (user_ns[name] for name in ("store", "writer", "bec"))
    end(user_ns["RE"])
    user_ns["RE"] = RE
    assert configure(user_ns) == added
    assert (user_ns["store"], user_ns["writer"], user_ns["bec"]) == (store, writer, bec)
    (uid,) = RE(bp.count([EncodedCamera()]))
    assert store[uid].status == "complete"
    assert store[uid].start["session"] == TODAY
    assert capsys.readouterr().out.count("Transient Scan ID") == 1


def test_a_store_that_was_closed_is_opened_again(
    user_ns: dict[str, Any], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = configure(user_ns)
    user_ns["store"].close()
    with pytest.raises(InvalidSetting, match=r"another, named by you; nothing"):
        configure(user_ns, tmp_path / "another")
    with pytest.raises(InvalidSetting, match=r"an open store.*closed"):
        configure(user_ns, user_ns["store"])
    assert configure(user_ns) == added
    assert user_ns["store"].root == root
    (uid,) = user_ns["RE"](bp.count([EncodedCamera()]))  # a closed writer would refuse it
    assert user_ns["store"][uid].status == "complete"
    assert capsys.readouterr().out.count("Transient Scan ID") == 1  # one table


def test_a_store_and_a_writer_that_are_there_are_used(
    user_ns: dict[str, Any], tmp_path: Path, RE: RunEngine
) -> None:
    with Store(tmp_path / "theirs") as store:
        writer = store.writer(format="tiff")
        RE.subscribe(writer)
        user_ns.update(RE=RE, writer=writer)
        with pytest.raises(InvalidSetting, match=r"in which writer is free"):
            configure(user_ns)
        user_ns["store"] = store
        configure(user_ns)
        assert (user_ns["store"], user_ns["writer"]) == (store, writer)
        (uid,) = RE(bp.count([EncodedCamera()]))
        assert store[uid].status == "complete"


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


def test_plots_are_drawn_as_soon_as_matplotlib_is_interactive(
    user_ns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    configure(user_ns)
    enabled: list[bool] = []
    monkeypatch.setattr(user_ns["bec"], "enable_plots", lambda: enabled.append(True))
    user_ns["RE"](bp.count([EncodedCamera()]))
    assert not enabled
    assert not user_ns["bec"]._plots_enabled
    monkeypatch.setattr(mpl, "is_interactive", lambda: True)
    user_ns["RE"](bp.count([EncodedCamera()], 2))
    assert enabled == [True]  # and never again: whoever disables them after that has none


class NoMatplotlib:
    """Stands where modules are looked for, and says that there is none of this one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_without_matplotlib_the_error_names_the_extra_and_how_to_do_without(
    user_ns: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bluesky.callbacks.best_effort", "matplotlib"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoMatplotlib(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"gently-bluesky\[profile\].*best_effort=False"):
        configure(user_ns)
    assert user_ns == {}
    assert not root.exists()
    configure(user_ns, best_effort=False)
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


def test_metadata_that_cannot_be_kept_keep_no_store_open(tmp_path: Path) -> None:
    code = """
from gently_bluesky import configure
configure(globals(), "store")
RE.md["sample"] = {}
RE.md["sample"]["camera"] = object()
writer("start", {"uid": "left-open", "time": 1.0})
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "STORAGE: RE.md was not written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").rglob(".live"))


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
