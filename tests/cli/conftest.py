"""One store for all commands: an acquired run, one with a rewind, one that failed, and what was made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from nights import acquire
from typer.testing import CliRunner, Result

from gently_bluesky import Store
from gently_bluesky.cli import app
from gently_bluesky.testing.documents import HandMadeRun
from gently_bluesky.testing.frames import encoded_frame

COMMAND = str(Path(sys.executable).with_name("gently-bluesky"))
TIMEOUT_S = 120
RUDE = 'the "stage" hit\x1b[2J the \\wall'


@dataclass
class Made:
    """A store, and the uids of what is in it."""

    root: Path
    uids: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.uids[name]


def acquire_simulated(store: Store) -> str:
    from bluesky import RunEngine

    from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

    engine = RunEngine({}, call_returns_result=False)
    engine.subscribe(store.writer())
    (uid,) = engine(acquire_volume(SimulatedDiSPIM(size=32), session="night", embryo="e3"), plate=3)
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()
    return uid


def fail(store: Store) -> str:
    run = HandMadeRun(session="day", sample={"name": "fish", "age_h": 30}, plan_name="scan")
    descriptor = run.descriptor(camera={})
    with store.writer() as writer:
        writer("start", run.start)
        writer("descriptor", descriptor)
        writer("event", run.event(descriptor, 1, camera=encoded_frame((8, 9), "<u2")))
        writer("stop", {**run.stop(), "exit_status": "fail", "reason": RUDE})
    return run.uid


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store that no test changes."""
    made = Made(tmp_path_factory.mktemp("commands") / "store")
    with Store(made.root) as store:
        made.uids["rewound"] = uid = acquire(store, "tiff")
        made.uids["failed"] = fail(store)
        made.uids["simulated"] = acquire_simulated(store)
        view = store[uid]["view_a"]
        made.uids["array"], made.uids["event"] = view.uid, view[0].uid
        mip = store.put(
            np.asarray(view[0]).max(axis=0), data_type="projection", parents=[view[0].uid], operation="max_z"
        )
        both = store.put(
            {"n": 3}, data_type='count "of" \\n', parents=[mip, made["failed"]], operation="count"
        )
        made.uids |= {"projection": mip.uid, "count": both.uid}
    return made


@pytest.fixture
def command(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process, in a folder and a home of its own."""
    monkeypatch.setenv("GENTLY_STORE", str(made.root))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == code, f"{done.stdout}{done.stderr}{done.exception!r}"
        return done

    return run


@pytest.fixture
def shell(made: Made, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a line of the shell in a process of its own."""

    def run(line: str, *, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "GENTLY_STORE": str(made.root),
            "PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}",
            **more,
        }
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == code, done.stderr
        return done

    return run
